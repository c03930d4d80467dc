//! Records of version 2 and light queues of a Java broker, opened by ours; its batch consume queues
//! stay as they are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod golden;

use answers::{Record, open};
use golden::GoldenSet;
use store::{AllMessages, GetLimits, GetStatus, LastExit, MessageStore};

/// The topic whose queues are batch consume queues: golden_queues.rs reads them.
const BATCH_TOPIC: &str = "GoldBcq";

fn records(set: &GoldenSet) -> Vec<Record> {
    let mut records = answers::records(set);
    records.retain(|record| record.topic != BATCH_TOPIC);
    records
}

fn check(store: &MessageStore, set: &GoldenSet) {
    let records = records(set);
    answers::check_records(store, &records);
    let mut served = set.served();
    served.retain(|message| message["topic"] != BATCH_TOPIC);
    answers::check_served(store, &served);
    let mut manifest = set.manifest();
    manifest["topics"]
        .as_object_mut()
        .unwrap()
        .remove(BATCH_TOPIC);
    answers::check_queues(store, &manifest);
    check_light_queues(store, &records, &manifest["lmq"]);
}

/// The light queues have Java's bounds, and each record is found at its place in each of its own.
fn check_light_queues(store: &MessageStore, records: &[Record], bounds: &serde_json::Value) {
    for (name, bounds) in bounds.as_object().unwrap() {
        assert_eq!(store.min_offset(name, 0), bounds["min"].as_i64(), "{name}");
        assert_eq!(store.max_offset(name, 0), bounds["max"].as_i64(), "{name}");
    }
    let limits = GetLimits {
        count_max: 1,
        bytes_max: 1,
    };
    let mut count = 0;
    for record in records {
        for (name, offset) in &record.light_places {
            let got = store.get(name, 0, *offset, &limits, &AllMessages).unwrap();
            assert_eq!(got.status, GetStatus::Found, "{name} at {offset}");
            let view = got.messages.records().next().unwrap();
            assert_eq!(
                view.physical_offset() as u64,
                record.offset,
                "{name} at {offset}"
            );
            count += 1;
        }
    }
    assert_eq!(count, 40, "messages in light queues");
}

#[test]
fn every_answer_equals_javas() {
    let set = GoldenSet::unpack("special");
    let before = answers::fingerprint(&set.store_dir());
    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Clean);
    check(&store, &set);
    store.close().unwrap();
    drop(store);
    let after = answers::fingerprint(&set.store_dir());
    let is_batch =
        |path: &&std::path::PathBuf| path.to_string_lossy().contains("batchconsumequeue");
    assert!(before.keys().any(|path| is_batch(&path)));
    for path in before.keys().filter(is_batch) {
        assert_eq!(before[path], after[path], "{}", path.display());
    }
}

//! The store that a Java broker wrote and closed, opened by ours: every answer equals Java's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod golden;

use golden::GoldenSet;
use message::{Parsed, RecordView};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::{
    AllMessages, Boundary, GetLimits, GetStatus, IndexOptions, KeyQuery, LastExit, MessageStore,
    StoreOptions,
};

fn open(set: &GoldenSet) -> (MessageStore, store::OpenReport) {
    let number = |key: &str| -> u64 {
        let text = set
            .setting(key)
            .unwrap_or_else(|| panic!("{key} in broker.conf"));
        text.parse()
            .unwrap_or_else(|error| panic!("{key}={text}: {error}"))
    };
    let mut options = StoreOptions::new(set.store_dir());
    options.segment_len = number("mappedFileSizeCommitLog");
    options.queue_file_len = number("mappedFileSizeConsumeQueue");
    options.index = Some(IndexOptions {
        slot_count: number("maxHashSlotNum") as u32,
        entry_count_max: number("maxIndexNum") as u32,
        ..IndexOptions::DEFAULT
    });
    MessageStore::open(options).unwrap()
}

/// Every answer that the manifest, the records and the served messages of a set hold.
fn check(store: &MessageStore, set: &GoldenSet) {
    let manifest = set.manifest();
    let log = store.log();
    assert_eq!(
        Some(log.min_offset()),
        manifest["commitLogMinOffset"].as_u64()
    );
    assert_eq!(
        Some(log.max_offset()),
        manifest["commitLogMaxOffset"].as_u64()
    );
    check_records(store, set);
    check_served(store, set);
    check_queues(store, &manifest);
    check_queries(store, &manifest);
}

fn check_records(store: &MessageStore, set: &GoldenSet) {
    for record in set.records() {
        let offset = record["offset"].as_u64().unwrap();
        let slice = store
            .look_up(offset)
            .unwrap_or_else(|| panic!("no record at {offset}"));
        let hash = format!("{:x}", Sha256::digest(&*slice));
        assert_eq!(
            Some(hash.as_str()),
            record["recordSha256"].as_str(),
            "record at {offset}"
        );
    }
}

fn check_served(store: &MessageStore, set: &GoldenSet) {
    for served in set.served() {
        let topic = served["topic"].as_str().unwrap();
        let queue_id = served["queueId"].as_i64().unwrap() as i32;
        let queue_offset = served["queueOffset"].as_i64().unwrap();
        let limits = GetLimits {
            count_max: 1,
            bytes_max: 1,
        };
        let got = store
            .get(topic, queue_id, queue_offset, &limits, &AllMessages)
            .unwrap();
        assert_eq!(
            got.status,
            GetStatus::Found,
            "{topic}-{queue_id} at {queue_offset}"
        );
        assert_eq!(got.next_offset, queue_offset + 1);
        let view = got.messages.records().next().unwrap();
        assert_eq!(
            Some(view.physical_offset()),
            served["commitLogOffset"].as_i64()
        );
        assert_eq!(view.queue_offset(), queue_offset);
        assert_eq!(
            Some(view.store_timestamp_ms()),
            served["storeTimestamp"].as_i64()
        );
        for (name, value) in served["properties"].as_object().unwrap() {
            assert_eq!(
                view.properties().find(name),
                value.as_str(),
                "{topic} {name}"
            );
        }
    }
}

fn check_queues(store: &MessageStore, manifest: &Value) {
    for (topic, of_topic) in manifest["topics"].as_object().unwrap() {
        for (queue_id, queue) in of_topic["queues"].as_object().unwrap() {
            let id: i32 = queue_id.parse().unwrap();
            let place = format!("{topic}-{queue_id}");
            // A queue that was never put to has no files: Java answers 0.
            assert_eq!(
                store.min_offset(topic, id).or(Some(0)),
                queue["min"].as_i64(),
                "{place}"
            );
            assert_eq!(
                store.max_offset(topic, id).or(Some(0)),
                queue["max"].as_i64(),
                "{place}"
            );
            for search in queue["searchOffset"].as_array().into_iter().flatten() {
                let at = search["timestamp"].as_i64().unwrap();
                for (boundary, name) in [(Boundary::Lower, "lower"), (Boundary::Upper, "upper")] {
                    let found = store.offset_by_time(topic, id, at, boundary).unwrap();
                    assert_eq!(Some(found), search[name].as_i64(), "{place} {name} {at}");
                }
            }
        }
    }
}

fn check_queries(store: &MessageStore, manifest: &Value) {
    for query in manifest["queryByKey"].as_array().unwrap() {
        let text = |name: &str| query[name].as_str().unwrap();
        let answer = store
            .query(&KeyQuery {
                topic: text("topic"),
                key: text("key"),
                count_max: query["maxNum"].as_u64().unwrap() as usize,
                begin_ms: query["begin"].as_i64().unwrap(),
                end_ms: query["end"].as_i64().unwrap(),
            })
            .unwrap();
        assert_eq!(offsets(&query["hits"]), found(&answer), "{query}");
        // Java's client threw where nothing was found, and there was no header to look at.
        if let Some(last_update_ms) = query["indexLastUpdateTimestamp"].as_i64() {
            assert_eq!(answer.index_last_update_ms, last_update_ms, "{query}");
        }
    }
    for query in manifest["queryByMsgId"].as_array().unwrap() {
        let answer = store
            .query(&KeyQuery {
                topic: query["topic"].as_str().unwrap(),
                key: query["uniqKey"].as_str().unwrap(),
                count_max: 32,
                begin_ms: 0,
                end_ms: i64::MAX,
            })
            .unwrap();
        assert_eq!(offsets(&query["byUniqKey"]), found(&answer), "{query}");
        let id: message::MessageId = query["offsetMsgId"].as_str().unwrap().parse().unwrap();
        let slice = store.look_up(id.physical_offset as u64).unwrap();
        let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
            panic!("a record")
        };
        assert_eq!(view.message_id(), id);
        let by_id = &query["byOffsetMsgId"];
        assert_eq!(
            Some(view.physical_offset()),
            by_id["commitLogOffset"].as_i64()
        );
    }
}

fn offsets(hits: &Value) -> Vec<i64> {
    let mut offsets: Vec<i64> = hits
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| hit["commitLogOffset"].as_i64().unwrap())
        .collect();
    offsets.sort_unstable();
    offsets
}

fn found(answer: &store::KeyAnswer) -> Vec<i64> {
    answer
        .messages
        .records()
        .map(|view| view.physical_offset())
        .collect()
}

#[test]
fn every_answer_equals_javas() {
    let set = GoldenSet::unpack("clean");
    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Clean);
    assert!(report.log.cut.is_none(), "{report}");
    check(&store, &set);
    store.close().unwrap();
    drop(store);

    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Clean);
    check(&store, &set);
}

#[test]
fn every_answer_equals_javas_after_a_crash_of_ours() {
    let set = GoldenSet::unpack("clean");
    drop(open(&set));
    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Unclean);
    check(&store, &set);
}

#[test]
fn derived_files_are_built_again_from_the_log() {
    let set = GoldenSet::unpack("clean");
    set.remove("consumequeue");
    set.remove("index");
    set.remove("checkpoint");
    set.write("abort", b"1");
    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Unclean);
    check(&store, &set);
}

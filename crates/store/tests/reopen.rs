//! A store that was closed, or whose process died, answers after the next opening as it did
//! before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and damages files behind the store's back"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "damages real files, beside the store under test"
)]

use message::Message;
use store::{
    AllMessages, GetLimits, GetStatus, IndexOptions, KeyQuery, LastExit, MessageStore, StoreOptions,
};

const TOPIC: &str = "Orders";

fn open(dir: &std::path::Path) -> (MessageStore, LastExit) {
    let mut options = StoreOptions::new(dir);
    options.segment_len = 64 * 1024;
    options.queue_file_len = 20 * 64;
    options.index = Some(IndexOptions {
        slot_count: 1000,
        entry_count_max: 4000,
        ..IndexOptions::DEFAULT
    });
    let (store, report) = MessageStore::open(options).unwrap();
    (store, report.last_exit)
}

fn put(store: &MessageStore, number: usize) {
    let properties =
        format!("UNIQ_KEY\u{1}ID{number:030}\u{2}KEYS\u{1}key{number}\u{2}TAGS\u{1}T\u{2}");
    let body = format!("body {number}");
    let put = store.put(&Message {
        properties: properties.as_bytes(),
        ..Message::new(TOPIC, (number % 3) as i32, body.as_bytes())
    });
    assert_eq!(put.unwrap().queue_offset, (number / 3) as i64);
}

/// Every message is found by its place in the queue, by its key and by its unique key.
fn check(store: &MessageStore, count: usize) {
    while store.dispatch_behind_bytes() > 0 {
        std::thread::yield_now();
    }
    for number in 0..count {
        let limits = GetLimits {
            count_max: 1,
            bytes_max: 1 << 20,
        };
        let (queue_id, offset) = ((number % 3) as i32, (number / 3) as i64);
        let got = store
            .get(TOPIC, queue_id, offset, &limits, &AllMessages)
            .unwrap();
        assert_eq!(got.status, GetStatus::Found, "message {number}");
        let body = format!("body {number}");
        assert_eq!(
            got.messages.records().next().unwrap().body(),
            body.as_bytes()
        );
        for key in [format!("key{number}"), format!("ID{number:030}")] {
            let query = KeyQuery {
                topic: TOPIC,
                key: &key,
                count_max: 32,
                begin_ms: 0,
                end_ms: i64::MAX,
            };
            let answer = store.query(&query).unwrap();
            assert_eq!(answer.messages.count(), 1, "{key}");
        }
    }
}

#[test]
fn answers_are_the_same_after_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let (store, last_exit) = open(dir.path());
        assert_eq!(last_exit, LastExit::Clean);
        check(&store, round * 40);
        (round * 40..round * 40 + 40).for_each(|number| put(&store, number));
        check(&store, round * 40 + 40);
        store.close().unwrap();
    }
}

#[test]
fn answers_are_the_same_after_a_death() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let (store, last_exit) = open(dir.path());
        assert_eq!(last_exit == LastExit::Unclean, round > 0);
        check(&store, round * 40);
        (round * 40..round * 40 + 40).for_each(|number| put(&store, number));
    }
}

/// Found by power cuts: the header of the last index file had reached the device, the entries that
/// it counted had not. Cutting them takes back the last whole entry too, which may be torn; that
/// one belonged to a message below all that the store's own state vouched for, and its key was
/// gone for good.
#[test]
fn the_last_key_is_found_when_entries_behind_it_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    (0..40).for_each(|number| put(&store, number));
    check(&store, 40);
    store.log().flush_now().unwrap();
    store.step_flush_derived().unwrap();
    drop(store);
    let mut files = std::fs::read_dir(dir.path().join("index")).unwrap();
    let path = files.next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    // The count of entries in the header, big-endian.
    bytes[39] += 3;
    std::fs::write(&path, &bytes).unwrap();
    let (store, last_exit) = open(dir.path());
    assert_eq!(last_exit, LastExit::Unclean);
    check(&store, 40);
    drop(store);
    // The entry was taken back, and the machine died again before it was put in its place.
    bytes[39] -= 4;
    let last_entry = 40 + 1000 * 4 + 80 * 20;
    bytes[last_entry..last_entry + 20].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let (store, _) = open(dir.path());
    check(&store, 40);
}

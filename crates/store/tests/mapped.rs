//! How much of a store is mapped at a time. One test: the gauge is the whole process's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use message::Message;
use store::mmap_core::{OsIo, counters};
use store::{AllMessages, GetLimits, GetStatus, MessageStore, StoreOptions, SystemClock};

const SEGMENT_LEN: u64 = 64 * 1024;
const QUEUE_FILE_LEN: u64 = 20 * 50;
const BUDGET: u64 = 4 * SEGMENT_LEN;
const COUNT: i64 = 900;
const QUEUES: i64 = 3;
const LIMITS: GetLimits = GetLimits {
    count_max: 4,
    bytes_max: 1 << 20,
};

fn open(dir: &Path, unmap_after: Duration) -> MessageStore {
    let mut options = StoreOptions::new(dir);
    options.segment_len = SEGMENT_LEN;
    options.queue_file_len = QUEUE_FILE_LEN;
    options.index = None;
    options.mapped_len_max = Some(BUDGET);
    options.unmap_after = Some(unmap_after);
    let clock = Arc::new(SystemClock::new());
    MessageStore::open_with(OsIo, options, clock).unwrap().0
}

fn body(number: i64) -> Vec<u8> {
    vec![number as u8; 1_000]
}

fn put(store: &MessageStore, number: i64) {
    let put = store.put(&Message::new(
        "Topic",
        (number % QUEUES) as i32,
        &body(number),
    ));
    assert_eq!(put.unwrap().queue_offset, number / QUEUES);
}

fn check(messages: &store::Messages, queue_id: i64, mut offset: i64) {
    for record in messages.records() {
        assert_eq!(record.queue_offset(), offset);
        assert_eq!(record.body(), body(offset * QUEUES + queue_id));
        offset += 1;
    }
}

#[test]
fn what_is_read_stays_mapped_within_the_budget_and_what_is_held_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Duration::from_secs(3600));
    for number in 0..COUNT {
        put(&store, number);
        while store.step_dispatch().unwrap() {}
        // A queue that needs another file unmaps its own ones only, until the next step.
        assert!(counters::mapped_bytes() <= BUDGET + 2 * QUEUES as u64 * QUEUE_FILE_LEN);
    }
    store.close().unwrap();
    drop(store);
    assert_eq!(counters::mapped_bytes(), 0);

    let store = open(dir.path(), Duration::from_secs(3600));
    let segments = store.log().segments().segments().len() as u64;
    assert!(segments * SEGMENT_LEN > 3 * BUDGET);
    let held = store.get("Topic", 1, 40, &LIMITS, &AllMessages).unwrap();
    let mut most = 0;
    for _ in 0..2 {
        for queue_id in 0..QUEUES {
            let mut offset = 0;
            while offset < COUNT / QUEUES {
                let got = store.get("Topic", queue_id as i32, offset, &LIMITS, &AllMessages);
                let got = got.unwrap();
                assert_eq!(got.status, GetStatus::Found);
                check(&got.messages, queue_id, offset);
                offset = got.next_offset;
                drop(got);
                most = most.max(counters::mapped_bytes());
            }
            store.step_unmap();
            // The segment of what is held is one of the process's mappings, not of the budget's.
            assert!(counters::mapped_bytes() <= BUDGET + SEGMENT_LEN + 4_096);
        }
    }
    // What is held, queue files as above, and the checkpoint.
    let slack = SEGMENT_LEN + 2 * QUEUES as u64 * QUEUE_FILE_LEN + 4_096;
    assert!(most <= BUDGET + slack, "{most} bytes were mapped");
    assert!(most > BUDGET / 2, "the budget is used: {most}");
    check(&held.messages, 1, 40);
    drop(held);
    store.close().unwrap();
    drop(store);

    let store = open(dir.path(), Duration::ZERO);
    for offset in (0..COUNT / QUEUES).step_by(20) {
        store
            .get("Topic", 0, offset, &LIMITS, &AllMessages)
            .unwrap();
    }
    assert!(counters::mapped_bytes() > 3 * SEGMENT_LEN);
    store.step_unmap();
    // The first and the last segment, and the last file of the queue that was read.
    let ends = 2 * SEGMENT_LEN + QUEUE_FILE_LEN + 4_096;
    assert!(counters::mapped_bytes() <= ends, "what nobody uses goes");
    let got = store.get("Topic", 2, 77, &LIMITS, &AllMessages).unwrap();
    check(&got.messages, 2, 77);
}

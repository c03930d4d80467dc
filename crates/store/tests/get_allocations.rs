//! What a read of messages that are in memory allocates: the same few pieces, however many messages
//! it finds and however they lie in the log.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use message::Message;
use store::{AllMessages, GetLimits, MessageStore, StoreOptions};

const QUEUES: i32 = 4;
const PER_QUEUE: i64 = 64;
/// The list of mappings that the messages lie in, and the list of their places in the one mapping.
const ALLOCATIONS: u64 = 2;

/// A store whose messages go to its queues in turn, `run` of them to one before the next.
fn filled(dir: &std::path::Path, run: i64) -> MessageStore {
    let mut options = StoreOptions::new(dir);
    options.segment_len = 16 << 20;
    let (store, _report) = MessageStore::open(options).unwrap();
    for number in 0..PER_QUEUE * i64::from(QUEUES) {
        let queue_id = (number / run % i64::from(QUEUES)) as i32;
        let message = Message {
            properties: b"TAGS\x01TagA\x02",
            ..Message::new("orders", queue_id, &[b'x'; 1024])
        };
        store.put(&message).unwrap();
    }
    while store.dispatch_behind_bytes() > 0 {
        std::thread::yield_now();
    }
    store
}

#[test]
fn a_hot_read_allocates_twice_however_many_messages_it_finds() {
    for (run, slice_count) in [(32, 1), (1, 32)] {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), run);
        let get = |count_max| {
            let limits = GetLimits {
                count_max,
                bytes_max: 1 << 20,
            };
            let got = store.get_in_memory("orders", 1, 0, &limits, &AllMessages);
            got.unwrap()
        };
        // The first read opens what is opened once.
        let got = get(32);
        assert_eq!(got.messages.count(), 32);
        assert_eq!(got.messages.slices().count(), slice_count);
        for count_max in [1, 2, 8, 32] {
            let mut found = 0;
            let measured = allocation_counter::measure(|| {
                let got = get(count_max);
                // What is found is read, too: its bytes, and what its records say.
                let bytes: usize = got.messages.slices().map(<[u8]>::len).sum();
                assert!(bytes > 1024 * count_max);
                found = got.messages.records().count();
            });
            assert_eq!(found, count_max);
            assert_eq!(
                measured.count_total, ALLOCATIONS,
                "{count_max} messages in runs of {run}"
            );
            assert_eq!(measured.count_current, 0, "all of it is given back");
        }
        store.close().unwrap();
    }
}

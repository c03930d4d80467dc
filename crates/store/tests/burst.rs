//! Bursts: puts that wake nobody are dispatched all the same, by who put them or by the thread.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use message::{BatchMessage, Message, encode_batch_message};
use store::{FlushMode, IndexOptions, KeyQuery, MessageStore, StoreOptions};

/// Far less than the dispatching thread sleeps when nobody wakes it.
const DEADLINE: Duration = Duration::from_secs(20);

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    options.segment_len = 1 << 20;
    options.queue_file_len = 20 * 1024;
    options.index = Some(IndexOptions {
        slot_count: 64,
        entry_count_max: 1 << 20,
        ..IndexOptions::DEFAULT
    });
    // The disk of whoever runs this may be full.
    options.clean.full_percent = 90;
    options.clean.forced_enabled = false;
    options
}

fn put(store: &MessageStore, queue_id: i32) {
    let message = Message {
        properties: b"KEYS\x01key\x02",
        ..Message::new("Topic", queue_id, b"body")
    };
    store.put(&message).unwrap();
}

/// Puts a batch whose messages have a key each, and one that all have.
fn put_batch(store: &MessageStore, queue_id: i32, count: usize) {
    let mut body = Vec::new();
    for number in 0..count {
        let properties = format!("TAGS\x01Tag{}\x02KEYS\x01key{number} all\x02", number % 3);
        let message = BatchMessage {
            flag: 0,
            body: &vec![b'b'; number],
            properties: properties.as_bytes(),
        };
        encode_batch_message(&message, &mut body).unwrap();
    }
    let message = Message::new("Topic", queue_id, &body);
    store.put_batch(&message).unwrap();
}

fn wait_dispatched(store: &MessageStore) {
    let deadline = Instant::now() + DEADLINE;
    while store.dispatch_behind_bytes() > 0 {
        assert!(Instant::now() < deadline, "a put was left undispatched");
        std::thread::yield_now();
    }
}

#[test]
fn a_burst_is_dispatched_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = MessageStore::open(options(dir.path())).unwrap();
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    store.listen(Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    // The dispatching thread sleeps from here on.
    put(&store, 0);
    wait_dispatched(&store);
    for round in 1..=100 {
        let burst = store.burst().unwrap();
        (0..10).for_each(|_| put(&store, 0));
        drop(burst);
        wait_dispatched(&store);
        assert_eq!(arrived.load(Ordering::SeqCst), 1 + round * 10);
    }
    store.close().unwrap();
}

/// What dispatch makes of batches, whole and in pieces, from notes; and of the same log from the
/// records alone.
#[test]
fn batches_are_dispatched_as_their_records_would_be() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = MessageStore::open(options(dir.path())).unwrap();
    let burst = store.burst().unwrap();
    for (number, count) in [1, 32, 7, 100, 2].into_iter().enumerate() {
        put_batch(&store, number as i32 % 2, count);
        put(&store, 0);
    }
    drop(burst);
    wait_dispatched(&store);
    let seen = |store: &MessageStore| {
        let entries = |queue_id| {
            let end = store.max_offset("Topic", queue_id).unwrap();
            (0..end).map(move |offset| (queue_id, store.entry("Topic", queue_id, offset).unwrap()))
        };
        let query = KeyQuery {
            topic: "Topic",
            key: "all",
            count_max: 1000,
            begin_ms: 0,
            end_ms: i64::MAX,
        };
        let found = store.query(&query).unwrap().messages.records().count();
        (entries(0).chain(entries(1)).collect::<Vec<_>>(), found)
    };
    let from_notes = seen(&store);
    assert_eq!((from_notes.0.len(), from_notes.1), (142 + 5, 64));
    store.close().unwrap();
    drop(store);
    for derived in ["consumequeue", "index"] {
        std::fs::remove_dir_all(dir.path().join(derived)).unwrap();
    }
    let (store, _) = MessageStore::open(options(dir.path())).unwrap();
    wait_dispatched(&store);
    assert_eq!(seen(&store), from_notes);
    store.close().unwrap();
}

#[test]
fn a_long_burst_is_left_to_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = MessageStore::open(options(dir.path())).unwrap();
    let burst = store.burst().unwrap();
    // More than a burst dispatches at its end.
    let begun = store.log().max_offset();
    while store.log().max_offset() < begun + (8 << 20) {
        put(&store, 0);
    }
    drop(burst);
    wait_dispatched(&store);
    store.close().unwrap();
}

#[test]
fn no_put_is_left_behind_by_bursts_that_overlap() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = MessageStore::open(options(dir.path())).unwrap();
    let together = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, together) = (&store, &together);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // Some put alone, and rely on being heard.
                    let burst = (thread > 0).then(|| store.burst());
                    (0..=round % 3).for_each(|_| put(store, thread as i32));
                    drop(burst);
                    together.wait();
                    // Nobody puts now: what is left behind stays so.
                    wait_dispatched(store);
                    together.wait();
                }
            });
        }
    });
    for thread in 0..THREADS {
        let count = (0..ROUNDS).map(|round| 1 + round % 3).sum::<usize>();
        let queue_id = thread as i32;
        assert_eq!(store.max_offset("Topic", queue_id), Some(count as i64));
    }
    store.close().unwrap();
}

#[test]
fn in_sync_mode_there_are_no_bursts() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.flush = FlushMode::Sync { timeout: DEADLINE };
    let (store, _) = MessageStore::open(options).unwrap();
    assert!(store.burst().is_none());
    store.close().unwrap();
}

//! Files come and go while they are written, read and held: many threads put, get, delete topics
//! and clean on a real directory of small files. Nothing crashes; a slice that is held reads the
//! same bytes for as long as it is; and afterwards every queue is one to one with the log.
//!
//! `FOLIOMQ_STRESS_SECONDS=n` runs it for longer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use message::{Message, Parsed, RecordView};
use mmap_core::{Io, MapSlice, OsIo, Random};
use store::{
    AllMessages, FlushMode, GetLimits, GetStatus, IndexOptions, MessageStore, StoreOptions,
};

const SEGMENT_LEN: u64 = 16 * 1024;
const KEPT: &str = "Kept";
const DELETED: &str = "Deleted";
const QUEUE_COUNT: i32 = 3;
/// Slices that a reader holds at a time.
const HELD_MAX: usize = 256;

fn options(dir: &Path, flush: FlushMode) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    options.segment_len = SEGMENT_LEN;
    options.queue_file_len = 20 * 64;
    options.index = Some(IndexOptions {
        slot_count: 64,
        entry_count_max: 256,
        ..IndexOptions::DEFAULT
    });
    options.flush = flush;
    options.clean.log_len_max = Some(6 * SEGMENT_LEN);
    // The disk of whoever runs this may be full.
    options.clean.full_percent = 90;
    options.clean.forced_enabled = false;
    options
}

fn message<'a>(topic: &'a str, queue_id: i32, body: &'a [u8], properties: &'a str) -> Message<'a> {
    Message {
        properties: properties.as_bytes(),
        ..Message::new(topic, queue_id, body)
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A message that was stored: its queue, its offset there, and where the log has it.
#[derive(Clone, Copy)]
struct Put {
    queue_id: i32,
    queue_offset: i64,
    physical_offset: u64,
}

struct Shared {
    store: MessageStore,
    stop: AtomicBool,
    puts: [Mutex<Vec<Put>>; 2],
    /// Where the log ended when the topic was last deleted, at least.
    deleted_at: AtomicU64,
    deletions: AtomicU64,
    reads: AtomicU64,
    outlived: AtomicU64,
}

fn put(shared: &Shared, seed: u64) {
    let mut random = Random::new(seed);
    while !shared.stop.load(Ordering::Relaxed) {
        let number = random.next();
        let which = (number >> 60) as usize % 2;
        let topic = [KEPT, DELETED][which];
        let queue_id = (number >> 40) as i32 % QUEUE_COUNT;
        let body = number
            .to_be_bytes()
            .repeat(1 + (number >> 50) as usize % 60);
        let properties = format!("KEYS\u{1}k{number}\u{2}");
        let appended = shared
            .store
            .put(&message(topic, queue_id, &body, &properties))
            .unwrap();
        shared.puts[which].lock().unwrap().push(Put {
            queue_id,
            queue_offset: appended.queue_offset,
            physical_offset: appended.physical_offset,
        });
        appended.ticket.wait().unwrap();
    }
}

/// Reads, and holds what it has read while the files below go away.
fn read(shared: &Shared, topic: &str) {
    let mut held: Vec<(MapSlice, Vec<u8>)> = Vec::new();
    let limits = GetLimits {
        count_max: 16,
        bytes_max: 1 << 16,
    };
    let mut offsets = BTreeMap::new();
    while !shared.stop.load(Ordering::Relaxed) {
        for queue_id in 0..QUEUE_COUNT {
            let offset = offsets.entry(queue_id).or_insert(0);
            let got = shared
                .store
                .get(topic, queue_id, *offset, &limits, &AllMessages)
                .unwrap();
            *offset = got.next_offset;
            if got.status != GetStatus::Found {
                *offset = got.min_offset;
                continue;
            }
            shared.reads.fetch_add(1, Ordering::Relaxed);
            for record in got.messages.records() {
                record.verify_body_crc().unwrap();
                assert_eq!(record.topic(), topic);
                assert_eq!(record.queue_id(), queue_id);
            }
            for slice in got.messages.owned_slices() {
                let copy = slice.to_vec();
                held.push((slice, copy));
            }
        }
        if held.len() > HELD_MAX {
            let min = shared.store.log().min_offset();
            for (slice, copy) in held.drain(..) {
                assert!(*slice == *copy, "a held slice has changed");
                if let Ok(Parsed::Record(view)) = RecordView::parse(&slice)
                    && view.physical_offset().cast_unsigned() < min
                {
                    shared.outlived.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    for (slice, copy) in held {
        assert!(*slice == *copy, "a held slice has changed");
    }
}

fn delete(shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        shared.store.delete_topic(DELETED).unwrap();
        // What is put from here on is stored behind this.
        shared
            .deleted_at
            .store(shared.store.log().max_offset(), Ordering::Relaxed);
        shared.deletions.fetch_add(1, Ordering::Relaxed);
        std::thread::park_timeout(Duration::from_millis(3));
    }
}

fn clean(shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        shared.store.step_clean(&mut |_| true).unwrap();
        shared.store.step_watch();
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn run(flush: FlushMode) {
    let seconds = std::env::var("FOLIOMQ_STRESS_SECONDS").ok();
    let seconds = seconds.map_or(2, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = MessageStore::open(options(dir.path(), flush)).unwrap();
    let shared = Shared {
        store,
        stop: AtomicBool::new(false),
        puts: Default::default(),
        deleted_at: AtomicU64::new(0),
        deletions: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        outlived: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for seed in 1..=3 {
            let shared = &shared;
            scope.spawn(move || put(shared, seed));
        }
        for topic in [KEPT, DELETED] {
            let shared = &shared;
            scope.spawn(move || read(shared, topic));
        }
        scope.spawn(|| delete(&shared));
        scope.spawn(|| clean(&shared));
        // Also if this thread panics, or the others would never end.
        let stop = StopOnDrop(&shared.stop);
        let end = Instant::now() + Duration::from_secs(seconds);
        let patience = end + Duration::from_secs(60);
        let is_enough = || {
            let enough = |count: &AtomicU64| count.load(Ordering::Relaxed) > 10;
            shared.store.log().min_offset() > 20 * SEGMENT_LEN
                && enough(&shared.deletions)
                && enough(&shared.reads)
                && enough(&shared.outlived)
        };
        while Instant::now() < end || !is_enough() {
            assert!(Instant::now() < patience, "so slow a device");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        drop(stop);
    });
    let store = &shared.store;
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.dispatch_behind_bytes() > 0 {
        assert!(
            Instant::now() < deadline,
            "not dispatched: {:?}",
            store.health()
        );
        std::thread::park_timeout(Duration::from_millis(1));
    }
    store.log().flush_now().unwrap();
    while store.step_clean(&mut |_| true).unwrap().log_file_count > 0 {}
    check(&shared);
    let log_min = store.log().min_offset();
    store.close().unwrap();
    let files = OsIo.list(&dir.path().join("commitlog")).unwrap().len();
    assert!(files <= 7, "{files} files are left of the log");
    // What is left opens again, and says the same.
    drop(shared);
    let (store, report) = MessageStore::open(options(dir.path(), flush)).unwrap();
    assert_eq!(report.log.cut, None);
    assert_eq!(store.log().min_offset(), log_min);
    store.close().unwrap();
}

/// Every queue's entries are those of its messages, and no message that must be there is missing.
fn check(shared: &Shared) {
    let store = &shared.store;
    let log_min = store.log().min_offset();
    for (which, topic) in [KEPT, DELETED].into_iter().enumerate() {
        for queue_id in 0..QUEUE_COUNT {
            let min = store.min_offset(topic, queue_id).unwrap_or(0);
            let max = store.max_offset(topic, queue_id).unwrap_or(0);
            for offset in min..max {
                let entry = store.entry(topic, queue_id, offset).unwrap().unwrap();
                let at = entry.physical_offset.cast_unsigned();
                if at < log_min {
                    // Trimmed a moment ago.
                    continue;
                }
                let slice = store.look_up(at).unwrap();
                let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
                    panic!("no record at {at}");
                };
                assert_eq!(view.queue_offset(), offset, "{topic} {queue_id}");
                assert_eq!((view.topic(), view.queue_id()), (topic, queue_id));
            }
        }
        // The deletion may have come a little before the figure that is known of it.
        let since = if topic == DELETED {
            shared.deleted_at.load(Ordering::Relaxed)
        } else {
            0
        };
        for put in shared.puts[which].lock().unwrap().iter() {
            if put.physical_offset < since.max(log_min) {
                continue;
            }
            let entry = store.entry(topic, put.queue_id, put.queue_offset).unwrap();
            let at = entry.map(|entry| entry.physical_offset.cast_unsigned());
            assert_eq!(at, Some(put.physical_offset), "{topic} {put:?}");
        }
    }
}

impl std::fmt::Debug for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{} at {}",
            self.queue_id, self.queue_offset, self.physical_offset
        )
    }
}

#[test]
fn files_come_and_go_while_they_are_used() {
    run(FlushMode::Async {
        interval: Duration::from_millis(5),
        least_pages: 4,
        thorough_interval: Duration::from_secs(1),
    });
}

#[test]
fn files_come_and_go_while_they_are_used_in_sync_mode() {
    run(FlushMode::Sync {
        timeout: Duration::from_secs(30),
    });
}

/// What is sent in the very moment of a deletion comes before it, and is gone, or behind it, and is
/// there under the offset that was answered.
#[test]
fn a_topic_is_deleted_while_it_is_sent_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), FlushMode::async_default());
    options.segment_len = 4 << 20;
    options.clean.log_len_max = None;
    let (store, _) = MessageStore::open(options).unwrap();
    for round in 0..150 {
        let (mut puts, mut deleted_at) = (Vec::new(), 0);
        std::thread::scope(|scope| {
            let putting = || {
                let put = |_| {
                    let message = message(DELETED, 0, b"some bytes", "");
                    let appended = store.put(&message).unwrap();
                    (appended.queue_offset, appended.physical_offset)
                };
                (0..60).map(put).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(putting)).collect();
            for _ in 0..4 {
                store.delete_topic(DELETED).unwrap();
                deleted_at = store.log().max_offset();
            }
            for thread in threads {
                puts.extend(thread.join().unwrap());
            }
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while store.dispatch_behind_bytes() > 0 {
            assert!(Instant::now() < deadline, "stuck: {:?}", store.health());
            std::thread::park_timeout(Duration::from_millis(1));
        }
        for (queue_offset, at) in puts.into_iter().filter(|put| put.1 >= deleted_at) {
            let entry = store.entry(DELETED, 0, queue_offset).unwrap();
            let found = entry.map(|entry| entry.physical_offset.cast_unsigned());
            assert_eq!(found, Some(at), "round {round}, offset {queue_offset}");
        }
        let max = store.max_offset(DELETED, 0).unwrap_or(0);
        for offset in 0..max {
            let entry = store.entry(DELETED, 0, offset).unwrap().unwrap();
            let slice = store
                .look_up(entry.physical_offset.cast_unsigned())
                .unwrap();
            let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
                panic!("no record at {}", entry.physical_offset);
            };
            assert_eq!(view.queue_offset(), offset, "round {round}");
        }
    }
    store.close().unwrap();
}

//! What a killed process had dispatched is not read again in the same run of the machine, and what
//! says so is believed then and there only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod small;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use message::Message;
use mmap_core::{Access, CrashStyle, Io, IoFile, SimIo};
use small::Ticks;
use store::{
    AllMessages, Clock, FlushMode, GetLimits, GetStatus, KeyQuery, MessageStore, OpenError,
    OpenReport,
};

const MARKS: &str = "/store/foliomq/dispatched";
const LOCK: &str = "/store/lock";
const TOPICS: [&str; 3] = ["A", "B", "C"];
/// Messages that are synced, of which queues and index are too.
const SYNCED: usize = 10;
/// Those behind them that were dispatched, and those that were not.
const DISPATCHED: usize = 20;
const IN_FLIGHT: usize = 3;

struct Scene {
    io: SimIo,
    clock: Arc<dyn Clock>,
    count: usize,
}

impl Scene {
    fn new(seed: u64) -> (Self, MessageStore<SimIo>) {
        let scene = Self {
            io: SimIo::new(seed),
            clock: Arc::new(Ticks::default()),
            count: 0,
        };
        let store = scene.open().0;
        (scene, store)
    }

    /// A process that was killed with messages at each stage.
    fn killed(seed: u64) -> Self {
        let (mut scene, store) = Self::new(seed);
        scene.fill(&store);
        scene.crash(CrashStyle::KillProcess, store);
        scene
    }

    fn fill(&mut self, store: &MessageStore<SimIo>) {
        self.put(store, SYNCED);
        while store.step_dispatch().unwrap() {}
        store.log().flush_now().unwrap();
        store.step_flush_derived().unwrap();
        self.put(store, DISPATCHED / 2);
        while store.step_dispatch().unwrap() {}
        // Does not sync the log, of which nobody may say then that it was.
        store.step_flush_derived().unwrap();
        self.put(store, DISPATCHED / 2);
        while store.step_dispatch().unwrap() {}
        store.step_flush_derived().unwrap();
        self.put(store, IN_FLIGHT);
    }

    fn open(&self) -> (MessageStore<SimIo>, OpenReport) {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<(MessageStore<SimIo>, OpenReport), OpenError> {
        let mut options = small::options();
        options.flush = FlushMode::async_default();
        MessageStore::open_with(self.io.clone(), options, Arc::clone(&self.clock))
    }

    fn crash(&mut self, style: CrashStyle, store: MessageStore<SimIo>) {
        self.io = self.io.crash(style);
        drop(store);
    }

    fn put(&mut self, store: &MessageStore<SimIo>, count: usize) {
        for number in self.count..self.count + count {
            let properties = format!("KEYS\u{1}key-{number} also-{number}\u{2}");
            let body = vec![number as u8; 300 + number % 7 * 100];
            store
                .put(&Message {
                    properties: properties.as_bytes(),
                    ..Message::new(TOPICS[number % TOPICS.len()], 0, &body)
                })
                .unwrap();
        }
        self.count += count;
    }

    /// The first `count` messages are served by their queues and found by their keys, and no others.
    fn check(&self, store: &MessageStore<SimIo>, count: usize) {
        let limits = GetLimits {
            count_max: 1,
            bytes_max: 1 << 20,
        };
        for number in 0..count {
            let topic = TOPICS[number % TOPICS.len()];
            let offset = (number / TOPICS.len()) as i64;
            let got = store.get(topic, 0, offset, &limits, &AllMessages).unwrap();
            assert_eq!(got.status, GetStatus::Found, "{number}");
            let view = got.messages.records().next().unwrap();
            assert_eq!(view.queue_offset(), offset);
            assert_eq!(view.body()[0], number as u8);
            for key in [format!("key-{number}"), format!("also-{number}")] {
                let query = KeyQuery {
                    topic,
                    key: &key,
                    count_max: 8,
                    begin_ms: 0,
                    end_ms: i64::MAX,
                };
                assert_eq!(store.query(&query).unwrap().messages.count(), 1, "{key}");
            }
        }
        for (index, topic) in TOPICS.iter().enumerate() {
            let end = (0..count).skip(index).step_by(TOPICS.len()).count() as i64;
            assert_eq!(store.max_offset(topic, 0).unwrap_or(0), end, "{topic}");
        }
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.io.read(Path::new(path), 1 << 20).unwrap();
        change(&mut bytes);
        let file = self.io.open(Path::new(path), Access::ReadWrite).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    }
}

#[test]
fn only_what_was_not_dispatched_is_read_again() {
    let mut scene = Scene::killed(1);
    // As often as it is killed, and however soon.
    for _ in 0..4 {
        let (store, report) = scene.open();
        assert!(report.is_power_kept && !report.has_torn_marks, "{report}");
        assert!(report.log.records <= IN_FLIGHT as u64, "{report}");
        assert!(report.rebuilt_queues.is_empty(), "{report}");
        assert!(store.log().flushed() < store.log().max_offset());
        scene.check(&store, scene.count);
        scene.put(&store, 1);
        scene.crash(CrashStyle::KillProcess, store);
    }
    // What was found is synced as what is new is, and not claimed before.
    let (store, _) = scene.open();
    let end = store.log().flush_now().unwrap();
    assert_eq!(end, store.log().max_offset());
    store.step_flush_derived().unwrap();
    scene.crash(CrashStyle::LoseUnsynced, store);
    let (store, report) = scene.open();
    assert!(!report.is_power_kept);
    scene.check(&store, scene.count);
    // A closed store needs no marks.
    store.close().unwrap();
    assert!(scene.io.metadata(Path::new(MARKS)).unwrap().is_none());
}

#[test]
fn a_flipped_bit_leads_to_the_slow_way_or_to_an_older_mark() {
    for position in 0..248 {
        let scene = Scene::killed(2);
        scene.change(MARKS, |bytes| bytes[position] ^= 1 << (position % 7));
        let (store, report) = scene.open();
        scene.check(&store, scene.count);
        if position < 128 {
            assert!(report.has_torn_marks, "{position}: {report}");
            assert!(report.to_string().contains("foliomq/dispatched"));
            let read = (DISPATCHED + IN_FLIGHT) as u64;
            assert_eq!(report.log.records, read, "{position}: {report}");
        }
    }
    let scene = Scene::killed(2);
    scene.change(MARKS, |bytes| {
        for mark in [128, 192] {
            bytes[mark + 7] ^= 1;
        }
    });
    let (store, report) = scene.open();
    assert!(report.has_torn_marks, "{report}");
    scene.check(&store, scene.count);
    // A file that is cut short, empty or foreign is as good as none.
    for content in [&b""[..], b"FMQD", &[0xff; 5000]] {
        let scene = Scene::killed(2);
        scene.io.remove_file(Path::new(MARKS)).unwrap();
        let created = scene.io.create(Path::new(MARKS), content.len() as u64);
        let file = created.unwrap();
        file.write_all_at(content, 0).unwrap();
        let (store, report) = scene.open();
        assert_eq!(report.has_torn_marks, !content.is_empty(), "{report}");
        scene.check(&store, scene.count);
    }
}

#[test]
fn after_a_power_loss_marks_that_reached_the_device_are_not_believed() {
    for seed in 0..100 {
        for style in [CrashStyle::LoseUnsynced, CrashStyle::Tear] {
            let (mut scene, store) = Scene::new(seed);
            scene.fill(&store);
            // They are ahead of the log, the queues and the index.
            let marks = scene.io.open(Path::new(MARKS), Access::ReadWrite).unwrap();
            marks.sync_all().unwrap();
            scene.io.sync_dir(Path::new("/store/foliomq")).unwrap();
            scene.crash(style, store);
            assert!(scene.io.metadata(Path::new(MARKS)).unwrap().is_some());
            let (store, report) = scene.open();
            assert!(!report.is_power_kept, "{report}");
            let found = (0..scene.count)
                .take_while(|number| {
                    let topic = TOPICS[number % TOPICS.len()];
                    store.max_offset(topic, 0).unwrap_or(0) > (number / TOPICS.len()) as i64
                })
                .count();
            assert!(found >= SYNCED, "{found}: {report}");
            scene.check(&store, found);
        }
    }
}

#[test]
fn marks_of_another_log_or_another_owner_are_not_believed() {
    // A Java broker has cut the log and written on: another record stands where the mark's stood.
    let scene = Scene::killed(3);
    let (store, _) = scene.open();
    let mut marks = scene.io.read(Path::new(MARKS), 1 << 20).unwrap();
    drop(store);
    let other = Scene::killed(4);
    // The same machine, segments and lock, and other messages.
    marks[128 + 16..128 + 24].fill(9);
    other.change(MARKS, |bytes| bytes.copy_from_slice(&marks));
    let (store, _) = other.open();
    other.check(&store, other.count);

    // Somebody has started a broker on the directory since, or has put files back in their places,
    // as old as they were.
    for is_put_back in [false, true] {
        let scene = Scene::killed(5);
        let path = Path::new(LOCK);
        let before = scene.io.metadata(path).unwrap().unwrap();
        let lock = scene.io.open(path, Access::ReadWrite).unwrap();
        lock.write_all_at(b"lock", 0).unwrap();
        if is_put_back {
            scene.io.set_modified(path, before.modified).unwrap();
            let after = scene.io.metadata(path).unwrap().unwrap();
            assert_eq!(after.modified, before.modified);
        }
        let (store, report) = scene.open();
        assert!(!report.has_torn_marks);
        let read = (DISPATCHED + IN_FLIGHT) as u64;
        assert_eq!(report.log.records, read, "{is_put_back}");
        scene.check(&store, scene.count);
    }
}

/// Marks that are believed and cannot be kept would outlive a failed sync.
#[test]
fn marks_that_cannot_be_kept_are_not_believed_any_more() {
    let begun = Scene::killed(9);
    let before = begun.io.operation_count();
    drop(begun.open());
    let count = begun.io.operation_count() - before;
    let mut opened_count = 0;
    for nth in 1..=count {
        for is_for_good in [false, true] {
            let mut scene = Scene::killed(9);
            match is_for_good {
                true => scene.io.fail_from("*", nth, ErrorKind::Other),
                false => scene.io.fail_nth("*", nth, ErrorKind::Other),
            }
            let opened = scene.try_open();
            scene.io.clear_faults();
            if let Ok((store, _)) = opened {
                opened_count += 1;
                scene.put(&store, 1);
                while store.step_dispatch().unwrap() {}
                for op in ["msync", "sync_data"] {
                    scene.io.fail_from(op, 1, ErrorKind::Other);
                }
                assert!(store.log().flush_now().is_err(), "{nth}");
                scene.io.clear_faults();
                scene.crash(CrashStyle::KillProcess, store);
                let (store, report) = scene.open();
                let is_slow = report.log.records > DISPATCHED as u64;
                assert!(is_slow, "{nth} {is_for_good}: {report}");
                scene.check(&store, scene.count);
            }
        }
    }
    assert!(opened_count > 2, "{opened_count} of {count}");
}

#[test]
fn a_disk_without_a_free_block_has_no_marks_and_starts_again_and_again() {
    let mut scene = Scene::killed(10);
    scene.io.remove_file(Path::new(MARKS)).unwrap();
    for _ in 0..3 {
        scene.io.space_limit(0);
        let (store, report) = scene.open();
        assert!(!report.has_torn_marks, "{report}");
        scene.check(&store, scene.count);
        scene.crash(CrashStyle::KillProcess, store);
    }
}

#[test]
fn marks_are_not_believed_of_an_index_or_queues_that_end_before_them() {
    for dir in ["/store/index", "/store/consumequeue/C/0"] {
        let scene = Scene::killed(6);
        let files = scene.io.list(Path::new(dir)).unwrap();
        let path = Path::new(dir).join(&files.last().unwrap().name);
        scene.io.remove_file(&path).unwrap();
        let (store, report) = scene.open();
        assert!(report.log.records > IN_FLIGHT as u64, "{dir}: {report}");
        scene.check(&store, scene.count);
    }
}

#[test]
fn a_failed_sync_ends_the_belief() {
    for op in ["msync", "sync_data"] {
        for derived in [true, false] {
            let (mut scene, store) = Scene::new(7);
            scene.fill(&store);
            while store.step_dispatch().unwrap() {}
            scene.io.fail_from(op, 1, ErrorKind::Other);
            let is_failed = match derived {
                true => store.step_flush_derived().is_err(),
                false => store.log().flush_now().is_err(),
            };
            scene.io.clear_faults();
            scene.crash(CrashStyle::KillProcess, store);
            let (store, report) = scene.open();
            let is_slow = report.log.records == (DISPATCHED + IN_FLIGHT) as u64;
            assert_eq!(is_slow, is_failed, "{op} {derived}: {report}");
            scene.check(&store, scene.count);
        }
    }
}

#[test]
fn a_failed_sync_of_the_index_while_records_are_dispatched_ends_the_belief_at_once() {
    const MORE: usize = 120;
    let (mut scene, store) = Scene::new(7);
    scene.fill(&store);
    scene.put(&store, MORE);
    for op in ["msync", "sync_data"] {
        scene.io.fail_from(op, 1, ErrorKind::Other);
    }
    let failed = loop {
        match store.step_dispatch() {
            Ok(true) => {}
            outcome => break outcome,
        }
    };
    assert!(failed.is_err(), "several files of the index were filled");
    scene.io.clear_faults();
    scene.crash(CrashStyle::KillProcess, store);
    let (store, report) = scene.open();
    let all = (DISPATCHED + IN_FLIGHT + MORE) as u64;
    assert_eq!(report.log.records, all, "{report}");
    scene.check(&store, scene.count);
}

#[test]
fn a_process_that_is_killed_anywhere_leaves_marks_that_are_true() {
    let (mut scene, store) = Scene::new(8);
    let begun = scene.io.operation_count();
    scene.fill(&store);
    let count = scene.io.operation_count() - begun;
    drop(store);
    for nth in (1..=count).step_by(3) {
        let (mut scene, store) = Scene::new(8);
        scene.io.crash_at(nth, CrashStyle::KillProcess);
        let mut put_count = 0;
        scene.fill(&store);
        scene.io = match scene.io.wreck() {
            Some(wreck) => wreck,
            None => break,
        };
        drop(store);
        let (store, report) = scene.open();
        assert!(!report.has_torn_marks, "{nth}: {report}");
        while put_count < scene.count {
            let topic = TOPICS[put_count % TOPICS.len()];
            if store.max_offset(topic, 0).unwrap_or(0) <= (put_count / TOPICS.len()) as i64 {
                break;
            }
            put_count += 1;
        }
        scene.check(&store, put_count);
        assert!(report.rebuilt_queues.is_empty(), "{nth}: {report}");
    }
}

//! Damage in the middle of the log costs the messages it hits and no others, and is reported.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod small;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use message::{Message, Parsed, RecordView};
use mmap_core::{Access, CrashStyle, Io, IoFile, SimIo};
use small::{SEGMENT_LEN, Ticks};
use store::{
    AllMessages, Clock, FlushMode, GetLimits, GetStatus, KeyQuery, LastExit, MessageStore, Missing,
    OpenError, OpenReport, RecoveryPolicy, StoreOptions,
};

const MARKS: &str = "/store/foliomq/dispatched";
const TOPICS: [&str; 2] = ["Even", "Odd"];
const QUEUE_DIRS: [&str; 2] = ["consumequeue/Even/0", "consumequeue/Odd/0"];

struct Put {
    topic: &'static str,
    queue_offset: i64,
    physical_offset: u64,
    key: String,
    body: Vec<u8>,
}

struct Scene {
    io: SimIo,
    clock: Arc<dyn Clock>,
    puts: Vec<Put>,
}

fn options() -> StoreOptions {
    let mut options = small::options();
    options.flush = FlushMode::async_default();
    options
}

impl Scene {
    /// A store of `count` messages of two topics in turn.
    fn with(count: usize) -> (Self, MessageStore<SimIo>) {
        let mut scene = Self {
            io: SimIo::new(3),
            clock: Arc::new(Ticks::default()),
            puts: Vec::new(),
        };
        let (store, _) = scene.open().unwrap();
        for _ in 0..count {
            scene.put(&store);
        }
        while store.step_dispatch().unwrap() {}
        (scene, store)
    }

    fn open(&self) -> Result<(MessageStore<SimIo>, OpenReport), OpenError> {
        self.open_by(options())
    }

    fn open_by(
        &self,
        options: StoreOptions,
    ) -> Result<(MessageStore<SimIo>, OpenReport), OpenError> {
        MessageStore::open_with(self.io.clone(), options, Arc::clone(&self.clock))
    }

    fn put(&mut self, store: &MessageStore<SimIo>) {
        let number = self.puts.len();
        let topic = TOPICS[number % 2];
        let key = format!("key-{number}");
        let properties = format!("KEYS\u{1}{key}\u{2}");
        let body = vec![number as u8; 300 + number % 7 * 100];
        let appended = store
            .put(&Message {
                properties: properties.as_bytes(),
                ..Message::new(topic, 0, &body)
            })
            .unwrap();
        self.puts.push(Put {
            topic,
            queue_offset: appended.queue_offset,
            physical_offset: appended.physical_offset,
            key,
            body,
        });
    }

    /// The process dies, and nobody has synced anything by hand.
    fn kill(&mut self, store: MessageStore<SimIo>) {
        self.io = self.io.crash(CrashStyle::KillProcess);
        drop(store);
    }

    /// Spoils the body of a message, of which nothing says that it was dispatched.
    fn spoil(&self, number: usize) {
        match self.io.remove_file(Path::new(MARKS)) {
            Err(error) if !error.is_not_found() => panic!("{error}"),
            _ => {}
        }
        self.spoil_dispatched(number);
    }

    fn spoil_dispatched(&self, number: usize) {
        let offset = self.puts[number].physical_offset;
        let base = offset - offset % SEGMENT_LEN;
        let path = PathBuf::from(format!("/store/commitlog/{base:020}"));
        let file = self.io.open(&path, Access::ReadWrite).unwrap();
        file.write_all_at(b"spoiled", offset - base + 200).unwrap();
        file.sync_all().unwrap();
    }

    /// Every message but those lost is served by its queue, and found by its key.
    fn check(&self, store: &MessageStore<SimIo>, lost: &[usize]) {
        let limits = GetLimits {
            count_max: 1,
            bytes_max: 1 << 20,
        };
        for (number, put) in self.puts.iter().enumerate() {
            let answer = store
                .query(&KeyQuery {
                    topic: put.topic,
                    key: &put.key,
                    count_max: 8,
                    begin_ms: 0,
                    end_ms: i64::MAX,
                })
                .unwrap();
            let is_lost = lost.contains(&number);
            assert_eq!(answer.messages.count(), usize::from(!is_lost), "{number}");
            if is_lost {
                continue;
            }
            let got = store
                .get(put.topic, 0, put.queue_offset, &limits, &AllMessages)
                .unwrap();
            assert_eq!(got.status, GetStatus::Found, "{number}");
            let view = got.messages.records().next().unwrap();
            assert_eq!(view.queue_offset(), put.queue_offset, "{number}");
            assert_eq!(view.body(), put.body, "{number}");
        }
    }
}

fn missing(topic: &str, first: i64, count: i64) -> Missing {
    Missing {
        topic: topic.to_owned(),
        queue_id: 0,
        first,
        count,
    }
}

#[test]
fn a_killed_process_loses_only_what_was_damaged() {
    let (mut scene, store) = Scene::with(100);
    scene.kill(store);
    scene.spoil(40);
    scene.spoil(41);
    scene.spoil(77);
    let (store, report) = scene.open().unwrap();
    assert!(report.is_power_kept && report.has_damage());
    assert_eq!(report.log.holes.len(), 2, "{report}");
    let expected = [
        missing("Even", 20, 1),
        missing("Odd", 20, 1),
        missing("Odd", 38, 1),
    ];
    let mut found = report.missing.clone();
    found.sort_by_key(|missing| (missing.first, missing.topic.clone()));
    assert_eq!(found, expected, "{report}");
    assert_eq!(report.quarantined.len(), 2);
    let text = report.to_string();
    assert!(
        text.contains("DAMAGE") && text.contains("Odd-0: 38"),
        "{text}"
    );
    scene.check(&store, &[40, 41, 77]);
    // The queue offsets go on, and a second opening finds nothing more.
    scene.put(&store);
    assert_eq!(scene.puts.last().unwrap().queue_offset, 50);
    while store.step_dispatch().unwrap() {}
    scene.check(&store, &[40, 41, 77]);
    scene.kill(store);
    let (store, report) = scene.open().unwrap();
    assert!(
        !report.has_damage() && report.missing.is_empty(),
        "{report}"
    );
    scene.check(&store, &[40, 41, 77]);
    store.close().unwrap();
}

#[test]
fn the_queue_offset_of_a_lost_last_message_is_not_given_away() {
    let (mut scene, store) = Scene::with(100);
    store.log().flush_now().unwrap();
    store.step_flush_derived().unwrap();
    scene.kill(store);
    scene.spoil(99);
    let (store, report) = scene.open().unwrap();
    // Nothing is left of it or behind it; what was synced tells that it was there.
    assert_eq!(report.missing, [missing("Odd", 49, 1)], "{report}");
    scene.put(&store);
    scene.put(&store);
    assert_eq!(scene.puts[101].queue_offset, 50);
    while store.step_dispatch().unwrap() {}
    scene.check(&store, &[99]);
    assert_eq!(store.max_offset("Odd", 0), Some(51));
    store.close().unwrap();
}

#[test]
fn after_a_power_loss_damage_below_the_synced_offset_is_passed_over() {
    let (mut scene, store) = Scene::with(60);
    store.log().flush_now().unwrap();
    store.step_flush_derived().unwrap();
    for _ in 0..40 {
        scene.put(&store);
    }
    while store.step_dispatch().unwrap() {}
    drop(store);
    scene.io = scene.io.crash(CrashStyle::LoseUnsynced);
    scene.spoil(50);
    // Recovery must look there: the queues are gone.
    for topic in TOPICS {
        for base in (0..60).step_by(16) {
            let path = format!("/store/consumequeue/{topic}/0/{:020}", base * 20);
            // There are fewer files than this.
            let _ = scene.io.remove_file(Path::new(&path));
        }
    }
    let (store, report) = scene.open().unwrap();
    assert!(!report.is_power_kept, "{report}");
    assert_eq!(report.log.holes.len(), 1, "{report}");
    scene.puts.truncate(60);
    scene.check(&store, &[50]);
    assert_eq!(store.max_offset("Odd", 0), Some(30));
}

/// Whatever sync of queues, index or checkpoint fails, and the log's after it if `with_log` says so: a
/// machine that loses power after the next process has synced everything has it all.
fn each_failed_sync_of_derived_files(with_log: bool) {
    let mut failed_count = 0;
    for op in ["msync", "sync_data", "sync_all", "sync_dir"] {
        for nth in 1.. {
            let (mut scene, store) = Scene::with(20);
            store.log().flush_now().unwrap();
            store.step_flush_derived().unwrap();
            for _ in 0..10 {
                scene.put(&store);
            }
            while store.step_dispatch().unwrap() {}
            scene.io.fail_nth(op, nth, std::io::ErrorKind::Other);
            if store.step_flush_derived().is_ok() {
                break;
            }
            failed_count += 1;
            if with_log {
                scene.io.fail_next("msync", std::io::ErrorKind::Other);
                store.log().flush_now().unwrap_err();
            }
            scene.kill(store);
            let (store, report) = scene.open().unwrap();
            assert!(report.is_power_kept, "{report}");
            store.log().flush_now().unwrap();
            store.step_flush_derived().unwrap();
            drop(store);
            scene.io = scene.io.crash(CrashStyle::LoseUnsynced);
            let (store, _) = scene.open().unwrap();
            scene.check(&store, &[]);
        }
    }
    assert!(failed_count > 3, "{failed_count} syncs failed");
}

#[test]
fn what_a_failed_sync_of_queues_or_index_has_lost_is_written_again() {
    each_failed_sync_of_derived_files(false);
}

#[test]
fn a_failed_sync_of_queues_or_index_hides_none_of_the_log() {
    each_failed_sync_of_derived_files(true);
}

#[test]
fn what_a_failed_sync_has_lost_is_synced_after_the_process_has_died() {
    let (mut scene, store) = Scene::with(20);
    store.log().flush_now().unwrap();
    store.step_flush_derived().unwrap();
    for _ in 0..10 {
        scene.put(&store);
    }
    // The kernel takes the pages for written now, and they are not.
    scene.io.fail_next("msync", std::io::ErrorKind::Other);
    store.log().flush_now().unwrap_err();
    scene.kill(store);
    let (store, report) = scene.open().unwrap();
    assert!(report.is_power_kept, "{report}");
    assert_eq!(report.log.records, 10, "nothing is vouched for: {report}");
    store.log().flush_now().unwrap();
    drop(store);
    scene.io = scene.io.crash(CrashStyle::LoseUnsynced);
    let (store, _) = scene.open().unwrap();
    scene.check(&store, &[]);
}

#[test]
fn damage_can_be_refused() {
    let (mut scene, store) = Scene::with(30);
    scene.kill(store);
    scene.spoil(10);
    let strict = StoreOptions {
        recovery: RecoveryPolicy::Refuse,
        ..options()
    };
    let refused = scene.open_by(strict.clone()).unwrap_err();
    let text = refused.to_string();
    assert!(
        matches!(refused, OpenError::Damage(_)) && text.contains("report"),
        "{text}"
    );
    let (store, report) = scene.open().unwrap();
    assert!(report.has_damage());
    scene.check(&store, &[10]);
    store.close().unwrap();
    drop(store);
    // What was passed over once is no damage any more.
    assert!(scene.open_by(strict).is_ok());
}

#[test]
fn a_disk_without_room_for_what_must_go_is_only_read() {
    let (mut scene, store) = Scene::with(50);
    scene.kill(store);
    scene.spoil(20);
    scene.io.space_limit(1);
    let (store, report) = scene.open().unwrap();
    assert!(report.log.read_only.is_some(), "{report}");
    scene.check(&store, &[20]);
    let refused = store.put(&Message::new("Even", 0, b"")).unwrap_err();
    assert!(
        refused.to_string().contains("no room to keep aside"),
        "{refused}"
    );
    assert!(store.close().is_err(), "it was not recovered");
    drop(store);
    scene.io.space_limit(1 << 40);
    let (store, report) = scene.open().unwrap();
    assert_eq!(report.last_exit, LastExit::Unclean);
    assert_eq!(
        (report.log.read_only.clone(), report.log.holes.len()),
        (None, 1)
    );
    scene.check(&store, &[20]);
    scene.put(&store);
    store.close().unwrap();
}

#[test]
fn recovery_reads_what_was_in_flight_and_not_what_was_before() {
    let (mut scene, store) = Scene::with(2_000);
    store.log().flush_now().unwrap();
    store.step_flush_derived().unwrap();
    for _ in 0..5 {
        scene.put(&store);
    }
    scene.kill(store);
    let (store, report) = scene.open().unwrap();
    assert_eq!((report.log.records, report.log.files), (5, 1), "{report}");
    scene.check(&store, &[]);
    store.close().unwrap();
    drop(store);
    let (_, report) = scene.open().unwrap();
    assert_eq!((report.last_exit, report.log.records), (LastExit::Clean, 0));
}

#[test]
fn queues_and_index_that_were_removed_are_built_again() {
    for is_closed in [true, false] {
        for dirs in [
            &["index"][..],
            &QUEUE_DIRS,
            &["index", QUEUE_DIRS[0], QUEUE_DIRS[1]],
        ] {
            let (mut scene, store) = Scene::with(200);
            store.log().flush_now().unwrap();
            if is_closed {
                store.close().unwrap();
                drop(store);
            } else {
                scene.kill(store);
            }
            for dir in dirs {
                let dir = Path::new("/store").join(dir);
                for entry in scene.io.list(&dir).unwrap() {
                    scene.io.remove_file(&dir.join(entry.name)).unwrap();
                }
            }
            let (store, report) = scene.open().unwrap();
            scene.check(&store, &[]);
            assert_eq!(store.max_offset("Even", 0), Some(100), "{dirs:?}: {report}");
            store.close().unwrap();
        }
    }
}

#[test]
fn a_record_that_nobody_damaged_is_what_the_log_says_it_is() {
    let (mut scene, store) = Scene::with(20);
    scene.kill(store);
    scene.spoil(5);
    let (store, _) = scene.open().unwrap();
    let slice = store.look_up(scene.puts[5].physical_offset).unwrap();
    let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
        panic!("no record")
    };
    assert!(commitlog::is_filler(&view));
}

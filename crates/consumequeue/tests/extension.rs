//! Extension units: bytes, rolling, what survives a crash, and what a broken unit does: nothing
//! worse than a tags code that nobody knows.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use consumequeue::{
    ConsumeQueue, ConsumeQueueError, ConsumeQueueOptions, ConsumeQueueSet, Entry, ExtensionOptions,
    ExtensionUnit, FlushPolicy, OpenPolicy, PutOutcome, UNIT_LEN_MIN,
};
use mmap_core::{Access, CrashStyle, Io, IoFile, SimIo};
use proptest::prelude::*;

const UNIT_LEN: u64 = UNIT_LEN_MIN as u64;
/// Three units and the end mark.
const FILE_LEN: u64 = 3 * UNIT_LEN + 5;
const QUEUE_DIR: &str = "/store/consumequeue/T/0";

fn options(is_written: bool) -> ConsumeQueueOptions {
    ConsumeQueueOptions {
        extensions: Some(ExtensionOptions {
            root: PathBuf::from("/store/consumequeue_ext"),
            file_len: FILE_LEN,
            is_written,
        }),
        ..ConsumeQueueOptions::with_file_len(100)
    }
}

fn open(io: &SimIo, is_written: bool, policy: OpenPolicy) -> Arc<ConsumeQueue<SimIo>> {
    let dir = Path::new(QUEUE_DIR);
    ConsumeQueue::open(io.clone(), dir, options(is_written), policy).unwrap()
}

/// The entry that is put at an index; its message takes 10 bytes of the log.
fn entry(index: i64) -> Entry {
    Entry {
        physical_offset: index * 10,
        size: 10,
        tags_code: index * 3 - 100,
    }
}

fn store_time_ms(index: i64) -> i64 {
    1_700_000_000_000 + index
}

fn put(queue: &ConsumeQueue<SimIo>, index: i64) {
    let outcome = queue.put_stored(index, entry(index), Some(store_time_ms(index)));
    assert_eq!(outcome.unwrap(), PutOutcome::Appended);
}

fn ext_file(number: u64) -> PathBuf {
    PathBuf::from(format!(
        "/store/consumequeue_ext/T/0/{:020}",
        number * FILE_LEN
    ))
}

#[test]
fn units_roll_as_rocketmqs_do() {
    let io = SimIo::new(1);
    let queue = open(&io, true, OpenPolicy::Clean);
    for index in 0..7 {
        put(&queue, index);
    }
    for index in 0..7 {
        let found = queue.entry(index).unwrap().unwrap();
        let offset = index as u64 / 3 * FILE_LEN + index as u64 % 3 * UNIT_LEN;
        assert_eq!(found.extension_offset(), Some(offset));
        assert_eq!(found.tags_code, i64::MIN + offset as i64);
        assert_eq!(
            queue.tags_code(&found).unwrap(),
            Some(entry(index).tags_code)
        );
        let unit = queue.unit(&found).unwrap().unwrap();
        assert_eq!(unit.store_time_ms, store_time_ms(index));
        assert_eq!(unit.bitmap_len, 0);
    }
    queue.flush(FlushPolicy::All).unwrap();
    let bytes = io.read(&ext_file(0), FILE_LEN).unwrap();
    assert_eq!(bytes[..2], [0, 20]);
    assert_eq!(bytes[2..10], (-100i64).to_be_bytes());
    assert_eq!(bytes[10..18], 1_700_000_000_000i64.to_be_bytes());
    assert_eq!(bytes[18..20], [0, 0]);
    assert_eq!(
        bytes[60..62],
        [0xff, 0xff],
        "the end mark, as the next did not fit"
    );
    let last = io.read(&ext_file(2), FILE_LEN).unwrap();
    assert!(last[UNIT_LEN_MIN..].iter().all(|byte| *byte == 0));
}

#[test]
fn units_with_bitmaps_are_read() {
    let io = SimIo::new(1);
    let queue = open(&io, true, OpenPolicy::Clean);
    put(&queue, 0);
    put(&queue, 1);
    queue.flush(FlushPolicy::All).unwrap();
    drop(queue);
    // As enableCalcFilterBitMap writes them: the first unit has 14 bytes of bitmap.
    let mut bytes = ExtensionUnit::encode(77, 5).to_vec();
    bytes[1] = 34;
    bytes[19] = 14;
    bytes.extend([0xaa; 14]);
    bytes.extend(ExtensionUnit::encode(78, 6));
    io.open(&ext_file(0), Access::ReadWrite)
        .unwrap()
        .write_all_at(&bytes, 0)
        .unwrap();
    let second = Entry {
        tags_code: i64::MIN + 34,
        ..entry(1)
    };
    let file = PathBuf::from(QUEUE_DIR).join(format!("{:020}", 0));
    io.open(&file, Access::ReadWrite)
        .unwrap()
        .write_all_at(&second.encode(), 20)
        .unwrap();

    let queue = open(&io, true, OpenPolicy::Clean);
    let codes = [0, 1].map(|index| {
        let found = queue.entry(index).unwrap().unwrap();
        queue.tags_code(&found).unwrap()
    });
    assert_eq!(codes, [Some(77), Some(78)]);
    // The next goes behind the last one that is referred to, in the next file.
    put(&queue, 2);
    let found = queue.entry(2).unwrap().unwrap();
    assert_eq!(found.extension_offset(), Some(FILE_LEN));
}

#[test]
fn without_writing_old_units_are_read_and_new_entries_are_plain() {
    let io = SimIo::new(1);
    let queue = open(&io, true, OpenPolicy::Clean);
    put(&queue, 0);
    queue.flush(FlushPolicy::All).unwrap();
    drop(queue);
    let queue = open(&io, false, OpenPolicy::Clean);
    put(&queue, 1);
    let found = [0, 1].map(|index| queue.entry(index).unwrap().unwrap());
    assert!(found[0].extension_offset().is_some());
    assert_eq!(found[1], entry(1));
    for (index, found) in (0..).zip(found) {
        assert_eq!(
            queue.tags_code(&found).unwrap(),
            Some(entry(index).tags_code)
        );
    }
    queue.flush(FlushPolicy::All).unwrap();
    drop(queue);
    // Written again: behind the old units, though the last entry has none.
    let queue = open(&io, true, OpenPolicy::Clean);
    put(&queue, 2);
    assert_eq!(
        queue.entry(2).unwrap().unwrap().extension_offset(),
        Some(UNIT_LEN)
    );
}

#[test]
fn a_unit_that_is_gone_is_a_code_that_nobody_knows() {
    let io = SimIo::new(1);
    let queue = open(&io, true, OpenPolicy::Clean);
    for index in 0..7 {
        put(&queue, index);
    }
    queue.flush(FlushPolicy::All).unwrap();
    drop(queue);
    let damaged = io.open(&ext_file(0), Access::ReadWrite).unwrap();
    damaged.write_all_at(&[0; 7], UNIT_LEN).unwrap();
    damaged.write_all_at(&[0x7f], 2 * UNIT_LEN).unwrap();
    io.remove_file(&ext_file(1)).unwrap();
    let queue = open(&io, true, OpenPolicy::Clean);
    let known = (0..7).map(|index| {
        let found = queue.entry(index).unwrap().unwrap();
        let code = queue.tags_code(&found).unwrap();
        assert!(code.is_none() || code == Some(entry(index).tags_code));
        code.is_some()
    });
    let known: Vec<bool> = known.collect();
    assert_eq!(known, [true, false, false, false, false, false, true]);
    // Nothing that an entry refers to is written over.
    put(&queue, 7);
    assert_eq!(
        queue.entry(7).unwrap().unwrap().extension_offset(),
        Some(2 * FILE_LEN + UNIT_LEN)
    );
}

#[test]
fn other_file_lengths_are_refused() {
    let io = SimIo::new(1);
    let queue = open(&io, true, OpenPolicy::Clean);
    put(&queue, 0);
    queue.flush(FlushPolicy::All).unwrap();
    drop(queue);
    let mut other = options(true);
    other.extensions.as_mut().unwrap().file_len = 2 * FILE_LEN;
    let refused = ConsumeQueue::open(io.clone(), Path::new(QUEUE_DIR), other, OpenPolicy::Clean);
    assert!(
        matches!(refused, Err(ConsumeQueueError::Queue(_))),
        "{refused:?}"
    );
    let mut tiny = options(true);
    tiny.extensions.as_mut().unwrap().file_len = 20;
    let refused = ConsumeQueue::open(io, Path::new(QUEUE_DIR), tiny, OpenPolicy::Clean);
    assert!(
        matches!(refused, Err(ConsumeQueueError::Options { .. })),
        "{refused:?}"
    );
}

#[test]
fn units_are_trimmed_and_deleted_with_their_queue() {
    let io = SimIo::new(1);
    let root = Path::new("/store/consumequeue");
    let (set, _) =
        ConsumeQueueSet::open(io.clone(), root, options(true), OpenPolicy::Clean).unwrap();
    let queue = set.find_or_create("T", 0).unwrap();
    for index in 0..20 {
        put(&queue, index);
    }
    set.flush(FlushPolicy::All).unwrap();
    set.trim(110).unwrap();
    assert_eq!(queue.min_index(), 11);
    let left: Vec<bool> = (0..7)
        .map(|number| io.metadata(&ext_file(number)).unwrap().is_some())
        .collect();
    assert_eq!(left, [false, false, false, true, true, true, true]);
    for index in 11..20 {
        let found = queue.entry(index).unwrap().unwrap();
        assert_eq!(
            queue.tags_code(&found).unwrap(),
            Some(entry(index).tags_code)
        );
    }
    drop(queue);
    set.delete_topic("T").unwrap();
    assert!(
        io.metadata(Path::new("/store/consumequeue_ext/T"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_full_disk_leaves_the_code_in_the_entry_or_puts_nothing() {
    let io = SimIo::new(1);
    let queue = open(&io, true, OpenPolicy::Clean);
    put(&queue, 0);
    io.fail_nth("allocate", 1, std::io::ErrorKind::StorageFull);
    for index in 1..9 {
        match queue.put_stored(index, entry(index), Some(store_time_ms(index))) {
            Ok(outcome) => assert_eq!(outcome, PutOutcome::Appended),
            Err(error) => {
                assert!(error.is_full());
                put(&queue, index);
            }
        }
    }
    for index in 0..9 {
        let found = queue.entry(index).unwrap().unwrap();
        assert_eq!(
            queue.tags_code(&found).unwrap(),
            Some(entry(index).tags_code)
        );
    }
}

/// Found by review: every failure of the units' files was taken for a lack of room.
#[test]
fn another_failure_than_a_full_disk_is_told() {
    for nth in 1..3 {
        let io = SimIo::new(1);
        let queue = open(&io, true, OpenPolicy::Clean);
        put(&queue, 0);
        io.fail_nth("allocate", nth, std::io::ErrorKind::PermissionDenied);
        let mut failure_count = 0;
        for index in 1..40 {
            if queue
                .put_stored(index, entry(index), Some(store_time_ms(index)))
                .is_err()
            {
                failure_count += 1;
                put(&queue, index);
            }
        }
        assert_eq!(failure_count, 1, "allocation {nth}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        count: i64,
    },
    Flush,
    WriteBack,
    /// Cuts this many entries off.
    Truncate {
        count: i64,
    },
    Trim {
        count: i64,
    },
    Reopen {
        is_written: bool,
    },
    Crash {
        style: CrashStyle,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let style = prop_oneof![
        Just(CrashStyle::KillProcess),
        Just(CrashStyle::LoseUnsynced),
        Just(CrashStyle::Tear),
    ];
    prop_oneof![
        6 => (1..9i64).prop_map(|count| Step::Put { count }),
        2 => Just(Step::Flush),
        2 => Just(Step::WriteBack),
        1 => (1..5i64).prop_map(|count| Step::Truncate { count }),
        1 => (1..8i64).prop_map(|count| Step::Trim { count }),
        1 => any::<bool>().prop_map(|is_written| Step::Reopen { is_written }),
        2 => style.prop_map(|style| Step::Crash { style }),
    ]
}

/// A queue and what is known of it: entry `index` has the code that [`entry`] says, in whatever
/// way.
struct Pair {
    io: SimIo,
    queue: Arc<ConsumeQueue<SimIo>>,
    is_written: bool,
    /// Entries below are durable, and so are their units.
    flushed: i64,
    log_min: i64,
}

impl Pair {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Put { count } => {
                for _ in 0..count {
                    put(&self.queue, self.queue.max_index());
                }
            }
            Step::Flush => {
                self.queue.flush(FlushPolicy::All).unwrap();
                self.flushed = self.queue.max_index();
            }
            Step::WriteBack => self.io.writeback(),
            Step::Truncate { count } => {
                let end = (self.queue.max_index() - count).max(self.log_min / 10);
                self.queue.truncate(end as u64 * 10).unwrap();
                self.flushed = self.flushed.min(self.queue.max_index());
            }
            Step::Trim { count } => {
                let min = (self.queue.min_index() + count).min(self.flushed);
                self.log_min = self.log_min.max(min * 10);
                self.queue.trim(self.log_min as u64).unwrap();
            }
            Step::Reopen { is_written } => {
                self.queue.flush(FlushPolicy::All).unwrap();
                self.flushed = self.queue.max_index();
                self.is_written = is_written;
                self.queue = open(&self.io, is_written, OpenPolicy::Clean);
                self.queue.correct_min(self.log_min as u64).unwrap();
            }
            Step::Crash { style } => {
                self.io = self.io.crash(style);
                self.queue = open(&self.io, self.is_written, OpenPolicy::Unclean);
                self.queue.correct_min(self.log_min as u64).unwrap();
                assert!(self.queue.max_index() >= self.flushed);
                // Zeros in files before the last three are found by comparing with the log.
                let code_of = |index: i64| {
                    let found = self.queue.entry(index).unwrap();
                    let found = found.filter(|found| found.size == entry(index).size)?;
                    self.queue.tags_code(&found).unwrap()
                };
                let mut unflushed = self.flushed..self.queue.max_index();
                if unflushed.any(|index| code_of(index).is_none()) {
                    self.rebuild();
                }
            }
        }
    }

    /// What the store does about entries that are not as the log says.
    fn rebuild(&mut self) {
        let range = self.queue.min_index()..self.queue.max_index();
        self.queue.clear().unwrap();
        for index in range.clone() {
            put(&self.queue, index);
        }
        assert_eq!(self.queue.min_index()..self.queue.max_index(), range);
        self.queue.flush(FlushPolicy::All).unwrap();
        self.flushed = range.end;
    }

    /// No entry has a wrong code, and none that was flushed has none.
    fn check(&self) {
        for index in self.queue.min_index()..self.queue.max_index() {
            let found = self.queue.entry(index).unwrap().unwrap();
            assert_eq!(found.physical_offset, entry(index).physical_offset);
            let code = self.queue.tags_code(&found).unwrap();
            let expected = Some(entry(index).tags_code);
            assert_eq!(code, expected, "entry {index}, {found:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_gives_an_entry_anothers_code(steps in prop::collection::vec(step(), 1..40)) {
        let io = SimIo::new(7);
        io.create_dir_all(Path::new("/store/consumequeue")).unwrap();
        let queue = open(&io, true, OpenPolicy::Clean);
        let mut pair = Pair { io, queue, is_written: true, flushed: 0, log_min: 0 };
        for step in &steps {
            pair.apply(step);
            pair.check();
        }
    }
}

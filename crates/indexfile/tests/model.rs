//! The index against a list of what was put, with few slots, so that chains are long, and small
//! files, so that they roll.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::ErrorKind;
use std::path::Path;

use indexfile::{IndexOptions, IndexService, OpenPolicy, PutOutcome, key_hash};
use mmap_core::{Access, CrashStyle, Io, IoFile, SimIo};
use proptest::prelude::*;

const OPTIONS: IndexOptions = IndexOptions {
    slot_count: 7,
    entry_count_max: 12,
    query_count_max: 1000,
};
const START_MS: i64 = 1_700_000_000_000;
/// The first pair has one hash: Java's "Aa" and "BB".
const KEYS: [&str; 5] = ["Aa", "BB", "k0", "k1", "k2"];

#[derive(Clone, Debug)]
enum Step {
    /// A message with these keys, so many milliseconds after the one before.
    Put {
        keys: Vec<usize>,
        after_ms: i64,
    },
    /// The last messages are dispatched once more.
    Again {
        count: usize,
    },
    Flush,
    Reopen,
    /// Kill the process, check the files.
    Kill {
        checkpoint_percent: i64,
    },
    Truncate {
        count: usize,
    },
    Trim {
        percent: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let keys = prop::collection::vec(0..KEYS.len(), 0..4);
    prop_oneof![
        12 => (keys, 0..2500i64).prop_map(|(mut keys, after_ms)| {
            keys.sort_unstable();
            keys.dedup();
            Step::Put { keys, after_ms }
        }),
        1 => (1..5usize).prop_map(|count| Step::Again { count }),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => (0..=100i64).prop_map(|checkpoint_percent| Step::Kill { checkpoint_percent }),
        1 => (0..6usize).prop_map(|count| Step::Truncate { count }),
        1 => (0..=100usize).prop_map(|percent| Step::Trim { percent }),
    ]
}

#[derive(Clone, Debug)]
struct Message {
    offset: u64,
    time_ms: i64,
    keys: Vec<usize>,
}

struct Pair {
    io: SimIo,
    index: IndexService<SimIo>,
    messages: Vec<Message>,
    end_offset: u64,
    now_ms: i64,
    /// Below it, messages may have been trimmed away.
    log_min: u64,
}

fn open(io: &SimIo, policy: OpenPolicy) -> (IndexService<SimIo>, Option<u64>) {
    let opened = IndexService::open(io.clone(), Path::new("/index"), OPTIONS, policy);
    let (index, report) = opened.unwrap();
    (index, report.resume_offset)
}

impl Pair {
    fn new() -> Self {
        let io = SimIo::new(3);
        let (index, _) = open(&io, OpenPolicy::Clean);
        Self {
            io,
            index,
            messages: Vec::new(),
            end_offset: 0,
            now_ms: START_MS,
            log_min: 0,
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Put { keys, after_ms } => {
                self.now_ms += after_ms;
                let message = Message {
                    offset: self.end_offset,
                    time_ms: self.now_ms,
                    keys: keys.clone(),
                };
                self.end_offset += 100;
                self.put(&message, PutOutcome::Indexed);
                self.messages.push(message);
            }
            Step::Again { count } => {
                // Recognised from an opening on.
                self.reopen(OpenPolicy::Clean);
                let from = self.messages.len().saturating_sub(*count);
                for message in &self.messages[from..] {
                    if message.offset >= self.log_min {
                        self.put(message, PutOutcome::AlreadyIndexed);
                    }
                }
            }
            Step::Flush => {
                self.index.flush().unwrap();
            }
            Step::Reopen => self.reopen(OpenPolicy::Clean),
            Step::Kill { checkpoint_percent } => {
                let span_ms = self.now_ms - START_MS;
                self.io = self.io.crash(CrashStyle::KillProcess);
                self.reopen(OpenPolicy::Unclean {
                    checkpoint_timestamp_ms: START_MS + span_ms * checkpoint_percent / 100,
                });
            }
            Step::Truncate { count } => {
                let kept = self.messages.len().saturating_sub(*count);
                let cut = self.messages.split_off(kept);
                if let Some(first) = cut.first() {
                    self.end_offset = first.offset;
                }
                let resume = self.index.truncate(self.end_offset).unwrap();
                self.put_from(resume);
            }
            Step::Trim { percent } => {
                let position = self.messages.len() * percent / 100;
                if let Some(message) = self.messages.get(position) {
                    self.log_min = self.log_min.max(message.offset);
                    self.index.trim(self.log_min).unwrap();
                }
            }
        }
    }

    fn reopen(&mut self, policy: OpenPolicy) {
        let (index, resume) = open(&self.io, policy);
        self.index = index;
        if let Some(resume) = resume {
            self.put_from(resume);
        }
    }

    fn put_from(&mut self, resume: u64) {
        let from = resume.max(self.log_min);
        for message in self
            .messages
            .iter()
            .filter(|message| message.offset >= from)
        {
            for key in &message.keys {
                self.index
                    .put("T", KEYS[*key], message.offset, message.time_ms)
                    .unwrap();
            }
        }
    }

    fn put(&self, message: &Message, expected: PutOutcome) {
        for key in &message.keys {
            let outcome = self
                .index
                .put("T", KEYS[*key], message.offset, message.time_ms);
            assert_eq!(outcome.unwrap(), expected);
        }
    }

    fn check(&self, begin_ms: i64, end_ms: i64) {
        for key in KEYS {
            let mut found = self
                .index
                .query("T", key, usize::MAX, begin_ms, end_ms)
                .unwrap();
            found.retain(|offset| *offset >= self.log_min);
            assert!(
                found.is_sorted_by(|newer, older| newer >= older),
                "{found:?}"
            );
            // What the caller does: drop those of the second before the range's beginning.
            let time_of = |offset: u64| {
                let position = self
                    .messages
                    .binary_search_by_key(&offset, |found| found.offset);
                self.messages[position.unwrap()].time_ms
            };
            assert!(
                found
                    .iter()
                    .all(|offset| time_of(*offset) > begin_ms - 1000)
            );
            found.retain(|offset| time_of(*offset) >= begin_ms && time_of(*offset) <= end_ms);
            let same_hash = |other: usize| key_hash("T", KEYS[other]) == key_hash("T", key);
            let mut expected: Vec<u64> = self
                .messages
                .iter()
                .filter(|message| message.offset >= self.log_min)
                .filter(|message| (begin_ms..=end_ms).contains(&message.time_ms))
                .flat_map(|message| {
                    let hits = message.keys.iter().filter(|key| same_hash(**key));
                    hits.map(|_| message.offset)
                })
                .collect();
            expected.reverse();
            assert_eq!(found, expected, "key {key} in {begin_ms}..={end_ms}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_key_is_found(
        steps in prop::collection::vec(step(), 1..60),
        range in (0..60_000i64, 0..60_000i64),
    ) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.apply(step);
            pair.check(0, i64::MAX);
        }
        pair.check(START_MS + range.0, START_MS + range.0 + range.1);
    }
}

/// Found by power cuts: a file that a truncation had removed was back, and its entries of messages
/// that the log had lost stood for those that had taken their places.
#[test]
fn a_file_that_was_cut_off_stays_away_after_a_power_loss() {
    let io = SimIo::new(5);
    let (index, _) = open(&io, OpenPolicy::Clean);
    let put = |index: &IndexService<SimIo>, range: std::ops::Range<u64>| {
        for offset in range {
            let time_ms = START_MS + offset.cast_signed();
            index.put("T", KEYS[0], offset, time_ms).unwrap();
        }
    };
    put(&index, 1..30);
    index.flush().unwrap();
    assert!(io.list(Path::new("/index")).unwrap().len() > 2);
    index.truncate(5).unwrap();
    // The first file is full again.
    put(&index, 5..12);
    index.flush().unwrap();
    drop(index);
    let io = io.crash(CrashStyle::LoseUnsynced);
    let policy = OpenPolicy::Unclean {
        checkpoint_timestamp_ms: 0,
    };
    let (index, resume) = open(&io, policy);
    assert_eq!(resume, Some(11));
    let found = index.query("T", KEYS[0], 100, 0, i64::MAX).unwrap();
    assert!(found.iter().copied().eq((1..12).rev()), "{found:?}");
}

/// Found on a simulated machine: the entry that is the last one after a repair looked torn as well, but
/// only to the next repair, which wrote another end time.
#[test]
fn what_a_repair_leaves_the_next_one_leaves_too() {
    // Ordinal 10 lies across two sectors.
    let options = IndexOptions {
        slot_count: 64 + 128 * 100,
        entry_count_max: 40,
        ..OPTIONS
    };
    let policy = OpenPolicy::Unclean {
        checkpoint_timestamp_ms: 0,
    };
    let io = SimIo::new(5);
    let dir = Path::new("/index");
    let put = |index: &IndexService<SimIo>, offset: u64| {
        let time_ms = START_MS + offset.cast_signed();
        index
            .put("T", &format!("k{offset}"), offset, time_ms)
            .unwrap();
    };
    let (index, _) =
        IndexService::open(io.clone(), dir, options.clone(), OpenPolicy::Clean).unwrap();
    (1..=11).for_each(|offset| put(&index, offset));
    index.flush().unwrap();
    drop(index);
    let path = dir.join(&io.list(dir).unwrap()[0].name);
    // The header has not seen the last entry, whose message is gone from the log.
    let file = io.open(&path, Access::ReadWrite).unwrap();
    file.write_all_at(&11_u32.to_be_bytes(), 36).unwrap();
    let repaired = [(); 2].map(|()| {
        let (index, report) = IndexService::open(io.clone(), dir, options.clone(), policy).unwrap();
        let resume = report.resume_offset.unwrap();
        (resume..=10).for_each(|offset| put(&index, offset));
        index.flush().unwrap();
        io.read(&path, u64::MAX).unwrap()
    });
    assert!(repaired[0] == repaired[1]);
}

/// Found on a simulated machine: the second key of a message passed for put, because its slot led to an
/// entry that nobody had counted, and the third one took its place.
#[test]
fn a_put_that_was_not_counted_is_put_again() {
    let io = SimIo::new(5);
    let dir = Path::new("/index");
    let open = |policy| IndexService::open(io.clone(), dir, OPTIONS, policy).unwrap();
    let put = |index: &IndexService<SimIo>, key: &str| {
        index.put("T", key, 7, START_MS + 7).unwrap();
    };
    let (index, _) = open(OpenPolicy::Clean);
    index.put("T", "k0", 3, START_MS).unwrap();
    put(&index, "k1");
    put(&index, "k2");
    drop(index);
    let path = dir.join(&io.list(dir).unwrap()[0].name);
    let file = io.open(&path, Access::ReadWrite).unwrap();
    file.write_all_at(&3_u32.to_be_bytes(), 36).unwrap();
    let (index, report) = open(OpenPolicy::Killed {
        checkpoint_timestamp_ms: 0,
    });
    let keys = ["k1", "k2", "k3"];
    if report.resume_offset < Some(7) {
        index.put("T", "k0", 3, START_MS).unwrap();
    }
    keys.iter().for_each(|key| put(&index, key));
    for key in keys {
        let found = index.query("T", key, 10, 0, i64::MAX).unwrap();
        assert_eq!(found, [7], "{key}");
    }
}

/// The kernel counts pages as written of which a sync has failed: no later sync writes them, unless they
/// are written again.
#[test]
fn after_a_failed_sync_what_is_kept_is_written_again() {
    let mut io = SimIo::new(9);
    let dir = Path::new("/index");
    // Slots and entries of many pages each.
    let options = IndexOptions {
        slot_count: 5_000,
        entry_count_max: 5_000,
        ..OPTIONS
    };
    let since = 0;
    let key = |number: u64| format!("key-{number}");
    let (index, _) =
        IndexService::open(io.clone(), dir, options.clone(), OpenPolicy::Clean).unwrap();
    for number in 0..3_000 {
        index.put("T", &key(number), number, START_MS).unwrap();
        if number == 1_000 {
            index.flush().unwrap();
        }
    }
    io.fail_next("sync_data", ErrorKind::Other);
    index.flush().unwrap_err();
    io = io.crash(CrashStyle::KillProcess);
    drop(index);
    let policy = OpenPolicy::Doubted {
        checkpoint_timestamp_ms: since,
    };
    let (index, report) = IndexService::open(io.clone(), dir, options.clone(), policy).unwrap();
    for number in report.resume_offset.unwrap()..3_000 {
        index.put("T", &key(number), number, START_MS).unwrap();
    }
    index.flush().unwrap();
    drop(index);
    io = io.crash(CrashStyle::LoseUnsynced);
    let policy = OpenPolicy::Unclean {
        checkpoint_timestamp_ms: since,
    };
    let (index, report) = IndexService::open(io, dir, options, policy).unwrap();
    assert!(report.resume_offset >= Some(2_999), "{report:?}");
    for number in 0..2_999 {
        let found = index.query("T", &key(number), 10, 0, i64::MAX).unwrap();
        assert_eq!(found, [number], "{number}");
    }
}

/// Found by power cuts: of a file in the middle the name was left and nothing else, and its messages
/// were taken for those of the files behind it, which were there.
#[test]
fn files_behind_an_empty_one_are_built_again() {
    let crash = OpenPolicy::Unclean {
        checkpoint_timestamp_ms: i64::MAX,
    };
    for policy in [crash, OpenPolicy::Clean] {
        files_behind_an_empty_one(policy);
    }
}

fn files_behind_an_empty_one(policy: OpenPolicy) {
    let io = SimIo::new(6);
    let (index, _) = open(&io, OpenPolicy::Clean);
    let put = |index: &IndexService<SimIo>, range: std::ops::Range<u64>| {
        for offset in range {
            let time_ms = START_MS + offset.cast_signed();
            index.put("T", KEYS[0], offset, time_ms).unwrap();
        }
    };
    put(&index, 1..40);
    index.flush().unwrap();
    drop(index);
    let files = io.list(Path::new("/index")).unwrap();
    assert!(files.len() > 3);
    let emptied = Path::new("/index").join(&files[1].name);
    io.remove_file(&emptied).unwrap();
    io.create(&emptied, 0).unwrap();
    let (index, resume) = open(&io, policy);
    let resume = resume.unwrap();
    assert!(resume < 39, "{resume}");
    put(&index, resume..40);
    let found = index.query("T", KEYS[0], 100, 0, i64::MAX).unwrap();
    assert!(found.iter().copied().eq((1..40).rev()), "{found:?}");
}

/// Found by review: a flipped bit in the last header's end made every later message look indexed.
#[test]
fn a_damaged_end_of_the_last_header_is_repaired() {
    let crash = OpenPolicy::Unclean {
        checkpoint_timestamp_ms: 0,
    };
    for policy in [crash, OpenPolicy::Clean] {
        let io = SimIo::new(7);
        let (index, _) = open(&io, OpenPolicy::Clean);
        for offset in 1..30 {
            let time_ms = START_MS + i64::try_from(offset).unwrap();
            index.put("T", KEYS[0], offset, time_ms).unwrap();
        }
        index.close().unwrap();
        let files = io.list(Path::new("/index")).unwrap();
        let last = Path::new("/index").join(&files.last().unwrap().name);
        let file = io.open(&last, Access::ReadWrite).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 24).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], 24).unwrap();
        drop(file);
        let (index, resume) = open(&io, policy);
        assert_eq!(resume, Some(29));
        let outcome = index.put("T", KEYS[0], 30, START_MS + 30).unwrap();
        assert_eq!(outcome, PutOutcome::Indexed);
        let found = index.query("T", KEYS[0], 100, 0, i64::MAX).unwrap();
        assert!(found.iter().copied().eq((1..31).rev()), "{found:?}");
    }
}

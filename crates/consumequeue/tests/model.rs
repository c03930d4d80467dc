//! A queue against a plain list, under any order of operations; files of five entries.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::path::Path;
use std::sync::Arc;

use consumequeue::{ConsumeQueue, ConsumeQueueOptions, Entry, FlushPolicy, OpenPolicy, PutOutcome};
use mmap_core::{CrashStyle, SimIo};
use proptest::prelude::*;

const PER_FILE: i64 = 5;

/// What is done to the queue, and then to the list.
#[derive(Clone, Debug)]
enum Step {
    /// A message of this length, with a gap before it in the log.
    Put {
        gap: i64,
        size: i32,
    },
    /// Messages that follow one another, as far as they are put at once.
    PutRun {
        count: i64,
        gap: i64,
    },
    /// The same, at another index than the next or behind messages that are there.
    PutWrongRun {
        index: i64,
        back: i64,
    },
    /// A message at another index than the next.
    PutAt {
        index: i64,
    },
    /// The last message once more.
    PutAgain,
    Fill {
        count: i64,
    },
    /// A message behind others that the log has lost.
    PutBehindGap {
        lost_count: i64,
    },
    RepeatLast {
        count: i64,
    },
    /// Cuts behind the message at this share of the list.
    Truncate {
        percent: usize,
    },
    Trim {
        percent: usize,
    },
    Flush,
    Reopen {
        policy: OpenPolicy,
    },
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..50i64, 1..200i32).prop_map(|(gap, size)| Step::Put { gap, size }),
        4 => (1..9i64, 0..50i64).prop_map(|(count, gap)| Step::PutRun { count, gap }),
        1 => (0..40i64, 1..30i64).prop_map(|(index, back)| Step::PutWrongRun { index, back }),
        2 => (0..40i64).prop_map(|index| Step::PutAt { index }),
        1 => Just(Step::PutAgain),
        1 => (1..12i64).prop_map(|count| Step::Fill { count }),
        1 => (1..12i64).prop_map(|lost_count| Step::PutBehindGap { lost_count }),
        1 => (1..12i64).prop_map(|count| Step::RepeatLast { count }),
        1 => (0..=100usize).prop_map(|percent| Step::Truncate { percent }),
        1 => (0..=100usize).prop_map(|percent| Step::Trim { percent }),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen { policy: OpenPolicy::Clean }),
        1 => Just(Step::Reopen { policy: OpenPolicy::Unclean }),
        1 => Just(Step::Kill),
    ]
}

/// The queue as a list: `None` is a filler.
#[derive(Debug)]
struct Model {
    first_index: i64,
    entries: Vec<Option<Entry>>,
    /// First place of the last file, which truncation may have left empty.
    last_file: i64,
    /// Where the last message ended. Forgotten with the files if those that are left hold fillers
    /// only: then the queue begins anew.
    physical_end: Option<u64>,
    log_min: i64,
    log_end: i64,
}

impl Model {
    fn max_index(&self) -> i64 {
        self.first_index + self.entries.len() as i64
    }

    fn messages(&self) -> impl Iterator<Item = (i64, Entry)> {
        let indexed = (self.first_index..).zip(&self.entries);
        indexed.filter_map(|(index, entry)| entry.map(|entry| (index, entry)))
    }

    fn forget_end(&mut self) {
        self.physical_end = self
            .messages()
            .last()
            .map(|(_, entry)| entry.physical_end() as u64);
    }

    /// The messages that the log holds still.
    fn live(&self) -> Vec<(i64, Entry)> {
        self.messages()
            .filter(|(_, entry)| entry.physical_offset >= self.log_min)
            .collect()
    }

    /// Drops the files without live messages, never the last one.
    fn drop_files(&mut self) {
        let max_index = self.max_index();
        let min_index = self.live().first().map_or(max_index, |(index, _)| *index);
        let next_file = |index: i64| file_of(index) + PER_FILE;
        while next_file(self.first_index) <= min_index
            && next_file(self.first_index) <= self.last_file
        {
            let count = next_file(self.first_index) - self.first_index;
            self.entries.drain(..count as usize);
            self.first_index += count;
        }
    }

    fn push(&mut self, entries: impl IntoIterator<Item = Option<Entry>>) {
        self.entries.extend(entries);
        self.last_file = self.last_file.max(file_of(self.max_index() - 1));
    }

    /// The offset below which this share of the messages lies.
    fn offset_at(&self, percent: usize) -> i64 {
        let messages: Vec<_> = self.live();
        let position = messages.len() * percent / 100;
        messages
            .get(position)
            .map_or(self.log_end, |(_, entry)| entry.physical_offset)
    }
}

/// First place of the file that an index belongs to.
fn file_of(index: i64) -> i64 {
    index - index % PER_FILE
}

/// Messages that follow one another in the log.
fn run_of(start: i64, count: i64) -> Vec<Entry> {
    let entry = |number| Entry {
        physical_offset: start + number * 10,
        size: 10,
        tags_code: start + number,
    };
    (0..count).map(entry).collect()
}

struct Pair {
    io: SimIo,
    queue: Arc<ConsumeQueue<SimIo>>,
    model: Model,
}

fn open(io: &SimIo, policy: OpenPolicy) -> Arc<ConsumeQueue<SimIo>> {
    let options = ConsumeQueueOptions::with_file_len(PER_FILE as u64 * 20);
    ConsumeQueue::open(io.clone(), Path::new("/cq/T/0"), options, policy).unwrap()
}

impl Pair {
    fn new() -> Self {
        let io = SimIo::new(1);
        let queue = open(&io, OpenPolicy::Clean);
        let model = Model {
            first_index: 0,
            entries: Vec::new(),
            last_file: 0,
            physical_end: None,
            log_min: 0,
            log_end: 0,
        };
        Self { io, queue, model }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Put { gap, size } => self.put_at(self.model.max_index(), gap, size),
            Step::PutRun { count, gap } => self.put_run(count, gap),
            Step::PutWrongRun { index, back } => {
                let start = match self.model.physical_end {
                    Some(end) if index == self.model.max_index() => end as i64 - back,
                    _ => self.model.log_end,
                };
                let run = run_of(start, 3);
                assert_eq!(self.queue.put_run(index, &run).unwrap(), 0);
            }
            Step::PutAt { index } => self.put_at(index, 0, 10),
            Step::PutAgain => {
                if let Some((index, entry)) = self.model.messages().last() {
                    let outcome = self.queue.put(index, entry).unwrap();
                    assert_eq!(outcome, PutOutcome::AlreadyBuilt);
                }
            }
            Step::Fill { count } => {
                let index = self.model.max_index() + count;
                self.queue.fill(index).unwrap();
                self.model.push((0..count).map(|_| None));
            }
            Step::PutBehindGap { lost_count } => self.put_behind_gap(lost_count),
            Step::RepeatLast { count } => {
                let index = self.model.max_index() + count;
                self.queue.repeat_last(index).unwrap();
                if self.model.physical_end.is_some() {
                    let last = self.model.entries.last().copied().flatten();
                    self.model.push((0..count).map(|_| last));
                }
            }
            Step::Truncate { percent } => self.truncate(percent),
            Step::Trim { percent } => {
                self.model.log_min = self.model.offset_at(percent);
                self.queue.flush(FlushPolicy::All).unwrap();
                self.queue.trim(self.model.log_min as u64).unwrap();
                self.model.drop_files();
            }
            Step::Flush => {
                assert!(self.queue.flush(FlushPolicy::All).unwrap());
                assert_eq!(self.queue.flushed_index(), self.queue.max_index());
            }
            Step::Reopen { policy } => self.reopen(policy),
            Step::Kill => {
                self.io = self.io.crash(CrashStyle::KillProcess);
                self.reopen(OpenPolicy::Unclean);
            }
        }
    }

    fn reopen(&mut self, policy: OpenPolicy) {
        self.queue = open(&self.io, policy);
        self.model.forget_end();
        let (log_min, log_end) = (self.model.log_min as u64, self.model.log_end as u64);
        assert_eq!(self.queue.recover(log_min, log_end).unwrap(), 0);
    }

    fn put_at(&mut self, index: i64, gap: i64, size: i32) {
        let entry = Entry {
            physical_offset: self.model.log_end + gap,
            size,
            tags_code: index * 7 - 1,
        };
        let max_index = self.model.max_index();
        let expected = if self.model.physical_end.is_none() {
            self.model.first_index = index;
            self.model.entries.clear();
            self.model.last_file = file_of(index);
            PutOutcome::Appended
        } else if index < max_index {
            PutOutcome::Occupied { max_index }
        } else if index > max_index {
            PutOutcome::Gap { max_index }
        } else {
            PutOutcome::Appended
        };
        assert_eq!(self.queue.put(index, entry).unwrap(), expected);
        if expected == PutOutcome::Appended {
            self.model.push([Some(entry)]);
            self.model.log_end = entry.physical_end();
            self.model.physical_end = Some(entry.physical_end() as u64);
        }
    }

    fn put_run(&mut self, count: i64, gap: i64) {
        let index = self.model.max_index();
        let run = run_of(self.model.log_end + gap, count);
        let put_count = match self.model.physical_end {
            Some(_) => count.min(file_of(index) + PER_FILE - index) as usize,
            None => 0,
        };
        assert_eq!(self.queue.put_run(index, &run).unwrap(), put_count);
        if let Some(last) = run[..put_count].last() {
            self.model.log_end = last.physical_end();
            self.model.physical_end = Some(last.physical_end() as u64);
        }
        self.model.push(run[..put_count].iter().copied().map(Some));
    }

    fn put_behind_gap(&mut self, lost_count: i64) {
        if self.model.physical_end.is_none() {
            return;
        }
        let index = self.model.max_index() + lost_count;
        let entry = Entry {
            physical_offset: self.model.log_end + lost_count * 10,
            size: 10,
            tags_code: index,
        };
        let outcome = self.queue.put_behind_gap(index, entry, None).unwrap();
        assert_eq!(outcome, PutOutcome::Appended);
        self.model.push((0..=lost_count).map(|_| Some(entry)));
        self.model.log_end = entry.physical_end();
        self.model.physical_end = Some(entry.physical_end() as u64);
    }

    fn truncate(&mut self, percent: usize) {
        let log_end = self.model.offset_at(percent);
        let model = &mut self.model;
        let kept = model
            .messages()
            .filter(|(_, entry)| entry.physical_end() <= log_end);
        let end = kept.last().map(|(index, _)| index + 1);
        let had_more = model
            .physical_end
            .is_some_and(|physical_end| physical_end > log_end as u64);
        self.queue.truncate(log_end as u64).unwrap();
        model.log_end = model.log_end.min(log_end);
        if had_more {
            match end {
                Some(end) => model.entries.truncate((end - model.first_index) as usize),
                None => {
                    model.entries.clear();
                    model.first_index = self.queue.max_index();
                }
            }
            model.last_file = model.last_file.min(file_of(model.max_index()));
            model.forget_end();
        }
    }

    fn check(&self) {
        let live = self.model.live();
        let max_index = self.queue.max_index();
        assert_eq!(max_index, self.model.max_index());
        let first = live.first().map_or(max_index, |(index, _)| *index);
        assert_eq!(self.queue.min_index(), first);
        assert_eq!(self.queue.max_physical_end(), self.model.physical_end);
        let mut read = Vec::new();
        let mut index = self.queue.min_index();
        while let Some(entries) = self.queue.entries(index, 3).unwrap() {
            assert_eq!(entries.first_index(), index);
            read.extend(entries.iter());
            index = entries.next_index();
        }
        assert_eq!(index, max_index);
        assert_eq!(read, live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_is_a_list(steps in prop::collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.apply(step);
            pair.check();
        }
    }
}

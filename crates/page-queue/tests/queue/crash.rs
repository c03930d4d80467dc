//! The machine stops between any two file operations: what was durable is there, what is there is
//! what was pushed, and nothing that was cut comes back.

use std::io::ErrorKind;

use mmap_core::{CrashStyle, SimIo};
use page_queue::{Durability, PageQueue, PageQueueError, PageQueueOptions, Reader};
use proptest::prelude::*;

const READER: &str = "reader";

#[derive(Debug, Clone)]
enum Op {
    Push(u16),
    Flush,
    TrimRead,
    Pop,
    Commit,
    Step,
    Writeback,
    /// Closes and opens again.
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (0..700_u16).prop_map(Op::Push),
        3 => Just(Op::Flush),
        2 => Just(Op::TrimRead),
        4 => Just(Op::Pop),
        3 => Just(Op::Commit),
        2 => Just(Op::Step),
        3 => Just(Op::Writeback),
        1 => Just(Op::Close),
    ]
}

fn options(durability: Durability) -> PageQueueOptions {
    PageQueueOptions {
        page_len: 5_000,
        index_page_items: 20,
        allocate_step: 4096,
        durability,
        ..PageQueueOptions::new("/queue")
    }
}

/// What a process knows of its queue.
#[derive(Debug, Clone, Default)]
struct Known {
    /// From number 0 on, trimmed or not; the last one may have failed.
    pushed: Vec<Vec<u8>>,
    /// Items whose push has returned.
    returned: u64,
    durable: u64,
    committed: u64,
    committed_durable: u64,
    /// Differs from push to push, over all lives.
    salt: u64,
}

struct Process {
    io: SimIo,
    options: PageQueueOptions,
    /// Replaced as a whole; `None` only if opening again has failed.
    queue: Option<(PageQueue<SimIo>, Reader<SimIo>)>,
    known: Known,
}

impl Process {
    /// Works until the end, or until something fails.
    fn run(&mut self, ops: &[Op]) {
        for op in ops {
            if self.apply(op).is_err() {
                break;
            }
        }
    }

    fn apply(&mut self, op: &Op) -> Result<(), PageQueueError> {
        let Some((queue, reader)) = &mut self.queue else {
            return Err(PageQueueError::Closed);
        };
        let known = &mut self.known;
        let is_each = self.options.durability == Durability::EachPush;
        match op {
            Op::Push(len) => {
                known.salt += 1;
                let item = vec![known.salt as u8 | 1; usize::from(*len)];
                known.pushed.push(item.clone());
                let number = queue.push_at(&item, known.salt as i64)?;
                assert_eq!(number + 1, known.pushed.len() as u64);
                known.returned = number + 1;
                if is_each {
                    known.durable = number + 1;
                }
            }
            Op::Flush => {
                known.durable = queue.flush()?;
                assert_eq!(known.durable, known.pushed.len() as u64);
                known.committed_durable = known.committed;
            }
            Op::TrimRead => drop(queue.trim_read()?),
            Op::Pop => {
                if let Some(item) = reader.pop()? {
                    assert!(*item == known.pushed[item.number() as usize][..]);
                }
            }
            Op::Commit => {
                known.committed = reader.position();
                reader.commit()?;
                if is_each {
                    known.committed_durable = known.committed;
                }
            }
            Op::Step => drop(queue.step(std::time::Duration::from_secs(1))?),
            Op::Writeback => self.io.writeback(),
            Op::Close => {
                queue.close()?;
                known.durable = known.pushed.len() as u64;
                known.committed_durable = known.committed;
                self.queue = None;
                let (queue, report) = PageQueue::open(self.io.clone(), &self.options)?;
                assert!(report.was_closed);
                let reader = queue.reader(READER)?;
                self.queue = Some((queue, reader));
            }
        }
        Ok(())
    }
}

/// Opens what a crash left and compares it with what is known.
fn reopen(io: &SimIo, options: &PageQueueOptions, known: &mut Known, kept: u64) -> u64 {
    let (queue, report) = PageQueue::open(io.clone(), options).unwrap();
    let (first, end) = (queue.first(), queue.end());
    assert!(end >= kept, "{end} of {kept} items are left");
    assert!(end <= known.pushed.len() as u64);
    for number in first..end {
        let item = queue.get(number).unwrap();
        assert!(
            *item == known.pushed[number as usize][..],
            "item {number} differs"
        );
    }
    if let Some((_, committed)) = queue.readers().first() {
        let least = known.committed_durable.min(end);
        assert!(
            (least..=known.committed).contains(committed),
            "committed {committed}, known {least} to {}, end {end}",
            known.committed
        );
        assert!(*committed <= end);
    } else {
        assert_eq!(known.committed_durable, 0);
    }
    known.pushed.truncate(end as usize);
    drop(queue);
    let (queue, again) = PageQueue::open(io.clone(), options).unwrap();
    assert_eq!((again.first, again.end), (first, end));
    assert_eq!(again.cut_len, 0, "after {report:?}");
    known.committed = queue
        .readers()
        .first()
        .map_or(0, |(_, committed)| *committed);
    end
}

fn check(seed: u64, durability: Durability, lives: &[(Vec<Op>, u64, CrashStyle); 2]) {
    let mut io = SimIo::new(seed);
    let options = options(durability);
    let mut known = Known::default();
    for (ops, fail_from, style) in lives {
        let mut process = Process {
            queue: None,
            io: io.clone(),
            options: options.clone(),
            known,
        };
        io.fail_from("*", *fail_from, ErrorKind::Other);
        if let Ok((queue, _)) = PageQueue::open(io.clone(), &options)
            && let Ok(reader) = queue.reader(READER)
        {
            process.known.durable = process.known.pushed.len() as u64;
            process.known.committed_durable = reader.committed();
            process.queue = Some((queue, reader));
            process.run(ops);
        }
        known = process.known.clone();
        io = io.crash(*style);
        drop(process);
        let kept = known.durable;
        let end = reopen(&io, &options, &mut known, kept);
        known.returned = end;
        known.durable = end;
        known.committed_durable = known.committed;
    }
    // What was found is durable by then.
    let io = io.crash(CrashStyle::LoseUnsynced);
    let kept = known.durable;
    assert_eq!(reopen(&io, &options, &mut known, kept), kept);
}

fn style() -> impl Strategy<Value = CrashStyle> {
    prop_oneof![
        Just(CrashStyle::KillProcess),
        Just(CrashStyle::LoseUnsynced),
        Just(CrashStyle::Tear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_was_durable_survives(
        seed in any::<u64>(),
        durability in prop_oneof![Just(Durability::EachPush), Just(Durability::OnFlush)],
        first in (prop::collection::vec(op(), 1..60), 1..400_u64, style()),
        second in (prop::collection::vec(op(), 1..60), 1..400_u64, style()),
    ) {
        check(seed, durability, &[first, second]);
    }

    #[test]
    fn a_killed_process_loses_nothing(
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let io = SimIo::new(seed);
        let options = options(Durability::OnFlush);
        let (queue, _) = PageQueue::open(io.clone(), &options).unwrap();
        let reader = queue.reader(READER).unwrap();
        let mut process = Process {
            io: io.clone(),
            options: options.clone(),
            queue: Some((queue, reader)),
            known: Known::default(),
        };
        process.run(&ops);
        let mut known = process.known.clone();
        known.committed_durable = known.committed;
        let kept = known.returned;
        reopen(&io.crash(CrashStyle::KillProcess), &options, &mut known, kept);
    }
}

#[test]
fn an_index_page_has_a_durable_name_before_there_are_items() {
    let life = |fail_from| (vec![Op::Push(0)], fail_from, CrashStyle::KillProcess);
    check(0, Durability::OnFlush, &[life(16), life(28)]);
}

#[test]
fn the_name_of_a_reader_is_durable_before_its_position_is() {
    let first = (vec![Op::Push(0)], 42, CrashStyle::KillProcess);
    let ops = vec![Op::Push(0), Op::Pop, Op::Commit];
    let seed = 4_791_890_487_199_721_011;
    for fail_from in 24..40 {
        let second = (ops.clone(), fail_from, CrashStyle::KillProcess);
        check(seed, Durability::EachPush, &[first.clone(), second]);
    }
}

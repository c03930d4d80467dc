//! Puts and gets of stores with many segments, or many queues.

use std::time::Instant;
use std::{hint, thread};

use anyhow::{Result, ensure};
use benches::{Messages, TOPIC};
use mmap_core::Random;
use store::{AllMessages, GetLimits, MessageStore, StoreOptions};
use tempfile::TempDir;

use super::super::report::{Column, Common, Plot, Report, Table};
use crate::bench::memory;

const PUT: Column = Column::spread("put ns");
const GET: Column = Column::spread("get ns");
const GET_NEAR: Column = Column::spread("get near the end ns");
const PUT_GROWTH: Column = Column::median("put, over the first");
const GET_GROWTH: Column = Column::median("get, over the first");
const NEAR_GROWTH: Column = Column::median("get near the end, over the first");
const PUTS: u64 = 10_000;
const GETS: u64 = 2_000;
const READ_COUNT: usize = 32;
/// Messages that are near the end of a store: as many as the smallest one has.
const NEAR_COUNT: i64 = 3_276;
const LIMITS: GetLimits = GetLimits {
    count_max: READ_COUNT,
    bytes_max: 1 << 20,
};
/// Rounds for each one that is asked for: a measurement takes some milliseconds.
const ROUNDS: usize = 7;

/// An open store that is filled to its size.
struct Grown {
    store: MessageStore,
    _dir: TempDir,
    queues: i32,
    next: u64,
    random: Random,
}

/// From one segment to a thousand.
pub(super) fn segments(common: &Common, report: &mut Report) -> Result<()> {
    let segment_len: u64 = common.choose(4 << 20, 1 << 20);
    let sizes: &[u64] = common.choose(&[1, 10, 100, 1000], &[1, 4]);
    let mut grown = Vec::new();
    for segments in sizes {
        eprintln!("{segments} segments");
        let mut one = Grown::open(common, 4, Some(segment_len))?;
        one.put(segments * segment_len / 1280)?;
        one.settle();
        grown.push((segments.to_string(), one));
    }
    let title = format!("Segments of {} MiB", segment_len >> 20);
    measure(
        common,
        report,
        Table::new(title, &["segments"]),
        grown,
        "segments",
    )
}

/// From ten queues to ten thousand.
pub(super) fn queues(common: &Common, report: &mut Report) -> Result<()> {
    let sizes: &[i32] = common.choose(&[10, 100, 1000, 10_000], &[10, 100]);
    let mut grown = Vec::new();
    for queues in sizes {
        eprintln!("{queues} queues");
        let mut one = Grown::open(common, *queues, None)?;
        // As many messages in all stores, and as many as a read takes in each queue.
        one.put(common.choose(320_000, 6_400))?;
        one.settle();
        grown.push((queues.to_string(), one));
    }
    measure(
        common,
        report,
        Table::new("Queues", &["queues"]),
        grown,
        "queues",
    )
}

fn measure(
    common: &Common,
    report: &mut Report,
    mut table: Table,
    mut grown: Vec<(String, Grown)>,
    name: &'static str,
) -> Result<()> {
    // What filled the stores must not be written out while they are measured.
    rustix::fs::sync();
    for _ in 0..common.rounds() * common.choose(ROUNDS, 1) {
        memory::bring_back(&common.base(), 64 << 20)?;
        for (label, one) in &mut grown {
            let begun = Instant::now();
            one.put(PUTS)?;
            one.settle();
            let nanos = begun.elapsed().as_nanos() as f64;
            table.add(&[&*label], PUT, nanos / PUTS as f64);
            let near = NEAR_COUNT / i64::from(one.queues);
            for (column, last) in [(GET, i64::MAX), (GET_NEAR, near)] {
                let begun = Instant::now();
                let count = one.get(GETS, last)?;
                let nanos = begun.elapsed().as_nanos() as f64;
                table.add(&[&*label], column, nanos / count as f64);
            }
        }
    }
    if let Some((first, _)) = grown.first() {
        for (label, _) in &grown {
            table.ratio(&[label], PUT_GROWTH, PUT, &[first]);
            table.ratio(&[label], GET_GROWTH, GET, &[first]);
            table.ratio(&[label], NEAR_GROWTH, GET_NEAR, &[first]);
        }
    }
    report.plot(Plot::bars(name, format!("Put, by {name}"), &table, PUT, 0));
    report.table(table);
    for (_, one) in &grown {
        one.store.close()?;
    }
    Ok(())
}

impl Grown {
    fn open(common: &Common, queues: i32, segment_len: Option<u64>) -> Result<Self> {
        let dir = common.scratch()?;
        let mut options = StoreOptions::new(dir.path());
        options.segment_len = segment_len.unwrap_or(options.segment_len);
        let (store, _report) = MessageStore::open(options)?;
        Ok(Self {
            store,
            _dir: dir,
            queues,
            next: 0,
            random: Random::new(1),
        })
    }

    fn put(&mut self, count: u64) -> Result<()> {
        let mut messages = Messages::new(self.next);
        for number in self.next..self.next + count {
            let mut message = messages.make();
            message.queue_id = (number % self.queues as u64) as i32;
            self.store.put(&message)?;
        }
        self.next += count;
        Ok(())
    }

    fn settle(&self) {
        while self.store.dispatch_behind_bytes() > 0 {
            thread::yield_now();
        }
    }

    /// Reads at random places among the `last` messages of each queue, or of as many as one read
    /// takes; the number of messages that were found.
    fn get(&mut self, reads: u64, last: i64) -> Result<u64> {
        let mut count = 0;
        let mut sum = 0_u64;
        for _ in 0..reads {
            let queue = self.random.below(self.queues as u64) as i32;
            let end = self.store.max_offset(TOPIC, queue).unwrap_or(0);
            let places = end.min(last).saturating_sub(READ_COUNT as i64).max(0);
            let back = self.random.below(places.unsigned_abs() + 1).cast_signed();
            let offset = (end - READ_COUNT as i64 - back).max(0);
            let got = self
                .store
                .get(TOPIC, queue, offset, &LIMITS, &AllMessages)?;
            for slice in got.messages.slices() {
                let bytes = slice.iter().step_by(64).map(|byte| u64::from(*byte));
                sum = sum.wrapping_add(bytes.sum());
            }
            count += got.messages.count() as u64;
        }
        hint::black_box(sum);
        ensure!(count > 0, "no messages were found");
        Ok(count)
    }
}

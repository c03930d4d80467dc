//! Reads of what is in memory.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use benches::{Messages, QUEUES, TOPIC, sum};
use clap::ValueEnum;
use store::{AllMessages, GetLimits, MessageStore, StoreOptions};

use crate::put::await_dispatch;
use benches::sample::{Laps, Latencies, Sample, Usage, latencies};

/// Messages of one read, as a pull's.
const READ_COUNT: usize = 32;
const LIMITS: GetLimits = GetLimits {
    count_max: READ_COUNT,
    bytes_max: 1 << 20,
};
/// Messages that follow each other in one queue, as they do where producers send batches; else the
/// records of a read lie between those of other queues.
const RUN: u64 = 32;

#[derive(Debug)]
struct Tally {
    count: u64,
    bytes: u64,
    sum: u64,
    elapsed: Duration,
    latency_ns: Latencies,
}

/// How the bytes are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Asked of the store, read by read.
    Store,
    /// The slices that the store gave, got once before the time begins: what reading the same
    /// bytes costs, and nothing else.
    Held,
}

/// How much is read, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) readers: usize,
    pub(crate) messages: u64,
    pub(crate) time: Duration,
    pub(crate) way: Way,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            count: 0,
            bytes: 0,
            sum: 0,
            elapsed: Duration::ZERO,
            latency_ns: latencies()?,
        })
    }

    fn add(&mut self, messages: &store::Messages) {
        for slice in messages.slices() {
            self.sum = self.sum.wrapping_add(sum(slice));
        }
        self.count += messages.count() as u64;
        self.bytes += messages.byte_len();
    }
}

pub(crate) fn run(dir: &Path, reading: Reading) -> Result<Sample> {
    let Reading {
        readers,
        messages,
        time,
        way,
    } = reading;
    let (store, _report) = MessageStore::open(StoreOptions::new(dir))?;
    fill(&store, messages)?;
    let barrier = Barrier::new(readers);
    let before = Usage::now()?;
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..readers as i32)
            .map(|reader| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    let queue = reader % QUEUES;
                    let held = match way {
                        Way::Store => Ok(Vec::new()),
                        Way::Held => hold(store, queue),
                    };
                    barrier.wait();
                    let start = Instant::now();
                    let mut tally = match way {
                        Way::Store => read(store, queue, start + time),
                        Way::Held => read_held(&held?, start + time),
                    }?;
                    tally.elapsed = start.elapsed();
                    Ok(tally)
                })
            })
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<Tally>>| {
            worker.join().map_err(|_| anyhow!("a reader panicked"))?
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let usage = Usage::now()?.since(before);
    let mut latency_ns = latencies()?;
    let (mut count, mut bytes, mut sum) = (0, 0, 0_u64);
    let mut elapsed = Duration::ZERO;
    for part in parts {
        elapsed = elapsed.max(part.elapsed);
        latency_ns.add(&part.latency_ns)?;
        count += part.count;
        bytes += part.bytes;
        sum = sum.wrapping_add(part.sum);
    }
    store.close()?;
    Ok(Sample {
        count,
        bytes,
        elapsed,
        callers: None,
        latency_ns,
        usage,
        sum: Some(sum),
    })
}

fn fill(store: &MessageStore, count: u64) -> Result<()> {
    let mut messages = Messages::new(0);
    for number in 0..count {
        let mut message = messages.make();
        message.queue_id = (number / RUN % QUEUES as u64) as i32;
        store.put(&message)?;
    }
    await_dispatch(store);
    Ok(())
}

/// Reads a queue from front to back, and again, until the time is up.
fn read(store: &MessageStore, queue: i32, end: Instant) -> Result<Tally> {
    let queue_end = store.max_offset(TOPIC, queue).unwrap_or(0);
    let mut tally = Tally::new()?;
    let mut laps = Laps::start()?;
    let mut offset = 0;
    loop {
        let got = store.get(TOPIC, queue, offset, &LIMITS, &AllMessages)?;
        ensure!(!got.messages.is_empty(), "no message at {offset}");
        tally.add(&got.messages);
        offset = match got.next_offset {
            next if next >= queue_end => 0,
            next => next,
        };
        if laps.lap() >= end {
            tally.latency_ns = laps.latency_ns;
            return Ok(tally);
        }
    }
}

/// What [`read`] gets, all of it.
fn hold(store: &MessageStore, queue: i32) -> Result<Vec<store::Messages>> {
    let queue_end = store.max_offset(TOPIC, queue).unwrap_or(0);
    let (mut held, mut offset) = (Vec::new(), 0);
    while offset < queue_end {
        let got = store.get(TOPIC, queue, offset, &LIMITS, &AllMessages)?;
        ensure!(!got.messages.is_empty(), "no message at {offset}");
        offset = got.next_offset;
        held.push(got.messages);
    }
    Ok(held)
}

/// Sums what is held, from front to back, and again, until the time is up.
fn read_held(held: &[store::Messages], end: Instant) -> Result<Tally> {
    let mut tally = Tally::new()?;
    let mut laps = Laps::start()?;
    for messages in held.iter().cycle() {
        tally.add(messages);
        if laps.lap() >= end {
            break;
        }
    }
    tally.latency_ns = laps.latency_ns;
    Ok(tally)
}

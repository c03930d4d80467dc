//! Reads of what is in memory.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use benches::{Messages, QUEUES, TOPIC};
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
    latency_ns: Latencies,
}

pub(crate) fn run(dir: &Path, readers: usize, messages: u64, millis: u64) -> Result<Sample> {
    let (store, _report) = MessageStore::open(StoreOptions::new(dir))?;
    fill(&store, messages)?;
    let time = Duration::from_millis(millis);
    let barrier = Barrier::new(readers);
    let before = Usage::now()?;
    let start = Instant::now();
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..readers as i32)
            .map(|reader| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    read(store, reader % QUEUES, start + time)
                })
            })
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<Tally>>| {
            worker.join().map_err(|_| anyhow!("a reader panicked"))?
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let elapsed = start.elapsed();
    let usage = Usage::now()?.since(before);
    let mut latency_ns = latencies()?;
    let (mut count, mut bytes, mut sum) = (0, 0, 0_u64);
    for part in parts {
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
    let mut tally = Tally {
        count: 0,
        bytes: 0,
        sum: 0,
        latency_ns: latencies()?,
    };
    let mut laps = Laps::start()?;
    let mut offset = 0;
    loop {
        let got = store.get(TOPIC, queue, offset, &LIMITS, &AllMessages)?;
        ensure!(!got.messages.is_empty(), "no message at {offset}");
        for slice in got.messages.slices() {
            tally.sum = tally.sum.wrapping_add(sum(slice));
        }
        tally.count += got.messages.count() as u64;
        tally.bytes += got.messages.byte_len();
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

/// The sum of the bytes, taken as words of eight.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_be_bytes(*word));
    let sum = words.fold(0, u64::wrapping_add);
    rest.iter()
        .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

//! The measurements.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use benches::Messages;
use benches::sample::{Laps, Latencies, Sample, Usage, latencies};

use crate::engine::{Engine, Tally};

/// Messages put before the clock starts: files exist then, and threads have run.
const WARM_UP: u64 = 1_000;
/// Messages that a thread takes from the common count at a time.
const SHARE: u64 = 1_000;

/// What one thread put.
struct Part {
    bytes: u64,
    latency_ns: Latencies,
}

/// Puts from several threads until the time is up or `messages` are put.
pub(crate) fn put(
    engine: &dyn Engine,
    threads: usize,
    time: Duration,
    messages: u64,
) -> Result<Sample> {
    // As many writers as threads: some engines tell them apart.
    let barrier = Barrier::new(threads + 1);
    let left = AtomicU64::new(messages);
    let (before, start, parts) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|thread| {
                let (barrier, left) = (&barrier, &left);
                scope.spawn(move || put_in_thread(engine, thread, threads, time, left, barrier))
            })
            .collect();
        barrier.wait();
        engine.settle();
        let before = Usage::now();
        let start = Instant::now();
        barrier.wait();
        let parts: Result<Vec<_>> = workers.into_iter().map(join).collect();
        (before, start, parts)
    });
    let callers = start.elapsed();
    engine.settle();
    let elapsed = start.elapsed();
    let usage = Usage::now()?.since(before?);
    let mut latency_ns = latencies()?;
    let mut bytes = 0;
    for part in parts? {
        bytes += part.bytes;
        latency_ns.add(&part.latency_ns)?;
    }
    Ok(Sample {
        count: latency_ns.len(),
        bytes,
        elapsed,
        callers: Some(callers),
        latency_ns,
        usage,
        sum: None,
    })
}

fn put_in_thread(
    engine: &dyn Engine,
    thread: u64,
    threads: usize,
    time: Duration,
    left: &AtomicU64,
    barrier: &Barrier,
) -> Result<Part> {
    let mut writer = engine.writer(thread);
    let mut messages = Messages::new(thread << 32);
    let warmed = writer.as_mut().map_or(Ok(()), |writer| {
        (0..WARM_UP / threads as u64).try_for_each(|_| writer.put(&messages.make()))
    });
    // Waited for on every way, so that a failing thread holds up nobody.
    barrier.wait();
    barrier.wait();
    warmed?;
    let mut writer = writer?;
    let end = Instant::now() + time;
    let mut bytes = 0;
    let mut laps = Laps::start()?;
    loop {
        let share = take(left);
        for _ in 0..share {
            let message = messages.make();
            bytes += (message.body.len() + message.properties.len()) as u64;
            writer.put(&message)?;
            if laps.lap() >= end {
                return Ok(part(bytes, laps));
            }
        }
        if share == 0 {
            return Ok(part(bytes, laps));
        }
    }
}

fn part(bytes: u64, laps: Laps) -> Part {
    Part {
        bytes,
        latency_ns: laps.latency_ns,
    }
}

/// Takes messages from the common count.
fn take(left: &AtomicU64) -> u64 {
    let take = |left: u64| Some(left.saturating_sub(SHARE));
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    before.unwrap_or_default().min(SHARE)
}

/// Reads what one thread has put, over and over until the time is up.
pub(crate) fn read(engine: &dyn Engine, messages: u64, time: Duration) -> Result<Sample> {
    let mut writer = engine.writer(0)?;
    let mut made = Messages::new(0);
    for _ in 0..messages {
        writer.put(&made.make())?;
    }
    drop(writer);
    engine.settle();
    let mut reader = engine.reader()?;
    let mut tally = Tally::default();
    let before = Usage::now()?;
    let start = Instant::now();
    let end = start + time;
    let mut laps = Laps::start()?;
    loop {
        let found = reader.read()?;
        ensure!(found.count > 0, "the engine found nothing to read");
        tally.merge(found);
        if laps.lap() >= end {
            break;
        }
    }
    Ok(Sample {
        count: tally.count,
        bytes: tally.bytes,
        elapsed: start.elapsed(),
        callers: None,
        latency_ns: laps.latency_ns,
        usage: Usage::now()?.since(before),
        sum: Some(tally.sum),
    })
}

fn join<T>(worker: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    worker.join().map_err(|_| anyhow!("a thread panicked"))?
}

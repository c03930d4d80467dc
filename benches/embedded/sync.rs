//! Puts in sync mode: group commit.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use benches::Messages;
use store::{FlushMode, MessageStore, StoreOptions};

use benches::sample::{Laps, Latencies, Sample, Usage, latencies};

pub(crate) fn run(dir: &Path, producers: usize, millis: u64) -> Result<Sample> {
    let mut options = StoreOptions::new(dir);
    options.flush = FlushMode::sync_default();
    let (store, _report) = MessageStore::open(options)?;
    let mut messages = Messages::new(0);
    for _ in 0..100 {
        store.put(&messages.make())?.ticket.wait()?;
    }
    let time = Duration::from_millis(millis);
    let barrier = Barrier::new(producers);
    let begin_offset = store.log().flushed();
    let before = Usage::now()?;
    let start = Instant::now();
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..producers as u64)
            .map(|producer| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    put(store, 1 << 40 | producer << 32, start + time)
                })
            })
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<Latencies>>| {
            worker.join().map_err(|_| anyhow!("a producer panicked"))?
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let elapsed = start.elapsed();
    let usage = Usage::now()?.since(before);
    let mut latency_ns = latencies()?;
    for part in parts {
        latency_ns.add(&part)?;
    }
    let bytes = store.log().flushed() - begin_offset;
    store.close()?;
    Ok(Sample {
        count: latency_ns.len(),
        bytes,
        elapsed,
        callers: None,
        latency_ns,
        usage,
        sum: None,
    })
}

fn put(store: &MessageStore, first: u64, end: Instant) -> Result<Latencies> {
    let mut messages = Messages::new(first);
    let mut laps = Laps::start()?;
    loop {
        store.put(&messages.make())?.ticket.wait()?;
        if laps.lap() >= end {
            return Ok(laps.latency_ns);
        }
    }
}

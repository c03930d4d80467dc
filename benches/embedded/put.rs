//! Puts without sync, dispatch included.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use benches::Messages;
use store::{FlushMode, MessageStore, StoreOptions};

use benches::sample::{Laps, Latencies, Sample, Usage, latencies};

/// How often it is looked whether dispatch has caught up.
const POLL: Duration = Duration::from_micros(200);

pub(crate) fn run(dir: &Path, threads: usize, messages: u64, syncs: Syncs) -> Result<Sample> {
    let (store, _report) = MessageStore::open(options(dir, syncs))?;
    warm_up(&store)?;
    let begin_offset = store.log().max_offset();
    let barrier = Barrier::new(threads);
    let share = messages / threads as u64;
    let before = Usage::now()?;
    let start = Instant::now();
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|thread| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    put(store, 1 << 40 | thread << 32, share)
                })
            })
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<Latencies>>| {
            worker
                .join()
                .map_err(|_| anyhow!("a putting thread panicked"))?
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let callers = start.elapsed();
    await_dispatch(&store);
    if syncs == Syncs::Sustained {
        store.log().flush_now()?;
    }
    let elapsed = start.elapsed();
    let usage = Usage::now()?.since(before);
    let mut latency_ns = latencies()?;
    for part in parts {
        latency_ns.add(&part)?;
    }
    let bytes = store.log().max_offset() - begin_offset;
    let count = share * threads as u64;
    check(&store, count + WARM_UP)?;
    store.close()?;
    Ok(Sample {
        count,
        bytes,
        elapsed,
        callers: Some(callers),
        latency_ns,
        usage,
        sum: None,
    })
}

/// What is synced while messages are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Syncs {
    /// Nothing before the clock has stopped.
    Never,
    /// As the store comes: log, queues and index each half second or second.
    Shipped,
    /// The same, and the clock stops when the log is synced to its end.
    Sustained,
    /// As shipped, with RocketMQ's transient store pool: records go to locked buffers, which a thread
    /// commits to the files.
    Staged,
}

fn options(dir: &Path, syncs: Syncs) -> StoreOptions {
    const NEVER: Duration = Duration::from_secs(3600);
    let mut options = StoreOptions::new(dir);
    if syncs == Syncs::Never {
        options.flush = FlushMode::Async {
            interval: NEVER,
            least_pages: 0,
            thorough_interval: NEVER,
        };
        options.derived_flush_interval = NEVER;
    }
    if syncs == Syncs::Staged {
        options.flush = FlushMode::staged_default();
    }
    options
}

/// Messages put before the clock starts: files exist then, and threads have run.
const WARM_UP: u64 = 10_000;

fn warm_up(store: &MessageStore) -> Result<()> {
    let mut messages = Messages::new(0);
    for _ in 0..WARM_UP {
        store.put(&messages.make())?;
    }
    await_dispatch(store);
    Ok(())
}

fn put(store: &MessageStore, first: u64, count: u64) -> Result<Latencies> {
    let mut messages = Messages::new(first);
    let mut laps = Laps::start()?;
    for _ in 0..count {
        store.put(&messages.make())?;
        laps.lap();
    }
    Ok(laps.latency_ns)
}

/// Waits until every message has its entries.
pub(crate) fn await_dispatch(store: &MessageStore) {
    let end = store.log().max_offset();
    while store.log().visible() < end || store.dispatch_behind_bytes() > 0 {
        thread::sleep(POLL);
    }
}

/// Every message has its place in a queue.
fn check(store: &MessageStore, count: u64) -> Result<()> {
    let ends = (0..benches::QUEUES).filter_map(|queue| store.max_offset(benches::TOPIC, queue));
    let found: i64 = ends.sum();
    if found.cast_unsigned() == count {
        return Ok(());
    }
    Err(anyhow!(
        "{count} messages were put, and queues hold {found}"
    ))
}

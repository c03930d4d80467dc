//! How fast a log takes records of 1 KiB: one thread without sync, then 1, 8 and 32 producers of
//! which each waits for its record to be synced.
//!
//! `cargo run --release -p commitlog --example append_rate -- DIR` on the disk to be measured.
//! Compare rates of one run only: disks and machines are noisy.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints what it measured"
)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commitlog::message::{Message, RecordView};
use commitlog::mmap_core::OsIo;
use commitlog::{
    CallerError, CommitLog, CommitLogOptions, CrcCheck, DirQuarantine, FlushMode, Known,
    LogServices, QueueCursor, RecoverFrom, SystemClock, Tail,
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const BODY: [u8; 1024] = [b'x'; 1024];
const ASYNC_RECORDS: u64 = 2_000_000;
const SYNC_TIME: Duration = Duration::from_secs(3);

fn main() -> Outcome<()> {
    let Some(parent) = std::env::args_os().nth(1) else {
        eprintln!("which directory?");
        std::process::exit(2);
    };
    let parent = Path::new(&parent);
    without_sync(parent)?;
    for producers in [1, 8, 32] {
        with_sync(parent, producers)?;
    }
    Ok(())
}

fn without_sync(parent: &Path) -> Outcome<()> {
    let dir = tempfile::tempdir_in(parent)?;
    let (log, services) = open(dir.path(), FlushMode::async_default())?;
    let queue = QueueCursor::new(0);
    let mut slowest = Duration::ZERO;
    let started = Instant::now();
    let mut before = started;
    for _ in 0..ASYNC_RECORDS {
        log.append(&mut log.prepare(&message())?, &queue)?;
        let now = Instant::now();
        slowest = slowest.max(now - before);
        before = now;
    }
    let rate = ASYNC_RECORDS as f64 / started.elapsed().as_secs_f64();
    println!("async, 1 producer: {rate:.0} records/s, slowest append {slowest:?}");
    services.stop();
    log.close()?;
    Ok(())
}

fn with_sync(parent: &Path, producers: usize) -> Outcome<()> {
    let dir = tempfile::tempdir_in(parent)?;
    let (log, services) = open(dir.path(), FlushMode::sync_default())?;
    let queue = QueueCursor::new(0);
    let count = AtomicU64::new(0);
    let started = Instant::now();
    let mut latencies = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..producers)
            .map(|_| scope.spawn(|| produce(&log, &queue, &count, started)))
            .collect();
        let mut latencies = Vec::new();
        for producer in producers {
            latencies.extend(producer.join().map_err(|_| "a producer panicked")??);
        }
        Outcome::Ok(latencies)
    })?;
    let rate = count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize);
    println!(
        "sync, {producers} producers: {rate:.0} records/s, p50 {:?}, p99 {:?}",
        at(0.5).unwrap_or(&Duration::ZERO),
        at(0.99).unwrap_or(&Duration::ZERO),
    );
    services.stop();
    log.close()?;
    Ok(())
}

/// Appends and waits, again and again, until the time is over.
fn produce(
    log: &CommitLog,
    queue: &QueueCursor,
    count: &AtomicU64,
    started: Instant,
) -> Outcome<Vec<Duration>> {
    let mut latencies = Vec::new();
    while started.elapsed() < SYNC_TIME {
        let before = Instant::now();
        log.append(&mut log.prepare(&message())?, queue)?
            .ticket
            .wait()?;
        latencies.push(before.elapsed());
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(latencies)
}

fn open(dir: &Path, flush: FlushMode) -> Outcome<(CommitLog, LogServices<OsIo>)> {
    let mut options = CommitLogOptions::new(dir.join("commitlog"));
    options.flush = flush;
    let opening = CommitLog::open(OsIo, options, Arc::new(SystemClock::new()))?;
    let from = RecoverFrom {
        offset: 0,
        last_store_ms: 0,
        known: Known::NOTHING,
        crc: CrcCheck::Body,
        tail: Tail::Unknown,
    };
    let mut quarantine = DirQuarantine::new(OsIo, dir.join("quarantine"));
    let mut visit = |_: &RecordView<'_>| -> Result<(), CallerError> { Ok(()) };
    let (log, _) = opening.recover(&from, &mut visit, &mut quarantine)?;
    let services = log.start_services()?;
    Ok((log, services))
}

fn message() -> Message<'static> {
    Message {
        properties: b"TAGS\x01TagA\x02KEYS\x01key\x02",
        ..Message::new("TopicTest", 0, &BODY)
    }
}

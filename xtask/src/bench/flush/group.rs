//! Group commit: producers that wait for their record to be durable and share the syncs.

use std::io::IoSlice;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use message::Message;
use mmap_core::{AppendRegion, Appender, IoFile, RawMap};
use store::{FlushMode, MessageStore, StoreOptions};

use super::super::files::{Blocks, TestFile, await_unmapped};
use super::super::report::{Column, Common, Plot, Report, Table};
use super::{RATE, RECORD_LEN, add, file_len};

const PRODUCERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const WAYS: [&str; 3] = [
    "pwritev + fdatasync",
    "mapping + msync",
    "our store, SYNC_FLUSH",
];
const OVER: Column = Column::spread("over mapping + msync");

const ABOUT: &str = "Each producer puts a record of 1 KiB, waits until it is durable, and puts the \
next. `pwritev + fdatasync` and `mapping + msync` are models: one thread takes what has gathered, \
writes it in one call or copies it into the mapping, syncs, and wakes all who waited, and does nothing \
else. `our store` is the whole of it: records, queue entries, index.";

/// Measures and reports group commit.
pub(super) fn measure(
    common: &Common,
    dir: &Path,
    duration: Duration,
    report: &mut Report,
) -> Result<()> {
    let mut table = Table::new("Group commit", &["producers", "way"]);
    for round in 0..common.rounds() {
        eprintln!("group commit, round {}", round + 1);
        for producers in PRODUCERS {
            for way in WAYS.into_iter().filter(|way| common.wants(way)) {
                let (rate, latency_ns) = match way {
                    "our store, SYNC_FLUSH" => run_store(dir, producers, duration)?,
                    _ => run_model(common, dir, way, producers, duration)?,
                };
                add(
                    &mut table,
                    &[&producers.to_string(), way],
                    rate,
                    &latency_ns,
                );
            }
        }
    }
    for producers in PRODUCERS {
        for way in [WAYS[0], WAYS[2]] {
            let producers = producers.to_string();
            table.ratio(&[&producers, way], OVER, RATE, &[&producers, WAYS[1]]);
        }
    }
    report.plot(
        Plot::lines(
            "group",
            "Acknowledged a second by producers",
            &table,
            RATE,
            0,
        )
        .log(),
    );
    report.table(table);
    report.text(ABOUT);
    Ok(())
}

/// Runs producers, each of which repeats `put` until the time is over.
fn produce(
    producers: usize,
    duration: Duration,
    put: impl Fn() -> Result<()> + Sync,
) -> Result<(f64, Histogram<u64>)> {
    let started = Instant::now();
    let parts = thread::scope(|scope| {
        let work = || -> Result<Histogram<u64>> {
            let mut latency_ns = Histogram::new(3)?;
            while started.elapsed() < duration {
                let begun = Instant::now();
                put()?;
                latency_ns.record(begun.elapsed().as_nanos() as u64)?;
            }
            Ok(latency_ns)
        };
        let threads: Vec<_> = (0..producers).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a producer panicked"))?
        });
        joined.collect::<Result<Vec<_>>>()
    })?;
    let elapsed = started.elapsed();
    let mut all = Histogram::new(3)?;
    for part in parts {
        all.add(part)?;
    }
    Ok((all.len() as f64 / elapsed.as_secs_f64(), all))
}

fn run_store(dir: &Path, producers: usize, duration: Duration) -> Result<(f64, Histogram<u64>)> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut options = StoreOptions::new(dir.path());
    options.segment_len = 256 << 20;
    options.flush = FlushMode::Sync {
        timeout: Duration::from_secs(5),
    };
    let (store, _report) = MessageStore::open(options)?;
    let body = [b'x'; RECORD_LEN];
    let found = produce(producers, duration, || {
        let appended = store.put(&Message {
            properties: b"TAGS\x01TagA\x02",
            ..Message::new("BenchTopic", 0, &body)
        })?;
        appended.ticket.wait()?;
        Ok(())
    });
    store.close()?;
    found
}

/// Records that wait for the next sync, and who waits for them.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    waiting: Vec<(Thread, Arc<AtomicBool>)>,
    ended: bool,
}

struct Model {
    gathered: Mutex<Gathered>,
    arrived: Condvar,
}

fn run_model(
    common: &Common,
    dir: &Path,
    way: &str,
    producers: usize,
    duration: Duration,
) -> Result<(f64, Histogram<u64>)> {
    let file = TestFile::create(dir, "group", file_len(common), Blocks::Written)?;
    let (region, mut appender) = file.appender()?;
    let model = Model {
        gathered: Mutex::default(),
        arrived: Condvar::new(),
    };
    let found = thread::scope(|scope| {
        let flusher = scope.spawn(|| match way {
            "mapping + msync" => model.serve(|bytes| sync_mapped(&region, &mut appender, bytes)),
            _ => {
                let position = AtomicU64::new(0);
                model.serve(|bytes| sync_written(&file, &position, bytes))
            }
        });
        let found = produce(producers, duration, || model.put());
        model.lock().ended = true;
        model.arrived.notify_one();
        let served = flusher.join();
        served.map_err(|_| anyhow::anyhow!("the flusher panicked"))??;
        found
    });
    drop((region, appender));
    await_unmapped()?;
    found
}

impl Model {
    fn lock(&self) -> std::sync::MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self) -> Result<()> {
        let synced = Arc::new(AtomicBool::new(false));
        let mut gathered = self.lock();
        gathered.bytes.extend_from_slice(&[b'x'; RECORD_LEN]);
        gathered
            .waiting
            .push((thread::current(), Arc::clone(&synced)));
        let is_first = gathered.waiting.len() == 1;
        let ended = gathered.ended;
        drop(gathered);
        anyhow::ensure!(!ended, "the flusher has ended");
        if is_first {
            self.arrived.notify_one();
        }
        while !synced.load(Ordering::Acquire) {
            thread::park();
        }
        Ok(())
    }

    /// Syncs what has gathered until the run has ended. After an error nobody is left waiting.
    fn serve(&self, mut sync: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut taken = Gathered::default();
        loop {
            let mut gathered = self.lock();
            while gathered.waiting.is_empty() && !gathered.ended {
                gathered = self
                    .arrived
                    .wait(gathered)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if gathered.waiting.is_empty() {
                return Ok(());
            }
            std::mem::swap(&mut gathered.bytes, &mut taken.bytes);
            std::mem::swap(&mut gathered.waiting, &mut taken.waiting);
            drop(gathered);
            let outcome = sync(&taken.bytes);
            if outcome.is_err() {
                let mut gathered = self.lock();
                gathered.ended = true;
                taken.waiting.append(&mut gathered.waiting);
            }
            taken.bytes.clear();
            for (thread, synced) in taken.waiting.drain(..) {
                synced.store(true, Ordering::Release);
                thread.unpark();
            }
            outcome?;
        }
    }
}

/// Begins anew at the front when the file is full: its blocks are written ones anyway.
fn sync_written(file: &TestFile, position: &AtomicU64, bytes: &[u8]) -> Result<()> {
    let len = bytes.len() as u64;
    let at = match position.load(Ordering::Relaxed) {
        at if at + len <= file.len() => at,
        _ => 0,
    };
    position.store(at + len, Ordering::Relaxed);
    file.file().write_parts_at(&[IoSlice::new(bytes)], at)?;
    Ok(file.file().sync_data()?)
}

fn sync_mapped(region: &AppendRegion, appender: &mut Appender, bytes: &[u8]) -> Result<()> {
    let range = appender.write(&[bytes]).context("the mapping is full")?;
    appender.publish();
    Ok(region.map().sync_range(range.start, range.len())?)
}

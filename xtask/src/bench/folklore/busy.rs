//! Mapped memory and system calls beside threads that never let go of a processor.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use mmap_core::IoFile;

use super::super::files::{Blocks, TestFile, await_unmapped, sum};
use super::super::report::{Column, Common, Report, Table};
use super::RATE;

const FILE_LEN: u64 = 256 << 20;
const UNIT: usize = 4 << 10;
const WAYS: [&str; 4] = [
    "write, mapping",
    "write, pwrite",
    "read, mapping",
    "read, pread",
];

const KEPT: Column = Column::spread("of the rate alone");
const P99: Column = Column::median("p99 of a unit, us");
const WORST: Column = Column::median("longest unit, us");

const ABOUT: &str = "256 MiB by units of 4 KiB, in the page cache and written before, beside no other \
thread, or beside two for each processor that only count. The fair share is then a third.";

pub(super) fn measure(common: &Common, dir: &Path, report: &mut Report) -> Result<()> {
    let mut table = Table::new("Beside busy processors", &["work", "beside"]);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let len = common.choose(FILE_LEN, 2 << 20);
    for round in 0..common.rounds() {
        eprintln!("busy processors, round {}", round + 1);
        for way in WAYS.into_iter().filter(|way| common.wants(way)) {
            let file = TestFile::create(dir, "busy", len, Blocks::Written)?;
            for hogs in [0, processors * 2] {
                let (elapsed, latency_ns) = beside(hogs, || work(&file, way))?;
                let labels = [way, beside_name(hogs)];
                table.add(&labels, RATE, len as f64 / 1e6 / elapsed.as_secs_f64());
                table.add(
                    &labels,
                    P99,
                    latency_ns.value_at_quantile(0.99) as f64 / 1e3,
                );
                table.add(&labels, WORST, latency_ns.max() as f64 / 1e3);
            }
        }
    }
    for way in WAYS {
        table.ratio(&[way, beside_name(1)], KEPT, RATE, &[way, beside_name(0)]);
    }
    report.table(table);
    report.text(ABOUT);
    Ok(())
}

fn beside_name(hogs: usize) -> &'static str {
    match hogs {
        0 => "nothing",
        _ => "two busy threads a processor",
    }
}

fn beside<T>(hogs: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..hogs {
            scope.spawn(|| {
                let mut count = 0_u64;
                while !ended.load(Ordering::Relaxed) {
                    count = std::hint::black_box(count.wrapping_add(1));
                }
            });
        }
        let found = work();
        ended.store(true, Ordering::Relaxed);
        found
    })
}

fn work(file: &TestFile, way: &str) -> Result<(Duration, Histogram<u64>)> {
    let mut buf = vec![b'x'; UNIT];
    let mut latency_ns = Histogram::new(3)?;
    let mut found = 0_u64;
    let (region, mut appender) = file.appender()?;
    let reader = file.region()?;
    let started = Instant::now();
    for position in (0..file.len()).step_by(UNIT) {
        let begun = Instant::now();
        let start = position as usize;
        match way {
            "write, mapping" => {
                let written = appender.write(&[&buf]);
                anyhow::ensure!(written.is_some(), "the mapping is full");
                appender.publish();
            }
            "write, pwrite" => file.file().write_all_at(&buf, position)?,
            "read, mapping" => {
                let bytes = reader.bytes(start..start + UNIT).unwrap_or_default();
                found = found.wrapping_add(sum(bytes));
            }
            _ => {
                file.file().read_exact_at(&mut buf, position)?;
                found = found.wrapping_add(sum(&buf));
            }
        }
        latency_ns.record(begun.elapsed().as_nanos() as u64)?;
    }
    let elapsed = started.elapsed();
    std::hint::black_box(found);
    drop((region, appender, reader));
    await_unmapped()?;
    Ok((elapsed, latency_ns))
}

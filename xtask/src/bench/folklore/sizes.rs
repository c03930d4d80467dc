//! Whether mapped memory suits large files only.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use mmap_core::{IoFile, Random};

use super::super::cost::{self, Cost};
use super::super::files::{TestFile, await_unmapped, size, sum};
use super::super::report::{Column, Common, Plot, Report, Table};
use super::{FAULTS, RATE};

const FILE_LENS: [u64; 6] = [1 << 20, 8 << 20, 64 << 20, 256 << 20, 1 << 30, 4 << 30];
/// Written in each run, into as many files as it takes.
const TOTAL_LEN: u64 = 512 << 20;
const RECORD_LEN: usize = 1 << 10;
const READ_COUNT: u64 = 200_000;

const READ_NANOS: Column = Column::spread("random read of 1 KiB, ns");

const ABOUT: &str = "512 MiB are written by records of 1 KiB into files of a size, each of them \
allocated and mapped when it is begun, and unmapped and removed when it is full (all of that is in \
the rate); of a larger file the first 512 MiB are written. Then records at random places of what was \
written last are read and summed, from the page cache.";

pub(super) fn measure(common: &Common, dir: &Path, report: &mut Report) -> Result<()> {
    let mut table = Table::new("File sizes", &["file", "way"]);
    for round in 0..common.rounds() {
        eprintln!("file sizes, round {}", round + 1);
        for file_len in FILE_LENS {
            if file_len > common.choose(4 << 30, 1 << 20) || !common.wants(&size(file_len)) {
                continue;
            }
            let total = common.choose(TOTAL_LEN, 2 << 20);
            for way in ["mapping", "pwrite, pread"] {
                let found = match way {
                    "mapping" => mapped(dir, file_len, total)?,
                    _ => called(dir, file_len, total)?,
                };
                let labels = [&*size(file_len), way];
                let (cost, read_nanos) = found;
                let faults = (cost.minor_faults + cost.major_faults) as f64;
                table.add(&labels, RATE, cost.megabytes_per_second(total));
                table.add(
                    &labels,
                    FAULTS,
                    faults * (1_u64 << 30) as f64 / total as f64,
                );
                table.add(&labels, READ_NANOS, read_nanos);
            }
        }
    }
    report.plot(Plot::lines(
        "sizes",
        "Writing records of 1 KiB by the size of files",
        &table,
        RATE,
        0,
    ));
    report.table(table);
    report.text(ABOUT);
    Ok(())
}

/// The cost of writing, and nanoseconds of a random read.
fn mapped(dir: &Path, file_len: u64, total: u64) -> Result<(Cost, f64)> {
    let record = [b'x'; RECORD_LEN];
    let (last, cost) = cost::of(|| {
        let mut rest = total;
        loop {
            let file = TestFile::create_unsynced(dir, "size", file_len)?;
            let (region, mut appender) = file.appender()?;
            while rest > 0 && appender.write(&[&record]).is_some() {
                appender.publish();
                rest -= RECORD_LEN as u64;
            }
            if rest == 0 {
                break Ok((file, region));
            }
        }
    })?;
    let (file, region) = last;
    let records = region.published() / RECORD_LEN;
    let mut random = Random::new(1);
    let started = Instant::now();
    let mut found = 0_u64;
    for _ in 0..READ_COUNT {
        let start = random.below(records as u64) as usize * RECORD_LEN;
        let bytes = region.bytes(start..start + RECORD_LEN).unwrap_or_default();
        found = found.wrapping_add(sum(bytes));
    }
    let nanos = started.elapsed().as_nanos() as f64 / READ_COUNT as f64;
    std::hint::black_box(found);
    drop((file, region));
    await_unmapped()?;
    Ok((cost, nanos))
}

fn called(dir: &Path, file_len: u64, total: u64) -> Result<(Cost, f64)> {
    let record = [b'x'; RECORD_LEN];
    let (last, cost) = cost::of(|| {
        let mut rest = total;
        loop {
            let file = TestFile::create_unsynced(dir, "size", file_len)?;
            let mut position = 0;
            while rest > 0 && position < file_len {
                file.file().write_all_at(&record, position)?;
                position += RECORD_LEN as u64;
                rest -= RECORD_LEN as u64;
            }
            if rest == 0 {
                break Ok((file, position));
            }
        }
    })?;
    let (file, written) = last;
    let mut random = Random::new(1);
    let mut buf = [0; RECORD_LEN];
    let started = Instant::now();
    let mut found = 0_u64;
    for _ in 0..READ_COUNT {
        let offset = random.below(written / RECORD_LEN as u64) * RECORD_LEN as u64;
        file.file().read_exact_at(&mut buf, offset)?;
        found = found.wrapping_add(sum(&buf));
    }
    let nanos = started.elapsed().as_nanos() as f64 / READ_COUNT as f64;
    std::hint::black_box(found);
    Ok((cost, nanos))
}

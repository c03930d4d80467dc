//! `cargo xtask bench flush`: what a sync costs, by the way the bytes were written and the blocks
//! they went to, and how many acknowledgements a second producers get who share syncs.

mod group;

use std::io::IoSlice;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use hdrhistogram::Histogram;
use mmap_core::{IoFile, RawMap, write_back};
use rustix::io::{ReadWriteFlags, pwritev2};

use super::files::{Blocks, TestFile};
use super::report::{Column, Common, Plot, Report, Table};

const RECORD_LEN: usize = 1024;
const FILE_LEN: u64 = 96 << 20;

const RATE: Column = Column::spread("acknowledged/s");
const OVER: Column = Column::spread("over pwrite + fdatasync, written blocks");
const P50: Column = Column::median("p50 us");
const P99: Column = Column::median("p99 us");
const DURABLE: Column = Column::median("durable");

const ABOUT: &str = "One thread, one record of 1 KiB behind the other. **Allocated** blocks were \
reserved by fallocate: the first sync of each also commits that it is written now to the file \
system's journal. **Written** blocks were written and synced once before, in pieces of 1 MiB, so \
that the page cache holds them in large folios: a store through the mapping makes a whole folio \
dirty, and the sync writes it. `sync_file_range` waits for the device to take the pages and neither \
flushes the device's cache nor commits metadata: a power loss may take what it acknowledged, and the \
row shows only what that would save.";

/// What `cargo xtask bench flush` takes.
#[derive(Debug, Args)]
pub struct FlushArguments {
    /// Milliseconds of each measurement.
    #[arg(long, default_value_t = 500)]
    millis: u64,
    #[command(flatten)]
    common: Common,
}

impl FlushArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// Runs the bench.
pub(super) fn run(arguments: &FlushArguments) -> Result<()> {
    let common = &arguments.common;
    let mut report = Report::new("flush", "Syncs and group commit", common);
    let dir = common.scratch()?;
    let duration = Duration::from_millis(common.choose(arguments.millis, 20));
    let mut alone = Table::new("One producer", &["way", "blocks"]);
    for round in 0..common.rounds() {
        eprintln!("one producer, round {}", round + 1);
        for blocks in [Blocks::Allocated, Blocks::Written] {
            for way in Way::ALL.iter().filter(|way| common.wants(way.name())) {
                way.measure(dir.path(), common, duration, blocks, &mut alone)?;
            }
        }
    }
    let base = [Way::WriteSync.name(), blocks_name(Blocks::Written)];
    for way in Way::ALL {
        for blocks in [Blocks::Allocated, Blocks::Written] {
            let labels = [way.name(), blocks_name(blocks)];
            if labels != base {
                alone.ratio(&labels, OVER, RATE, &base);
            }
        }
    }
    report.plot(Plot::bars(
        "alone",
        "Syncs a second of one producer",
        &alone,
        RATE,
        0,
    ));
    report.table(alone);
    report.text(ABOUT);
    group::measure(common, dir.path(), duration, &mut report)?;
    report.finish(common)
}

fn blocks_name(blocks: Blocks) -> &'static str {
    match blocks {
        Blocks::Allocated => "allocated",
        Blocks::Written => "written",
    }
}

fn file_len(common: &Common) -> u64 {
    common.choose(FILE_LEN, 4 << 20)
}

/// How a record is written and synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    WriteSync,
    WriteThrough,
    MapSync,
    MapSyncData,
    WriteBack,
}

impl Way {
    const ALL: [Self; 5] = [
        Self::WriteSync,
        Self::WriteThrough,
        Self::MapSync,
        Self::MapSyncData,
        Self::WriteBack,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::WriteSync => "pwrite + fdatasync",
            Self::WriteThrough => "pwritev2 (RWF_DSYNC)",
            Self::MapSync => "mapping + msync",
            Self::MapSyncData => "mapping + fdatasync",
            Self::WriteBack => "pwrite + sync_file_range",
        }
    }

    fn measure(
        self,
        dir: &Path,
        common: &Common,
        duration: Duration,
        blocks: Blocks,
        table: &mut Table,
    ) -> Result<()> {
        let file = TestFile::create(dir, "flush", file_len(common), blocks)?;
        let (region, mut appender) = file.appender()?;
        let record = [b'x'; RECORD_LEN];
        let mut latency_ns = Histogram::<u64>::new(3)?;
        let started = Instant::now();
        for offset in (0..file.len()).step_by(RECORD_LEN) {
            if started.elapsed() > duration {
                break;
            }
            let begun = Instant::now();
            match self {
                Self::MapSync | Self::MapSyncData => {
                    appender.write(&[&record]).context("the mapping is full")?;
                    appender.publish();
                }
                Self::WriteSync | Self::WriteBack => file.file().write_all_at(&record, offset)?,
                Self::WriteThrough => {
                    let parts = [IoSlice::new(&record)];
                    pwritev2(&**file.file(), &parts, offset, ReadWriteFlags::DSYNC)?;
                }
            }
            match self {
                Self::WriteThrough => {}
                Self::MapSync => region.map().sync_range(offset as usize, RECORD_LEN)?,
                Self::WriteBack => write_back(&**file.file(), offset, RECORD_LEN as u64)?,
                Self::WriteSync | Self::MapSyncData => file.file().sync_data()?,
            }
            latency_ns.record(begun.elapsed().as_nanos() as u64)?;
        }
        let rate = latency_ns.len() as f64 / started.elapsed().as_secs_f64();
        let labels = [self.name(), blocks_name(blocks)];
        add(table, &labels, rate, &latency_ns);
        let durable = if self == Self::WriteBack {
            "**no**"
        } else {
            "yes"
        };
        table.note(&labels, DURABLE, durable);
        Ok(())
    }
}

fn add(table: &mut Table, labels: &[&str], rate: f64, latency_ns: &Histogram<u64>) {
    if latency_ns.is_empty() {
        // A quick run on a slow device.
        return;
    }
    table.add(labels, RATE, rate);
    for (column, quantile) in [(P50, 0.5), (P99, 0.99)] {
        let nanos = latency_ns.value_at_quantile(quantile);
        table.add(labels, column, nanos as f64 / 1e3);
    }
}

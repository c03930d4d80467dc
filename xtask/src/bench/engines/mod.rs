//! `cargo xtask bench engines`: the same messages put into embedded engines, and read back, in turn.

mod programs;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::memory;
use super::report::{Column, Common, Plot, Report, Table};
use crate::interop::java;
use programs::Programs;

const RATE: Column = Column::spread("messages/s");
const OVER_OURS: Column = Column::spread("over ours");
const OVER_DEVICE: Column = Column::spread("over fdatasync");
const OURS: &str = "ours";
/// Bytes that the fastest engine writes in a second, about.
const WRITTEN_PER_SECOND_MAX: usize = 2 << 30;
/// Messages of one measurement at most: below the kernel's limit of dirty pages.
const MESSAGES_MAX: u64 = 2_000_000;
const ABOUT: &str = "Messages with bodies of 1 KiB, TAGS, KEYS and UNIQ_KEY, put in process. Ours and \
RocketMQ's Java store derive consume queues and the key index, and the clock stops when both have \
caught up; the others get body and properties as one value: raft-engine keeps an index of entries \
in memory, commitlog an index of offsets, redb a B-tree with one transaction a message, okaywal \
none at all. A fresh store in a process of its own for each measurement; Java's two stores stay \
open in one warmed JVM with the flags of `runbroker.sh`, its messages are made beforehand, and it is \
stopped (SIGSTOP) while others run. okaywal syncs each commit and reads back only at recovery; \
commitlog has no group commit. Sync: each producer waits for its message to be on the device; *fdatasync* is what the device does \
without an engine: 1 KiB after the other written and synced, into initialised blocks.";

/// The engines and whether they take part in puts without sync, sync puts of one producer, those of
/// several, and reads.
const ENGINES: [(&str, [bool; 4]); 7] = [
    (programs::FDATASYNC, [false, true, false, false]),
    (OURS, [true, true, true, true]),
    (programs::JAVA, [true, true, true, true]),
    ("okay-wal", [false, true, true, false]),
    ("raft-engine", [true, true, true, true]),
    ("commit-log", [true, false, false, true]),
    ("redb", [true, true, true, true]),
];

/// What `cargo xtask bench engines` takes.
#[derive(Debug, Args)]
pub struct EnginesArguments {
    /// Leaves out the engines whose names are not given.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl EnginesArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    fn wants(&self, engine: &str) -> bool {
        self.engines.is_empty() || self.engines.iter().any(|name| name == engine)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Put { threads: usize },
    Sync { threads: usize },
    Read,
}

impl Work {
    const ALL: [Work; 7] = [
        Work::Put { threads: 1 },
        Work::Put { threads: 2 },
        Work::Sync { threads: 1 },
        Work::Sync { threads: 8 },
        Work::Sync { threads: 32 },
        Work::Sync { threads: 128 },
        Work::Read,
    ];

    fn name(self) -> String {
        match self {
            Work::Put { threads } => format!("put, {threads} threads"),
            Work::Sync { threads } => format!("sync put, {threads} producers"),
            Work::Read => "read by 32".to_owned(),
        }
    }

    /// Its place in [`ENGINES`].
    fn kind(self) -> usize {
        match self {
            Work::Put { .. } => 0,
            Work::Sync { threads: 1 } => 1,
            Work::Sync { .. } => 2,
            Work::Read => 3,
        }
    }
}

/// Runs the bench.
pub(super) fn run(arguments: &EnginesArguments) -> Result<()> {
    let common = &arguments.common;
    let mut report = Report::new("engines", "Embedded engines", common);
    report.record("Java", java::version()?);
    report.record("engines", programs::versions()?);
    let scratch = common.scratch()?;
    let mut programs = Programs::start(scratch.path(), common, arguments.wants(programs::JAVA))?;
    let mut table = Table::new("Puts and reads", &["work", "engine"]);
    for work in Work::ALL.iter().filter(|work| common.wants(&work.name())) {
        eprintln!("{}", work.name());
        for _ in 0..common.rounds() {
            for (engine, takes) in ENGINES {
                if takes[work.kind()] && arguments.wants(engine) {
                    let found = measure(&mut programs, engine, *work, common)
                        .with_context(|| format!("{} into {engine}", work.name()))?;
                    add(&mut table, &[&work.name(), engine], &found)?;
                }
            }
        }
        for (engine, _) in ENGINES {
            let (row, base) = ([&*work.name(), engine], [&*work.name(), OURS]);
            table.ratio(&row, OVER_OURS, RATE, &base);
            let device = [&*work.name(), programs::FDATASYNC];
            table.ratio(&row, OVER_DEVICE, RATE, &device);
        }
    }
    report.text(ABOUT);
    report.plot(Plot::bars("rates", "Messages a second", &table, RATE, 0).log());
    report.table(table);
    report.finish(common)
}

fn measure(programs: &mut Programs, engine: &str, work: Work, common: &Common) -> Result<Value> {
    let millis = common.choose(800, 100);
    memory::bring_back(
        &common.base(),
        common.choose(WRITTEN_PER_SECOND_MAX, 64 << 20),
    )?;
    let found = programs.measure(engine, work, millis, common.choose(MESSAGES_MAX, 20_000))?;
    // Written pages of one engine must not be written out in the next one's time.
    rustix::fs::sync();
    Ok(found)
}

fn add(table: &mut Table, labels: &[&str], found: &Value) -> Result<()> {
    let figure = |name: &str| found[name].as_f64().with_context(|| format!("no {name}"));
    let (count, seconds) = (figure("count")?, figure("seconds")?);
    table.add(labels, RATE, count / seconds);
    for (column, name) in [
        (Column::median("p50 us"), "p50_ns"),
        (Column::median("p99 us"), "p99_ns"),
        (Column::median("p99.9 us"), "p999_ns"),
    ] {
        table.add(labels, column, figure(name)? / 1e3);
    }
    table.add(labels, Column::median("messages"), count);
    table.add(labels, Column::median("MB"), figure("bytes")? / 1e6);
    table.add(labels, Column::median("seconds"), seconds);
    Ok(())
}

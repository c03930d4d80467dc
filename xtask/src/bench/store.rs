//! `cargo xtask bench store`: the store in process, each measurement in a process of its own, beside
//! what the machine does without a store.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::memory;
use super::report::{Column, Common, Plot, Report, Table};
use crate::workspace;

const RATE: Column = Column::spread("a second");
const OVER_FLOOR: Column = Column::spread("over its floor");
const OVER_ONE: Column = Column::spread("over one thread");
/// Bytes that are touched before each measurement: what the longest one writes.
const WRITTEN_MAX: usize = 5 << 30;
const ABOUT: &str = "Messages with bodies of 1 KiB, TAGS, KEYS and UNIQ_KEY, put into four queues in turn. \
For puts without sync the clock stops when dispatch has caught up, so that consume queues and index are \
built; latencies are those of the calls. *Without sync* syncs nothing meanwhile, *as shipped* syncs log, \
queues and index each half second or second, *sustained* stops the clock when the log is on the device. \
The floors: *copy* copies records of the same length into fresh mapped segments and does nothing else; \
*fdatasync* writes and syncs 1 KiB after the other into initialised blocks; *write* writes a file in \
large pieces and syncs it. Readers go through 50,000 messages of one queue (62 MB, more than \
the caches hold) or 5,000 (6 MB) again and again, and sum all bytes that they get; *held* got its slices \
before the clock started and does nothing but sum them. The unit of *fdatasync* is a sync, that of *write* 1,215 \
bytes, and a latency of *get* is that of 32 messages.";

/// What `cargo xtask bench store` takes.
#[derive(Debug, Args)]
pub struct StoreArguments {
    #[command(flatten)]
    common: Common,
}

impl StoreArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// A row: its name, what the program is asked for, and the row whose rate is its floor.
struct Row {
    name: &'static str,
    words: &'static [&'static str],
    amount: Amount,
    floor: Option<&'static str>,
}

/// How much is measured.
#[derive(Clone, Copy)]
enum Amount {
    Messages,
    Millis,
    Bytes,
}

const fn row(
    name: &'static str,
    words: &'static [&'static str],
    amount: Amount,
    floor: Option<&'static str>,
) -> Row {
    Row {
        name,
        words,
        amount,
        floor,
    }
}

const COPY: &str = "copy";
const FDATASYNC: &str = "fdatasync";
const WRITE: &str = "write";

const ONE_THREAD: &str = "put, without sync, 1 thread";
const TWO_THREADS: &str = "put, without sync, 2 threads";

const GET: &str = "get by 32, hot";
const HELD: &str = "the same bytes, held";
const GET_SMALL: &str = "get by 32, in the caches";
const HELD_SMALL: &str = "the same bytes, held, in the caches";
/// Messages of which a fourth, which is what one reader goes through, fits into a processor's caches.
const SMALL: &str = "20000";

const ROWS: [Row; 16] = [
    row(COPY, &["copy"], Amount::Messages, None),
    row(
        ONE_THREAD,
        &["put", "--syncs", "never"],
        Amount::Messages,
        Some(COPY),
    ),
    row(
        TWO_THREADS,
        &["put", "--syncs", "never", "--threads", "2"],
        Amount::Messages,
        Some(COPY),
    ),
    row(
        "put, as shipped, 1 thread",
        &["put"],
        Amount::Messages,
        Some(COPY),
    ),
    row(
        "put, staged, 1 thread",
        &["put", "--syncs", "staged"],
        Amount::Messages,
        Some(COPY),
    ),
    row(WRITE, &["write"], Amount::Bytes, None),
    row(
        "put, sustained, 1 thread",
        &["put", "--syncs", "sustained"],
        Amount::Messages,
        Some(WRITE),
    ),
    row(FDATASYNC, &["fdatasync"], Amount::Millis, None),
    row(
        "sync put, 1 producer",
        &["sync", "--producers", "1"],
        Amount::Millis,
        Some(FDATASYNC),
    ),
    row(
        "sync put, 8 producers",
        &["sync", "--producers", "8"],
        Amount::Millis,
        Some(FDATASYNC),
    ),
    row(
        "sync put, 32 producers",
        &["sync", "--producers", "32"],
        Amount::Millis,
        Some(FDATASYNC),
    ),
    row(
        "sync put, 128 producers",
        &["sync", "--producers", "128"],
        Amount::Millis,
        Some(FDATASYNC),
    ),
    row(HELD, &["get", "--way", "held"], Amount::Millis, None),
    row(GET, &["get"], Amount::Millis, Some(HELD)),
    row(
        HELD_SMALL,
        &["get", "--messages", SMALL, "--way", "held"],
        Amount::Millis,
        None,
    ),
    row(
        GET_SMALL,
        &["get", "--messages", SMALL],
        Amount::Millis,
        Some(HELD_SMALL),
    ),
];

/// The length of a record of the workload.
const RECORD_LEN: u64 = 1215;

/// Runs the bench.
pub(super) fn run(arguments: &StoreArguments) -> Result<()> {
    let common = &arguments.common;
    let mut report = Report::new("store", "The store in process", common);
    let program = build(common)?;
    let scratch = common.scratch()?;
    let mut table = Table::new("Puts and gets", &["work"]);
    for _ in 0..common.rounds() {
        for row in ROWS.iter().filter(|row| common.wants(row.name)) {
            eprintln!("{}", row.name);
            let found = measure(&program, row, scratch.path(), common)
                .with_context(|| row.name.to_owned())?;
            add(&mut table, row, &found)?;
        }
    }
    for row in &ROWS {
        if let Some(floor) = row.floor {
            table.ratio(&[row.name], OVER_FLOOR, RATE, &[floor]);
        }
    }
    table.ratio(&[TWO_THREADS], OVER_ONE, RATE, &[ONE_THREAD]);
    report.text(ABOUT);
    report.plot(Plot::bars("rates", "A second", &table, RATE, 0).log());
    report.table(table);
    report.finish(common)
}

/// The program that measures; of this build for a quick run, for release otherwise.
pub(super) fn build(common: &Common) -> Result<PathBuf> {
    let mut words = vec!["build", "--quiet", "--package", "benches"];
    words.extend(["--bin", "embedded"]);
    let profile = common.choose("release", "debug");
    if profile == "release" {
        words.push("--release");
    }
    workspace::run(&mut workspace::cargo_command(&words))?;
    Ok(workspace::target_dir().join(profile).join("embedded"))
}

fn measure(program: &Path, row: &Row, dir: &Path, common: &Common) -> Result<Value> {
    let messages = common.choose(4_000_000, 20_000);
    memory::bring_back(&common.base(), common.choose(WRITTEN_MAX, 64 << 20))?;
    let mut command = Command::new(program);
    command.arg("--dir").arg(dir).args(row.words);
    match row.amount {
        Amount::Messages => command.args(["--messages", &messages.to_string()]),
        Amount::Millis => command.args(["--millis", common.choose("1500", "100")]),
        Amount::Bytes => command.args(["--bytes", &(messages * RECORD_LEN).to_string()]),
    };
    let line = workspace::output(&mut command)?;
    // What one measurement wrote must not be written out in the next one's time.
    rustix::fs::sync();
    serde_json::from_str(&line).context("figures")
}

fn add(table: &mut Table, row: &Row, found: &Value) -> Result<()> {
    let figure = |name: &str| found[name].as_f64().with_context(|| format!("no {name}"));
    let (count, bytes, seconds) = (figure("count")?, figure("bytes")?, figure("seconds")?);
    let labels = [row.name];
    let units = match row.amount {
        Amount::Bytes => bytes / RECORD_LEN as f64,
        Amount::Messages | Amount::Millis => count,
    };
    table.add(&labels, RATE, units / seconds);
    for (column, name) in [
        (Column::median("p50 us"), "p50_ns"),
        (Column::median("p99 us"), "p99_ns"),
        (Column::median("p99.9 us"), "p999_ns"),
    ] {
        table.add(&labels, column, figure(name)? / 1e3);
    }
    let cpu = figure("cpu_seconds")? * 1e6 / units;
    table.add(&labels, Column::median("CPU us each"), cpu);
    table.add(&labels, Column::median("count"), units);
    table.add(&labels, Column::median("MB"), bytes / 1e6);
    table.add(&labels, Column::median("seconds"), seconds);
    Ok(())
}

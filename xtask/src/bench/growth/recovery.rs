//! What opening a store takes whose process was killed.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::{BODY_LEN, Messages};
use rustix::process::{Signal, getpid, kill_process};
use store::{FlushMode, MessageStore, StoreOptions};

use super::super::report::{Column, Common, Plot, Report, Table};

const OPEN: Column = Column::spread("open ms");
const MIB: u64 = 1 << 20;
/// Longer than any run: nothing is synced or noted until the kill.
const NEVER: Duration = Duration::from_secs(3600);

/// Against bytes in flight, then against history.
pub(super) fn run(common: &Common, report: &mut Report) -> Result<()> {
    let sizes: &[(u64, u64)] = common.choose(
        &[
            (0, 16),
            (0, 64),
            (0, 256),
            (0, 1024),
            (256, 16),
            (1024, 16),
            (3072, 16),
        ],
        &[(0, 1), (4, 1)],
    );
    let names = ["MiB of history", "MiB in flight"];
    let mut table = Table::new("Recovery after a kill", &names);
    for (history, in_flight) in sizes {
        eprintln!("{history} MiB of history, {in_flight} MiB in flight");
        // Filling takes longer than opening, so that there is one sample of each.
        let millis = recover(common, history * MIB, in_flight * MIB)?;
        table.add(
            &[&history.to_string(), &in_flight.to_string()],
            OPEN,
            millis,
        );
    }
    report.plot(Plot::bars(
        "recovery",
        "Opening after a kill",
        &table,
        OPEN,
        1,
    ));
    report.table(table);
    Ok(())
}

fn recover(common: &Common, history: u64, in_flight: u64) -> Result<f64> {
    let dir = common.scratch()?;
    let status = Command::new(std::env::current_exe()?)
        .args(["bench", "fill", "--dir"])
        .arg(dir.path())
        .args(["--history", &history.to_string()])
        .args(["--in-flight", &in_flight.to_string()])
        .status()
        .context("cannot start the process that fills the store")?;
    ensure!(status.code().is_none(), "it was not killed: {status}");
    let begun = Instant::now();
    let (store, _report) = MessageStore::open(StoreOptions::new(dir.path()))?;
    let elapsed = begun.elapsed();
    ensure!(
        store.log().max_offset() > history + in_flight,
        "messages are missing after the kill"
    );
    store.close()?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// Puts `history` bytes of bodies and closes the store, puts `in_flight` bytes, and dies.
pub(super) fn fill_and_die(dir: &Path, history: u64, in_flight: u64) -> Result<()> {
    let (store, _report) = MessageStore::open(StoreOptions::new(dir))?;
    put(&store, history)?;
    store.close()?;
    drop(store);
    let mut options = StoreOptions::new(dir);
    options.derived_flush_interval = NEVER;
    options.flush = FlushMode::Async {
        interval: NEVER,
        least_pages: 4,
        thorough_interval: NEVER,
    };
    let (store, _report) = MessageStore::open(options)?;
    put(&store, in_flight)?;
    kill_process(getpid(), Signal::KILL).context("kill this process")
}

fn put(store: &MessageStore, bytes: u64) -> Result<()> {
    let mut messages = Messages::new(store.log().max_offset());
    for _ in 0..bytes / BODY_LEN as u64 {
        store.put(&messages.make())?;
    }
    Ok(())
}

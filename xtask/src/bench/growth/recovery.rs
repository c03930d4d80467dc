//! What opening a store takes whose process was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::{BODY_LEN, Messages};
use rustix::process::{Signal, getpid, kill_process};
use store::{FlushMode, MessageStore, StoreOptions};
use tempfile::TempDir;

use super::super::report::{Column, Common, Plot, Report, Table};

const MARKED: Column = Column::spread("killed, open ms");
const MARKED_READ: Column = Column::median("records read");
const UNMARKED: Column = Column::spread("without marks, open ms");
const UNMARKED_READ: Column = Column::median("records read without marks");
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
        let labels = [&*history.to_string(), &*in_flight.to_string()];
        let mut filled = Filled::new(common)?;
        for _ in 0..common.rounds() {
            for (column, read) in [(MARKED, MARKED_READ), (UNMARKED, UNMARKED_READ)] {
                if *history == 0 {
                    filled = Filled::new(common)?;
                }
                filled.fill_and_kill(history * MIB, in_flight * MIB)?;
                if column == UNMARKED {
                    filled.move_away()?;
                }
                let (millis, records) = filled.open(column == UNMARKED)?;
                table.add(&labels, column, millis);
                table.add(&labels, read, records as f64);
            }
        }
    }
    for (slug, title, column) in [
        ("recovery", "Opening after a kill", MARKED),
        (
            "recovery-unmarked",
            "Opening after a kill, without marks",
            UNMARKED,
        ),
    ] {
        report.plot(Plot::bars(slug, title, &table, column, 1));
    }
    report.table(table);
    Ok(())
}

/// A store whose processes were killed. What one sample has put is history for the next one.
struct Filled {
    dir: TempDir,
    root: PathBuf,
    /// How often it was moved.
    moves: u32,
    /// Bytes of bodies in it.
    len: u64,
}

impl Filled {
    fn new(common: &Common) -> Result<Self> {
        let dir = common.scratch()?;
        let root = dir.path().join("0");
        Ok(Self {
            dir,
            root,
            moves: 0,
            len: 0,
        })
    }

    fn fill_and_kill(&mut self, history: u64, in_flight: u64) -> Result<()> {
        let history = if self.len > 0 { 0 } else { history };
        let status = Command::new(std::env::current_exe()?)
            .args(["bench", "fill", "--dir"])
            .arg(&self.root)
            .args(["--history", &history.to_string()])
            .args(["--in-flight", &in_flight.to_string()])
            .status()
            .context("cannot start the process that fills the store")?;
        ensure!(status.code().is_none(), "it was not killed: {status}");
        self.len += history + in_flight;
        Ok(())
    }

    /// Moves everything into another directory: the marks, and what else tells that the machine
    /// has run on, are not believed there.
    fn move_away(&mut self) -> Result<()> {
        self.moves += 1;
        let root = self.dir.path().join(self.moves.to_string());
        fs::create_dir(&root)?;
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            fs::rename(entry.path(), root.join(entry.file_name()))?;
        }
        self.root = root;
        Ok(())
    }

    /// Milliseconds that opening takes, and how many records of the log it reads; closes it then.
    fn open(&self, is_moved: bool) -> Result<(f64, u64)> {
        let begun = Instant::now();
        let (store, report) = MessageStore::open(StoreOptions::new(&self.root))?;
        let elapsed = begun.elapsed();
        ensure!(
            !(is_moved && report.is_power_kept),
            "marks were believed in another directory"
        );
        ensure!(
            store.log().max_offset() > self.len,
            "messages are missing after the kill"
        );
        store.close()?;
        Ok((elapsed.as_secs_f64() * 1e3, report.log.records))
    }
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

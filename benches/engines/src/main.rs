//! One measurement of an embedded engine in its own process: what `cargo xtask bench engines` runs,
//! round by round. It prints one line of JSON.
//!
//! The workload is the same for all: messages with bodies of 1 KiB and properties (TAGS, KEYS,
//! UNIQ_KEY), made without allocating. Ours gets messages and derives consume queues and the index
//! from them; the others get body and properties as one value of the same bytes, and index it as
//! they always do, or not at all.

mod commit_log;
mod engine;
mod okay_wal;
mod ours;
mod raft;
mod redb_table;
mod run;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use engine::Engine;

/// Measures one thing once.
#[derive(Debug, Parser)]
struct Arguments {
    /// The engine.
    #[arg(value_enum)]
    engine: Kind,
    /// Where the engine's temporary directory is made.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Ours,
    CommitLog,
    OkayWal,
    RaftEngine,
    Redb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Work {
    /// Puts messages without sync, until the time is up or all are put; the clock stops when what
    /// the engine derives from them is there.
    Put {
        /// Threads that put.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// How long at most.
        #[arg(long, default_value_t = 1000)]
        millis: u64,
        /// Messages of all threads together at most.
        #[arg(long, default_value_t = 2_000_000)]
        messages: u64,
    },
    /// Puts messages and waits for each to be on the device.
    Sync {
        /// Threads that put.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// How long.
        #[arg(long, default_value_t = 1000)]
        millis: u64,
    },
    /// Reads hot messages in order, 32 at a time, and sums their bytes.
    Read {
        /// Messages in the store.
        #[arg(long, default_value_t = 200_000)]
        messages: u64,
        /// How long.
        #[arg(long, default_value_t = 1000)]
        millis: u64,
    },
}

impl Work {
    /// Whether each put has to be on the device.
    fn is_sync(self) -> bool {
        matches!(self, Work::Sync { .. })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let base = arguments.dir.unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new()
        .prefix("bench-engine-")
        .tempdir_in(base)?;
    let engine = open(arguments.engine, dir.path(), arguments.work.is_sync())?;
    let sample = match arguments.work {
        Work::Put {
            threads,
            millis,
            messages,
        } => run::put(&*engine, threads, Duration::from_millis(millis), messages)?,
        Work::Sync { threads, millis } => {
            run::put(&*engine, threads, Duration::from_millis(millis), u64::MAX)?
        }
        Work::Read { messages, millis } => {
            run::read(&*engine, messages, Duration::from_millis(millis))?
        }
    };
    println!("{}", sample.to_json());
    Ok(())
}

fn open(kind: Kind, dir: &Path, is_sync: bool) -> Result<Box<dyn Engine>> {
    Ok(match kind {
        Kind::Ours => Box::new(ours::Ours::open(dir, is_sync)?),
        Kind::CommitLog => Box::new(commit_log::Log::open(dir, is_sync)?),
        Kind::OkayWal => Box::new(okay_wal::Wal::open(dir, is_sync)?),
        Kind::RaftEngine => Box::new(raft::Raft::open(dir, is_sync)?),
        Kind::Redb => Box::new(redb_table::Table::open(dir, is_sync)?),
    })
}

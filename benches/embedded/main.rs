//! One measurement of the store in its own process: what `cargo xtask bench store` runs, round by
//! round. It prints one line of JSON.
//!
//! A process for each measurement, so that no run finds another one's pages, threads or memory; and
//! a program of its own, because xtask is built with failpoints, which cost on the append path.
#![allow(
    clippy::disallowed_methods,
    reason = "a tool: it reads /proc and makes temporary directories"
)]
#![allow(clippy::print_stdout, reason = "a tool: its answer goes there")]

mod device;
mod get;
mod put;
mod sync;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures one thing once.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the store's temporary directory is made.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Puts messages in async mode; the clock stops when dispatch has caught up.
    Put {
        /// Threads that put.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Messages of all threads together.
        #[arg(long, default_value_t = 4_000_000)]
        messages: u64,
        /// What is synced meanwhile.
        #[arg(long, value_enum, default_value_t = put::Syncs::Shipped)]
        syncs: put::Syncs,
    },
    /// Puts messages in sync mode; each producer waits for one before the next.
    Sync {
        /// Threads that put.
        #[arg(long, default_value_t = 1)]
        producers: usize,
        /// How long.
        #[arg(long, default_value_t = 2000)]
        millis: u64,
    },
    /// Reads hot messages by 32 and sums their bytes.
    Get {
        /// Threads that read.
        #[arg(long, default_value_t = 1)]
        readers: usize,
        /// Messages in the store, a fourth of them in the queue of each reader.
        #[arg(long, default_value_t = 200_000)]
        messages: u64,
        /// How long.
        #[arg(long, default_value_t = 2000)]
        millis: u64,
        /// How the bytes are come by.
        #[arg(long, value_enum, default_value_t = get::Way::Store)]
        way: get::Way,
    },
    /// Writes and syncs 1 KiB after the other into initialised blocks: what the device can do.
    Fdatasync {
        /// How long.
        #[arg(long, default_value_t = 2000)]
        millis: u64,
    },
    /// Writes a file in large pieces and syncs it: the device's own write rate.
    Write {
        /// Bytes.
        #[arg(long)]
        bytes: u64,
    },
    /// Copies records of the same length into fresh mapped segments and does nothing else.
    Copy {
        /// Records.
        #[arg(long, default_value_t = 4_000_000)]
        messages: u64,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let base = arguments.dir.unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new()
        .prefix("foliomq-embedded-")
        .tempdir_in(base)?;
    let dir = dir.path();
    let sample = match arguments.work {
        Work::Put {
            threads,
            messages,
            syncs,
        } => put::run(dir, threads, messages, syncs)?,
        Work::Sync { producers, millis } => sync::run(dir, producers, millis)?,
        Work::Get {
            readers,
            messages,
            millis,
            way,
        } => {
            let time = Duration::from_millis(millis);
            let reading = get::Reading {
                readers,
                messages,
                time,
                way,
            };
            get::run(dir, reading)?
        }
        Work::Fdatasync { millis } => device::fdatasync(dir, millis)?,
        Work::Write { bytes } => device::write(dir, bytes)?,
        Work::Copy { messages } => device::copy(dir, messages)?,
    };
    println!("{}", sample.to_json());
    Ok(())
}

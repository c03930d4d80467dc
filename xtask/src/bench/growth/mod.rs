//! `cargo xtask bench growth`: what a message costs as segments, queues, connections and consumers
//! become more, and what a restart after a kill takes.

mod recovery;
mod servers;
mod stores;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::report::{Common, Report};

const ABOUT: &str = "Stores in this process, messages of 1 KiB with TAGS, KEYS and UNIQ_KEY; the stores \
of a table are open at the same time and measured in turn. Put: 10,000 messages over all queues, \
until dispatch has caught up. Get: 2,000 reads of up to 32 messages at places all over the store, \
a byte of each cache line summed; near the end: among the last 3,276 messages, which is all that one \
segment of 4 MiB holds, so that what the processor's caches hold is the same for all. Connections and \
consumers: our broker in its own process; idle connections are open and silent while 16 others send. \
Recovery: a process puts and kills itself with its log unsynced (in flight), behind messages of a \
store that was closed (history, to which each sample adds its own for the next one); measured is the \
opening, page cache warm. Killed: its marks of what was dispatched are believed, and what lies behind \
the last one is read. Without marks: the files were moved to another directory meanwhile, where the \
marks are not believed, so that all in flight is read, compared with queues and index, and synced, as \
after a power loss that took nothing.";

/// What `cargo xtask bench growth` takes.
#[derive(Debug, Args)]
pub struct GrowthArguments {
    #[command(flatten)]
    common: Common,
}

impl GrowthArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// What the process takes that is killed for the rows of recovery.
#[derive(Debug, Args)]
pub struct FillArguments {
    /// The store's directory.
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of bodies that are put before a clean close.
    #[arg(long)]
    history: u64,
    /// Bytes of bodies that are put before the kill.
    #[arg(long)]
    in_flight: u64,
}

/// Puts, and dies.
pub(super) fn fill(arguments: &FillArguments) -> Result<()> {
    recovery::fill_and_die(&arguments.dir, arguments.history, arguments.in_flight)
}

/// Runs the bench.
pub(super) fn run(arguments: &GrowthArguments) -> Result<()> {
    let common = &arguments.common;
    let mut report = Report::new("growth", "Growth", common);
    report.text(ABOUT);
    if common.wants("segments") {
        stores::segments(common, &mut report)?;
    }
    if common.wants("queues") {
        stores::queues(common, &mut report)?;
    }
    if common.wants("connections") {
        servers::connections(common, &mut report)?;
    }
    if common.wants("consumers") {
        servers::consumers(common, &mut report)?;
    }
    if common.wants("recovery") {
        recovery::run(common, &mut report)?;
    }
    report.finish(common)
}

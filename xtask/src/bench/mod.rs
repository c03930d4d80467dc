//! `cargo xtask bench`: whole runs on one machine, each with a report.
//!
//! Times are those of a release build without failpoints: a debug build of xtask builds one and
//! hands over to it, unless the run is a quick one. docs/benchmarks.md is the index of the reports.

mod cgroup;
mod classic;
mod cost;
mod echo;
mod engines;
mod files;
mod flush;
mod folklore;
mod frames;
mod growth;
mod load;
mod memory;
mod replay;
mod report;
mod servers;
mod start;
mod store;
mod zerocopy;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Subcommand;

use crate::workspace;

use classic::ClassicArguments;
use engines::EnginesArguments;
use flush::FlushArguments;
use folklore::FolkloreArguments;
use growth::{FillArguments, GrowthArguments};
use replay::ReplayArguments;
use servers::ServersArguments;
use start::StartArguments;
use store::StoreArguments;
use zerocopy::ZeroCopyArguments;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Mapping against write and read, by units of a byte and more, pages in every state.
    Classic(ClassicArguments),
    /// Syncs a second, and group commit by 1 to 64 producers.
    Flush(FlushArguments),
    /// What the field says of mapped memory: file sizes, busy processors, advice.
    Folklore(FolkloreArguments),
    /// From files to sockets, from files to files, from sockets to files.
    #[command(name = "zerocopy")]
    ZeroCopy(ZeroCopyArguments),
    /// Sends and pulls against an echo server, our broker and Java's, in turn.
    Servers(ServersArguments),
    /// Producers alone and beside a consumer that goes through old messages.
    Replay(ReplayArguments),
    /// Start to the first send, memory, many queues and connections.
    Start(StartArguments),
    /// The store in process, beside what the machine does without one.
    Store(StoreArguments),
    /// The same messages into our store, Java's and other embedded engines, in turn.
    Engines(EnginesArguments),
    /// What a message costs as segments, queues, connections and consumers become more.
    Growth(GrowthArguments),
    /// Fills a store and is killed: a part of `growth`.
    #[command(hide = true)]
    Fill(FillArguments),
    /// The echo server alone, until it is killed.
    Echo {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// The quick runs of CI: that each bench works, and writes its report.
const QUICK: &[&[&str]] = &[
    &["classic"],
    &["flush"],
    &["folklore"],
    &["growth"],
    &["servers", "--servers", "echo,ours", "--only", "x 1"],
    &["start"],
    &["store"],
    &["zerocopy"],
    &["replay"],
];

/// Runs a bench.
pub fn run(command: &BenchCommand) -> Result<()> {
    let common = match command {
        BenchCommand::Echo { listen } => return echo::serve(*listen),
        BenchCommand::Fill(arguments) => return growth::fill(arguments),
        BenchCommand::Classic(arguments) => arguments.common(),
        BenchCommand::Flush(arguments) => arguments.common(),
        BenchCommand::Folklore(arguments) => arguments.common(),
        BenchCommand::Servers(arguments) => arguments.common(),
        BenchCommand::Engines(arguments) => arguments.common(),
        BenchCommand::Growth(arguments) => arguments.common(),
        BenchCommand::ZeroCopy(arguments) => arguments.common(),
        BenchCommand::Replay(arguments) => arguments.common(),
        BenchCommand::Start(arguments) => arguments.common(),
        BenchCommand::Store(arguments) => arguments.common(),
    };
    if cfg!(any(debug_assertions, feature = "fault")) && !common.is_quick() {
        return run_release();
    }
    match command {
        BenchCommand::Echo { .. } | BenchCommand::Fill(_) => Ok(()),
        BenchCommand::Classic(arguments) => classic::run(arguments),
        BenchCommand::Flush(arguments) => flush::run(arguments),
        BenchCommand::Folklore(arguments) => folklore::run(arguments),
        BenchCommand::Servers(arguments) => servers::run(arguments),
        BenchCommand::Engines(arguments) => engines::run(arguments),
        BenchCommand::Growth(arguments) => growth::run(arguments),
        BenchCommand::ZeroCopy(arguments) => zerocopy::run(arguments),
        BenchCommand::Replay(arguments) => replay::run(arguments),
        BenchCommand::Start(arguments) => start::run(arguments),
        BenchCommand::Store(arguments) => store::run(arguments),
    }
}

/// Runs every bench in its quick form.
pub fn run_quick() -> Result<()> {
    let out = tempfile::tempdir()?;
    for words in QUICK {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench").args(*words).arg("--quick");
        workspace::run(command.arg("--out").arg(out.path()))?;
        check_written(&out.path().join(format!("{}.md", words[0])))?;
    }
    Ok(())
}

/// Whether a report is there, and has a table of figures.
fn check_written(report: &Path) -> Result<()> {
    let text = std::fs::read_to_string(report)?;
    let tables = text.lines().filter(|line| line.contains("--:|"));
    ensure!(tables.count() > 0, "{}: no figures", report.display());
    Ok(())
}

/// Runs this command line again, in a release build without the fault suites and their failpoints.
fn run_release() -> Result<()> {
    let build = ["run", "--release", "--quiet", "--package", "xtask"];
    let mut command = workspace::cargo_command(&build);
    command.args(["--no-default-features", "--"]);
    command.args(std::env::args_os().skip(1));
    workspace::run(&mut command)
}

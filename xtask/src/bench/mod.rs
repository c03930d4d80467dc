//! `cargo xtask bench`: whole runs on one machine, each with a report.
//!
//! Times are those of a release build without failpoints: a debug build of xtask builds one and
//! hands over to it, unless the run is a quick one. docs/benchmarks.md is the index of the reports.

#[allow(dead_code)]
mod cost;
mod echo;
mod frames;
mod load;
mod memory;
#[allow(dead_code)]
mod report;
mod servers;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Subcommand;

use crate::workspace;

use servers::ServersArguments;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Sends and pulls against an echo server, our broker and Java's, in turn.
    Servers(ServersArguments),
    /// The echo server alone, until it is killed.
    Echo {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// The quick runs of CI: that each bench works, and writes its report.
const QUICK: &[&[&str]] = &[&["servers", "--servers", "echo,ours", "--only", "x 1"]];

/// Runs a bench.
pub fn run(command: &BenchCommand) -> Result<()> {
    let common = match command {
        BenchCommand::Echo { listen } => return echo::serve(*listen),
        BenchCommand::Servers(arguments) => arguments.common(),
    };
    if cfg!(any(debug_assertions, feature = "fault")) && !common.is_quick() {
        return run_release();
    }
    match command {
        BenchCommand::Echo { .. } => Ok(()),
        BenchCommand::Servers(arguments) => servers::run(arguments),
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

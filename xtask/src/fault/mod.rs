//! `cargo xtask fault`: faults that are real, and whether the store survives them.
//!
//! Each suite prints the seed of what fails and runs it again with `--seed`. With `--sabotage` a
//! promise is broken on purpose, and the suite succeeds only if it notices: a suite that cannot
//! fail proves nothing.

mod binary;
mod bits;
mod crash;
mod disk;
mod fusefs;
mod java;
mod kill;
mod ledger;
mod namespace;
mod node;
mod power;
mod reader;
mod sabotage;
mod seeds;
mod workload;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::process::{self, Guarded};
use crate::test::{CannotRun, Suite};

/// The exit code of a run that could test nothing on this machine: neither success nor failure.
const NOTHING_TESTED: i32 = 77;

/// The fault suites.
#[derive(Debug, Subcommand)]
pub enum FaultCommand {
    /// Flipped bits, lost sectors and short files: no record that they do not touch is lost.
    Bits(seeds::Arguments),
    /// A store on a simulated machine that dies at any point, also while it recovers.
    Crash(seeds::Arguments),
    /// The real broker killed (SIGKILL) under load, again and again.
    Kill(kill::KillArguments),
    /// The real broker on a file system that forgets, at a power cut, what was not synced.
    Power(power::Arguments),
    /// The real broker on disks that are full, and on one whose operations fail.
    Disk(disk::Arguments),
    /// Java's store and ours on the same damage, side by side: what each of them loses.
    Java(java::Arguments),
}

/// Runs one of them; ends the process with a code of its own if nothing could be tested.
pub fn run(command: &FaultCommand) -> Result<()> {
    let outcome = match command {
        FaultCommand::Bits(arguments) => bits::run(arguments),
        FaultCommand::Crash(arguments) => crash::run(arguments),
        FaultCommand::Kill(arguments) => kill::run(arguments),
        FaultCommand::Power(arguments) => power::run(arguments),
        FaultCommand::Disk(arguments) => disk::run(arguments),
        FaultCommand::Java(arguments) => java::run(arguments),
    };
    if let Err(error) = &outcome
        && let Some(why) = error.downcast_ref::<CannotRun>()
    {
        println!("!! SKIPPED: {why}: nothing was tested");
        std::process::exit(NOTHING_TESTED);
    }
    outcome
}

/// Their short forms for CI.
pub fn suites() -> Vec<Suite> {
    vec![
        bits::suite(),
        crash::suite(),
        kill::suite(),
        power::suite(),
        disk::suite(),
        java::suite(),
    ]
}

/// Runs this program once more: a suite that mounts needs a process of its own.
fn run_apart(arguments: &[&str], limit: Duration) -> Result<()> {
    let mut command = process::command(std::env::current_exe().context("path of this program")?);
    command.arg("fault").args(arguments);
    let status = Guarded::spawn(&mut command, arguments[0])?.wait(limit)?;
    if status.code() == Some(NOTHING_TESTED) {
        let why = "the machine lacks what is named above";
        return Err(CannotRun(why.to_owned()).into());
    }
    anyhow::ensure!(status.success(), "{status}; its output says why");
    Ok(())
}

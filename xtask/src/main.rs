//! Drives everything: `cargo xtask ci`, `cargo xtask test`, `cargo xtask fault`.
//!
//! Each subcommand is a module of its own; this file only parses the command line.

// What only the fault suites use is idle in a build for benches.
#![cfg_attr(not(feature = "fault"), allow(dead_code))]

mod bench;
mod ci;
#[cfg(feature = "fault")]
mod fault;
mod interop;
mod loom;
mod miri;
mod process;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tool: checks, tests and measurements.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Format, tidy checks, lints, models, quick benches, then every test: what CI runs.
    Ci,
    /// Measures whole runs: servers against each other, with a load generator of our own.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    #[cfg(feature = "fault")]
    /// Faults that are real: crashes, damage, and suites that must notice planted lies.
    #[command(subcommand)]
    Fault(fault::FaultCommand),
    /// What threads do to each other without a lock, in every order of their steps.
    Loom(loom::LoomArguments),
    /// The unsafe code that needs no real mapping, under Miri (nightly).
    Miri(miri::MiriArguments),
    /// The checks of the workspace's shape: layers, dependency counts, examples, sources.
    Tidy,
    /// Unit tests, doc tests and the interop suites against the real clients, brokers and stores.
    Test(test::TestArguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Bench(command) => bench::run(&command),
        Command::Ci => ci::run(),
        #[cfg(feature = "fault")]
        Command::Fault(command) => fault::run(&command),
        Command::Loom(arguments) => loom::run(&arguments),
        Command::Miri(arguments) => miri::run(&arguments),
        Command::Tidy => tidy::run(),
        Command::Test(arguments) => test::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

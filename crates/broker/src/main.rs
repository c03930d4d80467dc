//! The broker: name server, RocketMQ broker and tools in one binary.

use std::process::ExitCode;

use clap::Parser;
use foliomq::cli::{Command, CommandLine};
use foliomq::command;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(refusal) => return explain(&refusal),
    };
    log_to_stderr();
    #[cfg(feature = "failpoints")]
    match mmap_core::sabotage::from_environment() {
        Ok(None) => {}
        Ok(Some(lie)) => tracing::warn!(%lie, "SABOTAGE: this broker breaks a promise on purpose"),
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::FAILURE;
        }
    }
    if let Err(error) = mmap_core::install_sigbus_handler() {
        tracing::warn!(%error, "a failing device will end the process without naming the file");
    }
    let outcome = match line.command {
        None => command::serve::run(&line.serve.into()),
        Some(Command::Serve(flags)) => command::serve::run(&flags.into()),
        Some(Command::Namesrv(flags)) => command::namesrv::run(&flags),
        Some(Command::Send(flags)) => command::send::run(&flags),
        Some(Command::Consume(flags)) => command::consume::run(&flags),
        Some(Command::Store(command)) => return command::store::run(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How a command line ends that cannot be: 2 is what the tools say of a store that they cannot read.
const USAGE: u8 = 64;

/// Prints help, version, or what is wrong with the command line.
fn explain(refusal: &clap::Error) -> ExitCode {
    // Nobody to tell if standard error is closed.
    let _ = refusal.print();
    if refusal.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// One line for each event of a life; `RUST_LOG` chooses more or less.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

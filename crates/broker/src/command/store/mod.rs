//! `foliomq store ...`: tools for a store that need not be served.

mod config_check;
mod export;
mod inspect;
mod json;
mod plan_clean;
mod rebuild;
mod verify;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use mmap_core::{Io, OsIo};
use serde_json::Value;
use store::StoreOptions;

use crate::cli::store::{StoreCommand, StoreFlags};
use crate::config::{Config, Flags};
use crate::node::store_options;

/// Nothing is wrong.
const CLEAN: u8 = 0;
/// Differences were found.
const DIFFERENT: u8 = 1;
/// It could not be done: no store, in use, an I/O error.
const FAILED: u8 = 2;
/// Longest configuration file that is read, in bytes.
const CONFIG_LEN_MAX: u64 = 1024 * 1024;

/// Runs one of the tools; says what is wrong on standard error.
#[must_use]
pub fn run(command: &StoreCommand) -> ExitCode {
    let outcome = match command {
        StoreCommand::Inspect(flags) => inspect::run(flags),
        StoreCommand::Verify(flags) => verify::run(flags),
        StoreCommand::Rebuild(flags) => rebuild::run(flags),
        StoreCommand::Export(flags) => export::run(flags),
        StoreCommand::PlanClean(flags) => plan_clean::run(flags),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        // Whoever read the output has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::from(CLEAN),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// The options that a store was written with, as far as somebody says so.
fn options(flags: &StoreFlags) -> Result<StoreOptions> {
    let mut config = Config::new("foliomq");
    if let Some(path) = &flags.config {
        let bytes = OsIo
            .read(path, CONFIG_LEN_MAX)
            .context("the configuration file")?;
        let text = String::from_utf8(bytes)
            .with_context(|| format!("{}: not UTF-8 text", path.display()))?;
        config.apply_file(path, &text)?;
    }
    config.apply_flags(&Flags {
        store: flags.store.clone(),
        ..Flags::default()
    })?;
    store_options(&config)
}

/// Writes a line of JSON.
fn write_line(out: &mut impl Write, value: &Value) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
    })
}

/// A time for people: in UTC, to the millisecond.
fn time_text(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{ms} ms"),
    }
}

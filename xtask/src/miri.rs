//! `cargo xtask miri`: the unsafe code that needs no real mapping, under Miri: bounds, aliasing, and
//! races of publishing and retiring mappings, on the simulated device.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::workspace;

/// What to run.
#[derive(Debug, Default, clap::Args)]
pub struct MiriArguments {
    /// The tests with threads only: some seconds, once they are built.
    #[arg(long)]
    pub quick: bool,
}

/// The tests of the simulated device.
const ALL: &[&str] = &["sim_"];

/// Those in which threads publish, read, sync and retire.
const QUICK: &[&str] = &[
    "sim_readers_see_whole_records_only",
    "sim_sync_beside_an_appender_is_no_race",
    "sim_mappings_are_retired_by_whoever_is_last",
];

/// Runs the tests; skipped loudly without a nightly toolchain that has Miri.
pub fn run(arguments: &MiriArguments) -> Result<()> {
    if !is_there() {
        eprintln!(
            "SKIPPED: no Miri: rustup toolchain install nightly --component miri --component rust-src"
        );
        return Ok(());
    }
    let tests = if arguments.quick { QUICK } else { ALL };
    let mut test = nightly_miri();
    test.args(["test", "-p", "mmap-core", "--features", "sim"]);
    test.args(["--test", "sim", "--"]).args(tests);
    workspace::run(test.current_dir(workspace::root()))
}

/// By way of rustup: what runs this program is the stable toolchain's cargo itself.
fn nightly_miri() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "miri"]);
    command
}

fn is_there() -> bool {
    let mut version = nightly_miri();
    version.arg("--version");
    let outcome = version.stdout(Stdio::null()).stderr(Stdio::null()).status();
    outcome.is_ok_and(|status| status.success())
}

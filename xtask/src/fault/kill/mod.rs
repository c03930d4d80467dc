//! `cargo xtask fault kill`: SIGKILL of the real broker under load from real clients.
//!
//! A store goes through many lives. Each begins with the check that nothing which was promised in
//! the earlier ones is lost, changed or doubled, and ends by a death chosen at random: under load,
//! while starting, while stopping, or, with `--failpoints`, right before the n-th file operation.

mod campaign;
mod fate;
mod ledger;
mod life;
mod load;
mod measure;
mod message;
mod store;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use mmap_core::Random;

use super::{binary, sabotage};
use crate::test::Suite;
use campaign::{Campaign, Totals};

/// What `cargo xtask fault kill` takes.
#[derive(Clone, Debug, Args)]
pub struct KillArguments {
    /// How often the broker is killed.
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Repeats the choices of a run (what is sent, when and where to strike), not its timing.
    #[arg(long)]
    seed: Option<u64>,
    /// When a send is acknowledged; by turns, unless it is given.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Kills before file operations, by count, instead of at random times.
    #[arg(long)]
    failpoints: bool,
    /// The run ends after this time, however many kills it has made.
    #[arg(long, default_value_t = 1800)]
    seconds_max: u64,
    /// Where the stores lie. A killed process leaves the page cache as it is, so that the device
    /// does not matter: in memory, where there is `/dev/shm`, unless it is given.
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
    /// Plants a lie in the broker, or `all` that a kill brings to light, one after the other: the
    /// run then succeeds if it finds it out.
    #[arg(long, value_name = "NAME")]
    sabotage: Option<String>,
    /// Leaves the store of a failure, and says where.
    #[arg(long)]
    keep: bool,
    /// Measures instead how long restarts take, with up to 3 GiB in a store of RocketMQ's sizes.
    #[arg(long)]
    measure: bool,
}

/// When a send is acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Mode {
    /// `SYNC_FLUSH`.
    Sync,
    /// `ASYNC_FLUSH`.
    Async,
    /// `ASYNC_FLUSH` with `transientStorePoolEnable`: a kill may take what was acknowledged just
    /// before and no consumer has seen.
    Staged,
}

/// The lies that a kill brings to light. The others need a device that forgets or fails, or records
/// that are there in part: a kill leaves none, because their first bytes are written last.
const LIES: [&str; 4] = [
    "ack-before-sync",
    "index-not-rebuilt",
    "skip-quarantine",
    "tail-not-zeroed",
];

/// Kills without a lie that have to pass before lies are planted: stores of all modes.
const HONEST_KILLS: u64 = 120;

/// Runs it.
pub fn run(arguments: &KillArguments) -> Result<()> {
    if arguments.measure {
        let dir = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
        return measure::run(&binary::release()?, &dir);
    }
    match &arguments.sabotage {
        None => {
            let binary = if arguments.failpoints {
                binary::with_failpoints()?
            } else {
                binary::release()?
            };
            println!("{}", campaign(arguments, &binary, None)?);
            Ok(())
        }
        Some(name) => run_sabotage(arguments, name),
    }
}

/// Every run has the same seed, so that the lie is all that differs.
fn run_sabotage(arguments: &KillArguments, name: &str) -> Result<()> {
    let binary = binary::with_failpoints()?;
    let lying = KillArguments {
        seed: arguments.seed.or_else(|| Some(Random::fresh_seed())),
        failpoints: true,
        ..arguments.clone()
    };
    let honest = KillArguments {
        kills: lying.kills.min(HONEST_KILLS),
        ..lying.clone()
    };
    sabotage::run(name, &LIES, |lie| {
        let arguments = if lie.is_some() { &lying } else { &honest };
        let totals = campaign(arguments, &binary, lie)?;
        ensure!(lie.is_some() || totals.kills() > 0, "nothing was killed");
        Ok(())
    })
}

fn campaign(arguments: &KillArguments, binary: &Path, lie: Option<&str>) -> Result<Totals> {
    let seed = arguments.seed.unwrap_or_else(Random::fresh_seed);
    println!("seed {seed}");
    let campaign = Campaign {
        binary: binary.to_owned(),
        dir: arguments.dir.clone().unwrap_or_else(default_dir),
        seed,
        kills: arguments.kills,
        mode: arguments.mode,
        failpoints: arguments.failpoints,
        time_max: Duration::from_secs(arguments.seconds_max),
        sabotage: lie.map(str::to_owned),
        keep: arguments.keep,
    };
    campaign
        .run()
        .with_context(|| format!("repeat with --seed {seed}"))
}

/// What CI runs of it.
pub fn suite() -> Suite {
    Suite {
        name: "fault-kill",
        about: "kill -9 of the broker under load and at failpoints: nothing acknowledged is lost",
        budget: Duration::from_secs(90),
        needs: &[],
        run: |_| {
            for failpoints in [false, true] {
                run(&KillArguments {
                    kills: 100,
                    seed: None,
                    mode: None,
                    failpoints,
                    seconds_max: 15,
                    dir: None,
                    sabotage: None,
                    keep: false,
                    measure: false,
                })?;
            }
            Ok(())
        },
    }
}

fn default_dir() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

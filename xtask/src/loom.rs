//! `cargo xtask loom`: the protocols between threads that no lock covers, in every order of the
//! threads' steps: publishing and retiring (mmap-core), the queue over them (segment-queue), and the
//! event count (commitlog).

use anyhow::Result;

use crate::workspace;

/// How far to go.
#[derive(Debug, clap::Args)]
pub struct LoomArguments {
    /// How often a thread may be interrupted in one run of a model. Faults are found with 2 or 3;
    /// each more takes some five times as long.
    #[arg(long, default_value_t = 3)]
    pub preemptions: u32,
    /// Only the models whose name contains this.
    pub filter: Option<String>,
}

impl Default for LoomArguments {
    fn default() -> Self {
        Self {
            preemptions: 3,
            filter: None,
        }
    }
}

/// Where the models are, and how they are told from other tests, which do not run in such a build:
/// those of what a crate exports, and those within a crate.
const MODELS: [(&[&str], &str); 2] = [
    (&["-p=mmap-core", "-p=segment-queue", "--test=loom"], ""),
    (&["-p=commitlog", "--lib"], "models::"),
];

/// The most steps of one run: enough for any that ends.
const STEPS_MAX: &str = "20000";

/// Runs the models, in a build of their own.
pub fn run(arguments: &LoomArguments) -> Result<()> {
    for (models, all) in MODELS {
        let mut test = workspace::cargo_command(&["test", "--quiet", "--profile=loom"]);
        test.args(models).arg("--features=mmap-core/sim");
        test.env("RUSTFLAGS", "--cfg loom");
        test.env("CARGO_TARGET_DIR", workspace::target_dir().join("loom"));
        test.env("LOOM_MAX_PREEMPTIONS", arguments.preemptions.to_string());
        test.env("LOOM_MAX_BRANCHES", STEPS_MAX);
        test.arg("--")
            .arg(arguments.filter.as_deref().unwrap_or(all));
        workspace::run(&mut test)?;
    }
    Ok(())
}

//! `cargo xtask test`: every suite, its time beside its budget, one closing line.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{interop, workspace};

/// What `cargo xtask test` takes.
#[derive(Debug, Default, Args)]
pub struct TestArguments {
    /// The suites to run; all of them when none is named.
    suites: Vec<String>,
    /// Lists the suites with their budgets, runs none.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    options: Options,
}

/// What the interop suites are told.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// The server under test; `java` checks the suites themselves against the original.
    #[arg(long, value_enum, default_value_t)]
    pub server: Implementation,
    /// Runs only the checks whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Keeps the temporary directories (stores, configurations, logs) and prints where they are.
    #[arg(long)]
    pub keep: bool,
}

/// Who implements a server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Implementation {
    /// This workspace's `foliomq`.
    #[default]
    Ours,
    /// Apache RocketMQ 5.3.3.
    Java,
}

/// One suite of tests.
#[derive(Debug)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Its share of the CI time, on two cores and a cold cache.
    pub budget: Duration,
    /// The programs it cannot do without.
    pub needs: &'static [&'static str],
    /// Runs it; an error is a failure.
    pub run: fn(&Options) -> Result<()>,
}

/// How a suite ended.
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// Says that a suite cannot run on this machine, whatever is installed: a skip, even in CI.
#[derive(Debug)]
pub struct CannotRun(pub String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// The whole of a CI run stays below this.
const BUDGET_MAX: Duration = Duration::from_secs(40 * 60);

/// Runs the named suites, or all.
pub fn run(arguments: &TestArguments) -> Result<()> {
    let suites = all_suites();
    let budget: Duration = suites.iter().map(|suite| suite.budget).sum();
    if budget > BUDGET_MAX {
        bail!(
            "the suites' budgets add up to {} s, over {} s",
            budget.as_secs(),
            BUDGET_MAX.as_secs()
        );
    }
    if arguments.list {
        list(&suites, budget);
        return Ok(());
    }
    for wanted in &arguments.suites {
        if !suites.iter().any(|suite| suite.name == wanted) {
            bail!("no suite is named `{wanted}`; `cargo xtask test --list` shows them");
        }
    }
    let chosen = |suite: &&Suite| {
        arguments.suites.is_empty() || arguments.suites.iter().any(|name| name == suite.name)
    };
    let outcomes: Vec<_> = suites
        .iter()
        .filter(chosen)
        .map(|suite| run_suite(suite, &arguments.options))
        .collect();
    close(&outcomes)
}

fn all_suites() -> Vec<Suite> {
    let mut suites = vec![
        Suite {
            name: "unit",
            about: "unit, property and integration tests of every crate",
            budget: Duration::from_secs(600),
            needs: &[],
            run: |_| {
                let targets = ["--lib", "--bins", "--tests", "--examples"];
                workspace::cargo(&[&["test", "--quiet", "--workspace"][..], &targets].concat())
            },
        },
        Suite {
            name: "doc",
            about: "the examples in the documentation",
            budget: Duration::from_secs(120),
            needs: &[],
            run: |_| workspace::cargo(&["test", "--quiet", "--workspace", "--doc"]),
        },
    ];
    #[cfg(feature = "fault")]
    suites.extend(crate::fault::suites());
    suites.extend(interop::suites());
    suites
}

fn list(suites: &[Suite], budget: Duration) {
    for suite in suites {
        println!(
            "{:<14} {:>4} s  {}",
            suite.name,
            suite.budget.as_secs(),
            suite.about
        );
    }
    println!("{:<14} {:>4} s", "all", budget.as_secs());
}

fn run_suite(suite: &Suite, options: &Options) -> Outcome {
    println!("== {}: {}", suite.name, suite.about);
    let started = Instant::now();
    let outcome = match missing_program(suite.needs) {
        Some(program) => without(program),
        None => match (suite.run)(options) {
            Ok(()) => Outcome::Passed,
            Err(error) => match error.downcast_ref::<CannotRun>() {
                Some(why) => {
                    println!("!! {why}: nothing of this suite was tested");
                    Outcome::Skipped(why.to_string())
                }
                None => Outcome::Failed(format!("{error:#}")),
            },
        },
    };
    let verdict = match &outcome {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Failed(why) => format!("FAILED: {why}"),
        Outcome::Skipped(why) => format!("SKIPPED: {why}"),
    };
    let took = started.elapsed();
    let over = if took > suite.budget { ", OVER" } else { "" };
    println!(
        "== {}: {verdict} ({:.1} s of {} s budget{over})",
        suite.name,
        took.as_secs_f64(),
        suite.budget.as_secs(),
    );
    outcome
}

/// A missing toolchain is a skip that nobody overlooks, and a failure in CI.
fn without(program: &str) -> Outcome {
    let why = format!("`{program}` is not installed");
    match std::env::var("CI").as_deref() {
        Ok("true" | "1") => Outcome::Failed(format!("{why}, and CI must have it")),
        _ => {
            println!("!! {why}: nothing of this suite was tested");
            Outcome::Skipped(why)
        }
    }
}

/// The first of the programs that is nowhere on the search path.
fn missing_program<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    programs.iter().copied().find(|program| !found(program))
}

fn close(outcomes: &[Outcome]) -> Result<()> {
    let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|one| wanted(one)).count();
    let passed = count(|one| matches!(one, Outcome::Passed));
    let failed = count(|one| matches!(one, Outcome::Failed(_)));
    let skipped = count(|one| matches!(one, Outcome::Skipped(_)));
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} suites failed");
    }
    Ok(())
}

//! `cargo xtask ci`: format, tidy checks, lints, the loom models, Miri's quick tests, every bench but
//! `engines` in its quick form, then every test.

use std::time::Instant;

use anyhow::Result;

use crate::{bench, loom, miri, test, tidy, workspace};

/// Runs the steps in the order of what fails fastest; the first failure ends the run.
pub fn run() -> Result<()> {
    step("format", || {
        workspace::cargo(&["fmt", "--all", "--", "--check"])
    })?;
    step("tidy", tidy::run)?;
    step("lints", || {
        let lint_wall = ["--", "-D", "warnings"];
        workspace::cargo(&[&["clippy", "--workspace", "--all-targets"][..], &lint_wall].concat())
    })?;
    step("loom", || loom::run(&loom::LoomArguments::default()))?;
    step("miri-quick", || {
        miri::run(&miri::MiriArguments { quick: true })
    })?;
    step("bench-quick", bench::run_quick)?;
    test::run(&test::TestArguments::default())
}

fn step(name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    body()?;
    println!("== {name}: ok, {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

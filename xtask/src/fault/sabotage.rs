//! `--sabotage`: a suite is run against a broker that lies, and has to fail.

use anyhow::{Context, Result, bail, ensure};
use mmap_core::sabotage::Lie;

/// Runs the suite once for each lie; succeeds when it catches them all. `name` is one lie or
/// `all` of those within the suite's reach.
///
/// Before the lies and after them the suite runs without one and has to pass: one that fails
/// anyway catches nothing.
pub(super) fn run(
    name: &str,
    within_reach: &[&str],
    mut suite: impl FnMut(Option<&str>) -> Result<()>,
) -> Result<()> {
    let chosen = match name {
        "all" => within_reach.to_vec(),
        // The broker refuses a name that it does not know, which is no catch.
        one => vec![one.parse::<Lie>()?.name()],
    };
    ensure!(!chosen.is_empty(), "this suite catches no lie");
    suite(None).context("the suite fails without a lie")?;
    println!("sabotage: the suite passes without a lie");
    let mut missed = Vec::new();
    for lie in chosen {
        match suite(Some(lie)) {
            Ok(()) => {
                println!("sabotage {lie}: NOT CAUGHT");
                missed.push(lie);
            }
            Err(error) => println!("sabotage {lie}: caught: {}", cause(&error)),
        }
    }
    // What a run leaves behind may fail the next ones, whatever the broker does.
    suite(None).context("the suite fails without a lie after the others")?;
    if !missed.is_empty() {
        bail!("not caught: {}", missed.join(", "));
    }
    Ok(())
}

/// The cause and what was done there, without logs.
fn cause(error: &anyhow::Error) -> String {
    let lines = error.chain().map(|one| {
        let text = one.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    });
    let lines: Vec<_> = lines.collect();
    lines[lines.len().saturating_sub(2)..].join(": ")
}

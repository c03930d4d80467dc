//! `cargo xtask tidy`: checks of the workspace's shape that no compiler makes.

mod examples;
mod layers;
mod sources;

use anyhow::{Result, bail};

/// What a check found wrong, one line each.
type Findings = Vec<String>;

/// Runs every check; the findings of all are printed before the run fails.
pub fn run() -> Result<()> {
    let packages = crate::workspace::packages()?;
    let mut findings = layers::check(&packages);
    findings.extend(sources::check()?);
    findings.extend(examples::check()?);
    for finding in &findings {
        println!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} tidy findings", findings.len());
    }
    Ok(())
}

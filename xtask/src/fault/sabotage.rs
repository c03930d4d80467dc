//! `--sabotage`: a suite is run against a broker that lies, and has to fail.

use anyhow::{Result, bail, ensure};

/// Runs the suite once for each lie; succeeds when it catches them all. `name` is one lie or
/// `all` of those within the suite's reach.
pub(super) fn run(
    name: &str,
    within_reach: &[&str],
    mut suite: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let chosen = match name {
        "all" => within_reach.to_vec(),
        one => vec![one],
    };
    ensure!(!chosen.is_empty(), "this suite catches no lie");
    let mut missed = Vec::new();
    for lie in chosen {
        match suite(lie) {
            Ok(()) => {
                println!("sabotage {lie}: NOT CAUGHT");
                missed.push(lie);
            }
            Err(error) => println!("sabotage {lie}: caught: {}", error.root_cause()),
        }
    }
    if !missed.is_empty() {
        bail!("not caught: {}", missed.join(", "));
    }
    Ok(())
}

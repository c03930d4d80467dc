//! `cargo xtask fault bits`: bits that flip, sectors that read as zeros, files that end early, in
//! every kind of file of stores that a Java broker wrote and of our own.
//!
//! Whatever is damaged, nothing panics or hangs, the store starts, and no record that the damage
//! does not touch is lost: it is in the log as it was, its queue serves it, its keys find it. What
//! only a rebuild brings back must have been named by `verify`.

mod baseline;
mod check;
mod damage;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mmap_core::Random;
use mmap_core::sabotage::Lie;
use store::{MessageStore, RecoveryPolicy};

use self::baseline::{Baseline, baselines};
use self::check::{Verdict, compare};
use self::damage::{Damage, Place};
use super::seeds::{Arguments, Seeded, tell};
use crate::test::Suite;

const SUITE: Seeded = Seeded {
    name: "bits",
    run: run_seed,
    reach: &[Lie::SkipQuarantine],
};

/// Runs what the command line asks for.
pub fn run(arguments: &Arguments) -> Result<()> {
    SUITE.run_arguments(arguments)
}

/// The short form for CI.
pub fn suite() -> Suite {
    Suite {
        name: "fault-bits",
        about: "flipped bits, lost sectors and short files in stores of Java's and of our own",
        budget: Duration::from_secs(90),
        needs: &[],
        run: |_| {
            for (first, count) in [(1, 40), (Random::fresh_seed(), 40)] {
                run(&Arguments {
                    seed: None,
                    seeds: count,
                    first: Some(first),
                    jobs: 2,
                    sabotage: None,
                })?;
            }
            Ok(())
        },
    }
}

/// One store, one damage.
fn run_seed(seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let stores = baselines()?;
    let baseline = &stores[random.below(stores.len() as u64) as usize];
    let dir = tempfile::Builder::new().prefix("bits-").tempdir()?;
    baseline.lay_out(dir.path())?;
    let damage = Damage::choose(baseline, &mut random);
    damage.apply(dir.path())?;
    tell(|| format!("{}: {damage}", baseline.name));
    examine(baseline, &damage, dir.path()).with_context(|| format!("{}: {damage}", baseline.name))
}

fn examine(baseline: &Baseline, damage: &Damage, root: &std::path::Path) -> Result<()> {
    let mut options = baseline.options(root);
    options.recovery = RecoveryPolicy::Report;
    let findings = check::verify(&options)?;
    let opened = MessageStore::open(options.clone());
    if damage.is_like_another_configuration(baseline) {
        let refusal = opened
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        ensure!(
            refusal.contains("configure the length"),
            "it says {refusal:?}"
        );
        return Ok(());
    }
    let (store, report) = opened.context("it does not start")?;
    tell(|| format!("opened: {report}"));
    let first = compare(&store, baseline, damage);
    check::quarantine(&report, damage, root)?;
    store.close().context("it does not close")?;
    drop(store);
    let lost = match first? {
        Verdict::Whole => return check::told(baseline, damage, &report, &findings),
        Verdict::Hidden(what) => what,
    };
    // The records are there, and queues or index do not lead to them: somebody must have said so,
    // and a rebuild must help.
    ensure!(
        findings.iter().any(|finding| damage.is_near(&finding.path)),
        "{lost}, and verify does not name the file; it names {findings:?}"
    );
    let selection = store::offline::RebuildSelection::default();
    store::offline::rebuild(&mmap_core::OsIo, &options, &selection, &store::NoProgress)
        .context("rebuild")?;
    let (store, _) = MessageStore::open(options).context("it does not start after a rebuild")?;
    let second = compare(&store, baseline, damage)?;
    store.close().context("it does not close after a rebuild")?;
    match second {
        Verdict::Whole => Ok(()),
        Verdict::Hidden(what) => anyhow::bail!("after a rebuild: {what}"),
    }
}

/// Whether the damage hits a part of the log.
fn is_in_log(place: &Place) -> bool {
    place.path.starts_with("commitlog")
}

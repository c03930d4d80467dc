//! `cargo xtask fault disk`: full disks and failing ones under the real broker.
//!
//! [`full`]: a small tmpfs and a small ext4 on a loop device are filled to the last block.
//! [`failing`]: single operations fail on the file system of [`fusefs`](super::fusefs).
//! Nobody cuts the power of the real file systems; after the failing ones it is cut as well, so
//! that a sync that failed cannot have been right by luck.

mod failing;
mod full;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mmap_core::Random;
use tempfile::TempDir;

use super::fusefs;
use super::ledger::{Ledger, Promise};
use super::namespace::{self, BootId};
use super::node::Node;
use super::reader::Found;
use super::workload::{Answer, History, Sent, Tally, Workload};
use super::{binary, run_apart, sabotage};
use crate::process;
use crate::test::{CannotRun, Suite};

/// Clients that send.
const PRODUCER_COUNT: usize = 4;
/// How soon a refusal must come.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// How soon sends must work again when the cause is gone.
const RESUME_LIMIT: Duration = Duration::from_secs(10);
/// How long anything else is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `cargo xtask fault disk` takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Arguments {
    /// What all random decisions come from; a fresh one is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs only the scenarios whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Names the scenarios, runs none.
    #[arg(long)]
    list: bool,
    /// Runs those that CI has time for.
    #[arg(long)]
    short: bool,
    /// Plants a lie in the broker (or `all`, one after the other); the run succeeds when each is
    /// caught.
    #[arg(long, value_name = "NAME")]
    sabotage: Option<String>,
}

/// The lies within the reach of failing disks.
const CAUGHT_HERE: &[&str] = &["watermark-after-failed-sync", "visible-before-flushed"];

/// Something that happens to a disk, and what the broker has to make of it.
struct Scenario {
    name: String,
    /// Whether CI has time for it.
    is_short: bool,
    run: Run,
}

/// Runs a scenario.
type Run = Box<dyn Fn(&Place<'_>) -> Result<Outcome>>;

/// How a scenario ended that did not fail.
enum Outcome {
    /// What was seen.
    Passed(String),
    /// Why it could not be run here.
    Skipped(String),
}

/// What a scenario is run with.
struct Place<'a> {
    binary: &'a Path,
    dir: PathBuf,
    boot_id: &'a BootId,
    seed: u64,
    lie: Option<&'a str>,
}

/// Runs the suite.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for scenario in scenarios() {
            println!("{}", scenario.name);
        }
        return Ok(());
    }
    match &arguments.sabotage {
        None => {
            if let Some(why) = namespace::missing() {
                return Err(CannotRun(why).into());
            }
            namespace::enter()?;
            run_scenarios(arguments, &binary::release()?, None)
        }
        Some(name) => {
            if let Some(why) = fusefs::missing() {
                bail!("nothing was tried: no FUSE ({why})");
            }
            namespace::enter()?;
            run_sabotage(arguments, name)
        }
    }
}

/// Every run has the same seed, so that the lie is all that differs.
fn run_sabotage(arguments: &Arguments, name: &str) -> Result<()> {
    let binary = binary::with_failpoints()?;
    let lying = Arguments {
        seed: arguments.seed.or_else(|| Some(Random::fresh_seed())),
        ..arguments.clone()
    };
    let honest = Arguments {
        // What is asked for by name may be none of the short ones.
        short: lying.only.is_none(),
        ..lying.clone()
    };
    sabotage::run(name, CAUGHT_HERE, |lie| {
        let arguments = if lie.is_some() { &lying } else { &honest };
        run_scenarios(arguments, &binary, lie)
    })
}

/// The form for CI: the scenarios that differ most.
pub fn suite() -> Suite {
    Suite {
        name: "fault-disk",
        about: "full disks and failing operations under the real broker",
        budget: Duration::from_secs(60),
        needs: &["unshare"],
        run: |_| run_apart(&["disk", "--short"], Duration::from_secs(300)),
    }
}

fn scenarios() -> Vec<Scenario> {
    let mut all = full::scenarios();
    all.extend(failing::scenarios());
    all
}

fn run_scenarios(arguments: &Arguments, binary: &Path, lie: Option<&str>) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(Random::fresh_seed);
    println!("fault disk: seed {seed}");
    let mut random = Random::new(seed);
    let mut dir = tempfile::Builder::new().prefix("fault-disk-").tempdir()?;
    let boot_id = BootId::replace(dir.path(), &mut random)?;
    let (mut passed, mut skipped) = (0, 0);
    for scenario in scenarios() {
        let seed = random.next();
        let is_wanted = match &arguments.only {
            Some(text) => scenario.name.contains(text.as_str()),
            None => scenario.is_short || !arguments.short,
        };
        if !is_wanted {
            continue;
        }
        let place = Place {
            binary,
            dir: dir.path().join(&scenario.name),
            boot_id: &boot_id,
            seed,
            lie,
        };
        std::fs::create_dir(&place.dir)?;
        let begun = Instant::now();
        match (scenario.run)(&place) {
            Ok(Outcome::Passed(seen)) => {
                passed += 1;
                let seconds = begun.elapsed().as_secs_f64();
                println!("{:<34} {seconds:4.1} s  {seen}", scenario.name);
            }
            Ok(Outcome::Skipped(why)) => {
                skipped += 1;
                println!("!! {}: {why}: not tested", scenario.name);
            }
            Err(error) => return Err(explain(error, &scenario.name, &place, &mut dir)),
        }
    }
    println!("{passed} scenarios passed, {skipped} skipped");
    ensure!(passed + skipped > 0, "no scenario has such a name");
    if passed == 0 {
        return Err(CannotRun(format!("all {skipped} scenarios were skipped")).into());
    }
    Ok(())
}

fn explain(
    error: anyhow::Error,
    name: &str,
    place: &Place<'_>,
    dir: &mut TempDir,
) -> anyhow::Error {
    dir.disable_cleanup(true);
    let log = process::tail(&place.dir.join("broker.log"));
    error.context(format!(
        "{name}: files are in {}\n{log}",
        place.dir.display()
    ))
}

/// A broker, its clients, and what they know.
struct Trial<'a> {
    place: &'a Place<'a>,
    node: Node,
    workload: Option<Workload>,
    history: History,
    ledger: Ledger,
    last_ordinals: [u64; PRODUCER_COUNT],
}

impl<'a> Trial<'a> {
    fn new(place: &'a Place<'a>, disk: &Path, flush: Flush) -> Result<Self> {
        let mut node = Node::new(place.binary, &place.dir, &disk.join("store"))?;
        node.set("flushDiskType", flush.name());
        // A failed sync shows itself soon.
        node.set("flushIntervalCommitLog", "100");
        node.set("flushCommitLogThoroughInterval", "200");
        if let Some(lie) = place.lie {
            node.set_environment("FOLIOMQ_SABOTAGE", lie);
        }
        Ok(Self {
            place,
            node,
            workload: None,
            history: History::default(),
            ledger: Ledger::default(),
            last_ordinals: [0; PRODUCER_COUNT],
        })
    }

    fn begin_work(&mut self, pause: Duration) {
        let options = self.node.client_options();
        let seed = self.place.seed;
        self.workload = Some(Workload::start(&options, seed, &self.last_ordinals, pause));
    }

    /// Ends the clients and adds what they know to the history.
    fn end_work(&mut self) -> Result<()> {
        let Some(workload) = self.workload.take() else {
            return Ok(());
        };
        let more = workload.finish()?;
        for sent in &more.sent {
            let last = &mut self.last_ordinals[sent.identity.producer as usize];
            *last = (*last).max(sent.identity.ordinal);
        }
        self.history.sent.extend(more.sent);
        self.history.seen.extend(more.seen);
        self.history.foreign.extend(more.foreign);
        Ok(())
    }

    fn tally(&self) -> Result<&Tally> {
        let workload = self.workload.as_ref();
        Ok(workload.context("no clients are at work")?.tally())
    }

    /// Waits for something that the clients count; the broker must live meanwhile.
    fn await_tally(
        &mut self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Tally) -> bool,
    ) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            if condition(self.tally()?) {
                return Ok(begun.elapsed());
            }
            self.check_alive()?;
            if begun.elapsed() > limit {
                let tally = self.tally()?;
                bail!(
                    "{what}: not within {limit:?}; {} acknowledged, {} refused, {} seen, the last \
                     refusal is \"{}\"",
                    tally.acked(),
                    tally.refused(),
                    tally.seen(),
                    tally.last_refusal()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until sends are acknowledged again.
    fn await_resumption(&mut self, limit: Duration) -> Result<Duration> {
        let before = self.tally()?.acked();
        self.await_tally("sends work again", limit, |tally| tally.acked() > before)
    }

    /// Waits until the consumer has seen all that was acknowledged up to now.
    fn await_consumer(&mut self) -> Result<()> {
        let acked = self.tally()?.acked();
        self.await_tally("consumers go on", RESUME_LIMIT, |tally| {
            tally.seen() >= acked
        })?;
        Ok(())
    }

    fn check_alive(&mut self) -> Result<()> {
        match self.node.ended() {
            None => Ok(()),
            Some(status) => bail!("the broker ended: {status}"),
        }
    }

    /// Refusals came in time, and say where.
    fn check_refusals(&self, must_contain: &[&str]) -> Result<Duration> {
        let mut slowest = Duration::ZERO;
        let mut count = 0;
        for sent in &self.history.sent {
            let Answer::Refused(why) = &sent.answer else {
                continue;
            };
            count += 1;
            slowest = slowest.max(sent.answered_at - sent.asked_at);
            for text in must_contain {
                ensure!(
                    why.contains(text),
                    "a refusal does not name {text}: \"{why}\""
                );
            }
        }
        ensure!(count > 0, "nothing was refused");
        ensure!(slowest <= REFUSAL_LIMIT, "a refusal took {slowest:?}");
        Ok(slowest)
    }

    /// All that is served now.
    fn found(&self) -> Result<Found> {
        Found::read(&self.node.client_options(), self.place.seed)
    }

    /// Waits until a broker that goes on serves everything that it has acknowledged: in async mode the
    /// acknowledgement comes before the queue's entry.
    fn await_served(&self) -> Result<()> {
        let is_acked = |sent: &Sent| match &sent.answer {
            Answer::Acked(place) => Some(*place),
            _ => None,
        };
        let acked: Vec<_> = self.history.sent.iter().filter_map(is_acked).collect();
        let served = process::poll(RESUME_LIMIT, || match self.found() {
            Ok(found) => { acked.iter() }
                .all(|place| found.messages.contains_key(place))
                .then_some(Ok(())),
            Err(error) => Some(Err(error)),
        });
        served.with_context(|| {
            format!("not all that is acknowledged is served after {RESUME_LIMIT:?}")
        })?
    }

    /// What a consumer was given is still served. Not all that is acknowledged has to be: on a
    /// full disk a message may wait for room for its queue's next file.
    fn check_served(&self) -> Result<()> {
        let found = self.found()?;
        for (identity, place) in &self.history.seen {
            let now = found.messages.get(place);
            ensure!(
                now == Some(identity),
                "{identity:?} is at {place:?} no more, but {now:?}"
            );
        }
        Ok(())
    }

    /// Everything acknowledged is served, and nothing else has happened to it.
    fn check_kept(&mut self) -> Result<Found> {
        let found = self.found()?;
        let history = std::mem::take(&mut self.history);
        self.ledger
            .settle(&found, &history, Promise::Durable, Instant::now())?;
        Ok(found)
    }

    fn stop(&mut self) -> Result<()> {
        let status = self.node.stop()?;
        ensure!(status.success(), "the broker stopped with {status}");
        Ok(())
    }
}

/// `flushDiskType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    Sync,
    Async,
}

impl Flush {
    const BOTH: [Self; 2] = [Self::Sync, Self::Async];

    fn name(self) -> &'static str {
        match self {
            Self::Sync => "SYNC_FLUSH",
            Self::Async => "ASYNC_FLUSH",
        }
    }

    fn short_name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
        }
    }
}

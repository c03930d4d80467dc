//! `cargo xtask fault power`: the real broker, and the power is cut under it.
//!
//! A store is born on an empty disk of [`fusefs`](super::fusefs), lives through some power cuts
//! and is thrown away for the next one. Between two cuts producers and a consumer run against the
//! broker. After each cut the disk is what its syncs promised, the machine has another boot id,
//! and the broker has to start by itself. Some cuts come while it still recovers. Then everything
//! it serves is read and compared with what the clients were told ([`super::ledger`]). At its end
//! `foliomq store verify` compares the store's files with each other.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use client::Connection;
use mmap_core::Random;
use tempfile::TempDir;

use super::fusefs::{self, Damage, Disk, Image, Settings, Volume};
use super::ledger::{Ledger, Promise, Verdict};
use super::namespace::{self, BootId};
use super::node::Node;
use super::reader::{Found, has_key};
use super::workload::{History, Workload};
use super::{binary, run_apart, sabotage};
use crate::process;
use crate::test::{CannotRun, Suite};

/// Power cuts that one store lives through.
const CUTS_PER_STORE: u64 = 8;
/// Cuts without a lie that have to pass before lies are planted: a store of each mode.
const HONEST_CUTS: u64 = 4 * CUTS_PER_STORE;
/// Clients that send.
const PRODUCER_COUNT: usize = 6;
/// How many keys are asked for after a cut.
const KEY_COUNT_MAX: usize = 60;
/// Async mode: the broker's settings, in milliseconds, and the window they state.
const FLUSH_INTERVAL_MS: u64 = 100;
const FLUSH_THOROUGH_MS: u64 = 300;
/// Staged mode: what comes before that.
const COMMIT_INTERVAL_MS: u64 = 20;
const COMMIT_THOROUGH_MS: u64 = 50;
/// What a busy machine may add to the window: the flush thread has to get a processor.
const WINDOW_GRACE: Duration = Duration::from_millis(500);

/// The device: a sync takes up to three milliseconds.
const DEVICE: Settings = Settings {
    capacity: 1 << 30,
    sync_time_max: Duration::from_millis(3),
};

/// What `cargo xtask fault power` takes.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// How many times the power is cut.
    #[arg(long, default_value_t = 200)]
    cuts: u64,
    /// What all random decisions come from; a fresh one is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// What the broker promises.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Plants a lie in the broker (or `all`, one after the other); the run succeeds when each is
    /// caught.
    #[arg(long, value_name = "NAME")]
    sabotage: Option<String>,
    /// No new store is begun after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    limit: u64,
}

/// `flushDiskType` of the stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// `SYNC_FLUSH`.
    Sync,
    /// `ASYNC_FLUSH`.
    Async,
    /// `ASYNC_FLUSH` with `transientStorePoolEnable`.
    Staged,
    /// Of four stores one is async and one staged.
    #[default]
    All,
}

/// What a campaign has done.
#[derive(Debug, Default)]
struct Figures {
    stores: u64,
    cuts: u64,
    cuts_in_recovery: u64,
    reopenings: u64,
    sync: Verdict,
    async_: Verdict,
    staged: Verdict,
    damage: Damage,
    start_time_max: Duration,
}

/// Runs the suite.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(why) = fusefs::missing() {
        ensure!(
            arguments.sabotage.is_none(),
            "nothing was tried: no FUSE ({why})"
        );
        return Err(CannotRun(why).into());
    }
    namespace::enter()?;
    match &arguments.sabotage {
        None => {
            let figures = campaign(arguments, &binary::release()?, None)?;
            println!("{figures}");
            Ok(())
        }
        Some(name) => run_sabotage(arguments, name),
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
        cuts: lying.cuts.min(HONEST_CUTS),
        ..lying.clone()
    };
    sabotage::run(name, CAUGHT_HERE, |lie| {
        let arguments = if lie.is_some() { &lying } else { &honest };
        let figures = campaign(arguments, &binary, lie)?;
        ensure!(lie.is_some() || figures.cuts > 0, "no power cut was made");
        Ok(())
    })
}

/// The form for CI: a few stores with a fresh seed.
pub fn suite() -> Suite {
    Suite {
        name: "fault-power",
        about: "power cuts under the real broker on a file system that forgets unsynced data",
        budget: Duration::from_secs(60),
        needs: &["unshare"],
        run: |_| match fusefs::missing() {
            Some(why) => Err(CannotRun(why).into()),
            None => run_apart(&["power", "--cuts", "50", "--limit", "20"], SUITE_LIMIT),
        },
    }
}

/// A suite that takes this long hangs.
const SUITE_LIMIT: Duration = Duration::from_secs(300);

/// The lies within the reach of power cuts.
const CAUGHT_HERE: &[&str] = &[
    "ack-before-sync",
    "skip-sync",
    "skip-dir-sync",
    "watermark-after-failed-sync",
    "visible-before-flushed",
    "checkpoint-too-early",
    "tail-not-zeroed",
    "crc-unchecked",
    "index-not-rebuilt",
];

fn campaign(arguments: &Arguments, binary: &Path, lie: Option<&str>) -> Result<Figures> {
    let seed = arguments.seed.unwrap_or_else(Random::fresh_seed);
    println!("fault power: seed {seed}");
    let mut random = Random::new(seed);
    let mut dir = tempfile::Builder::new().prefix("fault-power-").tempdir()?;
    let boot_id = BootId::replace(dir.path(), &mut random)?;
    let mut figures = Figures::default();
    let deadline = Instant::now() + Duration::from_secs(arguments.limit);
    while figures.cuts < arguments.cuts && Instant::now() < deadline {
        let mode = match arguments.mode {
            Mode::All if figures.stores % 4 == 2 => Mode::Async,
            Mode::All if figures.stores % 4 == 3 => Mode::Staged,
            Mode::All => Mode::Sync,
            chosen => chosen,
        };
        figures.stores += 1;
        let left = (arguments.cuts - figures.cuts).min(CUTS_PER_STORE);
        let store_dir = dir.path().join(format!("store-{}", figures.stores));
        std::fs::create_dir(&store_dir)?;
        let mut store = Store::new(binary, &store_dir, mode, random.fork(), &boot_id, lie)?;
        let outcome = store.live(left, &mut figures);
        if let Err(error) = outcome {
            return Err(store.explain(error, &mut dir, seed, figures.cuts));
        }
        drop(store);
        std::fs::remove_dir_all(&store_dir).context("remove a store's files")?;
    }
    Ok(figures)
}

/// One store, from its birth on.
struct Store<'a> {
    node: Node,
    dir: PathBuf,
    boot_id: &'a BootId,
    random: Random,
    /// Of the messages' bodies.
    seed: u64,
    mode: Mode,
    promise: Promise,
    /// What is on the device while it is off.
    image: Option<Image>,
    disk: Option<Disk>,
    ledger: Ledger,
    last_ordinals: [u64; PRODUCER_COUNT],
    cut_at: Instant,
    /// What the clients know since the last check.
    history: History,
}

impl<'a> Store<'a> {
    fn new(
        binary: &Path,
        dir: &Path,
        mode: Mode,
        mut random: Random,
        boot_id: &'a BootId,
        lie: Option<&str>,
    ) -> Result<Self> {
        let mut node = Node::new(binary, dir, &dir.join("disk/store"))?;
        let promise = promise(&mut node, mode);
        if let Some(lie) = lie {
            node.set_environment("FOLIOMQ_SABOTAGE", lie);
        }
        Ok(Self {
            node,
            dir: dir.to_owned(),
            boot_id,
            seed: random.next(),
            mode,
            promise,
            image: None,
            disk: None,
            ledger: Ledger::default(),
            last_ordinals: [0; PRODUCER_COUNT],
            cut_at: Instant::now(),
            history: History::default(),
            random,
        })
    }

    fn live(&mut self, cuts: u64, figures: &mut Figures) -> Result<()> {
        self.power_on()?;
        self.start(figures)?;
        for _ in 0..cuts {
            figures.damage += self.work()?;
            figures.cuts += 1;
            self.cut_again_in_recovery(figures)?;
            self.power_on()?;
            self.start(figures)?;
            let found = self.check(figures)?;
            if self.random.once_in(3) {
                self.reopen(&found, figures)?;
            }
        }
        let status = self.node.stop()?;
        ensure!(status.success(), "the broker stopped with {status}");
        // In async mode queues may have been synced before the log, and the checkpoint says so: a
        // warning, because of the log's own time beside it.
        if self.promise == Promise::Durable {
            self.node.verify()?;
        }
        if let Some(disk) = self.disk.take() {
            disk.unmount()?;
        }
        Ok(())
    }

    /// Mounts what is on the device; the machine has just been started.
    fn power_on(&mut self) -> Result<()> {
        let random = self.random.fork();
        let volume = match &self.image {
            Some(image) => Volume::of_image(image, DEVICE, random),
            None => Volume::new(DEVICE, random),
        };
        self.disk = Some(Disk::mount(volume, &self.dir.join("disk"))?);
        Ok(())
    }

    fn start(&mut self, figures: &mut Figures) -> Result<()> {
        let begun = Instant::now();
        self.node.start()?;
        figures.start_time_max = figures.start_time_max.max(begun.elapsed());
        Ok(())
    }

    /// Lets clients work for a while, and cuts the power meanwhile.
    fn work(&mut self) -> Result<Damage> {
        let options = self.node.client_options();
        // In async mode nothing slows producers down, and all they send is read again and again.
        let (pause, most) = match self.promise {
            Promise::Durable => (Duration::ZERO, 700),
            Promise::DurableAfter(window) => {
                (Duration::from_millis(3), 500 + window.as_millis() as u64)
            }
        };
        // After a short life much of what the one before has lost is not overwritten.
        let most = if self.random.once_in(3) { 120 } else { most };
        let workload = Workload::start(&options, self.seed, &self.last_ordinals, pause);
        thread::sleep(Duration::from_millis(self.random.between(20, most)));
        if self.random.once_in(2)
            && let Some(disk) = &self.disk
        {
            disk.write_back()?;
        }
        if let Some(status) = self.node.ended() {
            bail!("the broker ended by itself: {status}");
        }
        let damage = self.cut()?;
        self.history = workload.finish()?;
        for sent in &self.history.sent {
            let last = &mut self.last_ordinals[sent.identity.producer as usize];
            *last = (*last).max(sent.identity.ordinal);
        }
        Ok(damage)
    }

    /// The machine is dead from the first step on: what the broker still does goes nowhere.
    fn cut(&mut self) -> Result<Damage> {
        let Some(disk) = self.disk.take() else {
            bail!("the power is off already");
        };
        self.cut_at = Instant::now();
        let (image, damage) = disk.volume().cut(self.random.fork());
        self.node.kill()?;
        disk.unmount()?;
        self.image = Some(image);
        self.boot_id.renew(&mut self.random)?;
        Ok(damage)
    }

    /// Sometimes the power comes back for a moment only.
    fn cut_again_in_recovery(&mut self, figures: &mut Figures) -> Result<()> {
        let cut_at = self.cut_at;
        while self.random.once_in(4) {
            self.power_on()?;
            self.node.launch()?;
            thread::sleep(Duration::from_millis(self.random.below(120)));
            figures.damage += self.cut()?;
            figures.cuts_in_recovery += 1;
        }
        self.cut_at = cut_at;
        Ok(())
    }

    fn check(&mut self, figures: &mut Figures) -> Result<Found> {
        let found = Found::read(&self.node.client_options(), self.seed)?;
        let history = std::mem::take(&mut self.history);
        let verdict = self
            .ledger
            .settle(&found, &history, self.promise, self.cut_at)?;
        let sum = match self.mode {
            Mode::Async => &mut figures.async_,
            Mode::Staged => &mut figures.staged,
            Mode::Sync | Mode::All => &mut figures.sync,
        };
        sum.add(&verdict);
        self.check_keys(&history)?;
        Ok(found)
    }

    /// Every message that is there must be found by its key: the newest, and some of the others.
    fn check_keys(&mut self, history: &History) -> Result<()> {
        let timeout = Duration::from_secs(10);
        let mut connection = Connection::connect(&self.node.address(), timeout)?;
        let present = self.ledger.present();
        let newest = history.sent.iter().rev().map(|sent| sent.identity);
        let newest = newest.filter(|identity| present.contains_key(identity));
        let mut chosen: Vec<_> = newest.take(KEY_COUNT_MAX / 2).collect();
        let mut all: Vec<_> = present.keys().copied().collect();
        all.sort_unstable();
        for _ in 0..(KEY_COUNT_MAX / 2).min(all.len()) {
            chosen.push(self.random.pick(&all));
        }
        for identity in chosen {
            let place = self.ledger.present()[&identity];
            let found =
                || has_key(&mut connection, self.seed, place.topic, identity).transpose_found();
            // Right after the start the index may still be at the last messages.
            match process::poll(Duration::from_secs(5), found) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(error),
                None => bail!("{identity:?} at {place:?} is not found by its key"),
            }
        }
        Ok(())
    }

    /// Ends the broker in one of three ways without anything having been sent, and starts it
    /// again: it must serve the same.
    fn reopen(&mut self, found: &Found, figures: &mut Figures) -> Result<()> {
        let how = match self.random.below(3) {
            0 => {
                let status = self.node.stop()?;
                ensure!(status.success(), "the broker stopped with {status}");
                "a clean stop"
            }
            1 => {
                self.node.kill()?;
                "kill -9"
            }
            _ => {
                figures.damage += self.cut()?;
                self.power_on()?;
                "a power cut"
            }
        };
        self.start(figures)?;
        let again = Found::read(&self.node.client_options(), self.seed)?;
        ensure!(
            again == *found,
            "{how} without any sends has changed what is served"
        );
        self.check_keys(&History::default())
            .with_context(|| format!("after {how} without any sends"))?;
        figures.reopenings += 1;
        Ok(())
    }

    /// Keeps everything that may tell why, and says how to see it again.
    fn explain(
        &mut self,
        error: anyhow::Error,
        dir: &mut TempDir,
        seed: u64,
        cuts: u64,
    ) -> anyhow::Error {
        dir.disable_cleanup(true);
        if let Some(image) = &self.image {
            let copied = image.copy_to(&self.dir.join("after-last-cut"));
            if let Err(error) = copied {
                eprintln!("cannot keep the image: {error:#}");
            }
        }
        error.context(format!(
            "seed {seed}, cut {cuts}, {:?}; the disk as the last cut left it and the broker's log \
             are in {}\n{}",
            self.promise,
            self.dir.display(),
            process::tail(&self.node.log()),
        ))
    }
}

/// Gives a broker the settings of a mode; what it promises then.
fn promise(node: &mut Node, mode: Mode) -> Promise {
    if !matches!(mode, Mode::Async | Mode::Staged) {
        node.set("flushDiskType", "SYNC_FLUSH");
        return Promise::Durable;
    }
    let mut window_ms = 0;
    let mut set = |name, value: u64| {
        node.set(name, &value.to_string());
        window_ms += value;
    };
    set("flushIntervalCommitLog", FLUSH_INTERVAL_MS);
    set("flushCommitLogThoroughInterval", FLUSH_THOROUGH_MS);
    if mode == Mode::Staged {
        set("commitIntervalCommitLog", COMMIT_INTERVAL_MS);
        set("commitCommitLogThoroughInterval", COMMIT_THOROUGH_MS);
        node.set("transientStorePoolEnable", "true");
    }
    node.set("flushDiskType", "ASYNC_FLUSH");
    let window = Duration::from_millis(window_ms);
    Promise::DurableAfter(window + DEVICE.sync_time_max + WINDOW_GRACE)
}

/// `Ok(true)` is found, `Ok(false)` is not yet.
trait TransposeFound {
    fn transpose_found(self) -> Option<Result<()>>;
}

impl TransposeFound for Result<bool> {
    fn transpose_found(self) -> Option<Result<()>> {
        match self {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl Verdict {
    fn add(&mut self, other: &Self) {
        self.kept += other.kept;
        self.unanswered_kept += other.unanswered_kept;
        self.unanswered_gone += other.unanswered_gone;
        self.lost += other.lost;
        self.lost_age_max = self.lost_age_max.max(other.lost_age_max);
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} power cuts of {} stores, {} more during recovery, {} reopenings without change",
            self.cuts, self.stores, self.cuts_in_recovery, self.reopenings
        )?;
        writeln!(f, "{}", self.damage)?;
        let Verdict {
            kept,
            unanswered_kept,
            unanswered_gone,
            ..
        } = self.sync;
        writeln!(
            f,
            "sync: {kept} acknowledged messages, none lost; without an answer: {unanswered_kept} \
             there, {unanswered_gone} not"
        )?;
        for (mode, sum) in [("async", self.async_), ("staged", self.staged)] {
            writeln!(
                f,
                "{mode}: {} acknowledged messages there, {} lost, the oldest {:.0} ms before the \
                 cut",
                sum.kept,
                sum.lost,
                sum.lost_age_max.as_secs_f64() * 1e3
            )?;
        }
        write!(
            f,
            "slowest start: {:.0} ms",
            self.start_time_max.as_secs_f64() * 1e3
        )
    }
}

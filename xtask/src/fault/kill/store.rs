//! One store and its lives.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use client::ClientError;
use mmap_core::Random;
use tempfile::TempDir;

use super::Mode;
use super::fate::Fate;
use super::ledger::Ledger;
use super::life::{Death, Life, Program, Start, place_kind};
use super::load::{CALLING_PRODUCER, Load, Promises, WINDOW_PRODUCERS};
use super::verify::{Verifier, saved_offsets};

/// Topics beside the common one that a store begins with.
const TOPIC_COUNT: usize = 4;
/// More are created on the way, up to this.
const TOPIC_COUNT_MAX: usize = 20;
/// How often a broker that may be struck by a failpoint is looked at.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// What a busy machine may add to the time that records wait in buffers.
const WINDOW_GRACE: Duration = Duration::from_secs(1);

/// A store's directory, and everything that it must hold.
#[derive(Debug)]
pub struct Store {
    dir: TempDir,
    program: Program,
    ledger: Ledger,
    /// How long before a kill what it takes may have been acknowledged; `None`: it takes nothing.
    kill_window: Option<Duration>,
    random: Random,
    /// What has happened so far.
    pub figures: Figures,
}

/// Counts of what happened to stores.
#[derive(Debug, Default)]
pub struct Figures {
    /// Kills, by what the broker was doing.
    pub kills: BTreeMap<String, u64>,
    /// Clean stops.
    pub stops: u64,
    /// Recoveries that cut bytes off the log.
    pub cuts: u64,
    /// How long each start took that led to a broker that was ready.
    pub starts: Vec<Duration>,
    /// Messages stored.
    pub messages: usize,
    /// Acknowledged messages that kills have taken, as the mode allows.
    pub lost: usize,
}

impl Store {
    /// A store that is not there yet.
    pub fn new(
        binary: &Path,
        parent: &Path,
        mode: Mode,
        sabotage: Option<String>,
        mut random: Random,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fault-kill-")
            .tempdir_in(parent)?;
        let configuration = dir.path().join("broker.conf");
        let (text, kill_window) = configuration_text(&dir.path().join("store"), mode, &mut random);
        std::fs::write(&configuration, text)?;
        let mut ledger = Ledger::default();
        ledger.add_topic("Common");
        for _ in 0..TOPIC_COUNT {
            ledger.add_topic("T");
        }
        let program = Program {
            binary: binary.to_owned(),
            configuration,
            sabotage,
        };
        Ok(Self {
            dir,
            program,
            ledger,
            kill_window,
            random,
            figures: Figures::default(),
        })
    }

    /// Leaves the directory where it is.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// One life with this fate.
    pub fn live(&mut self, fate: &Fate) -> Result<()> {
        match fate {
            Fate::Starting(after) => {
                return match self.program.start(None, Some(*after))? {
                    Start::Killed(_) => self.was_killed("starting", None),
                    Start::Ready(life) => {
                        let death = life.kill()?;
                        self.died("idle", &death)
                    }
                };
            }
            Fate::Unchanged => return self.check_unchanged(),
            _ => {}
        }
        let failpoints = match fate {
            Fate::Failpoint { entry, .. } => Some(entry.as_str()),
            _ => None,
        };
        let mut life = match self.start_armed(failpoints)? {
            Start::Killed(place) => return self.was_killed("starting", place),
            Start::Ready(life) => life,
        };
        if life.has_cut() {
            let death = life.kill()?;
            self.died("idle", &death)?;
            return self.check_cut();
        }
        let checked = self.check(&mut life, failpoints.is_some())?;
        match fate.load() {
            Some(load) if checked => self.load(life, fate, load),
            _ => {
                let death = life.kill()?;
                self.died("idle", &death)
            }
        }
    }

    /// The last life: everything is checked, and it ends well.
    pub fn finish(&mut self) -> Result<()> {
        let life = self.start()?;
        Verifier::new(&life.broker, &mut self.ledger)?
            .check_all()
            .with_context(|| life.log())?;
        self.figures.messages = self.ledger.len();
        self.figures.lost = self.ledger.lost_count();
        self.stop(life)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Starts it with nothing in its way: it must get ready.
    fn start(&mut self) -> Result<Life> {
        match self.start_armed(None)? {
            Start::Ready(life) => Ok(life),
            Start::Killed(_) => bail!("killed, and nobody did it"),
        }
    }

    /// Starts it, and looks at what it says about its recovery.
    fn start_armed(&mut self, failpoints: Option<&str>) -> Result<Start> {
        let kept_before = self.quarantined();
        let start = self.program.start(failpoints, None)?;
        let Start::Ready(life) = &start else {
            return Ok(start);
        };
        self.figures.starts.push(life.ready_after);
        let recovery = &life.recovery;
        for wrong in ["DAMAGE", "LOST", "read-only"] {
            ensure!(
                !recovery.contains(wrong),
                "a kill damages nothing: {recovery}"
            );
        }
        if life.has_cut() {
            self.figures.cuts += 1;
            ensure!(
                self.quarantined() > kept_before,
                "nothing of it was kept aside: {recovery}"
            );
        }
        Ok(start)
    }

    /// Files that recoveries have kept aside.
    fn quarantined(&self) -> usize {
        let dir = std::fs::read_dir(self.root().join("foliomq/quarantine"));
        dir.map_or(0, |entries| entries.count())
    }

    fn stop(&mut self, life: Life) -> Result<()> {
        let death = life.stop(None)?;
        ensure!(!death.killed, "killed while stopping, and nobody did it");
        self.died("stopping", &death)
    }

    /// Checks what a broker that just started has; `false` if a failpoint has killed it meanwhile.
    fn check(&mut self, life: &mut Life, may_die: bool) -> Result<bool> {
        let outcome = Verifier::new(&life.broker, &mut self.ledger)
            .and_then(|mut verifier| verifier.check(&mut self.random));
        match outcome {
            Err(error) if may_die && is_broken(&error) => Ok(false),
            outcome => {
                outcome.with_context(|| format!("recovery: {}\n{}", life.recovery, life.log()))?;
                Ok(true)
            }
        }
    }

    /// Puts a broker under load until its end, and notes what it has promised.
    fn load(&mut self, life: Life, fate: &Fate, time: Duration) -> Result<()> {
        let (broker, name_server) = (life.broker.clone(), life.name_server.clone());
        if self.ledger.topics().len() < TOPIC_COUNT_MAX && self.random.chance(20) {
            self.ledger.add_topic("T");
        }
        let named = |(number, topic): (usize, &super::ledger::Topic)| (number, topic.name.clone());
        let mut topics: Vec<_> = self.ledger.topics().iter().enumerate().map(named).collect();
        let common = topics.remove(0);
        // The newest, which may not exist yet, and some of the others.
        let topics = topics.split_off(topics.len().saturating_sub(TOPIC_COUNT));
        let stop = AtomicBool::new(false);
        let load = Load {
            broker: &broker,
            name_server: &name_server,
            topics: &topics,
            common,
            stop: &stop,
        };
        let (death, died_at, promises) = std::thread::scope(|scope| {
            let load = &load;
            let mut clients = Vec::new();
            for producer in 0..WINDOW_PRODUCERS {
                let first = self.ledger.next_sequence(producer);
                let random = self.random.fork();
                clients.push(scope.spawn(move || load.send_with_window(producer, first, random)));
            }
            let first = self.ledger.next_sequence(CALLING_PRODUCER);
            let random = self.random.fork();
            clients.push(scope.spawn(move || load.send_by_calls(first, random)));
            clients.push(scope.spawn(move || load.consume()));
            let death = strike(life, fate, time);
            let died_at = Instant::now();
            stop.store(true, Ordering::Relaxed);
            let promises: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            (death, died_at, promises)
        });
        let death = death?;
        for promises in promises {
            let Ok(promises) = promises else {
                bail!("a client panicked");
            };
            self.note(promises?, &death, died_at, fate)?;
        }
        let what = match fate {
            Fate::Stopping(..) | Fate::Failpoint { stop: true, .. } => "stopping",
            _ => "loaded",
        };
        self.died(what, &death)
    }

    fn note(
        &mut self,
        promises: Promises,
        death: &Death,
        died_at: Instant,
        fate: &Fate,
    ) -> Result<()> {
        let Promises {
            messages,
            next_sequence,
            commits,
            refused,
        } = promises;
        if let Some((producer, next)) = next_sequence {
            self.ledger.set_next_sequence(producer, next);
        }
        let window = self.kill_window.filter(|_| death.killed);
        for told in messages {
            let age = told
                .acknowledged_at
                .map(|at| died_at.saturating_duration_since(at));
            let is_loose = age.zip(window).is_some_and(|(age, window)| age <= window);
            self.ledger.promise(&told, is_loose)?;
        }
        for (queue, (sent, acknowledged)) in commits {
            let known = self.ledger.commits().entry((0, queue)).or_default();
            known.sent = known.sent.max(sent);
            if let Some(acknowledged) = acknowledged.filter(|_| !death.killed) {
                known.kept = known.kept.max(acknowledged);
            }
        }
        let may_refuse = matches!(
            fate,
            Fate::Stopping(..) | Fate::Stopped(_) | Fate::Failpoint { stop: true, .. }
        );
        ensure!(
            may_refuse || refused.is_empty(),
            "sends were refused: {refused:?}"
        );
        Ok(())
    }

    /// A death of which the broker's own words are known.
    fn died(&mut self, what: &str, death: &Death) -> Result<()> {
        if death.killed {
            return self.was_killed(what, death.failpoint.clone());
        }
        self.figures.stops += 1;
        self.note_saved_offsets()
    }

    fn was_killed(&mut self, what: &str, failpoint: Option<String>) -> Result<()> {
        let kind = match failpoint {
            Some(place) => format!("{what}, {}", place_kind(&place, &self.root())),
            None => what.to_owned(),
        };
        *self.figures.kills.entry(kind).or_default() += 1;
        self.note_saved_offsets()
    }

    /// What is on disk now must not be less after the next start.
    fn note_saved_offsets(&mut self) -> Result<()> {
        let saved = saved_offsets(&self.root())?;
        let common = self.ledger.topics().first().map(|topic| topic.name.clone());
        for ((topic, queue), offset) in saved {
            ensure!(Some(&topic) == common.as_ref(), "offsets of topic {topic}");
            let known = self.ledger.commits().entry((0, queue)).or_default();
            ensure!(
                (known.kept..=known.sent).contains(&offset),
                "offset {offset} was saved for queue {queue}: {known:?}"
            );
            known.kept = offset;
        }
        Ok(())
    }

    /// What the last start has cut off the log does not come back.
    fn check_cut(&mut self) -> Result<()> {
        let mut life = self.start()?;
        ensure!(
            !life.has_cut(),
            "what was cut off came back: {}",
            life.recovery
        );
        self.check(&mut life, false)?;
        self.stop(life)
    }

    /// Starts and stops it twice without load: what the first time leaves, the second keeps.
    fn check_unchanged(&mut self) -> Result<()> {
        let mut left = Vec::new();
        for _ in 0..2 {
            let mut life = self.start()?;
            ensure!(
                left.is_empty() || !life.has_cut(),
                "what was cut off came back: {}",
                life.recovery
            );
            self.check(&mut life, false)?;
            self.stop(life)?;
            left.push(contents(&self.root())?);
        }
        if let [first, second] = &*left {
            let paths = first.keys().chain(second.keys());
            let changed: Vec<_> = paths
                .filter(|path| first.get(*path) != second.get(*path))
                .collect();
            ensure!(changed.is_empty(), "a clean restart changed {changed:?}");
        }
        Ok(())
    }
}

/// Waits for the life's time, and ends it as its fate has it.
fn strike(mut life: Life, fate: &Fate, time: Duration) -> Result<Death> {
    let Fate::Failpoint { stop, .. } = fate else {
        std::thread::sleep(time);
        return match fate {
            Fate::Stopping(_, after) => life.stop(Some(*after)),
            Fate::Stopped(_) => life.stop(None),
            _ => life.kill(),
        };
    };
    let deadline = Instant::now() + time;
    while Instant::now() < deadline && !life.has_ended() {
        std::thread::sleep(LOOK_INTERVAL);
    }
    if *stop { life.stop(None) } else { life.kill() }
}

/// Whether a check failed because the broker was gone.
fn is_broken(error: &anyhow::Error) -> bool {
    let is_end = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<ClientError>();
        cause.is_some_and(|error| {
            matches!(
                error,
                ClientError::Connect { .. } | ClientError::Io { .. } | ClientError::Closed { .. }
            )
        })
    };
    error.chain().any(is_end)
}

/// Small files of random sizes, so that everything rolls, and everything is saved often; and how long
/// before a kill what it takes may have been acknowledged.
fn configuration_text(root: &Path, mode: Mode, random: &mut Random) -> (String, Option<Duration>) {
    let mut one_of = |values: &[u64]| random.pick(values);
    let flush = match mode {
        Mode::Sync => "SYNC_FLUSH",
        Mode::Async | Mode::Staged => "ASYNC_FLUSH",
    };
    let mut settings = vec![
        (
            "mappedFileSizeCommitLog",
            one_of(&[1 << 17, 1 << 18, 1 << 20]),
        ),
        ("mappedFileSizeConsumeQueue", one_of(&[400, 2_000, 20_000])),
        ("maxHashSlotNum", one_of(&[100, 2_000])),
        ("maxIndexNum", one_of(&[1_000, 8_000])),
        ("flushIntervalCommitLog", one_of(&[5, 500])),
        ("flushCommitLogLeastPages", one_of(&[0, 4])),
        ("flushIntervalConsumeQueue", one_of(&[4, 20, 1_000])),
        ("flushConsumerOffsetInterval", one_of(&[10, 20])),
        ("maxTransferCountOnMessageInMemory", 256),
        ("maxTransferBytesOnMessageInMemory", 1 << 20),
    ];
    let mut text = format!(
        "brokerName=killed\nlistenPort=0\nfoliomq.namesrvListen=127.0.0.1:0\n\
         storePathRootDir={}\nflushDiskType={flush}\n",
        root.display()
    );
    let mut kill_window = None;
    if mode == Mode::Staged {
        let (interval, thorough) = (one_of(&[1, 10, 200]), one_of(&[1, 20, 200]));
        settings.extend([
            ("commitIntervalCommitLog", interval),
            ("commitCommitLogThoroughInterval", thorough),
            ("commitCommitLogLeastPages", one_of(&[0, 4])),
            ("transientStorePoolSize", one_of(&[1, 2, 5])),
        ]);
        text.push_str("transientStorePoolEnable=true\n");
        kill_window = Some(Duration::from_millis(interval + thorough) + WINDOW_GRACE);
    }
    for (name, value) in settings {
        text.push_str(&format!("{name}={value}\n"));
    }
    (text, kill_window)
}

/// Length and hash of each file of the store that a clean restart has no reason to change.
fn contents(root: &Path) -> Result<BTreeMap<PathBuf, (usize, u64)>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let inside = path.strip_prefix(root)?.to_owned();
            if path.is_dir() {
                dirs.push(path);
            } else if !["abort", "checkpoint", "lock"]
                .iter()
                .any(|own| inside == **own)
            {
                let bytes = std::fs::read(&path)?;
                let mut hasher = DefaultHasher::new();
                hasher.write(&bytes);
                found.insert(inside, (bytes.len(), hasher.finish()));
            }
        }
        dirs.retain(|dir| *dir != root.join("foliomq"));
    }
    Ok(found)
}

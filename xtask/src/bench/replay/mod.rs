//! `cargo xtask bench replay`: what a consumer that goes through old messages, which are not in
//! memory, does to producers.

mod consumer;
mod producer;

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;

use super::cgroup::Group;
use super::frames::Template;
use super::load::{self, Load, LoadKind};
use super::memory;
use super::report::{Column, Common, Plot, Report, Table};
use super::servers::measured::Usage;
use crate::process::{self, Server};
use crate::workspace;
use producer::Sends;

const OLD_TOPIC: &str = "BenchOld";
const NEW_TOPIC: &str = "BenchNew";
const BODY_LEN: usize = 1024;
const BATCH_COUNT: usize = 32;
const LIMIT: Duration = Duration::from_secs(30);
const P50: Column = Column::median("p50 us");
const P99: Column = Column::spread("p99 us");
const P999: Column = Column::spread("p99.9 us");
const OVER_NONE: Column = Column::spread("p99, of that alone");
const OVER_HOT: Column = Column::spread("p99, of that beside hot");
const REPLAY: Column = Column::spread("replay MB/s");
const CPU: Column = Column::median("broker's CPU %");
const ABOUT: &str = "A broker holds old messages. Producers send at a fixed rate, each with a \
connection of its own, alone and beside a consumer that pulls the old messages from the first on \
over four queues; a send's time counts from when it was due. The consumer yields to everybody else \
(`nice` 19), as it would have processors of its own. *Hot*: the old messages are in the page cache. \
*Cold*: they were dropped from it; `direct`: the threads that serve the sockets read from the device \
(`foliomq.coldReadThreads=0`), `readers`: threads of their own do (the default), `sendfile`: they do, \
and the messages go out by `sendfile` (`foliomq.transfer=sendfile`). What a cold replay does beyond a \
hot one is what reading costs producers.";

/// A replay beside the producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Beside {
    /// None.
    Nothing,
    /// Of what is in memory.
    Hot,
    /// Of what is not, read by the threads that serve the sockets.
    Direct,
    /// Of what is not, read by threads of their own.
    Readers,
    /// The same, sent by `sendfile`.
    Sendfile,
}

/// Where the old messages are read from, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scene {
    /// The device as it is; the consumer takes so much a second.
    Paced,
    /// The device as it is; the consumer takes what it gets.
    Free,
    /// Reads of the device bounded by a control group; the consumer takes what it gets.
    Slow,
    /// As paced, and little memory for the broker, by a control group.
    Small,
}

/// What `cargo xtask bench replay` takes.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// What there is beside the producers, measured in turn.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "nothing,hot,direct,readers,sendfile"
    )]
    beside: Vec<Beside>,
    /// From what kind of device.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "paced,free,slow,small"
    )]
    scenes: Vec<Scene>,
    /// MB a second that a paced consumer takes.
    #[arg(long, default_value_t = 100)]
    replay_mb: u64,
    /// MB a second of the slow device.
    #[arg(long, default_value_t = 100)]
    slow_mb: u64,
    /// Reads a second of the slow device.
    #[arg(long, default_value_t = 200)]
    slow_reads: u64,
    /// MiB of memory, page cache included, where there is little.
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
    /// MiB of old messages.
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    /// Sends a second, of all producers together.
    #[arg(long, default_value_t = 4000)]
    rate: u64,
    /// Producers.
    #[arg(long, default_value_t = 4)]
    producers: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    #[command(flatten)]
    common: Common,
}

impl ReplayArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    fn sends(&self) -> Sends {
        let millis = self.common.choose(self.seconds * 1000, 300);
        Sends {
            producers: self.producers,
            per_second: self.rate,
            duration: Duration::from_millis(millis),
        }
    }

    /// The group that makes of the machine what the scene wants.
    fn group(&self, scene: Scene, dir: &Path) -> Result<Option<Group>> {
        match scene {
            Scene::Paced | Scene::Free => Ok(None),
            Scene::Slow => {
                Group::slow_reads(dir, self.slow_mb * 1_000_000, self.slow_reads).map(Some)
            }
            Scene::Small => Group::little_memory(self.memory_mib << 20).map(Some),
        }
    }

    fn describe(&self, scene: Scene) -> String {
        match scene {
            Scene::Paced => format!("replay of {} MB/s", self.replay_mb),
            Scene::Free => "replay without bound".to_owned(),
            Scene::Slow => format!(
                "device of {} MB/s and {} reads/s",
                self.slow_mb, self.slow_reads
            ),
            Scene::Small => format!(
                "{} MiB of memory, replay of {} MB/s",
                self.memory_mib, self.replay_mb
            ),
        }
    }

    /// What the consumer takes a second at most.
    fn bytes_max(&self, scene: Scene) -> Option<u64> {
        match scene {
            Scene::Paced | Scene::Small => Some(self.replay_mb * 1_000_000),
            Scene::Free | Scene::Slow => None,
        }
    }
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Beside::Nothing => "nothing",
            Beside::Hot => "hot",
            Beside::Direct => "cold, direct",
            Beside::Readers => "cold, readers",
            Beside::Sendfile => "cold, readers, sendfile",
        }
    }

    fn is_cold(self) -> bool {
        matches!(self, Beside::Direct | Beside::Readers | Beside::Sendfile)
    }

    /// Lines of the broker's configuration.
    fn configuration(self) -> &'static str {
        match self {
            Beside::Direct => "foliomq.coldReadThreads=0\n",
            Beside::Sendfile => "foliomq.transfer=sendfile\n",
            Beside::Nothing | Beside::Hot | Beside::Readers => "",
        }
    }
}

/// Runs the bench.
pub(super) fn run(arguments: &ReplayArguments) -> Result<()> {
    let common = &arguments.common;
    let len = common.choose(arguments.mib, 32) << 20;
    let mut report = Report::new("replay", "Cold replay beside producers", common);
    report.text(ABOUT);
    report.record("old messages", format!("{} MiB", len >> 20));
    report.record("rate", format!("{} sends/s", arguments.rate));
    let dir = common.scratch()?;
    fill(dir.path(), len)?;
    let mut table = Table::new("Sends at a fixed rate", &["scene", "beside"]);
    for scene in &arguments.scenes {
        match arguments.group(*scene, dir.path()) {
            Ok(_group) => {}
            Err(error) => {
                let missing = format!("Left out: {}: {error:#}.", arguments.describe(*scene));
                eprintln!("{missing}");
                report.text(missing);
                continue;
            }
        }
        measure(arguments, dir.path(), *scene, &mut table)?;
    }
    report.plot(Plot::bars("p99", "Sends' p99 (us)", &table, P99, 0).log());
    report.table(table);
    report.finish(common)
}

/// All of one scene.
fn measure(arguments: &ReplayArguments, dir: &Path, scene: Scene, table: &mut Table) -> Result<()> {
    let sends = arguments.sends();
    let scene_name = arguments.describe(scene);
    let labels = |beside: Beside| [&*scene_name, beside.name()];
    for _ in 0..arguments.common.rounds() {
        for beside in &arguments.beside {
            eprintln!("{}", labels(*beside).join(", beside "));
            let group = arguments.group(scene, dir)?;
            let written = (arguments.rate * sends.duration.as_secs() * 3000) as usize;
            memory::bring_back(dir, written.max(64 << 20))?;
            let prepare = match beside {
                Beside::Hot => bring_in,
                _ => evict,
            };
            each_file(&dir.join("store"), prepare)?;
            let broker = Broker::start(dir, *beside, group.as_ref())?;
            let found = broker.measure(sends, *beside, arguments.bytes_max(scene))?;
            for (column, quantile) in [(P50, 0.5), (P99, 0.99), (P999, 0.999)] {
                let value = found.latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
                table.add(&labels(*beside), column, value);
            }
            table.add(&labels(*beside), REPLAY, found.replayed);
            table.add(&labels(*beside), CPU, found.cpu * 100.0);
            broker.stop()?;
        }
    }
    for beside in &arguments.beside {
        let labels_of = labels(*beside);
        if *beside != Beside::Nothing {
            table.ratio(&labels_of, OVER_NONE, P99, &labels(Beside::Nothing));
        }
        if beside.is_cold() {
            table.ratio(&labels_of, OVER_HOT, P99, &labels(Beside::Hot));
        }
    }
    Ok(())
}

/// What one measurement came to.
struct Found {
    latency_ns: Histogram<u64>,
    /// MB a second; no number without a replay.
    replayed: f64,
    /// Of one processor, by the broker.
    cpu: f64,
}

struct Broker {
    server: Server,
    address: SocketAddr,
}

impl Broker {
    fn start(dir: &Path, beside: Beside, group: Option<&Group>) -> Result<Self> {
        let address = process::free_address()?;
        let name_server = process::free_address()?;
        let file = dir.join("broker.conf");
        fs::write(&file, beside.configuration())?;
        let mut command = process::command(workspace::release_broker()?);
        command.arg("serve").arg("-c").arg(&file);
        command.arg("--store").arg(dir.join("store"));
        command.args(["--listen", &address.to_string()]);
        command.args(["--namesrv-listen", &name_server.to_string()]);
        let server = Server::spawn(command, "foliomq", &dir.join("server.log"))?;
        let begun = Instant::now();
        while let Err(error) = load::one_request(&sends(address, Template::send(NEW_TOPIC, 16))) {
            if begun.elapsed() > LIMIT {
                return Err(error).context(server.log_tail());
            }
            thread::sleep(Duration::from_millis(1));
        }
        if let Some(group) = group {
            group.take_in(server.pid())?;
        }
        Ok(Self { server, address })
    }

    fn measure(&self, sends: Sends, beside: Beside, bytes_max: Option<u64>) -> Result<Found> {
        let (stop, begun) = (AtomicBool::new(false), Instant::now());
        let before = Usage::of(self.server.pid())?;
        let (latency_ns, replayed) = thread::scope(|scope| {
            let replay = scope.spawn(|| match beside {
                Beside::Nothing => Ok(f64::NAN),
                _ => consumer::replay(self.address, bytes_max, &stop),
            });
            let latency_ns = sends.run(self.address);
            stop.store(true, Ordering::Release);
            let replayed = replay.join().map_err(|_| anyhow!("the replay panicked"))?;
            Ok::<_, anyhow::Error>((latency_ns?, replayed?))
        })?;
        let cpu = Usage::of(self.server.pid())?.cpu.saturating_sub(before.cpu);
        Ok(Found {
            latency_ns,
            replayed,
            cpu: cpu.as_secs_f64() / begun.elapsed().as_secs_f64(),
        })
    }

    fn stop(mut self) -> Result<()> {
        let status = self.server.process().stop(LIMIT)?;
        ensure!(status.success(), "the broker ended with {status}");
        Ok(())
    }
}

fn sends(address: SocketAddr, template: Template) -> Load {
    Load {
        address,
        connections: 4,
        window: 4,
        kind: LoadKind::Send(template),
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(200),
        threads: 1,
    }
}

/// Makes a store with `len` bytes of old messages.
fn fill(dir: &Path, len: u64) -> Result<()> {
    let broker = Broker::start(dir, Beside::Nothing, None)?;
    let template = Template::batch(OLD_TOPIC, BODY_LEN, BATCH_COUNT);
    let load = sends(broker.address, template);
    let mut messages = 0;
    while messages * (BODY_LEN as u64) < len {
        messages += load::run(&load, || (), || ())?.messages;
    }
    broker.stop()
}

/// Does something with each file of a store that nobody has open.
fn each_file(dir: &Path, act: fn(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            each_file(&path, act)?;
        } else {
            act(&path)?;
        }
    }
    Ok(())
}

/// Drops a file from the page cache.
fn evict(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// Brings a file into the page cache, with nothing of it left to be written.
fn bring_in(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    file.sync_all()?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

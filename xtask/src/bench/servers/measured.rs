//! The servers that are measured, each a process of its own, and what they cost.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::super::frames::Template;
use super::super::load::{self, Load, LoadKind};
use crate::interop::java;
use crate::process::{self, Server};
use crate::workspace;

/// How RocketMQ 5.3.3 ships its broker (`bin/runbroker.sh`), without the log file options.
pub(in crate::bench) const JAVA_FLAGS: &[&str] = &[
    "-server",
    "-Xms8g",
    "-Xmx8g",
    "-XX:+UseG1GC",
    "-XX:G1HeapRegionSize=16m",
    "-XX:G1ReservePercent=25",
    "-XX:InitiatingHeapOccupancyPercent=30",
    "-XX:SoftRefLRUPolicyMSPerMB=0",
    "-XX:-OmitStackTraceInFastThrow",
    "-XX:MaxDirectMemorySize=15g",
    "-XX:-UseLargePages",
];
const START_LIMIT: Duration = Duration::from_secs(60);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Answers at once and does nothing: the machine's limit.
    Echo,
    /// This workspace's `foliomq`.
    Ours,
    /// Apache RocketMQ 5.3.3.
    Java,
}

impl Kind {
    pub(in crate::bench) fn name(self) -> &'static str {
        match self {
            Kind::Echo => "echo",
            Kind::Ours => "ours",
            Kind::Java => "java",
        }
    }
}

/// What an acknowledgement means, by RocketMQ's `flushDiskType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flush {
    /// The message is in the page cache.
    Async,
    /// It is on the device.
    Sync,
}

impl Flush {
    fn key(self) -> &'static str {
        match self {
            Flush::Async => "flushDiskType=ASYNC_FLUSH",
            Flush::Sync => "flushDiskType=SYNC_FLUSH",
        }
    }

    pub(in crate::bench) fn about(self) -> &'static str {
        match self {
            Flush::Async => "Asynchronous flush (`ASYNC_FLUSH`) on both brokers.",
            Flush::Sync => {
                "Each send waits for the device (`SYNC_FLUSH`) on both brokers; the echo server \
                 keeps nothing."
            }
        }
    }
}

/// What a process has used up so far.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::bench) struct Usage {
    pub(in crate::bench) cpu: Duration,
    pub(in crate::bench) resident_bytes: u64,
    pub(in crate::bench) anonymous_bytes: u64,
}

impl Usage {
    /// Processor time and memory of a process, from /proc.
    pub(in crate::bench) fn of(pid: Pid) -> Result<Self> {
        let dir = format!("/proc/{}", pid.as_raw_nonzero());
        let stat = fs::read_to_string(format!("{dir}/stat")).context("stat")?;
        // The name in parentheses may hold spaces: count from behind it.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .context("stat")?
            .1
            .split_ascii_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let status = fs::read_to_string(format!("{dir}/status")).context("status")?;
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_ascii_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            cpu: Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()),
            resident_bytes: kib("VmRSS:") * 1024,
            anonymous_bytes: kib("RssAnon:") * 1024,
        })
    }
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::bench) struct Measured {
    pub(in crate::bench) kind: Kind,
    pub(in crate::bench) address: SocketAddr,
    /// From the start of the process to its first accepted send.
    pub(in crate::bench) start_up: Duration,
    /// Right after the first accepted send.
    pub(in crate::bench) idle: Usage,
    server: Server,
    _dir: TempDir,
}

impl Measured {
    /// Starts a server with its store in a new directory below `base`.
    pub(in crate::bench) fn start(kind: Kind, flush: Flush, base: &Path) -> Result<Self> {
        Self::start_with(kind, flush, base, &[])
    }

    /// As [`start`](Self::start), with more lines in our broker's configuration.
    pub(in crate::bench) fn start_with(
        kind: Kind,
        flush: Flush,
        base: &Path,
        settings: &[String],
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(base)?;
        let address = process::free_address()?;
        let name_server_address = process::free_address()?;
        let command = match kind {
            Kind::Echo => {
                let mut command = process::command(std::env::current_exe()?);
                command.args(["bench", "echo", "--listen", &address.to_string()]);
                command
            }
            Kind::Ours => {
                let mut command = process::command(workspace::release_broker()?);
                command
                    .arg("serve")
                    .arg("--store")
                    .arg(dir.path().join("store"));
                command.args(["--listen", &address.to_string()]);
                command.args(["--namesrv-listen", &name_server_address.to_string()]);
                let conf = dir.path().join("broker.conf");
                fs::write(&conf, format!("{}\n{}\n", flush.key(), settings.join("\n")))?;
                command.arg("-c").arg(conf);
                command
            }
            Kind::Java => java_command(dir.path(), flush, address, name_server_address)?,
        };
        let log = dir.path().join("server.log");
        let begun = Instant::now();
        let server = Server::spawn(command, kind.name(), &log)?;
        let mut measured = Self {
            kind,
            address,
            start_up: Duration::ZERO,
            idle: Usage::default(),
            server,
            _dir: dir,
        };
        measured.await_first_send(begun)?;
        measured.start_up = begun.elapsed();
        measured.idle = measured.usage()?;
        Ok(measured)
    }

    /// Stops the process without ending it, so that it takes nothing from the others.
    pub(in crate::bench) fn pause(&self) -> Result<()> {
        kill_process(self.pid(), Signal::STOP).context("pause")
    }

    /// Lets it go on.
    pub(in crate::bench) fn resume(&self) -> Result<()> {
        kill_process(self.pid(), Signal::CONT).context("resume")
    }

    /// What it has used up so far.
    pub(in crate::bench) fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid())
    }

    fn pid(&self) -> Pid {
        self.server.pid()
    }

    /// Sends one message until one is accepted. A connection per try: a server that is not yet
    /// registered with its name server may refuse.
    fn await_first_send(&mut self, begun: Instant) -> Result<()> {
        let one = Load {
            address: self.address,
            connections: 1,
            window: 1,
            kind: LoadKind::Send(Template::send("BenchStart", 16)),
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
            threads: 1,
        };
        loop {
            match load::one_request(&one) {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > START_LIMIT => {
                    return Err(error).context(self.server.log_tail());
                }
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }
}

fn java_command(
    dir: &Path,
    flush: Flush,
    address: SocketAddr,
    name_server: SocketAddr,
) -> Result<Command> {
    let store = dir.join("store");
    let name_server_conf = dir.join("namesrv.conf");
    let broker_conf = dir.join("broker.conf");
    fs::write(
        &name_server_conf,
        format!(
            "listenPort={}\nbindAddress=127.0.0.1\nkvConfigPath={}\n",
            name_server.port(),
            dir.join("kvConfig.json").display()
        ),
    )?;
    fs::write(
        &broker_conf,
        format!(
            "brokerName=bench\nbrokerIP1=127.0.0.1\nlistenPort={}\nhaListenPort={}\n\
             storePathRootDir={}\nnamesrvAddr={name_server}\n{}\n",
            address.port(),
            address.port() + 1,
            store.display(),
            flush.key()
        ),
    )?;
    let mut command = process::command("java");
    command.args(JAVA_FLAGS).env("ROCKETMQ_HOME", dir);
    command.arg(format!("-Duser.home={}", dir.display()));
    command.arg(format!("-Drocketmq.home.dir={}", dir.display()));
    command
        .arg("-cp")
        .arg(java::class_path()?)
        .arg("foliomq.interop.JavaServer");
    command
        .arg("--namesrv")
        .arg(name_server_conf)
        .arg("--broker")
        .arg(broker_conf);
    Ok(command)
}

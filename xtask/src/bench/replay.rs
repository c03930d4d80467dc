//! `cargo xtask bench replay`: what a consumer that goes through old messages, which are not in
//! memory, does to producers.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use client::Connection;
use hdrhistogram::Histogram;
use remoting::header::{PullMessageRequestHeader, PullMessageResponseHeader, pull_flag};
use remoting::{Command, RequestCode, ResponseCode};

use super::frames::Template;
use super::load::{self, Load, LoadKind, QUEUES};
use super::memory;
use super::report::{Column, Common, Report, Table};
use crate::process::{self, Server};
use crate::workspace;

const OLD_TOPIC: &str = "BenchOld";
const NEW_TOPIC: &str = "BenchNew";
const BODY_LEN: usize = 1024;
const BATCH_COUNT: usize = 32;
const LIMIT: Duration = Duration::from_secs(30);
const P50: Column = Column::median("p50 us");
const P99: Column = Column::spread("p99 us");
const P999: Column = Column::spread("p99.9 us");
const REPLAY: Column = Column::spread("replay MB/s");
const ABOUT: &str = "A broker holds old messages whose files were dropped from the page cache. \
Producers send at a fixed rate, each with a connection of its own, alone and beside a consumer that \
pulls the old messages from the first on over four queues; a send's time counts from when it was \
due. `direct`: the threads that serve the sockets read from the device \
(`foliomq.coldReadThreads=0`). `readers`: threads of their own do (the default).";

/// Who reads what is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cold {
    /// The threads that serve the sockets.
    Direct,
    /// Threads of their own.
    Readers,
}

/// What `cargo xtask bench replay` takes.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// Who reads, measured in turn.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct,readers"
    )]
    cold: Vec<Cold>,
    /// MiB of old messages.
    #[arg(long, default_value_t = 4096)]
    mib: u64,
    /// Sends a second, of all producers together.
    #[arg(long, default_value_t = 8000)]
    rate: u64,
    /// Producers.
    #[arg(long, default_value_t = 4)]
    producers: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[command(flatten)]
    common: Common,
}

impl ReplayArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// Runs the bench.
pub(super) fn run(arguments: &ReplayArguments) -> Result<()> {
    let common = &arguments.common;
    let len = common.choose(arguments.mib, 32) << 20;
    let duration = Duration::from_millis(common.choose(arguments.seconds * 1000, 300));
    let mut report = Report::new("replay", "Cold replay beside producers", common);
    report.text(ABOUT);
    report.record("old messages", format!("{} MiB", len >> 20));
    report.record("rate", format!("{} sends/s", arguments.rate));
    let dir = common.scratch()?;
    fill(dir.path(), len)?;
    let mut table = Table::new("Sends at a fixed rate", &["load", "cold reads by"]);
    for _ in 0..common.rounds() {
        for cold in &arguments.cold {
            evict(&dir.path().join("store"))?;
            memory::bring_back((arguments.rate as usize * 1300) * 2 * duration.as_secs() as usize);
            let broker = Broker::start(dir.path(), *cold)?;
            let name = format!("{cold:?}").to_lowercase();
            let alone = produce(arguments, broker.address, duration)?;
            add(&mut table, &["producers alone", &name], &alone);
            let stop = AtomicBool::new(false);
            let (beside, replayed) = thread::scope(|scope| {
                let replay = scope.spawn(|| replay(broker.address, &stop));
                let beside = produce(arguments, broker.address, duration);
                stop.store(true, Ordering::Release);
                let replayed = replay
                    .join()
                    .map_err(|_| anyhow::anyhow!("the replay panicked"));
                Ok::<_, anyhow::Error>((beside?, replayed??))
            })?;
            let labels = ["beside a replay", name.as_str()];
            add(&mut table, &labels, &beside);
            table.add(&labels, REPLAY, replayed);
            broker.stop()?;
        }
    }
    report.table(table);
    report.finish(common)
}

fn add(table: &mut Table, labels: &[&str; 2], latency_ns: &Histogram<u64>) {
    for (column, quantile) in [(P50, 0.5), (P99, 0.99), (P999, 0.999)] {
        let value = latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
        table.add(labels, column, value);
    }
}

struct Broker {
    server: Server,
    address: SocketAddr,
}

impl Broker {
    fn start(dir: &Path, cold: Cold) -> Result<Self> {
        let address = process::free_address()?;
        let name_server = process::free_address()?;
        let file = dir.join("broker.conf");
        let threads = match cold {
            Cold::Direct => "foliomq.coldReadThreads=0\n",
            Cold::Readers => "",
        };
        fs::write(&file, threads)?;
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
        Ok(Self { server, address })
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
    let broker = Broker::start(dir, Cold::Readers)?;
    let load = sends(
        broker.address,
        Template::batch(OLD_TOPIC, BODY_LEN, BATCH_COUNT),
    );
    let mut messages = 0;
    while messages * (BODY_LEN as u64) < len {
        messages += load::run(&load, || (), || ())?.messages;
    }
    broker.stop()
}

/// Drops the files of a store that nobody has open from the page cache.
fn evict(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            evict(&path)?;
            continue;
        }
        let file = File::open(&path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// Sends at the rate for so long; returns how long after it was due each send was answered.
fn produce(
    arguments: &ReplayArguments,
    address: SocketAddr,
    duration: Duration,
) -> Result<Histogram<u64>> {
    let interval = Duration::from_secs(arguments.producers).div_f64(arguments.rate as f64);
    let parts = thread::scope(|scope| {
        let producers: Vec<_> = (0..arguments.producers)
            .map(|number| scope.spawn(move || producer(address, interval, duration, number)))
            .collect();
        let ends = producers.into_iter().map(|producer| producer.join());
        ends.collect::<Vec<_>>()
    });
    let mut all = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
    for part in parts {
        all.add(part.map_err(|_| anyhow::anyhow!("a producer panicked"))??)?;
    }
    Ok(all)
}

fn producer(
    address: SocketAddr,
    interval: Duration,
    duration: Duration,
    number: u64,
) -> Result<Histogram<u64>> {
    let mut latency_ns = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let template = Template::send(NEW_TOPIC, BODY_LEN);
    let (mut frame, mut answer) = (Vec::new(), vec![0; 64 * 1024]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mut sequence = now.as_nanos() as u64 ^ (number << 56);
    let begun = Instant::now();
    for count in 0.. {
        let due = begun + interval * count;
        if due >= begun + duration {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        frame.clear();
        let queue = (count % u32::from(QUEUES)) as u8;
        template.push(&mut frame, 0, queue, &mut sequence);
        stream.write_all(&frame)?;
        let mut filled = 0;
        while load::frame_len(&answer[..filled]).is_none() {
            match stream.read(&mut answer[filled..])? {
                0 => bail!("{address} closed the connection"),
                len => filled += len,
            }
        }
        let answered = Command::decode(&answer[..filled])?;
        let code = answered.response_code();
        ensure!(
            code == ResponseCode::SUCCESS,
            "refused: {:?}",
            answered.remark
        );
        latency_ns.saturating_record(due.elapsed().as_nanos() as u64);
    }
    Ok(latency_ns)
}

/// Pulls all old messages, again from the first where there are no more, until it is told to stop;
/// returns MB a second.
fn replay(address: SocketAddr, stop: &AtomicBool) -> Result<f64> {
    let mut connection = Connection::connect(&address.to_string(), LIMIT)?;
    let mut offsets = [0_i64; QUEUES as usize];
    let (mut len, mut sum) = (0_u64, 0_u64);
    let begun = Instant::now();
    while !stop.load(Ordering::Acquire) {
        for (queue_id, offset) in (0..).zip(&mut offsets) {
            let header = PullMessageRequestHeader {
                consumer_group: "replay",
                topic: OLD_TOPIC,
                queue_id,
                queue_offset: *offset,
                max_msg_nums: 32,
                sys_flag: pull_flag::SUBSCRIPTION,
                subscription: Some("*"),
                ..Default::default()
            };
            let request = Command::request(RequestCode::PULL_MESSAGE).with_header(&header);
            let answer = connection.call(request)?;
            match answer.response_code() {
                ResponseCode::SUCCESS => {
                    let found: PullMessageResponseHeader = answer.header()?;
                    *offset = found.next_begin_offset;
                    len += answer.body.len() as u64;
                    sum += answer.body.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                }
                ResponseCode::PULL_NOT_FOUND => *offset = 0,
                ResponseCode::FLOW_CONTROL => {}
                code => bail!("pull refused with {code}: {:?}", answer.remark),
            }
        }
    }
    std::hint::black_box(sum);
    Ok(len as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

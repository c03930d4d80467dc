//! `cargo xtask bench start`: how long a broker takes to its first accepted send, and what memory,
//! connections and queues cost it.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use client::Connection;
use hdrhistogram::Histogram;
use remoting::header::{CreateTopicRequestHeader, SendMessageRequestHeaderV2};
use remoting::{Command, RequestCode, ResponseCode};

use super::frames::Template;
use super::load::{self, Load, LoadKind};
use super::report::{Column, Common, Report, Table};
use crate::process::{self, Server};
use crate::workspace;

const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "BenchStart";
/// The topics with many queues begin so.
const MANY: &str = "BenchQueues";
/// Queues of one topic, of which a broker allows 65,536.
const QUEUES_PER_TOPIC: i32 = 10_000;
/// The row that is sent to few queues before there are many.
const FEW: &str = "10 queues";
const BODY_LEN: usize = 1024;
/// Requests under way where queues are filled.
const WINDOW: usize = 64;
/// Until the services have synced what was in flight.
const SETTLE_TIME: Duration = Duration::from_secs(5);
const ABOUT: &str = "From the start of the process to the first accepted send, by a client that tries \
every 200 us. Memory is that of /proc: anonymous is what the process itself has, the rest of what is \
resident are pages of the store's files. `killed` is SIGKILL some seconds after the last send, so that \
little is in flight; `killed under load` is SIGKILL right behind it, with what no flush had reached. \
The page cache is warm. The queues are those of topics of 10,000: a first message to each, which makes \
the queue, then as many messages to ten of them, then a second one to each; latencies are those of one \
connection with 64 requests under way.";

const START: Column = Column::spread("ms to the first send");
const RESIDENT: Column = Column::median("resident MB");
const ANONYMOUS: Column = Column::median("anonymous MB");
const TABLES: Column = Column::median("page tables KB");
const FILES: Column = Column::median("open files");
const P50: Column = Column::median("send p50 us");
const P99: Column = Column::median("send p99 us");
const P99_OVER: Column = Column::median("p99, over 10 queues");

/// What `cargo xtask bench start` takes.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Messages after which memory is looked at.
    #[arg(long, default_value_t = 10_000_000)]
    messages: u64,
    /// Queues with one message each.
    #[arg(long, default_value_t = 100_000)]
    queues: i32,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    #[command(flatten)]
    common: Common,
}

impl StartArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// Runs the bench.
pub(super) fn run(arguments: &StartArguments) -> Result<()> {
    let common = &arguments.common;
    let mut report = Report::new("start", "Start and memory", common);
    report.text(ABOUT);
    let mut table = Table::new("Start and memory", &["store"]);
    for _ in 0..common.rounds() {
        starts(common, &mut table)?;
    }
    if common.wants("messages") {
        let count = common.choose(arguments.messages, 20_000);
        let dir = common.scratch()?;
        let mut broker = Broker::start(dir.path())?;
        fill(broker.address, count)?;
        broker.show(&mut table, &format!("after {count} messages"))?;
        broker.server.process().kill()?;
    }
    if common.wants("connections") {
        let count = common.choose(arguments.connections, 100);
        connections(common, &mut table, count)?;
    }
    report.table(table);
    if common.wants("queues") {
        report.table(queues(common, common.choose(arguments.queues, 200))?);
    }
    report.finish(common)
}

/// An empty store, and one of 1 GiB after each way to end.
fn starts(common: &Common, table: &mut Table) -> Result<()> {
    let dir = common.scratch()?;
    let mut broker = Broker::start(dir.path())?;
    broker.show(table, "empty")?;
    if !common.wants("GiB") {
        return Ok(());
    }
    fill(broker.address, common.choose(1 << 20, 20_000))?;
    broker = broker.killed()?;
    broker.show(table, "1 GiB, killed under load")?;
    std::thread::sleep(common.choose(SETTLE_TIME, Duration::from_secs(1)));
    broker = broker.killed()?;
    broker.show(table, "1 GiB, killed")?;
    broker.server.process().stop(PATIENCE)?;
    Broker::start(dir.path())?.show(table, "1 GiB, stopped")
}

/// What connections cost that have sent one message each and are idle then.
fn connections(common: &Common, table: &mut Table, count: usize) -> Result<()> {
    let dir = common.scratch()?;
    let broker = Broker::start(dir.path())?;
    let template = Template::send(TOPIC, 16);
    let mut open = Vec::with_capacity(count);
    let mut sequence = 0;
    for number in 0..count {
        let connected = TcpStream::connect(broker.address);
        let mut stream = connected.with_context(|| format!("connection {number}"))?;
        let mut request = Vec::new();
        template.push(&mut request, 0, 0, &mut sequence);
        stream.write_all(&request)?;
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        stream.read_exact(&mut vec![0; u32::from_be_bytes(len) as usize])?;
        open.push(stream);
    }
    broker.show(table, &format!("{count} idle connections"))
}

/// Many queues with one message each, then with a second one.
fn queues(common: &Common, count: i32) -> Result<Table> {
    let mut table = Table::new("Queues", &["work"]);
    let dir = common.scratch()?;
    let broker = Broker::start(dir.path())?;
    create_topics(&broker, count)?;
    let few = || (0..count).map(|number| number % 10);
    let mut latency = |name: &str, queues: &mut dyn Iterator<Item = i32>, broker: &Broker<'_>| {
        let begun = Instant::now();
        let histogram = send_to(broker.address, queues)?;
        table.add(
            &[name],
            Column::median("seconds"),
            begun.elapsed().as_secs_f64(),
        );
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        table.add(&[name], P50, us(0.5));
        table.add(&[name], P99, us(0.99));
        broker.show_memory(&mut table, name)
    };
    latency(FEW, &mut few(), &broker)?;
    let works = [
        format!("a first message to each of {count} queues"),
        format!("10 of {count} queues"),
        format!("a second message to each of {count} queues"),
    ];
    latency(&works[0], &mut (0..count), &broker)?;
    latency(&works[1], &mut few(), &broker)?;
    latency(&works[2], &mut (0..count), &broker)?;
    for work in &works {
        table.ratio(&[work], P99_OVER, P99, &[FEW]);
    }
    std::thread::sleep(common.choose(SETTLE_TIME, Duration::from_secs(1)));
    let mut broker = broker.killed()?;
    broker.show(&mut table, "killed")?;
    broker.server.process().stop(PATIENCE)?;
    Broker::start(dir.path())?.show(&mut table, "stopped")?;
    Ok(table)
}

/// A broker with its store in a directory that others may have used before.
struct Broker<'a> {
    dir: &'a Path,
    server: Server,
    address: SocketAddr,
    start_up: Duration,
}

impl<'a> Broker<'a> {
    fn start(dir: &'a Path) -> Result<Self> {
        let (address, name_server) = (process::free_address()?, process::free_address()?);
        let mut command = process::command(workspace::release_broker()?);
        command.arg("serve").arg("--store").arg(dir.join("store"));
        command.args(["--listen", &address.to_string()]);
        command.args(["--namesrv-listen", &name_server.to_string()]);
        let begun = Instant::now();
        let mut broker = Self {
            dir,
            server: Server::spawn(command, "foliomq", &dir.join("server.log"))?,
            address,
            start_up: Duration::ZERO,
        };
        let one = sends(address, 1, 1, Template::send(TOPIC, 16), Duration::ZERO);
        while let Err(error) = load::one_request(&one) {
            if begun.elapsed() > PATIENCE {
                return Err(error).context(broker.server.log_tail());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        broker.start_up = begun.elapsed();
        Ok(broker)
    }

    /// Kills it, and starts the next one.
    fn killed(mut self) -> Result<Self> {
        self.server.process().kill()?;
        Self::start(self.dir)
    }

    fn show(&self, table: &mut Table, row: &str) -> Result<()> {
        table.add(&[row], START, self.start_up.as_secs_f64() * 1e3);
        self.show_memory(table, row)
    }

    fn show_memory(&self, table: &mut Table, row: &str) -> Result<()> {
        let dir = format!("/proc/{}", self.server.pid().as_raw_nonzero());
        let status = fs::read_to_string(format!("{dir}/status")).context("status")?;
        let kib = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_ascii_whitespace().next());
            Ok(number.with_context(|| name.to_owned())?.parse::<f64>()?)
        };
        table.add(&[row], RESIDENT, kib("VmRSS:")? / 1024.0);
        table.add(&[row], ANONYMOUS, kib("RssAnon:")? / 1024.0);
        table.add(&[row], TABLES, kib("VmPTE:")?);
        let files = fs::read_dir(format!("{dir}/fd")).context("fd")?.count();
        table.add(&[row], FILES, files as f64);
        Ok(())
    }
}

fn sends(
    address: SocketAddr,
    connections: usize,
    window: usize,
    template: Template,
    duration: Duration,
) -> Load {
    Load {
        address,
        connections,
        window,
        kind: LoadKind::Send(template),
        warm_up: Duration::ZERO,
        duration,
        threads: 1,
    }
}

/// Sends so many messages at least.
fn fill(address: SocketAddr, count: u64) -> Result<()> {
    let template = Template::batch(TOPIC, BODY_LEN, 32);
    let load = sends(address, 4, 4, template, Duration::from_millis(200));
    let mut sent = 0;
    while sent < count {
        sent += load::run(&load, || (), || ())?.messages;
    }
    Ok(())
}

/// The topic that has the queue of this number.
fn topic_of(number: i32) -> String {
    format!("{MANY}{}", number / QUEUES_PER_TOPIC)
}

fn create_topics(broker: &Broker<'_>, queues: i32) -> Result<()> {
    let mut connection = Connection::connect(&broker.address.to_string(), PATIENCE)?;
    for first in (0..queues).step_by(QUEUES_PER_TOPIC as usize) {
        let count = (queues - first).min(QUEUES_PER_TOPIC);
        let header = CreateTopicRequestHeader {
            topic: &topic_of(first),
            default_topic: "TBW102",
            read_queue_nums: count,
            write_queue_nums: count,
            perm: 6,
            topic_filter_type: "SINGLE_TAG",
            topic_sys_flag: None,
            order: false,
            attributes: None,
            force: None,
        };
        let request = Command::request(RequestCode::UPDATE_AND_CREATE_TOPIC).with_header(&header);
        let answer = connection.call(request)?;
        let code = answer.response_code();
        ensure!(code == ResponseCode::SUCCESS, "{code} {:?}", answer.remark);
    }
    Ok(())
}

/// Sends a message to each of these queues; the latencies in nanoseconds.
fn send_to(address: SocketAddr, queues: &mut dyn Iterator<Item = i32>) -> Result<Histogram<u64>> {
    let mut connection = Connection::connect(&address.to_string(), PATIENCE)?;
    let mut histogram = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
    let mut under_way = VecDeque::new();
    let body = vec![b'm'; BODY_LEN];
    let mut queues = queues.peekable();
    while queues.peek().is_some() || !under_way.is_empty() {
        while under_way.len() < WINDOW
            && let Some(number) = queues.next()
        {
            let header = SendMessageRequestHeaderV2 {
                producer_group: "bench",
                topic: &topic_of(number),
                default_topic: "TBW102",
                default_topic_queue_nums: 4,
                queue_id: number % QUEUES_PER_TOPIC,
                born_timestamp: 1_700_000_000_000,
                properties: Some("TAGS\u{1}t\u{2}"),
                ..Default::default()
            };
            let request = Command::request(RequestCode::SEND_MESSAGE_V2);
            let request = request.with_header(&header).with_body(body.clone());
            under_way.push_back(Instant::now());
            connection.send(request)?;
        }
        let answer = connection.receive(Instant::now() + PATIENCE)?;
        let code = answer.context("no answer to a send")?.response_code();
        ensure!(code == ResponseCode::SUCCESS, "a send was refused: {code}");
        if let Some(begun) = under_way.pop_front() {
            histogram.saturating_record(begun.elapsed().as_nanos() as u64);
        }
    }
    Ok(histogram)
}

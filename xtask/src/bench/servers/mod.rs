//! `cargo xtask bench servers`: sends and pulls against an echo server, our broker and Java's, each
//! a process of its own, in turn on one machine.

pub(super) mod measured;
mod table;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use remoting::header::{GetMaxOffsetRequestHeader, OffsetResponseHeader};
use remoting::{Command, RequestCode};

use super::frames::Template;
use super::load::{self, Load, LoadKind, Outcome, QUEUES};
use super::memory;
use super::report::{Common, Report, Table};
use crate::interop::java;
use measured::{Flush, Kind, Measured};

/// The topic of the measured messages.
pub(super) const TOPIC: &str = "BenchTopic";
/// Most bytes of log that a second of sends comes to.
const WRITTEN_PER_SECOND_MAX: usize = 2 << 30;
const PULL_COUNT: usize = 32;
const BATCH_COUNT: usize = 32;
const ABOUT: &str = "One load generator that speaks the wire protocol, an echo server that answers \
and does nothing else (what sockets and wake-ups allow here), our broker, and Apache RocketMQ 5.3.3 \
with the flags of its `runbroker.sh`, each a process of its own on the same processors. They are \
measured in turn, row by row; those that wait are stopped (SIGSTOP). `16 x 4` is 16 connections \
with 4 requests outstanding on each: of pulls, with four cursors, which go through a queue each. \
Messages with TAGS, KEYS and UNIQ_KEY, pulled by cursors over four queues; the echo server has as many \
bytes for each pull, always the same. The load generator sums all bytes of the messages that it pulls. \
CPU is the server's.";

/// What `cargo xtask bench servers` takes.
#[derive(Debug, Args)]
pub struct ServersArguments {
    /// The servers, measured in turn.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "echo,ours,java"
    )]
    servers: Vec<Kind>,
    /// When our broker and Java's acknowledge a send; the echo server keeps nothing.
    #[arg(long, value_enum, default_value = "async")]
    flush: Flush,
    /// Body lengths in bytes.
    #[arg(long, value_delimiter = ',', default_value = "1024")]
    bodies: Vec<usize>,
    /// Milliseconds measured, after a tenth of it to warm up.
    #[arg(long, default_value_t = 2000)]
    millis: u64,
    /// Seconds of load before the first measurement, so that a JVM has compiled its code.
    #[arg(long, default_value_t = 15)]
    warm_up_seconds: u64,
    /// A line more in our broker's configuration, to see what a key is worth.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Generator threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[command(flatten)]
    common: Common,
}

impl ServersArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// One row of the table.
#[derive(Debug, Clone)]
struct Row {
    name: String,
    connections: usize,
    window: usize,
    work: Work,
    body_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Send,
    Batch,
    Pull,
}

fn rows(arguments: &ServersArguments) -> Vec<Row> {
    const SENDS: &[(usize, usize)] = &[(1, 1), (1, 64), (16, 1), (64, 1), (64, 16)];
    const BATCHES: &[(usize, usize)] = &[(4, 4)];
    const PULLS: &[(usize, usize)] = &[(1, 1), (4, 1), (16, 1), (1, 4), (4, 4), (16, 4)];
    let mut rows = Vec::new();
    for body_len in &arguments.bodies {
        for (work, name, shapes) in [
            (Work::Send, "send", SENDS),
            (Work::Batch, "send batches of 32", BATCHES),
            (Work::Pull, "pull of 32", PULLS),
        ] {
            for (connections, window) in shapes {
                rows.push(Row {
                    name: format!("{name}, {body_len} B, {connections} x {window}"),
                    connections: *connections,
                    window: *window,
                    work,
                    body_len: *body_len,
                });
            }
        }
    }
    rows.retain(|row| arguments.common.wants(&row.name));
    rows
}

/// Runs the bench.
pub(super) fn run(arguments: &ServersArguments) -> Result<()> {
    let common = &arguments.common;
    let duration = Duration::from_millis(common.choose(arguments.millis, 200));
    let warm_up = Duration::from_millis(common.choose(arguments.warm_up_seconds * 1000, 300));
    let mut report = Report::new("servers", "Servers", common);
    if arguments.servers.contains(&Kind::Java) {
        report.record("Java", java::version()?);
    }
    let mut running = Vec::new();
    for kind in &arguments.servers {
        eprintln!("starting {}", kind.name());
        let (flush, base) = (arguments.flush, common.base());
        let server = Measured::start_with(*kind, flush, &base, &arguments.settings)
            .with_context(|| kind.name())?;
        warm(&server, warm_up)?;
        server.pause()?;
        running.push(server);
    }
    let mut table = Table::new("Sends and pulls", &["work", "server"]);
    let rows = rows(arguments);
    for row in &rows {
        eprintln!("{}", row.name);
        for _ in 0..common.rounds() {
            for server in &running {
                if row.work != Work::Pull && server.kind != Kind::Echo {
                    let millis = duration.as_millis() as usize;
                    memory::bring_back(&common.base(), WRITTEN_PER_SECOND_MAX / 1000 * millis)?;
                }
                server.resume()?;
                let (outcome, cpu) = measure(server, row, duration, arguments.threads)
                    .with_context(|| format!("{} against {}", row.name, server.kind.name()))?;
                server.pause()?;
                // Written pages of one server must not be written out in the next one's time.
                rustix::fs::sync();
                table::add(&mut table, &[&row.name, server.kind.name()], &outcome, cpu);
            }
        }
        table::add_ratios(&mut table, &row.name);
    }
    let mut processes = Table::new("Processes", &["server"]);
    for server in &running {
        server.resume()?;
        table::add_process(&mut processes, server)?;
    }
    report.text(ABOUT);
    report.text(arguments.flush.about());
    report.plot(table::rate_plot(&table));
    report.plot(table::cpu_plot(&table));
    report.table(table);
    report.table(processes);
    report.finish(common)
}

/// Sends and pulls for a time, and leaves messages to pull in every queue.
fn warm(server: &Measured, time: Duration) -> Result<()> {
    for (connections, window) in [(16, 4), (1, 64)] {
        let row = Row {
            name: String::new(),
            connections,
            window,
            work: Work::Send,
            body_len: 1024,
        };
        measure(server, &row, time / 3, 1)?;
    }
    if server.kind != Kind::Echo {
        let row = Row {
            name: String::new(),
            connections: 4,
            window: 1,
            work: Work::Pull,
            body_len: 1024,
        };
        measure(server, &row, time / 3, 1)?;
    }
    Ok(())
}

/// What a load came to, and the server's processor time meanwhile.
fn measure(
    server: &Measured,
    row: &Row,
    duration: Duration,
    threads: usize,
) -> Result<(Outcome, Duration)> {
    let topic = format!("{TOPIC}{}", row.body_len);
    let kind = match row.work {
        Work::Send => LoadKind::Send(Template::send(&topic, row.body_len)),
        Work::Batch => LoadKind::Send(Template::batch(&topic, row.body_len, BATCH_COUNT)),
        Work::Pull => LoadKind::Pull {
            template: Template::pull(&topic, "bench_group", PULL_COUNT),
            ends: match server.kind {
                // Its queues have no end.
                Kind::Echo => vec![u64::MAX; usize::from(QUEUES)],
                Kind::Ours | Kind::Java => queue_ends(server, &topic)?,
            },
        },
    };
    let load = Load {
        address: server.address,
        connections: row.connections,
        window: row.window,
        kind,
        warm_up: duration / 10,
        duration,
        threads,
    };
    let (mut before, mut after) = (Ok(Default::default()), Ok(Default::default()));
    let outcome = load::run(&load, || before = server.usage(), || after = server.usage())?;
    let cpu = after?.cpu.saturating_sub(before?.cpu);
    Ok((outcome, cpu))
}

/// The maximum offsets of the topic's queues.
pub(super) fn queue_ends(server: &Measured, topic: &str) -> Result<Vec<u64>> {
    let address = server.address.to_string();
    let mut connection = client::Connection::connect(&address, Duration::from_secs(5))?;
    (0..i32::from(QUEUES))
        .map(|queue_id| {
            let header = GetMaxOffsetRequestHeader {
                topic,
                queue_id,
                committed: true,
            };
            let request = Command::request(RequestCode::GET_MAX_OFFSET).with_header(&header);
            let answer = connection.call(request)?;
            let found: OffsetResponseHeader = answer.header()?;
            Ok(found.offset.try_into()?)
        })
        .collect()
}

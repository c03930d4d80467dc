//! `cargo xtask bench`: whole runs, each server a process of its own, in turn on one machine.

mod echo;
mod frames;
mod load;
mod report;
mod servers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use remoting::header::{GetMaxOffsetRequestHeader, OffsetResponseHeader};
use remoting::{Command, RequestCode};

use frames::Template;
use load::{Load, LoadKind, QUEUES};
use report::{Cell, Report};
use servers::{Kind, Measured};

/// The topic of the measured messages.
const TOPIC: &str = "BenchTopic";
const PULL_COUNT: usize = 32;
const BATCH_COUNT: usize = 32;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Sends and pulls against an echo server, our broker and Java's, in turn.
    Servers(ServersArguments),
    /// The echo server alone, until it is killed.
    Echo {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
    },
}

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
    /// Body lengths in bytes.
    #[arg(long, value_delimiter = ',', default_value = "1024")]
    bodies: Vec<usize>,
    /// How often each row is measured for each server; the medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds measured, after a tenth of it to warm up.
    #[arg(long, default_value_t = 2000)]
    millis: u64,
    /// Seconds of load before the first measurement, so that a JVM has compiled its code.
    #[arg(long, default_value_t = 15)]
    warm_up_seconds: u64,
    /// Generator threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Runs only the rows whose name contains this text.
    #[arg(long)]
    only: Option<String>,
    /// One short round: shows that everything works, measures nothing well.
    #[arg(long)]
    quick: bool,
    /// Where the servers keep their stores; a temporary directory by default.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs a bench.
pub fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Echo { listen } => echo::serve(*listen),
        BenchCommand::Servers(arguments) => servers(arguments),
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
    const PULLS: &[(usize, usize)] = &[(1, 1), (4, 1), (16, 1)];
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
    rows.retain(|row| {
        arguments
            .only
            .as_ref()
            .is_none_or(|text| row.name.contains(text))
    });
    rows
}

fn servers(arguments: &ServersArguments) -> Result<()> {
    let quick = |value, short| if arguments.quick { short } else { value };
    let rounds = quick(arguments.rounds as u64, 1) as usize;
    let duration = Duration::from_millis(quick(arguments.millis, 300));
    let warm_up = Duration::from_secs(quick(arguments.warm_up_seconds, 1));
    let base = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut running = Vec::new();
    for kind in &arguments.servers {
        eprintln!("starting {}", kind.name());
        let server = Measured::start(*kind, &base).with_context(|| kind.name())?;
        warm(&server, warm_up)?;
        server.pause()?;
        running.push(server);
    }
    let mut report = Report::new(&running);
    for row in rows(arguments) {
        eprintln!("{}", row.name);
        for _ in 0..rounds {
            for server in &running {
                if server.kind == Kind::Echo && row.work == Work::Pull {
                    continue;
                }
                server.resume()?;
                let cell = measure(server, &row, duration, arguments.threads)
                    .with_context(|| format!("{} against {}", row.name, server.kind.name()))?;
                server.pause()?;
                // Written pages of one server must not be written out in the next one's time.
                rustix::fs::sync();
                report.add(&row.name, server.kind, cell);
            }
        }
    }
    for server in &running {
        server.resume()?;
    }
    report.finish(&running)?;
    print!("{report}");
    Ok(())
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

fn measure(server: &Measured, row: &Row, duration: Duration, threads: usize) -> Result<Cell> {
    let topic = format!("{TOPIC}{}", row.body_len);
    let kind = match row.work {
        Work::Send => LoadKind::Send(Template::send(&topic, row.body_len)),
        Work::Batch => LoadKind::Send(Template::batch(&topic, row.body_len, BATCH_COUNT)),
        Work::Pull => LoadKind::Pull {
            template: Template::pull(&topic, "bench_group", PULL_COUNT),
            ends: queue_ends(server, &topic)?,
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
    Ok(Cell::new(&outcome, cpu))
}

/// The maximum offsets of the topic's queues.
fn queue_ends(server: &Measured, topic: &str) -> Result<Vec<u64>> {
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

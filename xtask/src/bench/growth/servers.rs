//! Our broker with many connections, and with many consumers.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::frames::Template;
use super::super::load::{self, Load, LoadKind};
use super::super::report::{Column, Common, Plot, Report, Table};
use super::super::servers::measured::{Flush, Kind, Measured};
use super::super::servers::{TOPIC, queue_ends};

const PER_CONNECTION: Column = Column::median("bytes per connection");
const P99: Column = Column::spread("send p99 us");
const CPU: Column = Column::spread("CPU us per message");
const RATE: Column = Column::spread("messages/s");
const P99_GROWTH: Column = Column::spread("send p99, over the first");
const CPU_GROWTH: Column = Column::spread("CPU, over the first");
const RATE_GROWTH: Column = Column::spread("messages/s, over the first");
const ACTIVE: usize = 16;

/// Idle connections beside those that send.
pub(super) fn connections(common: &Common, report: &mut Report) -> Result<()> {
    raise_file_limit()?;
    let server = Measured::start(Kind::Ours, Flush::Async, &common.base())?;
    let duration = Duration::from_millis(common.choose(1000, 100));
    let sizes: &[usize] = common.choose(&[10, 100, 1000, 10_000], &[10, 100]);
    let mut table = Table::new("Connections", &["idle connections"]);
    // The first sends bring memory that is no connection's.
    send(&server, duration)?;
    for size in sizes {
        eprintln!("{size} connections");
        for _ in 0..common.rounds() {
            let before = server.usage()?.anonymous_bytes;
            let idle = (0..*size).map(|_| TcpStream::connect(server.address));
            let idle: Vec<TcpStream> = idle.collect::<Result<_, _>>().context("connect")?;
            let (_, p99, cpu) = send(&server, duration)?;
            let grown = server.usage()?.anonymous_bytes.saturating_sub(before);
            let label = [&*size.to_string()];
            table.add(&label, PER_CONNECTION, grown as f64 / *size as f64);
            table.add(&label, P99, p99);
            table.add(&label, CPU, cpu);
            drop(idle);
        }
    }
    compare(&mut table, sizes, &[(P99_GROWTH, P99), (CPU_GROWTH, CPU)]);
    report.table(table);
    Ok(())
}

/// Consumers that pull by 32, each on a connection of its own.
pub(super) fn consumers(common: &Common, report: &mut Report) -> Result<()> {
    raise_file_limit()?;
    let server = Measured::start(Kind::Ours, Flush::Async, &common.base())?;
    let duration = Duration::from_millis(common.choose(1000, 100));
    send(&server, duration)?;
    let sizes: &[usize] = common.choose(&[1, 10, 100, 1000], &[1, 10]);
    let mut table = Table::new("Consumers", &["consumers"]);
    for _ in 0..common.rounds() {
        for size in sizes {
            let kind = LoadKind::Pull {
                template: Template::pull(TOPIC, "bench_group", 32),
                ends: queue_ends(&server, TOPIC)?,
            };
            let (rate, _, cpu) = measure(&server, kind, *size, duration)?;
            let label = [&*size.to_string()];
            table.add(&label, RATE, rate);
            table.add(&label, CPU, cpu);
        }
    }
    compare(&mut table, sizes, &[(RATE_GROWTH, RATE), (CPU_GROWTH, CPU)]);
    report.plot(Plot::bars(
        "consumers",
        "Pulls of 32, by consumers",
        &table,
        RATE,
        0,
    ));
    report.table(table);
    Ok(())
}

/// Adds the ratios of figures to those of the first row.
fn compare(table: &mut Table, sizes: &[usize], figures: &[(Column, Column)]) {
    let labels: Vec<_> = sizes.iter().map(usize::to_string).collect();
    for (ratio, of) in figures {
        for label in &labels {
            table.ratio(&[label], *ratio, *of, &[&labels[0]]);
        }
    }
}

fn send(server: &Measured, duration: Duration) -> Result<(f64, f64, f64)> {
    let kind = LoadKind::Send(Template::send(TOPIC, 1024));
    measure(server, kind, ACTIVE, duration)
}

/// Messages a second, the 99th percentile in microseconds, and the server's microseconds of CPU for
/// each message.
fn measure(
    server: &Measured,
    kind: LoadKind,
    connections: usize,
    duration: Duration,
) -> Result<(f64, f64, f64)> {
    let load = Load {
        address: server.address,
        connections,
        window: 1,
        kind,
        warm_up: duration / 10,
        duration,
        threads: 1,
    };
    let (mut before, mut after) = (Ok(Default::default()), Ok(Default::default()));
    let outcome = load::run(&load, || before = server.usage(), || after = server.usage())?;
    let cpu = after?.cpu.saturating_sub(before?.cpu).as_secs_f64() * 1e6;
    let p99 = outcome.latency_ns.value_at_quantile(0.99) as f64 / 1e3;
    Ok((
        outcome.messages_per_second(),
        p99,
        cpu / outcome.messages as f64,
    ))
}

/// Lets this process, and the broker that it starts, have as many files as may be.
fn raise_file_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).context("raise the limit of open files")
}

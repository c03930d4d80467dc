//! The columns of the servers' tables.

use std::time::Duration;

use anyhow::Result;

use super::super::load::Outcome;
use super::super::report::{Column, Plot, Table};
use super::measured::{Kind, Measured};

const RATE: Column = Column::spread("messages/s");
const REQUESTS: Column = Column::median("requests/s");
const P50: Column = Column::median("p50 us");
const P99: Column = Column::median("p99 us");
const P999: Column = Column::median("p99.9 us");
const CPU: Column = Column::median("CPU s per million");
const MESSAGES: Column = Column::median("messages");
const OVER_ECHO: Column = Column::spread("requests, over echo");
const OVER_JAVA: Column = Column::spread("messages, over Java");
const CPU_OVER_JAVA: Column = Column::spread("CPU, over Java");

/// Adds one measurement of one server.
pub(super) fn add(table: &mut Table, labels: &[&str], outcome: &Outcome, cpu: Duration) {
    let seconds = outcome.elapsed.as_secs_f64();
    table.add(labels, RATE, outcome.messages_per_second());
    table.add(labels, REQUESTS, outcome.requests as f64 / seconds);
    for (column, quantile) in [(P50, 0.5), (P99, 0.99), (P999, 0.999)] {
        let nanos = outcome.latency_ns.value_at_quantile(quantile);
        table.add(labels, column, nanos as f64 / 1e3);
    }
    let millions = outcome.messages as f64 / 1e6;
    table.add(labels, CPU, cpu.as_secs_f64() / millions);
    table.add(labels, MESSAGES, outcome.messages as f64);
}

/// Adds ours against the others' of the same work.
pub(super) fn add_ratios(table: &mut Table, work: &str) {
    let ours = [work, Kind::Ours.name()];
    let echo = [work, Kind::Echo.name()];
    let java = [work, Kind::Java.name()];
    table.ratio(&ours, OVER_ECHO, REQUESTS, &echo);
    table.ratio(&ours, OVER_JAVA, RATE, &java);
    table.ratio(&ours, CPU_OVER_JAVA, CPU, &java);
}

/// Adds how a process began and what memory it takes now.
pub(super) fn add_process(table: &mut Table, server: &Measured) -> Result<()> {
    let labels = [server.kind.name()];
    let loaded = server.usage()?;
    for (name, value) in [
        (
            "start to first accepted send, ms",
            server.start_up.as_secs_f64() * 1e3,
        ),
        ("idle RSS, MB", server.idle.resident_bytes as f64 / 1e6),
        (
            "idle anonymous, MB",
            server.idle.anonymous_bytes as f64 / 1e6,
        ),
        ("loaded RSS, MB", loaded.resident_bytes as f64 / 1e6),
        ("loaded anonymous, MB", loaded.anonymous_bytes as f64 / 1e6),
    ] {
        table.add(&labels, Column::median(name), value);
    }
    Ok(())
}

/// Messages a second of all rows.
pub(super) fn rate_plot(table: &Table) -> Plot {
    Plot::bars("rates", "Messages a second", table, RATE, 0).log()
}

/// Processor time of all rows.
pub(super) fn cpu_plot(table: &Table) -> Plot {
    Plot::bars(
        "cpu",
        "Processor seconds of the server for a million messages",
        table,
        CPU,
        0,
    )
    .log()
}

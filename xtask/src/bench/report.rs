//! The table: medians of the rounds, and ratios of what was measured in turn.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::load::Outcome;
use super::servers::{Kind, Measured, Usage};

/// One measurement of one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    messages_per_second: f64,
    requests_per_second: f64,
    cpu_seconds_per_million: f64,
    p50: Duration,
    p99: Duration,
    p999: Duration,
}

impl Cell {
    pub(super) fn new(outcome: &Outcome, cpu: Duration) -> Self {
        let at = |quantile| Duration::from_nanos(outcome.latency_ns.value_at_quantile(quantile));
        let millions = outcome.messages as f64 / 1e6;
        Self {
            messages_per_second: outcome.messages_per_second(),
            requests_per_second: outcome.requests as f64 / outcome.elapsed.as_secs_f64(),
            cpu_seconds_per_million: cpu.as_secs_f64() / millions,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

/// All cells of a run, in the order of the rows.
#[derive(Debug)]
pub(super) struct Report {
    kinds: Vec<Kind>,
    rows: Vec<String>,
    cells: BTreeMap<(usize, &'static str), Vec<Cell>>,
    machine: String,
    servers: Vec<ServerRow>,
}

#[derive(Debug)]
struct ServerRow {
    name: &'static str,
    start_up: Duration,
    idle: Usage,
    loaded: Usage,
}

impl Report {
    pub(super) fn new(servers: &[Measured]) -> Self {
        Self {
            kinds: servers.iter().map(|server| server.kind).collect(),
            rows: Vec::new(),
            cells: BTreeMap::new(),
            machine: machine(),
            servers: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, row: &str, kind: Kind, cell: Cell) {
        let index = self
            .rows
            .iter()
            .position(|name| name == row)
            .unwrap_or_else(|| {
                self.rows.push(row.to_owned());
                self.rows.len() - 1
            });
        self.cells
            .entry((index, kind.name()))
            .or_default()
            .push(cell);
    }

    pub(super) fn finish(&mut self, servers: &[Measured]) -> Result<()> {
        for server in servers {
            self.servers.push(ServerRow {
                name: server.kind.name(),
                start_up: server.start_up,
                idle: server.idle,
                loaded: server.usage()?,
            });
        }
        Ok(())
    }

    fn cells(&self, row: usize, kind: Kind) -> &[Cell] {
        self.cells
            .get(&(row, kind.name()))
            .map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds of `ours / other`, taken round by round.
    fn ratio(&self, row: usize, other: Kind, of: impl Fn(&Cell) -> f64) -> Option<f64> {
        let pairs = self
            .cells(row, Kind::Ours)
            .iter()
            .zip(self.cells(row, other));
        median(pairs.map(|(ours, other)| of(ours) / of(other)).collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "| work | server | messages/s (min-max) | requests/s | p50 us | p99 us | p99.9 us \
             | CPU s per million | ours/echo requests | ours/java messages | ours/java CPU |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for (row, name) in self.rows.iter().enumerate() {
            for kind in &self.kinds {
                self.write_row(f, row, name, *kind)?;
            }
        }
        writeln!(
            f,
            "\n| server | start to first accepted send | idle RSS / anonymous | loaded |"
        )?;
        writeln!(f, "|---|---|---|---|")?;
        for server in &self.servers {
            writeln!(
                f,
                "| {} | {:.1} ms | {} / {} MB | {} / {} MB |",
                server.name,
                server.start_up.as_secs_f64() * 1e3,
                server.idle.resident_bytes / 1_000_000,
                server.idle.anonymous_bytes / 1_000_000,
                server.loaded.resident_bytes / 1_000_000,
                server.loaded.anonymous_bytes / 1_000_000,
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn write_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        row: usize,
        name: &str,
        kind: Kind,
    ) -> fmt::Result {
        let cells = self.cells(row, kind);
        let of = |value: fn(&Cell) -> f64| median(cells.iter().map(value).collect());
        let Some(rate) = of(|cell| cell.messages_per_second) else {
            return Ok(());
        };
        let rates = || cells.iter().map(|cell| cell.messages_per_second);
        let micros = |value: fn(&Cell) -> Duration| {
            median(
                cells
                    .iter()
                    .map(|cell| value(cell).as_secs_f64() * 1e6)
                    .collect(),
            )
            .map_or_else(String::new, |value| format!("{value:.0}"))
        };
        let only_ours = |ratio: Option<f64>| match ratio {
            Some(ratio) if kind == Kind::Ours => format!("{ratio:.2}"),
            _ => String::new(),
        };
        writeln!(
            f,
            "| {name} | {} | {rate:.0} ({:.0}-{:.0}) | {:.0} | {} | {} | {} | {:.2} | {} | {} | {} |",
            kind.name(),
            rates().fold(f64::INFINITY, f64::min),
            rates().fold(0.0, f64::max),
            of(|cell| cell.requests_per_second).unwrap_or_default(),
            micros(|cell| cell.p50),
            micros(|cell| cell.p99),
            micros(|cell| cell.p999),
            of(|cell| cell.cpu_seconds_per_million).unwrap_or_default(),
            only_ours(self.ratio(row, Kind::Echo, |cell| cell.requests_per_second)),
            only_ours(self.ratio(row, Kind::Java, |cell| cell.messages_per_second)),
            only_ours(self.ratio(row, Kind::Java, |cell| cell.cpu_seconds_per_million)),
        )
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// What the figures were measured on.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let git = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    let commit = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{} x{}, kernel {}, commit {}",
        model.map_or("unknown processor", |model| model
            .trim_start_matches([' ', '\t', ':'])),
        std::thread::available_parallelism().map_or(0, usize::from),
        read("/proc/sys/kernel/osrelease").trim(),
        commit.unwrap_or_default(),
    )
}

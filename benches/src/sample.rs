//! What one measurement of an engine in its own process came to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Times of single operations, in nanoseconds: three digits, up to a minute.
pub type Latencies = Histogram<u64>;

/// An empty histogram.
pub fn latencies() -> Result<Latencies> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// One measurement.
#[derive(Debug)]
pub struct Sample {
    /// Operations: messages, or syncs.
    pub count: u64,
    /// Bytes written or read.
    pub bytes: u64,
    /// All the time that counts.
    pub elapsed: Duration,
    /// The part of it in which the callers were at work, where that is another one.
    pub callers: Option<Duration>,
    /// Of each operation as its caller sees it.
    pub latency_ns: Latencies,
    /// What the process used meanwhile.
    pub usage: Usage,
    /// What the readers summed, so that nothing is left out.
    pub sum: Option<u64>,
}

impl Sample {
    /// As the line that a program of single measurements prints.
    pub fn to_json(&self) -> Value {
        let at = |quantile| self.latency_ns.value_at_quantile(quantile);
        json!({
            "count": self.count,
            "bytes": self.bytes,
            "seconds": self.elapsed.as_secs_f64(),
            "callers_seconds": self.callers.map(|time| time.as_secs_f64()),
            "p50_ns": at(0.5),
            "p99_ns": at(0.99),
            "p999_ns": at(0.999),
            "max_ns": self.latency_ns.max(),
            "cpu_seconds": self.usage.cpu.as_secs_f64(),
            "minor_faults": self.usage.minor_faults,
            "sum": self.sum,
        })
    }
}

/// What the process has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Of all threads.
    pub cpu: Duration,
    /// Pages mapped without reading them.
    pub minor_faults: u64,
}

impl Usage {
    /// Since the process began.
    pub fn now() -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let (_, fields) = stat.rsplit_once(") ").context("no fields in stat")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let field = |index: usize| -> Result<u64> {
            let text = fields.get(index).context("a short stat")?;
            Ok(text.parse()?)
        };
        // Fields 10, 14 and 15 of proc(5), counted from the third; a tick is 10 ms.
        Ok(Self {
            cpu: Duration::from_millis((field(11)? + field(12)?) * 10),
            minor_faults: field(7)?,
        })
    }

    /// What was used between two looks.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            minor_faults: self.minor_faults.saturating_sub(before.minor_faults),
        }
    }
}

/// A clock that is read once for each operation: the end of one is the beginning of the next.
#[derive(Debug)]
pub struct Laps {
    last: Instant,
    /// Of each operation.
    pub latency_ns: Latencies,
}

impl Laps {
    /// Begins now.
    pub fn start() -> Result<Self> {
        let latency_ns = latencies()?;
        Ok(Self {
            last: Instant::now(),
            latency_ns,
        })
    }

    /// Counts an operation that ends now; returns when that is.
    #[inline]
    pub fn lap(&mut self) -> Instant {
        let now = Instant::now();
        let nanos = now.duration_since(self.last).as_nanos() as u64;
        self.latency_ns.saturating_record(nanos);
        self.last = now;
        now
    }
}

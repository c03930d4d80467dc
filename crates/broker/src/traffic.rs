//! Counts of what went in and out, and rates over the last ten seconds, minute and ten minutes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How often a sample is taken, in seconds.
pub const SAMPLE_SECONDS: u64 = 10;
/// Samples kept: eleven minutes of them.
const SAMPLE_COUNT: usize = 66;

/// The counts of a broker since its start.
#[derive(Debug)]
pub struct Traffic {
    started_ms: i64,
    /// Messages stored. These are plain counters: nothing else hangs on them.
    put: AtomicU64,
    put_bytes: AtomicU64,
    put_failed: AtomicU64,
    got: AtomicU64,
    got_bytes: AtomicU64,
    got_nothing: AtomicU64,
    samples: Mutex<VecDeque<Sample>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    at_ms: i64,
    counts: Counts,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages stored.
    pub put: u64,
    /// Bytes of their bodies.
    pub put_bytes: u64,
    /// Messages that could not be stored.
    pub put_failed: u64,
    /// Messages given to consumers.
    pub got: u64,
    /// Bytes of their records.
    pub got_bytes: u64,
    /// Pulls that found nothing.
    pub got_nothing: u64,
}

impl Traffic {
    /// No traffic yet, at `now_ms`.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        let first = Sample {
            at_ms: now_ms,
            counts: Counts::default(),
        };
        Self {
            started_ms: now_ms,
            put: AtomicU64::new(0),
            put_bytes: AtomicU64::new(0),
            put_failed: AtomicU64::new(0),
            got: AtomicU64::new(0),
            got_bytes: AtomicU64::new(0),
            got_nothing: AtomicU64::new(0),
            samples: Mutex::new(VecDeque::from([first])),
        }
    }

    /// When counting began, ms.
    #[must_use]
    pub fn started_ms(&self) -> i64 {
        self.started_ms
    }

    /// Messages were stored, with bodies of so many bytes.
    pub fn stored(&self, count: u64, bytes: u64) {
        self.put.fetch_add(count, Ordering::Relaxed);
        self.put_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A message could not be stored.
    pub fn refused(&self) {
        self.put_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A pull was answered with messages; none of them counts as one that found nothing.
    pub fn pulled(&self, count: u64, bytes: u64) {
        if count == 0 {
            self.got_nothing.fetch_add(1, Ordering::Relaxed);
        } else {
            self.got.fetch_add(count, Ordering::Relaxed);
            self.got_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            put: load(&self.put),
            put_bytes: load(&self.put_bytes),
            put_failed: load(&self.put_failed),
            got: load(&self.got),
            got_bytes: load(&self.got_bytes),
            got_nothing: load(&self.got_nothing),
        }
    }

    /// Takes a sample; to be called every [`SAMPLE_SECONDS`].
    pub fn sample(&self, now_ms: i64) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLE_COUNT {
            samples.pop_front();
        }
        samples.push_back(Sample {
            at_ms: now_ms,
            counts: self.counts(),
        });
    }

    /// Per second over 10 s, 1 min and 10 min, as RocketMQ prints it: three numbers.
    #[must_use]
    pub fn rates(&self, now_ms: i64, of: fn(&Counts) -> u64) -> String {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of(&self.counts());
        let rate = |seconds: i64| {
            let from = now_ms - seconds * 1000;
            let sample = samples.iter().rev().find(|sample| sample.at_ms <= from);
            let sample = sample.or(samples.front()).copied().unwrap_or_default();
            let elapsed_ms = (now_ms - sample.at_ms).max(1);
            (count - of(&sample.counts)) as f64 * 1000.0 / elapsed_ms as f64
        };
        format!("{:.2} {:.2} {:.2}", rate(10), rate(60), rate(600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_look_back_as_far_as_they_say() {
        let traffic = Traffic::new(0);
        traffic.stored(100, 1000);
        traffic.sample(10_000);
        traffic.stored(50, 500);
        assert_eq!(traffic.rates(20_000, |counts| counts.put), "5.00 7.50 7.50");
        assert_eq!(traffic.counts().put_bytes, 1500);
    }
}

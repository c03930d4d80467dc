//! Where the log takes its time from.
//!
//! Time comes in by parameter, so that a simulation can own it. Nothing in this crate reads
//! a clock of the operating system except [`SystemClock`].

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The two clocks that a log needs.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall-clock time in milliseconds since 1970: what records are stamped with.
    /// It may run backwards; the log does not let store times follow it there.
    fn wall_ms(&self) -> i64;

    /// Time since some fixed point, never running backwards: what intervals and deadlines are
    /// measured with.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system.
#[derive(Clone, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        // A clock before 1970 is a clock that was never set; 0 is as good as any time then.
        let elapsed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

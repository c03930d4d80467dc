//! How a life goes and ends, chosen at random.

use std::time::Duration;

use mmap_core::Random;
use mmap_core::failpoint::{CHANGE, CHANGES, MEMORY, STORES};

/// Longest load of a life that waits for a failpoint.
const FAILPOINT_LOAD: Duration = Duration::from_millis(60);

/// What becomes of a broker that is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Killed while it starts, after this time.
    Starting(Duration),
    /// Killed when it was checked, before anybody sends.
    Idle,
    /// Killed under load, after this time.
    Loaded(Duration),
    /// Asked to stop under load, after this time, and killed while it stops, after that.
    Stopping(Duration, Duration),
    /// Asked to stop under load, after this time, and left to it.
    Stopped(Duration),
    /// Started and stopped twice without load: the second time changes nothing.
    Unchanged,
    /// Killed by a failpoint, or under load after some time, or (with `stop`) left to stop.
    Failpoint {
        /// The entry of `FOLIOMQ_FAILPOINTS`.
        entry: String,
        /// Whether it is asked to stop instead of being killed after the load.
        stop: bool,
    },
}

impl Fate {
    /// A death at a random time.
    pub fn at_random_time(random: &mut Random) -> Self {
        let load = Duration::from_micros(500 + random.below(40_000));
        match random.below(100) {
            0..=21 => Self::Starting(Duration::from_micros(random.below(16_000))),
            22..=29 => Self::Idle,
            30..=79 => Self::Loaded(load),
            80..=91 => Self::Stopping(load, Duration::from_micros(random.below(12_000))),
            92..=96 => Self::Stopped(load),
            _ => Self::Unchanged,
        }
    }

    /// A death before a file operation, or a store through a mapping.
    pub fn at_failpoint(random: &mut Random) -> Self {
        let (entry, stop) = match random.below(100) {
            0..=2 => return Self::Unchanged,
            3..=32 => (format!("{CHANGE}=kill@{}", 1 + random.below(48)), false),
            33..=44 => {
                let nth = random.small_first(256);
                (format!("foliomq.serving!{CHANGE}=kill@{nth}"), false)
            }
            45..=60 => {
                let part = random.pick(&PARTS);
                let nth = random.small_first(32);
                (format!("foliomq.serving!{CHANGE}:{part}=kill@{nth}"), false)
            }
            61..=72 => {
                let nth = 1 + random.below(24);
                (format!("foliomq.stopping!{CHANGE}=kill@{nth}"), true)
            }
            73..=85 => {
                let name = random.pick(STORES);
                let name = if random.chance(50) { MEMORY } else { name };
                let nth = random.small_first(16_384);
                (format!("{name}=kill@{nth}"), random.chance(10))
            }
            _ => {
                let name = random.pick(CHANGES);
                let nth = random.small_first(32);
                (format!("{name}=kill@{nth}"), random.chance(30))
            }
        };
        Self::Failpoint { entry, stop }
    }

    /// The load that it lives under.
    pub fn load(&self) -> Option<Duration> {
        match self {
            Self::Starting(_) | Self::Idle | Self::Unchanged => None,
            Self::Loaded(load) | Self::Stopping(load, _) | Self::Stopped(load) => Some(*load),
            Self::Failpoint { .. } => Some(FAILPOINT_LOAD),
        }
    }
}

/// Parts of the paths of what is struck.
const PARTS: [&str; 6] = [
    "/commitlog/",
    "/consumequeue/",
    "/index/",
    "/config/",
    "/checkpoint",
    "/foliomq/",
];

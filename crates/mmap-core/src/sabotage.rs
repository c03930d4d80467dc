//! Lies, planted one at a time, that a fault suite must catch: a suite that cannot fail proves
//! nothing.
//!
//! Each place that a lie concerns asks [`is_planted`]. Without the feature `failpoints` the answer
//! is a constant `false` and the place compiles to nothing. With it, a test plants a lie for as
//! long as it holds a [`Planted`]; a process is told by its environment, with
//! `FOLIOMQ_SABOTAGE=skip-sync`. Like failpoints, the lie is global to the process.

use std::fmt;
use std::str::FromStr;

/// A promise that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Lie {
    /// In sync mode a put is acknowledged before its bytes are synced.
    AckBeforeSync,
    /// A file of a segment queue counts as synced, and was not.
    SkipSync,
    /// A directory of segment files counts as synced, and was not.
    SkipDirSync,
    /// The flushed watermark moves though the sync has failed, and nobody is told.
    WatermarkAfterFailedSync,
    /// Readers may see in sync mode, and after a failed sync, what is not synced.
    VisibleBeforeFlushed,
    /// The checkpoint moves before the log, the queues and the index are synced.
    CheckpointTooEarly,
    /// What recovery cuts off the log stays in the file.
    TailNotZeroed,
    /// What recovery cuts off the log is not kept aside.
    SkipQuarantine,
    /// Recovery believes a record's body without its CRC.
    CrcUnchecked,
    /// Recovery puts no entry into the index.
    IndexNotRebuilt,
    /// Recovery leaves a gap in a consume queue's entries as it is.
    GapNotRebuilt,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::AckBeforeSync,
        Self::SkipSync,
        Self::SkipDirSync,
        Self::WatermarkAfterFailedSync,
        Self::VisibleBeforeFlushed,
        Self::CheckpointTooEarly,
        Self::TailNotZeroed,
        Self::SkipQuarantine,
        Self::CrcUnchecked,
        Self::IndexNotRebuilt,
        Self::GapNotRebuilt,
    ];

    /// Its name on command lines and in the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::SkipSync => "skip-sync",
            Self::SkipDirSync => "skip-dir-sync",
            Self::WatermarkAfterFailedSync => "watermark-after-failed-sync",
            Self::VisibleBeforeFlushed => "visible-before-flushed",
            Self::CheckpointTooEarly => "checkpoint-too-early",
            Self::TailNotZeroed => "tail-not-zeroed",
            Self::SkipQuarantine => "skip-quarantine",
            Self::CrcUnchecked => "crc-unchecked",
            Self::IndexNotRebuilt => "index-not-rebuilt",
            Self::GapNotRebuilt => "gap-not-rebuilt",
        }
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no lie has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLie {
    name: String,
}

impl fmt::Display for UnknownLie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no sabotage is called `{}`; there are: ", self.name)?;
        for (index, lie) in Lie::ALL.iter().enumerate() {
            write!(f, "{}{lie}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownLie {}

impl FromStr for Lie {
    type Err = UnknownLie;

    fn from_str(name: &str) -> Result<Self, UnknownLie> {
        let known = Self::ALL.into_iter().find(|lie| lie.name() == name);
        known.ok_or_else(|| UnknownLie {
            name: name.to_owned(),
        })
    }
}

/// Whether this lie is to be told: never, in a build without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn is_planted(_lie: Lie) -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub use planted::{ENVIRONMENT, Planted, from_environment, is_planted, plant};

#[cfg(feature = "failpoints")]
mod planted {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::{Lie, UnknownLie};

    /// The variable that plants a lie in a process.
    pub const ENVIRONMENT: &str = "FOLIOMQ_SABOTAGE";

    /// The place of the planted lie in [`Lie::ALL`], from 1; 0: none. Relaxed: it says nothing
    /// about other memory.
    static PLANTED: AtomicU8 = AtomicU8::new(0);
    static OF_ENVIRONMENT: OnceLock<Option<Lie>> = OnceLock::new();

    /// Whether this lie is to be told.
    ///
    /// # Panics
    /// If the environment names a lie that does not exist; see [`from_environment`].
    pub fn is_planted(lie: Lie) -> bool {
        PLANTED.load(Ordering::Relaxed) == number(lie)
            || *OF_ENVIRONMENT.get_or_init(|| match from_environment() {
                Ok(lie) => lie,
                Err(error) => panic!("{ENVIRONMENT}: {error}"),
            }) == Some(lie)
    }

    /// The lie that the environment plants.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn from_environment() -> Result<Option<Lie>, UnknownLie> {
        match std::env::var(ENVIRONMENT) {
            Ok(name) if !name.is_empty() => name.parse().map(Some),
            _ => Ok(None),
        }
    }

    /// Plants a lie in this process from now on, in the place of any other.
    pub fn plant(lie: Lie) -> Planted {
        PLANTED.store(number(lie), Ordering::Relaxed);
        Planted(())
    }

    /// Takes the lie back when it is dropped.
    #[derive(Debug)]
    #[must_use = "the lie is told as long as this lives"]
    pub struct Planted(());

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.store(0, Ordering::Relaxed);
        }
    }

    fn number(lie: Lie) -> u8 {
        lie as u8 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_all_lies_and_others_are_refused() {
        for lie in Lie::ALL {
            assert_eq!(lie.name().parse(), Ok(lie));
        }
        let refusal = "skip-synk".parse::<Lie>().unwrap_err().to_string();
        assert!(refusal.contains("`skip-synk`") && refusal.contains("skip-dir-sync"));
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn a_lie_is_told_while_it_is_planted() {
        assert!(!is_planted(Lie::SkipSync));
        let planted = plant(Lie::SkipSync);
        assert!(is_planted(Lie::SkipSync) && !is_planted(Lie::SkipDirSync));
        drop(planted);
        assert!(!is_planted(Lie::SkipSync));
    }
}

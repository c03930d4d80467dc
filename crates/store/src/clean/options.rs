//! When what is deleted: RocketMQ's settings, with their clamps.

use std::fmt;
use std::time::Duration;

/// Settings of the cleaner. Percentages are of the disk's bytes that a process without privileges
/// can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanOptions {
    /// How long a file of the log is kept after it was last written (`fileReservedTime`). Default:
    /// 72 hours.
    pub reserved: Duration,
    /// The hours of the day in which files that are older go (`deleteWhen`). Default: 4.
    pub delete_when: DeleteWhen,
    /// A disk used by more than this makes older files go at any hour (`diskMaxUsedSpaceRatio`).
    /// Default: 75 %.
    pub max_used_percent: u8,
    /// A disk used by more than this makes files go that are not old enough
    /// (`diskSpaceCleanForciblyRatio`). Default: 85 %.
    pub forced_percent: u8,
    /// A disk used by more than this takes no more messages (`diskSpaceWarningLevelRatio`).
    /// Default: 90 %.
    pub full_percent: u8,
    /// Whether a disk that fills up may cost files that are not old enough
    /// (`cleanFileForciblyEnable`). Default: yes.
    pub forced_enabled: bool,
    /// Files that one round deletes at most (`deleteFileBatchMax`); 0 counts as 1, as with
    /// RocketMQ. Default: 10.
    pub batch_max: usize,
    /// How long a round waits between two files (`deleteCommitLogFilesInterval`). Default: 100 ms.
    pub pause: Duration,
    /// How often a round is made (`cleanResourceInterval`). Default: 10 s.
    pub interval: Duration,
    /// When the first round is made. Default: 60 s after the start, as with RocketMQ.
    pub first_after: Duration,
    /// Bytes that the log may have; the oldest files go when it has more, whatever their age. Ours:
    /// RocketMQ has no such setting. Default: no bound.
    pub log_len_max: Option<u64>,
}

impl CleanOptions {
    /// RocketMQ's values.
    pub const DEFAULT: Self = Self {
        reserved: Duration::from_secs(72 * 3600),
        delete_when: DeleteWhen::at(4),
        max_used_percent: 75,
        forced_percent: 85,
        full_percent: 90,
        forced_enabled: true,
        batch_max: 10,
        pause: Duration::from_millis(100),
        interval: Duration::from_secs(10),
        first_after: Duration::from_secs(60),
        log_len_max: None,
    };

    /// `max_used_percent` within the bounds that RocketMQ sets (`getDiskMaxUsedSpaceRatio`).
    pub fn max_used_percent(&self) -> u8 {
        self.max_used_percent.clamp(10, 95)
    }

    /// `forced_percent` within the bounds that RocketMQ sets.
    pub fn forced_percent(&self) -> u8 {
        self.forced_percent.clamp(30, 85)
    }

    /// `full_percent` within the bounds that RocketMQ sets.
    pub fn full_percent(&self) -> u8 {
        self.full_percent.clamp(35, 90)
    }
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Hours of the day, local time; each lasts until the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DeleteWhen {
    /// Bit n: hour n.
    hours: u32,
}

/// A text that names no hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no list of hours: 00 to 23, several separated by `;`, such as 04;05")]
pub struct DeleteWhenError {
    /// The text.
    pub given: String,
}

impl DeleteWhen {
    /// One hour, of 0 to 23.
    pub const fn at(hour: u8) -> Self {
        assert!(hour < 24, "a day has the hours 0 to 23");
        Self { hours: 1 << hour }
    }

    /// Reads RocketMQ's form: `04`, or `04;05;23`.
    ///
    /// # Errors
    /// [`DeleteWhenError`] for what is no list of hours.
    pub fn parse(given: &str) -> Result<Self, DeleteWhenError> {
        let refused = || DeleteWhenError {
            given: given.to_owned(),
        };
        let mut hours = 0;
        for word in given.split(';').map(str::trim) {
            match word.parse::<u32>() {
                Ok(hour @ 0..24) => hours |= 1 << hour,
                Err(_) if word.is_empty() => {}
                _ => return Err(refused()),
            }
        }
        if hours == 0 {
            return Err(refused());
        }
        Ok(Self { hours })
    }

    /// Whether files go in this hour.
    pub fn contains(&self, hour: u8) -> bool {
        hour < 24 && self.hours & (1 << hour) != 0
    }
}

impl fmt::Display for DeleteWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours: Vec<_> = (0..24)
            .filter(|hour| self.contains(*hour))
            .map(|hour| format!("{hour:02}"))
            .collect();
        f.write_str(&hours.join(";"))
    }
}

impl fmt::Debug for DeleteWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeleteWhen({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_as_rocketmq_writes_them() {
        let when = DeleteWhen::parse("04; 5;23;").unwrap();
        assert_eq!(when.to_string(), "04;05;23");
        let in_them: Vec<u8> = (0..30).filter(|hour| when.contains(*hour)).collect();
        assert_eq!(in_them, [4, 5, 23]);
        for bad in ["", ";", "24", "-1", "4,5", "four"] {
            assert!(DeleteWhen::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percentages_are_clamped_as_in_java() {
        let options = CleanOptions {
            max_used_percent: 99,
            forced_percent: 99,
            full_percent: 99,
            ..CleanOptions::DEFAULT
        };
        let clamped = |options: &CleanOptions| {
            [
                options.max_used_percent(),
                options.forced_percent(),
                options.full_percent(),
            ]
        };
        assert_eq!(clamped(&options), [95, 85, 90]);
        let options = CleanOptions {
            max_used_percent: 1,
            forced_percent: 1,
            full_percent: 1,
            ..options
        };
        assert_eq!(clamped(&options), [10, 30, 35]);
    }
}

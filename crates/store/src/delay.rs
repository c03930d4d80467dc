//! RocketMQ's delay levels: `messageDelayLevel` and the due time of a message parked in
//! `SCHEDULE_TOPIC_XXXX`.

use std::time::Duration;

/// RocketMQ's default `messageDelayLevel`: eighteen levels, counted from 1.
pub const DELAY_LEVELS_DEFAULT: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";

/// Why a `messageDelayLevel` text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "delay level {position} is {text:?}: a number and one of s, m, h, d is needed, such as 30s"
)]
pub struct DelayLevelError {
    /// Which level, counted from 1.
    pub position: usize,
    /// Its text.
    pub text: String,
}

/// The table of delay levels; level 1 is the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayLevels(Vec<Duration>);

impl DelayLevels {
    /// Parses RocketMQ's `messageDelayLevel`: numbers with a unit, separated by spaces.
    ///
    /// # Errors
    /// Names the first level that is not a number with the unit s, m, h or d.
    ///
    /// ```
    /// let levels = store::DelayLevels::parse("1s 5m").unwrap();
    /// assert_eq!(levels.delay(2), Some(std::time::Duration::from_secs(300)));
    /// assert_eq!(levels.delay(3), None);
    /// ```
    pub fn parse(text: &str) -> Result<Self, DelayLevelError> {
        text.split_ascii_whitespace()
            .enumerate()
            .map(|(index, level)| {
                parse_level(level).ok_or_else(|| DelayLevelError {
                    position: index + 1,
                    text: level.to_owned(),
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Self)
    }

    /// The highest level; 0 = no level at all.
    pub fn max(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// The delay of a level counted from 1.
    pub fn delay(&self, level: i32) -> Option<Duration> {
        let index = usize::try_from(level).ok()?.checked_sub(1)?;
        self.0.get(index).copied()
    }

    /// When a message of `level` stored at `store_timestamp_ms` is due, in ms since the epoch.
    /// A level above the highest counts as the highest (RocketMQ 5.3.3
    /// `CommitLog.checkMessageAndReturnSize`); level 0 or less has no due time.
    pub fn due_ms(&self, level: i32, store_timestamp_ms: i64) -> Option<i64> {
        let delay = self.delay(level.min(self.max()))?;
        Some(
            store_timestamp_ms.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

impl Default for DelayLevels {
    fn default() -> Self {
        match Self::parse(DELAY_LEVELS_DEFAULT) {
            Ok(levels) => levels,
            Err(error) => unreachable!("the default levels are well formed: {error}"),
        }
    }
}

fn parse_level(text: &str) -> Option<Duration> {
    let unit_seconds = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(unit_seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_eighteen_levels() {
        let levels = DelayLevels::default();
        assert_eq!(levels.max(), 18);
        assert_eq!(levels.delay(18), Some(Duration::from_secs(7200)));
        assert_eq!(levels.delay(0), None);
    }

    #[test]
    fn a_level_above_the_highest_counts_as_the_highest() {
        let levels = DelayLevels::default();
        assert_eq!(levels.due_ms(99, 1_000), Some(1_000 + 7_200_000));
        assert_eq!(levels.due_ms(0, 1_000), None);
    }

    #[test]
    fn a_bad_level_is_named() {
        let error = DelayLevels::parse("1s 5x").unwrap_err();
        assert_eq!((error.position, error.text.as_str()), (2, "5x"));
        assert!(DelayLevels::parse("1s é").is_err());
    }
}

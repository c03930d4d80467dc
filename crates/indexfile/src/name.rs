//! Names of index files: the local time of creation as `yyyyMMddHHmmssSSS`, 17 digits.
//!
//! RocketMQ orders index files by name and looks at nothing else in it, but the name is a time in
//! the machine's time zone, with a resolution of a millisecond: two files of one millisecond, and
//! the hour that daylight saving time repeats, would clash or disorder them. So a name that is not
//! above the last one becomes the last one plus 1, a number that may not be a time.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Count of digits in a name.
const DIGITS: usize = 17;

/// The name for a file created at `timestamp_ms` (Unix time) in `zone`, above the name `last`.
pub(crate) fn next_name(timestamp_ms: i64, zone: &TimeZone, last: Option<&str>) -> String {
    // A time that no calendar reaches is damage in a message; the order of files is what matters.
    let moment = Timestamp::from_millisecond(timestamp_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let name = moment
        .to_zoned(zone.clone())
        .strftime("%Y%m%d%H%M%S%3f")
        .to_string();
    match last {
        Some(last) if *last >= *name => {
            let number: u64 = last.parse().unwrap_or(0);
            format!(
                "{:0width$}",
                number.saturating_add(1),
                width = last.len().max(DIGITS)
            )
        }
        _ => name,
    }
}

/// Whether RocketMQ would load a file of this name: a decimal number of 64 bits.
pub fn is_index_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<i64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_local_times() {
        // The golden store "clean" was made at 02:14:24 UTC.
        assert_eq!(
            next_name(1_795_400_064_034, &TimeZone::UTC, None),
            "20261123021424034"
        );
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        assert_eq!(
            next_name(1_795_400_064_034, &zone, None),
            "20261123101424034"
        );
    }

    #[test]
    fn names_rise_whatever_the_clock_does() {
        let zone = TimeZone::UTC;
        let first = next_name(1_795_400_064_034, &zone, None);
        let same = next_name(1_795_400_064_034, &zone, Some(&first));
        assert_eq!(same, "20261123021424035");
        let back = next_name(0, &zone, Some(&same));
        assert_eq!(back, "20261123021424036");
        assert!(next_name(i64::MAX, &zone, Some(&back)) > back);
    }

    #[test]
    fn only_numbers_are_names() {
        assert!(is_index_name("20261123021424034"));
        assert!(is_index_name("7"));
        for name in [
            "",
            "index",
            "20261123021424034.tmp",
            "-1",
            "99999999999999999999",
        ] {
            assert!(!is_index_name(name), "{name}");
        }
    }
}

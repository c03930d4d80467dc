//! Unique keys: the ids that clients give messages before a broker has seen them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::id::IdText;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What makes one process's keys different from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueKeySource {
    /// An address of this machine.
    pub ip: IpAddr,
    /// The process id; only its low 16 bits go into keys.
    pub process_id: u32,
    /// Tells generators of one process apart, where Java has the hash of a class loader.
    pub discriminator: u32,
    /// Local time minus UTC, in seconds: keys count from the month's first local midnight, and
    /// RocketMQ's tools reckon the time of sending back from that.
    pub utc_offset_seconds: i32,
}

/// Makes unique keys: hexadecimal of address (4 or 16 bytes), u16 process id, u32 discriminator,
/// i32 ms since the month began, u16 counter, so 32 or 56 characters (RocketMQ 5.3.3
/// `MessageClientIDSetter`). They are unique up to 65,536 in one millisecond.
///
/// ```
/// use message::{UniqueKeyGenerator, UniqueKeySource};
///
/// let generator = UniqueKeyGenerator::new(UniqueKeySource {
///     ip: [10, 0, 0, 7].into(),
///     process_id: 0x1234,
///     discriminator: 0xABCD,
///     utc_offset_seconds: 0,
/// });
/// // One second into November 2023.
/// assert_eq!(&*generator.next(1_698_796_801_000), "0A00000712340000ABCD000003E80000");
/// ```
#[derive(Debug)]
pub struct UniqueKeyGenerator {
    prefix: IdText,
    utc_offset_ms: i64,
    counter: AtomicU16,
}

impl UniqueKeyGenerator {
    /// A generator whose counter starts at 0.
    pub fn new(source: UniqueKeySource) -> Self {
        let mut prefix = IdText::default();
        match source.ip {
            IpAddr::V4(ip) => prefix.push(&ip.octets()),
            IpAddr::V6(ip) => prefix.push(&ip.octets()),
        }
        prefix.push(&(source.process_id as u16).to_be_bytes());
        prefix.push(&source.discriminator.to_be_bytes());
        let utc_offset_ms = i64::from(source.utc_offset_seconds) * 1000;
        Self {
            prefix,
            utc_offset_ms,
            counter: AtomicU16::new(0),
        }
    }

    /// The next key, at `now_ms` since 1970.
    pub fn next(&self, now_ms: i64) -> IdText {
        let elapsed_ms = ms_since_month_began(now_ms.saturating_add(self.utc_offset_ms));
        // Only the counter's own values matter, no other memory.
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut key = self.prefix;
        key.push(&elapsed_ms.to_be_bytes());
        key.push(&count.to_be_bytes());
        key
    }
}

/// Milliseconds since the first midnight of the month that `local_ms` is in. A month has at most
/// 2,678,400,000 ms, so the i32 is negative from the 25th on, as in Java.
fn ms_since_month_began(local_ms: i64) -> i32 {
    let days = local_ms.div_euclid(DAY_MS);
    let days_in_month = i64::from(day_of_month(days)) - 1;
    (days_in_month * DAY_MS + local_ms.rem_euclid(DAY_MS)) as i32
}

/// The day of the month, 1 to 31, of a day counted from 1970-01-01 in the Gregorian calendar.
fn day_of_month(days: i64) -> i32 {
    // Years counted from March have their leap day last: in 400 years (146,097 days) the month
    // and day follow from the day of the year by one straight line of 153 days per 5 months.
    let day_of_era = (days + 719_468).rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    (day_of_year - (153 * month + 2) / 5 + 1) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn generator(utc_offset_seconds: i32) -> UniqueKeyGenerator {
        UniqueKeyGenerator::new(UniqueKeySource {
            ip: [127, 0, 0, 1].into(),
            process_id: 0x1_0001,
            discriminator: 7,
            utc_offset_seconds,
        })
    }

    #[test]
    fn days_of_each_month_count_up_from_one() {
        let lengths = |leap| {
            [
                31,
                28 + i32::from(leap),
                31,
                30,
                31,
                30,
                31,
                31,
                30,
                31,
                30,
                31,
            ]
        };
        let mut days = 0;
        for year in 1970..2401 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for length in lengths(leap) {
                for day in 1..=length {
                    assert_eq!(day_of_month(days), day, "day {days} in {year}");
                    days += 1;
                }
            }
        }
    }

    #[test]
    fn month_begins_at_local_midnight() {
        let october_ends_utc = 1_698_796_800_000; // 2023-11-01T00:00:00Z
        assert_eq!(ms_since_month_began(october_ends_utc), 0);
        assert_eq!(
            ms_since_month_began(october_ends_utc - 1),
            (31 * DAY_MS - 1) as i32
        );
        let key = generator(-3600).next(october_ends_utc + 3_600_000);
        assert_eq!(key.get(20..28), Some("00000000"));
    }

    #[test]
    fn times_far_off_do_not_panic() {
        for now_ms in [i64::MIN, -1, i64::MAX] {
            assert_eq!(generator(3600).next(now_ms).len(), 32);
        }
    }

    #[test]
    fn keys_differ() {
        let generator = generator(0);
        let keys: HashSet<_> = (0..1000)
            .map(|_| generator.next(1_700_000_000_000))
            .collect();
        assert_eq!(keys.len(), 1000);
    }

    #[test]
    fn an_ipv6_address_makes_longer_keys() {
        let ip = "fd00::1".parse().unwrap();
        let source = UniqueKeySource {
            ip,
            process_id: 2,
            discriminator: 3,
            utc_offset_seconds: 0,
        };
        let key = UniqueKeyGenerator::new(source).next(0);
        assert_eq!(
            &*key,
            "FD00000000000000000000000000000100020000000300000000".to_owned() + "0000"
        );
    }
}

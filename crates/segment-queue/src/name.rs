//! Segment file names: the offset of a file's first byte in 20 decimal digits.
//!
//! Names sort as their offsets do. RocketMQ 5.3.3 `UtilAll.offset2FileName`: 20 minimum integer
//! digits, no grouping; Java reads them back as a signed 64-bit number.

use std::ffi::OsStr;

/// Digits of a segment's file name.
pub const SEGMENT_NAME_LEN: usize = 20;

/// The file name of the segment whose first byte has this offset.
pub fn segment_name(base: u64) -> String {
    format!("{base:0width$}", width = SEGMENT_NAME_LEN)
}

/// The offset that a segment's file name stands for; `None` if it is not such a name.
pub fn parse_segment_name(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?;
    if digits.len() != SEGMENT_NAME_LEN || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let base = digits.parse::<i64>().ok()?;
    u64::try_from(base).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, base: Option<u64>) {
        assert_eq!(parse_segment_name(OsStr::new(name)), base, "{name}");
    }

    #[test]
    fn names_are_twenty_digits() {
        check("00000000000000000000", Some(0));
        check("00000000001073741824", Some(1 << 30));
        check("09223372036854775807", Some(i64::MAX as u64));
        check("09223372036854775808", None);
        check("0000000000000000000", None);
        check("000000000000000000000", None);
        check("+0000000000000000000", None);
        check("0000000000000000000a", None);
        check("00000000000000000000.delete", None);
        assert_eq!(segment_name(1 << 30), "00000000001073741824");
    }
}

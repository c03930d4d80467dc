//! How the values of `broker.conf` are written: one module per kind of value, each reading and
//! showing it.
//!
//! A refusal is the text of what is allowed.

use std::time::Duration;

pub(super) fn host_and_port(given: &str) -> Result<(String, u16), String> {
    let refused = || "HOST:PORT, such as 127.0.0.1:10911 or [::1]:10911".to_owned();
    let (host, port) = given.trim().rsplit_once(':').ok_or_else(refused)?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |inner| inner.strip_suffix(']'));
    let port = port.parse().map_err(|_| refused())?;
    match host {
        Some(host) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(refused()),
    }
}

pub(super) fn addresses(given: &str) -> Result<Vec<String>, String> {
    let parts = given
        .split([';', ','])
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| host_and_port(part).map(|_| part.to_owned()))
        .collect::<Result<_, _>>()
        .map_err(|_| "name servers as HOST:PORT, several separated by `;`".to_owned())
}

pub(super) fn text(given: &str) -> Result<String, String> {
    let given = given.trim();
    if given.is_empty() {
        Err("a text that is not empty".to_owned())
    } else {
        Ok(given.to_owned())
    }
}

/// `1s 5s 1m 2h 1d`.
pub(super) fn delay_levels(given: &str) -> Result<Vec<Duration>, String> {
    let level = |word: &str| {
        let unit = word.chars().next_back()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        let count: u64 = word[..word.len() - unit.len_utf8()].parse().ok()?;
        count.checked_mul(seconds).map(Duration::from_secs)
    };
    let levels: Option<Vec<_>> = given.split_whitespace().map(level).collect();
    match levels {
        Some(levels) if !levels.is_empty() => Ok(levels),
        _ => Err("delays such as `1s 5s 1m 2h 1d`, separated by spaces".to_owned()),
    }
}

/// Shows a level in the largest unit that divides it.
pub(super) fn show_delay_levels(levels: &[Duration]) -> String {
    let words = levels.iter().map(|level| match level.as_secs() {
        seconds if seconds > 0 && seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds > 0 && seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds if seconds > 0 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A whole number between two bounds, both allowed.
pub(super) fn whole(given: &str, least: i64, most: i64) -> Result<i64, String> {
    let number = given
        .trim()
        .parse::<i64>()
        .ok()
        .filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("a whole number from {least} to {most}"))
}

pub(super) fn flag(given: &str) -> Result<bool, String> {
    match given.trim() {
        word if word.eq_ignore_ascii_case("true") => Ok(true),
        word if word.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

//! The text format of `java.util.Properties`: what a Java `broker.conf` is written in.
//!
//! Not the meaning of the keys: that is `keys`.

use thiserror::Error;

/// One `key = value` of a properties text, with the line it began on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key with escapes resolved.
    pub key: String,
    /// The value with escapes resolved; white space behind it is kept, as Java keeps it.
    pub value: String,
    /// 1-based number of the first line of the entry.
    pub line: usize,
}

/// A text that `java.util.Properties` refuses as well.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PropertiesError {
    /// A `\u` that four hexadecimal digits do not follow.
    #[error("line {line}: \\u must be followed by four hexadecimal digits")]
    UnicodeEscape {
        /// 1-based line number.
        line: usize,
    },
}

/// Reads a text as `java.util.Properties.load` does: `=`, `:` or white space between key and
/// value, `#` and `!` comments, `\` before a line end joins lines, escapes `\t \n \r \f \uXXXX`.
///
/// Keys given twice appear twice; the later one is the one that counts.
///
/// # Errors
/// [`PropertiesError::UnicodeEscape`] where Java throws as well.
pub fn parse(text: &str) -> Result<Vec<Entry>, PropertiesError> {
    let mut entries = Vec::new();
    for (line, logical) in logical_lines(text) {
        let (key, value) = split(&logical);
        entries.push(Entry {
            key: unescape(key, line)?,
            value: unescape(value, line)?,
            line,
        });
    }
    Ok(entries)
}

/// Writes `key=value` so that [`parse`] and Java read it back.
pub fn write_entry(out: &mut String, key: &str, value: &str) {
    escape(out, key, Part::Key);
    out.push('=');
    escape(out, value, Part::Value);
    out.push('\n');
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Value,
}

fn escape(out: &mut String, text: &str, part: Part) {
    let mut leading = true;
    for character in text.chars() {
        match character {
            ' ' if part == Part::Key || leading => out.push_str("\\ "),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{c}' => out.push_str("\\f"),
            '\\' => out.push_str("\\\\"),
            '=' | ':' | '#' | '!' => {
                out.push('\\');
                out.push(character);
            }
            other => out.push(other),
        }
        leading &= character == ' ';
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Joins continued lines, drops blank lines and comments; yields the number of the first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, natural) in natural_lines(text).into_iter().enumerate() {
        let trimmed = natural.trim_start_matches(is_blank);
        let (line, mut logical) = match open.take() {
            Some(open) => open,
            None if trimmed.is_empty() || trimmed.starts_with(['#', '!']) => continue,
            None => (index + 1, String::new()),
        };
        let backslashes = trimmed.len() - trimmed.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            logical.push_str(&trimmed[..trimmed.len() - 1]);
            open = Some((line, logical));
        } else {
            logical.push_str(trimmed);
            lines.push((line, logical));
        }
    }
    // A backslash at the end of the file continues nothing.
    lines.extend(open.filter(|(_, logical)| !logical.is_empty()));
    lines
}

/// Splits at `\n`, `\r` and `\r\n`.
fn natural_lines(text: &str) -> Vec<&str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
        .collect()
}

/// Cuts a logical line into raw key and raw value, escapes still in them.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|&(_, character)| {
            if escaped {
                escaped = false;
                return false;
            }
            escaped = character == '\\';
            matches!(character, '=' | ':') || is_blank(character)
        })
        .map_or(line.len(), |(position, _)| position);
    let rest = line[end..].trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], value.trim_start_matches(is_blank))
}

fn unescape(raw: &str, line: usize) -> Result<String, PropertiesError> {
    let mut text = String::with_capacity(raw.len());
    // `\uXXXX` are UTF-16 units: a character beyond the basic plane is two of them.
    let mut units: Vec<u16> = Vec::new();
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        let escaped = match character {
            '\\' => characters.next(),
            plain => {
                flush(&mut text, &mut units);
                text.push(plain);
                continue;
            }
        };
        if escaped == Some('u') {
            units.push(hexadecimal_unit(&mut characters, line)?);
            continue;
        }
        flush(&mut text, &mut units);
        text.extend(escaped.map(|character| match character {
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'f' => '\u{c}',
            other => other,
        }));
    }
    flush(&mut text, &mut units);
    Ok(text)
}

fn hexadecimal_unit(
    characters: &mut std::str::Chars<'_>,
    line: usize,
) -> Result<u16, PropertiesError> {
    let mut unit = 0u16;
    for _ in 0..4 {
        let digit = characters
            .next()
            .and_then(|character| character.to_digit(16));
        let digit = digit.ok_or(PropertiesError::UnicodeEscape { line })?;
        unit = (unit << 4) | digit as u16;
    }
    Ok(unit)
}

fn flush(text: &mut String, units: &mut Vec<u16>) {
    if !units.is_empty() {
        text.push_str(&String::from_utf16_lossy(units));
        units.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let entries = parse(text).unwrap();
        entries
            .into_iter()
            .map(|entry| (entry.key, entry.value))
            .collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(pairs(text), expected, "{text:?}");
    }

    #[test]
    fn separators_and_white_space() {
        check(
            "a=1\nb:2\nc 3\n  d  =  4 \n",
            &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4 ")],
        );
        check(
            "a==1\nb : = 2\nalone\n",
            &[("a", "=1"), ("b", "= 2"), ("alone", "")],
        );
        check("a=1\r\nb=2\rc=3", &[("a", "1"), ("b", "2"), ("c", "3")]);
    }

    #[test]
    fn comments_and_blank_lines() {
        check("# a=1\n  ! b=2\n\n \t\nc=#3\n", &[("c", "#3")]);
    }

    #[test]
    fn continued_lines() {
        check(
            "a=1,\\\n    2,\\\r\n    3\nb=x",
            &[("a", "1,2,3"), ("b", "x")],
        );
        check(
            "path=C:\\\\dir\\\\\nb=2",
            &[("path", "C:\\dir\\"), ("b", "2")],
        );
        check("a=1\\", &[("a", "1")]);
        // Within a continued entry a line that looks like a comment belongs to the value.
        check("a=1\\\n#2", &[("a", "1#2")]);
    }

    #[test]
    fn escapes() {
        check("a\\=b=1\\t2\\n\\u0041\\q", &[("a=b", "1\t2\nAq")]);
        check("k=\\ud83d\\ude00", &[("k", "\u{1f600}")]);
        assert_eq!(
            parse("x=1\ny=\\u12g4"),
            Err(PropertiesError::UnicodeEscape { line: 2 })
        );
    }

    #[test]
    fn later_entries_keep_their_lines() {
        let entries = parse("# c\na=1\\\n 2\nb=3").unwrap();
        assert_eq!(
            entries.iter().map(|entry| entry.line).collect::<Vec<_>>(),
            [2, 4]
        );
    }

    proptest! {
        #[test]
        fn written_entries_read_back(key in "[^\0]{1,12}", value in "[^\0]{0,20}") {
            let mut text = String::new();
            write_entry(&mut text, &key, &value);
            prop_assert_eq!(pairs(&text), vec![(key, value)]);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}|[\\\\=:#! \n\ru0-9a]{0,80}") {
            let _ = parse(&text);
        }
    }
}

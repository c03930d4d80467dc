//! Java's properties text, which configuration is written in: `broker.conf`, and the bodies of
//! `GET_BROKER_CONFIG` and `UPDATE_BROKER_CONFIG`.
//!
//! One `key=value` a line; `:` or white space may stand for `=`, `#` and `!` start comments, a
//! backslash at the end continues a line, and `\n`, `\t`, `\r`, `\f`, `\uXXXX` are escapes
//! (`java.util.Properties.load`). Text is UTF-8.

use crate::escape::unescape;

/// Reads all pairs in the order they stand. A key that stands twice is there twice; in Java the
/// last one counts.
///
/// Every text has a meaning: a `\u` without four hexadecimal digits, which Java refuses, stands
/// for the letter.
#[must_use]
pub fn parse(text: &str) -> Vec<(String, String)> {
    logical_lines(text)
        .iter()
        .map(|line| split_pair(line))
        .collect()
}

/// Writes pairs so that [`parse`] and Java read them back.
#[must_use]
pub fn format<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        push_escaped(&mut text, key, |character, _| {
            matches!(character, ' ' | '\t' | '\u{c}' | ':' | '=' | '#' | '!')
        });
        text.push('=');
        push_escaped(&mut text, value, |character, first| {
            first && matches!(character, ' ' | '\t' | '\u{c}')
        });
        text.push('\n');
    }
    text
}

/// Lines with continuations joined, without leading white space, comments and blank lines.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current: Option<String> = None;
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        let line = line.trim_start_matches(is_blank);
        if current.is_none() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let mut joined = current.take().unwrap_or_default();
        let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            joined.push_str(line.strip_suffix('\\').unwrap_or(line));
            current = Some(joined);
        } else {
            joined.push_str(line);
            lines.push(joined);
        }
    }
    lines.extend(current);
    lines
}

/// The key ends at the first `=`, `:` or white space that is not escaped.
fn split_pair(line: &str) -> (String, String) {
    let mut escaped = false;
    let end = line.find(|character: char| {
        let ends = !escaped && (is_blank(character) || matches!(character, '=' | ':'));
        escaped = character == '\\' && !escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_blank);
    let value = rest
        .strip_prefix(['=', ':'])
        .unwrap_or(rest)
        .trim_start_matches(is_blank);
    (undo_escapes(key), undo_escapes(value))
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

fn undo_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        plain.push_str(before);
        let known = behind.starts_with(['n', 't', 'r', 'f', 'u']);
        rest = match unescape(behind.as_bytes()) {
            Ok((character, len)) if known => {
                plain.push(character);
                behind.get(len..).unwrap_or_default()
            }
            // Before any other character a backslash means nothing.
            _ => {
                let mut characters = behind.chars();
                plain.extend(characters.next());
                characters.as_str()
            }
        };
    }
    plain.push_str(rest);
    plain
}

fn push_escaped(text: &mut String, plain: &str, special: impl Fn(char, bool) -> bool) {
    for (position, character) in plain.char_indices() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{c}' => text.push_str("\\f"),
            _ => {
                if special(character, position == 0) {
                    text.push('\\');
                }
                text.push(character);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn javas_rules_are_kept() {
        let text = "# comment\n  ! another\n\na=1\r\n b : 2\nc 3\nd\ne=\n\
                    path=/a:b=c \\\r\n     continued\nf\\=g = \\u00e9\\t\\x\\\\\nlast=x\\";
        let expected = [
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", ""),
            ("e", ""),
            ("path", "/a:b=c continued"),
            ("f=g", "\u{e9}\tx\\"),
            ("last", "x"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn plain_pairs_stay_plain() {
        assert_eq!(
            format([("listenPort", "10911"), ("a", "b c")]),
            "listenPort=10911\na=b c\n"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn pairs_read_back(pairs in proptest::collection::vec((".{1,9}", ".{0,9}"), 0..5)) {
            let borrowed = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            prop_assert_eq!(parse(&format(borrowed)), pairs);
        }

        #[test]
        fn any_text_is_read(text in "[ \\\\u0-9a=:#\n\r\t\u{e9}]{0,60}") {
            let _ = parse(&text);
        }
    }
}

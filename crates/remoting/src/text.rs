//! Writing JSON's atoms into a byte buffer without intermediate strings.

use crate::escape::is_plain;

/// Whether text outside ASCII stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    /// UTF-8 as it is.
    Utf8,
    /// `\uXXXX` for everything outside ASCII, as fastjson's `BrowserCompatible` does.
    Ascii,
}

/// Appends `value` as decimal text.
pub(crate) fn push_integer(out: &mut Vec<u8>, value: i64) {
    push_decimal(out, value.unsigned_abs(), value < 0);
}

/// Appends the decimal text of `magnitude`, with a minus sign in front if `negative`.
pub(crate) fn push_decimal(out: &mut Vec<u8>, magnitude: u64, negative: bool) {
    // 20 digits hold any u64, one more the sign.
    let mut digits = [0u8; 21];
    let mut rest = magnitude;
    let mut free = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        free -= 1;
        if rest == 0 {
            break;
        }
    }
    if negative {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(free..).unwrap_or_default());
}

/// Appends `text` in quotes.
pub(crate) fn push_quoted(out: &mut Vec<u8>, text: &str, charset: Charset) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if charset == Charset::Utf8 && is_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut rest = text;
    while let Some(position) = rest.bytes().position(|byte| must_escape(byte, charset)) {
        let (plain, tail) = rest.split_at(position);
        out.extend_from_slice(plain.as_bytes());
        let mut chars = tail.chars();
        if let Some(escaped) = chars.next() {
            push_escape(out, escaped);
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

fn must_escape(byte: u8, charset: Charset) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || (charset == Charset::Ascii && byte >= 0x7f)
}

/// fastjson's choice of escapes.
fn push_escape(out: &mut Vec<u8>, escaped: char) {
    let short = match escaped {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\t' => b't',
        '\n' => b'n',
        '\u{c}' => b'f',
        '\r' => b'r',
        _ => {
            for unit in escaped.encode_utf16(&mut [0; 2]) {
                push_unicode_escape(out, *unit);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn push_unicode_escape(out: &mut Vec<u8>, unit: u16) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        let digit = (unit >> shift & 0xf) as u8;
        out.push(if digit < 10 {
            b'0' + digit
        } else {
            b'A' + digit - 10
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str, charset: Charset) -> String {
        let mut out = Vec::new();
        push_quoted(&mut out, text, charset);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn separators_and_quotes_are_escaped() {
        assert_eq!(
            quoted("KEYS\u{1}k\u{2}", Charset::Utf8),
            r#""KEYS\u0001k\u0002""#
        );
        assert_eq!(quoted("a\"b\\c\nd", Charset::Utf8), r#""a\"b\\c\nd""#);
        assert_eq!(
            quoted("\u{e9}\u{1f600}", Charset::Utf8),
            "\"\u{e9}\u{1f600}\""
        );
        assert_eq!(
            quoted("\u{e9}\u{1f600}", Charset::Ascii),
            r#""\u00E9\uD83D\uDE00""#
        );
    }

    #[test]
    fn integers_of_any_size() {
        for value in [0, 7, -7, 10, 1_700_000_000_000, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_integer(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_is_quoted_reads_back(text in any::<String>()) {
            for charset in [Charset::Utf8, Charset::Ascii] {
                let read: String = serde_json::from_str(&quoted(&text, charset)).unwrap();
                prop_assert_eq!(&read, &text);
            }
        }
    }
}

//! JSON's escapes: finding and undoing them, for headers and bodies alike.

/// The position of the first quote or backslash.
///
/// Eight bytes at a time: where a short string ends is no branch that can be mispredicted.
#[inline(always)]
pub(crate) fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    let mut position = 0;
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let word = u64::from_be_bytes(*word);
        let found = equal_bytes(word, b'"') | equal_bytes(word, b'\\');
        if found != 0 {
            return Some(position + (found.leading_zeros() / 8) as usize);
        }
        position += 8;
        rest = behind;
    }
    let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(position + found)
}

/// Whether `bytes` can stand in a JSON string as they are: no quote, backslash or control
/// character.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    const HIGH_BITS: u64 = 0xe0e0_e0e0_e0e0_e0e0;
    let escaped_of = |word: &[u8; 8]| {
        let word = u64::from_be_bytes(*word);
        equal_bytes(word, b'"') | equal_bytes(word, b'\\') | equal_bytes(word & HIGH_BITS, 0)
    };
    match bytes.last_chunk::<8>() {
        // The last word overlaps the one before it.
        Some(last) => {
            let words = bytes.as_chunks::<8>().0.iter();
            words
                .chain([last])
                .fold(0, |found, word| found | escaped_of(word))
                == 0
        }
        None => !bytes
            .iter()
            .any(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')),
    }
}

/// The top bit of each byte of `word` that equals `byte`; exact for all eight.
fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let differing = word ^ (u64::from(byte) * 0x0101_0101_0101_0101);
    !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS)
}

/// The character of an escape, and how many bytes it takes behind the backslash; otherwise what
/// was expected there. `rest` starts behind the backslash.
///
/// A lone surrogate becomes U+FFFD: Java can hold one, UTF-8 cannot.
pub(crate) fn unescape(rest: &[u8]) -> Result<(char, usize), &'static str> {
    let character = match rest.first() {
        Some(b'"') => '"',
        Some(b'\'') => '\'',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(rest),
        _ => return Err("an escaped character"),
    };
    Ok((character, 1))
}

/// `rest` starts with the `u`.
fn unicode_escape(rest: &[u8]) -> Result<(char, usize), &'static str> {
    // The separators of properties.
    if let Some([b'u', b'0', b'0', b'0', digit @ b'1'..=b'9']) = rest.first_chunk::<UNIT_LEN>() {
        return Ok((char::from(digit - b'0'), UNIT_LEN));
    }
    let (first, tail) = utf16_unit(rest).ok_or("four hexadecimal digits")?;
    if let Some(code_point) = char::from_u32(u32::from(first)) {
        return Ok((code_point, UNIT_LEN));
    }
    let second = tail
        .strip_prefix(b"\\")
        .and_then(utf16_unit)
        .map(|(second, _)| second);
    let pair = char::decode_utf16([Some(first), second].into_iter().flatten()).next();
    match pair {
        Some(Ok(code_point)) => Ok((code_point, UNIT_LEN + 1 + UNIT_LEN)),
        _ => Ok((char::REPLACEMENT_CHARACTER, UNIT_LEN)),
    }
}

/// Bytes of `uXXXX`.
const UNIT_LEN: usize = 5;

/// Reads `uXXXX`.
fn utf16_unit(rest: &[u8]) -> Option<(u16, &[u8])> {
    let (unit, tail) = rest.split_first_chunk::<UNIT_LEN>()?;
    let [b'u', digits @ ..] = unit else {
        return None;
    };
    let mut value = 0u16;
    for digit in digits {
        value = value << 4 | char::from(*digit).to_digit(16)? as u16;
    }
    Some((value, tail))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn the_first_of_both_is_found(text in r##"[#-\[\]-^\u{a2}\u{dc}]{0,40}[\"\\\\]?[!-~]{0,12}"##) {
            let simple = text.bytes().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(quote_or_escape(text.as_bytes()), simple);
        }

        #[test]
        fn what_must_be_escaped_is_not_plain(
            text in "[ -!#-\\[\\]-~\u{a2}\u{dc}]{0,40}",
            place in any::<prop::sample::Index>(),
            escaped in prop::option::of("[\"\\\\\u{0}-\u{1f}]"),
        ) {
            let mut text: Vec<char> = text.chars().collect();
            if let Some(escaped) = &escaped {
                let at = place.index(text.len() + 1);
                text.splice(at..at, escaped.chars());
            }
            let text: String = text.into_iter().collect();
            prop_assert_eq!(is_plain(text.as_bytes()), escaped.is_none());
        }
    }
}

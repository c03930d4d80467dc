//! Undoing JSON's escapes, for headers and bodies alike.

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

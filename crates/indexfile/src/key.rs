//! From a message key to its hash. The text of a key is not stored in an index file.

/// Hash of the index key `topic#key`, never negative.
///
/// The absolute value of Java's `String.hashCode` of the joined text, and 0 where that value does
/// not exist (RocketMQ 5.3.3 `IndexFile.indexKeyHashMethod`). Nothing is allocated.
///
/// ```
/// assert_eq!(indexfile::key_hash("a", "b"), (97 * 31 + 35) * 31 + 98);
/// ```
pub fn key_hash(topic: &str, key: &str) -> i32 {
    let hash = extend(extend(extend(0, topic), "#"), key);
    hash.checked_abs().unwrap_or(0)
}

/// Java's `String.hashCode`, continued from the hash of the text before.
fn extend(hash: i32, text: &str) -> i32 {
    let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    if text.is_ascii() {
        // Keys almost always are: no decoding then.
        text.bytes().map(u16::from).fold(hash, step)
    } else {
        text.encode_utf16().fold(hash, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf16_code_units_count() {
        // U+1F680 is the pair D83D DE80.
        let expected = [0xD83Di32, 0xDE80, 35]
            .iter()
            .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(*unit));
        assert_eq!(key_hash("\u{1F680}", ""), expected.abs());
    }

    #[test]
    fn the_one_hash_without_absolute_value_is_zero() {
        assert_eq!(extend(0, "polygenelubricants"), i32::MIN);
        assert_eq!(extend(0, "T#ajvakuzm"), i32::MIN);
        assert_eq!(key_hash("T", "ajvakuzm"), 0);
    }
}

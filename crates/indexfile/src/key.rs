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
    TopicHash::new(topic).of_key(key)
}

/// The hash of `topic#`, which the hashes of all keys of a topic's messages begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicHash(i32);

impl TopicHash {
    /// Hashes a topic's name.
    #[inline]
    pub fn new(topic: &str) -> Self {
        Self(extend(extend(0, topic), "#"))
    }

    /// As [`key_hash`] of this topic.
    #[inline]
    pub fn of_key(self, key: &str) -> i32 {
        extend(self.0, key).checked_abs().unwrap_or(0)
    }
}

/// Java's `String.hashCode`, continued from the hash of the text before.
#[inline]
fn extend(hash: i32, text: &str) -> i32 {
    if text.is_ascii() {
        // Keys almost always are: no decoding then.
        return extend_ascii(hash, text.as_bytes());
    }
    let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    text.encode_utf16().fold(hash, step)
}

/// Four characters at a time, so that one need not wait for the one before: the dispatcher's caller
/// does this for each key of each message.
#[inline]
fn extend_ascii(hash: i32, bytes: &[u8]) -> i32 {
    const POWERS: [i32; 4] = [31 * 31 * 31, 31 * 31, 31, 1];
    const POWER_4: i32 = 31 * 31 * 31 * 31;
    let (chunks, rest) = bytes.as_chunks::<4>();
    let hash = chunks.iter().fold(hash, |hash, chunk| {
        let pairs = chunk.iter().zip(POWERS);
        let sum = pairs.fold(0_i32, |sum, (byte, power)| {
            sum.wrapping_add(i32::from(*byte).wrapping_mul(power))
        });
        hash.wrapping_mul(POWER_4).wrapping_add(sum)
    });
    rest.iter().fold(hash, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(*byte))
    })
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
    fn any_length_is_hashed_as_java_does() {
        let text = "The quick brown fox jumps over the lazy dog";
        for len in 0..text.len() {
            let text = &text[..len];
            let units = text.encode_utf16();
            let expected = units.fold(7_i32, |hash, unit| {
                hash.wrapping_mul(31).wrapping_add(i32::from(unit))
            });
            assert_eq!(extend(7, text), expected, "{text}");
        }
    }

    #[test]
    fn the_one_hash_without_absolute_value_is_zero() {
        assert_eq!(extend(0, "polygenelubricants"), i32::MIN);
        assert_eq!(extend(0, "T#ajvakuzm"), i32::MIN);
        assert_eq!(key_hash("T", "ajvakuzm"), 0);
    }
}

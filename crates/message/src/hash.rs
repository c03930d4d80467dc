//! Java's string hash, which tags codes and index keys are made of.

/// `String.hashCode`: `h = 31 * h + c` over the UTF-16 units, wrapping.
///
/// ```
/// assert_eq!(message::java_string_hash("polygenelubricants"), i32::MIN);
/// ```
#[inline]
pub fn java_string_hash(text: &str) -> i32 {
    hash_text(0, text)
}

/// [`java_string_hash`] of the string that Java makes of these bytes: U+FFFD stands for what is
/// not UTF-8.
#[inline]
pub fn java_string_hash_lossy(bytes: &[u8]) -> i32 {
    if bytes.is_ascii() {
        return hash_ascii(0, bytes);
    }
    let mut hash = 0;
    for chunk in bytes.utf8_chunks() {
        hash = hash_text(hash, chunk.valid());
        if !chunk.invalid().is_empty() {
            hash = hash_unit(hash, char::REPLACEMENT_CHARACTER as u16);
        }
    }
    hash
}

/// The hash that a consume queue entry has of a message's tag; compare it first, the tag itself
/// after (RocketMQ 5.3.3 `MessageExtBrokerInner.tagsString2tagsCode`).
#[inline]
pub fn tags_code(tags: &str) -> i64 {
    i64::from(java_string_hash(tags))
}

#[inline]
fn hash_text(hash: i32, text: &str) -> i32 {
    if text.is_ascii() {
        return hash_ascii(hash, text.as_bytes());
    }
    text.encode_utf16().fold(hash, hash_unit)
}

#[inline]
fn hash_ascii(hash: i32, bytes: &[u8]) -> i32 {
    bytes
        .iter()
        .fold(hash, |hash, byte| hash_unit(hash, u16::from(*byte)))
}

#[inline]
fn hash_unit(hash: i32, unit: u16) -> i32 {
    hash.wrapping_mul(31).wrapping_add(i32::from(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values that Java computed; the last ones by its rule over surrogates.
    #[test]
    fn java_vectors() {
        assert_eq!(tags_code("TagA"), 2_598_919);
        assert_eq!(java_string_hash("polygenelubricants"), i32::MIN);
        assert_eq!(java_string_hash(""), 0);
        assert_eq!(java_string_hash("\u{4e2d}\u{6587}"), 0x4e2d * 31 + 0x6587);
        assert_eq!(java_string_hash("\u{1f680}"), 0xd83d * 31 + 0xde80);
        assert_eq!(java_string_hash_lossy(b"a\xff"), 97 * 31 + 0xfffd);
    }

    proptest! {
        #[test]
        fn both_forms_agree(text: String) {
            prop_assert_eq!(java_string_hash(&text), java_string_hash_lossy(text.as_bytes()));
        }

        #[test]
        fn lossy_is_the_hash_of_the_lossy_string(bytes: Vec<u8>) {
            let text = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(java_string_hash_lossy(&bytes), java_string_hash(&text));
        }
    }
}

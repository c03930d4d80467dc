//! The 20 bytes that a consume queue keeps of a message.
//!
//! All integers are big-endian. Source: RocketMQ 5.3.3 `ConsumeQueue`.
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | i64 | commit-log offset of the message |
//! | 8 | i32 | its length in the log |
//! | 12 | i64 | tags code: a hash, a time, or the address of an extension |

use crate::error::ConsumeQueueError;

/// Length of an entry in bytes.
pub const ENTRY_LEN: usize = 20;

/// The greatest tags code that is the address of an extension unit: every 32-bit hash lies above
/// (RocketMQ 5.3.3 `ConsumeQueueExt.MAX_ADDR`).
pub const EXTENSION_ADDRESS_MAX: i64 = i32::MIN as i64 - 1;

/// What the queue knows of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Commit-log offset of the message.
    pub physical_offset: i64,
    /// Its length in the log, in bytes.
    pub size: i32,
    /// Hash of its tags; or the time of delivery in milliseconds, in a delay level's queue; or the
    /// address of an extension unit.
    pub tags_code: i64,
}

impl Entry {
    /// What stands before the first message of a queue that does not begin at index 0, up to the
    /// file's start (RocketMQ 5.3.3 `ConsumeQueue.fillPreBlank`). Never a message.
    pub const FILLER: Self = Self {
        physical_offset: 0,
        size: i32::MAX,
        tags_code: 0,
    };

    /// An entry of a message that lies before the beginning of any log that has lost some.
    pub(crate) const EXPIRED: Self = Self {
        physical_offset: 0,
        size: 1,
        tags_code: 0,
    };

    /// Commit-log offset behind the message.
    pub fn physical_end(&self) -> i64 {
        self.physical_offset.saturating_add(i64::from(self.size))
    }

    /// Whether it stands for no message.
    pub fn is_filler(&self) -> bool {
        *self == Self::FILLER
    }

    /// Offset of the message's unit in the queue's extension files, if the tags code is the
    /// address of one and not a hash (RocketMQ 5.3.3 `ConsumeQueueExt.isExtAddr`, `unDecorate`).
    #[inline]
    pub fn extension_offset(&self) -> Option<u64> {
        Self::is_extension_address(self.tags_code)
            .then(|| self.tags_code.cast_unsigned() ^ i64::MIN.cast_unsigned())
    }

    /// Whether a tags code is the address of an extension unit.
    #[inline]
    pub(crate) fn is_extension_address(tags_code: i64) -> bool {
        tags_code <= EXTENSION_ADDRESS_MAX
    }

    /// The entry with the address of the extension unit at `offset` in place of its tags code.
    pub(crate) fn extended_by(self, offset: u64) -> Self {
        Self {
            tags_code: (offset ^ i64::MIN.cast_unsigned()).cast_signed(),
            ..self
        }
    }

    /// The bytes on disk.
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[0..8].copy_from_slice(&self.physical_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    /// Reads the bytes on disk; whether they make sense is asked elsewhere.
    #[inline]
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> Self {
        let [
            o0,
            o1,
            o2,
            o3,
            o4,
            o5,
            o6,
            o7,
            s0,
            s1,
            s2,
            s3,
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
        ] = *bytes;
        Self {
            physical_offset: i64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            size: i32::from_be_bytes([s0, s1, s2, s3]),
            tags_code: i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        }
    }

    /// Whether the place is in use. Unwritten places are zeros, and so have no length.
    pub(crate) fn is_used(&self) -> bool {
        self.physical_offset >= 0 && self.size > 0
    }

    /// Refuses what no message has.
    pub(crate) fn check(&self, index: i64) -> Result<(), ConsumeQueueError> {
        let end = self.physical_offset.checked_add(i64::from(self.size));
        if index < 0 || !self.is_used() || self.is_filler() || end.is_none() {
            return Err(ConsumeQueueError::Entry {
                index,
                entry: *self,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_vector_store() {
        // Storage spec 19.2: the second message of topic TopicA with tag TagA, hash 2598919.
        let entry = Entry {
            physical_offset: 0x8d,
            size: 0x8d,
            tags_code: 2_598_919,
        };
        let bytes = [
            0, 0, 0, 0, 0, 0, 0, 0x8d, 0, 0, 0, 0x8d, 0, 0, 0, 0, 0, 0x27, 0xa8, 0x07,
        ];
        assert_eq!(entry.encode(), bytes);
        assert_eq!(Entry::decode(&bytes), entry);
        assert_eq!(entry.physical_end(), 0x11a);
    }

    #[test]
    fn fillers_are_no_messages() {
        assert_eq!(Entry::FILLER.encode()[8..12], [0x7f, 0xff, 0xff, 0xff]);
        assert!(Entry::FILLER.is_filler() && Entry::FILLER.is_used());
        assert!(Entry::FILLER.check(3).is_err());
        assert!(!Entry::decode(&[0; ENTRY_LEN]).is_used());
    }

    #[test]
    fn extension_addresses_are_told_from_hashes() {
        let tags = |tags_code| Entry {
            physical_offset: 0,
            size: 1,
            tags_code,
        };
        assert_eq!(tags(i64::from(i32::MIN)).extension_offset(), None);
        assert_eq!(tags(1_700_000_000_000).extension_offset(), None);
        assert_eq!(tags(i64::MIN).extension_offset(), Some(0));
        assert_eq!(tags(i64::MIN + 48).extension_offset(), Some(48));
        let last = tags(EXTENSION_ADDRESS_MAX).extension_offset();
        assert_eq!(last, Some((1 << 63) - (1 << 31) - 1));
    }
}

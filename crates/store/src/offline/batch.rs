//! The 46 bytes that a batch consume queue keeps of a record.
//!
//! All integers are big-endian. Source: RocketMQ 5.3.3 `BatchConsumeQueue`.
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | i64 | commit-log offset of the record |
//! | 8 | i32 | its length in the log |
//! | 12 | i64 | tags code |
//! | 20 | i64 | its store time, ms |
//! | 28 | i64 | queue offset of its first message |
//! | 36 | i16 | how many messages it holds |
//! | 38 | i32 | compacted offset, -1 when unset |
//! | 42 | i32 | reserved, 0 |

/// Length of an entry in bytes.
pub const BATCH_ENTRY_LEN: usize = 46;

/// What a batch queue knows of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry {
    /// Commit-log offset of the record.
    pub physical_offset: i64,
    /// Its length in the log, in bytes.
    pub size: i32,
    /// Hash of its tags.
    pub tags_code: i64,
    /// Its store time, ms.
    pub store_timestamp_ms: i64,
    /// Queue offset of its first message.
    pub base: i64,
    /// How many messages it holds.
    pub count: i16,
}

impl BatchEntry {
    /// Reads the bytes on disk.
    pub fn decode(bytes: &[u8; BATCH_ENTRY_LEN]) -> Self {
        let wide = |position: usize| {
            let field = bytes.get(position..).and_then(<[u8]>::first_chunk);
            field.map_or(0, |field| i64::from_be_bytes(*field))
        };
        let size = bytes.get(8..).and_then(<[u8]>::first_chunk);
        let count = bytes.get(36..).and_then(<[u8]>::first_chunk);
        Self {
            physical_offset: wide(0),
            size: size.map_or(0, |field| i32::from_be_bytes(*field)),
            tags_code: wide(12),
            store_timestamp_ms: wide(20),
            base: wide(28),
            count: count.map_or(0, |field| i16::from_be_bytes(*field)),
        }
    }

    /// The bytes on disk; the compacted offset is unset.
    pub fn encode(&self) -> [u8; BATCH_ENTRY_LEN] {
        const UNSET: i32 = -1;
        let mut bytes = [0; BATCH_ENTRY_LEN];
        let fields: [&[u8]; 7] = [
            &self.physical_offset.to_be_bytes(),
            &self.size.to_be_bytes(),
            &self.tags_code.to_be_bytes(),
            &self.store_timestamp_ms.to_be_bytes(),
            &self.base.to_be_bytes(),
            &self.count.to_be_bytes(),
            &UNSET.to_be_bytes(),
        ];
        let places = bytes.iter_mut();
        for (place, byte) in places.zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        bytes
    }

    /// Whether the place is in use.
    pub fn is_used(&self) -> bool {
        self.physical_offset >= 0 && self.size > 0 && self.base >= 0 && self.count > 0
    }
}

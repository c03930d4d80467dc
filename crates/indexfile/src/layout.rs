//! The bytes of an index file: where each field lies, and the arithmetic of slots and entries.
//!
//! All integers are big-endian. Source: RocketMQ 5.3.3 `IndexHeader` and `IndexFile`.
//!
//! | part | offset | size | content |
//! |---|---|---|---|
//! | header | 0 | 40 | see the constants below |
//! | slots | 40 | 4 x slot count | ordinal of the newest entry of the slot's chain, 0 = none |
//! | entries | 40 + 4 x slot count | 20 x entry count | see [`IndexEntry`]; entry 0 is never used |

/// Store time of the file's first message, i64, milliseconds.
pub(crate) const BEGIN_TIMESTAMP: usize = 0;
/// Store time of the file's last message, i64, milliseconds.
pub(crate) const END_TIMESTAMP: usize = BEGIN_TIMESTAMP + 8;
/// Commit-log offset of the file's first message, i64.
pub(crate) const BEGIN_PHYSICAL_OFFSET: usize = END_TIMESTAMP + 8;
/// Commit-log offset of the file's last message, i64.
pub(crate) const END_PHYSICAL_OFFSET: usize = BEGIN_PHYSICAL_OFFSET + 8;
/// Count of slots that have a chain, i32.
pub(crate) const USED_SLOT_COUNT: usize = END_PHYSICAL_OFFSET + 8;
/// Both counts as one cell, so that a process which is killed leaves both or neither: that of the
/// slots in the upper half.
pub(crate) const COUNTS: usize = USED_SLOT_COUNT;
/// Ordinal of the next entry, i32; starts at 1.
pub(crate) const NEXT_ENTRY: usize = USED_SLOT_COUNT + 4;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = NEXT_ENTRY + 4;
/// Length of a slot in bytes.
pub const SLOT_LEN: usize = 4;
/// Length of an entry in bytes.
pub const ENTRY_LEN: usize = 20;
/// Ordinal of the first entry that is used; 0 stands for "none" in slots and chains.
pub const FIRST_ENTRY: u32 = 1;

const _: () = assert!(HEADER_LEN == 40, "IndexHeader.INDEX_HEADER_SIZE");
// Entries and slots are accessed as 4-byte atomic cells.
const _: () = assert!(HEADER_LEN.is_multiple_of(8) && ENTRY_LEN.is_multiple_of(4));

/// The two counts that fix an index file's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Count of hash slots.
    pub slot_count: u32,
    /// Count of entries, of which the first is never used.
    pub entry_count_max: u32,
}

impl Layout {
    /// Length of the whole file in bytes.
    pub fn file_len(self) -> u64 {
        self.entry_position(self.entry_count_max) as u64
    }

    /// Position of slot `slot`.
    pub fn slot_position(self, slot: u32) -> usize {
        HEADER_LEN + SLOT_LEN * slot as usize
    }

    /// Position of entry `ordinal`.
    pub fn entry_position(self, ordinal: u32) -> usize {
        HEADER_LEN + SLOT_LEN * self.slot_count as usize + ENTRY_LEN * ordinal as usize
    }

    /// The slot that a key's hash falls into.
    pub fn slot_of(self, key_hash: i32) -> u32 {
        debug_assert!(key_hash >= 0);
        key_hash.unsigned_abs() % self.slot_count
    }
}

/// One entry, 20 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset 0, i32: see `key_hash`.
    pub key_hash: i32,
    /// Offset 4, i64: the message's commit-log offset.
    pub physical_offset: i64,
    /// Offset 12, i32: whole seconds between the header's begin timestamp and the store time.
    pub seconds_since_begin: i32,
    /// Offset 16, i32: ordinal of the next older entry of the same slot, 0 = none.
    pub previous: i32,
}

impl IndexEntry {
    /// The bytes on disk.
    pub fn encode(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[0..4].copy_from_slice(&self.key_hash.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.physical_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.seconds_since_begin.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.previous.to_be_bytes());
        bytes
    }

    /// Reads the bytes on disk; whether they make sense is asked elsewhere.
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> Self {
        let [
            h0,
            h1,
            h2,
            h3,
            o0,
            o1,
            o2,
            o3,
            o4,
            o5,
            o6,
            o7,
            t0,
            t1,
            t2,
            t3,
            p0,
            p1,
            p2,
            p3,
        ] = *bytes;
        Self {
            key_hash: i32::from_be_bytes([h0, h1, h2, h3]),
            physical_offset: i64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            seconds_since_begin: i32::from_be_bytes([t0, t1, t2, t3]),
            previous: i32::from_be_bytes([p0, p1, p2, p3]),
        }
    }
}

/// The six header fields as values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Store time of the first message.
    pub begin_timestamp_ms: i64,
    /// Store time of the last message.
    pub end_timestamp_ms: i64,
    /// Commit-log offset of the first message.
    pub begin_physical_offset: i64,
    /// Commit-log offset of the last message.
    pub end_physical_offset: i64,
    /// Count of slots that have a chain.
    pub used_slot_count: u32,
    /// Ordinal of the next entry: entries `1..next_entry` are in use.
    pub next_entry: u32,
}

impl Header {
    /// Decodes a header; a next-entry ordinal below 1 means 1, as in `IndexHeader.load`.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let wide = |position: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[position..position + 8]);
            i64::from_be_bytes(field)
        };
        let narrow = |position: usize| {
            let mut field = [0; 4];
            field.copy_from_slice(&bytes[position..position + 4]);
            u32::try_from(i32::from_be_bytes(field)).unwrap_or(0)
        };
        Self {
            begin_timestamp_ms: wide(BEGIN_TIMESTAMP),
            end_timestamp_ms: wide(END_TIMESTAMP),
            begin_physical_offset: wide(BEGIN_PHYSICAL_OFFSET),
            end_physical_offset: wide(END_PHYSICAL_OFFSET),
            used_slot_count: narrow(USED_SLOT_COUNT),
            next_entry: narrow(NEXT_ENTRY).max(FIRST_ENTRY),
        }
    }

    /// Whether no entry has been put yet; the other fields are then what the previous file left.
    pub fn is_empty(&self) -> bool {
        self.next_entry <= FIRST_ENTRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_sizes_are_rocketmqs() {
        let layout = Layout {
            slot_count: 5_000_000,
            entry_count_max: 20_000_000,
        };
        assert_eq!(layout.file_len(), 420_000_040);
        // Storage spec 19.2: 100 slots, 400 entries.
        let small = Layout {
            slot_count: 100,
            entry_count_max: 400,
        };
        assert_eq!(small.file_len(), 8440);
    }

    #[test]
    fn entry_round_trip() {
        let entry = IndexEntry {
            key_hash: 7,
            physical_offset: 0x0102_0304_0506_0708,
            seconds_since_begin: 9,
            previous: 3,
        };
        let bytes = entry.encode();
        assert_eq!(&bytes[4..12], &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(IndexEntry::decode(&bytes), entry);
    }

    #[test]
    fn header_of_the_vector_store() {
        // Storage spec 19.2: the end of the header after 11 messages of three keys each.
        let mut bytes = [0; HEADER_LEN];
        bytes[24..].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0x17, 0, 0, 0, 0x22]);
        let header = Header::decode(&bytes);
        assert_eq!(header.end_physical_offset, 8192);
        assert_eq!(header.used_slot_count, 23);
        assert_eq!(header.next_entry, 34);
        assert!(Header::decode(&[0; HEADER_LEN]).is_empty());
    }
}

//! The index entry of an item: 32 bytes, big-endian, at byte `number * 32` of the index.

use crc32fast::Hasher;

use crate::bytes::{put, u32_at, u64_at};

/// Bytes of an index entry.
pub const ENTRY_LEN: u64 = 32;

const LEN: usize = ENTRY_LEN as usize;
/// The letters `FMPI`: an entry is never all zeros.
const MAGIC: u32 = 0x464D_5049;

const OFFSET: usize = 0;
const TIME: usize = OFFSET + 8;
const ITEM_LEN: usize = TIME + 8;
const ITEM_CRC: usize = ITEM_LEN + 4;
const MAGIC_AT: usize = ITEM_CRC + 4;
const ENTRY_CRC: usize = MAGIC_AT + 4;
const _: () = assert!(ENTRY_CRC + 4 == LEN);

/// Where an item lies, when it was stored, and how it is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Of the item's first byte, in the address space of the item pages.
    pub(crate) offset: u64,
    pub(crate) time_ms: i64,
    pub(crate) len: u32,
    /// CRC-32 of the item's bytes.
    pub(crate) crc: u32,
}

impl Entry {
    pub(crate) fn encode(&self, number: u64) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        put(&mut bytes, OFFSET, &self.offset.to_be_bytes());
        put(&mut bytes, TIME, &self.time_ms.to_be_bytes());
        put(&mut bytes, ITEM_LEN, &self.len.to_be_bytes());
        put(&mut bytes, ITEM_CRC, &self.crc.to_be_bytes());
        put(&mut bytes, MAGIC_AT, &MAGIC.to_be_bytes());
        let crc = entry_crc(number, &bytes);
        put(&mut bytes, ENTRY_CRC, &crc.to_be_bytes());
        bytes
    }

    /// The entry that these bytes are for this item number; else what is wrong with them.
    pub(crate) fn decode(number: u64, bytes: &[u8; LEN]) -> Result<Self, &'static str> {
        if u32_at(bytes, MAGIC_AT) != MAGIC {
            return Err("there is no index entry in its place");
        }
        if u32_at(bytes, ENTRY_CRC) != entry_crc(number, bytes) {
            return Err("the CRC of its index entry differs");
        }
        Ok(Self {
            offset: u64_at(bytes, OFFSET),
            time_ms: u64_at(bytes, TIME).cast_signed(),
            len: u32_at(bytes, ITEM_LEN),
            crc: u32_at(bytes, ITEM_CRC),
        })
    }

    /// The offset behind the item.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// Over the item's number too, so that an entry in another's place is none.
fn entry_crc(number: u64, bytes: &[u8; LEN]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&number.to_be_bytes());
    hasher.update(&bytes[..ENTRY_CRC]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_only_in_its_place_and_unchanged() {
        let entry = Entry {
            offset: 1 << 40,
            time_ms: -5,
            len: 77,
            crc: 0xDEAD_BEEF,
        };
        let bytes = entry.encode(1_000_000_000);
        assert_eq!(Entry::decode(1_000_000_000, &bytes), Ok(entry));
        assert!(Entry::decode(1_000_000_001, &bytes).is_err());
        assert!(Entry::decode(0, &[0; LEN]).is_err());
        for bit in 0..LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Entry::decode(1_000_000_000, &flipped).is_err(), "bit {bit}");
        }
    }
}

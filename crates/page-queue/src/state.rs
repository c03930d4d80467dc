//! The file `state`: the sizes the queue was made with, where it begins, and a mark up to which it
//! is known to be whole, so that recovery need not read everything. Replaced as a whole.

use std::path::{Path, PathBuf};

use crc32fast::hash;
use mmap_core::Io;

use crate::bytes::{put, u32_at, u64_at};
use crate::error::PageQueueError;

const LEN: usize = 64;
/// The letters `FMPQ`.
const MAGIC: u32 = 0x464D_5051;
const VERSION: u32 = 1;

const VERSION_AT: usize = 4;
const PAGE_LEN: usize = VERSION_AT + 4;
const INDEX_PAGE_ITEMS: usize = PAGE_LEN + 8;
const FIRST: usize = INDEX_PAGE_ITEMS + 8;
const MARK_NUMBER: usize = FIRST + 8;
const MARK_ITEM_END: usize = MARK_NUMBER + 8;
const MARK_TIME: usize = MARK_ITEM_END + 8;
const CLOSED: usize = MARK_TIME + 8;
const CRC: usize = CLOSED + 4;
const _: () = assert!(CRC + 4 == LEN);

const REMEDY: &str = "remove it, and opening reads every item to find the end";

/// An end of the queue: everything below it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number behind the last item.
    pub(crate) number: u64,
    /// The offset behind the last item.
    pub(crate) item_end: u64,
    /// The time of the last item.
    pub(crate) time_ms: i64,
}

/// The content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) page_len: u64,
    pub(crate) index_page_items: u64,
    /// The first item held.
    pub(crate) first: u64,
    pub(crate) mark: Mark,
    /// Nothing was written behind the mark.
    pub(crate) is_closed: bool,
}

impl State {
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("state")
    }

    /// `None` if there is no such file.
    pub(crate) fn load<I: Io>(io: &I, dir: &Path) -> Result<Option<Self>, PageQueueError> {
        let path = Self::path(dir);
        let bytes = match io.read(&path, LEN as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let state = bytes.first_chunk().and_then(Self::decode);
        match state {
            Some(state) => Ok(Some(state)),
            None => Err(PageQueueError::DamagedFile {
                path,
                remedy: REMEDY,
            }),
        }
    }

    /// Replaces the file; durable on return.
    pub(crate) fn save<I: Io>(&self, io: &I, dir: &Path) -> Result<(), PageQueueError> {
        Ok(io.replace(&Self::path(dir), &self.encode(), None)?)
    }

    fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        put(&mut bytes, 0, &MAGIC.to_be_bytes());
        put(&mut bytes, VERSION_AT, &VERSION.to_be_bytes());
        put(&mut bytes, PAGE_LEN, &self.page_len.to_be_bytes());
        put(
            &mut bytes,
            INDEX_PAGE_ITEMS,
            &self.index_page_items.to_be_bytes(),
        );
        put(&mut bytes, FIRST, &self.first.to_be_bytes());
        put(&mut bytes, MARK_NUMBER, &self.mark.number.to_be_bytes());
        put(&mut bytes, MARK_ITEM_END, &self.mark.item_end.to_be_bytes());
        put(&mut bytes, MARK_TIME, &self.mark.time_ms.to_be_bytes());
        put(&mut bytes, CLOSED, &u32::from(self.is_closed).to_be_bytes());
        let crc = hash(&bytes[..CRC]);
        put(&mut bytes, CRC, &crc.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        let is_known = u32_at(bytes, 0) == MAGIC && u32_at(bytes, VERSION_AT) == VERSION;
        if !is_known || u32_at(bytes, CRC) != hash(&bytes[..CRC]) {
            return None;
        }
        Some(Self {
            page_len: u64_at(bytes, PAGE_LEN),
            index_page_items: u64_at(bytes, INDEX_PAGE_ITEMS),
            first: u64_at(bytes, FIRST),
            mark: Mark {
                number: u64_at(bytes, MARK_NUMBER),
                item_end: u64_at(bytes, MARK_ITEM_END),
                time_ms: u64_at(bytes, MARK_TIME).cast_signed(),
            },
            is_closed: u32_at(bytes, CLOSED) != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_or_not_at_all() {
        let state = State {
            page_len: 4096,
            index_page_items: 100,
            first: 7,
            mark: Mark {
                number: 9,
                item_end: 1 << 33,
                time_ms: i64::MIN,
            },
            is_closed: true,
        };
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes), Some(state));
        for bit in 0..LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(State::decode(&flipped), None, "bit {bit}");
        }
    }
}

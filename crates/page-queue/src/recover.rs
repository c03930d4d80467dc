//! Where a queue ends that was not closed: behind the last item of which index entry and bytes are
//! whole. Read by `pread`, so that what the device cannot read is an error and not a signal.

use crc32fast::hash;
use mmap_core::Io;
use segment_queue::SegmentQueue;

use crate::entry::{ENTRY_LEN, Entry};
use crate::error::PageQueueError;
use crate::state::Mark;

/// Index entries read at a time.
const CHUNK: u64 = 512;

/// What walking over the items found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first item whose page is there.
    pub(crate) first: u64,
    pub(crate) end: Mark,
    pub(crate) checked_count: u64,
}

/// The pages of a queue, all of them taken as full, as a freshly opened queue has them.
pub(crate) struct Pages<'a, I: Io> {
    pub(crate) items: &'a SegmentQueue<I>,
    pub(crate) index: &'a SegmentQueue<I>,
}

impl<I: Io> Pages<'_, I> {
    /// Walks from a mark to the first item that is not whole; from the first item in the index if
    /// there is no mark.
    pub(crate) fn find_end(&self, first: u64, mark: Option<Mark>) -> Result<Found, PageQueueError> {
        let mut found = Found {
            first,
            end: mark.unwrap_or(Mark {
                number: first,
                item_end: self.items.min_offset(),
                time_ms: i64::MIN,
            }),
            checked_count: 0,
        };
        let capacity = self.index.published() / ENTRY_LEN;
        let mut item = Vec::new();
        while found.end.number < capacity {
            let number = found.end.number;
            let count = CHUNK.min(capacity - number);
            let mut bytes = vec![0; (count * ENTRY_LEN) as usize];
            self.index.read_exact_at(number * ENTRY_LEN, &mut bytes)?;
            let (entries, _) = bytes.as_chunks();
            for entry in entries {
                let Ok(entry) = Entry::decode(found.end.number, entry) else {
                    return Ok(found);
                };
                if !self.step(&mut found, entry, &mut item)? {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Goes over one item; false if it is not whole.
    fn step(
        &self,
        found: &mut Found,
        entry: Entry,
        item: &mut Vec<u8>,
    ) -> Result<bool, PageQueueError> {
        let number = found.end.number;
        let is_gone = entry.offset < self.items.min_offset();
        if is_gone && found.first == number {
            // Trimmed, which the index tells in whole pages only.
            found.first = number + 1;
        } else if !self.follows(&found.end, &entry, found.first == number) {
            return Ok(false);
        } else {
            item.resize(entry.len as usize, 0);
            self.items.read_exact_at(entry.offset, item)?;
            if hash(item) != entry.crc {
                return Ok(false);
            }
            found.checked_count += 1;
        }
        found.end = Mark {
            number: number + 1,
            item_end: entry.end(),
            time_ms: entry.time_ms,
        };
        Ok(true)
    }

    /// Whether an item can lie where its entry says: behind the one before, or, if it is the first
    /// of its page or of the queue, anywhere there.
    fn follows(&self, before: &Mark, entry: &Entry, is_first: bool) -> bool {
        let page_len = self.items.segment_len();
        let is_placed = entry.offset == before.item_end
            || entry.offset > before.item_end
                && (is_first || entry.offset.is_multiple_of(page_len));
        let last = entry.end().max(entry.offset + 1) - 1;
        is_placed
            && entry.time_ms >= before.time_ms
            && entry.end() <= self.items.published()
            && entry.offset / page_len == last / page_len
    }
}

//! Reading entries without copying them.

use std::fmt;
use std::ops::Range;

use mmap_core::{Io, IoError, MapSlice, OsIo, RawMap, read_ahead};

use crate::entry::{ENTRY_LEN, Entry};

/// Bytes that are read at once for a reader who goes through a queue: 6,500 entries.
const READ_AHEAD_LEN: usize = 128 * 1024;

/// Consecutive entries of one file. They keep their mapping alive: trimming and closing do not
/// disturb them.
pub struct Entries<I: Io = OsIo> {
    pub(crate) first_index: i64,
    pub(crate) bytes: MapSlice<I::Map>,
}

impl<I: Io> Entries<I> {
    /// Index of the first entry.
    pub fn first_index(&self) -> i64 {
        self.first_index
    }

    /// Index behind the last entry.
    pub fn next_index(&self) -> i64 {
        self.first_index + (self.bytes.len() / ENTRY_LEN).cast_signed() as i64
    }

    /// The entries with their indexes; fillers, which stand for no message, are passed over.
    pub fn iter(&self) -> EntryIter<'_> {
        let (entries, _) = self.bytes.as_chunks();
        EntryIter {
            index: self.first_index,
            entries: entries.iter(),
        }
    }
}

impl<'a, I: Io> IntoIterator for &'a Entries<I> {
    type Item = (i64, Entry);
    type IntoIter = EntryIter<'a>;

    fn into_iter(self) -> EntryIter<'a> {
        self.iter()
    }
}

impl<I: Io> fmt::Debug for Entries<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entries({}..{})", self.first_index, self.next_index())
    }
}

/// Entries with their indexes, decoded one by one.
#[derive(Clone, Debug)]
pub struct EntryIter<'a> {
    index: i64,
    entries: std::slice::Iter<'a, [u8; ENTRY_LEN]>,
}

impl EntryIter<'_> {
    /// The next entry, if its index is below `end`.
    #[inline]
    pub fn next_below(&mut self, end: i64) -> Option<(i64, Entry)> {
        (self.index < end).then(|| self.next()).flatten()
    }
}

impl Iterator for EntryIter<'_> {
    type Item = (i64, Entry);

    #[inline]
    fn next(&mut self) -> Option<(i64, Entry)> {
        for bytes in self.entries.by_ref() {
            let index = self.index;
            self.index += 1;
            let entry = Entry::decode(bytes);
            if !entry.is_filler() {
                return Some((index, entry));
            }
        }
        None
    }
}

/// Brings entries into memory, and those behind them if their first page is there: then the reader
/// comes from the entries before, and would wait for each page of its queue.
pub(crate) fn read_pages<M: RawMap>(map: &M, range: Range<usize>) -> Result<(), IoError> {
    let first = map.resident(range.start..range.start + 1);
    if first.is_ok_and(|found| found.resident == found.pages) {
        read_ahead(map, range.start..range.start + READ_AHEAD_LEN);
    }
    map.populate_read(range)
}

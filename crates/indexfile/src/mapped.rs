//! A mapped index file: the one that is written, and full ones until they are synced.
//!
//! One thread writes (the service's writer lock sees to that), any number read at the same time.
//! Every access goes through atomic cells. An entry is written first and published by the Release
//! store of its slot; a reader Acquires the slot and then copies the entry, so it never sees a
//! part of one. Entries never change once published.

use std::sync::atomic::{AtomicBool, Ordering};

use mmap_core::{Access, Advice, CellRegion, Io, IoError, IoFile, RawMap, read_ahead};

use crate::blocks::Blocks;
use crate::layout::{
    BEGIN_PHYSICAL_OFFSET, BEGIN_TIMESTAMP, COUNTS, END_PHYSICAL_OFFSET, END_TIMESTAMP, ENTRY_LEN,
    FIRST_ENTRY, HEADER_LEN, Header, IndexEntry, Layout, SLOT_LEN,
};
use crate::select::IndexRead;

/// Slots of 4 KiB.
const SLOTS_PER_PAGE: u32 = 4096 / SLOT_LEN as u32;

/// What a key's entry says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry {
    pub(crate) key_hash: i32,
    pub(crate) physical_offset: i64,
    pub(crate) store_timestamp_ms: i64,
}

/// A file of cells.
#[derive(Debug)]
pub(crate) struct MappedIndex<I: Io> {
    layout: Layout,
    file: I::File,
    cells: CellRegion<I::Map>,
    /// Set by the writer (Release) after each put, cleared by the flusher (Acquire) before it
    /// syncs: what was put before the clearing is in that sync.
    dirty: AtomicBool,
}

impl<I: Io> MappedIndex<I> {
    /// Maps a file whose length the caller has checked.
    pub(crate) fn new(file: I::File, layout: Layout) -> Result<Self, IoError> {
        let len = usize::try_from(layout.file_len()).map_err(|_| {
            IoError::invalid(
                "map",
                file.path(),
                "the file is larger than the address space",
            )
        })?;
        let map = file.map(0, len, Access::ReadWrite)?;
        // Slots and chains jump about: reading ahead would only fill the page cache, with
        // megabytes of zeros for the first entry of a file.
        map.advise(Advice::Random, 0..len)?;
        // The header's cells are 8 bytes wide, all others 4.
        let cells = CellRegion::new(map, HEADER_LEN);
        Ok(Self {
            layout,
            file,
            cells,
            dirty: AtomicBool::new(false),
        })
    }

    /// Writes the header of a new file, which continues the one before.
    pub(crate) fn seed(&self, blocks: &mut Blocks, previous: &Header) -> Result<(), IoError> {
        blocks.ensure(&self.file, 0, HEADER_LEN)?;
        // RocketMQ 5.3.3 IndexFile: only values above 0 are taken over.
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        let offset = positive(previous.end_physical_offset);
        let timestamp = positive(previous.end_timestamp_ms);
        self.cells
            .store_u64(BEGIN_PHYSICAL_OFFSET, offset, Ordering::Relaxed);
        self.cells
            .store_u64(END_PHYSICAL_OFFSET, offset, Ordering::Relaxed);
        self.cells
            .store_u64(BEGIN_TIMESTAMP, timestamp, Ordering::Relaxed);
        self.cells
            .store_u64(END_TIMESTAMP, timestamp, Ordering::Relaxed);
        self.store_counts(0, FIRST_ENTRY);
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.next_entry() >= self.layout.entry_count_max
    }

    /// Has the kernel read what puts touch: the slots, 20 MB of a default file, and the end of the
    /// entries. A put would wait for the device at each page of them, and producers with it.
    pub(crate) fn read_ahead(&self) {
        let (used, next_entry) = self.counts();
        // Of slots that few keys have used most pages have no blocks, and nothing to wait for.
        if used > self.layout.slot_count / SLOTS_PER_PAGE {
            read_ahead(self.cells.map(), 0..self.layout.entry_position(0));
        }
        let end = self.layout.entry_position(next_entry);
        read_ahead(self.cells.map(), end..end + 1);
    }

    /// Loads the slots of keys that are about to be put. Each lies somewhere in 20 MB: loaded one
    /// behind the other their cache misses overlap, in between of puts they do not.
    pub(crate) fn bring_in_slots(&self, hashes: impl Iterator<Item = i32>) {
        let load = |hash| {
            let slot = self.layout.slot_of(hash);
            let position = self.layout.slot_position(slot);
            self.cells.load_u32(position, Ordering::Relaxed)
        };
        // What they say is asked for again.
        std::hint::black_box(hashes.map(load).fold(0, u32::wrapping_add));
    }

    /// Adds an entry. Only the writer calls this, on a file that is not full.
    ///
    /// # Errors
    /// A full disk, before anything is changed.
    pub(crate) fn put(&self, blocks: &mut Blocks, new: NewEntry) -> Result<(), IoError> {
        let (used, ordinal) = self.counts();
        debug_assert!(ordinal < self.layout.entry_count_max);
        let slot = self.layout.slot_of(new.key_hash);
        let slot_position = self.layout.slot_position(slot);
        let entry_position = self.layout.entry_position(ordinal);
        blocks.ensure(&self.file, 0, HEADER_LEN)?;
        blocks.ensure(&self.file, slot_position, SLOT_LEN)?;
        blocks.ensure(&self.file, entry_position, ENTRY_LEN)?;

        let previous = self.chain_before(slot_position, ordinal);
        // For the first entry this is the time that the previous file left; it is overwritten
        // below, and RocketMQ keeps the difference to it all the same.
        let begin_ms = self.signed(BEGIN_TIMESTAMP);
        let entry = IndexEntry {
            key_hash: new.key_hash,
            physical_offset: new.physical_offset,
            seconds_since_begin: seconds_since(begin_ms, new.store_timestamp_ms),
            previous: previous.cast_signed(),
        };
        self.cells.write_words(entry_position, &entry.encode());
        let offset = new.physical_offset.cast_unsigned();
        let timestamp = new.store_timestamp_ms.cast_unsigned();
        if ordinal <= FIRST_ENTRY {
            self.cells
                .store_u64(BEGIN_PHYSICAL_OFFSET, offset, Ordering::Relaxed);
            self.cells
                .store_u64(BEGIN_TIMESTAMP, timestamp, Ordering::Relaxed);
        }
        self.cells
            .store_u32(slot_position, ordinal, Ordering::Release);
        self.cells
            .store_u64(END_PHYSICAL_OFFSET, offset, Ordering::Relaxed);
        self.cells
            .store_u64(END_TIMESTAMP, timestamp, Ordering::Relaxed);
        let used = used.wrapping_add(u32::from(previous == 0));
        self.store_counts(used, ordinal + 1);
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes back the put that a killed process was at, if it was counted no more: its slot leads to
    /// it, and it would pass for one that is there until the next put overwrites it. For a file whose
    /// pages are as that process left them; nothing is lost if this is cut short as well.
    pub(crate) fn take_back_uncounted(&self) {
        let ordinal = self.next_entry();
        if ordinal >= self.layout.entry_count_max {
            return;
        }
        let left = self.copy_entry(ordinal);
        if left == IndexEntry::default() || left.key_hash < 0 {
            return;
        }
        let slot_position = self
            .layout
            .slot_position(self.layout.slot_of(left.key_hash));
        if self.cells.load_u32(slot_position, Ordering::Relaxed) == ordinal {
            let previous = self.chain_before(slot_position, ordinal);
            self.cells
                .store_u32(slot_position, previous, Ordering::Release);
        }
        if ordinal > FIRST_ENTRY && self.signed(END_PHYSICAL_OFFSET) == left.physical_offset {
            self.end_with(&self.copy_entry(ordinal - 1), ordinal == FIRST_ENTRY + 1);
        }
        // A disk without a free block is no reason to touch a page that may have none.
        let position = self.layout.entry_position(ordinal);
        let mut blocks = Blocks::new(self.cells.len());
        if blocks.ensure(&self.file, position, ENTRY_LEN).is_ok() {
            let zeros = IndexEntry::default().encode();
            self.cells.write_words(position, &zeros);
        }
        self.mark_dirty();
    }

    /// Lets the header end with an entry. Of its time only the second is known: the last one counts
    /// in full, so that a search by time does not pass the file over.
    fn end_with(&self, last: &IndexEntry, is_only: bool) {
        let begin_ms = self.signed(BEGIN_TIMESTAMP);
        let since_ms = match is_only {
            true => 0,
            false => i64::from(last.seconds_since_begin) * 1000 + 999,
        };
        let end_ms = begin_ms.saturating_add(since_ms).cast_unsigned();
        let offset = last.physical_offset.cast_unsigned();
        if self.signed(END_PHYSICAL_OFFSET) != last.physical_offset {
            self.cells
                .store_u64(END_TIMESTAMP, end_ms, Ordering::Relaxed);
            self.cells
                .store_u64(END_PHYSICAL_OFFSET, offset, Ordering::Relaxed);
        }
    }

    /// What the file holds may not be durable, though nothing was put to it here.
    pub(crate) fn mark_dirty(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// Makes durable what was put.
    pub(crate) fn sync(&self) -> Result<(), IoError> {
        // The mark follows the count, so a full file is synced whatever the mark says: this is
        // the last time.
        let dirty = self.dirty.swap(false, Ordering::AcqRel);
        if dirty || self.is_full() {
            self.file.sync_data()
        } else {
            Ok(())
        }
    }

    /// What a new entry of the slot continues: the ordinal of the slot's newest entry, or 0.
    fn chain_before(&self, slot_position: usize, ordinal: u32) -> u32 {
        let newest = self.cells.load_u32(slot_position, Ordering::Relaxed);
        if newest == ordinal {
            // A writer died between its slot and its count. It had written the entry: go on from
            // what that entry continued, else the chain would end in a loop.
            let left = self.copy_entry(ordinal);
            return u32::try_from(left.previous)
                .ok()
                .filter(|entry| *entry < ordinal)
                .unwrap_or(0);
        }
        if newest > ordinal { 0 } else { newest }
    }

    fn copy_entry(&self, ordinal: u32) -> IndexEntry {
        let mut bytes = [0; ENTRY_LEN];
        self.cells
            .copy_out(self.layout.entry_position(ordinal), &mut bytes);
        IndexEntry::decode(&bytes)
    }

    fn next_entry(&self) -> u32 {
        self.counts().1
    }

    /// Count of slots that have a chain, and ordinal of the next entry.
    fn counts(&self) -> (u32, u32) {
        let counts = self.cells.load_u64(COUNTS, Ordering::Acquire);
        let next_entry = i32::try_from(counts & u64::from(u32::MAX)).unwrap_or(0);
        let next_entry = next_entry.cast_unsigned().max(FIRST_ENTRY);
        ((counts >> 32) as u32, next_entry)
    }

    /// Pairs with the Acquire in [`counts`](Self::counts): who sees the counts sees the entry, its
    /// slot, and the other fields.
    fn store_counts(&self, used_slot_count: u32, next_entry: u32) {
        let counts = u64::from(used_slot_count) << 32 | u64::from(next_entry);
        self.cells.store_u64(COUNTS, counts, Ordering::Release);
    }

    fn signed(&self, position: usize) -> i64 {
        self.cells
            .load_u64(position, Ordering::Relaxed)
            .cast_signed()
    }
}

impl<I: Io> IndexRead for MappedIndex<I> {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn header(&self) -> Header {
        let (used_slot_count, next_entry) = self.counts();
        Header {
            begin_timestamp_ms: self.signed(BEGIN_TIMESTAMP),
            end_timestamp_ms: self.signed(END_TIMESTAMP),
            begin_physical_offset: self.signed(BEGIN_PHYSICAL_OFFSET),
            end_physical_offset: self.signed(END_PHYSICAL_OFFSET),
            used_slot_count,
            next_entry,
        }
    }

    fn slot(&self, slot: u32) -> Result<i32, IoError> {
        let position = self.layout.slot_position(slot);
        Ok(self
            .cells
            .load_u32(position, Ordering::Acquire)
            .cast_signed())
    }

    fn entry(&self, ordinal: u32) -> Result<IndexEntry, IoError> {
        Ok(self.copy_entry(ordinal))
    }
}

/// Whole seconds from `begin_ms` to `timestamp_ms` as the format keeps them: 0 without a begin or
/// for a time before it, at most `i32::MAX` (RocketMQ 5.3.3 `IndexFile.putKey`).
fn seconds_since(begin_ms: i64, timestamp_ms: i64) -> i32 {
    if begin_ms <= 0 {
        return 0;
    }
    let seconds = timestamp_ms.saturating_sub(begin_ms) / 1000;
    i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_differences_are_clamped() {
        assert_eq!(seconds_since(0, 5_000), 0);
        assert_eq!(seconds_since(-1, 5_000), 0);
        assert_eq!(seconds_since(1_000, 2_999), 1);
        assert_eq!(seconds_since(9_000, 1_000), 0);
        assert_eq!(seconds_since(1, i64::MAX), i32::MAX);
    }
}

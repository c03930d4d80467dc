//! Finding what of an index file is whole, cutting off the rest, and building its slots again.
//!
//! Entries are written once, in order, and each names the entry that its slot had before. So a
//! file can be checked from its entries alone: replay them over empty slots, and stop at the first
//! one that does not fit. The slots that the replay leaves are the right ones, whatever the file
//! says. This costs a sequential read of the entries in use and no look at the commit log.
//!
//! Nothing is written before the scan has decided. All access is by read and write calls, on a
//! file that is not mapped.

use mmap_core::{IoError, IoFile};

use crate::layout::{ENTRY_LEN, FIRST_ENTRY, HEADER_LEN, Header, IndexEntry, Layout, SLOT_LEN};

/// Entries read at once, and slots compared at once.
const CHUNK_COUNT: u32 = 16 * 1024;

/// What a device writes whole or not at all.
const SECTOR_LEN: usize = 512;

/// What a repair writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Only what is to differ: what the device holds is what was read.
    Differences,
    /// Everything that is kept: it may have been read from a page that was never written.
    All,
}

/// What replaying a file's entries found.
#[derive(Debug)]
pub(crate) struct Scan {
    layout: Layout,
    /// Newest entry of each slot, 0 = none.
    slots: Vec<u32>,
    /// Ordinal behind the last good entry.
    next_entry: u32,
    /// Whether the next entry is whole, of a message beyond the log's end.
    reached_log_end: bool,
    /// The last good entry and the one before.
    last: IndexEntry,
    before_last: IndexEntry,
}

impl Scan {
    /// Replays the entries that lie below `log_end`, up to the first that is not whole.
    pub(crate) fn run<F: IoFile>(
        file: &F,
        layout: Layout,
        header: &Header,
        log_end: u64,
    ) -> Result<Self, IoError> {
        let mut scan = Self {
            layout,
            slots: vec![0; layout.slot_count as usize],
            next_entry: FIRST_ENTRY,
            reached_log_end: false,
            last: IndexEntry::default(),
            before_last: IndexEntry::default(),
        };
        let mut buf = vec![0; ENTRY_LEN * CHUNK_COUNT as usize];
        while scan.next_entry < layout.entry_count_max {
            let count = CHUNK_COUNT.min(layout.entry_count_max - scan.next_entry);
            let chunk = &mut buf[..ENTRY_LEN * count as usize];
            file.read_exact_at(chunk, layout.entry_position(scan.next_entry) as u64)?;
            let (entries, _) = chunk.as_chunks::<ENTRY_LEN>();
            for bytes in entries {
                let entry = IndexEntry::decode(bytes);
                if !scan.accept(entry, header, log_end) {
                    return Ok(scan);
                }
            }
        }
        Ok(scan)
    }

    /// Ordinal behind the last good entry.
    pub(crate) fn next_entry(&self) -> u32 {
        self.next_entry
    }

    /// Takes the last entry back if the entries end where no writer has left them, or if its end
    /// lies in a sector of its own and is zeros: it may be torn as well, in fields that nothing
    /// checks. Returns the offset of its message.
    pub(crate) fn drop_doubtful(&mut self, header: &Header) -> Option<u64> {
        if self.next_entry == FIRST_ENTRY {
            return None;
        }
        let left_so = self.reached_log_end || self.next_entry == header.next_entry;
        let is_cut_short = self.crosses_sector(self.next_entry - 1)
            && (self.last.seconds_since_begin, self.last.previous) == (0, 0);
        if left_so && !is_cut_short {
            return None;
        }
        let dropped = self.last;
        self.set_slot(dropped.key_hash, dropped.previous.cast_unsigned());
        self.next_entry -= 1;
        self.last = self.before_last;
        u64::try_from(dropped.physical_offset).ok()
    }

    /// The header that goes with the good entries.
    pub(crate) fn header(&self, old: &Header) -> Header {
        let used_slot_count = self.slots.iter().filter(|newest| **newest != 0).count();
        let used_slot_count = u32::try_from(used_slot_count).unwrap_or(u32::MAX);
        let ends_so = self.last.physical_offset == old.end_physical_offset;
        if self.next_entry == old.next_entry && ends_so {
            return Header {
                used_slot_count,
                ..*old
            };
        }
        // The last second counts in full, so that a search by time does not pass the file over.
        let end_timestamp_ms = if self.next_entry == FIRST_ENTRY + 1 {
            old.begin_timestamp_ms
        } else {
            let since = i64::from(self.last.seconds_since_begin) * 1000 + 999;
            old.begin_timestamp_ms.saturating_add(since)
        };
        Header {
            begin_timestamp_ms: old.begin_timestamp_ms,
            end_timestamp_ms,
            begin_physical_offset: old.begin_physical_offset,
            end_physical_offset: self.last.physical_offset,
            used_slot_count,
            next_entry: self.next_entry,
        }
    }

    /// Makes the file say what the scan found, durably: slots, header, and zeros over everything
    /// behind the good entries, so that no later scan takes it for good.
    ///
    /// It is synced also when nothing differs: after a kill the page cache may hold more than the
    /// device, and a file that is not put to any more is not synced again.
    pub(crate) fn apply<F: IoFile>(
        &self,
        file: &F,
        old: &Header,
        new: &Header,
        writes: Writes,
    ) -> Result<(), IoError> {
        self.write_slots(file, writes)?;
        if writes == Writes::All {
            self.write_entries_again(file)?;
        }
        self.clear_entries(file)?;
        if new != old || writes == Writes::All {
            file.write_all_at(&encode(new), 0)?;
        }
        file.sync_data()
    }

    /// Whether the device writes this entry in two parts.
    fn crosses_sector(&self, ordinal: u32) -> bool {
        self.layout.entry_position(ordinal) % SECTOR_LEN > SECTOR_LEN - ENTRY_LEN
    }

    /// Whether `entry` can be the next one; if so, takes it in.
    fn accept(&mut self, entry: IndexEntry, header: &Header, log_end: u64) -> bool {
        if entry == IndexEntry::default() || entry.key_hash < 0 || entry.seconds_since_begin < 0 {
            return false;
        }
        let Ok(offset) = u64::try_from(entry.physical_offset) else {
            return false;
        };
        let in_order = if self.next_entry == FIRST_ENTRY {
            entry.physical_offset == header.begin_physical_offset
        } else {
            entry.physical_offset >= self.last.physical_offset
        };
        let slot = self.layout.slot_of(entry.key_hash) as usize;
        let continues = self.slots.get(slot).copied() == Some(entry.previous.cast_unsigned());
        // Written in two parts, of which the first has not arrived.
        let is_headless = entry.key_hash == 0 && self.crosses_sector(self.next_entry);
        if !in_order || !continues || is_headless {
            return false;
        }
        if offset >= log_end {
            self.reached_log_end = true;
            return false;
        }
        self.set_slot(entry.key_hash, self.next_entry);
        self.next_entry += 1;
        self.before_last = self.last;
        self.last = entry;
        true
    }

    fn set_slot(&mut self, key_hash: i32, ordinal: u32) {
        let slot = self.layout.slot_of(key_hash) as usize;
        if let Some(newest) = self.slots.get_mut(slot) {
            *newest = ordinal;
        }
    }

    fn write_slots<F: IoFile>(&self, file: &F, writes: Writes) -> Result<(), IoError> {
        let mut position = self.layout.slot_position(0) as u64;
        let mut there = vec![0; SLOT_LEN * CHUNK_COUNT as usize];
        for chunk in self.slots.chunks(CHUNK_COUNT as usize) {
            let right: Vec<u8> = chunk
                .iter()
                .flat_map(|newest| newest.to_be_bytes())
                .collect();
            let there = &mut there[..right.len()];
            file.read_exact_at(there, position)?;
            if *there != *right || writes == Writes::All {
                file.write_all_at(&right, position)?;
            }
            position += right.len() as u64;
        }
        Ok(())
    }

    fn write_entries_again<F: IoFile>(&self, file: &F) -> Result<(), IoError> {
        let mut entries = vec![0; ENTRY_LEN * CHUNK_COUNT as usize];
        let mut ordinal = FIRST_ENTRY;
        while ordinal < self.next_entry {
            let count = CHUNK_COUNT.min(self.next_entry - ordinal);
            let position = self.layout.entry_position(ordinal) as u64;
            let chunk = &mut entries[..ENTRY_LEN * count as usize];
            file.read_exact_at(chunk, position)?;
            file.write_all_at(chunk, position)?;
            ordinal += count;
        }
        Ok(())
    }

    /// The kernel may have written any page of the tail, in any order: all of it is looked at.
    fn clear_entries<F: IoFile>(&self, file: &F) -> Result<(), IoError> {
        let zeros = vec![0; ENTRY_LEN * CHUNK_COUNT as usize];
        let mut there = zeros.clone();
        let mut ordinal = self.next_entry;
        while ordinal < self.layout.entry_count_max {
            let count = CHUNK_COUNT.min(self.layout.entry_count_max - ordinal);
            let position = self.layout.entry_position(ordinal) as u64;
            let len = ENTRY_LEN * count as usize;
            file.read_exact_at(&mut there[..len], position)?;
            if there[..len] != zeros[..len] {
                file.write_all_at(&zeros[..len], position)?;
            }
            ordinal += count;
        }
        Ok(())
    }
}

fn encode(header: &Header) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[0..8].copy_from_slice(&header.begin_timestamp_ms.to_be_bytes());
    bytes[8..16].copy_from_slice(&header.end_timestamp_ms.to_be_bytes());
    bytes[16..24].copy_from_slice(&header.begin_physical_offset.to_be_bytes());
    bytes[24..32].copy_from_slice(&header.end_physical_offset.to_be_bytes());
    bytes[32..36].copy_from_slice(&header.used_slot_count.to_be_bytes());
    bytes[36..40].copy_from_slice(&header.next_entry.to_be_bytes());
    bytes
}

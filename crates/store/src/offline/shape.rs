//! The sizes of a store's files, found from the files.

use std::collections::BTreeMap;
use std::path::Path;

use indexfile::{
    ENTRY_LEN, FIRST_ENTRY, HEADER_LEN, IndexEntry, IndexHeader, IndexLayout, IndexOptions,
    SLOT_LEN, is_index_name,
};
use mmap_core::{Access, FileKind, Io, IoError, IoFile};
use segment_queue::parse_segment_name;

use super::files::{StoreDirs, list_or_nothing};
use super::queue_files::queue_dirs;
use crate::options::StoreOptions;

/// RocketMQ's `mapperFileSizeBatchConsumeQueue`.
const BATCH_FILE_LEN_DEFAULT: u64 = 300_000 * 46;
/// Directories of queues that are looked at; all files of a store have one length.
const SAMPLED_DIRS_MAX: usize = 64;
/// Bytes of an index file that are searched at a time.
const CHUNK_LEN: usize = 1 << 20;

/// The lengths of a store's files, in bytes. They are part of the format: RocketMQ opens a store
/// with the lengths it was written with only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// A commit log file (`mappedFileSizeCommitLog`).
    pub segment_len: u64,
    /// A consume queue file (`mappedFileSizeConsumeQueue`).
    pub queue_file_len: u64,
    /// A file of a consume queue's extension (`mappedFileSizeConsumeQueueExt`).
    pub extension_file_len: u64,
    /// A batch consume queue file (`mapperFileSizeBatchConsumeQueue`).
    pub batch_queue_file_len: u64,
    /// Slots of an index file (`maxHashSlotNum`).
    pub index_slot_count: u32,
    /// Entries of an index file (`maxIndexNum`).
    pub index_entry_count_max: u32,
}

impl Shape {
    /// Finds the lengths that most files of each part have; where there are none, and where the
    /// files do not tell, those of `options` count.
    ///
    /// # Errors
    /// A directory or an index file cannot be read.
    pub fn detect<I: Io>(io: &I, options: &StoreOptions) -> Result<Self, IoError> {
        let dirs = StoreDirs::new(options);
        let index = options.index.clone().unwrap_or(IndexOptions::DEFAULT);
        let index = index_layout(io, &dirs.index, &index)?;
        let of_queues = |dir: &Path| -> Result<Option<u64>, IoError> {
            let mut lengths = Lengths::default();
            for queue in queue_dirs(io, dir)?.into_iter().take(SAMPLED_DIRS_MAX) {
                lengths.add(io, &queue.dir)?;
            }
            Ok(lengths.usual())
        };
        let mut log = Lengths::default();
        log.add(io, &dirs.log)?;
        Ok(Self {
            segment_len: log.usual().unwrap_or(options.segment_len),
            queue_file_len: of_queues(&dirs.queues)?.unwrap_or(options.queue_file_len),
            extension_file_len: of_queues(&dirs.extensions)?.unwrap_or(options.extension_file_len),
            batch_queue_file_len: of_queues(&dirs.batch_queues)?.unwrap_or(BATCH_FILE_LEN_DEFAULT),
            index_slot_count: index.slot_count,
            index_entry_count_max: index.entry_count_max,
        })
    }

    pub(crate) fn index_layout(&self) -> IndexLayout {
        IndexLayout {
            slot_count: self.index_slot_count,
            entry_count_max: self.index_entry_count_max,
        }
    }

    /// `options` with these lengths.
    pub fn apply_to(&self, options: &StoreOptions) -> StoreOptions {
        let mut options = options.clone();
        options.segment_len = self.segment_len;
        options.queue_file_len = self.queue_file_len;
        options.extension_file_len = self.extension_file_len;
        if let Some(index) = &mut options.index {
            index.slot_count = self.index_slot_count;
            index.entry_count_max = self.index_entry_count_max;
        }
        options
    }
}

/// How often each length occurs, and the least distance between two names.
#[derive(Debug, Default)]
struct Lengths {
    counts: BTreeMap<u64, usize>,
    least_distance: Option<u64>,
}

impl Lengths {
    fn add<I: Io>(&mut self, io: &I, dir: &Path) -> Result<(), IoError> {
        let mut last = None;
        for entry in list_or_nothing(io, dir)? {
            let Some(base) = parse_segment_name(&entry.name) else {
                continue;
            };
            if entry.kind == FileKind::File && entry.len > 0 {
                *self.counts.entry(entry.len).or_default() += 1;
            }
            if let Some(last) = last.replace(base) {
                let distance: u64 = base - last;
                self.least_distance =
                    Some(self.least_distance.map_or(distance, |d| d.min(distance)));
            }
        }
        Ok(())
    }

    /// The length of most files; of lengths that are as frequent, the one that the names say.
    fn usual(&self) -> Option<u64> {
        let most = self.counts.values().copied().max()?;
        let frequent = || self.counts.iter().filter(|(_, count)| **count == most);
        let named = frequent().find(|(len, _)| Some(**len) == self.least_distance);
        named
            .or_else(|| frequent().next_back())
            .map(|(len, _)| *len)
    }
}

/// The counts of an index file: those given if they fit a file's length, RocketMQ's if they do,
/// else found by looking for the last entry, whose slot must point at it.
fn index_layout<I: Io>(io: &I, dir: &Path, options: &IndexOptions) -> Result<IndexLayout, IoError> {
    let layout = |options: &IndexOptions| IndexLayout {
        slot_count: options.slot_count,
        entry_count_max: options.entry_count_max,
    };
    let given = layout(options);
    let default = layout(&IndexOptions::DEFAULT);
    for entry in list_or_nothing(io, dir)? {
        let is_index = entry.name.to_str().is_some_and(is_index_name);
        if !is_index || entry.kind != FileKind::File || entry.len == 0 {
            continue;
        }
        for known in [given, default] {
            if entry.len == known.file_len() {
                return Ok(known);
            }
        }
        let file = io.open(&dir.join(&entry.name), Access::ReadOnly)?;
        for search in [Search::LastEntry, Search::FirstEntry] {
            if let Some(found) = find_layout(&file, entry.len, search)? {
                return Ok(found);
            }
        }
    }
    Ok(given)
}

/// What is looked for in an index file of unknown shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// The entry that the header calls the last.
    LastEntry,
    /// The first entry, should the header's end be damaged.
    FirstEntry,
}

/// Looks for the position of an entry in a file of `len` bytes.
fn find_layout<F: IoFile>(
    file: &F,
    len: u64,
    search: Search,
) -> Result<Option<IndexLayout>, IoError> {
    let mut bytes = [0; HEADER_LEN];
    if file.read_at(&mut bytes, 0)? < HEADER_LEN {
        return Ok(None);
    }
    let header = IndexHeader::decode(&bytes);
    if header.is_empty() {
        return Ok(None);
    }
    let (ordinal, offset) = match search {
        Search::LastEntry => (header.next_entry - 1, header.end_physical_offset),
        Search::FirstEntry => (FIRST_ENTRY, header.begin_physical_offset),
    };
    // Slots come in steps of 4 bytes, and the entries behind them must fill the file.
    let before_entries = HEADER_LEN as u64 + u64::from(ordinal) * ENTRY_LEN as u64;
    let mut buf = vec![0; CHUNK_LEN + ENTRY_LEN];
    let mut start = before_entries + SLOT_LEN as u64;
    while start + ENTRY_LEN as u64 <= len {
        let read = file.read_at(&mut buf, start)?;
        if read < ENTRY_LEN {
            break;
        }
        for at in (0..=(read - ENTRY_LEN).min(CHUNK_LEN - SLOT_LEN)).step_by(SLOT_LEN) {
            let Some(entry) = buf.get(at..).and_then(<[u8]>::first_chunk) else {
                break;
            };
            let entry = IndexEntry::decode(entry);
            let is_first_like = search == Search::LastEntry || entry.previous == 0;
            if entry.physical_offset != offset || entry.key_hash <= 0 || !is_first_like {
                continue;
            }
            let slot_bytes = start + at as u64 - before_entries;
            if let Some(layout) = layout_of(slot_bytes / SLOT_LEN as u64, len)
                && is_in_chain(file, layout, &entry, ordinal)?
            {
                return Ok(Some(layout));
            }
        }
        start += CHUNK_LEN as u64;
    }
    Ok(None)
}

/// The layout of a file of `len` bytes with so many slots, if its entries are whole.
fn layout_of(slot_count: u64, len: u64) -> Option<IndexLayout> {
    let entries_len = len.checked_sub(HEADER_LEN as u64 + slot_count * SLOT_LEN as u64)?;
    if !entries_len.is_multiple_of(ENTRY_LEN as u64) || slot_count == 0 {
        return None;
    }
    let layout = IndexLayout {
        slot_count: u32::try_from(slot_count).ok()?,
        entry_count_max: u32::try_from(entries_len / ENTRY_LEN as u64).ok()?,
    };
    (layout.entry_count_max > FIRST_ENTRY).then_some(layout)
}

/// Whether the chain of an entry's slot comes to it.
fn is_in_chain<F: IoFile>(
    file: &F,
    layout: IndexLayout,
    entry: &IndexEntry,
    ordinal: u32,
) -> Result<bool, IoError> {
    let mut slot = [0; SLOT_LEN];
    let position = layout.slot_position(layout.slot_of(entry.key_hash)) as u64;
    if file.read_at(&mut slot, position)? < SLOT_LEN {
        return Ok(false);
    }
    let mut at = u32::from_be_bytes(slot);
    while at > ordinal && at < layout.entry_count_max {
        let mut bytes = [0; ENTRY_LEN];
        if file.read_at(&mut bytes, layout.entry_position(at) as u64)? < ENTRY_LEN {
            return Ok(false);
        }
        match u32::try_from(IndexEntry::decode(&bytes).previous) {
            Ok(previous) if previous < at => at = previous,
            _ => return Ok(false),
        }
    }
    Ok(at == ordinal)
}

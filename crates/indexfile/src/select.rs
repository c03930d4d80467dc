//! Walking the chain of a slot: the same for a mapped file and for one that is read.

use std::ops::ControlFlow;

use mmap_core::IoError;

use crate::layout::{FIRST_ENTRY, Header, IndexEntry, Layout};

/// What a query needs of an index file.
pub(crate) trait IndexRead {
    fn layout(&self) -> Layout;
    fn header(&self) -> Header;
    /// Content of a slot: the ordinal of its newest entry, if it is a valid one.
    fn slot(&self, slot: u32) -> Result<i32, IoError>;
    fn entry(&self, ordinal: u32) -> Result<IndexEntry, IoError>;
}

/// Store times that a query asks for, both ends included, Unix time in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeRange {
    pub(crate) begin_ms: i64,
    pub(crate) end_ms: i64,
}

impl TimeRange {
    /// Whether a file with this header may have messages of the range.
    pub(crate) fn meets(self, header: &Header) -> bool {
        header.begin_timestamp_ms <= self.end_ms && header.end_timestamp_ms >= self.begin_ms
    }
}

/// Appends the offsets of the entries with this hash and a time within `range`, newest first,
/// until `out` has `count_max`.
///
/// An entry knows its time in whole seconds only. RocketMQ compares as if it were exact and so
/// misses messages of the range's first second; here an entry matches if any moment of its second
/// does, and the caller, who has the record, compares the real store time.
pub(crate) fn select(
    file: &dyn IndexRead,
    key_hash: i32,
    range: TimeRange,
    count_max: usize,
    out: &mut Vec<u64>,
) -> Result<(), IoError> {
    let header = file.header();
    walk(file, key_hash, |ordinal, entry| {
        if out.len() >= count_max {
            return ControlFlow::Break(());
        }
        let (earliest_ms, latest_ms) = moments(&header, ordinal, entry);
        let in_range = earliest_ms <= range.end_ms && latest_ms >= range.begin_ms;
        if entry.key_hash == key_hash
            && in_range
            && let Ok(offset) = u64::try_from(entry.physical_offset)
        {
            out.push(offset);
        }
        // Older entries are further down: none of them can match any more.
        if latest_ms < range.begin_ms {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
}

/// Whether a message at `physical_offset` has an entry with this hash.
pub(crate) fn contains(
    file: &dyn IndexRead,
    key_hash: i32,
    physical_offset: i64,
) -> Result<bool, IoError> {
    let mut found = false;
    walk(file, key_hash, |_, entry| {
        found = entry.key_hash == key_hash && entry.physical_offset == physical_offset;
        // Entries are put in the order of the log.
        if found || entry.physical_offset < physical_offset {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(found)
}

/// Visits the entries of the hash's slot, newest first.
fn walk(
    file: &dyn IndexRead,
    key_hash: i32,
    mut visit: impl FnMut(u32, &IndexEntry) -> ControlFlow<()>,
) -> Result<(), IoError> {
    let newest = file.slot(file.layout().slot_of(key_hash))?;
    let next_entry = file.header().next_entry;
    // A slot that says more than the header is one whose writer has not got to the header yet, or
    // never did: RocketMQ accepts the very next ordinal, and so it does no harm here.
    let mut ordinal = match u32::try_from(newest) {
        Ok(newest) if newest <= next_entry.min(file.layout().entry_count_max - 1) => newest,
        _ => return Ok(()),
    };
    while ordinal >= FIRST_ENTRY {
        let entry = file.entry(ordinal)?;
        if entry.seconds_since_begin < 0 || visit(ordinal, &entry).is_break() {
            break;
        }
        // An entry continues an older one; anything else is damage, and would be a loop.
        match u32::try_from(entry.previous) {
            Ok(previous) if previous < ordinal => ordinal = previous,
            _ => break,
        }
    }
    Ok(())
}

/// The first and last millisecond at which an entry's message can have been stored.
fn moments(header: &Header, ordinal: u32, entry: &IndexEntry) -> (i64, i64) {
    if ordinal == FIRST_ENTRY {
        // Its own time is the file's begin; its difference is to another file's end.
        return (header.begin_timestamp_ms, header.begin_timestamp_ms);
    }
    let since = i64::from(entry.seconds_since_begin) * 1000;
    let earliest = header.begin_timestamp_ms.saturating_add(since);
    (earliest, earliest.saturating_add(999))
}

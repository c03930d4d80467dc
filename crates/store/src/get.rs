//! Reading a queue: which entries, and what becomes of the messages they point to.

use std::sync::atomic::Ordering;

use commitlog::CommitLog;
use consumequeue::{BatchEntry, BatchQueue, Entry};
use mmap_core::{Io, OsIo};

use crate::collect::{Collecting, Taken};
use crate::error::ReadError;
use crate::filter::Filter;
use crate::messages::Messages;
use crate::options::{ReadLimits, StoreOptions};
use crate::place::Place;
use crate::queues::Queue;
use crate::residency::{Residency, Wait};

/// Entries whose records are fetched from memory before they are looked at.
const FETCHED_AHEAD: i64 = 16;

/// How a read ended: RocketMQ's `GetMessageStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetStatus {
    /// There are messages.
    Found,
    /// Entries were examined; the filter let none pass.
    NoMatchedMessage,
    /// The messages of the examined entries are being deleted.
    MessageWasRemoving,
    /// The queue's file holds no entry at this offset.
    OffsetFoundNull,
    /// The offset lies beyond the end.
    OffsetOverflowBadly,
    /// The offset is the end: the next message will have it.
    OffsetOverflowOne,
    /// The offset lies before the beginning.
    OffsetTooSmall,
    /// There is no such queue.
    NoMatchedLogicQueue,
    /// The queue never had a message.
    NoMessageInQueue,
    /// The reader's offset was reset (said by a broker, never by a store).
    OffsetReset,
}

impl GetStatus {
    /// RocketMQ's name, as brokers put it into remarks.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Self::MessageWasRemoving => "MESSAGE_WAS_REMOVING",
            Self::OffsetFoundNull => "OFFSET_FOUND_NULL",
            Self::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Self::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Self::OffsetTooSmall => "OFFSET_TOO_SMALL",
            Self::NoMatchedLogicQueue => "NO_MATCHED_LOGIC_QUEUE",
            Self::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
            Self::OffsetReset => "OFFSET_RESET",
        }
    }
}

/// What a caller wants at most; the store's [`ReadLimits`] bound it further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetLimits {
    /// Messages.
    pub count_max: usize,
    /// Bytes.
    pub bytes_max: u64,
}

/// The answer to a read.
#[derive(Debug)]
pub struct Get<I: Io = OsIo> {
    /// How it ended.
    pub status: GetStatus,
    /// The queue offset to read from next.
    pub next_offset: i64,
    /// The queue's first offset.
    pub min_offset: i64,
    /// The offset behind the queue's last message.
    pub max_offset: i64,
    /// The messages; none unless `status` is [`GetStatus::Found`].
    pub messages: Messages<I>,
}

impl<I: Io> Get<I> {
    pub(crate) fn empty(status: GetStatus, next_offset: i64, min: i64, max: i64) -> Self {
        let messages = Messages::default();
        Self {
            status,
            next_offset,
            min_offset: min,
            max_offset: max,
            messages,
        }
    }
}

/// A queue's first offset, and the one behind its last message, when the read began.
#[derive(Debug, Clone, Copy)]
struct Ends {
    min: i64,
    max: i64,
}

impl Ends {
    /// How a read ends that begins outside, and where to read next; the order of the tests is that
    /// of RocketMQ 5.3.3 `DefaultMessageStore.getMessage`.
    #[inline]
    fn outside(self, offset: i64) -> Option<(GetStatus, i64)> {
        if self.max == 0 {
            return Some((GetStatus::NoMessageInQueue, 0));
        }
        if offset < self.min {
            return Some((GetStatus::OffsetTooSmall, self.min));
        }
        if offset == self.max {
            return Some((GetStatus::OffsetOverflowOne, offset));
        }
        (offset > self.max).then_some((GetStatus::OffsetOverflowBadly, self.max))
    }

    fn empty<I: Io>(self, (status, next_offset): (GetStatus, i64)) -> Get<I> {
        Get::empty(status, next_offset, self.min, self.max)
    }

    /// The answer to a read from `offset` that has examined what lies before `next_offset`.
    #[inline]
    fn answer<I: Io>(self, offset: i64, next_offset: i64, collected: Collecting<'_, I>) -> Get<I> {
        if next_offset == offset {
            return self.empty((GetStatus::OffsetOverflowOne, offset));
        }
        let (status, messages) = collected.finish();
        Get {
            status,
            next_offset,
            min_offset: self.min,
            max_offset: self.max,
            messages,
        }
    }
}

/// Where a read takes its messages from, and what it does about those that are not in memory.
#[derive(Debug)]
pub(crate) struct Source<'a, I: Io> {
    pub(crate) log: &'a CommitLog<I>,
    pub(crate) residency: &'a Residency,
    pub(crate) wait: Wait,
}

impl<I: Io> Clone for Source<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I: Io> Copy for Source<'_, I> {}

/// Reads `queue` from a place on, as RocketMQ 5.3.3 `DefaultMessageStore.getMessage`.
pub(crate) fn get<I: Io>(
    source: Source<'_, I>,
    queue: &Queue<I>,
    from: &Place<'_>,
    limits: &GetLimits,
    options: &StoreOptions,
    filter: &dyn Filter,
) -> Result<Get<I>, ReadError> {
    let offset = from.index;
    let bounds = &options.read;
    let ends = Ends {
        min: queue.entries.min_index(),
        max: queue.entries.max_index(),
    };
    if let Some(outside) = ends.outside(offset) {
        return Ok(ends.empty(outside));
    }
    let found = match source.wait {
        Wait::ForDevice => queue.entries.entries(offset, bounds.examined_count_max)?,
        Wait::Never => {
            let count_max = bounds.examined_count_max;
            queue.entries.entries_in_memory(offset, count_max)?
        }
    };
    let Some(entries) = found else {
        let per_file = options.queue_file_len.cast_signed() / consumequeue::ENTRY_LEN as i64;
        let next_file = (offset / per_file + 1) * per_file;
        return Ok(ends.empty((GetStatus::OffsetFoundNull, next_file)));
    };
    let mut collecting = Collecting::new(source, limits, bounds);
    let mut next_offset = offset;
    let mut ahead = entries.iter();
    for (index, entry) in &entries {
        if collecting.is_full(&entry, 1) {
            break;
        }
        while let Some((_, later)) = ahead.next_below(index + FETCHED_AHEAD) {
            if later.extension_offset().is_none() && filter.matches(Some(later.tags_code)) {
                collecting.fetch(&later);
            }
        }
        if filter.matches(tags_code(queue, &entry)) {
            let place = Place { index, ..*from };
            match collecting.take(&entry, &place, 1) {
                Ok(Taken::Message | Taken::Gone) => {}
                Ok(Taken::OtherRecord) => warn_of_other_record(queue, &place, &entry)?,
                Ok(Taken::NotVisible) => break,
                // The messages before it are good; the next read begins with it.
                Err(_) if !collecting.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        next_offset = index + 1;
    }
    Ok(ends.answer(offset, next_offset, collecting))
}

/// The offset behind the last message of a queue that may be read. Only after a failed sync is that
/// not the end of its entries: what was not synced is held back until the log is opened again.
pub(crate) fn readable_end<I: Io>(log: &CommitLog<I>, queue: &Queue<I>) -> i64 {
    let (mut min, mut max) = (queue.entries.min_index(), queue.entries.max_index());
    if log.failure().is_none() {
        return max;
    }
    let visible = log.visible().cast_signed();
    while min < max {
        let middle = min + (max - min) / 2;
        match queue.entries.entry(middle) {
            Ok(Some(entry)) if entry.physical_offset >= visible => max = middle,
            _ => min = middle + 1,
        }
    }
    max
}

/// Reads a batch queue: as [`get`], but that a record holds the messages of several queue offsets,
/// and comes whole with any of them.
pub(crate) fn get_batches<I: Io>(
    source: Source<'_, I>,
    queue: &BatchQueue<I>,
    from: &Place<'_>,
    limits: &GetLimits,
    bounds: &ReadLimits,
    filter: &dyn Filter,
) -> Result<Get<I>, ReadError> {
    let offset = from.index;
    let ends = Ends {
        min: queue.min_index(),
        max: queue.max_index(),
    };
    if let Some(outside) = ends.outside(offset) {
        return Ok(ends.empty(outside));
    }
    let mut collecting = Collecting::new(source, limits, bounds);
    let mut next_offset = offset;
    for found in queue.entries(offset, bounds.examined_count_max)? {
        let entry = entry_of_batch(&found);
        let message_count = usize::from(found.count.unsigned_abs());
        if collecting.is_full(&entry, message_count) {
            break;
        }
        let place = Place {
            index: found.base,
            ..*from
        };
        if filter.matches(Some(entry.tags_code)) {
            match collecting.take(&entry, &place, message_count) {
                Ok(Taken::Message | Taken::Gone) => {}
                Ok(Taken::OtherRecord) => tell_of_other_record(&place),
                Ok(Taken::NotVisible) => break,
                Err(_) if !collecting.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        next_offset = found.next().max(next_offset + 1);
    }
    Ok(ends.answer(offset, next_offset, collecting))
}

#[cold]
fn tell_of_other_record(place: &Place<'_>) {
    let Place {
        topic,
        queue_id,
        index,
    } = *place;
    let what = "an entry of a batch queue leads to another record";
    tracing::error!(topic, queue_id, index, what);
}

/// What a batch queue's entry has in common with a simple queue's.
pub(crate) fn entry_of_batch(entry: &BatchEntry) -> Entry {
    Entry {
        physical_offset: entry.physical_offset,
        size: entry.size,
        tags_code: entry.tags_code,
    }
}

/// The tags code of an entry, or of the extension unit that it refers to. `None` where nobody knows
/// it: the client filters then.
#[inline]
fn tags_code<I: Io>(queue: &Queue<I>, entry: &Entry) -> Option<i64> {
    match entry.extension_offset() {
        None => Some(entry.tags_code),
        Some(_) => queue.entries.tags_code(entry).ok().flatten(),
    }
}

/// An entry whose place in the log holds no record, or another message's, is passed over. Places of
/// messages that the log has lost stand for their neighbours, and are no news; anything else is
/// damage of the queue, told once.
#[cold]
fn warn_of_other_record<I: Io>(
    queue: &Queue<I>,
    place: &Place<'_>,
    entry: &Entry,
) -> Result<(), ReadError> {
    for neighbour in [place.index - 1, place.index + 1] {
        let other = queue.entries.entry(neighbour)?;
        if other.is_some_and(|other| other.physical_offset == entry.physical_offset) {
            return Ok(());
        }
    }
    if !queue.is_reported.swap(true, Ordering::Relaxed) {
        tracing::error!(
            topic = place.topic,
            queue_id = place.queue_id,
            index = place.index,
            physical_offset = entry.physical_offset,
            "a consume queue does not agree with the log: entries that point to other records are \
             passed over; rebuild the queue to get at the messages"
        );
    }
    Ok(())
}

//! Reading a queue: which entries, and the slices of the log they point to.

use std::sync::atomic::Ordering;

use commitlog::CommitLog;
use consumequeue::{BatchEntry, BatchQueue, Entry};
use message::{Parsed, RecordView};
use mmap_core::{Io, MapSlice, OsIo};

use crate::error::ReadError;
use crate::filter::Filter;
use crate::messages::Messages;
use crate::options::{ReadLimits, StoreOptions};
use crate::place::{Place, has_place};
use crate::queues::Queue;
use crate::residency::{Residency, Wait, bring_in};

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

/// Reads `queue` from `offset`; the order of the tests is that of RocketMQ 5.3.3
/// `DefaultMessageStore.getMessage`.
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
    let file_count = options.queue_file_len.cast_signed() / consumequeue::ENTRY_LEN as i64;
    let (min, max) = (queue.entries.min_index(), queue.entries.max_index());
    let empty = |status, next| Ok(Get::empty(status, next, min, max));
    if max == 0 {
        return empty(GetStatus::NoMessageInQueue, 0);
    }
    if offset < min {
        return empty(GetStatus::OffsetTooSmall, min);
    }
    if offset == max {
        return empty(GetStatus::OffsetOverflowOne, offset);
    }
    if offset > max {
        return empty(GetStatus::OffsetOverflowBadly, max);
    }
    let found = match source.wait {
        Wait::ForDevice => queue.entries.entries(offset, bounds.examined_count_max)?,
        Wait::Never => {
            let count_max = bounds.examined_count_max;
            queue.entries.entries_in_memory(offset, count_max)?
        }
    };
    let Some(entries) = found else {
        return empty(
            GetStatus::OffsetFoundNull,
            (offset / file_count + 1) * file_count,
        );
    };
    let mut batch = Batch::new(source, limits, bounds);
    let mut next_offset = offset;
    for (index, entry) in &entries {
        if batch.is_full(&entry, 1) {
            break;
        }
        // A filler stands for a message that the log has lost.
        if !entry.is_filler() && filter.matches(tags_code(queue, &entry)) {
            let place = Place { index, ..*from };
            match batch.take(&entry, &place, 1) {
                Ok(Taken::Message | Taken::Gone) => {}
                Ok(Taken::OtherRecord) => warn_of_other_record(queue, &place, &entry)?,
                Ok(Taken::NotVisible) => break,
                // The messages before it are good; the next read begins with it.
                Err(_) if batch.count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        next_offset = index + 1;
    }
    if next_offset == offset {
        return empty(GetStatus::OffsetOverflowOne, offset);
    }
    let (status, messages) = batch.finish();
    Ok(Get {
        status,
        next_offset,
        min_offset: min,
        max_offset: max,
        messages,
    })
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
    let (min, max) = (queue.min_index(), queue.max_index());
    let empty = |status, next| Ok(Get::empty(status, next, min, max));
    if max == 0 {
        return empty(GetStatus::NoMessageInQueue, 0);
    }
    if offset < min {
        return empty(GetStatus::OffsetTooSmall, min);
    }
    if offset == max {
        return empty(GetStatus::OffsetOverflowOne, offset);
    }
    if offset > max {
        return empty(GetStatus::OffsetOverflowBadly, max);
    }
    let mut batch = Batch::new(source, limits, bounds);
    let mut next_offset = offset;
    for found in queue.entries(offset, bounds.examined_count_max)? {
        let entry = entry_of_batch(&found);
        let message_count = usize::from(found.count.unsigned_abs());
        if batch.is_full(&entry, message_count) {
            break;
        }
        let place = Place {
            index: found.base,
            ..*from
        };
        if filter.matches(Some(entry.tags_code)) {
            match batch.take(&entry, &place, message_count) {
                Ok(Taken::Message | Taken::Gone) => {}
                Ok(Taken::OtherRecord) => {
                    let Place {
                        topic,
                        queue_id,
                        index,
                    } = place;
                    let what = "an entry of a batch queue leads to another record";
                    tracing::error!(topic, queue_id, index, what);
                }
                Ok(Taken::NotVisible) => break,
                Err(_) if batch.count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        next_offset = found.next().max(next_offset + 1);
    }
    if next_offset == offset {
        return empty(GetStatus::OffsetOverflowOne, offset);
    }
    let (status, messages) = batch.finish();
    Ok(Get {
        status,
        next_offset,
        min_offset: min,
        max_offset: max,
        messages,
    })
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

/// Messages being collected. Entries that lie next to each other in the log become one slice.
struct Batch<'a, I: Io> {
    log: &'a CommitLog<I>,
    source: Source<'a, I>,
    limits: &'a GetLimits,
    bounds: &'a ReadLimits,
    /// Above this offset the log counts as hot.
    hot_from: u64,
    messages: Messages<I>,
    count: usize,
    len: u64,
    run: Run,
    /// What is visible of the segment that was last read from.
    window: Option<Window<I>>,
    was_removing: bool,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Message,
    /// The log does not hold it any more.
    Gone,
    /// What it points to is not its message.
    OtherRecord,
    /// Its message was never synced, and a sync has failed since: the next opening tells what
    /// has become of it.
    NotVisible,
}

/// Bytes of the log from an offset on.
struct Window<I: Io> {
    offset: u64,
    /// Up to here they are in memory.
    resident_end: u64,
    bytes: MapSlice<I::Map>,
}

/// Neighbouring records that are not sliced yet.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    offset: u64,
    len: u64,
    count: usize,
}

impl<'a, I: Io> Batch<'a, I> {
    fn new(source: Source<'a, I>, limits: &'a GetLimits, bounds: &'a ReadLimits) -> Self {
        let log = source.log;
        Self {
            log,
            source,
            limits,
            bounds,
            hot_from: match source.wait {
                // Whatever it finds is in memory, wherever it lies.
                Wait::Never => 0,
                Wait::ForDevice => log.visible().saturating_sub(bounds.hot_len),
            },
            messages: Messages::default(),
            count: 0,
            len: 0,
            run: Run::default(),
            window: None,
            was_removing: false,
        }
    }

    /// RocketMQ 5.3.3 `DefaultMessageStore.isTheBatchFull`: the first message always passes.
    fn is_full(&self, entry: &Entry, message_count: usize) -> bool {
        if self.count == 0 {
            return false;
        }
        let is_hot = entry.physical_offset.cast_unsigned() >= self.hot_from;
        let (count_max, bytes_max) = if is_hot {
            (self.bounds.hot_count_max, self.bounds.hot_bytes_max)
        } else {
            (self.bounds.cold_count_max, self.bounds.cold_bytes_max)
        };
        self.count + message_count > self.limits.count_max.min(count_max)
            || self.len + u64::from(entry.size.unsigned_abs())
                > self.limits.bytes_max.min(bytes_max)
    }

    /// Takes in the record that an entry points to, if it is the one with that place.
    fn take(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        message_count: usize,
    ) -> Result<Taken, ReadError> {
        let (Ok(offset), Ok(len)) = (
            u64::try_from(entry.physical_offset),
            u64::try_from(entry.size),
        ) else {
            return Ok(Taken::OtherRecord);
        };
        if offset < self.log.min_offset() {
            self.was_removing = true;
            return Ok(Taken::Gone);
        }
        if self.log.failure().is_some() && offset >= self.log.visible() {
            return Ok(Taken::NotVisible);
        }
        let Some(window) = self.window_at(offset, len)? else {
            // Removed since, or an entry that points behind the log's end.
            self.was_removing = true;
            return Ok(Taken::OtherRecord);
        };
        let position = (offset - window.offset) as usize;
        let bytes = window.bytes.get(position..).unwrap_or_default();
        let is_it = match RecordView::parse(bytes) {
            Ok(Parsed::Record(view)) => {
                view.total_size() as u64 == len
                    && view.physical_offset() == entry.physical_offset
                    && has_place(&view, place)
            }
            _ => false,
        };
        if !is_it {
            return Ok(Taken::OtherRecord);
        }
        self.add(offset, len, message_count);
        Ok(Taken::Message)
    }

    /// The bytes of the log around a record, all in one segment; the record's are in memory.
    fn window_at(&mut self, offset: u64, len: u64) -> Result<Option<&Window<I>>, ReadError> {
        let Some(end) = offset.checked_add(len) else {
            return Ok(None);
        };
        let is_inside = |window: &Window<I>| offset >= window.offset && end <= window.resident_end;
        if !self.window.as_ref().is_some_and(is_inside) {
            self.window = self.make_window(offset, len)?;
        }
        Ok(self.window.as_ref().filter(|window| is_inside(window)))
    }

    fn make_window(&self, offset: u64, len: u64) -> Result<Option<Window<I>>, ReadError> {
        let Some(bytes) = self.log.readable_from(offset) else {
            return Ok(None);
        };
        let clip = |len: u64| usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
        let window = |len: usize, bytes| Window {
            offset,
            resident_end: offset + len as u64,
            bytes,
        };
        // What follows is looked at, and read, along: once for all that fits into an answer.
        let along = self.limits.bytes_max.min(self.bounds.hot_bytes_max);
        let (along, len) = (clip(along.max(len)), clip(len));
        let Source {
            residency, wait, ..
        } = self.source;
        if self.log.is_new(offset) || residency.is_in_memory(offset, &bytes, along) {
            return Ok(Some(window(along, bytes)));
        }
        if wait == Wait::Never {
            return Err(ReadError::NotInMemory);
        }
        residency.read_ahead(offset, &bytes, along, self.bounds.read_ahead_len);
        // If what follows cannot be read, that is for those to know who ask for it.
        if bring_in(&bytes, along).is_ok() {
            return Ok(Some(window(along, bytes)));
        }
        match bring_in(&bytes, len) {
            Ok(()) => Ok(Some(window(len, bytes))),
            Err(error) => Err(ReadError::Log(error)),
        }
    }

    fn add(&mut self, offset: u64, len: u64, message_count: usize) {
        let segment_len = self.log.options().segment_len;
        let follows = self.run.count > 0
            && offset == self.run.offset + self.run.len
            && offset / segment_len == self.run.offset / segment_len;
        if !follows {
            self.slice_run();
            self.run = Run {
                offset,
                len: 0,
                count: 0,
            };
        }
        self.run.len += len;
        self.run.count += 1;
        self.count += message_count;
        self.len += len;
    }

    fn slice_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        if run.count == 0 {
            return;
        }
        match self.log.slice(run.offset, run.len as usize) {
            Some(slice) => self.messages.push(slice, run.count),
            None => self.was_removing = true,
        }
    }

    fn finish(mut self) -> (GetStatus, Messages<I>) {
        self.slice_run();
        let status = match (self.messages.is_empty(), self.was_removing) {
            (false, _) => GetStatus::Found,
            (true, true) => GetStatus::MessageWasRemoving,
            (true, false) => GetStatus::NoMatchedMessage,
        };
        (status, self.messages)
    }
}

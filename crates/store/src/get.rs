//! Reading a queue: which entries, and the slices of the log they point to.

use commitlog::CommitLog;
use consumequeue::Entry;
use mmap_core::{Io, OsIo};

use crate::error::ReadError;
use crate::filter::Filter;
use crate::messages::Messages;
use crate::options::{ReadLimits, StoreOptions};
use crate::queues::Queue;

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

/// Reads `queue` from `offset`; the order of the tests is that of RocketMQ 5.3.3
/// `DefaultMessageStore.getMessage`.
pub(crate) fn get<I: Io>(
    log: &CommitLog<I>,
    queue: &Queue<I>,
    offset: i64,
    limits: &GetLimits,
    options: &StoreOptions,
    filter: &dyn Filter,
) -> Result<Get<I>, ReadError> {
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
    let Some(entries) = queue.entries.entries(offset, bounds.examined_count_max)? else {
        return empty(
            GetStatus::OffsetFoundNull,
            (offset / file_count + 1) * file_count,
        );
    };
    let mut batch = Batch::new(log, limits, bounds);
    let mut next_offset = offset;
    for (index, entry) in &entries {
        if batch.is_full(&entry) {
            break;
        }
        next_offset = index + 1;
        // A filler stands for a message that the log has lost.
        if !entry.is_filler() && filter.matches(tags_code(&entry)) {
            batch.take(&entry);
        }
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

/// The tags code of an entry that has it in itself.
fn tags_code(entry: &Entry) -> Option<i64> {
    entry
        .extension_offset()
        .is_none()
        .then_some(entry.tags_code)
}

/// Messages being collected. Entries that lie next to each other in the log become one slice.
struct Batch<'a, I: Io> {
    log: &'a CommitLog<I>,
    limits: &'a GetLimits,
    bounds: &'a ReadLimits,
    /// Above this offset the log counts as hot.
    hot_from: u64,
    messages: Messages<I>,
    count: usize,
    len: u64,
    run: Run,
    was_removing: bool,
}

/// Neighbouring records that are not sliced yet.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    offset: u64,
    len: u64,
    count: usize,
}

impl<'a, I: Io> Batch<'a, I> {
    fn new(log: &'a CommitLog<I>, limits: &'a GetLimits, bounds: &'a ReadLimits) -> Self {
        Self {
            log,
            limits,
            bounds,
            hot_from: log.visible().saturating_sub(bounds.hot_len),
            messages: Messages::default(),
            count: 0,
            len: 0,
            run: Run::default(),
            was_removing: false,
        }
    }

    /// RocketMQ 5.3.3 `DefaultMessageStore.isTheBatchFull`: the first message always passes.
    fn is_full(&self, entry: &Entry) -> bool {
        if self.count == 0 {
            return false;
        }
        let is_hot = entry.physical_offset.cast_unsigned() >= self.hot_from;
        let (count_max, bytes_max) = if is_hot {
            (self.bounds.hot_count_max, self.bounds.hot_bytes_max)
        } else {
            (self.bounds.cold_count_max, self.bounds.cold_bytes_max)
        };
        self.count >= self.limits.count_max.min(count_max)
            || self.len + u64::from(entry.size.unsigned_abs())
                > self.limits.bytes_max.min(bytes_max)
    }

    fn take(&mut self, entry: &Entry) {
        let (Ok(offset), Ok(len)) = (
            u64::try_from(entry.physical_offset),
            u64::try_from(entry.size),
        ) else {
            self.was_removing = true;
            return;
        };
        if offset < self.log.min_offset() {
            self.was_removing = true;
            return;
        }
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
        self.count += 1;
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

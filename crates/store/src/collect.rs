//! Collecting the messages of one read: each record is compared with the place that was asked for,
//! and what lies together in the log is given as one slice.

use commitlog::CommitLog;
use consumequeue::Entry;
use message::layout::{HEADER_LEN_MIN, SYS_FLAG_POSITION};
use message::{Parsed, RecordClaim, RecordView};
use mmap_core::{Io, MapSlice, prefetch};

use crate::error::ReadError;
use crate::get::{GetLimits, GetStatus, Source};
use crate::messages::Messages;
use crate::options::ReadLimits;
use crate::place::{Place, has_place};
use crate::residency::{Wait, bring_in};

/// Messages for which there is room from the beginning.
const ROOM_MAX: usize = 1024;

/// The messages of one read, being collected.
pub(crate) struct Collecting<'a, I: Io> {
    log: &'a CommitLog<I>,
    source: Source<'a, I>,
    bounds: &'a ReadLimits,
    limits: &'a GetLimits,
    /// Above this offset the log counts as hot.
    hot_from: u64,
    /// What is given at most while the next message is hot, and while it is not.
    hot: GetLimits,
    cold: GetLimits,
    /// Where the log began when the read did.
    min_offset: u64,
    messages: Messages<I>,
    count: usize,
    len: u64,
    /// What is visible of the segment that was last read from.
    window: Option<Window<I>>,
    /// From the topic's length to the end of the record that was last taken: in most the next one
    /// has as much.
    tail_len: usize,
    /// Bytes of its topic.
    topic_len: usize,
    was_removing: bool,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Message,
    /// The log does not hold it any more.
    Gone,
    /// What it points to is not its message.
    OtherRecord,
    /// Its message was never synced, and a sync has failed since: the next opening tells what
    /// has become of it.
    NotVisible,
}

/// Bytes of the log from an offset on, as far as they were visible when they were asked for.
struct Window<I: Io> {
    offset: u64,
    /// How many of them are in memory.
    resident_len: usize,
    bytes: MapSlice<I::Map>,
}

impl<I: Io> Window<I> {
    /// The position of bytes that are in memory.
    #[inline]
    fn position_of(&self, offset: u64, len: usize) -> Option<usize> {
        let position = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        (position.checked_add(len)? <= self.resident_len).then_some(position)
    }
}

impl<'a, I: Io> Collecting<'a, I> {
    pub(crate) fn new(
        source: Source<'a, I>,
        limits: &'a GetLimits,
        bounds: &'a ReadLimits,
    ) -> Self {
        let log = source.log;
        let within = |count_max: usize, bytes_max: u64| GetLimits {
            count_max: limits.count_max.min(count_max),
            bytes_max: limits.bytes_max.min(bytes_max),
        };
        Self {
            log,
            source,
            bounds,
            limits,
            hot_from: match source.wait {
                // Whatever it finds is in memory, wherever it lies.
                Wait::Never => 0,
                Wait::ForDevice => log.visible().saturating_sub(bounds.hot_len),
            },
            hot: within(bounds.hot_count_max, bounds.hot_bytes_max),
            cold: within(bounds.cold_count_max, bounds.cold_bytes_max),
            min_offset: log.min_offset(),
            messages: Messages::default(),
            count: 0,
            len: 0,
            window: None,
            tail_len: 0,
            topic_len: 0,
            was_removing: false,
        }
    }

    /// Whether nothing was taken yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// RocketMQ 5.3.3 `DefaultMessageStore.isTheBatchFull`: the first message always passes.
    #[inline]
    pub(crate) fn is_full(&self, entry: &Entry, message_count: usize) -> bool {
        if self.count == 0 {
            return false;
        }
        let max = match entry.physical_offset.cast_unsigned() >= self.hot_from {
            true => self.hot,
            false => self.cold,
        };
        self.count + message_count > max.count_max
            || self.len + u64::from(entry.size.unsigned_abs()) > max.bytes_max
    }

    /// Has the processor fetch what [`take`](Self::take) will look at of a record.
    #[inline]
    pub(crate) fn fetch(&self, entry: &Entry) {
        let (Some(window), Ok(len)) = (&self.window, usize::try_from(entry.size)) else {
            return;
        };
        let offset = entry.physical_offset.cast_unsigned();
        if let Some(position) = window.position_of(offset, len) {
            // The fixed fields lie in two or three cache lines, the topic and its length and that of
            // the properties in one or two.
            let topic = position + len.saturating_sub(self.tail_len);
            for looked_at in [
                position,
                position + SYS_FLAG_POSITION,
                position + HEADER_LEN_MIN - 1,
                topic,
                topic + self.topic_len + 2,
            ] {
                prefetch(&window.bytes, looked_at);
            }
        }
    }

    /// Takes in the record that an entry points to, if it is the one with that place.
    #[inline]
    pub(crate) fn take(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        message_count: usize,
    ) -> Result<Taken, ReadError> {
        let (Ok(offset), Ok(len)) = (
            u64::try_from(entry.physical_offset),
            usize::try_from(entry.size),
        ) else {
            return Ok(Taken::OtherRecord);
        };
        if offset < self.min_offset {
            self.was_removing = true;
            return Ok(Taken::Gone);
        }
        let inside = self.window.as_ref();
        let inside = inside.is_some_and(|window| window.position_of(offset, len).is_some());
        if !inside {
            self.window = self.make_window(offset, len)?;
        }
        let Some((window, position)) = self
            .window
            .as_ref()
            .and_then(|window| Some((window, window.position_of(offset, len)?)))
        else {
            return Ok(self.not_there(offset));
        };
        let bytes = window.bytes.get(position..).unwrap_or_default();
        let claim = RecordClaim {
            total_size: len,
            physical_offset: entry.physical_offset,
            topic: place.topic,
            queue_id: place.queue_id,
            queue_offset: place.index,
        };
        match claim.holds_for(bytes) {
            Some(topic_position) => {
                self.tail_len = len + 1 - topic_position;
                self.topic_len = place.topic.len();
            }
            None if is_in_light_queue(bytes, &claim, place) => {}
            None => return Ok(Taken::OtherRecord),
        }
        if self.messages.is_empty() {
            let room = self.hot.count_max.min(ROOM_MAX);
            self.messages.expect(&window.bytes, room);
        }
        self.messages.push(&window.bytes, position..position + len);
        self.count += message_count;
        self.len += len as u64;
        Ok(Taken::Message)
    }

    /// Why the bytes that an entry points to are not readable.
    #[cold]
    fn not_there(&mut self, offset: u64) -> Taken {
        if self.log.failure().is_some() && offset >= self.log.visible() {
            return Taken::NotVisible;
        }
        self.was_removing = true;
        match offset < self.log.min_offset() {
            true => Taken::Gone,
            // It points behind the log's end, or across two of its files.
            false => Taken::OtherRecord,
        }
    }

    /// The bytes of the log around a record, all in one segment, if the record's are readable; they
    /// are in memory.
    #[inline(never)]
    fn make_window(&self, offset: u64, len: usize) -> Result<Option<Window<I>>, ReadError> {
        let Some(bytes) = self.log.readable_from(offset) else {
            return Ok(None);
        };
        let window = |resident_len, bytes| Window {
            offset,
            resident_len,
            bytes,
        };
        // What follows is looked at, and read, along: once for all that fits into an answer.
        let along = self.limits.bytes_max.min(self.bounds.hot_bytes_max);
        let along = usize::try_from(along).unwrap_or(usize::MAX).max(len);
        let (along, len) = (along.min(bytes.len()), len.min(bytes.len()));
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

    pub(crate) fn finish(self) -> (GetStatus, Messages<I>) {
        let status = match (self.messages.is_empty(), self.was_removing) {
            (false, _) => GetStatus::Found,
            (true, true) => GetStatus::MessageWasRemoving,
            (true, false) => GetStatus::NoMatchedMessage,
        };
        (status, self.messages)
    }
}

/// Whether a record is the one of the claim but for its queue, and has a place in that one too.
#[cold]
fn is_in_light_queue(bytes: &[u8], claim: &RecordClaim<'_>, place: &Place<'_>) -> bool {
    match RecordView::parse(bytes) {
        Ok(Parsed::Record(view)) => {
            view.total_size() == claim.total_size
                && view.physical_offset() == claim.physical_offset
                && has_place(&view, place)
        }
        _ => false,
    }
}

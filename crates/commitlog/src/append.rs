//! Appending: stamps, room, and the one copy of a record's bytes, all under the append lock.
//!
//! Three paths behind one interface. *Mapped* (async flush): the record is copied straight into
//! the mapped segment and published. *Gathered* (sync flush): it is copied into a buffer that
//! the group commit writes, syncs and publishes; see [`crate::gather`]. *Staged*: the same with
//! buffers of a locked pool, which the commit service writes and publishes, and the flush service
//! syncs later; see [`crate::stage`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use message::{PreparedRecord, RECORD_PARTS, Stamp, blank_record};
use mmap_core::Io;
use mmap_core::sabotage::{self, Lie};
use segment_queue::{QueueError, SegmentWriter};

use crate::core::{Core, StateGuard};
use crate::cursor::QueueCursor;
use crate::durability::PutTicket;
use crate::error::{AppendError, Failure};
use crate::gather::Gathered;

/// Bytes that are kept free for the blank record at the end of a segment
/// (RocketMQ 5.3.3 `CommitLog.END_FILE_MIN_BLANK_LENGTH`).
pub(crate) const BLANK_LEN: u64 = 8;

/// One record in the log.
#[derive(Debug)]
pub struct Appended {
    /// Where the record starts.
    pub physical_offset: u64,
    /// Its length in bytes.
    pub len: u32,
    /// Its place in its topic-queue; 0 for prepared and rolled-back messages, which take none.
    pub queue_offset: i64,
    /// The store time it was stamped with.
    pub store_timestamp_ms: i64,
    /// Resolves when the flush policy is met.
    pub ticket: PutTicket,
}

/// The records of one batch in the log: one after the other, in one segment.
#[derive(Debug)]
pub struct AppendedBatch {
    /// Where the first record starts; each other one starts where its predecessor ends.
    pub physical_offset: u64,
    /// The length of all together in bytes.
    pub len: u64,
    /// The place of the first record in the topic-queue; the others follow.
    pub queue_offset: i64,
    /// How many records.
    pub count: usize,
    /// The store time that all were stamped with.
    pub store_timestamp_ms: i64,
    /// Resolves when the flush policy is met for all of them.
    pub ticket: PutTicket,
}

/// A record's bytes, the header first.
type RecordParts<'a> = [&'a [u8]; RECORD_PARTS];

/// What the append lock guards.
#[derive(Debug)]
pub(crate) struct AppendState<I: Io> {
    pub(crate) path: AppendPath<I>,
    /// The store time of the last record: the next one gets no smaller one.
    pub(crate) last_store_ms: i64,
    /// No record is let in any more.
    pub(crate) is_closed: bool,
}

/// Where the bytes of a record go first.
#[derive(Debug)]
pub(crate) enum AppendPath<I: Io> {
    /// Into the mapped segment.
    Mapped(Mapped<I>),
    /// Into what is written next: a group, or buffers of the stage. The committer owns the segment
    /// writer.
    Gathered(Gathered),
    /// Nowhere any more.
    Closed,
}

/// The segment writer, and what of it every append asks for.
#[derive(Debug)]
pub(crate) struct Mapped<I: Io> {
    writer: SegmentWriter<I>,
    /// The end of the current segment.
    segment_end: u64,
}

impl<I: Io> Mapped<I> {
    pub(crate) fn new(writer: SegmentWriter<I>) -> Self {
        let segment_end = writer.position() + writer.remaining();
        Self {
            writer,
            segment_end,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.writer.position()
    }

    pub(crate) fn into_writer(self) -> SegmentWriter<I> {
        self.writer
    }

    /// Whether `len` bytes need the next segment.
    #[inline]
    fn needs_roll(&self, len: u64) -> bool {
        self.position() + len + BLANK_LEN > self.segment_end
    }

    /// The offset for `len` bytes, in the next segment if this one has no room for them.
    fn make_room(&mut self, len: u64) -> Result<u64, QueueError> {
        if self.needs_roll(len) {
            end_segment(&mut self.writer)?;
            self.writer.roll()?;
            self.segment_end = self.writer.position() + self.writer.remaining();
        }
        Ok(self.position())
    }

    /// Copies records of `len` bytes to the end, all or none; nobody sees them yet. Each is in the
    /// file from the moment that its size is: a process killed in the middle of one leaves no record
    /// whose body is whole and whose properties are not, which no CRC would tell.
    fn write<'a>(
        &mut self,
        records: impl ExactSizeIterator<Item = RecordParts<'a>>,
        len: u64,
    ) -> Result<(), QueueError> {
        if records.len() > 1 {
            self.writer.reserve(len).map_err(queue_error)?;
        }
        for parts in records {
            self.writer.append_head_last(&parts).map_err(queue_error)?;
        }
        Ok(())
    }
}

impl<I: Io> Core<I> {
    /// `note` is called once the record is written and before anybody can see it.
    pub(crate) fn append(
        self: &Arc<Self>,
        record: &mut PreparedRecord<'_>,
        queue: &QueueCursor,
        note: impl FnOnce(&Stamp),
    ) -> Result<Appended, AppendError> {
        let len = record.len() as u64;
        let (mut state, physical_offset) = self.room_for(len, queue)?;
        let queue_offset = queue.next();
        let store_timestamp_ms = state.stamp_time(self.clock.wall_ms());
        let stamp = Stamp {
            queue_offset,
            physical_offset: physical_offset.cast_signed(),
            store_timestamp_ms,
        };
        record.stamp(stamp);
        self.write(&mut state, std::iter::once(record.parts()), len)?;
        note(&stamp);
        state.publish();
        state.last_store_ms = store_timestamp_ms;
        let takes_queue_offset = record.sys_flag().transaction().takes_queue_offset();
        queue.advance(usize::from(takes_queue_offset));
        drop(state);
        Ok(Appended {
            physical_offset,
            len: len as u32,
            queue_offset: if takes_queue_offset { queue_offset } else { 0 },
            store_timestamp_ms,
            ticket: self.announce(physical_offset + len),
        })
    }

    /// `note` is called with the stamp of the first record, as in [`append`](Self::append).
    pub(crate) fn append_batch(
        self: &Arc<Self>,
        records: &mut [PreparedRecord<'_>],
        queue: &QueueCursor,
        note: impl FnOnce(&Stamp),
    ) -> Result<AppendedBatch, AppendError> {
        if records.is_empty() {
            return Err(AppendError::EmptyBatch);
        }
        let len = records.iter().map(|record| record.len() as u64).sum();
        let (mut state, physical_offset) = self.room_for(len, queue)?;
        let queue_offset = queue.next();
        let store_timestamp_ms = state.stamp_time(self.clock.wall_ms());
        let first = Stamp {
            queue_offset,
            physical_offset: physical_offset.cast_signed(),
            store_timestamp_ms,
        };
        let mut next = first;
        let stamped = records.iter_mut().map(|record| {
            record.stamp(next);
            next.queue_offset += 1;
            next.physical_offset += record.len() as i64;
            record.parts()
        });
        self.write(&mut state, stamped, len)?;
        note(&first);
        state.publish();
        state.last_store_ms = store_timestamp_ms;
        queue.advance(records.len());
        drop(state);
        Ok(AppendedBatch {
            physical_offset,
            len,
            queue_offset,
            count: records.len(),
            store_timestamp_ms,
            ticket: self.announce(physical_offset + len),
        })
    }

    /// Takes the append lock and finds room for `len` bytes in one segment, rolling to the next
    /// one where needed. Returns the offset at which they will stand.
    fn room_for(
        &self,
        len: u64,
        queue: &QueueCursor,
    ) -> Result<(StateGuard<'_, I>, u64), AppendError> {
        let segment_len = self.options.segment_len;
        // RocketMQ 5.3.3 answers PUT_OK here, stores nothing and spends a segment.
        if len + BLANK_LEN > segment_len {
            return Err(AppendError::TooLarge { len, segment_len });
        }
        let mut state = self.lock_state()?;
        self.check_open(&state)?;
        let (state, offset) = match &mut state.path {
            AppendPath::Mapped(mapped) => {
                if mapped.needs_roll(len) {
                    // It may wait for the segment, and with it who has hushed the bell. What others
                    // have stored meanwhile does not.
                    self.arrivals.notify();
                }
                let offset = mapped
                    .make_room(len)
                    .map_err(|error| self.append_error(error))?;
                (state, offset)
            }
            AppendPath::Gathered(_) => self.gathered_room_for(state, len)?,
            AppendPath::Closed => return Err(AppendError::Closed),
        };
        // Asked last: finding room may give the lock back for a while.
        if queue.is_retired() {
            return Err(AppendError::Retired);
        }
        Ok((state, offset))
    }

    /// Lets no record in any more with these cursors. Returns the end of the log: what was
    /// appended with them lies below.
    pub(crate) fn retire<'a>(
        &self,
        queues: impl IntoIterator<Item = &'a QueueCursor>,
    ) -> Result<u64, AppendError> {
        let state = self.lock_state()?;
        queues.into_iter().for_each(QueueCursor::retire);
        Ok(match &state.path {
            AppendPath::Mapped(mapped) => mapped.position(),
            AppendPath::Gathered(gathered) => gathered.position(),
            AppendPath::Closed => self.queue.published(),
        })
    }

    /// Whether records are let in at all.
    pub(crate) fn check_open(&self, state: &AppendState<I>) -> Result<(), AppendError> {
        match self.durability.failure() {
            Some(failure) => Err(AppendError::Failed(failure.clone())),
            None if state.is_closed => Err(AppendError::Closed),
            None => Ok(()),
        }
    }

    /// Copies records of `len` bytes to the end of the log, all or none of them.
    fn write<'a>(
        &self,
        state: &mut AppendState<I>,
        records: impl ExactSizeIterator<Item = RecordParts<'a>>,
        len: u64,
    ) -> Result<(), AppendError> {
        match &mut state.path {
            AppendPath::Mapped(mapped) => mapped
                .write(records, len)
                .map_err(|error| self.append_error(error)),
            AppendPath::Gathered(gathered) => {
                let count = self.gathered_count.load(Ordering::Relaxed) + records.len();
                records.for_each(|parts| gathered.push(&parts));
                self.gathered_count.store(count, Ordering::Relaxed);
                if gathered.is_due() {
                    self.has_work.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            AppendPath::Closed => Err(AppendError::Closed),
        }
    }

    /// Tells who waits that the log has grown to `end`, and makes the ticket.
    fn announce(self: &Arc<Self>, end: u64) -> PutTicket {
        self.prepare_if_due(end);
        match self.sync_timeout {
            None => {
                // What is staged cannot be seen yet: the commit tells of it.
                if self.stage.is_none() {
                    self.arrivals.notify_unless_hushed();
                } else if self.has_work.load(Ordering::Relaxed) {
                    self.work.notify();
                }
                PutTicket::met(self.durability.flushed())
            }
            Some(_) if sabotage::is_planted(Lie::AckBeforeSync) => {
                self.work.notify();
                PutTicket::met(end)
            }
            Some(timeout) => {
                // The ticket sees to the commit: its thread may lead it.
                let deadline = self.clock.monotonic().saturating_add(timeout);
                PutTicket::open(Arc::clone(self) as _, end, deadline)
            }
        }
    }

    /// Sorts an error of the segments by what the caller can do about it.
    pub(crate) fn append_error(&self, error: QueueError) -> AppendError {
        match error {
            error if self.queue.is_poisoned() => {
                let failure = Failure::new(error);
                self.fail(failure.clone());
                AppendError::Failed(failure)
            }
            error => refused(&self.options.dir, Arc::new(error)),
        }
    }
}

impl<I: Io> AppendState<I> {
    /// The store time of a record appended at `now_ms`: never before its predecessor's, because
    /// time search, expiry and recovery read the log as ordered by time.
    fn stamp_time(&self, now_ms: i64) -> i64 {
        now_ms.max(self.last_store_ms)
    }

    /// Lets readers see what was written. Gathered records are shown by the group commit.
    fn publish(&mut self) {
        if let AppendPath::Mapped(mapped) = &mut self.path {
            mapped.writer.publish();
        }
    }
}

/// A refusal by the segments of the log in `dir`, after which the log goes on.
pub(crate) fn refused(dir: &Path, refusal: Arc<QueueError>) -> AppendError {
    if refusal.is_full() {
        let dir = dir.to_owned();
        return AppendError::Full {
            dir,
            source: refusal,
        };
    }
    AppendError::Segments(refusal)
}

/// Ends a segment with a blank record, if there is a segment and it has not been ended.
pub(crate) fn end_segment<I: Io>(writer: &mut SegmentWriter<I>) -> Result<(), QueueError> {
    let remaining = writer.remaining();
    if remaining == 0 {
        return Ok(());
    }
    // A segment is at most 2 GiB long (`CommitLogOptions::validate`).
    let blank = blank_record(u32::try_from(remaining).unwrap_or(u32::MAX));
    // Appends leave room for a blank record, but another writer's log may end closer to the end
    // than that: zeros end a segment as well.
    let blank: &[u8] = if remaining < BLANK_LEN { &[] } else { &blank };
    writer.fill_to_end(blank).map_err(queue_error)?;
    writer.publish();
    Ok(())
}

/// The error of an append for which there was room.
pub(crate) fn queue_error(error: segment_queue::AppendError) -> QueueError {
    match error {
        segment_queue::AppendError::Queue(error) => error,
        // Room was looked for under the same lock: to get here is a bug, which must not pass for
        // a stored record.
        error => {
            debug_assert!(false, "no room after all: {error}");
            QueueError::Options {
                what: "segment_len does not agree with the segments",
            }
        }
    }
}

//! The commit log as its users see it: append, read, wait, flush, trim, close.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use message::{EncodeError, Message, Parsed, PreparedRecord, RecordView, Stamp};
use mmap_core::{Io, IoError, MapSlice, OsIo, RawMap, StagePool};
use segment_queue::{SegmentQueue, SegmentWriter, Trimmed};

use crate::append::{Appended, AppendedBatch};
use crate::clock::Clock;
use crate::core::Core;
use crate::cursor::QueueCursor;
use crate::error::{AppendError, Failure, LogError, Misplaced, ReadError};
use crate::options::CommitLogOptions;
use crate::recover::{PROGRESS_STRIDE, Visitor};
use crate::scan::{CrcCheck, Found, Scanner};
use crate::service::{LogServices, Next};

/// Bytes at the end of the log that count as just appended. The kernel gives up pages that were not
/// used for longest, and these were written last.
pub const NEW_LEN: u64 = 64 * 1024 * 1024;
/// Bytes of a record's first field, its size.
const SIZE_LEN: usize = 4;

/// The log of all messages: one long sequence of records in fixed-size segment files
/// (RocketMQ: `CommitLog`).
///
/// A handle: clones are the same log, and all methods may be called from any thread. It comes
/// from [`CommitLog::open`] by way of [`Opening::recover`].
///
/// [`Opening::recover`]: crate::Opening::recover
#[derive(Debug)]
pub struct CommitLog<I: Io = OsIo> {
    pub(crate) core: Arc<Core<I>>,
}

impl<I: Io> Clone for CommitLog<I> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
        }
    }
}

impl<I: Io> CommitLog<I> {
    pub(crate) fn new(
        options: CommitLogOptions,
        clock: Arc<dyn Clock>,
        queue: Arc<SegmentQueue<I>>,
        writer: SegmentWriter<I>,
        last_store_ms: i64,
        stage: Option<Arc<StagePool>>,
    ) -> Self {
        let core = Core::new(options, clock, queue, writer, last_store_ms, stage);
        Self {
            core: Arc::new(core),
        }
    }

    /// Ends the log for writers: nothing but what recovery left can be read from it.
    pub(crate) fn refuse_appends(&self, failure: Failure) {
        self.core.durability.fail(failure);
    }

    /// The options it was opened with.
    pub fn options(&self) -> &CommitLogOptions {
        &self.core.options
    }

    /// Computes all of a record that does not need the append lock, within this log's limits.
    ///
    /// # Errors
    ///
    /// A limit of the record format or of the options that the message exceeds.
    pub fn prepare<'a>(&self, message: &Message<'a>) -> Result<PreparedRecord<'a>, EncodeError> {
        PreparedRecord::new(message, &self.core.options.limits)
    }

    /// Appends one record: stamps it with the next queue offset of `queue`, its physical offset
    /// and its store time, and copies it to the end of the log.
    ///
    /// In async mode readers may see it on return. In sync mode they see it, and it is durable,
    /// when the ticket resolves. In staged mode they see it when it was committed.
    ///
    /// # Errors
    ///
    /// See [`AppendError`]. `queue` has not moved and nothing is in the log then.
    pub fn append(
        &self,
        record: &mut PreparedRecord<'_>,
        queue: &QueueCursor,
    ) -> Result<Appended, AppendError> {
        self.core.append(record, queue, |_| ())
    }

    /// As [`CommitLog::append`], and calls `note` with what the record was stamped with: under the
    /// append lock, when it is written and before anybody can see it. So notes come in the order of
    /// the log, and each before its record is visible. It must be quick.
    ///
    /// # Errors
    ///
    /// As [`CommitLog::append`]; `note` is not called then.
    pub fn append_noted(
        &self,
        record: &mut PreparedRecord<'_>,
        queue: &QueueCursor,
        note: impl FnOnce(&Stamp),
    ) -> Result<Appended, AppendError> {
        self.core.append(record, queue, note)
    }

    /// Appends the records of one batch with consecutive queue offsets, one after the other in
    /// one segment: all of them or none.
    ///
    /// # Errors
    ///
    /// As [`CommitLog::append`], and [`AppendError::EmptyBatch`].
    pub fn append_batch(
        &self,
        records: &mut [PreparedRecord<'_>],
        queue: &QueueCursor,
    ) -> Result<AppendedBatch, AppendError> {
        self.core.append_batch(records, queue, |_| ())
    }

    /// As [`CommitLog::append_batch`], and calls `note` with what the first record was stamped with:
    /// as [`append_noted`](CommitLog::append_noted) does, for all of them.
    ///
    /// # Errors
    ///
    /// As [`CommitLog::append_batch`].
    pub fn append_batch_noted(
        &self,
        records: &mut [PreparedRecord<'_>],
        queue: &QueueCursor,
        note: impl FnOnce(&Stamp),
    ) -> Result<AppendedBatch, AppendError> {
        self.core.append_batch(records, queue, note)
    }

    /// Lets no record in any more with these cursors: their queues are being deleted. Returns the
    /// end of the log: every record that was appended with them lies below, and none does above.
    /// `queues` is gone through while nothing can be appended.
    ///
    /// # Errors
    ///
    /// The log has failed.
    pub fn retire<'a>(
        &self,
        queues: impl IntoIterator<Item = &'a QueueCursor>,
    ) -> Result<u64, AppendError> {
        self.core.retire(queues)
    }

    /// The first offset that the log holds.
    pub fn min_offset(&self) -> u64 {
        self.core.queue.min_offset()
    }

    /// The end of the log, records that nobody may see yet included.
    pub fn max_offset(&self) -> u64 {
        self.core.max_offset()
    }

    /// Lets no record be stored at an earlier time than this, whatever the clock says: the time of
    /// a message that the log does not hold any more, but others remember.
    pub fn store_not_before(&self, store_ms: i64) {
        // A log that has failed stores nothing.
        if let Ok(mut state) = self.core.lock_state() {
            state.last_store_ms = state.last_store_ms.max(store_ms);
        }
    }

    /// What readers and dispatch may see: everything below this offset. In async mode what was
    /// appended, in staged mode what was committed to the files, in sync mode and after a failed
    /// sync what was synced.
    pub fn visible(&self) -> u64 {
        self.core.visible()
    }

    /// Everything below this offset was synced.
    pub fn flushed(&self) -> u64 {
        self.core.durability.flushed()
    }

    /// The failed sync that ended this log for writers, if one has.
    pub fn failure(&self) -> Option<&Failure> {
        self.core.durability.failure()
    }

    /// Sets what is called when the log fails, before anybody is told, and at once if it has. It runs
    /// under whatever locks its caller holds, so it must be quick and not come back. The first one
    /// stays.
    pub fn on_failure(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.core.durability.on_failure(hook);
    }

    /// The buffers of staged mode: how many are free, and whether they are locked.
    pub fn stage_pool(&self) -> Option<&StagePool> {
        self.core.stage.as_deref()
    }

    /// The segment files below this log.
    pub fn segments(&self) -> &Arc<SegmentQueue<I>> {
        &self.core.queue
    }

    /// The bytes from `offset` on, without a copy. `None` when they are not all visible, or not
    /// in one segment.
    pub fn slice(&self, offset: u64, len: usize) -> Option<MapSlice<I::Map>> {
        let end = offset.checked_add(len as u64)?;
        if end > self.visible() {
            return None;
        }
        self.core.queue.slice(offset, len)
    }

    /// All that is visible from `offset` on in its segment, without a copy: what dispatch walks
    /// over. `None` when nothing is.
    pub fn readable_from(&self, offset: u64) -> Option<MapSlice<I::Map>> {
        let segment_len = self.core.queue.segment_len();
        let visible = self.visible().checked_sub(offset)?;
        let len = visible.min(segment_len - offset % segment_len);
        if len == 0 {
            return None;
        }
        self.core.queue.slice(offset, usize::try_from(len).ok()?)
    }

    /// Brings the first `len` bytes of what [`readable_from`](Self::readable_from) gave for
    /// `offset` into memory: what the device cannot read is an error here, where a first touch
    /// would raise a signal. Nothing is done for what was appended since the log was opened.
    ///
    /// # Errors
    ///
    /// The device cannot read it.
    pub fn bring_in(
        &self,
        offset: u64,
        slice: &MapSlice<I::Map>,
        len: usize,
    ) -> Result<(), IoError> {
        if offset >= self.core.opened_at {
            return Ok(());
        }
        let start = slice.range().start;
        let len = len.min(slice.len());
        slice.region().map().populate_read(start..start + len)
    }

    /// Whether what stands at `offset` was appended since the log was opened, and is among the last
    /// [`NEW_LEN`] bytes: in memory then, without asking.
    #[inline]
    pub fn is_new(&self, offset: u64) -> bool {
        offset >= self.core.opened_at && offset.saturating_add(NEW_LEN) >= self.visible()
    }

    /// The record that starts at `offset`, checked to be one and to say so itself. Its body CRC
    /// is not checked.
    ///
    /// # Errors
    ///
    /// Which of it is not so.
    pub fn record_at(&self, offset: u64) -> Result<MapSlice<I::Map>, ReadError> {
        let out_of_range = || {
            let (min, visible) = (self.min_offset(), self.visible());
            ReadError::OutOfRange {
                offset,
                min,
                visible,
            }
        };
        let slice = self.readable_from(offset).ok_or_else(out_of_range)?;
        let misplaced = |found| ReadError::Misplaced { offset, found };
        self.bring_in(offset, &slice, SIZE_LEN)?;
        if let Some(size) = slice.first_chunk::<SIZE_LEN>() {
            let size = u32::from_be_bytes(*size);
            self.bring_in(offset, &slice, usize::try_from(size).unwrap_or(usize::MAX))?;
        }
        let len = match RecordView::parse(&slice) {
            Ok(Parsed::Record(view)) if view.physical_offset() == offset.cast_signed() => {
                view.total_size()
            }
            Ok(Parsed::Record(view)) => {
                let physical_offset = view.physical_offset();
                return Err(misplaced(Misplaced::Record { physical_offset }));
            }
            Ok(Parsed::Blank { .. }) => return Err(misplaced(Misplaced::Blank)),
            Err(source) => return Err(ReadError::NotARecord { offset, source }),
        };
        slice.slice(0..len).ok_or_else(out_of_range)
    }

    /// Sleeps until something beyond `beyond` is visible, `timeout` has passed, or `stop` is set
    /// and [`CommitLog::wake_waiters`] called. Returns what is visible then: after a failure that
    /// is nothing new.
    ///
    /// An append makes no system call for it unless somebody sleeps.
    pub fn wait_visible(&self, beyond: u64, timeout: Duration, stop: &AtomicBool) -> u64 {
        self.core.arrivals.wait(timeout, || {
            self.visible() > beyond || stop.load(Ordering::Acquire)
        });
        self.visible()
    }

    /// From now on appends wake nobody, until [`unhush`](Self::unhush) was called as often: for who
    /// appends much and then looks after what waits for it by himself.
    pub fn hush(&self) {
        self.core.arrivals.hush();
    }

    /// Ends that. What was appended meanwhile is visible to the caller, who must act on it, or call
    /// [`wake_waiters`](Self::wake_waiters).
    pub fn unhush(&self) {
        self.core.arrivals.unhush();
    }

    /// Makes everybody in [`CommitLog::wait_visible`] look at its stop flag.
    pub fn wake_waiters(&self) {
        self.core.arrivals.notify();
    }

    /// Syncs everything that was appended before the call, on this thread. Returns up to where
    /// the log is synced.
    ///
    /// # Errors
    ///
    /// The sync failed, now or earlier; or in sync or staged mode there was no space for what waits.
    pub fn flush_now(&self) -> Result<u64, LogError> {
        self.core.flush_all()
    }

    /// Removes whole segments that end at or below `offset`; never the last one, nor what is not
    /// flushed. Slices of them stay valid.
    ///
    /// # Errors
    ///
    /// A file could not be removed.
    pub fn trim_to(&self, offset: u64) -> Result<Trimmed, LogError> {
        Ok(self.core.queue.trim_to(offset)?)
    }

    /// Shows each record from `from`, where a record starts, up to what readers may see, read by
    /// `pread` and with its CRC checked: for building derived files again. Bytes that are no records
    /// are passed over if there are good ones behind them; returns where the last of these ends.
    ///
    /// # Errors
    ///
    /// A segment cannot be read, or the visitor refused a record.
    pub fn walk(&self, from: u64, visitor: &mut dyn Visitor) -> Result<u64, LogError> {
        let (end, segment_len) = (self.visible(), self.core.queue.segment_len());
        let mut scanner = Scanner::new(&self.core.queue, CrcCheck::Body);
        let mut offset = from;
        let mut told = from;
        while offset < end {
            if offset - told >= PROGRESS_STRIDE {
                told = offset;
                visitor.progress(offset);
            }
            match scanner.look_at(offset)? {
                Found::Record(view) => {
                    visitor
                        .record(&view)
                        .map_err(|source| LogError::Visit { offset, source })?;
                    offset += view.total_size() as u64;
                }
                Found::SegmentEnd => offset += segment_len - offset % segment_len,
                Found::Invalid(_) => match scanner.next_good(offset, end, &mut |_| true)? {
                    Some(next) => offset = next.offset,
                    None => break,
                },
            }
        }
        Ok(offset.min(end))
    }

    /// The store time of the first record in the segment that starts at `base`; see
    /// [`first_store_timestamp`](crate::first_store_timestamp).
    ///
    /// # Errors
    ///
    /// The segment cannot be read.
    pub fn first_store_timestamp(&self, base: u64) -> Result<Option<i64>, LogError> {
        crate::recovery_start::first_store_timestamp(&self.core.queue, base)
    }

    /// Starts the threads of the services. They end when the returned value is dropped.
    ///
    /// Without them somebody has to call [`step_flush`](CommitLog::step_flush) and the other
    /// steps. An append that has to wait for room then steps the flush itself.
    ///
    /// # Errors
    ///
    /// A thread could not be started.
    pub fn start_services(&self) -> Result<LogServices<I>, LogError> {
        LogServices::start(&self.core)
    }

    /// One step of the flush service: in async and staged mode a timed flush (RocketMQ:
    /// `FlushRealTimeService`), in sync mode a group commit (`GroupCommitService`).
    pub fn step_flush(&self) -> Next {
        self.core.step_flush()
    }

    /// One step of the commit service of staged mode (RocketMQ: `CommitRealTimeService`).
    pub fn step_commit(&self) -> Next {
        self.core.step_commit()
    }

    /// One step of the preallocation of blocks and of the next segments, and of their warm-up
    /// (RocketMQ: `AllocateMappedFileService`).
    pub fn step_prepare(&self) -> Next {
        self.core.step_prepare()
    }

    /// One look at the deadlines of waiting tickets (RocketMQ: `FlushDiskWatcher`).
    pub fn step_deadlines(&self) -> Next {
        self.core.step_deadlines()
    }

    /// Refuses appends from now on, syncs everything, and lets go of the files. Reading goes on.
    /// Returns up to where the log is synced: all of it.
    ///
    /// # Errors
    ///
    /// As [`CommitLog::flush_now`]. The log is closed nevertheless, but for a disk that is full
    /// in sync or staged mode: then it stays open.
    pub fn close(&self) -> Result<u64, LogError> {
        self.core.close()
    }
}

//! The gathered paths: records wait in memory for whoever owns the segment writer.
//!
//! Appenders add bytes and take offsets; the [`Committer`] writes all that wait in one call and
//! publishes. In sync mode it syncs in between, and resolves the tickets. There is no timer then:
//! the first record of an idle log is written at once, and the next group forms while that sync
//! runs, and in the moment that [`Rally`] gives it. In staged mode it has a timer
//! ([`crate::stage`]), and the flush service syncs later.
//!
//! Offsets are handed out before the write, so nothing may fail between the two for any reason
//! but a broken device: records are let in only where blocks are allocated already. Allocating
//! and rolling are the committer's work, which appenders ask for and wait for.
//!
//! A process that is killed in the middle of the write leaves a first part of the bytes and zeros
//! behind: the last record is whole, or recovery sees that it ends in zeros.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmap_core::Io;
use segment_queue::{FLUSH_PAGE_LEN, FlushPolicy, QueueError, SegmentWriter};

use crate::append::{AppendPath, BLANK_LEN, end_segment, queue_error, refused};
use crate::batch::Batch;
use crate::core::{Core, StateGuard};
use crate::error::{AppendError, Failure, LogError};
use crate::service::Next;

/// A batch for which there was no space is tried again after this long.
pub(crate) const FULL_PAUSE: Duration = Duration::from_millis(200);

/// The part of the gathered path that appenders touch, under the append lock.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Records that wait.
    waiting: Batch,
    /// Bytes of the batch that is being written.
    in_flight: usize,
    /// How much may wait.
    bound: Bound,
    /// Fewer waiting pages than this are left for the committer's timer.
    least_pages: u64,
    /// From this position on what waits is worth a write.
    worth_at: u64,
    /// The offset behind the last record.
    position: u64,
    /// The end of the current segment; equal to `position` when there is none.
    segment_end: u64,
    /// Blocks are allocated up to here.
    reserved_end: u64,
    /// What an appender wants from the committer.
    request: Option<Request>,
    /// How many requests were answered.
    answer_count: u64,
    /// Why the last one could not be met.
    refusal: Option<Arc<QueueError>>,
    /// Why the batch that is tried again and again has no space, though its blocks were allocated.
    stuck: Option<Arc<QueueError>>,
}

/// How much may wait, and what is done about more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Bytes.
    pub(crate) len: u64,
    /// The option that sets it.
    pub(crate) option: &'static str,
    /// More is refused without waiting for room.
    pub(crate) is_fast_failing: bool,
}

/// Work on the segments that only the owner of the writer can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    /// Allocate blocks up to this offset.
    Reserve(u64),
    /// End the segment and begin the next. Nothing is gathered meanwhile.
    Roll,
}

/// Why a record cannot be gathered right now.
enum Obstacle {
    /// Only the committer can help, and has to be asked.
    Needs(Request),
    /// The bound on waiting bytes.
    Waiting,
}

impl Gathered {
    /// Gathers for this writer what waits in `waiting`, which is empty.
    pub(crate) fn new<I: Io>(
        writer: &SegmentWriter<I>,
        waiting: Batch,
        bound: Bound,
        least_pages: u64,
    ) -> Self {
        let mut gathered = Self {
            waiting,
            in_flight: 0,
            bound,
            least_pages,
            worth_at: 0,
            position: writer.position(),
            segment_end: writer.position() + writer.remaining(),
            // Nothing is known to be allocated: the first record asks.
            reserved_end: writer.position(),
            request: None,
            answer_count: 0,
            refusal: None,
            stuck: None,
        };
        gathered.set_worth();
        gathered
    }

    /// The offset behind the last record.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Adds a record; `obstacle` has said that there is room.
    #[inline]
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.waiting.push(part);
            self.position += part.len() as u64;
        }
        debug_assert!(
            self.position + BLANK_LEN <= self.segment_end,
            "past the segment"
        );
        debug_assert!(
            self.position <= self.reserved_end,
            "past the allocated blocks"
        );
    }

    /// Whether the committer has something to do that cannot wait for its timer.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.request.is_some() || (self.position >= self.worth_at && !self.waiting.is_empty())
    }

    /// What waits was taken just now.
    fn set_worth(&mut self) {
        let page = self.position / FLUSH_PAGE_LEN;
        self.worth_at = match self.least_pages {
            0 => 0,
            least => page.saturating_add(least).saturating_mul(FLUSH_PAGE_LEN),
        };
    }

    /// All bytes that are not in the file yet.
    fn waiting(&self) -> u64 {
        (self.waiting.len() + self.in_flight) as u64
    }

    fn obstacle(&self, len: u64) -> Option<Obstacle> {
        let end = self.position + len;
        if self.request == Some(Request::Roll) || end + BLANK_LEN > self.segment_end {
            return Some(Obstacle::Needs(Request::Roll));
        }
        if end > self.reserved_end {
            return Some(Obstacle::Needs(Request::Reserve(end)));
        }
        let has_room = self.waiting.has_room(len, self.waiting(), self.bound.len);
        (!has_room).then_some(Obstacle::Waiting)
    }

    /// A request was met, or cannot be. The position moves when a roll has passed over the end
    /// of a segment; no records waited then.
    fn answer(&mut self, refusal: Option<Arc<QueueError>>, position: u64, segment_end: u64) {
        self.refusal = refusal;
        self.answer_count += 1;
        self.request = None;
        self.position = self.position.max(position);
        self.segment_end = segment_end;
    }
}

impl<I: Io> Core<I> {
    /// Waits, with the append lock in hand at both ends, until `len` bytes can be gathered.
    pub(crate) fn gathered_room_for<'a>(
        &'a self,
        mut state: StateGuard<'a, I>,
        len: u64,
    ) -> Result<(StateGuard<'a, I>, u64), AppendError> {
        // Started by the first obstacle: reading the clock is not free.
        let mut patience = None;
        // The count of answers when this append began to wait for one.
        let mut asked_at = None;
        loop {
            let AppendPath::Gathered(gathered) = &mut state.path else {
                return Err(AppendError::Closed);
            };
            if let Some(stuck) = gathered.stuck.clone() {
                // More of them would only wait behind those that wait.
                return Err(refused(&self.options.dir, stuck));
            }
            let bound = gathered.bound;
            let mut is_refused = false;
            match gathered.obstacle(len) {
                None => {
                    let offset = gathered.position;
                    return Ok((state, offset));
                }
                Some(Obstacle::Waiting) => is_refused = bound.is_fast_failing,
                Some(Obstacle::Needs(request)) => {
                    let asked_at = *asked_at.get_or_insert(gathered.answer_count);
                    if gathered.answer_count != asked_at
                        && let Some(refusal) = gathered.refusal.clone()
                    {
                        return Err(refused(&self.options.dir, refusal));
                    }
                    // A larger wish replaces a smaller one; a roll replaces any.
                    gathered.request = gathered.request.max(Some(request));
                }
            }
            let waiting = gathered.waiting();
            self.has_work.store(true, Ordering::Relaxed);
            self.work.notify();
            let patience = patience.get_or_insert_with(|| Patience::new(self.options.append_wait));
            let pause = patience.left().filter(|_| !is_refused);
            let Some(pause) = pause else {
                return Err(AppendError::Busy {
                    waiting,
                    limit: bound.len,
                    option: bound.option,
                });
            };
            state = self.wait_for_room(state, pause)?;
        }
    }

    /// Lets the committer work: on its own thread, or here if nobody has started any.
    fn wait_for_room<'a>(
        &'a self,
        state: StateGuard<'a, I>,
        pause: Duration,
    ) -> Result<StateGuard<'a, I>, AppendError> {
        let state = if self.has_threads() {
            self.wait_room(state, pause)?
        } else {
            drop(state);
            self.step_writer();
            self.lock_state()?
        };
        self.check_open(&state)?;
        Ok(state)
    }
}

/// The owner of the segment writer where records are gathered.
#[derive(Debug)]
pub(crate) struct Committer<I: Io> {
    writer: SegmentWriter<I>,
    /// What is being written; swapped with what appenders fill. Left from the step before if there
    /// was no space for it.
    batch: Batch,
    /// Blocks are allocated up to here.
    reserved_end: u64,
    /// Whether each write is synced before anybody sees it.
    is_syncing: bool,
    /// Who waits a moment for others who are about to append.
    rally: Rally,
}

/// Those who were waiting for a sync come back at nearly the same time when it is over. Who comes
/// first and leads the next one waits a moment for the others: else it would sync one record alone,
/// and the others wait for two syncs.
#[derive(Debug, Default)]
struct Rally {
    /// Records that are expected.
    expected: usize,
    /// How many of the next groups go without.
    pause: u32,
    /// What `pause` was last: twice as many each time that they have not come.
    last_pause: u32,
}

impl Rally {
    /// Gives the others a moment to come back.
    fn wait<I: Io>(&mut self, core: &Core<I>) {
        let is_complete = || core.gathered_count.load(Ordering::Relaxed) >= self.expected;
        if is_complete() {
            return;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        // Each of them has to be woken, and to append.
        let count = u32::try_from(self.expected).unwrap_or(u32::MAX);
        let most = RALLY_EACH.saturating_mul(count).saturating_add(RALLY_BASE);
        let start = Instant::now();
        while !is_complete() {
            if start.elapsed() >= most.min(RALLY_MAX) {
                self.last_pause = (self.last_pause * 2).clamp(1, RALLY_PAUSE_MAX);
                self.pause = self.last_pause;
                return;
            }
            std::thread::yield_now();
        }
        self.last_pause = 0;
    }
}

/// How long the leader of a group commit waits for others, apart from what follows: a third of a
/// sync.
const RALLY_BASE: Duration = Duration::from_micros(30);
/// And for each of them.
const RALLY_EACH: Duration = Duration::from_micros(2);
/// How long for all of them, at most.
const RALLY_MAX: Duration = Duration::from_micros(500);
/// So many groups go without at most when the others have not come.
const RALLY_PAUSE_MAX: u32 = 64;

/// Why a batch was not committed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// It never will be.
    Failed(Failure),
    /// No space, though blocks were allocated: file systems that copy on write have that. The
    /// batch is kept and tried again.
    Full(Arc<QueueError>),
}

impl From<CommitError> for LogError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Failed(failure) => Self::Failed(failure),
            CommitError::Full(error) => Self::Segments(error),
        }
    }
}

impl<I: Io> Committer<I> {
    /// `batch` is empty, and of the kind that appenders fill.
    pub(crate) fn new(writer: SegmentWriter<I>, batch: Batch, is_syncing: bool) -> Self {
        let reserved_end = writer.position();
        Self {
            writer,
            batch,
            reserved_end,
            is_syncing,
            rally: Rally::default(),
        }
    }

    pub(crate) fn into_writer(self) -> SegmentWriter<I> {
        self.writer
    }

    /// As [`Committer::step`], on the thread of an appender who waits for it.
    pub(crate) fn lead(&mut self, core: &Core<I>) -> Next {
        self.rally.wait(core);
        let next = self.step(core);
        // They, this thread, and who has come meanwhile.
        let released = core.durability.met_count() + 1;
        self.rally.expected = released + core.gathered_count.load(Ordering::Relaxed);
        next
    }

    /// Writes what waits and does what appenders ask for.
    pub(crate) fn step(&mut self, core: &Core<I>) -> Next {
        match self.commit(core) {
            Ok(()) if core.has_work.load(Ordering::Relaxed) => Next::Now,
            Ok(()) | Err(CommitError::Failed(_)) => Next::OnWake,
            Err(CommitError::Full(_)) => Next::After(FULL_PAUSE),
        }
    }

    /// As [`Committer::step`], with the reason why it did not work.
    pub(crate) fn commit(&mut self, core: &Core<I>) -> Result<(), CommitError> {
        if let Some(failure) = core.durability.failure() {
            return Err(CommitError::Failed(failure.clone()));
        }
        let outcome = self.commit_batch(core);
        if let Err(CommitError::Failed(failure)) = &outcome {
            core.fail(failure.clone());
            // Nothing that waits will ever be written.
            core.has_work.store(false, Ordering::Relaxed);
        }
        outcome
    }

    /// Whether a batch is left that has to be tried again.
    pub(crate) fn is_behind(&self) -> bool {
        !self.batch.is_empty()
    }

    fn commit_batch(&mut self, core: &Core<I>) -> Result<(), CommitError> {
        let request = self.take(core)?;
        let has_batch = !self.batch.is_empty();
        if has_batch {
            if let Err(error) = self.write_batch() {
                return Err(self.stick(core, error));
            }
            self.batch.clear();
            if self.is_syncing {
                core.durability.advance(core.queue.flushed());
            } else {
                core.arrivals.notify();
            }
        }
        let outcome = match request {
            None if has_batch => self.reserve_ahead(core),
            None => Ok(()),
            Some(Request::Reserve(end)) => {
                let len = end.saturating_sub(self.writer.position());
                self.reserve(len.max(core.options.allocate_step))
            }
            Some(Request::Roll) => self.roll(core),
        };
        match outcome.map_err(|error| self.sort(core, error)) {
            Err(CommitError::Failed(failure)) => Err(CommitError::Failed(failure)),
            // No record was touched, so no space is an answer and nothing worse.
            Err(CommitError::Full(error)) => self.settle(core, request, Some(error)),
            Ok(()) => self.settle(core, request, None),
        }
    }

    fn write_batch(&mut self) -> Result<(), QueueError> {
        let slices = self.batch.slices();
        let written = if self.is_syncing {
            self.writer.write_through(&slices)
        } else {
            self.writer.write_behind(&slices)
        };
        written.map(drop).map_err(queue_error)
    }

    /// Tells what passes by itself from what does not.
    fn sort(&self, core: &Core<I>, error: QueueError) -> CommitError {
        if core.queue.is_poisoned() {
            CommitError::Failed(Failure::new(error))
        } else {
            CommitError::Full(Arc::new(error))
        }
    }

    /// The batch was not written. If that was for want of space it is tried again, and appenders
    /// are told.
    fn stick(&self, core: &Core<I>, error: QueueError) -> CommitError {
        if core.queue.is_poisoned() {
            return CommitError::Failed(Failure::new(error));
        }
        let error = Arc::new(error);
        match core.lock_state_or_fail() {
            Ok(mut state) => {
                if let AppendPath::Gathered(gathered) = &mut state.path {
                    gathered.stuck = Some(Arc::clone(&error));
                }
                // Nothing can be done before the pause is over.
                core.has_work.store(false, Ordering::Relaxed);
            }
            Err(failure) => return CommitError::Failed(failure),
        }
        core.room.notify_all();
        CommitError::Full(error)
    }

    /// Takes the waiting bytes, leaving an empty batch to fill, and the request.
    fn take(&mut self, core: &Core<I>) -> Result<Option<Request>, CommitError> {
        let mut state = core.lock_state_or_fail().map_err(CommitError::Failed)?;
        let AppendPath::Gathered(gathered) = &mut state.path else {
            return Ok(None);
        };
        if self.batch.is_empty() {
            std::mem::swap(&mut gathered.waiting, &mut self.batch);
            gathered.set_worth();
            core.gathered_count.store(0, Ordering::Relaxed);
        }
        gathered.in_flight = self.batch.len();
        core.has_work.store(gathered.is_due(), Ordering::Relaxed);
        // Behind a batch that was tried before others may wait, which belong to this segment.
        Ok(gathered.request.filter(|_| gathered.waiting.is_empty()))
    }

    /// Lets appenders on.
    fn settle(
        &mut self,
        core: &Core<I>,
        request: Option<Request>,
        refusal: Option<Arc<QueueError>>,
    ) -> Result<(), CommitError> {
        let (position, remaining) = (self.writer.position(), self.writer.remaining());
        let mut state = core.lock_state_or_fail().map_err(CommitError::Failed)?;
        if let AppendPath::Gathered(gathered) = &mut state.path {
            gathered.in_flight = 0;
            gathered.stuck = None;
            gathered.reserved_end = self.reserved_end;
            if request.is_some() {
                gathered.answer(refusal, position, position + remaining);
            }
            core.has_work.store(gathered.is_due(), Ordering::Relaxed);
        }
        drop(state);
        core.room.notify_all();
        Ok(())
    }

    /// Keeps blocks allocated ahead of the records, so that they need not wait for them.
    fn reserve_ahead(&mut self, core: &Core<I>) -> Result<(), QueueError> {
        let step = core.options.allocate_step;
        let ahead = self.reserved_end.saturating_sub(self.writer.position());
        if ahead >= step / 2 || ahead == self.writer.remaining() {
            return Ok(());
        }
        self.reserve(step)
    }

    /// Allocates blocks for `len` more bytes, or to the end of the segment.
    fn reserve(&mut self, len: u64) -> Result<(), QueueError> {
        let len = len.min(self.writer.remaining());
        self.reserved_end = self.writer.reserve(len).map_err(queue_error)?;
        Ok(())
    }

    /// Ends the segment, durably in sync mode, and begins the next one. Every gathered record is in the old one:
    /// none are let in while a roll is asked for.
    fn roll(&mut self, core: &Core<I>) -> Result<(), QueueError> {
        end_segment(&mut self.writer)?;
        if self.is_syncing {
            core.durability.advance(core.queue.flush(FlushPolicy::All)?);
        }
        self.writer.roll()?;
        self.reserve(core.options.allocate_step)
    }
}

/// How long an append waits in all, over several waits.
struct Patience {
    deadline: Option<Instant>,
}

impl Patience {
    fn new(wait: Duration) -> Self {
        // A wait too long for an Instant has no end.
        Self {
            deadline: Instant::now().checked_add(wait),
        }
    }

    /// What is left; `None` when it is over.
    fn left(&self) -> Option<Duration> {
        let Some(deadline) = self.deadline else {
            return Some(Duration::MAX);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

//! What all handles and services of one log share, and the order of its locks.
//!
//! Locks, in the order in which they may be taken: `stager` and `flusher` (held across I/O, by
//! services, by `flush_now` and by threads that wait for their records: see [`crate::lead`]),
//! `state` (the append lock: never held across a sync), the list of waiters in [`Durability`].
//! Visitors, wakers and listeners are called without any of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mmap_core::sabotage::{self, Lie};
use mmap_core::{Io, StagePool};
use segment_queue::{PreallocateOptions, Preallocator, SegmentQueue, SegmentWriter, Serving};

use crate::append::{AppendPath, AppendState, Mapped};
use crate::batch::Batch;
use crate::clock::Clock;
use crate::durability::Durability;
use crate::error::{AppendError, Failure, LogError};
use crate::event::EventCount;
use crate::flush::{Flusher, TimedFlush};
use crate::gather::{Bound, Committer, Gathered};
use crate::options::{CommitLogOptions, FlushMode, LogWarmUp, StageOptions};
use crate::service::Next;
use crate::stage::TimedCommit;

/// The preallocator is woken each time the log has grown by this much: 8 MiB, a quarter of the
/// window that it keeps ahead.
const PREPARE_STRIDE_MAX: u64 = 8 << 20;

pub(crate) type StateGuard<'a, I> = MutexGuard<'a, AppendState<I>>;

#[derive(Debug)]
pub(crate) struct Core<I: Io> {
    pub(crate) options: CommitLogOptions,
    /// The timeout of sync mode; `None` in async mode.
    pub(crate) sync_timeout: Option<Duration>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) queue: Arc<SegmentQueue<I>>,
    pub(crate) durability: Arc<Durability>,
    /// Where the log ended when it was opened.
    pub(crate) opened_at: u64,
    /// Rung when [`Core::visible`] has moved.
    pub(crate) arrivals: EventCount,
    /// Rung when the owner of the segment writer has something to do, where records are gathered.
    pub(crate) work: EventCount,
    // Whether bytes that are worth it, or a request, wait for it. Written under the append lock, which
    // orders it (but for a step that finds nothing, which does no harm); read without it as the
    // condition of `work`, whose fences make that enough.
    pub(crate) has_work: AtomicBool,
    // How many records wait for a group commit. Written under the append lock; read without it by
    // who waits for more of them. Relaxed.
    pub(crate) gathered_count: AtomicUsize,
    /// Rung when the log has grown so far that the next blocks should be prepared.
    pub(crate) growth: EventCount,
    // An append that ends at or behind this offset rings `growth`. Written by that append and
    // by nobody else; a lost race rings once more or a little later. Relaxed.
    prepare_at: AtomicU64,
    // Whether `growth` was rung since the last look. Written by appends, taken by the service.
    is_prepare_due: AtomicBool,
    preallocator: Mutex<Preallocator<I>>,
    /// Rung when appenders that wait for room shall look again.
    pub(crate) room: Condvar,
    /// The append lock.
    state: Mutex<AppendState<I>>,
    /// The commit service, in staged mode.
    stager: Mutex<Option<TimedCommit<I>>>,
    /// Its buffers.
    pub(crate) stage: Option<Arc<StagePool>>,
    pub(crate) flusher: Mutex<Flusher<I>>,
    // How many sets of service threads run. Written by `LogServices`; read by appends that have
    // to wait, which step the service themselves when there is none: a hint. Read by who leads a
    // group commit, under the flusher's lock, which whoever stopped the threads has taken since.
    // Relaxed.
    thread_sets: AtomicUsize,
}

impl<I: Io> Core<I> {
    /// A log that goes on where `writer` stands. Everything below is synced. `stage` is there in
    /// staged mode.
    pub(crate) fn new(
        options: CommitLogOptions,
        clock: Arc<dyn Clock>,
        queue: Arc<SegmentQueue<I>>,
        writer: SegmentWriter<I>,
        last_store_ms: i64,
        stage: Option<Arc<StagePool>>,
    ) -> Self {
        let durability = Durability::new(queue.flushed(), clock.clone());
        let now = clock.monotonic();
        let mut sync_timeout = None;
        let mut stager = None;
        let (path, flusher) = match options.flush {
            FlushMode::Async {
                interval,
                least_pages,
                thorough_interval,
            }
            | FlushMode::Staged {
                interval,
                least_pages,
                thorough_interval,
                ..
            } => {
                let timed = TimedFlush::new(interval, least_pages, thorough_interval, now);
                let path = match options.flush.stage().zip(stage.as_ref()) {
                    Some((options, pool)) => {
                        let (gathered, commit) = staged(writer, pool, options, now);
                        stager = Some(commit);
                        AppendPath::Gathered(gathered)
                    }
                    None => AppendPath::Mapped(Mapped::new(writer)),
                };
                (path, Flusher::Timed(timed))
            }
            FlushMode::Sync { timeout } => {
                sync_timeout = Some(timeout);
                let bound = Bound {
                    len: options.pending_len_max as u64,
                    option: "pending_len_max",
                    is_fast_failing: false,
                };
                let gathered = Gathered::new(&writer, Batch::Group(Vec::new()), bound, 0);
                let commit = Committer::new(writer, Batch::Group(Vec::new()), true);
                (AppendPath::Gathered(gathered), Flusher::Group(commit))
            }
        };
        let ahead = ahead(&options);
        Self {
            preallocator: Mutex::new(Preallocator::new(queue.clone(), ahead)),
            options,
            sync_timeout,
            clock,
            opened_at: queue.published(),
            queue,
            durability,
            arrivals: EventCount::default(),
            work: EventCount::default(),
            has_work: AtomicBool::new(false),
            gathered_count: AtomicUsize::new(0),
            growth: EventCount::default(),
            prepare_at: AtomicU64::new(0),
            is_prepare_due: AtomicBool::new(false),
            room: Condvar::new(),
            state: Mutex::new(AppendState {
                path,
                last_store_ms,
                is_closed: false,
            }),
            stager: Mutex::new(stager),
            stage,
            flusher: Mutex::new(flusher),
            thread_sets: AtomicUsize::new(0),
        }
    }

    /// What readers and dispatch may see: the least of published and, in sync mode or after a
    /// failed sync, flushed.
    pub(crate) fn visible(&self) -> u64 {
        let is_held = self.sync_timeout.is_some() || self.durability.failure().is_some();
        if is_held && !sabotage::is_planted(Lie::VisibleBeforeFlushed) {
            self.durability.flushed()
        } else {
            self.queue.published()
        }
    }

    /// The end of the log, whether readers may see it or not.
    pub(crate) fn max_offset(&self) -> u64 {
        match self.lock_state() {
            Ok(state) => match &state.path {
                AppendPath::Mapped(mapped) => mapped.position(),
                AppendPath::Gathered(gathered) => gathered.position(),
                AppendPath::Closed => self.queue.published(),
            },
            Err(_) => self.queue.published(),
        }
    }

    /// Takes the append lock. A panic of another holder may have left a record half written
    /// behind the published position: the log ends for writers.
    pub(crate) fn lock_state(&self) -> Result<StateGuard<'_, I>, AppendError> {
        self.state
            .lock()
            .map_err(|_| AppendError::Failed(self.fail(Failure::panicked())))
    }

    /// As [`Core::lock_state`], for the services.
    pub(crate) fn lock_state_or_fail(&self) -> Result<StateGuard<'_, I>, Failure> {
        self.state.lock().map_err(|_| Failure::panicked())
    }

    /// Gives the append lock back until the committer has made room, for at most `pause`.
    pub(crate) fn wait_room<'a>(
        &'a self,
        state: StateGuard<'a, I>,
        pause: Duration,
    ) -> Result<StateGuard<'a, I>, AppendError> {
        match self.room.wait_timeout(state, pause) {
            Ok((state, _)) => Ok(state),
            Err(_) => Err(AppendError::Failed(self.fail(Failure::panicked()))),
        }
    }

    /// One step of the flush service, on whichever thread.
    pub(crate) fn step_flush(&self) -> Next {
        self.with_flusher(self.lock_flusher(), |flusher| flusher.step(self))
    }

    /// One step of the commit service, on whichever thread; nothing but in staged mode.
    pub(crate) fn step_commit(&self) -> Next {
        match &mut *self.lock_stager() {
            Some(stager) => stager.step(self),
            None => Next::OnWake,
        }
    }

    /// One step of whoever owns the segment writer, where records are gathered.
    pub(crate) fn step_writer(&self) {
        if self.stage.is_some() {
            self.step_commit();
        } else {
            self.step_flush();
        }
    }

    /// Wakes the tickets whose deadline has passed, and the flush service for records whose tickets
    /// somebody holds and does not look at.
    pub(crate) fn step_deadlines(&self) -> Next {
        self.ring_if_due();
        let now = self.clock.monotonic();
        match self.durability.expire(now) {
            Some(deadline) => Next::After(deadline.saturating_sub(now)),
            None => Next::OnWake,
        }
    }

    /// Everything appended so far is synced, on this thread.
    pub(crate) fn flush_all(&self) -> Result<u64, LogError> {
        self.commit_all(&mut self.lock_stager())?;
        let flushed = self.with_flusher(self.lock_flusher(), |flusher| flusher.flush_all(self));
        if flushed.is_err() {
            // What has no space left is tried again by the service, from time to time.
            self.has_work.store(true, Ordering::Relaxed);
            self.work.notify();
        }
        flushed
    }

    /// Everything appended so far is in the files.
    fn commit_all(&self, stager: &mut Option<TimedCommit<I>>) -> Result<(), LogError> {
        match stager {
            Some(stager) => stager.commit_all(self),
            None => Ok(()),
        }
    }

    /// Refuses appends from now on, syncs everything and lets go of the files.
    pub(crate) fn close(&self) -> Result<u64, LogError> {
        let mut stager = self.lock_stager();
        self.with_flusher(self.lock_flusher(), |flusher| {
            self.close_with(&mut stager, flusher)
        })
    }

    fn close_with(
        &self,
        stager: &mut Option<TimedCommit<I>>,
        flusher: &mut Flusher<I>,
    ) -> Result<u64, LogError> {
        self.lock_state_or_fail()?.is_closed = true;
        let flushed = self
            .commit_all(stager)
            .and_then(|()| flusher.flush_all(self));
        if let Err(error) = flushed {
            // What waits for space can still be flushed later.
            self.lock_state_or_fail()?.is_closed = false;
            return Err(error);
        }
        let path = {
            let mut state = self.lock_state_or_fail()?;
            std::mem::replace(&mut state.path, AppendPath::Closed)
        };
        let committer = match std::mem::replace(flusher, Flusher::Closed) {
            Flusher::Group(group) => Some(group),
            _ => stager.take().map(TimedCommit::into_committer),
        };
        match (path, committer) {
            (AppendPath::Mapped(mapped), _) => mapped.into_writer().close()?,
            (_, Some(committer)) => committer.into_writer().close()?,
            _ => {}
        }
        Ok(self.durability.flushed())
    }

    /// Rings for the preallocator once per stride of growth.
    pub(crate) fn prepare_if_due(&self, end: u64) {
        if end >= self.prepare_at.load(Ordering::Relaxed) {
            let stride = PREPARE_STRIDE_MAX.min(self.options.segment_len / 8);
            self.prepare_at.store(end + stride, Ordering::Relaxed);
            self.ring_for_prepare();
        }
    }

    fn ring_for_prepare(&self) {
        self.is_prepare_due.store(true, Ordering::Relaxed);
        self.growth.notify();
    }

    /// Says that somebody calls [`Core::step_prepare`] whenever `growth` is rung, until the returned
    /// value is dropped: appending makes no file then.
    pub(crate) fn serve_prepare(self: &Arc<Self>) -> Serving<I> {
        let core = Arc::downgrade(self);
        self.queue.serve_ahead(move || {
            if let Some(core) = core.upgrade() {
                core.ring_for_prepare();
            }
        })
    }

    pub(crate) fn is_prepare_due(&self) -> bool {
        self.is_prepare_due.load(Ordering::Relaxed)
    }

    /// One step of the preallocation of what comes next, on whichever thread.
    pub(crate) fn step_prepare(&self) -> Next {
        self.is_prepare_due.store(false, Ordering::Relaxed);
        let mut preallocator = self
            .preallocator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match preallocator.step() {
            Ok(step) if !step.is_idle() => Next::Now,
            // A full disk and the like are found again, and reported, by the append that needs the
            // space. Nothing is lost by that but time.
            Ok(_) | Err(_) => Next::OnWake,
        }
    }

    /// Has the owner of the segment writer look, if there is something to do.
    pub(crate) fn ring_if_due(&self) {
        if self.has_work.load(Ordering::Relaxed) {
            self.work.notify();
        }
    }

    /// Ends the log for writers, for the first reason given; returns that one.
    pub(crate) fn fail(&self, failure: Failure) -> Failure {
        self.durability.fail(failure.clone());
        self.room.notify_all();
        self.arrivals.notify();
        self.durability.failure().cloned().unwrap_or(failure)
    }

    pub(crate) fn has_threads(&self) -> bool {
        self.thread_sets.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn threads_started(&self) {
        self.thread_sets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn threads_stopped(&self) {
        self.thread_sets.fetch_sub(1, Ordering::Relaxed);
        // Waits for whoever leads a group commit: nobody begins one from now on.
        drop(self.lock_flusher());
        // Who waits for them has to help itself from now on.
        self.room.notify_all();
    }

    fn lock_stager(&self) -> MutexGuard<'_, Option<TimedCommit<I>>> {
        // As with the flusher.
        self.stager.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_flusher(&self) -> MutexGuard<'_, Flusher<I>> {
        // A panic in a step has poisoned the append lock or left the flusher between two whole
        // steps; in both cases the next step finds out by itself.
        self.flusher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the log's segments are prepared.
fn ahead(options: &CommitLogOptions) -> PreallocateOptions {
    let mut ahead = PreallocateOptions::for_segment_len(options.segment_len);
    if let LogWarmUp::Whole(how) = options.warm_up {
        ahead.warm_up = Some(how);
    }
    let is_mapped = matches!(options.flush, FlushMode::Async { .. });
    if options.warm_up == LogWarmUp::None || !is_mapped {
        // What is not written through the mapping needs no pages in it.
        ahead.window = 0;
    }
    ahead
}

/// The two ends of the staged path: what appenders fill, and who empties it.
fn staged<I: Io>(
    writer: SegmentWriter<I>,
    pool: &Arc<StagePool>,
    options: &StageOptions,
    now: Duration,
) -> (Gathered, TimedCommit<I>) {
    let bound = Bound {
        len: (pool.buffer_count() * pool.buffer_len()) as u64,
        option: "stage.buffer_count",
        is_fast_failing: options.is_fast_failing,
    };
    let batch = || Batch::staged(Arc::clone(pool));
    let gathered = Gathered::new(&writer, batch(), bound, options.least_pages);
    let committer = Committer::new(writer, batch(), false);
    (gathered, TimedCommit::new(committer, options, now))
}

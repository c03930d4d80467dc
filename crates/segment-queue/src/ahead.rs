//! Where prepared segments wait for the writer, and the writer for them.
//!
//! Two parties create segments: the [`Preallocator`](crate::Preallocator), ahead of need, and the
//! writer, when there is no other way. They take turns: `is_busy` stands for whoever works on a
//! segment outside of the lock.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mmap_core::sync::{Condvar, Mutex, MutexGuard};
use mmap_core::{Appender, Io};

use crate::error::QueueError;
use crate::guard::lock;
use crate::queue::SegmentQueue;
use crate::segment::Segment;

/// A created, allocated and mapped segment that is not part of the queue yet.
pub(crate) struct Prepared<I: Io> {
    pub(crate) segment: Arc<Segment<I>>,
    pub(crate) file: Arc<I::File>,
    pub(crate) appender: Appender<I::Map>,
    /// Position up to which its pages were warmed up.
    pub(crate) warmed: u64,
    /// Position up to which its blocks were written.
    pub(crate) initialised: u64,
}

/// The meeting place of the writer and those who prepare segments for it.
pub(crate) struct Ahead<I: Io> {
    state: Mutex<State<I>>,
    /// Rung when anything in `state` has changed that somebody may wait for.
    changed: Condvar,
}

pub(crate) struct State<I: Io> {
    /// One behind the other, the one that follows the queue's last first.
    pub(crate) ready: VecDeque<Prepared<I>>,
    /// First offset of the segment that the writer waits for.
    pub(crate) wanted: Option<u64>,
    /// Somebody creates or warms up a segment, without the lock.
    is_busy: bool,
    /// The writer is done; nothing is prepared any more.
    is_closed: bool,
    /// How many steps of the preallocator have failed.
    failed_count: u64,
    /// Wakes the thread that steps the preallocator, while there is one.
    bell: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The right to work on a segment without the lock; ends when it is dropped.
pub(crate) struct Busy<'a, I: Io> {
    ahead: &'a Ahead<I>,
}

/// While it lives, the writer relies on a thread that steps the queue's preallocator: see
/// [`SegmentQueue::serve_ahead`].
pub struct Serving<I: Io> {
    queue: Arc<SegmentQueue<I>>,
}

impl<I: Io> Ahead<I> {
    pub(crate) fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            wanted: None,
            is_busy: false,
            is_closed: false,
            failed_count: 0,
            bell: None,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<I>> {
        lock(&self.state)
    }

    /// Whether the writer waits for a segment.
    pub(crate) fn is_wanted(&self) -> bool {
        self.lock().wanted.is_some()
    }

    /// A step of the preallocator has failed: whoever waits helps himself.
    pub(crate) fn count_failure(&self) {
        self.lock().failed_count += 1;
        self.changed.notify_all();
    }

    /// Takes the right to work on a segment; `None` if somebody has it, or nothing is prepared any
    /// more.
    pub(crate) fn begin(&self, state: &mut State<I>) -> Option<Busy<'_, I>> {
        if state.is_busy || state.is_closed {
            return None;
        }
        state.is_busy = true;
        Some(Busy { ahead: self })
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State<I>>,
        pause: Duration,
    ) -> MutexGuard<'a, State<I>> {
        let woken = self.changed.wait_timeout(state, pause);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl<I: Io> Busy<'_, I> {
    /// Puts a segment among those that are ready, in its place.
    pub(crate) fn put(self, prepared: Prepared<I>) {
        let mut state = self.ahead.lock();
        let base = prepared.segment.base();
        let place = state
            .ready
            .partition_point(|other| other.segment.base() < base);
        state.ready.insert(place, prepared);
        state.wanted.take_if(|wanted| *wanted == base);
    }
}

impl<I: Io> Drop for Busy<'_, I> {
    fn drop(&mut self) {
        self.ahead.lock().is_busy = false;
        self.ahead.changed.notify_all();
    }
}

impl<I: Io> SegmentQueue<I> {
    /// Says that a thread steps the [`Preallocator`](crate::Preallocator) of this queue whenever
    /// `ring` is called, and whenever it finds it right, until the returned value is dropped. The
    /// writer creates no file then: it asks for the next segment and waits for it, for at most
    /// [`prepare_wait`](crate::SegmentQueueOptions::prepare_wait). It helps itself if a step fails
    /// meanwhile.
    ///
    /// `ring` may be called with locks held: it must not call back.
    pub fn serve_ahead(self: &Arc<Self>, ring: impl Fn() + Send + Sync + 'static) -> Serving<I> {
        self.ahead.lock().bell = Some(Arc::new(ring));
        Serving {
            queue: Arc::clone(self),
        }
    }

    /// The segment at `base`, where the queue ends: the prepared one, or one that is made now. The
    /// caller adds it to the list before it lets go of the lock, so that it is not made again.
    pub(crate) fn next_segment(
        &self,
        base: u64,
    ) -> Result<(MutexGuard<'_, State<I>>, Prepared<I>), QueueError> {
        let began = Instant::now();
        let mut state = self.ahead.lock();
        let asked_at = state.failed_count;
        // Rung once: what is wanted stays so.
        let mut bell = state.bell.clone();
        loop {
            let is_ready = |next: &Prepared<I>| next.segment.base() == base;
            if state.ready.front().is_some_and(is_ready)
                && let Some(prepared) = state.ready.pop_front()
            {
                return Ok((state, prepared));
            }
            let is_served = state.bell.is_some() && state.failed_count == asked_at;
            if is_served || state.is_busy {
                state.wanted = Some(base);
                if let Some(ring) = bell.take() {
                    ring();
                }
                state = self.wait_for(state, base, began)?;
                continue;
            }
            let busy = self.ahead.begin(&mut state);
            drop(state);
            let prepared = self.create_segment(base)?;
            let Some(busy) = busy else {
                // Closed: nobody but this writer can still ask.
                return Ok((self.ahead.lock(), prepared));
            };
            busy.put(prepared);
            state = self.ahead.lock();
        }
    }

    /// Waits for the segment at `base` until something has changed.
    fn wait_for<'a>(
        &'a self,
        state: MutexGuard<'a, State<I>>,
        base: u64,
        began: Instant,
    ) -> Result<MutexGuard<'a, State<I>>, QueueError> {
        let most = self.home.prepare_wait;
        let Some(left) = most
            .checked_sub(began.elapsed())
            .filter(|left| !left.is_zero())
        else {
            // What was asked for stays so: the next attempt may find it.
            return Err(QueueError::Late {
                path: self.home.path(base),
                waited: most,
            });
        };
        Ok(self.ahead.wait(state, left))
    }

    /// Deletes the segments that were prepared and not used, the last one first, so that no crash
    /// leaves a gap. With `is_last`, nothing is prepared any more.
    pub(crate) fn discard_prepared(&self, is_last: bool) -> Result<(), QueueError> {
        let mut state = self.ahead.lock();
        while state.is_busy {
            state = self.ahead.wait(state, Duration::MAX);
        }
        state.is_closed |= is_last;
        state.wanted = None;
        while let Some(prepared) = state.ready.back() {
            self.remove_unused(&prepared.segment.path())?;
            state.ready.pop_back();
        }
        Ok(())
    }
}

impl<I: Io> Drop for Serving<I> {
    fn drop(&mut self) {
        self.queue.ahead.lock().bell = None;
        self.queue.ahead.changed.notify_all();
    }
}

impl<I: Io> fmt::Debug for Serving<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("queue", &self.queue)
            .finish()
    }
}

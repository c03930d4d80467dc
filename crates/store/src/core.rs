//! What the store's threads share, and the pieces of their work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use commitlog::{AppendError, Clock, CommitLog};
use mmap_core::Io;
use mmap_core::sabotage::{self, Lie};
use segment_queue::{FlushPolicy, QueueError};

use crate::checkpoint::Checkpoint;
use crate::clean::{CleanError, Cleanable, Cleaned, Cleaner};
use crate::dispatch::Dispatcher;
use crate::dispatched::DispatchMarks;
use crate::error::{CloseError, DispatchError, PutError};
use crate::health::{self, Health, Troubles};
use crate::options::StoreOptions;
use crate::ownership::Ownership;
use crate::queue_check::Marks;
use crate::residency::Residency;
use crate::state::StateFile;

/// What the threads share.
#[derive(Debug)]
pub(crate) struct Core<I: Io> {
    pub(crate) io: I,
    pub(crate) options: StoreOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: CommitLog<I>,
    pub(crate) dispatcher: Dispatcher<I>,
    pub(crate) marks: Marks<I>,
    pub(crate) checkpoint: Checkpoint<I>,
    pub(crate) ownership: Ownership<I>,
    /// Held while queues, index and checkpoint are synced: who came second would find nothing left
    /// to sync, and vouch for what the first one has not synced yet.
    pub(crate) flushing_derived: Mutex<()>,
    /// What a sync of the log must reach for the checkpoint to move.
    pub(crate) sync_target: Mutex<SyncTarget>,
    /// How far dispatch has come, for a start in this run of the machine.
    pub(crate) dispatched: Option<Arc<DispatchMarks<I>>>,
    /// This run of the machine; empty where the system does not say.
    pub(crate) run_id: String,
    /// What is remembered beside RocketMQ's files.
    pub(crate) state: Mutex<Option<StateFile<I>>>,
    pub(crate) cleaner: Cleaner,
    pub(crate) residency: Residency,
    pub(crate) troubles: Troubles,
    /// The last put found no space.
    pub(crate) no_space: Mutex<Option<Shortage>>,
}

/// What a put would have needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shortage {
    requested: u64,
    /// Of which the file system's figures need not tell.
    is_quota: bool,
}

/// A place in the log, and the store time of the record before it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SyncTarget {
    offset: u64,
    store_ms: i64,
}

impl<I: Io> Core<I> {
    /// Syncs queues, index and checkpoint, in this order: the checkpoint never promises more
    /// than is on the device. What fails does not keep the others from it.
    pub(crate) fn step_flush_derived(&self) -> Result<(), CloseError> {
        let _one_at_a_time = self
            .flushing_derived
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = SyncTarget {
            store_ms: self.dispatcher.last_store_ms(),
            offset: self.dispatcher.next_offset(),
        };
        if sabotage::is_planted(Lie::CheckpointTooEarly) {
            self.checkpoint.advance_logics(now.store_ms);
            self.checkpoint.advance_physic(now.store_ms);
            return Ok(self.checkpoint.flush()?);
        }
        let queues = self.dispatcher.queues.set().flush(FlushPolicy::All);
        let queues = queues.and_then(|_| self.dispatcher.batches.set.flush());
        self.note(health::QUEUE_SYNC, &queues);
        match &queues {
            Ok(()) => self.checkpoint.advance_logics(now.store_ms),
            Err(_) => {
                self.forget_dispatched();
                self.marks.doubt_unsynced(&self.dispatcher);
            }
        }
        let index = match &self.dispatcher.index {
            Some(index) => index.flush().map(|flushed| {
                if let Some(end_ms) = flushed.full_files_end_timestamp_ms {
                    self.checkpoint.advance_index(end_ms);
                }
            }),
            None => Ok(()),
        };
        self.note(health::INDEX_SYNC, &index);
        if index.is_err() {
            self.forget_dispatched();
            self.doubt_derived();
        }
        let mut target = self
            .sync_target
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.log.flushed() >= target.offset {
            self.checkpoint.advance_physic(target.store_ms);
            *target = now;
        }
        drop(target);
        let checkpoint = self.checkpoint.flush();
        self.note(health::CHECKPOINT_SYNC, &checkpoint);
        queues?;
        index?;
        checkpoint?;
        self.remember(now.offset);
        self.mark_dispatched();
        Ok(())
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(crate) fn lock_state(&self) -> MutexGuard<'_, Option<StateFile<I>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a piece of the dispatcher's work.
    pub(crate) fn step_dispatch(&self) -> Result<bool, DispatchError> {
        self.note_dispatch(self.dispatcher.step(&self.log))
    }

    /// The same, unless somebody else is at it.
    pub(crate) fn try_step_dispatch(&self) -> Option<Result<bool, DispatchError>> {
        let outcome = self.dispatcher.try_step(&self.log)?;
        Some(self.note_dispatch(outcome))
    }

    fn note_dispatch(&self, outcome: Result<bool, DispatchError>) -> Result<bool, DispatchError> {
        if outcome.is_err() || !self.troubles.is_empty() {
            self.note(health::DISPATCH, &outcome);
        }
        let index = self.dispatcher.index.as_ref();
        if outcome.is_err() && index.is_some_and(|index| index.is_poisoned()) {
            // A full file of it is synced when the next one begins.
            self.forget_dispatched();
            self.doubt_derived();
        }
        let next_offset = self.dispatcher.next_offset();
        let is_due = |marks: &Arc<DispatchMarks<I>>| marks.is_due(next_offset);
        if self.dispatched.as_ref().is_some_and(is_due) {
            self.mark_dispatched();
        }
        outcome
    }

    /// One round of cleaning.
    pub(crate) fn step_clean(
        &self,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Cleaned, CleanError> {
        // A queue that lost the entries of messages that are gone from the log would give their
        // offsets to others. The flush itself tells of its failure.
        if self.step_flush_derived().is_err() {
            return Ok(Cleaned::default());
        }
        let cleaned = self.cleaner.round(&self.cleanable(), pause);
        self.note(health::CLEANING, &cleaned);
        cleaned
    }

    /// Unmaps what nobody has read for a while, and what is beyond the budget of mapped bytes.
    pub(crate) fn step_unmap(&self) {
        let now = self.clock.monotonic();
        self.dispatcher.queues.set().step_unmap(now);
        self.dispatcher.batches.set.step_unmap(now);
        self.log
            .segments()
            .step_unmap(now, &[self.log.min_offset()]);
    }

    /// Looks at the disks and at the log's state.
    pub(crate) fn step_watch(&self) {
        self.cleaner
            .look_at_disks(&self.cleanable(), &self.troubles);
        if let Some(failure) = self.log.failure() {
            let now_ms = self.clock.wall_ms();
            self.troubles
                .begin(health::LOG_FAILED, now_ms, || health::chain(failure));
        }
        let disks = self.cleaner.disks();
        let available = disks.log.map_or(0, |disk| disk.limit - disk.used);
        let mut no_space = self.lock_no_space();
        // Nobody may be putting to find it out. A put that finds no space after all says so again.
        if no_space.is_some_and(|short| !short.is_quota && available >= short.requested) {
            *no_space = None;
            self.troubles.end(health::NO_SPACE);
        }
    }

    pub(crate) fn health(&self) -> Health {
        let disks = self.cleaner.disks();
        let failure = self.log.failure().map(|failure| health::chain(failure));
        let refusal = failure
            .or_else(|| self.check_space().err().map(|refusal| refusal.to_string()))
            .or_else(|| self.troubles.reason(health::NO_SPACE));
        Health {
            refusal,
            troubles: self.troubles.list(),
            log_disk: disks.log,
            queue_disk: disks.queues,
        }
    }

    pub(crate) fn check_space(&self) -> Result<(), PutError> {
        self.cleaner.check_space(&self.options)
    }

    fn cleanable(&self) -> Cleanable<'_, I> {
        Cleanable {
            io: &self.io,
            options: &self.options,
            log: &self.log,
            dispatcher: &self.dispatcher,
            now_ms: self.clock.wall_ms(),
        }
    }

    /// Begins or ends the states that appends find out about.
    pub(crate) fn note_append<T>(&self, outcome: &Result<T, AppendError>) {
        let begin = |name, error: &AppendError| {
            let now_ms = self.clock.wall_ms();
            self.troubles.begin(name, now_ms, || health::chain(error));
        };
        match outcome {
            Ok(_) if self.troubles.is_empty() => {}
            Ok(_) => {
                *self.lock_no_space() = None;
                self.troubles.end(health::NO_SPACE);
            }
            Err(error @ AppendError::Full { source, .. }) => {
                *self.lock_no_space() = Some(Shortage::of(source));
                begin(health::NO_SPACE, error);
            }
            Err(error @ AppendError::Failed(_)) => begin(health::LOG_FAILED, error),
            Err(_) => {}
        }
    }

    fn note<T, E: std::error::Error + 'static>(&self, name: &'static str, result: &Result<T, E>) {
        self.troubles.note(name, self.clock.wall_ms(), result);
    }

    fn lock_no_space(&self) -> MutexGuard<'_, Option<Shortage>> {
        self.no_space.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shortage {
    fn of(error: &QueueError) -> Self {
        match error {
            QueueError::Full {
                requested,
                is_quota,
                ..
            } => Self {
                requested: *requested,
                is_quota: *is_quota,
            },
            // Found out by another operation than an allocation: only a put can tell.
            _ => Self {
                requested: 0,
                is_quota: true,
            },
        }
    }
}

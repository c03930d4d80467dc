//! The commit service of the staged path: when what waits in buffers goes to the file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mmap_core::Io;

use crate::core::Core;
use crate::error::LogError;
use crate::gather::{CommitError, Committer, FULL_PAUSE};
use crate::options::StageOptions;
use crate::service::Next;

/// Commits what is worth it at once, and everything from time to time (RocketMQ:
/// `CommitRealTimeService`).
#[derive(Debug)]
pub(crate) struct TimedCommit<I: Io> {
    committer: Committer<I>,
    interval: Duration,
    thorough_interval: Duration,
    /// On the clock's monotonic time.
    next: Duration,
    next_thorough: Duration,
}

impl<I: Io> TimedCommit<I> {
    pub(crate) fn new(committer: Committer<I>, options: &StageOptions, now: Duration) -> Self {
        let StageOptions {
            interval,
            thorough_interval,
            ..
        } = *options;
        Self {
            committer,
            interval,
            thorough_interval,
            next: now.saturating_add(interval),
            next_thorough: now.saturating_add(thorough_interval),
        }
    }

    pub(crate) fn into_committer(self) -> Committer<I> {
        self.committer
    }

    pub(crate) fn step(&mut self, core: &Core<I>) -> Next {
        if core.durability.failure().is_some() {
            return Next::OnWake;
        }
        let now = core.clock.monotonic();
        let mut is_due = core.has_work.load(Ordering::Relaxed) || self.committer.is_behind();
        if now >= self.next {
            self.next = now.saturating_add(self.interval);
            if now >= self.next_thorough {
                self.next_thorough = now.saturating_add(self.thorough_interval);
                is_due = true;
            }
        }
        if !is_due {
            return Next::After(self.next - now);
        }
        match self.committer.commit(core) {
            Ok(()) if core.has_work.load(Ordering::Relaxed) => Next::Now,
            Ok(()) => Next::After(self.next - now),
            Err(CommitError::Full(_)) => Next::After(FULL_PAUSE),
            Err(CommitError::Failed(_)) => Next::OnWake,
        }
    }

    /// Commits everything appended before the call.
    pub(crate) fn commit_all(&mut self, core: &Core<I>) -> Result<(), LogError> {
        // What is appended meanwhile is not waited for, else this might never end.
        let target = core.max_offset();
        while core.queue.published() < target {
            self.committer.commit(core)?;
        }
        Ok(())
    }
}

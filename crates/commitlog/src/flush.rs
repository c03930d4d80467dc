//! The flush service: who makes appended bytes durable, and when.

use std::time::Duration;

use mmap_core::Io;
use segment_queue::FlushPolicy;

use crate::core::Core;
use crate::error::{Failure, LogError};
use crate::gather::Committer;
use crate::service::Next;

/// The flush service of one log, by mode.
#[derive(Debug)]
pub(crate) enum Flusher<I: Io> {
    Timed(TimedFlush),
    Group(Committer<I>),
    Closed,
}

impl<I: Io> Flusher<I> {
    pub(crate) fn step(&mut self, core: &Core<I>) -> Next {
        match self {
            Self::Timed(timed) => timed.step(core),
            Self::Group(group) => group.step(core),
            Self::Closed => Next::OnWake,
        }
    }

    /// Syncs everything appended before the call.
    pub(crate) fn flush_all(&mut self, core: &Core<I>) -> Result<u64, LogError> {
        if let Some(failure) = core.durability.failure() {
            return Err(LogError::Failed(failure.clone()));
        }
        match self {
            Self::Timed(_) => sync(core, FlushPolicy::All)?,
            Self::Group(group) => {
                // What is appended meanwhile is not waited for, else this might never end.
                let target = core.max_offset();
                while core.durability.flushed() < target {
                    group.commit(core)?;
                }
            }
            Self::Closed => {}
        }
        Ok(core.durability.flushed())
    }
}

/// Async mode (RocketMQ: `FlushRealTimeService`): every `interval` what is dirty is synced if it
/// is worth it, every `thorough_interval` in any case.
#[derive(Debug)]
pub(crate) struct TimedFlush {
    interval: Duration,
    least_pages: u64,
    thorough_interval: Duration,
    /// On the clock's monotonic time.
    next: Duration,
    next_thorough: Duration,
}

impl TimedFlush {
    pub(crate) fn new(
        interval: Duration,
        least_pages: u64,
        thorough_interval: Duration,
        now: Duration,
    ) -> Self {
        Self {
            interval,
            least_pages,
            thorough_interval,
            next: now.saturating_add(interval),
            next_thorough: now.saturating_add(thorough_interval),
        }
    }

    fn step<I: Io>(&mut self, core: &Core<I>) -> Next {
        if core.durability.failure().is_some() {
            return Next::OnWake;
        }
        let now = core.clock.monotonic();
        if now < self.next {
            return Next::After(self.next - now);
        }
        self.next = now.saturating_add(self.interval);
        let policy = if now >= self.next_thorough {
            self.next_thorough = now.saturating_add(self.thorough_interval);
            FlushPolicy::All
        } else {
            FlushPolicy::LeastPages(self.least_pages)
        };
        match sync(core, policy) {
            Ok(()) => Next::After(self.interval),
            Err(_) => Next::OnWake,
        }
    }
}

/// Syncs what is published. The first failure ends the log for writers.
fn sync<I: Io>(core: &Core<I>, policy: FlushPolicy) -> Result<(), Failure> {
    match core.queue.flush(policy) {
        Ok(flushed) => {
            core.durability.advance(flushed);
            Ok(())
        }
        Err(error) => Err(core.fail(Failure::new(error))),
    }
}

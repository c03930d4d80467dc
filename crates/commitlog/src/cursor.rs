//! The next queue offset of one topic-queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The next queue offset of one topic-queue (RocketMQ: one entry of `topicQueueTable`).
///
/// A cursor is a shared handle: all clones are the same number. Appends move it, and only while
/// they hold the log's append lock and only when they succeed, so that queue offsets have the
/// same order as physical offsets and no failed append leaves a gap.
#[derive(Clone, Debug, Default)]
pub struct QueueCursor {
    // Written under the append lock (or before the log serves, by `reset`). Read by anyone as
    // a plain figure: it publishes nothing, hence Relaxed throughout.
    next: Arc<AtomicI64>,
}

impl QueueCursor {
    /// A cursor whose next record gets queue offset `next`.
    pub fn new(next: i64) -> Self {
        Self {
            next: Arc::new(AtomicI64::new(next)),
        }
    }

    /// The queue offset that the next record gets.
    pub fn next(&self) -> i64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Makes `next` the queue offset of the next record.
    ///
    /// For recovery and for deleted topics only: nothing may be appending to this queue
    /// meanwhile.
    pub fn reset(&self, next: i64) {
        self.next.store(next, Ordering::Relaxed);
    }

    /// Consumes `count` queue offsets. The caller holds the append lock.
    pub(crate) fn advance(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.next
            .store(self.next().wrapping_add(count), Ordering::Relaxed);
    }
}

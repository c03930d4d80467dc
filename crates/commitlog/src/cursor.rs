//! The next queue offset of one topic-queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The next queue offset of one topic-queue (RocketMQ: one entry of `topicQueueTable`).
///
/// A cursor is a shared handle: all clones are the same number. Appends move it, and only while
/// they hold the log's append lock and only when they succeed, so that queue offsets have the
/// same order as physical offsets and no failed append leaves a gap.
#[derive(Clone, Debug, Default)]
pub struct QueueCursor {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    // Written under the append lock (or before the log serves, by `reset`). Read by anyone as
    // a plain figure: it publishes nothing, hence Relaxed throughout.
    next: AtomicI64,
    // Its queue is gone. Written and read under the append lock.
    is_retired: AtomicBool,
}

impl QueueCursor {
    /// A cursor whose next record gets queue offset `next`.
    pub fn new(next: i64) -> Self {
        Self {
            inner: Arc::new(Inner {
                next: AtomicI64::new(next),
                is_retired: AtomicBool::new(false),
            }),
        }
    }

    /// The queue offset that the next record gets.
    pub fn next(&self) -> i64 {
        self.inner.next.load(Ordering::Relaxed)
    }

    /// Makes `next` the queue offset of the next record.
    ///
    /// For recovery only: nothing may be appending to this queue meanwhile.
    pub fn reset(&self, next: i64) {
        self.inner.next.store(next, Ordering::Relaxed);
    }

    /// Consumes `count` queue offsets. The caller holds the append lock.
    pub(crate) fn advance(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.inner
            .next
            .store(self.next().wrapping_add(count), Ordering::Relaxed);
    }

    /// No record is appended with this cursor any more. The caller holds the append lock.
    pub(crate) fn retire(&self) {
        self.inner.is_retired.store(true, Ordering::Relaxed);
    }

    /// Whether it was retired. The caller holds the append lock.
    pub(crate) fn is_retired(&self) -> bool {
        self.inner.is_retired.load(Ordering::Relaxed)
    }
}

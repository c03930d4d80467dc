//! Durability: what was synced, and what happens when a sync fails.

use std::sync::atomic::Ordering;

use mmap_core::Io;

use crate::error::QueueError;
use crate::guard::lock;
use crate::options::FlushPolicy;
use crate::queue::SegmentQueue;

impl<I: Io> SegmentQueue<I> {
    /// Syncs what is published and not yet durable, over as many segments as it spans, if the
    /// policy finds it worth it. Returns [`flushed`](Self::flushed) afterwards.
    ///
    /// Several threads may call it; one syncs at a time.
    ///
    /// # Errors
    /// The first failure poisons the queue: it and everything after it is refused, because the
    /// kernel may have dropped what it could not write.
    pub fn flush(&self, policy: FlushPolicy) -> Result<u64, QueueError> {
        let _one_at_a_time = lock(&self.flushing);
        self.check_poison()?;
        let (flushed, published) = (self.flushed(), self.published());
        if policy.is_due(flushed, published, self.segment_len()) {
            self.sync_segments(published)?;
        }
        Ok(self.flushed())
    }

    /// Whether an earlier write or sync failed, so that nothing is written any more.
    pub fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    pub(crate) fn check_poison(&self) -> Result<(), QueueError> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(QueueError::Poisoned {
                dir: self.home.dir.clone(),
                cause: cause.clone(),
            }),
        }
    }

    /// Refuses writes from now on; returns the error that is the reason.
    pub(crate) fn poisoned_by(&self, error: QueueError) -> QueueError {
        self.poison.get_or_init(|| error.to_string());
        error
    }

    /// Syncs segment by segment up to `end`, moving `flushed` after each success. The caller
    /// holds `flushing`.
    pub(crate) fn sync_segments(&self, end: u64) -> Result<(), QueueError> {
        let mut from = self.flushed().max(self.min_offset());
        while from < end {
            let segment_end = from - from % self.segment_len() + self.segment_len();
            let to = end.min(segment_end);
            if let Some(segment) = self.find(from)
                && let Err(error) = segment.sync(from - segment.base(), to - segment.base())
                // What was trimmed meanwhile needs no sync.
                && segment_end > self.min_offset()
            {
                return Err(self.poisoned_by(error));
            }
            self.flushed.fetch_max(to, Ordering::Release);
            from = to;
        }
        Ok(())
    }
}

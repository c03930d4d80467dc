//! Durability: what was synced, and what happens when a sync fails.

use mmap_core::sabotage::{self, Lie};
use mmap_core::sync::atomic::Ordering;
use mmap_core::{Io, IoFile};

use crate::cut::write_again;
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

    /// The end for writers. What was to be synced is not known to be on the device.
    pub(crate) fn failed_sync(&self, error: QueueError) -> Result<(), QueueError> {
        if sabotage::is_planted(Lie::WatermarkAfterFailedSync) {
            return Ok(());
        }
        Err(self.poisoned_by(error))
    }

    /// Syncs segment by segment up to `end`, moving `flushed` after each success. The caller
    /// holds `flushing`.
    pub(crate) fn sync_segments(&self, end: u64) -> Result<(), QueueError> {
        let mut from = self.flushed().max(self.min_offset());
        if from < end {
            self.sync_names()?;
        }
        while from < end {
            let Some(segment) = self.find(from) else {
                // Only what is flushed is trimmed, and cutting excludes flushing.
                debug_assert!(false, "offset {from} of {end} has no segment");
                break;
            };
            let to = end.min(segment.end());
            let unsure_end = self.unsure_end.load(Ordering::Acquire).min(to);
            if from < unsure_end {
                self.write_again(from, unsure_end)
                    .or_else(|error| self.failed_sync(error))?;
            }
            segment
                .sync(from - segment.base(), to - segment.base())
                .or_else(|error| self.failed_sync(error))?;
            self.flushed.fetch_max(to, Ordering::Release);
            from = to;
        }
        Ok(())
    }

    /// Hands the bytes from `from` to `to`, of one segment, to the kernel again. Nobody appends there.
    ///
    /// The first sync asks whether the kernel has failed to write them by itself since: it may have let
    /// go of them then, and what is read here would be something else.
    fn write_again(&self, from: u64, to: u64) -> Result<(), QueueError> {
        let base = from - from % self.segment_len();
        let file = self.file_for_reading(base)?;
        file.sync_data()?;
        Ok(write_again(&*file, from - base, to - base)?)
    }

    /// Makes the names of all segments durable, if they are not known to be. The directory's own
    /// name too: `create_dir_all` leaves it to others if it finds the directory, which a killed
    /// process may have created. [`flush`](Self::flush) does so before it calls bytes durable.
    ///
    /// # Errors
    /// A failed sync poisons the queue.
    pub fn sync_names(&self) -> Result<(), QueueError> {
        if self.names_synced.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let dir = &self.home.dir;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        for dir in [Some(dir.as_path()), parent].into_iter().flatten() {
            self.home
                .sync_dir(dir)
                .map_err(|error| self.poisoned_by(error.into()))?;
        }
        Ok(())
    }
}

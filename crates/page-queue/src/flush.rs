//! Durability, and what is to be done now and then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mmap_core::Io;
use segment_queue::FlushPolicy;

use crate::entry::ENTRY_LEN;
use crate::error::PageQueueError;
use crate::guard::{lock, wait};
use crate::options::Durability;
use crate::queue::{Kept, PageQueue, Shared};
use crate::state::State;

/// What a [`PageQueue::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// It flushed.
    pub flushed: bool,
    /// Pages that were unmapped.
    pub unmapped_count: u64,
    /// Pages that were made ahead of the writer.
    pub prepared_count: u64,
}

impl<I: Io> PageQueue<I> {
    /// Makes everything pushed and committed so far durable; returns the number behind the last
    /// durable item.
    ///
    /// # Errors
    /// The first failed sync of the pages ends writing until the queue is opened again: the kernel
    /// may have dropped what it could not write.
    pub fn flush(&self) -> Result<u64, PageQueueError> {
        self.shared.flush()
    }

    /// Does what is due: flushes by the interval of [`Durability::Interval`], unmaps pages that are
    /// not used, prepares the next page. To be called now and then, from a thread of the
    /// embedder's; `now` is of any clock that never runs backwards. Nothing depends on it but those
    /// three.
    ///
    /// # Errors
    /// As [`flush`](Self::flush), and a full disk, when the next page cannot be prepared: pushes go
    /// on until the page is full.
    pub fn step(&self, now: Duration) -> Result<Step, PageQueueError> {
        let mut step = Step::default();
        let positions = self.shared.reading_positions();
        let index_keep: Vec<u64> = positions.iter().map(|one| one * ENTRY_LEN).collect();
        // A position behind the last item, or at a damaged one, keeps no page.
        let entries = positions.iter().map(|one| self.shared.entry(*one));
        let item_keep: Vec<u64> = entries.flatten().map(|entry| entry.offset).collect();
        for (pages, keep) in [
            (&self.shared.items, &item_keep),
            (&self.shared.index, &index_keep),
        ] {
            step.unmapped_count += pages.step_unmap(now, keep).segment_count;
        }
        if let Durability::Interval(interval) = self.shared.options.durability {
            let flushed_at = lock(&self.shared.keeping).flushed_at;
            if now.saturating_sub(flushed_at) >= interval {
                self.flush()?;
                lock(&self.shared.keeping).flushed_at = now;
                step.flushed = true;
            }
        }
        for preallocator in &mut *lock(&self.shared.preallocators) {
            step.prepared_count += u64::from(preallocator.step()?.created.is_some());
        }
        Ok(step)
    }

    /// Ends writing: everything is made durable, and the next opening has nothing to check. Pushes
    /// and trims are refused from now on; reading goes on.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); the queue is closed, but will be checked when it is opened.
    pub fn close(&self) -> Result<(), PageQueueError> {
        let shared = &self.shared;
        let mut kept = lock(&shared.keeping);
        let Some(writer) = lock(&shared.writer).take() else {
            return Ok(());
        };
        let end = writer.end;
        writer.items.close()?;
        writer.index.close()?;
        kept.durable = end;
        shared.durable.store(end.number, Ordering::Release);
        shared.sync_positions()?;
        shared.save_state(&mut kept, true)
    }
}

impl<I: Io> Shared<I> {
    pub(crate) fn flush(&self) -> Result<u64, PageQueueError> {
        self.flush_kept(&mut lock(&self.keeping))?;
        self.sync_positions()?;
        Ok(self.durable.load(Ordering::Acquire))
    }

    /// Makes the items below `number` durable. Of those who wait, one syncs for all that have
    /// appended by then; who comes meanwhile waits for the next one.
    pub(crate) fn flush_to(&self, number: u64) -> Result<(), PageQueueError> {
        let is_durable = || self.durable.load(Ordering::Acquire) >= number;
        let mut is_led = lock(&self.is_led);
        while *is_led && !is_durable() {
            is_led = wait(&self.led, is_led);
        }
        if is_durable() {
            return Ok(());
        }
        *is_led = true;
        drop(is_led);
        let flushed = self.flush_kept(&mut lock(&self.keeping));
        *lock(&self.is_led) = false;
        self.led.notify_all();
        flushed?;
        // A queue that could not be closed has no writer, and nothing to flush.
        match is_durable() {
            true => Ok(()),
            false => Err(PageQueueError::Closed),
        }
    }

    /// Syncs the pages, and now and then the mark from which recovery starts.
    pub(crate) fn flush_kept(&self, kept: &mut Kept) -> Result<(), PageQueueError> {
        let Some(end) = lock(&self.writer).as_ref().map(|writer| writer.end) else {
            return Ok(());
        };
        self.items.flush(FlushPolicy::All)?;
        self.index.flush(FlushPolicy::All)?;
        kept.durable = end;
        self.durable.store(end.number, Ordering::Release);
        let mark = kept.state.mark;
        let is_due = end.item_end - mark.item_end >= self.options.page_len / 4
            || end.number - mark.number >= self.options.index_page_items.div_ceil(4);
        if is_due {
            // Without it recovery reads more, and the next flush tries again.
            let _ = self.save_state(kept, false);
        }
        Ok(())
    }

    /// Saves where the queue begins, and what is durable as the new mark.
    pub(crate) fn save_state(
        &self,
        kept: &mut Kept,
        is_closed: bool,
    ) -> Result<(), PageQueueError> {
        let state = State {
            first: lock(&self.front).first.min(kept.durable.number),
            mark: kept.durable,
            is_closed,
            ..kept.state
        };
        if state != kept.state {
            state.save(&self.io, &self.options.dir)?;
            kept.state = state;
        }
        Ok(())
    }

    /// Makes the readers' positions durable.
    fn sync_positions(&self) -> Result<(), PageQueueError> {
        let places: Vec<_> = lock(&self.readers).values().map(Arc::clone).collect();
        for place in places {
            place.sync()?;
        }
        Ok(())
    }
}

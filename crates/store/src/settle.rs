//! Bringing queues and index in line with the log, once recovery has read it.

use commitlog::{CallerError, CommitLog, Visitor};
use message::RecordView;
use mmap_core::Io;
use mmap_core::sabotage::{self, Lie};
use segment_queue::FlushPolicy;

use crate::dispatch::Dispatcher;
use crate::error::{DispatchError, OpenError};
use crate::progress::{Progress, Step};
use crate::queue_check::{self, Marks, QueueCheck};
use crate::redispatch::Redispatch;

/// Brings the derived files in line with the log as recovered.
pub(crate) struct Settling<'a, I: Io> {
    pub(crate) log: &'a CommitLog<I>,
    pub(crate) dispatcher: &'a Dispatcher<I>,
    pub(crate) marks: &'a Marks<I>,
    pub(crate) progress: &'a dyn Progress,
    /// Records whose entries were built again.
    pub(crate) rebuilt: u64,
}

impl<I: Io> Settling<'_, I> {
    pub(crate) fn settle(
        &mut self,
        end: u64,
        found: &mut Redispatch<'_, I>,
    ) -> Result<(), OpenError> {
        let queues = &self.dispatcher.queues;
        queues.set().recover(self.log.min_offset(), end)?;
        queues.end_deletions_at(end, self.log.failure().is_none());
        queues.finish_deletions()?;
        let batches = &self.dispatcher.batches.set;
        batches.recover(self.log.min_offset(), end)?;
        // A log that is only read stays as it was, and so do its keys: queries compare with the
        // messages themselves.
        if self.log.failure().is_none() {
            self.rebuild_index(end, found.first_hole)?;
        }
        // A log that is only read leaves its queues, too: readers compare entries with records.
        if self.log.failure().is_none() {
            found.check.finish(self.log, self.dispatcher)?;
            self.rebuild_queues(&found.check)?;
        }
        queues.reset_cursors();
        for ((topic, queue_id), next_offset) in &found.next_offsets {
            let queue = queues.find_or_create(topic, *queue_id)?;
            queue.cursor.reset(*next_offset);
        }
        for missing in &found.missing {
            // A queue offset that was taken once is not given to another message.
            let queue = queues.find_or_create(&missing.topic, missing.queue_id)?;
            let next = missing.first + missing.count;
            if queue.cursor.next() < next {
                queue.cursor.reset(next);
            }
        }
        self.dispatcher
            .start_at(found.undispatched_from.unwrap_or(end));
        Ok(())
    }

    /// Takes out of the index what points behind the log's end or into a hole: from there on it is
    /// built again.
    fn rebuild_index(&mut self, end: u64, first_hole: Option<u64>) -> Result<(), OpenError> {
        let Some(index) = &self.dispatcher.index else {
            return Ok(());
        };
        let valid_end = first_hole.unwrap_or(end);
        if index
            .end_physical_offset()
            .is_none_or(|last| last < valid_end)
        {
            return Ok(());
        }
        let resume = index.truncate(valid_end)?;
        let dispatcher = self.dispatcher;
        self.walk("index", resume.max(self.log.min_offset()), |view| {
            dispatcher.rebuild_index_entry(view).map(|()| true)
        })
    }

    /// Builds the queues again that do not say what the log says.
    fn rebuild_queues(&mut self, check: &QueueCheck) -> Result<(), OpenError> {
        if check.faults().is_empty() || sabotage::is_planted(Lie::GapNotRebuilt) {
            return Ok(());
        }
        let (marks, dispatcher, log_min) = (self.marks, self.dispatcher, self.log.min_offset());
        queue_check::rebuild(marks, check, log_min, dispatcher, |wanted| {
            self.walk("consume queues", log_min, |view| {
                dispatcher.rebuild_queue_entries(view, wanted)
            })
        })
    }

    /// Writes down where the queues end, once they and the log are on the device.
    pub(crate) fn remember_queues(&self) {
        let synced = self.log.flush_now().map_err(|error| error.to_string());
        let set = self.dispatcher.queues.set();
        let synced = synced.and_then(|_| {
            let flushed = set.flush(FlushPolicy::All);
            let flushed = flushed.and_then(|_| self.dispatcher.batches.set.flush());
            flushed.map_err(|error| error.to_string())
        });
        match synced {
            Ok(_) => self.marks.save(self.log.min_offset(), self.dispatcher),
            Err(error) => tracing::warn!(error, "the ends of the queues are not remembered"),
        }
    }

    /// Shows each record from `from`, the start of a record, to the end of the log; `visit` says
    /// whether it has built something.
    fn walk(
        &mut self,
        phase: &'static str,
        from: u64,
        visit: impl FnMut(&RecordView<'_>) -> Result<bool, DispatchError>,
    ) -> Result<(), OpenError> {
        let mut walk = Walk {
            visit,
            rebuilt: 0,
            progress: self.progress,
            phase,
            range: (from, self.log.visible()),
        };
        self.log.walk(from, &mut walk)?;
        self.rebuilt += walk.rebuilt;
        Ok(())
    }
}

/// The visitor of a walk that builds entries.
struct Walk<'a, F> {
    visit: F,
    rebuilt: u64,
    progress: &'a dyn Progress,
    phase: &'static str,
    range: (u64, u64),
}

impl<F> Visitor for Walk<'_, F>
where
    F: FnMut(&RecordView<'_>) -> Result<bool, DispatchError>,
{
    fn record(&mut self, view: &RecordView<'_>) -> Result<(), CallerError> {
        self.rebuilt += u64::from((self.visit)(view)?);
        Ok(())
    }

    fn progress(&mut self, offset: u64) {
        let (from, end) = self.range;
        self.progress.at(Step {
            phase: self.phase,
            done: offset.saturating_sub(from),
            total: end.saturating_sub(from),
        });
    }
}

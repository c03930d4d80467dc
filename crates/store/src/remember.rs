//! Keeping `foliomq/state` and `foliomq/dispatched` up to date.

use mmap_core::Io;

use message::{Parsed, RecordView};

use crate::core::Core;
use crate::dispatched::Mark;
use crate::state::{Anchor, State};

impl<I: Io> Core<I> {
    /// Remembers up to where the log is synced, and that below `derived` the queues and the index
    /// are. The next recovery begins there.
    ///
    /// A failure is told once, and ends remembering: nothing depends on it.
    pub(crate) fn remember(&self, derived: u64) {
        let mut file = self.lock_state();
        let Some(open) = file.as_mut() else { return };
        let flushed = self.log.flushed();
        // Store times do not run ahead of the clock by more than it was set back.
        let flushed_ms = self.clock.wall_ms().max(self.dispatcher.last_store_ms());
        let anchor = open.anchor_below(flushed.min(derived), self.newest_record());
        let index = self.dispatcher.index.as_ref();
        let state = State {
            segment_len: self.options().segment_len,
            flushed,
            flushed_ms,
            derived,
            index_end: index
                .and_then(|index| index.end_physical_offset())
                .unwrap_or(0),
            anchor,
            run_id: self.run_id.clone(),
            // Who is here has synced all of them.
            is_derived_in_doubt: false,
        };
        if let Err(error) = open.save(&state) {
            tracing::warn!(%error, "the store's own state is not kept any more");
            *file = None;
        }
    }

    /// A sync of queues or index has failed: what is in memory of their files proves nothing any
    /// more, and the next start is not to believe it.
    pub(crate) fn doubt_derived(&self) {
        let mut file = self.lock_state();
        let Some(open) = file.as_mut() else { return };
        if let Err(error) = open.doubt_derived() {
            tracing::warn!(%error, "the store's own state is not kept any more");
            *file = None;
        }
    }

    /// The last record that recovery found is the next anchor, when it is synced: under messages that
    /// come one by one and wait for their sync, the newest never is.
    pub(crate) fn remember_later(&self) {
        let newest = self.newest_record();
        if let Some(open) = self.lock_state().as_mut() {
            open.consider(newest);
        }
    }

    /// Marks how far dispatch has come. Not once anything has failed: see
    /// [`forget_dispatched`](Self::forget_dispatched).
    pub(crate) fn mark_dispatched(&self) {
        let Some(marks) = &self.dispatched else {
            return;
        };
        let flushed = self.log.flushed();
        let Some(anchor) = self.newest_record() else {
            return;
        };
        // Asked behind the record: what was put since may lack entries.
        let index = self.dispatcher.index.as_ref();
        let is_failed =
            self.log.failure().is_some() || index.is_some_and(|index| index.is_poisoned());
        if !is_failed {
            marks.write(&Mark {
                anchor,
                flushed,
                index: index.map(|index| index.reach()),
            });
        }
    }

    /// A sync has failed: what is in memory may be lost without the machine losing power.
    pub(crate) fn forget_dispatched(&self) {
        if let Some(marks) = &self.dispatched {
            marks.forget();
        }
    }

    /// The last dispatched record.
    fn newest_record(&self) -> Option<Anchor> {
        let slice = self.log.record_at(self.dispatcher.last_record()?).ok()?;
        match RecordView::parse(&slice) {
            Ok(Parsed::Record(view)) => Some(Anchor::of(&view)),
            _ => None,
        }
    }
}

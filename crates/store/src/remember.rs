//! Keeping `foliomq/state` up to date.

use mmap_core::Io;

use message::{Parsed, RecordView};

use crate::state::{Anchor, State};
use crate::store::Core;

impl<I: Io> Core<I> {
    /// Remembers up to where the log is synced, and that below `derived` the queues and the index
    /// are. The next recovery begins there.
    ///
    /// A failure is told once, and ends remembering: nothing depends on it.
    pub(crate) fn remember(&self, derived: u64) {
        let mut file = self.lock_state();
        let Some(open) = file.as_mut() else { return };
        let flushed = self.log.flushed();
        let anchor = self
            .anchor_below(flushed.min(derived))
            .or(open.last().anchor);
        let index = self.dispatcher.index.as_ref();
        let state = State {
            segment_len: self.options().segment_len,
            flushed,
            derived,
            index_end: index
                .and_then(|index| index.end_physical_offset())
                .unwrap_or(0),
            anchor,
            boot_id: self.io().boot_id().unwrap_or_default(),
        };
        if let Err(error) = open.save(&state) {
            tracing::warn!(%error, "the store's own state is not kept any more");
            *file = None;
        }
    }

    /// The last dispatched record, if it ends at or below `offset`.
    fn anchor_below(&self, offset: u64) -> Option<Anchor> {
        let slice = self.log.record_at(self.dispatcher.last_record()?).ok()?;
        let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
            return None;
        };
        Some(Anchor::of(&view)).filter(|anchor| anchor.end() <= offset)
    }
}

//! Telling records from what an earlier truncation left behind the end of a log.
//!
//! RocketMQ's truncation only moves positions: the bytes stay, with valid CRCs and physical offsets
//! that match, and may line up with records that are appended later. What tells them apart is that
//! they are older than what stands before them.

use std::collections::HashMap;

use message::RecordView;

use crate::known::Known;
use crate::scan::Invalid;

/// The last place that was seen in each queue.
#[derive(Debug, Default)]
pub(crate) struct QueueOffsets {
    topics: HashMap<String, HashMap<i32, i64>>,
}

impl QueueOffsets {
    /// Why the record at `offset` is stale, if it is.
    pub(crate) fn stale(
        &self,
        view: &RecordView<'_>,
        offset: u64,
        last_store_ms: i64,
        known: &Known,
    ) -> Option<Invalid> {
        let found_ms = view.store_timestamp_ms();
        if known.is_stale(offset, found_ms, last_store_ms) {
            return Some(Invalid::StoreTime {
                found_ms,
                previous_ms: last_store_ms,
            });
        }
        if offset < known.flushed {
            return None;
        }
        // A queue that begins anew belongs to a topic that was deleted and created again.
        let found = view.queue_offset();
        let previous = *self.topics.get(view.topic())?.get(&view.queue_id())?;
        let is_stale = has_place(view) && found != 0 && found < previous;
        is_stale.then_some(Invalid::QueueOffset { found, previous })
    }

    /// Takes in a record of the log.
    pub(crate) fn note(&mut self, view: &RecordView<'_>, known: &Known) {
        // Nothing is asked about a log that is known to be synced to its end.
        if known.flushed == u64::MAX || !has_place(view) {
            return;
        }
        let offset = view.queue_offset();
        match self.topics.get_mut(view.topic()) {
            Some(queues) => {
                queues.insert(view.queue_id(), offset);
            }
            None => {
                let queues = HashMap::from([(view.queue_id(), offset)]);
                self.topics.insert(view.topic().to_owned(), queues);
            }
        }
    }
}

fn has_place(view: &RecordView<'_>) -> bool {
    view.sys_flag().transaction().takes_queue_offset()
}

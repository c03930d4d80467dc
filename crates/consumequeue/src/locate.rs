//! Which entries point into a part of the log.

use std::ops::Range;
use std::sync::Arc;

use mmap_core::Io;

use crate::error::ConsumeQueueError;
use crate::queue::ConsumeQueue;
use crate::search::partition;

impl<I: Io> ConsumeQueue<I> {
    /// The indexes whose messages lie in the log from `offset` on and begin before `end`; empty
    /// where there are none.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn indexes_within(&self, offset: u64, end: u64) -> Result<Range<i64>, ConsumeQueueError> {
        let all = self.base_index()..self.max_index();
        if self.max_physical_end().is_none_or(|last| last <= offset) {
            return Ok(all.end..all.end);
        }
        let Some(queue) = self.open_queue()? else {
            return Ok(all.end..all.end);
        };
        let queue = Arc::clone(&queue);
        let place = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
        let first = partition(&queue, all.clone(), |entry| {
            entry.physical_end() <= place(offset)
        })?;
        let behind = partition(&queue, first..all.end, |entry| {
            entry.physical_offset < place(end)
        })?;
        Ok(first..behind)
    }
}

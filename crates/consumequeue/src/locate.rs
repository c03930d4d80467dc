//! Which entries point into a part of the log, and what becomes of those that point into a hole.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mmap_core::Io;

use crate::entry::{ENTRY_LEN, Entry};
use crate::error::ConsumeQueueError;
use crate::hot::lock;
use crate::options::{index_to_offset, offset_to_index};
use crate::queue::ConsumeQueue;
use crate::search::{entry_at, partition};

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

    /// Lets the places of messages that the log has lost, which the queue holds, stand for the next
    /// message behind them, or at the end of the queue for the last one before them; without any
    /// message before them they are cut off. Only before the queue is read by anybody.
    ///
    /// A reader that trusts the entries (a Java broker) then serves a neighbour twice. With entries
    /// that stand for nothing it would pass over good messages: where it finds no record, RocketMQ
    /// 5.3.3 `DefaultMessageStore.getMessage` skips to the log's next file.
    ///
    /// Nothing is allocated: it works on a full disk.
    ///
    /// # Errors
    /// Those of reading and writing the files.
    pub fn pass_over(&self, lost: Range<i64>) -> Result<(), ConsumeQueueError> {
        if lost.is_empty() {
            return Ok(());
        }
        let mut files = lock(&self.writer);
        let writer = self.open_files(&mut files)?;
        let queue = Arc::clone(writer.queue());
        let is_end = lost.end >= self.max_index();
        let neighbour = match (is_end, lost.start > self.base_index()) {
            (false, _) => entry_at(&queue, lost.end)?,
            (true, true) => entry_at(&queue, lost.start - 1)?,
            (true, false) => Entry::FILLER,
        };
        if neighbour.is_filler() {
            let end = if is_end { lost.start } else { self.max_index() };
            drop(files);
            return self.cut_to(end);
        }
        let mut index = lost.start;
        while index < lost.end {
            let file_end = offset_to_index(
                (index_to_offset(index) / queue.segment_len() + 1) * queue.segment_len(),
            );
            let count = (file_end.min(lost.end) - index).min(COPY_COUNT_MAX);
            let copies = neighbour
                .encode()
                .repeat(usize::try_from(count).unwrap_or(0));
            writer.overwrite(index_to_offset(index), &copies)?;
            index += count;
        }
        if is_end {
            let end = neighbour.physical_end();
            self.max_physical_end.store(end, Ordering::Release);
        }
        if lost.contains(&self.min_index()) {
            let place = neighbour.physical_offset;
            self.min_physical.store(place, Ordering::Release);
        }
        self.close_files(&mut files);
        Ok(())
    }

    /// Cuts off the entries from `end` on, whatever they stand for.
    fn cut_to(&self, end: i64) -> Result<(), ConsumeQueueError> {
        let mut files = lock(&self.writer);
        let writer = self.open_files(&mut files)?;
        self.max_index.store(end, Ordering::Release);
        self.max_physical_end.store(-1, Ordering::Release);
        self.flushed_index.fetch_min(end, Ordering::AcqRel);
        self.min_index.fetch_min(end, Ordering::AcqRel);
        self.min_physical.store(i64::MAX, Ordering::Release);
        let cut = writer.truncate(index_to_offset(end));
        // Of the file that was cut all is durable now, of those before it perhaps not.
        writer.mark_unflushed(index_to_offset(self.flushed_index()));
        self.or_close(&mut files, cut.map(drop).map_err(Into::into))
    }
}

/// Entries written at a time.
const COPY_COUNT_MAX: i64 = (64 * 1024 / ENTRY_LEN) as i64;

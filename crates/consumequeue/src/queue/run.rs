//! Many entries with one write.

use std::sync::atomic::Ordering;

use mmap_core::Io;

use super::ConsumeQueue;
use crate::entry::{ENTRY_LEN, Entry};
use crate::error::ConsumeQueueError;
use crate::hot::lock;

/// Entries that are written at once at most.
const RUN_COUNT_MAX: usize = 64;

impl<I: Io> ConsumeQueue<I> {
    /// Puts the entries of messages that follow one another, the first of them at `index`, as
    /// [`put_stored`](Self::put_stored) would one by one; returns how many were put. Those that are
    /// left, perhaps all of them, are for `put_stored`: where anything else than appending is to be
    /// done, extension units are written, or the file ends.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_run(&self, index: i64, entries: &[Entry]) -> Result<usize, ConsumeQueueError> {
        if self.shared.written_extensions().is_some() {
            return Ok(0);
        }
        self.shared.check_poison()?;
        let mut files = lock(&self.writer);
        let mut physical_end = self.max_physical_end.load(Ordering::Relaxed);
        if physical_end < 0 || self.max_index.load(Ordering::Relaxed) != index {
            return Ok(0);
        }
        let per_file = self.shared.options.entries_per_file();
        let room = usize::try_from(per_file - index % per_file).unwrap_or(0);
        let mut bytes = [[0; ENTRY_LEN]; RUN_COUNT_MAX];
        let mut count = 0;
        for (place, entry) in bytes.iter_mut().take(room).zip(entries) {
            // Not behind the one before: it is there already.
            if entry.check(index).is_err() || entry.physical_offset < physical_end {
                break;
            }
            *place = entry.encode();
            physical_end = entry.physical_end();
            count += 1;
        }
        let Some((first, written)) = entries.first().zip(bytes.get(..count)) else {
            return Ok(0);
        };
        if count == 0 {
            return Ok(0);
        }
        let appended = self.append(&mut files, written.as_flattened());
        self.or_close(&mut files, appended)?;
        if self.min_index.load(Ordering::Relaxed) == index {
            // All others have expired.
            self.min_physical
                .store(first.physical_offset, Ordering::Release);
        }
        self.publish(&mut files, index + count as i64);
        self.max_physical_end.store(physical_end, Ordering::Release);
        Ok(count)
    }
}

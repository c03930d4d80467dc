//! Puts to queues whose files are closed.

use std::sync::atomic::Ordering;

use mmap_core::{Access, Io, IoFile};
use segment_queue::segment_name;

use super::ConsumeQueue;
use crate::error::ConsumeQueueError;
use crate::options::index_to_offset;

/// Of so many puts to a closed queue one opens it: that takes as long as ten of the others.
const PUTS_PER_OPENING: u32 = 16;

impl<I: Io> ConsumeQueue<I> {
    /// Writes whole entries to the end of a queue whose files are closed, and leaves them so;
    /// returns whether it did. The caller holds the writer, which is none.
    ///
    /// Where more queues are put to in turn than may be open, each put would open one and close
    /// another, of which unmapping alone interrupts every processor of the process.
    pub(super) fn append_aside(&self, bytes: &[u8]) -> Result<bool, ConsumeQueueError> {
        let file_len = self.shared.options.file_len;
        let end = index_to_offset(self.max_index.load(Ordering::Relaxed));
        let place = end % file_len;
        let fits = place > 0 && place + bytes.len() as u64 <= file_len;
        if !fits || self.deleted.load(Ordering::Relaxed) || !self.shared.is_full() {
            return Ok(false);
        }
        let count = self.aside_count.fetch_add(1, Ordering::Relaxed);
        if count % PUTS_PER_OPENING == PUTS_PER_OPENING - 1 {
            return Ok(false);
        }
        let path = self.dir.join(segment_name(end - place));
        // What is wrong with the file is for those to say who open the queue.
        let Ok(file) = self.shared.io.open(&path, Access::ReadWrite) else {
            return Ok(false);
        };
        if file.len()? != file_len {
            return Ok(false);
        }
        file.write_all_at(bytes, place)?;
        Ok(true)
    }
}

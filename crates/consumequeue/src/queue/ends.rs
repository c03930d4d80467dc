//! Moving the ends of a queue: cutting, trimming, beginning anew; and looking things up in it.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use mmap_core::{Access, FileKind, Io, IoFile};
use segment_queue::{Trimmed, parse_segment_name, segment_name};

use super::{ConsumeQueue, Files};
use crate::entry::{ENTRY_LEN, Entry};
use crate::error::ConsumeQueueError;
use crate::hot::{lock, write};
use crate::options::{index_to_offset, offset_to_index};
use crate::search::{Boundary, TimeSearch, entry_at, message_at_or_after, partition};

impl<I: Io> ConsumeQueue<I> {
    /// Brings the queue in line with a log of `log_min..log_end` after opening:
    /// [`truncate`](Self::truncate), then [`correct_min`](Self::correct_min). Returns the count of
    /// entries cut off.
    ///
    /// # Errors
    /// As those.
    pub fn recover(&self, log_min: u64, log_end: u64) -> Result<u64, ConsumeQueueError> {
        let cut_count = self.truncate(log_end)?;
        self.correct_min(log_min)?;
        Ok(cut_count)
    }

    /// Cuts off the entries of messages that do not end at or below `log_end`, durably; returns
    /// their count. Only before the queue is read by anybody.
    ///
    /// # Errors
    /// [`segment_queue::QueueError::Pinned`] while somebody holds entries of the last file; those of the files.
    pub fn truncate(&self, log_end: u64) -> Result<u64, ConsumeQueueError> {
        let log_end = i64::try_from(log_end).unwrap_or(i64::MAX);
        let mut files = lock(&self.writer);
        if self.max_physical_end.load(Ordering::Relaxed) <= log_end {
            return Ok(0);
        }
        let base_index = self.base_index.load(Ordering::Relaxed);
        let max_index = self.max_index.load(Ordering::Relaxed);
        // What is cut is synced: the units must come first.
        if let Some(extension) = self.extension.get() {
            extension.flush(&self.shared)?;
        }
        // Slices of the readers' side would keep the segment from being cut.
        let writer = self.open_files(&mut files)?;
        let queue = Arc::clone(writer.queue());
        let end = partition(&queue, base_index..max_index, |entry| {
            entry.physical_end() <= log_end
        })?;
        let physical_end = if end > base_index {
            entry_at(&queue, end - 1)?.physical_end()
        } else {
            -1
        };
        // Whatever becomes of the files, what goes is not shown any more.
        self.max_physical_end.store(physical_end, Ordering::Release);
        self.max_index.store(end, Ordering::Release);
        self.flushed_index.fetch_min(end, Ordering::AcqRel);
        if self.min_index.load(Ordering::Relaxed) >= end {
            self.min_index.store(end, Ordering::Release);
            self.min_physical.store(i64::MAX, Ordering::Release);
        }
        let cut = writer.truncate(index_to_offset(end));
        // Of the file that was cut all is durable now, of those before it perhaps not.
        writer.mark_unflushed(index_to_offset(self.flushed_index()));
        self.or_close(&mut files, cut.map_err(Into::into))?;
        Ok((max_index - end).unsigned_abs())
    }

    /// Moves [`min_index`](Self::min_index) up to the first message at or above `log_min`, where
    /// the log begins now; returns it. A queue whose messages have all expired keeps its numbers.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn correct_min(&self, log_min: u64) -> Result<i64, ConsumeQueueError> {
        let log_min = i64::try_from(log_min).unwrap_or(i64::MAX);
        if self.min_physical.load(Ordering::Acquire) >= log_min {
            return Ok(self.min_index());
        }
        let mut files = lock(&self.writer);
        let min_index = self.min_index.load(Ordering::Relaxed);
        let max_index = self.max_index.load(Ordering::Relaxed);
        let first = if self.max_physical_end.load(Ordering::Relaxed) <= log_min {
            // All have expired: no need to open the files.
            None
        } else {
            let queue = Arc::clone(self.open_files(&mut files)?.queue());
            let border = partition(&queue, min_index..max_index, |entry| {
                entry.physical_offset < log_min
            })?;
            message_at_or_after(&queue, border..max_index)?
        };
        let (index, physical) = match first {
            Some((index, entry)) => (index, entry.physical_offset),
            None => (max_index, i64::MAX),
        };
        self.min_index.store(index, Ordering::Release);
        self.min_physical.store(physical, Ordering::Release);
        Ok(index)
    }

    /// Moves the minimum up to the log's and removes the files whose messages have all expired,
    /// never the last one. Entries that are being read stay valid. A file that was not flushed
    /// yet waits for a later trim.
    ///
    /// # Errors
    /// Those of reading and removing the files.
    pub fn trim(&self, log_min: u64) -> Result<Trimmed, ConsumeQueueError> {
        let min_index = self.correct_min(log_min)?;
        let mut files = lock(&self.writer);
        let base_index = self.base_index.load(Ordering::Relaxed);
        let deleted = self.deleted.load(Ordering::Relaxed);
        if deleted || min_index - base_index < self.shared.options.entries_per_file() {
            return Ok(Trimmed::default());
        }
        let queue = Arc::clone(self.open_files(&mut files)?.queue());
        let trimmed = queue.trim_to(index_to_offset(min_index));
        self.base_index
            .store(offset_to_index(queue.min_offset()), Ordering::Release);
        let mut trimmed = trimmed?;
        if let Some(options) = &self.shared.options.extensions
            && min_index < self.max_index.load(Ordering::Relaxed)
            && let Some(offset) = entry_at(&queue, min_index)?.extension_offset()
        {
            let units = self
                .extension(options)
                .trim(&self.shared, options, offset)?;
            trimmed.segment_count += units.segment_count;
            trimmed.len += units.len;
        }
        Ok(trimmed)
    }

    /// Removes all entries, units and files, whatever state they are in, to put everything again
    /// from the log. What is being read stays valid.
    ///
    /// # Errors
    /// Those of removing files. The queue is empty all the same.
    pub fn clear(&self) -> Result<(), ConsumeQueueError> {
        let mut files = lock(&self.writer);
        self.close_files(&mut files);
        for (position, value) in [
            (&self.base_index, 0),
            (&self.min_index, 0),
            (&self.min_physical, i64::MAX),
            (&self.max_index, 0),
            (&self.max_physical_end, -1),
            (&self.flushed_index, 0),
        ] {
            position.store(value, Ordering::Release);
        }
        if let Some(options) = &self.shared.options.extensions {
            self.extension(options).clear(&self.shared)?;
        }
        remove_segments(&self.shared.io, &self.dir)
    }

    /// Lets a queue without messages go on at `index`: messages that it had before have expired.
    ///
    /// Their places get entries of messages before the log's beginning. [Fillers](Entry::FILLER) at
    /// the end of a queue would let RocketMQ 5.3.3 take every later message for one that is there.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn begin_at(&self, index: i64) -> Result<(), ConsumeQueueError> {
        self.shared.check_poison()?;
        let mut files = lock(&self.writer);
        let max_index = self.max_index.load(Ordering::Relaxed);
        if index <= max_index || self.max_physical_end.load(Ordering::Relaxed) >= 0 {
            return Ok(());
        }
        let begun = self
            .begin_files(&mut files, index, Entry::EXPIRED)
            .and_then(|()| self.begin_file_at_end(&mut files));
        self.or_close(&mut files, begun)?;
        self.min_index.store(index, Ordering::Release);
        self.max_physical_end
            .store(Entry::EXPIRED.physical_end(), Ordering::Release);
        self.publish(&mut files, index);
        Ok(())
    }

    /// Creates the file that the next entry belongs to, if it is not there: an empty file says
    /// where the queue goes on.
    fn begin_file_at_end(
        &self,
        files: &mut MutexGuard<'_, Files<I>>,
    ) -> Result<(), ConsumeQueueError> {
        let writer = self.open_files(files)?;
        if writer.remaining() == 0 {
            if writer.queue().segments().is_empty() {
                self.shared.create_dirs(&self.dir)?;
            }
            writer.roll()?;
        }
        Ok(())
    }

    /// Entries from `index` on, `count` at most, by reading the files: fillers and entries below
    /// the first message included. For checks, which must not end in a signal.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn read_entries(&self, index: i64, count: usize) -> Result<Vec<Entry>, ConsumeQueueError> {
        let mut files = lock(&self.writer);
        let base_index = self.base_index.load(Ordering::Relaxed);
        let max_index = self.max_index.load(Ordering::Relaxed);
        if index < base_index || index >= max_index {
            return Ok(Vec::new());
        }
        let count = (max_index - index).min(i64::try_from(count).unwrap_or(i64::MAX));
        let queue = Arc::clone(self.open_files(&mut files)?.queue());
        drop(files);
        let mut bytes = vec![0; usize::try_from(index_to_offset(count)).unwrap_or(0)];
        queue.read_exact_at(index_to_offset(index), &mut bytes)?;
        let (entries, _) = bytes.as_chunks();
        Ok(entries.iter().map(Entry::decode).collect())
    }

    /// The last entry that is a message, read without opening the queue.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn last_message(&self) -> Result<Option<(i64, Entry)>, ConsumeQueueError> {
        let _no_change = lock(&self.writer);
        let base_index = self.base_index.load(Ordering::Relaxed);
        let max_index = self.max_index.load(Ordering::Relaxed);
        if self.max_physical_end.load(Ordering::Relaxed) < 0 {
            return Ok(None);
        }
        let per_file = self.shared.options.entries_per_file();
        let mut index = max_index;
        let mut open: Option<(i64, I::File)> = None;
        while index > base_index {
            index -= 1;
            let base = index - index % per_file;
            let file = match open.take() {
                Some((of, file)) if of == base => file,
                _ => {
                    let path = self.dir.join(segment_name(index_to_offset(base)));
                    self.shared.io.open(&path, Access::ReadOnly)?
                }
            };
            let mut bytes = [0; ENTRY_LEN];
            file.read_exact_at(&mut bytes, index_to_offset(index - base))?;
            let entry = Entry::decode(&bytes);
            if !entry.is_filler() {
                return Ok(Some((index, entry)));
            }
            open = Some((base, file));
        }
        Ok(None)
    }

    /// Index of the message that a search for a time finds; see [`Boundary`]. Between
    /// [`min_index`](Self::min_index) and [`max_index`](Self::max_index), both included.
    ///
    /// `store_time_ms` looks up when an entry's message was stored; `None` when the log does not
    /// hold it any more. It is called about once per file and twice per halving.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn index_by_time(
        &self,
        timestamp_ms: i64,
        boundary: Boundary,
        store_time_ms: &dyn Fn(&Entry) -> Option<i64>,
    ) -> Result<i64, ConsumeQueueError> {
        let (min_index, max_index) = (self.min_index(), self.max_index());
        let base_index = self.base_index.load(Ordering::Acquire);
        if max_index <= base_index {
            return Ok(min_index);
        }
        let Some(queue) = self.open_queue()? else {
            return Ok(min_index);
        };
        let search = TimeSearch {
            queue: &queue,
            base_index,
            min_index,
            max_index,
            entries_per_file: self.shared.options.entries_per_file(),
            timestamp_ms,
            store_time_ms,
        };
        let found = search.run(boundary)?;
        // RocketMQ 5.3.3 ConsumeQueueStore.getOffsetInQueueByTime clamps.
        Ok(found.min(max_index).max(min_index))
    }

    /// Removes the files. Entries that are being read stay valid; nothing more can be put.
    ///
    /// # Errors
    /// Those of removing the files; the queue takes nothing more either way.
    pub(crate) fn delete(&self) -> Result<(), ConsumeQueueError> {
        let mut files = lock(&self.writer);
        let opened = self.open_files(&mut files).map(|_| ());
        self.deleted.store(true, Ordering::Release);
        if let Some(options) = &self.shared.options.extensions {
            self.extension(options).delete(&self.shared)?;
        }
        self.min_index
            .store(self.max_index.load(Ordering::Relaxed), Ordering::Release);
        *write(&self.readers) = None;
        let writer = files.take();
        opened?;
        match writer {
            Some(writer) => Ok(writer.delete()?),
            None => Ok(()),
        }
    }
}

/// Removes the segment files of a directory, durably; other names stay.
pub(crate) fn remove_segments<I: Io>(io: &I, dir: &Path) -> Result<(), ConsumeQueueError> {
    let entries = match io.list(dir) {
        Err(error) if error.is_not_found() => return Ok(()),
        listed => listed?,
    };
    for entry in entries {
        if entry.kind == FileKind::File && parse_segment_name(&entry.name).is_some() {
            io.remove_file(&dir.join(&entry.name))?;
        }
    }
    Ok(io.sync_dir(dir)?)
}

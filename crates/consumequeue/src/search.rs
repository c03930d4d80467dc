//! Searching a queue: by commit-log offset, which rises along it, and by store time, which nearly
//! always does.

use std::ops::Range;

use mmap_core::Io;
use segment_queue::SegmentQueue;

use crate::entry::{ENTRY_LEN, Entry};
use crate::error::ConsumeQueueError;
use crate::options::index_to_offset;

/// Entries read at once when fillers are passed over.
const SKIP_COUNT: i64 = 204;
/// Entries read at once when looking back.
const BACK_COUNT: i64 = 3276;

/// Which message a search for a time finds.
///
/// The words are RocketMQ's (`BoundaryType`), and so are the answers where no message has the
/// time: RocketMQ 5.3.3 `ConsumeQueue.getOffsetInQueueByTime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at the time or later; behind the last one if there is none.
    Lower,
    /// The last message stored at the time or earlier; the first one if there is none.
    Upper,
}

/// The entry at `index`, which the queue must hold.
pub(crate) fn entry_at<I: Io>(
    queue: &SegmentQueue<I>,
    index: i64,
) -> Result<Entry, ConsumeQueueError> {
    let mut bytes = [0; ENTRY_LEN];
    queue.read_exact_at(index_to_offset(index), &mut bytes)?;
    Ok(Entry::decode(&bytes))
}

/// The first entry of `range` that is no filler.
pub(crate) fn message_at_or_after<I: Io>(
    queue: &SegmentQueue<I>,
    range: Range<i64>,
) -> Result<Option<(i64, Entry)>, ConsumeQueueError> {
    let mut buf = [0; ENTRY_LEN * SKIP_COUNT as usize];
    let mut index = range.start;
    // One first: fillers are rare.
    let mut count = 1;
    while index < range.end {
        count = (range.end - index).min(count);
        let len = usize::try_from(index_to_offset(count)).unwrap_or(0);
        let chunk = buf.get_mut(..len).unwrap_or_default();
        queue.read_exact_at(index_to_offset(index), chunk)?;
        let (entries, _) = chunk.as_chunks();
        for bytes in entries {
            let entry = Entry::decode(bytes);
            if !entry.is_filler() {
                return Ok(Some((index, entry)));
            }
            index += 1;
        }
        count = SKIP_COUNT;
    }
    Ok(None)
}

/// The last entry of `range` for which a condition holds.
pub(crate) fn last_where<I: Io>(
    queue: &SegmentQueue<I>,
    range: Range<i64>,
    condition: impl Fn(&Entry) -> bool,
) -> Result<Option<(i64, Entry)>, ConsumeQueueError> {
    let mut buf = vec![0; ENTRY_LEN * BACK_COUNT as usize];
    let mut end = range.end;
    // One first: it nearly always is the one.
    let mut count = 1;
    while end > range.start {
        let start = (end - count).max(range.start);
        let len = usize::try_from(index_to_offset(end - start)).unwrap_or(0);
        let chunk = buf.get_mut(..len).unwrap_or_default();
        queue.read_exact_at(index_to_offset(start), chunk)?;
        let (entries, _) = chunk.as_chunks();
        let found = (start..).zip(entries.iter().map(Entry::decode));
        if let Some(found) = { found }.filter(|(_, entry)| condition(entry)).last() {
            return Ok(Some(found));
        }
        end = start;
        count = BACK_COUNT;
    }
    Ok(None)
}

/// The first index of `range` behind all messages that are `below`, which those are that come
/// first. Fillers may stand anywhere.
pub(crate) fn partition<I: Io>(
    queue: &SegmentQueue<I>,
    range: Range<i64>,
    below: impl Fn(&Entry) -> bool,
) -> Result<i64, ConsumeQueueError> {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        match message_at_or_after(queue, middle..high)? {
            Some((index, entry)) if below(&entry) => low = index + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// One search for a time, step by step as RocketMQ does it, because its answers for times that run
/// backwards, or lie outside of the queue's, depend on the steps.
///
/// A message that the log does not hold any more is taken to be older than any time asked for.
/// (RocketMQ does so below the log's minimum, and gives up with 0 elsewhere, where a recovered
/// queue has no entries.)
pub(crate) struct TimeSearch<'a, I: Io> {
    pub(crate) queue: &'a SegmentQueue<I>,
    pub(crate) base_index: i64,
    pub(crate) min_index: i64,
    pub(crate) max_index: i64,
    pub(crate) entries_per_file: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) store_time_ms: &'a dyn Fn(&Entry) -> Option<i64>,
}

/// Store time of a message that is gone, below every other.
const GONE_MS: i64 = -1;

impl<I: Io> TimeSearch<'_, I> {
    /// The index found, before it is clamped to the queue's.
    pub(crate) fn run(&self, boundary: Boundary) -> Result<i64, ConsumeQueueError> {
        match self.choose_file(boundary)? {
            Some(file) => self.search_file(&file, boundary),
            None => Ok(0),
        }
    }

    /// The entries of the file in which to look.
    fn choose_file(&self, boundary: Boundary) -> Result<Option<Range<i64>>, ConsumeQueueError> {
        let file_count = (self.max_index - self.base_index - 1) / self.entries_per_file + 1;
        let file = |position: i64| {
            let start = self.base_index + position * self.entries_per_file;
            start..(start + self.entries_per_file).min(self.max_index)
        };
        match boundary {
            Boundary::Lower => {
                for position in 0..file_count - 1 {
                    let entries = file(position);
                    if self.time_at(entries.end - 1)? >= self.timestamp_ms {
                        return Ok(Some(entries));
                    }
                }
                Ok(Some(file(file_count - 1)))
            }
            Boundary::Upper => {
                for position in (0..file_count).rev() {
                    let entries = file(position);
                    if self.time_at(entries.start)? <= self.timestamp_ms {
                        return Ok(Some(entries));
                    }
                }
                Ok(None)
            }
        }
    }

    fn search_file(
        &self,
        entries: &Range<i64>,
        boundary: Boundary,
    ) -> Result<i64, ConsumeQueueError> {
        let floor = entries.start.max(self.min_index);
        let ceiling = entries.end - 1;
        if self.time_at(ceiling)? < self.timestamp_ms {
            return Ok(match boundary {
                Boundary::Lower => ceiling + 1,
                Boundary::Upper => ceiling,
            });
        }
        if floor <= ceiling && self.time_at(floor)? > self.timestamp_ms {
            return Ok(match boundary {
                // The file's first place, not the first message: the clamp makes up for it.
                Boundary::Lower => entries.start,
                Boundary::Upper => 0,
            });
        }
        let (mut low, mut high) = (floor, ceiling);
        let (mut left, mut right) = (None, None);
        while low <= high {
            // Halved within the file, as the halves depend on where it starts.
            let middle = entries.start + (low - entries.start + high - entries.start) / 2;
            let time = self.time_at(middle)?;
            if time != GONE_MS && time == self.timestamp_ms {
                return self.walk_equal(middle, floor..ceiling + 1, boundary);
            }
            if time > self.timestamp_ms {
                high = middle - 1;
                right = Some(middle);
            } else {
                low = middle + 1;
                left = Some(middle);
            }
        }
        let found = match boundary {
            Boundary::Lower => right,
            Boundary::Upper => left,
        };
        // RocketMQ divides one byte before the file by the length of an entry, rounding to zero.
        Ok(found.unwrap_or((entries.start - 1).max(0)))
    }

    /// From one message of the very time to the first or last of them.
    fn walk_equal(
        &self,
        found: i64,
        range: Range<i64>,
        boundary: Boundary,
    ) -> Result<i64, ConsumeQueueError> {
        let step = match boundary {
            Boundary::Lower => -1,
            Boundary::Upper => 1,
        };
        let mut index = found;
        while range.contains(&(index + step)) && self.time_at(index + step)? == self.timestamp_ms {
            index += step;
        }
        Ok(index)
    }

    fn time_at(&self, index: i64) -> Result<i64, ConsumeQueueError> {
        if index < self.base_index {
            return Ok(GONE_MS);
        }
        let entry = entry_at(self.queue, index)?;
        if entry.is_filler() {
            return Ok(GONE_MS);
        }
        Ok((self.store_time_ms)(&entry).unwrap_or(GONE_MS))
    }
}

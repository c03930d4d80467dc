//! Batch consume queues: the index of topics whose records may hold many messages each.
//!
//! The files are those of RocketMQ 5.3.3 (`BatchConsumeQueue`), in
//! `batchconsumequeue/<topic>/<queue id>/`: entries of 46 bytes, one a record, in files of 300,000.
//! An entry's place says nothing: the record that holds a message is found by halving. All integers
//! are big-endian.
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | i64 | commit-log offset of the record |
//! | 8 | i32 | its length in the log |
//! | 12 | i64 | tags code |
//! | 20 | i64 | store time, ms |
//! | 28 | i64 | index of its first message |
//! | 36 | i16 | how many messages it holds |
//! | 38 | i32 | compacted offset, -1 when unset |
//! | 42 | i32 | reserved, 0 |
//!
//! Such queues are few: their files stay open once they are used. They are read by `pread`; mapped is
//! the last file of those that are put to, until nothing has been put for a while
//! ([`BatchQueue::step_unmap`]).

use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use mmap_core::{Advice, Io, OsIo};
use segment_queue::{
    AppendError, DamagePolicy, FlushPolicy, MapBudget, NameSync, SegmentQueue, SegmentQueueOptions,
    SegmentWriter, Trimmed,
};

use crate::error::ConsumeQueueError;
use crate::hot::{lock, read, write};
use crate::options::{BatchQueueOptions, OpenPolicy};
use crate::queue::PutOutcome;
use crate::queue::remove_segments;
use crate::search::Boundary;

/// Length of a batch queue's entry in bytes.
pub const BATCH_ENTRY_LEN: usize = 46;
/// RocketMQ's length of a file of a batch queue, in bytes.
pub const DEFAULT_BATCH_FILE_LEN: u64 = 300_000 * BATCH_ENTRY_LEN as u64;

const ENTRY_LEN: u64 = BATCH_ENTRY_LEN as u64;
/// Files that are read after a crash.
const UNCLEAN_FILE_COUNT: usize = 3;
/// Entries read at once.
const READ_COUNT: u64 = 1024;
const ALLOCATE_STEP: u64 = 64 * 1024;

/// What a batch queue knows of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry {
    /// Commit-log offset of the record.
    pub physical_offset: i64,
    /// Its length in the log, in bytes.
    pub size: i32,
    /// Hash of its tags.
    pub tags_code: i64,
    /// Its store time, ms.
    pub store_timestamp_ms: i64,
    /// Index of its first message.
    pub base: i64,
    /// How many messages it holds.
    pub count: i16,
}

impl BatchEntry {
    /// The bytes on disk.
    pub fn encode(&self) -> [u8; BATCH_ENTRY_LEN] {
        let mut bytes = [0; BATCH_ENTRY_LEN];
        bytes[0..8].copy_from_slice(&self.physical_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.store_timestamp_ms.to_be_bytes());
        bytes[28..36].copy_from_slice(&self.base.to_be_bytes());
        bytes[36..38].copy_from_slice(&self.count.to_be_bytes());
        bytes[38..42].copy_from_slice(&(-1i32).to_be_bytes());
        bytes
    }

    /// Reads the bytes on disk; whether they make sense is asked elsewhere.
    pub fn decode(bytes: &[u8; BATCH_ENTRY_LEN]) -> Self {
        let wide = |position: usize| {
            let field = bytes.get(position..).and_then(<[u8]>::first_chunk);
            field.map_or(0, |field| i64::from_be_bytes(*field))
        };
        let size = bytes.get(8..).and_then(<[u8]>::first_chunk);
        let count = bytes.get(36..).and_then(<[u8]>::first_chunk);
        Self {
            physical_offset: wide(0),
            size: size.map_or(0, |field| i32::from_be_bytes(*field)),
            tags_code: wide(12),
            store_timestamp_ms: wide(20),
            base: wide(28),
            count: count.map_or(0, |field| i16::from_be_bytes(*field)),
        }
    }

    /// Whether the place is in use.
    pub fn is_used(&self) -> bool {
        self.physical_offset >= 0 && self.size > 0 && self.base >= 0 && self.count > 0
    }

    /// Commit-log offset behind the record.
    pub fn physical_end(&self) -> i64 {
        self.physical_offset.saturating_add(i64::from(self.size))
    }

    /// Index behind its last message.
    pub fn next(&self) -> i64 {
        self.base.saturating_add(i64::from(self.count))
    }
}

/// Where a batch queue begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    /// Byte offset of the first entry that counts, and behind the last.
    start: u64,
    end: u64,
    min_index: i64,
    max_index: i64,
    last: Option<BatchEntry>,
}

/// The entries of one queue of a topic with batches.
///
/// One thread at a time puts; any number read. Locks, in this order: `writer`, `ends`.
pub struct BatchQueue<I: Io = OsIo> {
    io: I,
    dir: Box<Path>,
    options: BatchQueueOptions,
    queue: Arc<SegmentQueue<I>>,
    writer: Mutex<Writer<I>>,
    ends: RwLock<Ends>,
    /// The files were not whole when it was opened, and are gone.
    was_damaged: bool,
}

/// The one writer of a queue, and whether it is at rest.
#[derive(Debug)]
struct Writer<I: Io> {
    segments: SegmentWriter<I>,
    /// Since the last step.
    was_put_to: bool,
    /// The step since which nothing was put.
    rests_since: Duration,
}

impl<I: Io> BatchQueue<I> {
    /// Opens the queue in `dir`, which need not exist.
    ///
    /// # Errors
    /// [`ConsumeQueueError::Options`]; [`ConsumeQueueError::Queue`] when the files have another
    /// length.
    pub fn open(
        io: I,
        dir: &Path,
        options: &BatchQueueOptions,
        policy: OpenPolicy,
    ) -> Result<Self, ConsumeQueueError> {
        if options.file_len == 0 || !options.file_len.is_multiple_of(ENTRY_LEN) {
            return Err(ConsumeQueueError::Options {
                name: "batch file_len",
                value: options.file_len,
                expected: "must be a multiple of 46 bytes above 0",
            });
        }
        let files = segments(dir, options, policy);
        let mut was_damaged = false;
        let opened = match SegmentQueue::open(io.clone(), &files).map_err(Into::into) {
            Err(error @ ConsumeQueueError::Queue(_)) if error.is_broken() || error.is_short() => {
                was_damaged = true;
                remove_segments(&io, dir)?;
                SegmentQueue::open(io.clone(), &files)?
            }
            opened => opened?,
        };
        let (queue, mut writer) = opened;
        let found = scan(&queue, policy)?;
        was_damaged |= found.is_first_bad || found.is_untidy && policy == OpenPolicy::Clean;
        if found.is_untidy || policy == OpenPolicy::Unclean {
            writer.truncate(found.ends.end)?;
            writer.mark_unflushed(queue.min_offset());
        } else {
            writer.resume(found.ends.end)?;
        }
        Ok(Self {
            io,
            dir: dir.into(),
            options: options.clone(),
            queue,
            writer: Mutex::new(Writer {
                segments: writer,
                was_put_to: true,
                rests_since: Duration::ZERO,
            }),
            ends: RwLock::new(found.ends),
            was_damaged,
        })
    }

    /// Index of the first message; [`max_index`](Self::max_index) when there is none.
    pub fn min_index(&self) -> i64 {
        read(&self.ends).min_index
    }

    /// Index behind the last message.
    pub fn max_index(&self) -> i64 {
        read(&self.ends).max_index
    }

    /// The last entry.
    pub fn last(&self) -> Option<BatchEntry> {
        read(&self.ends).last
    }

    /// Whether files were missing when it was opened, or something in them was no entry: it may
    /// hold less than was put to it.
    pub fn was_damaged(&self) -> bool {
        self.was_damaged
    }

    /// Puts a record's entry behind the last one.
    ///
    /// # Errors
    /// Nothing was put then; [`ConsumeQueueError::is_full`] tells a full disk.
    pub fn put(&self, entry: BatchEntry) -> Result<PutOutcome, ConsumeQueueError> {
        let mut writer = lock(&self.writer);
        let ends = *read(&self.ends);
        if let Some(last) = ends.last {
            if entry.physical_offset <= last.physical_offset {
                return Ok(PutOutcome::AlreadyBuilt);
            }
            if entry.base < ends.max_index {
                let max_index = ends.max_index;
                return Ok(PutOutcome::Occupied { max_index });
            }
        }
        let bytes = entry.encode();
        writer.was_put_to = true;
        let writer = &mut writer.segments;
        loop {
            match writer.append(&[&bytes]) {
                Ok(_) => break,
                Err(AppendError::NeedsRoll { .. }) => {
                    if writer.queue().segments().is_empty() {
                        self.io.create_dir_all(&self.dir)?;
                    }
                    writer.roll()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        writer.publish();
        let mut ends = write(&self.ends);
        if ends.min_index == ends.max_index {
            ends.start = writer.position() - ENTRY_LEN;
            ends.min_index = entry.base;
        }
        ends.end = writer.position();
        ends.max_index = entry.next();
        ends.last = Some(entry);
        Ok(PutOutcome::Appended)
    }

    /// The entries from the record on that holds the message at `index`, `count` at most; none where
    /// there is no such message.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn entries(&self, index: i64, count: usize) -> Result<Vec<BatchEntry>, ConsumeQueueError> {
        let ends = *read(&self.ends);
        if index < ends.min_index || index >= ends.max_index {
            return Ok(Vec::new());
        }
        let behind = self.partition(ends, |entry| entry.base <= index)?;
        let from = behind.max(ends.start + ENTRY_LEN) - ENTRY_LEN;
        let len = (count as u64)
            .saturating_mul(ENTRY_LEN)
            .min(ends.end - from);
        let mut bytes = vec![0; len as usize];
        self.queue.read_exact_at(from, &mut bytes)?;
        let (entries, _) = bytes.as_chunks();
        Ok(entries.iter().map(BatchEntry::decode).collect())
    }

    /// The offset behind the entries for which a condition holds that holds for the first of them.
    fn partition(
        &self,
        ends: Ends,
        holds: impl Fn(&BatchEntry) -> bool,
    ) -> Result<u64, ConsumeQueueError> {
        let (mut low, mut high) = (ends.start / ENTRY_LEN, ends.end / ENTRY_LEN);
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(&self.entry_at(middle * ENTRY_LEN)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low * ENTRY_LEN)
    }

    fn entry_at(&self, offset: u64) -> Result<BatchEntry, ConsumeQueueError> {
        let mut bytes = [0; BATCH_ENTRY_LEN];
        self.queue.read_exact_at(offset, &mut bytes)?;
        Ok(BatchEntry::decode(&bytes))
    }

    /// Brings the queue in line with a log of `log_min..log_end`, before anybody reads it; returns
    /// how many entries were cut off.
    ///
    /// # Errors
    /// Those of the files.
    pub fn recover(&self, log_min: u64, log_end: u64) -> Result<u64, ConsumeQueueError> {
        let ends = *read(&self.ends);
        let log_end = i64::try_from(log_end).unwrap_or(i64::MAX);
        let end = self.partition(
            Ends {
                start: self.queue.min_offset(),
                ..ends
            },
            |entry| entry.physical_end() <= log_end,
        )?;
        if end < ends.end {
            let flushed = self.queue.flushed();
            let mut writer = lock(&self.writer);
            writer.segments.truncate(end)?;
            // Of the file that was cut all is durable now, of those before it perhaps not.
            writer.segments.mark_unflushed(flushed);
            drop(writer);
            let last = match end > self.queue.min_offset() {
                true => Some(self.entry_at(end - ENTRY_LEN)?),
                false => None,
            };
            let mut ends = write(&self.ends);
            ends.end = end;
            ends.start = ends.start.min(end);
            ends.last = last;
            ends.max_index = last.map_or(0, |last| last.next());
            ends.min_index = ends.min_index.min(ends.max_index);
        }
        self.correct_min(log_min)?;
        Ok((ends.end - end) / ENTRY_LEN)
    }

    /// Moves [`min_index`](Self::min_index) up to the first record that the log still holds.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn correct_min(&self, log_min: u64) -> Result<(), ConsumeQueueError> {
        let log_min = i64::try_from(log_min).unwrap_or(i64::MAX);
        let ends = *read(&self.ends);
        let start = self.partition(ends, |entry| entry.physical_offset < log_min)?;
        let min_index = match start < ends.end {
            true => self.entry_at(start)?.base,
            false => ends.max_index,
        };
        let mut ends = write(&self.ends);
        ends.start = ends.start.max(start);
        ends.min_index = ends.min_index.max(min_index);
        Ok(())
    }

    /// Moves the minimum up to the log's, and removes the files all of whose records have expired,
    /// never the last one.
    ///
    /// # Errors
    /// Those of reading and removing the files.
    pub fn trim(&self, log_min: u64) -> Result<Trimmed, ConsumeQueueError> {
        self.correct_min(log_min)?;
        let start = read(&self.ends).start;
        Ok(self.queue.trim_to(start)?)
    }

    /// Makes durable what was put before the call.
    ///
    /// # Errors
    /// The first failed sync ends all putting.
    pub fn flush(&self) -> Result<(), ConsumeQueueError> {
        Ok(self.queue.flush(FlushPolicy::All).map(drop)?)
    }

    /// Whether everything that was put is durable.
    pub fn is_flushed(&self) -> bool {
        self.queue.flushed() >= self.queue.published()
    }

    /// Unmaps the files that nothing is put to: the last one when nothing was for
    /// [`unmap_after`](BatchQueueOptions::unmap_after), or where more is mapped than the
    /// [`budget`](BatchQueueOptions::budget) allows since the last step; the next put maps it again.
    /// To be called now and then; `now` is of any clock that never runs backwards.
    pub fn step_unmap(&self, now: Duration) {
        self.queue.step_unmap(now, &[]);
        let mut writer = lock(&self.writer);
        if std::mem::take(&mut writer.was_put_to) {
            writer.rests_since = now;
            return;
        }
        let rest = now.saturating_sub(writer.rests_since);
        let is_long = self.options.unmap_after.is_some_and(|age| rest >= age);
        let budget = self.options.budget.as_ref();
        if is_long || budget.is_some_and(MapBudget::is_exceeded) {
            writer.segments.park();
        }
    }

    /// Removes all entries and files, to put everything again.
    ///
    /// # Errors
    /// Those of removing files.
    pub fn clear(&self) -> Result<(), ConsumeQueueError> {
        lock(&self.writer).segments.reset(0)?;
        *write(&self.ends) = Ends::EMPTY;
        Ok(())
    }

    /// Index of the message that a search for a time finds, as RocketMQ 5.3.3 finds it
    /// (`BatchConsumeQueue.getOffsetInQueueByTime`): the first message of a record. For
    /// [`Boundary::Upper`] that is only right where a record has the very time; between two, the
    /// steps decide. The minimum where it finds none.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn index_by_time(
        &self,
        timestamp_ms: i64,
        boundary: Boundary,
    ) -> Result<i64, ConsumeQueueError> {
        let ends = *read(&self.ends);
        if ends.start >= ends.end {
            return Ok(ends.min_index);
        }
        let (first, count) = self.file_by_time(ends, timestamp_ms)?;
        let at = |place: u64| self.entry_at(first + place * ENTRY_LEN);
        let last = at(count - 1)?;
        let found = if timestamp_ms >= last.store_timestamp_ms {
            Some(last.base)
        } else {
            search_file(&at, count, timestamp_ms, boundary)?
        };
        let found = found.unwrap_or(ends.min_index);
        Ok(found.min(ends.max_index).max(ends.min_index))
    }

    /// The file in which a time is looked for: offset of its first entry, and how many it has.
    fn file_by_time(&self, ends: Ends, timestamp_ms: i64) -> Result<(u64, u64), ConsumeQueueError> {
        let file_len = self.queue.segment_len();
        let mut base = (ends.end - 1) / file_len * file_len;
        while base > ends.start && self.entry_at(base)?.store_timestamp_ms > timestamp_ms {
            base -= file_len;
        }
        let first = base.max(ends.start);
        let end = (base + file_len).min(ends.end);
        Ok((first, (end - first) / ENTRY_LEN))
    }
}

/// The steps of RocketMQ 5.3.3 `BatchConsumeQueue.binarySearchRight`, as its answers depend on them.
fn search_file(
    at: &dyn Fn(u64) -> Result<BatchEntry, ConsumeQueueError>,
    count: u64,
    timestamp_ms: i64,
    boundary: Boundary,
) -> Result<Option<i64>, ConsumeQueueError> {
    let (mut low, mut high) = (0, count.cast_signed() - 1);
    while low <= high {
        let middle = (low + high) / 2;
        let entry = at(middle.unsigned_abs())?;
        let time = entry.store_timestamp_ms;
        if middle == high {
            return Ok((time >= timestamp_ms).then_some(entry.base));
        }
        if middle == low {
            if time >= timestamp_ms {
                return Ok(Some(entry.base));
            }
            low = middle + 1;
            continue;
        }
        match boundary {
            Boundary::Lower if time < timestamp_ms => low = middle + 1,
            Boundary::Lower => high = middle,
            Boundary::Upper if time <= timestamp_ms => low = middle,
            Boundary::Upper => high = middle - 1,
        }
    }
    Ok(None)
}

impl Ends {
    const EMPTY: Self = Self {
        start: 0,
        end: 0,
        min_index: 0,
        max_index: 0,
        last: None,
    };
}

struct Scanned {
    ends: Ends,
    /// Something that is not zero, or a file, lies behind the end.
    is_untidy: bool,
    /// The first entry of all is none, or one of a message behind the last one's.
    is_first_bad: bool,
}

/// Finds the ends from the last files, up to the first place that is no entry behind the one
/// before.
fn scan<I: Io>(queue: &SegmentQueue<I>, policy: OpenPolicy) -> Result<Scanned, ConsumeQueueError> {
    let segments = queue.segments();
    let bases: Vec<u64> = segments.iter().map(|segment| segment.base()).collect();
    let Some(&first_base) = bases.first() else {
        let ends = Ends::EMPTY;
        return Ok(Scanned {
            ends,
            is_untidy: false,
            is_first_bad: false,
        });
    };
    let file_count = match policy {
        OpenPolicy::Clean => 1,
        OpenPolicy::Unclean => UNCLEAN_FILE_COUNT,
    };
    let mut from = bases.len().saturating_sub(file_count);
    let (end, last, is_untidy) = loop {
        let start = bases.get(from).copied().unwrap_or(first_base);
        let found = scan_from(queue, start)?;
        if found.1.is_some() || from == 0 {
            break found;
        }
        from -= 1;
    };
    let (min_index, is_first_bad) = match last {
        Some(last) => {
            let mut bytes = [0; BATCH_ENTRY_LEN];
            queue.read_exact_at(first_base, &mut bytes)?;
            let first = BatchEntry::decode(&bytes);
            let is_good = first.is_used() && first.base <= last.base;
            (if is_good { first.base } else { last.base }, !is_good)
        }
        None => (0, false),
    };
    let ends = Ends {
        start: first_base,
        end,
        min_index,
        max_index: last.map_or(0, |last: BatchEntry| last.next()),
        last,
    };
    Ok(Scanned {
        ends,
        is_untidy,
        is_first_bad,
    })
}

fn scan_from<I: Io>(
    queue: &SegmentQueue<I>,
    start: u64,
) -> Result<(u64, Option<BatchEntry>, bool), ConsumeQueueError> {
    let mut last: Option<BatchEntry> = None;
    let mut offset = start;
    let mut buf = Vec::new();
    while offset < queue.published() {
        let len = (queue.published() - offset).min(READ_COUNT * ENTRY_LEN);
        buf.resize(len as usize, 0);
        queue.read_exact_at(offset, &mut buf)?;
        let (entries, _) = buf.as_chunks::<BATCH_ENTRY_LEN>();
        for bytes in entries {
            let entry = BatchEntry::decode(bytes);
            let follows = last.is_none_or(|last| {
                entry.physical_offset >= last.physical_end() && entry.base >= last.next()
            });
            if !entry.is_used() || !follows {
                let file_end =
                    offset / queue.segment_len() * queue.segment_len() + queue.segment_len();
                let is_untidy = *bytes != [0; BATCH_ENTRY_LEN] || file_end < queue.published();
                return Ok((offset, last, is_untidy));
            }
            last = Some(entry);
            offset += ENTRY_LEN;
        }
    }
    Ok((offset, last, false))
}

fn segments(dir: &Path, options: &BatchQueueOptions, policy: OpenPolicy) -> SegmentQueueOptions {
    SegmentQueueOptions {
        allocate_step: ALLOCATE_STEP,
        damage: match policy {
            OpenPolicy::Clean => DamagePolicy::RemoveEmptyLast,
            OpenPolicy::Unclean => DamagePolicy::ExtendWithZeros,
        },
        name_sync: NameSync::WithFlush,
        advice: Advice::Random,
        budget: options.budget.clone(),
        unmap_after: options.unmap_after,
        ..SegmentQueueOptions::new(dir, options.file_len)
    }
}

impl<I: Io> std::fmt::Debug for BatchQueue<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchQueue")
            .field("dir", &self.dir)
            .field("ends", &*read(&self.ends))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_real_entry() {
        // The first entry of queue 0 of topic GoldBcq in the golden store `special`.
        let entry = BatchEntry {
            physical_offset: 25_137,
            size: 906,
            tags_code: 0,
            store_timestamp_ms: 1_795_400_183_364,
            base: 0,
            count: 5,
        };
        let bytes = entry.encode();
        assert_eq!(
            bytes[0..12],
            [0, 0, 0, 0, 0, 0, 0x62, 0x31, 0, 0, 0x03, 0x8a]
        );
        assert_eq!(bytes[36..46], [0, 5, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(BatchEntry::decode(&bytes), entry);
        assert_eq!((entry.physical_end(), entry.next()), (26_043, 5));
    }
}

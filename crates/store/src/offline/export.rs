//! Taking messages out of a store that is not open.
//!
//! What is asked for decides what is read: a key the index, a topic its queues, everything else
//! the log.

use std::ops::ControlFlow;

use consumequeue::{ENTRY_LEN, Entry};
use message::RecordView;
use mmap_core::Io;

use super::error::OfflineError;
use super::files::{SegmentDir, StoreDirs};
use super::inspect::{index_chain, index_files};
use super::log::{LogReader, LogStep, LogWalk};
use super::queue_files::{EntryReader, QueueFiles, QueueKind, queues};
use super::shape::Shape;
use crate::options::StoreOptions;
use crate::place::index_in;
use crate::progress::{Progress, Step};
use consumequeue::BatchEntry;

/// Bytes of the log read at a time when the messages of a queue are looked up: they lie apart.
const LOOK_UP_LEN: usize = 64 << 10;
/// Bytes of a queue's entries read at a time.
const WINDOW_LEN: usize = 64 << 10;
/// Bytes of the log between two words about progress.
const PROGRESS_LEN: u64 = 1 << 20;
/// How far behind the end of a time range the log is read: clocks are set back now and then.
const CLOCK_SLACK_MS: i64 = 10 * 60 * 1000;

/// Which messages; those that pass every bound that is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportRange<'a> {
    /// Of this topic.
    pub topic: Option<&'a str>,
    /// Of this queue.
    pub queue_id: Option<i32>,
    /// With this key, or this unique key.
    pub key: Option<&'a str>,
    /// Stored at this time or later, ms.
    pub from_ms: Option<i64>,
    /// Stored at this time or earlier, ms.
    pub until_ms: Option<i64>,
    /// At this queue offset or a later one.
    pub from_queue_offset: Option<i64>,
    /// At this queue offset or an earlier one.
    pub until_queue_offset: Option<i64>,
    /// At this log offset or a later one.
    pub from_log_offset: Option<u64>,
    /// At this log offset or an earlier one.
    pub until_log_offset: Option<u64>,
    /// Read the log, also where queues or index could tell: they may be damaged.
    pub scan_log: bool,
}

/// What the messages were found with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportSource {
    /// The index.
    Index,
    /// The topic's queues.
    Queues,
    /// The log.
    Log,
}

impl ExportSource {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Queues => "queues",
            Self::Log => "log",
        }
    }
}

/// What an export came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// What was read.
    pub source: ExportSource,
    /// Records that were handed on.
    pub record_count: u64,
    /// Entries whose record is not there any more, or damaged.
    pub missing_count: u64,
    /// Bytes of the log that are no record, with records behind them.
    pub damaged_len: u64,
}

/// Is shown each record, with its queue offset in the queue that was asked for; breaks off when it
/// has had enough.
pub type Take<'a> = dyn FnMut(&RecordView<'_>, i64) -> std::io::Result<ControlFlow<()>> + 'a;

/// Shows the messages of a range to `take`: of a queue in its order, otherwise in the log's.
///
/// # Errors
/// There is no store; a file cannot be read; or what `take` says.
pub fn export<I: Io>(
    io: &I,
    options: &StoreOptions,
    range: &ExportRange<'_>,
    take: &mut Take<'_>,
    progress: &dyn Progress,
) -> Result<ExportReport, OfflineError> {
    let dirs = StoreDirs::new(options);
    dirs.check_store(io)?;
    let shape = Shape::detect(io, options)?;
    let log = SegmentDir::list(io, &dirs.log, shape.segment_len)?;
    let mut export = Export {
        io,
        options,
        shape,
        range,
        take,
        progress,
        report: ExportReport {
            source: ExportSource::Log,
            record_count: 0,
            missing_count: 0,
            damaged_len: 0,
        },
    };
    if let (Some(topic), Some(key), false) = (range.topic, range.key, range.scan_log)
        && !index_files(io, options)?.is_empty()
    {
        export.by_index(log, topic, key)?;
    } else if let (Some(topic), None, false) = (range.topic, range.key, range.scan_log) {
        let mut found = queues(io, options)?;
        found.retain(|queue| queue.topic == topic);
        if found.is_empty() {
            export.by_log(log)?;
        } else {
            found.retain(|queue| range.queue_id.is_none_or(|id| id == queue.queue_id));
            export.by_queues(log, &found)?;
        }
    } else {
        export.by_log(log)?;
    }
    Ok(export.report)
}

struct Export<'a, 'b, I: Io> {
    io: &'a I,
    options: &'a StoreOptions,
    shape: Shape,
    range: &'a ExportRange<'a>,
    take: &'a mut Take<'b>,
    progress: &'a dyn Progress,
    report: ExportReport,
}

/// What became of looking up an entry's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// Go on with the next entry.
    On,
    /// The rest of the queue is behind the range.
    Behind,
    /// Whoever takes the messages has had enough.
    Enough,
}

impl<I: Io> Export<'_, '_, I> {
    fn by_index(&mut self, log: SegmentDir<I>, topic: &str, key: &str) -> Result<(), OfflineError> {
        self.report.source = ExportSource::Index;
        let layout = self.shape.index_layout();
        let mut offsets = Vec::new();
        for file in index_files(self.io, self.options)? {
            if file.len == layout.file_len() {
                let chain = index_chain(self.io, &file.path, layout, topic, key)?;
                offsets.extend(chain.iter().map(|found| found.entry.physical_offset));
            }
        }
        offsets.sort_unstable();
        offsets.dedup();
        let mut log = LogReader::with_chunk(log, LOOK_UP_LEN);
        for offset in offsets
            .into_iter()
            .filter_map(|offset| u64::try_from(offset).ok())
        {
            match log.record(offset)? {
                // Another key may have the same hash.
                Some(view) if !self.is_wanted(&view, view.queue_offset()) => {}
                Some(view) if view.verify_body_crc().is_ok() => {
                    if self.hand_on(&view, view.queue_offset())?.is_break() {
                        return Ok(());
                    }
                }
                _ => self.report.missing_count += 1,
            }
        }
        Ok(())
    }

    fn by_queues(&mut self, log: SegmentDir<I>, found: &[QueueFiles]) -> Result<(), OfflineError> {
        self.report.source = ExportSource::Queues;
        let mut log = LogReader::with_chunk(log, LOOK_UP_LEN);
        for queue in found {
            let flow = match queue.kind {
                QueueKind::Simple => self.simple_queue(&mut log, queue)?,
                QueueKind::Batch => self.batch_queue(&mut log, queue)?,
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn simple_queue(
        &mut self,
        log: &mut LogReader<I>,
        queue: &QueueFiles,
    ) -> Result<ControlFlow<()>, OfflineError> {
        let files = SegmentDir::list(self.io, &queue.dir, self.shape.queue_file_len)?;
        let mut reader = EntryReader::<I, ENTRY_LEN>::new(files, WINDOW_LEN);
        let from = self.range.from_queue_offset.unwrap_or(0).max(0);
        let mut ordinal = reader.first().max(from.unsigned_abs());
        if let Some(from_ms) = self.range.from_ms {
            let from_ms = from_ms.saturating_sub(CLOCK_SLACK_MS);
            ordinal = ordinal.max(first_at(&mut reader, log, from_ms)?);
        }
        let total = reader.end() - reader.first();
        while ordinal < reader.end() {
            let index = ordinal.cast_signed();
            if self
                .range
                .until_queue_offset
                .is_some_and(|until| index > until)
            {
                break;
            }
            let Some(bytes) = reader.entry(ordinal)? else {
                break;
            };
            let entry = Entry::decode(&bytes);
            if entry.size <= 0 || entry.physical_offset < 0 {
                break;
            }
            ordinal += 1;
            if ordinal.is_multiple_of(WINDOW_LEN as u64) {
                let done = ordinal - reader.first();
                self.progress.at(Step {
                    phase: "queue",
                    done,
                    total,
                });
            }
            if entry.is_filler() {
                continue;
            }
            match self.look_up(log, queue, entry.physical_offset, index)? {
                Looked::On => {}
                Looked::Behind => break,
                Looked::Enough => return Ok(ControlFlow::Break(())),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn batch_queue(
        &mut self,
        log: &mut LogReader<I>,
        queue: &QueueFiles,
    ) -> Result<ControlFlow<()>, OfflineError> {
        let files = SegmentDir::list(self.io, &queue.dir, self.shape.batch_queue_file_len)?;
        let mut reader = EntryReader::new(files, WINDOW_LEN);
        for ordinal in reader.first()..reader.end() {
            let Some(bytes) = reader.entry(ordinal)? else {
                break;
            };
            let entry = BatchEntry::decode(&bytes);
            if !entry.is_used() {
                break;
            }
            let offset = entry.physical_offset;
            match self.look_up(log, queue, offset, entry.base)? {
                Looked::On => {}
                Looked::Behind => break,
                Looked::Enough => return Ok(ControlFlow::Break(())),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Hands on the record that an entry points at.
    fn look_up(
        &mut self,
        log: &mut LogReader<I>,
        queue: &QueueFiles,
        physical_offset: i64,
        index: i64,
    ) -> Result<Looked, OfflineError> {
        let offset = physical_offset.cast_unsigned();
        if offset < log.files().min() {
            // Expired.
            return Ok(Looked::On);
        }
        let Some(view) = log.record(offset)? else {
            self.report.missing_count += 1;
            return Ok(Looked::On);
        };
        if self.is_behind_range(&view) {
            // The queue is in the order of the log.
            return Ok(Looked::Behind);
        }
        // In the place of a lost message stands its neighbour's entry.
        let own_index = index_in(&view, &queue.topic, queue.queue_id);
        let is_own = queue.kind == QueueKind::Batch || own_index == Some(index);
        if view.verify_body_crc().is_err() || !is_own {
            self.report.missing_count += 1;
            return Ok(Looked::On);
        }
        if self.is_in_bounds(&view, index) && self.hand_on(&view, index)?.is_break() {
            return Ok(Looked::Enough);
        }
        Ok(Looked::On)
    }

    fn by_log(&mut self, log: SegmentDir<I>) -> Result<(), OfflineError> {
        let start = self.start_of(&log)?;
        let end = log.end();
        let mut told = start;
        let mut walk = LogWalk::new(
            LogReader::new(SegmentDir::list(self.io, log.dir(), log.file_len())?),
            start,
        );
        loop {
            match walk.step() {
                LogStep::Record { offset, .. } => {
                    if offset - told >= PROGRESS_LEN {
                        told = offset;
                        self.progress.at(Step {
                            phase: "log",
                            done: offset - start,
                            total: end - start,
                        });
                    }
                    let Some(view) = walk.reader.record(offset)? else {
                        continue;
                    };
                    if self.is_behind_range(&view) {
                        break;
                    }
                    let index = view.queue_offset();
                    if self.is_wanted(&view, index) && self.hand_on(&view, index)?.is_break() {
                        break;
                    }
                }
                LogStep::Damage { len, .. } => self.report.damaged_len += len,
                LogStep::Unreadable { error, .. } => return Err(error.into()),
                LogStep::Blank { .. } | LogStep::Gap { .. } => {}
                LogStep::End { .. } => break,
            }
        }
        Ok(())
    }

    /// Where to begin: the last segment that cannot be behind the range's beginning.
    fn start_of(&self, log: &SegmentDir<I>) -> Result<u64, OfflineError> {
        let mut start = log.min();
        if let Some(from) = self.range.from_log_offset {
            let base = log.find(from).map(|file| file.base);
            start = start.max(base.unwrap_or(if from < log.min() {
                log.min()
            } else {
                log.end()
            }));
        }
        if let Some(from_ms) = self.range.from_ms {
            let files = SegmentDir::list(self.io, log.dir(), log.file_len())?;
            let mut reader = LogReader::with_chunk(files, LOOK_UP_LEN);
            for file in log.files() {
                let first = reader.record(file.base)?;
                match first.map(|view| view.store_timestamp_ms()) {
                    Some(first_ms) if first_ms < from_ms => start = start.max(file.base),
                    Some(_) => break,
                    None => {}
                }
            }
        }
        Ok(start)
    }

    fn is_behind_range(&self, view: &RecordView<'_>) -> bool {
        let until_ms = self.range.until_ms.unwrap_or(i64::MAX);
        let until_offset = self.range.until_log_offset.unwrap_or(u64::MAX);
        view.store_timestamp_ms() > until_ms.saturating_add(CLOCK_SLACK_MS)
            || view.physical_offset().cast_unsigned() > until_offset
    }

    fn is_wanted(&self, view: &RecordView<'_>, index: i64) -> bool {
        let range = self.range;
        range.topic.is_none_or(|topic| topic == view.topic())
            && range.queue_id.is_none_or(|id| id == view.queue_id())
            && range
                .key
                .is_none_or(|key| view.dispatch_fields().index_keys().any(|own| own == key))
            && !commitlog::is_filler(view)
            && self.is_in_bounds(view, index)
    }

    fn is_in_bounds(&self, view: &RecordView<'_>, index: i64) -> bool {
        let range = self.range;
        let store_ms = view.store_timestamp_ms();
        let offset = view.physical_offset().cast_unsigned();
        range.from_ms.is_none_or(|from| store_ms >= from)
            && range.until_ms.is_none_or(|until| store_ms <= until)
            && range.from_queue_offset.is_none_or(|from| index >= from)
            && range.until_queue_offset.is_none_or(|until| index <= until)
            && range.from_log_offset.is_none_or(|from| offset >= from)
            && range.until_log_offset.is_none_or(|until| offset <= until)
    }

    fn hand_on(
        &mut self,
        view: &RecordView<'_>,
        index: i64,
    ) -> Result<ControlFlow<()>, OfflineError> {
        let flow = (self.take)(view, index)?;
        if flow.is_continue() {
            self.report.record_count += 1;
        }
        Ok(flow)
    }
}

/// The first entry of a message stored at `from_ms` or later, found by halving: what has expired
/// or cannot be read counts as older.
fn first_at<I: Io>(
    reader: &mut EntryReader<I, ENTRY_LEN>,
    log: &mut LogReader<I>,
    from_ms: i64,
) -> Result<u64, OfflineError> {
    let (mut low, mut high) = (reader.first(), reader.end());
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = reader.entry(middle)?.map(|bytes| Entry::decode(&bytes));
        let is_older = match entry {
            Some(entry) if entry.is_filler() => true,
            Some(entry) if entry.size > 0 && entry.physical_offset >= 0 => {
                let record = log.record(entry.physical_offset.cast_unsigned())?;
                record.is_none_or(|view| view.store_timestamp_ms() < from_ms)
            }
            _ => false,
        };
        if is_older {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

//! One queue during the pass over the log: each record against its entry.

use std::collections::HashMap;

use consumequeue::{ENTRY_LEN, Entry};
use mmap_core::{Io, IoError};

use super::batch::BatchCursor;
use super::{Check, QueueSummary, queue_place};
use crate::offline::error::OfflineError;
use crate::offline::facts::RecordFacts;
use crate::offline::files::SegmentDir;
use crate::offline::finding::{Finding, FindingKind, Part, Severity};
use crate::offline::inspect;
use crate::offline::queue_files::{EntryReader, QueueKind, queues};

/// Bytes that the windows of all queues have together.
const WINDOWS_LEN: usize = 64 << 20;
/// Bytes of one window at most.
const WINDOW_LEN_MAX: usize = 64 << 10;
/// Findings of one queue that wait for its end, where they may turn out to be of an earlier life
/// of its topic.
const HELD_COUNT_MAX: usize = 64;

/// The queues on disk, and those that only records know.
#[derive(Debug)]
pub(super) struct Queues<I: Io> {
    by_topic: HashMap<String, HashMap<i32, usize>>,
    pub(super) list: Vec<Queue<I>>,
}

/// A queue's entries.
#[derive(Debug)]
pub(super) enum Entries<I: Io> {
    /// It has no files.
    None,
    Simple {
        reader: EntryReader<I, ENTRY_LEN>,
        extension: SegmentDir<I>,
    },
    Batch(BatchCursor<I>),
}

/// A queue.
#[derive(Debug)]
pub(super) struct Queue<I: Io> {
    pub(super) topic: String,
    pub(super) queue_id: i32,
    pub(super) entries: Entries<I>,
    /// Queue offset of the first record seen in the topic's present life.
    pub(super) first: Option<i64>,
    /// Queue offset behind the last record seen.
    pub(super) next: i64,
    /// Ranges between the two that no record has.
    pub(super) gaps: Vec<(i64, i64)>,
    /// Queue offset behind the last entry in use, as far as it was looked for.
    pub(super) entries_end: i64,
    record_count: u64,
    run: Option<Finding>,
    held: Vec<Finding>,
}

impl<I: Io> Queues<I> {
    /// Lists the queues on disk and checks their files.
    pub(super) fn open(check: &mut Check<'_, I>) -> Result<Self, OfflineError> {
        let on_disk = queues(check.io, check.options)?;
        let window_len = (WINDOWS_LEN / on_disk.len().max(1)).min(WINDOW_LEN_MAX);
        let mut opened = Self {
            by_topic: HashMap::new(),
            list: Vec::with_capacity(on_disk.len()),
        };
        let shape = check.report.shape.clone();
        for queue in on_disk {
            let entries = match queue.kind {
                QueueKind::Simple => {
                    let files = SegmentDir::list(check.io, &queue.dir, shape.queue_file_len)?;
                    check.check_layout(Part::Queue, &files);
                    let dir = check.dirs.extensions.join(&queue.topic);
                    let dir = dir.join(queue.queue_id.to_string());
                    let extension = SegmentDir::list(check.io, &dir, shape.extension_file_len)?;
                    check.check_layout(Part::Extension, &extension);
                    let reader = EntryReader::new(files, window_len);
                    Entries::Simple { reader, extension }
                }
                QueueKind::Batch => {
                    let files = SegmentDir::list(check.io, &queue.dir, shape.batch_queue_file_len)?;
                    check.check_layout(Part::BatchQueue, &files);
                    Entries::Batch(BatchCursor::new(EntryReader::new(files, window_len)))
                }
            };
            opened.add(&queue.topic, queue.queue_id, entries);
        }
        Ok(opened)
    }

    /// The queue of a topic, if it is on disk or was met before.
    pub(super) fn find(&self, topic: &str, queue_id: i32) -> Option<usize> {
        self.by_topic.get(topic)?.get(&queue_id).copied()
    }

    /// The queue of a topic; one that is not on disk is remembered without entries.
    pub(super) fn find_or_add(&mut self, topic: &str, queue_id: i32) -> usize {
        match self.find(topic, queue_id) {
            Some(found) => found,
            None => self.add(topic, queue_id, Entries::None),
        }
    }

    /// Whether any queue of the topic is on disk.
    pub(super) fn has_files(&self, topic: &str) -> bool {
        let of_topic = self.by_topic.get(topic);
        of_topic.into_iter().flat_map(HashMap::values).any(|place| {
            let queue = self.list.get(*place);
            queue.is_some_and(|queue| !matches!(queue.entries, Entries::None))
        })
    }

    pub(super) fn summaries(&self) -> Vec<QueueSummary> {
        self.list.iter().map(Queue::summary).collect()
    }

    fn add(&mut self, topic: &str, queue_id: i32, entries: Entries<I>) -> usize {
        let place = self.list.len();
        self.list.push(Queue {
            topic: topic.to_owned(),
            queue_id,
            entries,
            first: None,
            next: 0,
            gaps: Vec::new(),
            entries_end: 0,
            record_count: 0,
            run: None,
            held: Vec::new(),
        });
        let of_topic = self.by_topic.entry(topic.to_owned()).or_default();
        of_topic.insert(queue_id, place);
        place
    }
}

impl<I: Io> Queue<I> {
    /// Whether a record that was stored before its predecessor is one that an earlier log left
    /// behind the end: its place in the queue is taken.
    pub(super) fn is_stale(&self, index: i64) -> bool {
        self.first.is_some() && index < self.next
    }

    /// Compares a record with its entry.
    pub(super) fn check(&mut self, check: &mut Check<'_, I>, record: &RecordFacts) {
        self.record_count += 1;
        let is_repeated = self.follow(check, record);
        if is_repeated || matches!(self.entries, Entries::None) {
            return;
        }
        let part = self.part();
        let found = match &mut self.entries {
            Entries::None => return,
            Entries::Simple { reader, extension } => compare(check, reader, extension, record),
            Entries::Batch(cursor) => cursor.compare(check, record),
        };
        match found {
            Ok(None) => {
                let end = record.offset + record.size;
                check.dispatched_end = check.dispatched_end.max(end);
                self.end_run(check);
            }
            Ok(Some(mut finding)) => {
                let last = record.index + record.count - 1;
                finding.queue = queue_place(&self.topic, self.queue_id, record.index, last);
                finding.log_offset = Some(record.offset);
                self.add_to_run(check, finding);
            }
            Err(error) => check.unreadable(part, &error),
        }
    }

    /// Says everything that was held back.
    pub(super) fn finish(&mut self, check: &mut Check<'_, I>, topic_is_on_disk: bool) {
        self.end_run(check);
        for finding in std::mem::take(&mut self.held) {
            match finding.kind {
                FindingKind::EntryMissing => check.report_missing(finding),
                _ => check.report(&finding),
            }
        }
        if matches!(self.entries, Entries::None) && self.record_count > 0 {
            self.report_missing(check, topic_is_on_disk);
        }
    }

    pub(super) fn part(&self) -> Part {
        match self.entries {
            Entries::Batch(_) => Part::BatchQueue,
            _ => Part::Queue,
        }
    }

    fn summary(&self) -> QueueSummary {
        let kind = match self.entries {
            Entries::Batch(_) => QueueKind::Batch,
            _ => QueueKind::Simple,
        };
        QueueSummary {
            topic: self.topic.clone(),
            queue_id: self.queue_id,
            kind,
            min: self.first.unwrap_or(self.entries_end),
            max: self.next.max(self.entries_end),
            record_count: self.record_count,
            has_files: !matches!(self.entries, Entries::None),
        }
    }

    /// Follows the queue offsets; `true` for a record whose place an earlier one has.
    fn follow(&mut self, check: &mut Check<'_, I>, record: &RecordFacts) -> bool {
        let (index, end) = (record.index, record.index.saturating_add(record.count));
        if self.first.is_none() {
            self.first = Some(index);
        } else if index == 0 && self.next > 0 {
            self.begin_anew(check, record);
        } else if index > self.next {
            let (first, last) = (self.next, index - 1);
            let severity = self.severity_of_gap(record);
            let detail = format!(
                "{} messages are not in the log; the next one is at {}",
                index - first,
                record.offset
            );
            self.log_finding(
                check,
                severity,
                FindingKind::QueueOffsetGap,
                record,
                detail,
                (first, last),
            );
            self.gaps.push((first, index));
        } else if index < self.next {
            let detail =
                format!("an earlier record has queue offset {index}; this one has no entry");
            let kind = FindingKind::QueueOffsetRepeated;
            self.log_finding(
                check,
                Severity::Warning,
                kind,
                record,
                detail,
                (index, end - 1),
            );
            return true;
        }
        self.next = end;
        false
    }

    /// Recovery leaves the entry of a neighbour in the place of a message that is lost.
    fn severity_of_gap(&mut self, record: &RecordFacts) -> Severity {
        let Entries::Simple { reader, .. } = &mut self.entries else {
            return Severity::Error;
        };
        let entry = u64::try_from(self.next)
            .ok()
            .and_then(|ordinal| reader.entry(ordinal).ok().flatten())
            .map(|bytes| Entry::decode(&bytes));
        match entry {
            Some(entry) if entry.physical_offset == record.offset.cast_signed() => Severity::Info,
            _ => Severity::Error,
        }
    }

    /// The topic was deleted and created again: what was found so far is of no queue any more.
    fn begin_anew(&mut self, check: &mut Check<'_, I>, record: &RecordFacts) {
        let detail = format!(
            "the topic was deleted and created again: {} records before this one have no queue",
            self.next - self.first.unwrap_or(0)
        );
        let kind = FindingKind::QueueBegunAnew;
        self.log_finding(check, Severity::Info, kind, record, detail, (0, 0));
        self.run = None;
        self.held.clear();
        self.gaps.clear();
        self.first = Some(0);
        if let Entries::Batch(cursor) = &mut self.entries {
            cursor.begin_anew();
        }
    }

    fn log_finding(
        &self,
        check: &mut Check<'_, I>,
        severity: Severity,
        kind: FindingKind,
        record: &RecordFacts,
        detail: String,
        (first, last): (i64, i64),
    ) {
        let segment_len = check.report.shape.segment_len;
        let position = record.offset % segment_len;
        let base = record.offset - position;
        let path = check.dirs.log.join(segment_queue::segment_name(base));
        let mut finding = Finding::new(severity, kind, Part::Log, (path, position), detail);
        finding.queue = queue_place(&self.topic, self.queue_id, first, last);
        finding.count = (last - first + 1).unsigned_abs();
        finding.log_offset = Some(record.offset);
        check.report(&finding);
    }

    fn add_to_run(&mut self, check: &mut Check<'_, I>, finding: Finding) {
        if let (Some(run), Some(place)) = (&mut self.run, &finding.queue)
            && let Some(so_far) = &mut run.queue
            && (run.kind, run.severity) == (finding.kind, finding.severity)
            && so_far.last + 1 == place.first
        {
            so_far.last = place.last;
            run.count += finding.count;
            run.len += finding.len;
            return;
        }
        self.end_run(check);
        self.run = Some(finding);
    }

    fn end_run(&mut self, check: &mut Check<'_, I>) {
        if let Some(finding) = self.run.take() {
            if self.held.len() < HELD_COUNT_MAX {
                self.held.push(finding);
            } else {
                check.report(&finding);
            }
        }
    }

    /// Records of a queue that is not on disk. A topic that was deleted leaves them, and has no
    /// other queue.
    fn report_missing(&self, check: &mut Check<'_, I>, topic_is_on_disk: bool) {
        let is_whole_part_missing = !matches!(check.io.metadata(&check.dirs.queues), Ok(Some(_)));
        let severity = if is_whole_part_missing || topic_is_on_disk {
            check.at_the_end()
        } else {
            Severity::Info
        };
        let detail = format!(
            "{} records in the log and no queue: deleted, or lost",
            self.record_count
        );
        let path = check.dirs.queues.join(&self.topic);
        let path = path.join(self.queue_id.to_string());
        let kind = FindingKind::QueueMissing;
        let mut finding = Finding::new(severity, kind, Part::Queue, (path, 0), detail);
        let first = self.first.unwrap_or(0);
        finding.queue = queue_place(&self.topic, self.queue_id, first, self.next - 1);
        finding.count = self.record_count;
        check.report(&finding);
    }
}

/// Compares a record with the entry in its place.
fn compare<I: Io>(
    check: &Check<'_, I>,
    reader: &mut EntryReader<I, ENTRY_LEN>,
    extension: &mut SegmentDir<I>,
    record: &RecordFacts,
) -> Result<Option<Finding>, IoError> {
    let Ok(ordinal) = u64::try_from(record.index) else {
        return Ok(None);
    };
    let unused = |entry: &Entry| entry.size <= 0 || entry.physical_offset < 0;
    let mut entry = reader.entry(ordinal)?.map(|bytes| Entry::decode(&bytes));
    if entry.as_ref().is_none_or(unused) {
        // It may have been put since the window was read.
        entry = reader
            .entry_again(ordinal)?
            .map(|bytes| Entry::decode(&bytes));
    }
    let finding = |severity, kind, detail: String| {
        let mut finding = Finding::new(severity, kind, Part::Queue, reader.place(ordinal), detail);
        finding.len = ENTRY_LEN as u64;
        Ok(Some(finding))
    };
    let expected = record.offset.cast_signed();
    let missing = |what: &str| {
        let detail = format!("{what} where the message at {expected} should be");
        finding(check.at_the_end(), FindingKind::EntryMissing, detail)
    };
    match entry {
        None => missing("no file"),
        Some(entry) if unused(&entry) => missing("nothing"),
        Some(entry) if entry.is_filler() => missing("a filler"),
        Some(entry) if entry.physical_offset != expected => {
            let detail = format!("points at {}, not {expected}", entry.physical_offset);
            finding(Severity::Error, FindingKind::EntryOfOtherRecord, detail)
        }
        Some(entry) if i64::from(entry.size) != record.size.cast_signed() => {
            let detail = format!("says {} bytes, the record has {}", entry.size, record.size);
            finding(Severity::Error, FindingKind::EntrySize, detail)
        }
        Some(entry) if entry.tags_code == record.tags_code => Ok(None),
        Some(entry) => match entry.extension_offset() {
            None => {
                let detail = format!(
                    "tags code {}, the record's is {}",
                    entry.tags_code, record.tags_code
                );
                finding(Severity::Error, FindingKind::EntryTags, detail)
            }
            Some(at) => Ok(compare_unit(extension, at, record)?),
        },
    }
}

/// Compares a record with the extension unit that its entry names.
fn compare_unit<I: Io>(
    extension: &mut SegmentDir<I>,
    at: u64,
    record: &RecordFacts,
) -> Result<Option<Finding>, IoError> {
    let mut bytes = [0; inspect::UNIT_LEN_MIN];
    let read = extension.read(at, &mut bytes)?;
    let unit = (read == bytes.len())
        .then(|| inspect::decode_unit(&bytes))
        .flatten();
    let detail = match unit {
        Some(unit) if unit.tags_code == record.tags_code && unit.store_ms == record.store_ms => {
            return Ok(None);
        }
        Some(unit) => format!(
            "unit of tags code {} stored at {}, the record has {} and {}",
            unit.tags_code, unit.store_ms, record.tags_code, record.store_ms
        ),
        None => "no unit where the entry of the record points".to_owned(),
    };
    let place = extension.place(at);
    let kind = FindingKind::ExtensionUnit;
    let mut finding = Finding::new(Severity::Error, kind, Part::Extension, place, detail);
    finding.len = inspect::UNIT_LEN_MIN as u64;
    Ok(Some(finding))
}

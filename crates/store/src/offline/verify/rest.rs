//! The entries that no record has asked for.

use consumequeue::{ENTRY_LEN, Entry};
use mmap_core::{Io, IoError};

use super::batch::BatchCursor;
use super::queue::{Entries, Queue, Queues};
use super::{Check, queue_place};
use crate::offline::error::OfflineError;
use crate::offline::files::SegmentDir;
use crate::offline::finding::{Finding, FindingKind, Part, Severity};
use crate::offline::log::{LogReader, Look};
use crate::offline::queue_files::EntryReader;
use consumequeue::{BATCH_ENTRY_LEN, BatchEntry};

/// An entry of either kind, for what is asked of both.
#[derive(Debug, Clone, Copy)]
struct Pointer {
    index: i64,
    physical_offset: i64,
}

impl<I: Io> Check<'_, I> {
    /// Looks at the entries that the pass over the log has not met.
    pub(super) fn check_rest_of_queues(
        &mut self,
        queues: &mut Queues<I>,
    ) -> Result<(), OfflineError> {
        let files = SegmentDir::list(self.io, &self.dirs.log, self.report.shape.segment_len)?;
        let mut log = LogReader::new(files);
        let total = queues.list.len() as u64;
        for (done, queue) in (0..).zip(&mut queues.list) {
            self.progress("consume queues", done, total);
            let mut rest = Rest::new(queue);
            let part = queue.part();
            let outcome = match &mut queue.entries {
                Entries::None => continue,
                Entries::Simple { reader, .. } => {
                    let outcome = rest.simple(self, reader, &mut log);
                    reader.release();
                    outcome
                }
                Entries::Batch(cursor) => {
                    let outcome = rest.batch(self, cursor, &mut log);
                    cursor.reader.release();
                    outcome
                }
            };
            rest.end_run(self);
            queue.entries_end = rest.end;
            if let Err(error) = outcome {
                self.unreadable(part, &error);
            }
        }
        self.progress("consume queues", total, total);
        Ok(())
    }
}

/// One queue's rest.
struct Rest {
    topic: String,
    queue_id: i32,
    part: Part,
    entry_len: u64,
    /// Places that records have asked for: from, to, and the holes between.
    visited: Option<(i64, i64)>,
    gaps: Vec<(i64, i64)>,
    end: i64,
    run: Option<Finding>,
}

impl Rest {
    fn new<I: Io>(queue: &mut Queue<I>) -> Self {
        let entry_len = match queue.entries {
            Entries::Batch(_) => BATCH_ENTRY_LEN,
            _ => ENTRY_LEN,
        };
        Self {
            topic: queue.topic.clone(),
            queue_id: queue.queue_id,
            part: queue.part(),
            entry_len: entry_len as u64,
            visited: queue.first.map(|first| (first, queue.next)),
            gaps: std::mem::take(&mut queue.gaps),
            end: queue.next,
            run: None,
        }
    }

    fn simple<I: Io>(
        &mut self,
        check: &mut Check<'_, I>,
        reader: &mut EntryReader<I, ENTRY_LEN>,
        log: &mut LogReader<I>,
    ) -> Result<(), IoError> {
        let first = reader.first().cast_signed();
        let last = reader.end().cast_signed();
        let (from, next) = self.visited.unwrap_or((last, first));
        let mut ranges = vec![(first, from.min(last))];
        // A damaged record may say that it is the message of any place.
        let held = |&(start, end): &(i64, i64)| (start.max(first), end.min(last));
        ranges.extend(self.gaps.iter().map(held));
        if self.visited.is_some() {
            ranges.push((next.max(first), last));
        }
        for (start, end) in ranges {
            for index in start..end {
                let bytes = reader.entry(index.unsigned_abs())?;
                let entry = bytes.map(|bytes| Entry::decode(&bytes));
                let Some(entry) =
                    entry.filter(|entry| entry.size > 0 && entry.physical_offset >= 0)
                else {
                    // Behind the last record, the first place that is not in use is the end.
                    if index >= next {
                        break;
                    }
                    continue;
                };
                self.end = self.end.max(index + 1);
                if entry.is_filler() {
                    continue;
                }
                let pointer = Pointer {
                    index,
                    physical_offset: entry.physical_offset,
                };
                let neighbours = [index - 1, index + 1];
                let place = reader.place(index.unsigned_abs());
                if let Some(finding) = self.judge(check, &pointer, place, log)?
                    && !repeats(reader, &pointer, neighbours)?
                {
                    self.add(check, finding);
                }
            }
        }
        Ok(())
    }

    fn batch<I: Io>(
        &mut self,
        check: &mut Check<'_, I>,
        cursor: &mut BatchCursor<I>,
        log: &mut LogReader<I>,
    ) -> Result<(), IoError> {
        let mut ranges = std::mem::take(&mut cursor.passed_over);
        ranges.push((cursor.next, cursor.reader.end()));
        for (start, end) in ranges {
            for ordinal in start..end {
                let Some(entry) = cursor.entry(ordinal)? else {
                    break;
                };
                let BatchEntry {
                    base,
                    count,
                    physical_offset,
                    ..
                } = entry;
                self.end = self.end.max(base.saturating_add(i64::from(count)));
                let pointer = Pointer {
                    index: base,
                    physical_offset,
                };
                let place = cursor.reader.place(ordinal);
                if let Some(finding) = self.judge(check, &pointer, place, log)? {
                    self.add(check, finding);
                }
            }
        }
        Ok(())
    }

    /// What is wrong with an entry that no record asked for.
    fn judge<I: Io>(
        &self,
        check: &Check<'_, I>,
        pointer: &Pointer,
        place: (std::path::PathBuf, u64),
        log: &mut LogReader<I>,
    ) -> Result<Option<Finding>, IoError> {
        let offset = pointer.physical_offset.cast_unsigned();
        let summary = &check.report.log;
        if offset < summary.min {
            // Expired.
            return Ok(None);
        }
        let (severity, kind, detail) = if offset >= summary.end {
            if check.is_live {
                return Ok(None);
            }
            let detail = format!("points at {offset}, the log ends at {}", summary.end);
            (check.at_the_end(), FindingKind::EntryBehindEnd, detail)
        } else {
            let there = match log.look_at(offset)? {
                Look::Record { .. } => match log.record(offset)? {
                    Some(view) => format!(
                        "the record of {}/{} [{}]",
                        view.topic(),
                        view.queue_id(),
                        view.queue_offset()
                    ),
                    None => "no record".to_owned(),
                },
                Look::Invalid(reason) => format!("no record: {reason}"),
                Look::Unwritten => "zeros".to_owned(),
                Look::Blank { .. } | Look::SegmentEnd => "padding".to_owned(),
            };
            let detail = format!("points at {offset}, where {there} is");
            (Severity::Error, FindingKind::EntryWithoutRecord, detail)
        };
        let mut finding = Finding::new(severity, kind, self.part, place, detail);
        finding.len = self.entry_len;
        finding.log_offset = Some(offset);
        finding.queue = queue_place(&self.topic, self.queue_id, pointer.index, pointer.index);
        Ok(Some(finding))
    }

    fn add<I: Io>(&mut self, check: &mut Check<'_, I>, finding: Finding) {
        if let (Some(run), Some(place)) = (&mut self.run, &finding.queue)
            && let Some(so_far) = &mut run.queue
            && (run.kind, run.severity) == (finding.kind, finding.severity)
            && so_far.last + 1 == place.first
        {
            so_far.last = place.last;
            run.count += 1;
            run.len += finding.len;
            return;
        }
        self.end_run(check);
        self.run = Some(finding);
    }

    fn end_run<I: Io>(&mut self, check: &mut Check<'_, I>) {
        if let Some(run) = self.run.take() {
            check.report(&run);
        }
    }
}

/// Whether an entry is its neighbour's: recovery leaves such in the place of a lost message.
fn repeats<I: Io>(
    reader: &mut EntryReader<I, ENTRY_LEN>,
    pointer: &Pointer,
    neighbours: [i64; 2],
) -> Result<bool, IoError> {
    for index in neighbours {
        let Ok(ordinal) = u64::try_from(index) else {
            continue;
        };
        if let Some(bytes) = reader.entry(ordinal)?
            && Entry::decode(&bytes).physical_offset == pointer.physical_offset
        {
            return Ok(true);
        }
    }
    Ok(false)
}

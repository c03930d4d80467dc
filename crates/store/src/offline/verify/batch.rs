//! A batch queue during the pass over the log: its entries are in the order of the log, one a
//! record.

use mmap_core::{Io, IoError};

use super::Check;
use crate::offline::facts::RecordFacts;
use crate::offline::finding::{Finding, FindingKind, Part, Severity};
use crate::offline::queue_files::EntryReader;
use consumequeue::{BATCH_ENTRY_LEN, BatchEntry};

/// Entries looked at to find a record's: one that is damaged must not hide those behind it.
const LOOK_AHEAD: u64 = 64;

/// The entry that belongs to the next record.
#[derive(Debug)]
pub(super) struct BatchCursor<I: Io> {
    pub(super) reader: EntryReader<I, BATCH_ENTRY_LEN>,
    /// The next entry.
    pub(super) next: u64,
    /// Entries that were passed over because no record has them.
    pub(super) passed_over: Vec<(u64, u64)>,
}

impl<I: Io> BatchCursor<I> {
    pub(super) fn new(reader: EntryReader<I, BATCH_ENTRY_LEN>) -> Self {
        Self {
            next: reader.first(),
            reader,
            passed_over: Vec::new(),
        }
    }

    pub(super) fn begin_anew(&mut self) {
        self.next = self.reader.first();
        self.passed_over.clear();
    }

    /// The entry of an ordinal; `None` where none is in use.
    pub(super) fn entry(&mut self, ordinal: u64) -> Result<Option<BatchEntry>, IoError> {
        let bytes = self.reader.entry(ordinal)?;
        Ok(bytes
            .map(|bytes| BatchEntry::decode(&bytes))
            .filter(BatchEntry::is_used))
    }

    /// Compares a record with the entry that it should have.
    pub(super) fn compare(
        &mut self,
        check: &Check<'_, I>,
        record: &RecordFacts,
    ) -> Result<Option<Finding>, IoError> {
        let Some((ordinal, entry)) = self.find(record)? else {
            let place = self.reader.place(self.next);
            let detail = format!("no entry of the record at {}", record.offset);
            return Ok(Some(finding(
                check.at_the_end(),
                FindingKind::EntryMissing,
                place,
                detail,
            )));
        };
        if ordinal > self.next {
            self.passed_over.push((self.next, ordinal));
        }
        self.next = ordinal + 1;
        let says = (
            i64::from(entry.size),
            entry.tags_code,
            entry.store_timestamp_ms,
            entry.base,
            i64::from(entry.count),
        );
        let is = (
            record.size.cast_signed(),
            record.tags_code,
            record.store_ms,
            record.index,
            record.count,
        );
        if says == is {
            return Ok(None);
        }
        let detail = format!(
            "size, tags code, store time, queue offset, count are {says:?}, the record's {is:?}"
        );
        let place = self.reader.place(ordinal);
        Ok(Some(finding(
            Severity::Error,
            FindingKind::BatchEntry,
            place,
            detail,
        )))
    }

    /// The entry of the record, among the next ones.
    fn find(&mut self, record: &RecordFacts) -> Result<Option<(u64, BatchEntry)>, IoError> {
        let expected = record.offset.cast_signed();
        let mut ordinal = self.next;
        while ordinal < self.reader.end() {
            let Some(entry) = self.entry(ordinal)? else {
                // Damage, or the end.
                if ordinal >= self.next + LOOK_AHEAD {
                    break;
                }
                ordinal += 1;
                continue;
            };
            if entry.physical_offset == expected {
                return Ok(Some((ordinal, entry)));
            }
            // Those of messages that have expired come first, however many they are.
            if entry.physical_offset > expected && ordinal >= self.next + LOOK_AHEAD {
                break;
            }
            ordinal += 1;
        }
        Ok(None)
    }
}

fn finding(
    severity: Severity,
    kind: FindingKind,
    place: (std::path::PathBuf, u64),
    detail: String,
) -> Finding {
    let mut finding = Finding::new(severity, kind, Part::BatchQueue, place, detail);
    finding.len = BATCH_ENTRY_LEN as u64;
    finding
}

//! The index: each file in itself, then each entry against its record and each key against its
//! entry.
//!
//! Entries stand in the order of the log, so that one pass over both compares them. An entry that
//! is damaged is recognised by the entries behind it.

use std::collections::VecDeque;
use std::path::PathBuf;

use indexfile::{
    ENTRY_LEN, FIRST_ENTRY, HEADER_LEN, IndexEntry, IndexHeader, IndexLayout, SLOT_LEN,
    is_index_name, key_hash,
};
use message::{RecordView, Transaction};
use mmap_core::{Access, FileKind, Io, IoError, IoFile};

use super::Check;
use crate::offline::error::OfflineError;
use crate::offline::files::list_or_nothing;
use crate::offline::finding::{Finding, FindingKind, Part, Severity};

/// Entries read at a time.
const CHUNK_COUNT: u32 = 16 * 1024;
/// Entries looked at to find those of a record, behind one that is damaged.
const LOOK_AHEAD: usize = 64;

/// The index during the pass over the log.
#[derive(Debug)]
pub(super) struct IndexCheck<I: Io> {
    io: I,
    layout: IndexLayout,
    /// Oldest first.
    files: Vec<CheckedFile>,
    /// The next entries, in order.
    ahead: VecDeque<Placed>,
    /// Where those behind them are read from: file and ordinal.
    next: (usize, u32),
    is_enabled: bool,
    /// Ranges of the log that hold no records for reasons that are told elsewhere.
    skipped: (u64, u64),
    missing: Option<Finding>,
    stray: Option<Finding>,
    entry_count: u64,
    key_count: u64,
}

#[derive(Debug)]
struct CheckedFile {
    path: PathBuf,
    header: IndexHeader,
    /// Whether the header's begin time is the first record's, as far as is known.
    is_begin_right: bool,
}

/// An entry and where it stands.
#[derive(Debug, Clone, Copy)]
struct Placed {
    file: usize,
    ordinal: u32,
    entry: IndexEntry,
}

impl<I: Io> IndexCheck<I> {
    /// Lists the files and checks each in itself.
    pub(super) fn open(check: &mut Check<'_, I>) -> Result<Self, OfflineError> {
        let mut index = Self {
            io: check.io.clone(),
            layout: check.report.shape.index_layout(),
            files: Vec::new(),
            ahead: VecDeque::new(),
            next: (0, FIRST_ENTRY),
            is_enabled: check.options.index.is_some(),
            skipped: (0, 0),
            missing: None,
            stray: None,
            entry_count: 0,
            key_count: 0,
        };
        if !index.is_enabled {
            return Ok(index);
        }
        let dir = check.dirs.index.clone();
        let listed = list_or_nothing(check.io, &dir)?;
        let total = listed.len() as u64;
        for (done, entry) in (0..).zip(&listed) {
            check.progress("index files", done, total);
            let path = dir.join(&entry.name);
            if entry.kind != FileKind::File {
                continue;
            }
            if !entry.name.to_str().is_some_and(is_index_name) {
                let kind = FindingKind::ForeignFile;
                let detail = "no name of an index file; RocketMQ passes over it";
                let place = (path, 0);
                check.report(&Finding::new(
                    Severity::Info,
                    kind,
                    Part::Index,
                    place,
                    detail,
                ));
                continue;
            }
            if entry.len != index.layout.file_len() {
                index.report_length(check, path, entry.len);
                continue;
            }
            let is_last = done + 1 == total;
            match index.check_file(check, &path, is_last) {
                Ok(header) => index.files.push(CheckedFile {
                    path,
                    header,
                    is_begin_right: true,
                }),
                Err(error) if error.is_not_found() => {}
                Err(error) => check.unreadable(Part::Index, &error),
            }
        }
        check.report.index_file_count = index.files.len() as u64;
        Ok(index)
    }

    /// Compares the keys of a record with its entries.
    pub(super) fn check(&mut self, check: &mut Check<'_, I>, view: &RecordView<'_>) {
        if !self.is_enabled || view.sys_flag().transaction() == Transaction::Rollback {
            return;
        }
        let fields = view.dispatch_fields();
        let mut expected: Vec<(i32, &str)> = fields
            .index_keys()
            .map(|key| (key_hash(view.topic(), key), key))
            .collect();
        self.key_count += expected.len() as u64;
        if self.files.is_empty() {
            if let Some((_, key)) = expected.first() {
                let count = expected.len() as u64;
                self.add_missing(check, view, key, count);
            }
            return;
        }
        let found = match self.take_entries(check, view.physical_offset()) {
            Ok(found) => found,
            Err(error) => {
                self.is_enabled = false;
                return check.unreadable(Part::Index, &error);
            }
        };
        for placed in &found {
            self.entry_count += 1;
            self.check_entry(check, placed, view, &expected);
        }
        expected.retain(|(hash, _)| !found.iter().any(|placed| placed.entry.key_hash == *hash));
        match expected.first() {
            Some((_, key)) => {
                let count = expected.len() as u64;
                self.add_missing(check, view, key, count);
            }
            None if fields.index_keys().next().is_some() => end_run(check, &mut self.missing),
            None => {}
        }
    }

    /// A range of the log holds no records, which is told elsewhere.
    pub(super) fn skip(&mut self, from: u64, to: u64) {
        self.skipped = (from, to);
    }

    /// Looks at the entries behind the last record.
    pub(super) fn finish(&mut self, check: &mut Check<'_, I>) {
        while self.is_enabled {
            match self.peek(0) {
                Ok(Some(placed)) => {
                    self.ahead.pop_front();
                    self.stray(check, &placed);
                }
                Ok(None) => break,
                Err(error) => {
                    check.unreadable(Part::Index, &error);
                    break;
                }
            }
        }
        if let Some(finding) = self.missing.take() {
            check.report_missing(finding);
        }
        end_run(check, &mut self.stray);
        check.report.index_entry_count = self.entry_count;
        check.report.key_count = self.key_count;
    }

    /// The entries of the record at an offset. Those before them belong to no record.
    fn take_entries(
        &mut self,
        check: &mut Check<'_, I>,
        offset: i64,
    ) -> Result<Vec<Placed>, IoError> {
        let mut found = Vec::new();
        while let Some(front) = self.peek(0)? {
            if front.entry.physical_offset == offset {
                self.ahead.pop_front();
                found.push(front);
                continue;
            }
            let is_behind = front.entry.physical_offset < offset;
            if !is_behind && !self.is_ahead(offset)? {
                break;
            }
            self.ahead.pop_front();
            self.stray(check, &front);
        }
        Ok(found)
    }

    /// Whether one of the next entries is of the record at an offset.
    fn is_ahead(&mut self, offset: i64) -> Result<bool, IoError> {
        // Reading ahead so far makes them all there.
        self.peek(LOOK_AHEAD)?;
        let mut next = self.ahead.iter().take(LOOK_AHEAD);
        Ok(next.any(|placed| placed.entry.physical_offset == offset))
    }

    fn check_entry(
        &mut self,
        check: &mut Check<'_, I>,
        placed: &Placed,
        view: &RecordView<'_>,
        expected: &[(i32, &str)],
    ) {
        let header = self.header(placed.file);
        let store_ms = view.store_timestamp_ms();
        let log_offset = view.physical_offset().cast_unsigned();
        let path = self.files.get(placed.file).map(|file| file.path.clone());
        let place = (
            path.unwrap_or_default(),
            self.layout.entry_position(placed.ordinal) as u64,
        );
        let mut report = |kind, severity, detail: String| {
            let mut finding = Finding::new(severity, kind, Part::Index, place.clone(), detail);
            finding.len = ENTRY_LEN as u64;
            finding.log_offset = Some(log_offset);
            check.report(&finding);
        };
        let hash = placed.entry.key_hash;
        if !expected.iter().any(|(expected, _)| *expected == hash) {
            let detail = format!("the record at {log_offset} has no key of hash {hash}");
            report(FindingKind::IndexEntryWrongKey, Severity::Error, detail);
        }
        let is_first = placed.ordinal == FIRST_ENTRY;
        let is_last = placed.ordinal + 1 == header.next_entry;
        let seconds = seconds_since(header.begin_timestamp_ms, store_ms);
        // The first entry counts from the end of the file before; and if the header's begin is
        // wrong, that is told once.
        let is_begin_right = self
            .files
            .get(placed.file)
            .is_some_and(|file| file.is_begin_right);
        if !is_first && is_begin_right && placed.entry.seconds_since_begin != seconds {
            let detail = format!(
                "stored {} s after the file's first, the record {seconds} s",
                placed.entry.seconds_since_begin
            );
            report(FindingKind::IndexEntryTime, Severity::Error, detail);
        }
        if is_first && header.begin_timestamp_ms != store_ms {
            if let Some(file) = self.files.get_mut(placed.file) {
                file.is_begin_right = false;
            }
            self.report_time(
                check,
                placed,
                (0, "begin"),
                header.begin_timestamp_ms,
                store_ms,
            );
        }
        // A file that recovery cut ends with the last second, in full: entries know no more.
        let cut_end_ms = header
            .begin_timestamp_ms
            .saturating_add(i64::from(seconds) * 1000 + 999);
        if is_last && ![store_ms, cut_end_ms].contains(&header.end_timestamp_ms) {
            self.report_time(check, placed, (8, "end"), header.end_timestamp_ms, store_ms);
        }
    }

    fn report_time(
        &self,
        check: &mut Check<'_, I>,
        placed: &Placed,
        (position, name): (u64, &str),
        says_ms: i64,
        is_ms: i64,
    ) {
        let detail = format!("the {name} time is {says_ms}, the record's is {is_ms}");
        let kind = FindingKind::IndexHeader;
        let mut finding = self.finding(Severity::Error, kind, placed, detail);
        (finding.position, finding.len) = (position, 8);
        check.report(&finding);
    }

    /// An entry that no record has.
    fn stray(&mut self, check: &mut Check<'_, I>, placed: &Placed) {
        let log = check.report.log;
        let Ok(offset) = u64::try_from(placed.entry.physical_offset) else {
            let detail = format!("log offset {}", placed.entry.physical_offset);
            return self.add_stray(
                check,
                placed,
                Severity::Error,
                FindingKind::IndexEntryWithoutRecord,
                detail,
            );
        };
        let is_told = (self.skipped.0..self.skipped.1).contains(&offset);
        // Expired, or in flight.
        if offset < log.min || is_told || (check.is_live && offset >= log.end) {
            return;
        }
        self.entry_count += 1;
        if offset >= log.end {
            let detail = format!("points at {offset}, the log ends at {}", log.end);
            let kind = FindingKind::IndexEntryBehindEnd;
            self.add_stray(check, placed, Severity::Warning, kind, detail);
        } else {
            let detail = format!("points at {offset}, where no record with such a key is");
            let kind = FindingKind::IndexEntryWithoutRecord;
            self.add_stray(check, placed, Severity::Warning, kind, detail);
        }
    }

    fn add_stray(
        &mut self,
        check: &mut Check<'_, I>,
        placed: &Placed,
        severity: Severity,
        kind: FindingKind,
        detail: String,
    ) {
        let finding = self.finding(severity, kind, placed, detail);
        if let Some(run) = &mut self.stray
            && (run.kind, &run.path) == (finding.kind, &finding.path)
            && run.position + run.len == finding.position
        {
            run.count += 1;
            run.len += finding.len;
            return;
        }
        end_run(check, &mut self.stray);
        self.stray = Some(finding);
    }

    fn add_missing(
        &mut self,
        check: &mut Check<'_, I>,
        view: &RecordView<'_>,
        key: &str,
        count: u64,
    ) {
        let offset = view.physical_offset().cast_unsigned();
        if let Some(run) = &mut self.missing {
            run.count += count;
            run.len = offset + view.total_size() as u64 - run.log_offset.unwrap_or(offset);
            return;
        }
        let severity = if self.files.is_empty() {
            Severity::Warning
        } else {
            check.at_the_end()
        };
        let segment_len = check.report.shape.segment_len;
        let position = offset % segment_len;
        let base = segment_queue::segment_name(offset - position);
        let detail =
            format!("no entry of key {key:?} of the record at {offset} and of those that follow");
        let place = (check.dirs.log.join(base), position);
        let kind = FindingKind::KeyMissing;
        let mut finding = Finding::new(severity, kind, Part::Index, place, detail);
        finding.count = count;
        finding.len = view.total_size() as u64;
        finding.log_offset = Some(offset);
        self.missing = Some(finding);
    }

    /// The entry `distance` behind the next one.
    fn peek(&mut self, distance: usize) -> Result<Option<Placed>, IoError> {
        while self.ahead.len() <= distance && self.read_ahead()? {}
        Ok(self.ahead.get(distance).copied())
    }

    /// Reads more entries; `false` when there are none.
    fn read_ahead(&mut self) -> Result<bool, IoError> {
        let (place, ordinal) = self.next;
        let Some(file) = self.files.get(place) else {
            return Ok(false);
        };
        if ordinal >= file.header.next_entry.min(self.layout.entry_count_max) {
            self.next = (place + 1, FIRST_ENTRY);
            return Ok(place + 1 < self.files.len());
        }
        let end = file.header.next_entry.min(self.layout.entry_count_max);
        let count = CHUNK_COUNT.min(end - ordinal);
        let mut bytes = vec![0; count as usize * ENTRY_LEN];
        let position = self.layout.entry_position(ordinal) as u64;
        let handle = self.io.open(&file.path, Access::ReadOnly)?;
        handle.read_exact_at(&mut bytes, position)?;
        let (entries, _) = bytes.as_chunks();
        self.ahead
            .extend((ordinal..).zip(entries).map(|(ordinal, bytes)| Placed {
                file: place,
                ordinal,
                entry: IndexEntry::decode(bytes),
            }));
        self.next = (place, ordinal + count);
        Ok(true)
    }

    fn header(&self, file: usize) -> IndexHeader {
        self.files
            .get(file)
            .map_or_else(IndexHeader::default, |file| file.header)
    }

    fn finding(
        &self,
        severity: Severity,
        kind: FindingKind,
        placed: &Placed,
        detail: String,
    ) -> Finding {
        let path = self.files.get(placed.file).map(|file| file.path.clone());
        let position = self.layout.entry_position(placed.ordinal) as u64;
        let place = (path.unwrap_or_default(), position);
        let mut finding = Finding::new(severity, kind, Part::Index, place, detail);
        finding.len = ENTRY_LEN as u64;
        finding
    }

    fn report_length(&self, check: &mut Check<'_, I>, path: PathBuf, len: u64) {
        let expected = self.layout.file_len();
        let severity = if len == 0 {
            Severity::Info
        } else {
            Severity::Error
        };
        let detail = format!(
            "{len} bytes where {expected} are expected ({} slots, {} entries)",
            self.layout.slot_count, self.layout.entry_count_max
        );
        let kind = FindingKind::FileLength;
        let mut finding = Finding::new(severity, kind, Part::Index, (path, len), detail);
        finding.len = expected.abs_diff(len);
        check.report(&finding);
    }

    /// Checks the chains and the header of one file, and returns the header.
    fn check_file(
        &self,
        check: &mut Check<'_, I>,
        path: &std::path::Path,
        is_last: bool,
    ) -> Result<IndexHeader, IoError> {
        let handle = self.io.open(path, Access::ReadOnly)?;
        let mut bytes = [0; HEADER_LEN];
        handle.read_exact_at(&mut bytes, 0)?;
        let header = IndexHeader::decode(&bytes);
        let mut chains = Chains {
            layout: self.layout,
            path,
            newest: vec![0; self.layout.slot_count as usize],
            used_slot_count: 0,
            next_entry: header.next_entry.min(self.layout.entry_count_max),
            is_growing: check.is_live && is_last,
        };
        if header.next_entry > self.layout.entry_count_max {
            let detail = format!(
                "the next entry is {}, the file has {}",
                header.next_entry, self.layout.entry_count_max
            );
            chains.report(check, FindingKind::IndexHeader, 36, 4, detail);
        }
        let ends = chains.follow(check, &handle)?;
        chains.check_slots(check, &handle)?;
        if !chains.is_growing {
            chains.check_header(check, &header, ends);
        }
        Ok(header)
    }
}

/// The chains of one file, built from its entries.
struct Chains<'a> {
    layout: IndexLayout,
    path: &'a std::path::Path,
    /// Newest entry of each slot.
    newest: Vec<u32>,
    used_slot_count: u32,
    next_entry: u32,
    is_growing: bool,
}

impl Chains<'_> {
    /// Goes over the entries; returns the log offsets of the first and the last.
    fn follow<I: Io, F: IoFile>(
        &mut self,
        check: &mut Check<'_, I>,
        file: &F,
    ) -> Result<Option<(i64, i64)>, IoError> {
        let mut ends = None;
        let mut ordinal = FIRST_ENTRY;
        while ordinal < self.next_entry {
            let count = CHUNK_COUNT.min(self.next_entry - ordinal);
            let mut bytes = vec![0; count as usize * ENTRY_LEN];
            file.read_exact_at(&mut bytes, self.layout.entry_position(ordinal) as u64)?;
            let (entries, _) = bytes.as_chunks();
            for bytes in entries {
                let entry = IndexEntry::decode(bytes);
                let first = ends.map_or(entry.physical_offset, |(first, _)| first);
                ends = Some((first, entry.physical_offset));
                self.link(check, ordinal, &entry);
                ordinal += 1;
            }
        }
        Ok(ends)
    }

    /// An entry must name the one that its slot had before.
    fn link<I: Io>(&mut self, check: &mut Check<'_, I>, ordinal: u32, entry: &IndexEntry) {
        let position = self.layout.entry_position(ordinal) as u64;
        if entry.key_hash < 0 || entry.seconds_since_begin < 0 {
            let detail = format!(
                "entry {ordinal} has hash {} and {} s: neither is ever negative",
                entry.key_hash, entry.seconds_since_begin
            );
            self.report(
                check,
                FindingKind::IndexChain,
                position,
                ENTRY_LEN as u64,
                detail,
            );
            return;
        }
        let slot = self.layout.slot_of(entry.key_hash) as usize;
        let Some(newest) = self.newest.get_mut(slot) else {
            return;
        };
        let before = std::mem::replace(newest, ordinal);
        self.used_slot_count += u32::from(before == 0);
        if i64::from(entry.previous) != i64::from(before) {
            let detail = format!(
                "entry {ordinal} of slot {slot} goes on at {}, the slot's entry before it is \
                 {before}",
                entry.previous
            );
            self.report(
                check,
                FindingKind::IndexChain,
                position,
                ENTRY_LEN as u64,
                detail,
            );
        }
    }

    fn check_slots<I: Io, F: IoFile>(
        &self,
        check: &mut Check<'_, I>,
        file: &F,
    ) -> Result<(), IoError> {
        let mut position = self.layout.slot_position(0) as u64;
        let mut slot = 0_usize;
        for chunk in self.newest.chunks(CHUNK_COUNT as usize) {
            let mut bytes = vec![0; chunk.len() * SLOT_LEN];
            file.read_exact_at(&mut bytes, position)?;
            let (found, _) = bytes.as_chunks();
            for (newest, found) in chunk.iter().zip(found) {
                let found = i32::from_be_bytes(*found);
                // A slot may be ahead of the header that was read before it.
                let is_newer = self.is_growing && i64::from(found) >= i64::from(self.next_entry);
                if i64::from(found) != i64::from(*newest) && !is_newer {
                    let detail = format!("slot {slot} is {found}, its newest entry is {newest}");
                    self.report(
                        check,
                        FindingKind::IndexChain,
                        position,
                        SLOT_LEN as u64,
                        detail,
                    );
                }
                position += SLOT_LEN as u64;
                slot += 1;
            }
        }
        Ok(())
    }

    fn check_header<I: Io>(
        &self,
        check: &mut Check<'_, I>,
        header: &IndexHeader,
        ends: Option<(i64, i64)>,
    ) {
        let Some((first, last)) = ends else {
            return;
        };
        let fields = [
            ("begin offset", 16, header.begin_physical_offset, first),
            ("end offset", 24, header.end_physical_offset, last),
            (
                "count of used slots",
                32,
                i64::from(header.used_slot_count),
                i64::from(self.used_slot_count),
            ),
        ];
        for (name, position, says, is) in fields {
            if says != is {
                let detail = format!("the {name} is {says}, by the entries it is {is}");
                self.report(check, FindingKind::IndexHeader, position, 8, detail);
            }
        }
    }

    fn report<I: Io>(
        &self,
        check: &mut Check<'_, I>,
        kind: FindingKind,
        position: u64,
        len: u64,
        detail: String,
    ) {
        let place = (self.path.to_owned(), position);
        let mut finding = Finding::new(Severity::Error, kind, Part::Index, place, detail);
        finding.len = len;
        check.report(&finding);
    }
}

fn end_run<I: Io>(check: &mut Check<'_, I>, run: &mut Option<Finding>) {
    if let Some(run) = run.take() {
        check.report(&run);
    }
}

/// What an entry keeps of a store time (RocketMQ 5.3.3 `IndexFile.putKey`).
fn seconds_since(begin_ms: i64, store_ms: i64) -> i32 {
    if begin_ms <= 0 {
        return 0;
    }
    let seconds = store_ms.saturating_sub(begin_ms) / 1000;
    i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
}

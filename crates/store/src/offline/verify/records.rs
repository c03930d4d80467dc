//! The pass over the log.

use message::{RecordError, RecordView};
use mmap_core::{Io, IoError};

use super::index::IndexCheck;
use super::queue::{Entries, Queues};
use super::{Check, queue_place};
use crate::offline::error::OfflineError;
use crate::offline::facts::{RecordFacts, level_delays_ms};
use crate::offline::files::SegmentDir;
use crate::offline::finding::{Finding, FindingKind, Part, Severity};
use crate::offline::log::{LogEnd, LogStep, LogWalk};
use crate::place::light_places;

/// Bytes of the log between two words about progress.
const PROGRESS_LEN: u64 = 1 << 20;

/// Things that are counted and told once.
#[derive(Debug, Default)]
struct Sums {
    times_back: u64,
    first_time_back: u64,
    filler_count: u64,
    filler_len: u64,
    first_filler: u64,
    told_progress: u64,
}

impl<I: Io> Check<'_, I> {
    /// Walks over the log and compares each record with its entry and its keys.
    pub(super) fn check_records(
        &mut self,
        log: SegmentDir<I>,
        queues: &mut Queues<I>,
        index: &mut IndexCheck<I>,
    ) -> Result<(), OfflineError> {
        let delays_ms = level_delays_ms(&self.options.delay_levels);
        let (min, files_end) = (log.min(), log.end());
        self.report.log.min = min;
        self.report.log.file_count = log.files().len() as u64;
        let mut walk = LogWalk::over(log);
        let mut sums = Sums::default();
        let (end, why) = loop {
            let last_store_ms = walk.last_store_ms();
            match walk.step() {
                LogStep::Record { offset, len } => {
                    if offset - sums.told_progress.max(min) >= PROGRESS_LEN {
                        sums.told_progress = offset;
                        self.progress("log", offset - min, files_end - min);
                    }
                    let Ok(Some(view)) = walk.reader.record(offset) else {
                        continue;
                    };
                    if self.is_too_new(&view) {
                        break (offset, None);
                    }
                    if is_stale(queues, &view, last_store_ms) {
                        break (offset, Some(LogEnd::Invalid(String::new())));
                    }
                    self.check_record(&view, last_store_ms, &mut sums);
                    self.check_entries(&view, queues, &delays_ms);
                    index.check(self, &view);
                    self.report.log.end = offset + len;
                }
                LogStep::Blank { offset, size, left } => {
                    self.check_blank(&walk, (offset, u64::from(size), left));
                }
                LogStep::Damage {
                    offset,
                    len,
                    reason,
                } => {
                    self.report.log.damaged_len += len;
                    index.skip(offset, offset + len);
                    let kind = FindingKind::LogDamage;
                    self.log_finding(&walk, Severity::Error, kind, (offset, len), reason);
                }
                LogStep::Gap { offset, len } => index.skip(offset, offset + len),
                LogStep::Unreadable { offset, len, error } => {
                    index.skip(offset, offset + len);
                    self.unreadable_log(&walk, (offset, len), &error);
                }
                LogStep::End { offset, end } => break (offset, Some(end)),
            }
        };
        self.report.log.end = self.report.log.end.max(end.min(files_end));
        self.tell(&walk, &sums);
        self.check_tail(&mut walk, end, why);
        let topics_on_disk: Vec<bool> = queues
            .list
            .iter()
            .map(|queue| queues.has_files(&queue.topic))
            .collect();
        for (queue, topic_is_on_disk) in queues.list.iter_mut().zip(topics_on_disk) {
            queue.finish(self, topic_is_on_disk);
        }
        self.progress("log", files_end - min, files_end - min);
        Ok(())
    }

    fn unreadable_log(&mut self, walk: &LogWalk<I>, place: (u64, u64), error: &IoError) {
        let detail = error.to_string();
        let kind = FindingKind::Unreadable;
        self.log_finding(walk, Severity::Error, kind, place, detail);
    }

    fn is_too_new(&self, view: &RecordView<'_>) -> bool {
        let until = self.report.compared_until_ms;
        until.is_some_and(|until_ms| view.store_timestamp_ms() > until_ms)
    }

    fn check_record(&mut self, view: &RecordView<'_>, last_store_ms: i64, sums: &mut Sums) {
        let offset = view.physical_offset().cast_unsigned();
        let store_ms = view.store_timestamp_ms();
        let log = &mut self.report.log;
        if log.record_count == 0 {
            log.first_store_ms = store_ms;
        }
        log.record_count += 1;
        log.last_store_ms = log.last_store_ms.max(store_ms);
        if store_ms < last_store_ms {
            if sums.times_back == 0 {
                sums.first_time_back = offset;
            }
            sums.times_back += 1;
        }
        if commitlog::is_filler(view) {
            if sums.filler_count == 0 {
                sums.first_filler = offset;
            }
            sums.filler_count += 1;
            sums.filler_len += view.total_size() as u64;
        }
        if let Err(error @ RecordError::CrcProperty { .. }) = view.verify_crc_property() {
            let position = offset % self.report.shape.segment_len;
            let path = self
                .dirs
                .log
                .join(segment_queue::segment_name(offset - position));
            let mut finding = Finding::new(
                Severity::Error,
                FindingKind::RecordCrcProperty,
                Part::Log,
                (path, position),
                error.to_string(),
            );
            finding.len = view.total_size() as u64;
            finding.log_offset = Some(offset);
            finding.queue = queue_place(
                view.topic(),
                view.queue_id(),
                view.queue_offset(),
                view.queue_offset(),
            );
            self.report(&finding);
        }
    }

    /// The record's entry in its queue, and those in the light queues that it is in as well.
    fn check_entries(&mut self, view: &RecordView<'_>, queues: &mut Queues<I>, delays_ms: &[i64]) {
        if !view.sys_flag().transaction().takes_queue_offset() {
            return;
        }
        let fields = view.dispatch_fields();
        let mut facts = RecordFacts::new(view, &fields, delays_ms);
        let place = queues.find_or_add(view.topic(), view.queue_id());
        if let Some(queue) = queues.list.get_mut(place) {
            if matches!(queue.entries, Entries::Batch(_)) {
                facts = facts.in_batch_queue(view, &fields);
            }
            queue.check(self, &facts);
        }
        for place in light_places(view, &fields) {
            // Without its files the switch for them was off.
            if let Some(queue) = queues
                .find(place.topic, place.queue_id)
                .and_then(|place| queues.list.get_mut(place))
            {
                let facts = RecordFacts {
                    index: place.index,
                    ..facts
                };
                queue.check(self, &facts);
            }
        }
    }

    fn check_blank(&mut self, walk: &LogWalk<I>, (offset, size, left): (u64, u64, u64)) {
        if size != left {
            let detail = format!("padding of {size} bytes where the file has {left} left");
            let kind = FindingKind::BlankLength;
            self.log_finding(walk, Severity::Warning, kind, (offset, left), detail);
        }
    }

    /// What lies behind the last record.
    fn check_tail(&mut self, walk: &mut LogWalk<I>, end: u64, why: Option<LogEnd>) {
        let why = match why {
            // The rest is newer than the check.
            None => return,
            Some(LogEnd::Files) => return,
            Some(why) => why,
        };
        let last = match walk.reader.last_written(end) {
            Ok(last) => last,
            Err(error) => return self.unreadable(Part::Log, &error),
        };
        let Some(last) = last else { return };
        let len = last - end;
        match why {
            // A record that is just being written looks like this.
            _ if self.is_live => {}
            LogEnd::Invalid(reason) if is_record_head(walk, end) => {
                let severity = self.at_the_end();
                let kind = FindingKind::LogTailDamage;
                self.log_finding(walk, severity, kind, (end, len), reason);
            }
            _ => {
                let detail = format!(
                    "{len} bytes behind the end of the log are not zero: RocketMQ leaves such when \
                     it truncates"
                );
                let kind = FindingKind::BytesBehindEnd;
                self.log_finding(walk, Severity::Info, kind, (end, len), detail);
            }
        }
    }

    fn tell(&mut self, walk: &LogWalk<I>, sums: &Sums) {
        if sums.times_back > 0 {
            let detail = format!(
                "{} records were stored before their predecessors: the clock was set back",
                sums.times_back
            );
            let kind = FindingKind::StoreTimeBackwards;
            self.log_finding(
                walk,
                Severity::Info,
                kind,
                (sums.first_time_back, 0),
                detail,
            );
        }
        if sums.filler_count > 0 {
            let detail = format!(
                "{} records of {} bytes stand where recovery found damage",
                sums.filler_count, sums.filler_len
            );
            let place = (sums.first_filler, sums.filler_len);
            let kind = FindingKind::FillerRecord;
            self.log_finding(walk, Severity::Info, kind, place, detail);
        }
    }

    fn log_finding(
        &mut self,
        walk: &LogWalk<I>,
        severity: Severity,
        kind: FindingKind,
        (offset, len): (u64, u64),
        detail: String,
    ) {
        let place = walk.reader.files().place(offset);
        let mut finding = Finding::new(severity, kind, Part::Log, place, detail);
        finding.len = len;
        finding.log_offset = Some(offset);
        self.report(&finding);
    }
}

/// Whether a record is one that an earlier log left behind the end of this one.
fn is_stale<I: Io>(queues: &Queues<I>, view: &RecordView<'_>, last_store_ms: i64) -> bool {
    view.store_timestamp_ms() < last_store_ms
        && view.sys_flag().transaction().takes_queue_offset()
        && queues
            .find(view.topic(), view.queue_id())
            .and_then(|place| queues.list.get(place))
            .is_some_and(|queue| queue.is_stale(view.queue_offset()))
}

/// Whether a record's first fields stand at `offset`: what follows was to be a record.
fn is_record_head<I: Io>(walk: &mut LogWalk<I>, offset: u64) -> bool {
    matches!(walk.reader.record(offset), Ok(Some(_)))
}

//! Checking the parts of a store against each other.
//!
//! One pass over the log compares each record with its entry in its queue and with its keys in
//! the index; what no record has asked for is looked at afterwards. Memory is bounded: a window
//! for each queue, some 64 MiB for all of them, and the slots of one index file.
//!
//! A store that is in use is compared up to two seconds before the start of the check: what was
//! stored since then is in flight and is not looked at.

mod batch;
mod index;
mod layout;
mod queue;
mod records;
mod rest;
mod state;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mmap_core::{Io, IoError, LockState};

use self::index::IndexCheck;
use self::queue::Queues;
use super::error::OfflineError;
use super::files::{SegmentDir, StoreDirs};
use super::finding::{Finding, FindingKind, Part, QueuePlace, Severity, Totals};
use super::queue_files::QueueKind;
use super::shape::Shape;
use crate::options::StoreOptions;
use crate::ownership::{ABORT_FILE, LOCK_FILE, LastExit};
use crate::progress::{Progress, Step};

/// What of a store in use is too new to be compared: dispatch follows the log in far less.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// The time, ms since 1970: what is stored later than shortly before is not compared in a
    /// store that is in use. Default: the system's.
    pub now_ms: i64,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| now.as_millis());
        Self {
            now_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
        }
    }
}

/// What was compared, and the sums of what was found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The sizes of the files.
    pub shape: Shape,
    /// How the store was left; of a store in use it says nothing.
    pub last_exit: LastExit,
    /// Whether a process had the store open, and which.
    pub lock: LockState,
    /// Messages stored up to this time were compared, ms; `None`: all.
    pub compared_until_ms: Option<i64>,
    /// The log.
    pub log: LogSummary,
    /// Each queue.
    pub queues: Vec<QueueSummary>,
    /// Index files.
    pub index_file_count: u64,
    /// Index entries that were compared with records.
    pub index_entry_count: u64,
    /// Keys of records that were looked for in the index.
    pub key_count: u64,
    /// Findings so far.
    pub totals: Totals,
}

/// What the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LogSummary {
    /// Offset of the first byte.
    pub min: u64,
    /// Offset behind the last record compared.
    pub end: u64,
    /// Files.
    pub file_count: u64,
    /// Records compared.
    pub record_count: u64,
    /// Store time of the first of them, ms.
    pub first_store_ms: i64,
    /// The latest store time of them, ms.
    pub last_store_ms: i64,
    /// Bytes between records that are none.
    pub damaged_len: u64,
}

/// What a queue holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSummary {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue_id: i32,
    /// Its kind.
    pub kind: QueueKind,
    /// Queue offset of the first message that the log has.
    pub min: i64,
    /// Queue offset behind the last message.
    pub max: i64,
    /// Records of it in the log.
    pub record_count: u64,
    /// Whether it has files; a queue without is one whose topic was deleted, or lost.
    pub has_files: bool,
}

/// Checks a store and tells `sink` each difference as it is found, in the order of the parts.
///
/// # Errors
/// There is no store, or a directory cannot be listed. A file that cannot be read is a finding
/// ([`FindingKind::Unreadable`]).
pub fn verify<I: Io>(
    io: &I,
    options: &StoreOptions,
    verify: &VerifyOptions,
    sink: &mut dyn FnMut(&Finding),
    progress: &dyn Progress,
) -> Result<VerifyReport, OfflineError> {
    let dirs = StoreDirs::new(options);
    dirs.check_store(io)?;
    let shape = Shape::detect(io, options)?;
    let lock = io.lock_state(&dirs.root.join(LOCK_FILE))?;
    let last_exit = match io.metadata(&dirs.root.join(ABORT_FILE))? {
        Some(_) => LastExit::Unclean,
        None => LastExit::Clean,
    };
    let in_flight = i64::try_from(IN_FLIGHT.as_millis()).unwrap_or(0);
    let is_live = lock != LockState::Free;
    let report = VerifyReport {
        shape,
        last_exit,
        lock,
        compared_until_ms: is_live.then_some(verify.now_ms - in_flight),
        log: LogSummary::default(),
        queues: Vec::new(),
        index_file_count: 0,
        index_entry_count: 0,
        key_count: 0,
        totals: Totals::default(),
    };
    let mut check = Check {
        io,
        options,
        dirs,
        is_live,
        dispatched_end: 0,
        report,
        sink,
        progress,
    };
    check.run()?;
    Ok(check.report)
}

/// A check under way.
struct Check<'a, I: Io> {
    io: &'a I,
    options: &'a StoreOptions,
    dirs: StoreDirs,
    is_live: bool,
    /// Log offset behind the last record that has its entry. Records are dispatched in order, so
    /// that those behind it were not when the process ended.
    dispatched_end: u64,
    report: VerifyReport,
    sink: &'a mut dyn FnMut(&Finding),
    progress: &'a dyn Progress,
}

impl<I: Io> Check<'_, I> {
    fn run(&mut self) -> Result<(), OfflineError> {
        self.check_state()?;
        let log = SegmentDir::list(self.io, &self.dirs.log, self.report.shape.segment_len)?;
        self.check_layout(Part::Log, &log);
        let mut queues = Queues::open(self)?;
        let mut index = IndexCheck::open(self)?;
        self.check_records(log, &mut queues, &mut index)?;
        index.finish(self);
        self.check_rest_of_queues(&mut queues)?;
        self.check_checkpoint()?;
        self.report.queues = queues.summaries();
        Ok(())
    }

    fn report(&mut self, finding: &Finding) {
        self.report.totals.add(finding);
        (self.sink)(finding);
    }

    fn unreadable(&mut self, part: Part, error: &IoError) {
        let place = (error.path().to_owned(), 0);
        let detail = error.to_string();
        self.report(&Finding::new(
            Severity::Error,
            FindingKind::Unreadable,
            part,
            place,
            detail,
        ));
    }

    fn progress(&self, phase: &'static str, done: u64, total: u64) {
        self.progress.at(Step { phase, done, total });
    }

    /// As [`report`](Self::report), for what a record has not got in the derived files: if the
    /// process ended before it was dispatched, that is as it should be.
    fn report_missing(&mut self, mut finding: Finding) {
        let is_behind = finding.log_offset >= Some(self.dispatched_end);
        let why = match self.report.last_exit {
            _ if self.is_live => "dispatch is on its way there",
            LastExit::Unclean => {
                "it was not dispatched when the process ended, the next start does"
            }
            LastExit::Clean => "",
        };
        if is_behind && !why.is_empty() {
            finding.severity = Severity::Info;
            finding.detail = format!("{}; {why}", finding.detail);
        }
        self.report(&finding);
    }

    /// How bad it is that a derived file is behind or ahead of the log's end: what the next start
    /// puts right is no damage.
    fn at_the_end(&self) -> Severity {
        match self.report.last_exit {
            LastExit::Unclean => Severity::Warning,
            LastExit::Clean => Severity::Error,
        }
    }
}

/// The messages of one queue from `first` to `last`.
fn queue_place(topic: &str, queue_id: i32, first: i64, last: i64) -> Option<QueuePlace> {
    Some(QueuePlace {
        topic: topic.to_owned(),
        queue_id,
        first,
        last,
    })
}

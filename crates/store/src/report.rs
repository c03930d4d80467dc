//! What opening a store found and did, phase by phase.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use commitlog::{Hole, RecoveryReport};

use crate::ownership::LastExit;
use crate::queue_check::RebuiltQueue;

/// What opening a store found and did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenReport {
    /// How the directory was left.
    pub last_exit: LastExit,
    /// Whether the machine is known not to have lost power since the store was last open.
    pub is_power_kept: bool,
    /// The scan of the log.
    pub log: RecoveryReport,
    /// Segments of the log that were shorter than the others, empty or missing, by file.
    pub damaged_segments: Vec<PathBuf>,
    /// Messages that the holes of the log have taken, as far as queues or later messages tell.
    pub missing: Vec<Missing>,
    /// Where what was taken out of the log is kept.
    pub quarantined: Vec<PathBuf>,
    /// Consume queues that were there.
    pub queue_count: usize,
    /// Whether the file `foliomq/dispatched` was damaged: the log was read from where queues and index
    /// are synced.
    pub has_torn_marks: bool,
    /// Queues that did not say what the log says, and were built again from all of it.
    pub rebuilt_queues: Vec<RebuiltQueue>,
    /// Index files that were there.
    pub index_file_count: usize,
    /// Index files that were checked because of the crash.
    pub suspect_index_file_count: usize,
    /// From where on the derived files wait for space on the disk, if they do.
    pub undispatched_from: Option<u64>,
    /// What was done, in order.
    pub phases: Vec<Phase>,
    /// From the lock to the store being ready.
    pub elapsed: Duration,
}

/// Messages of a queue that the log has lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue_id: i32,
    /// The first of their queue offsets.
    pub first: i64,
    /// How many.
    pub count: i64,
}

/// One phase of opening a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What was done: `consume queues` and `index` (finding them), `log` (reading it, and giving
    /// records the entries that they lack), `settle` (bringing queues and index in line, and
    /// building again what is wrong).
    pub name: &'static str,
    /// Files of the log or the index that were looked at; of the queues their count, and in
    /// `settle` that of the queues built again.
    pub files: u64,
    /// Bytes of the log that were read.
    pub bytes: u64,
    /// Records that were found.
    pub records: u64,
    /// Bytes that were cut off.
    pub cut: u64,
    /// Bytes that are lost to damage.
    pub lost: u64,
    /// Records whose entries were built again.
    pub rebuilt: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Phase {
    /// A phase in which nothing was counted.
    pub(crate) fn named(name: &'static str) -> Self {
        Self {
            name,
            files: 0,
            bytes: 0,
            records: 0,
            cut: 0,
            lost: 0,
            rebuilt: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// What the scan of the log counted.
    pub(crate) fn of_log(log: &RecoveryReport) -> Self {
        Self {
            files: log.files,
            bytes: log.bytes_scanned,
            records: log.records,
            cut: log.cut.as_ref().map_or(0, |cut| cut.len),
            lost: log.holes.iter().map(|hole| hole.len).sum(),
            elapsed: log.elapsed,
            ..Self::named("log")
        }
    }
}

impl OpenReport {
    /// Whether records were lost to damage.
    pub fn has_damage(&self) -> bool {
        !self.log.holes.is_empty()
    }

    /// The messages missing around a hole, in words: `TopicA-0: 17 to 19, TopicB-1: 4`.
    fn missing_text(&self) -> String {
        let of_queue = |missing: &Missing| {
            let (first, last) = (missing.first, missing.first + missing.count - 1);
            let offsets = if first == last {
                first.to_string()
            } else {
                format!("{first} to {last}")
            };
            format!("{}-{}: {offsets}", missing.topic, missing.queue_id)
        };
        let queues: Vec<_> = self.missing.iter().map(of_queue).collect();
        queues.join(", ")
    }
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exit = match (self.last_exit, self.is_power_kept) {
            (LastExit::Clean, _) => "closed",
            (LastExit::Unclean, true) => "not closed (the machine went on running)",
            (LastExit::Unclean, false) => "not closed",
        };
        write!(
            f,
            "the store was {exit}; {} records in {} bytes of {} files read, the log ends at {}, \
             {} queues, {} index files, {:.1} ms",
            self.log.records,
            self.log.bytes_scanned,
            self.log.files,
            self.log.end,
            self.queue_count,
            self.index_file_count,
            self.elapsed.as_secs_f64() * 1e3,
        )?;
        if let Some(cut) = &self.log.cut {
            write!(
                f,
                "; {} bytes at {} cut off ({})",
                cut.len, cut.offset, cut.reason
            )?;
        }
        for Hole {
            path,
            offset,
            len,
            reason,
            ..
        } in &self.log.holes
        {
            write!(
                f,
                "; DAMAGE: {len} bytes at {offset} in {} ({reason})",
                path.display()
            )?;
        }
        if !self.missing.is_empty() {
            write!(f, "; LOST messages of {}", self.missing_text())?;
        }
        if let Some(first) = self.rebuilt_queues.first() {
            let count = self.rebuilt_queues.len();
            write!(f, "; {count} queues rebuilt ({first}")?;
            f.write_str(if count > 1 { ", ...)" } else { ")" })?;
        }
        if self.has_torn_marks {
            f.write_str("; foliomq/dispatched is damaged and not used")?;
        }
        if let Some(reason) = &self.log.read_only {
            write!(
                f,
                "; READ ONLY: no room to keep aside what must go ({reason})"
            )?;
        }
        if let Some(offset) = self.undispatched_from {
            write!(f, "; queues and index wait for space from {offset} on")?;
        }
        Ok(())
    }
}

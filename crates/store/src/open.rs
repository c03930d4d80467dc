//! Opening a directory: lock, look for the `abort` file, load, recover, report.
//!
//! Nothing is changed before the lock is held, and the log is not cut before what is cut off is
//! kept aside under `foliomq/quarantine/`. Recovery reads the log from the last segment that the
//! checkpoint, the queues and the index all vouch for; each record is dispatched again, which
//! does nothing where its entries exist.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use commitlog::{
    Clock, CommitLog, CrcCheck, DirQuarantine, Opening, RecoverFrom, RecoveryReport, Tail,
};
use consumequeue::{ConsumeQueueOptions, ConsumeQueueSet};
use indexfile::IndexService;
use message::RecordView;
use mmap_core::{FileKind, Io, IoError};

use crate::checkpoint::{Checkpoint, CheckpointTimes};
use crate::dispatch::Dispatcher;
use crate::error::{DispatchError, OpenError};
use crate::options::StoreOptions;
use crate::ownership::{LastExit, Ownership};
use crate::queues::Queues;

/// What opening a store found and did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenReport {
    /// How the directory was left.
    pub last_exit: LastExit,
    /// The scan of the log.
    pub log: RecoveryReport,
    /// Where what was cut off the log is kept.
    pub quarantined: Vec<PathBuf>,
    /// Consume queues that were there.
    pub queue_count: usize,
    /// Queues whose entries had a gap and were built again from the whole log.
    pub rebuilt_queue_count: usize,
    /// Index files that were there.
    pub index_file_count: usize,
    /// Index files that were checked because of the crash.
    pub suspect_index_file_count: usize,
    /// From the lock to the store being ready.
    pub elapsed: Duration,
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exit = match self.last_exit {
            LastExit::Clean => "closed",
            LastExit::Unclean => "not closed",
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
        if self.rebuilt_queue_count > 0 {
            write!(f, "; {} queues rebuilt", self.rebuilt_queue_count)?;
        }
        Ok(())
    }
}

/// A store that is open, without its services.
#[derive(Debug)]
pub(crate) struct Opened<I: Io> {
    pub(crate) ownership: Ownership<I>,
    pub(crate) checkpoint: Checkpoint<I>,
    pub(crate) log: CommitLog<I>,
    pub(crate) dispatcher: Dispatcher<I>,
    pub(crate) report: OpenReport,
}

pub(crate) fn open<I: Io>(
    io: &I,
    options: &StoreOptions,
    clock: &Arc<dyn Clock>,
) -> Result<Opened<I>, OpenError> {
    let begun = clock.monotonic();
    let ownership = Ownership::take(io, &options.root).map_err(OpenError::Lock)?;
    let last_exit = ownership.last_exit();
    let times = Checkpoint::read(io, &options.root)?;
    let opening = CommitLog::open(io.clone(), options.commit_log(), Arc::clone(clock))?;
    let derived = Derived::open(io, options, last_exit, times)?;
    let (queue_count, index_file_count, suspect_index_file_count) = (
        derived.queue_count,
        derived.index_file_count,
        derived.suspect_index_file_count,
    );
    let from = recover_from(&opening, &derived, last_exit, times)?;
    let dispatcher = derived.dispatcher;

    let mut gaps = BTreeSet::new();
    let mut quarantine = DirQuarantine::new(io.clone(), options.own_dir().join("quarantine"));
    let mut visit = |view: &RecordView<'_>| match dispatcher.recover(view) {
        Err(DispatchError::Gap {
            topic, queue_id, ..
        }) => {
            gaps.insert((topic, queue_id));
            Ok(())
        }
        outcome => outcome.map_err(Into::into),
    };
    let (log, recovery) = opening.recover(&from, &mut visit, &mut quarantine)?;
    settle(&log, &dispatcher, recovery.end, &gaps)?;
    ownership.mark_open(io)?;
    let checkpoint = Checkpoint::open(io, &options.root)?;
    let report = OpenReport {
        last_exit,
        log: recovery,
        quarantined: quarantine.kept().to_vec(),
        queue_count,
        rebuilt_queue_count: gaps.len(),
        index_file_count,
        suspect_index_file_count,
        elapsed: clock.monotonic().saturating_sub(begun),
    };
    Ok(Opened {
        ownership,
        checkpoint,
        log,
        dispatcher,
        report,
    })
}

/// The derived files, loaded.
struct Derived<I: Io> {
    dispatcher: Dispatcher<I>,
    queue_count: usize,
    index_file_count: usize,
    suspect_index_file_count: usize,
    /// Messages from here on may be missing in the index.
    index_resume_offset: Option<u64>,
}

impl<I: Io> Derived<I> {
    fn open(
        io: &I,
        options: &StoreOptions,
        last_exit: LastExit,
        times: CheckpointTimes,
    ) -> Result<Self, OpenError> {
        let queue_options = ConsumeQueueOptions::with_file_len(options.queue_file_len);
        let queue_policy = match last_exit {
            LastExit::Clean => consumequeue::OpenPolicy::Clean,
            LastExit::Unclean => consumequeue::OpenPolicy::Unclean,
        };
        let (set, queue_report) = ConsumeQueueSet::open(
            io.clone(),
            &options.queue_dir(),
            queue_options,
            queue_policy,
        )?;
        let index_policy = match last_exit {
            LastExit::Clean => indexfile::OpenPolicy::Clean,
            LastExit::Unclean => indexfile::OpenPolicy::Unclean {
                checkpoint_timestamp_ms: times.index_ms,
            },
        };
        let (index, index_report) = match &options.index {
            Some(index) => {
                // Candidates of other keys with the same hash must not use up the limit.
                let wide = indexfile::IndexOptions {
                    query_count_max: CANDIDATES_MAX,
                    ..index.clone()
                };
                let dir = options.index_dir();
                let (index, report) = IndexService::open(io.clone(), &dir, wide, index_policy)?;
                (Some(index), report)
            }
            None => (None, indexfile::OpenReport::default()),
        };
        let delays = &options.delay_levels;
        let level_delays_ms = (1..=delays.max())
            .map(|level| delays.due_ms(level, 0).unwrap_or_default())
            .collect();
        let batch_topics = topics_of(io, &options.batch_queue_dir())?;
        let queues = Queues::new(set);
        Ok(Self {
            dispatcher: Dispatcher::new(queues, index, level_delays_ms, batch_topics),
            queue_count: queue_report.queue_count,
            index_file_count: index_report.file_count,
            suspect_index_file_count: index_report.suspects.len(),
            index_resume_offset: index_report.resume_offset,
        })
    }
}

/// Index candidates of one query that are compared with the key itself.
const CANDIDATES_MAX: usize = 4096;

/// The segment from which the log is read: everything before it is synced and has its entries.
fn recover_from<I: Io>(
    opening: &Opening<I>,
    derived: &Derived<I>,
    last_exit: LastExit,
    times: CheckpointTimes,
) -> Result<RecoverFrom, OpenError> {
    let segments = opening.segments();
    let (min, end) = (segments.min_offset(), segments.published());
    let base_of = |offset: u64| {
        let inside = offset.clamp(min, end.saturating_sub(1).max(min));
        inside - inside % segments.segment_len()
    };
    let dispatched_end = derived
        .dispatcher
        .queues
        .set()
        .max_physical_end()
        .unwrap_or(0);
    let dispatched_base = base_of(dispatched_end);
    let (offset, flushed) = match last_exit {
        LastExit::Clean => (dispatched_base, u64::MAX),
        LastExit::Unclean => {
            let synced_base = opening.recovery_start(times.recovery_start_ms())?;
            let indexed_base = base_of(derived.index_resume_offset.unwrap_or(u64::MAX));
            (
                dispatched_base.min(synced_base).min(indexed_base),
                synced_base,
            )
        }
    };
    Ok(RecoverFrom {
        offset,
        flushed,
        crc: CrcCheck::Body,
        tail: Tail::Unknown,
    })
}

/// Brings the derived files in line with the log as recovered.
fn settle<I: Io>(
    log: &CommitLog<I>,
    dispatcher: &Dispatcher<I>,
    end: u64,
    gaps: &BTreeSet<(String, i32)>,
) -> Result<(), OpenError> {
    let set = dispatcher.queues.set();
    set.recover(log.min_offset(), end)?;
    if let Some(index) = &dispatcher.index
        && index.end_physical_offset().is_some_and(|last| last >= end)
    {
        let resume = index.truncate(end)?;
        walk(log, resume.max(log.min_offset()), |view| {
            dispatcher.rebuild_index_entry(view)
        })?;
    }
    if !gaps.is_empty() {
        for (topic, queue_id) in gaps {
            dispatcher
                .queues
                .find_or_create(topic, *queue_id)?
                .entries
                .truncate(0)?;
        }
        walk(log, log.min_offset(), |view| {
            let queue = (view.topic().to_owned(), view.queue_id());
            if gaps.contains(&queue) {
                dispatcher.rebuild_queue_entry(view)
            } else {
                Ok(())
            }
        })?;
    }
    dispatcher.queues.reset_cursors();
    dispatcher.start_at(end);
    Ok(())
}

/// Shows each record from `from`, the start of a record, to the end of the log.
fn walk<I: Io>(
    log: &CommitLog<I>,
    from: u64,
    mut visit: impl FnMut(&RecordView<'_>) -> Result<(), DispatchError>,
) -> Result<(), OpenError> {
    log.walk(from, &mut |view| visit(view).map_err(Into::into))?;
    Ok(())
}

/// The names of the directories in `dir`, which need not exist.
fn topics_of<I: Io>(
    io: &I,
    dir: &std::path::Path,
) -> Result<std::collections::HashSet<String>, IoError> {
    if io.metadata(dir)?.is_none() {
        return Ok(Default::default());
    }
    let entries = io.list(dir)?;
    let topics = entries
        .into_iter()
        .filter(|entry| entry.kind == FileKind::Directory);
    Ok(topics
        .filter_map(|entry| entry.name.into_string().ok())
        .collect())
}

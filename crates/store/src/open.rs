//! Opening a directory: lock, look for the `abort` file, load, recover, report.
//!
//! Nothing is changed before the lock is held, and the log is not cut before what is cut off is
//! kept aside under `foliomq/quarantine/`. Recovery reads the log from the place that the
//! checkpoint, our own state, the queues and the index all vouch for; each record is dispatched
//! again, which does nothing where its entries exist.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use commitlog::{Clock, CommitLog, DirQuarantine, LogError, Opening, RecoverFrom, RecoveryReport};
use indexfile::IndexService;
use mmap_core::{Io, IoError};
use segment_queue::MapBudget;

use crate::begin::{Beginning, Found};
use crate::checkpoint::Checkpoint;
use crate::dispatch::Dispatcher;
use crate::dispatched::{self, DispatchMarks, Mark};
use crate::error::OpenError;
use crate::load::Derived;
use crate::options::StoreOptions;
use crate::ownership::Ownership;
use crate::progress::Progress;
use crate::queue_check::{Marks, QueueCheck, RebuiltQueue};
use crate::redispatch::{Redispatch, RefusedDamage};
use crate::report::{Missing, OpenReport, Phase};
use crate::settle::Settling;
use crate::state::StateFile;

/// A store time this far ahead of the clock is damage, not a clock that was set back: 1 day.
const AHEAD_MS_MAX: i64 = 24 * 3600 * 1000;

/// A store that is open, without its services.
#[derive(Debug)]
pub(crate) struct Opened<I: Io> {
    pub(crate) ownership: Ownership<I>,
    pub(crate) checkpoint: Checkpoint<I>,
    pub(crate) log: CommitLog<I>,
    pub(crate) dispatcher: Dispatcher<I>,
    pub(crate) marks: Marks<I>,
    /// `None` when nothing is vouched for.
    pub(crate) dispatched: Option<DispatchMarks<I>>,
    /// This run of the machine.
    pub(crate) run_id: String,
    /// `None` when it cannot be written; nothing depends on it.
    pub(crate) state: Option<StateFile<I>>,
    pub(crate) report: OpenReport,
}

pub(crate) fn open<I: Io>(
    io: &I,
    options: &StoreOptions,
    clock: &Arc<dyn Clock>,
    progress: &dyn Progress,
) -> Result<Opened<I>, OpenError> {
    let ownership = Ownership::take(io, &options.root).map_err(OpenError::Lock)?;
    let means = Means {
        io,
        options,
        clock,
        progress,
    };
    means.open_owned(ownership).inspect_err(|_| {
        // What has failed may be a sync. The first error is the one to report.
        let _ = dispatched::forget(io, &options.own_dir());
    })
}

/// What a store is opened with.
pub(crate) struct Means<'a, I: Io> {
    pub(crate) io: &'a I,
    pub(crate) options: &'a StoreOptions,
    pub(crate) clock: &'a Arc<dyn Clock>,
    progress: &'a dyn Progress,
}

/// Where recovery begins.
struct Start {
    from: RecoverFrom,
    /// Whether the next start will know that the store was open: a log that is only read needs no
    /// space for that.
    marked: Result<(), IoError>,
}

/// What recovery found and did.
struct Recovered {
    scan: RecoveryReport,
    quarantined: Vec<PathBuf>,
    missing: Vec<Missing>,
    rebuilt_queues: Vec<RebuiltQueue>,
    undispatched_from: Option<u64>,
    phases: [Phase; 2],
}

impl<I: Io> Means<'_, I> {
    fn open_owned(&self, ownership: Ownership<I>) -> Result<Opened<I>, OpenError> {
        let Self {
            io, options, clock, ..
        } = *self;
        let begun = clock.monotonic();
        let budget = options.mapped_len_max.map(MapBudget::new);
        let opening = CommitLog::open(
            io.clone(),
            options.commit_log(budget.as_ref()),
            Arc::clone(clock),
        )?;
        let found = Found::read(io, options, ownership.last_exit(), &opening)?;
        let damaged_segments = opening.damaged().iter().map(|damage| damage.path.clone());
        let damaged_segments = damaged_segments.collect();
        let (derived, mut check) = Derived::open(self, budget.as_ref(), &found)?;
        let start = self.prepare(&ownership, &opening, &found, &derived, &mut check)?;
        let (log, recovered) = self.recover(opening, start, &found, &derived, check)?;
        let checkpoint = Checkpoint::open(io, &options.root)?;
        let is_read_only = recovered.scan.read_only.is_some();
        let elapsed = self.since(begun);
        let report = report(&found, &derived, recovered, damaged_segments, elapsed);
        let own_dir = options.own_dir();
        // What is only read is not known to be whole.
        let (dispatched, state) = match is_read_only {
            true => {
                // Where not even the log is written, this may fail as well.
                let _ = dispatched::forget(io, &own_dir);
                (None, None)
            }
            false => {
                let marks = DispatchMarks::open(io, &own_dir, &found.origin)?;
                (Some(marks), open_state(io, options))
            }
        };
        Ok(Opened {
            ownership,
            checkpoint,
            log,
            dispatcher: derived.dispatcher,
            marks: derived.marks,
            dispatched,
            run_id: found.origin.run_id,
            state,
            report,
        })
    }

    /// Finds out where recovery begins, and has it known that the store is open.
    fn prepare(
        &self,
        ownership: &Ownership<I>,
        opening: &Opening<I>,
        found: &Found,
        derived: &Derived<I>,
        check: &mut QueueCheck,
    ) -> Result<Start, OpenError> {
        let ends = derived.ends(opening, found.mark.as_ref())?;
        let Beginning { from, mark } = found.begin(opening, &ends)?;
        derived.complete_last_keys(opening, from.offset)?;
        // Before anything is changed: a crash from here on must not pass for a clean stop, after which
        // derived files are believed.
        let marked = match ownership.mark_open(self.io) {
            Err(error) if !error.is_full() => return Err(error.into()),
            marked => marked,
        };
        let dispatcher = &derived.dispatcher;
        match mark {
            Some(Mark { anchor, .. }) => {
                check.believe_below(anchor.end());
                dispatcher.go_on_behind(anchor.offset, anchor.store_ms);
            }
            // What is brought in line now would be taken for what it vouched for.
            None => dispatched::forget(self.io, &self.options.own_dir())?,
        }
        // Before records are dispatched: whose topic is of which kind depends on it.
        dispatcher.finish_batch_deletions()?;
        Ok(Start { from, marked })
    }

    /// Recovers the log, and brings queues and index in line with it.
    fn recover(
        &self,
        opening: Opening<I>,
        Start { from, marked }: Start,
        found: &Found,
        derived: &Derived<I>,
        check: QueueCheck,
    ) -> Result<(CommitLog<I>, Recovered), OpenError> {
        let (options, clock, dispatcher) = (self.options, self.clock, &derived.dispatcher);
        let quarantine_dir = options.own_dir().join("quarantine");
        let mut quarantine = DirQuarantine::new(self.io.clone(), quarantine_dir);
        let segments = opening.segments();
        let range = (segments.min_offset(), from.offset, segments.published());
        let mut redispatch =
            Redispatch::new(dispatcher, check, options.recovery, self.progress, range);
        let recovered = opening.recover(&from, &mut redispatch, &mut quarantine);
        let (log, scan) = recovered.map_err(refusal)?;
        let log_phase = Phase {
            rebuilt: redispatch.appended_count,
            ..Phase::of_log(&scan)
        };
        let mut settling = Settling {
            log: &log,
            dispatcher,
            marks: &derived.marks,
            progress: self.progress,
            rebuilt: 0,
        };
        let begun = clock.monotonic();
        settling.settle(scan.end, &mut redispatch)?;
        let settle_phase = Phase {
            rebuilt: settling.rebuilt,
            ..self.phase("settle", redispatch.check.faults().len(), begun)
        };
        log.store_not_before(remembered_ms(found, dispatcher, clock.wall_ms()));
        if scan.read_only.is_none() {
            marked?;
            if !is_as_before(found, &scan, &redispatch.check) {
                settling.remember_queues();
            }
        }
        let recovered = Recovered {
            scan,
            quarantined: quarantine.kept().to_vec(),
            rebuilt_queues: redispatch.check.rebuilt(),
            missing: redispatch.missing,
            undispatched_from: redispatch.undispatched_from,
            phases: [log_phase, settle_phase],
        };
        Ok((log, recovered))
    }

    fn since(&self, begun: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(begun)
    }

    /// A phase that ends now, and has looked at so many files.
    pub(crate) fn phase(&self, name: &'static str, file_count: usize, begun: Duration) -> Phase {
        Phase {
            files: file_count as u64,
            elapsed: self.since(begun),
            ..Phase::named(name)
        }
    }
}

fn report<I: Io>(
    found: &Found,
    derived: &Derived<I>,
    recovered: Recovered,
    damaged_segments: Vec<PathBuf>,
    elapsed: Duration,
) -> OpenReport {
    OpenReport {
        last_exit: found.last_exit,
        is_power_kept: found.is_power_kept,
        log: recovered.scan,
        damaged_segments,
        missing: recovered.missing,
        quarantined: recovered.quarantined,
        queue_count: derived.queue_count,
        has_torn_marks: found.has_torn_marks,
        rebuilt_queues: recovered.rebuilt_queues,
        index_file_count: derived.index_file_count,
        suspect_index_file_count: derived.suspect_index_file_count,
        undispatched_from: recovered.undispatched_from,
        phases: [derived.phases.clone(), recovered.phases].concat(),
        elapsed,
    }
}

/// The latest store time that checkpoint and index know of; the message may be gone from the log.
fn remembered_ms<I: Io>(found: &Found, dispatcher: &Dispatcher<I>, now_ms: i64) -> i64 {
    let index = dispatcher.index.as_ref();
    let indexed = index.and_then(IndexService::last_update);
    let times = [
        found.times.physic_ms,
        found.times.logics_ms,
        indexed.map_or(0, |last| last.timestamp_ms),
    ];
    let believed = |ms: &i64| ms.saturating_sub(now_ms) < AHEAD_MS_MAX;
    times.into_iter().filter(believed).max().unwrap_or(0)
}

/// Whether what was remembered is as true as before, which it is in the run of the machine that it was
/// written in: the queues, which may be many, are synced in their own time then.
fn is_as_before(found: &Found, scan: &RecoveryReport, check: &QueueCheck) -> bool {
    found.is_power_kept
        && !found.is_derived_in_doubt
        && scan.cut.is_none()
        && scan.holes.is_empty()
        && check.faults().is_empty()
}

/// Opens the file of our own state. Without it the next recovery reads more.
fn open_state<I: Io>(io: &I, options: &StoreOptions) -> Option<StateFile<I>> {
    let opened = StateFile::open(io, &options.own_dir());
    let warn = |error: &IoError| tracing::warn!(%error, "the store's own state is not kept");
    opened.inspect_err(warn).ok()
}

/// Damage that the policy refuses is an error of its own.
fn refusal(error: LogError) -> OpenError {
    match error {
        LogError::Visit { offset, source } => match source.downcast::<RefusedDamage>() {
            Ok(refused) => OpenError::Damage(refused.to_string()),
            Err(source) => LogError::Visit { offset, source }.into(),
        },
        error => error.into(),
    }
}

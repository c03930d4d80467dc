//! Opening a directory: lock, look for the `abort` file, load, recover, report.
//!
//! Nothing is changed before the lock is held, and the log is not cut before what is cut off is
//! kept aside under `foliomq/quarantine/`. Recovery reads the log from the place that the
//! checkpoint, our own state, the queues and the index all vouch for; each record is dispatched
//! again, which does nothing where its entries exist.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use commitlog::{
    CallerError, Clock, CommitLog, DirQuarantine, LogError, Opening, RecoverFrom, RecoveryReport,
    Visitor,
};
use consumequeue::{BatchQueueSet, ConsumeQueueSet};
use indexfile::IndexService;
use message::RecordView;
use mmap_core::sabotage::{self, Lie};
use mmap_core::{Io, IoError};
use segment_queue::{FlushPolicy, MapBudget};

use crate::batches::Batches;
use crate::begin::{Beginning, DerivedEnds, Found};
use crate::checkpoint::Checkpoint;
use crate::dispatch::Dispatcher;
use crate::dispatched::{self, DispatchMarks, Mark};
use crate::error::{DispatchError, OpenError};
use crate::options::StoreOptions;
use crate::ownership::{LastExit, Ownership};
use crate::progress::{Progress, Step};
use crate::queue_check::{self, Marks, QueueCheck, RebuiltQueue};
use crate::queues::Queues;
use crate::redispatch::{Redispatch, RefusedDamage};
use crate::report::{Missing, OpenReport, Phase};
use crate::state::StateFile;

/// A store time this far ahead of the clock is damage, not a clock that was set back: 1 day.
const AHEAD_MS_MAX: i64 = 24 * 3600 * 1000;
/// Index candidates of one query that are compared with the key itself.
const CANDIDATES_MAX: usize = 4096;

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
struct Means<'a, I: Io> {
    io: &'a I,
    options: &'a StoreOptions,
    clock: &'a Arc<dyn Clock>,
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
        // What is only read is not known to be whole.
        let (dispatched, state) = match is_read_only {
            true => (None, None),
            false => (
                Some(DispatchMarks::open(io, &options.own_dir(), &found.origin)),
                open_state(io, options),
            ),
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
    fn phase(&self, name: &'static str, file_count: usize, begun: Duration) -> Phase {
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

/// The derived files, loaded.
struct Derived<I: Io> {
    dispatcher: Dispatcher<I>,
    marks: Marks<I>,
    queue_count: usize,
    index_file_count: usize,
    suspect_index_file_count: usize,
    /// Messages from here on may be missing in the index.
    index_resume_offset: Option<u64>,
    phases: [Phase; 2],
}

impl<I: Io> Derived<I> {
    fn open(
        means: &Means<'_, I>,
        budget: Option<&MapBudget>,
        found: &Found,
    ) -> Result<(Self, QueueCheck), OpenError> {
        let Means {
            io, options, clock, ..
        } = *means;
        let queue_policy = match found.last_exit {
            LastExit::Clean => consumequeue::OpenPolicy::Clean,
            LastExit::Unclean => consumequeue::OpenPolicy::Unclean,
        };
        let begun = clock.monotonic();
        let (set, queue_report) = ConsumeQueueSet::open(
            io.clone(),
            &options.queue_dir(),
            options.consume_queues(budget),
            queue_policy,
        )?;
        let queue_phase = means.phase("consume queues", queue_report.queue_count, begun);
        let begun = clock.monotonic();
        let (index, index_report) = open_index(io, options, found)?;
        let index_phase = means.phase("index", index_report.file_count, begun);
        let batches = BatchQueueSet::open(
            io.clone(),
            &options.batch_queue_dir(),
            options.batch_queues(budget),
            queue_policy,
        )?;
        let marks = Marks::of(io, &options.own_dir());
        let remembered = marks.queues.read();
        let queues = Queues::new(set, marks.queues.clone(), remembered.deleted.clone());
        let check = QueueCheck::new(remembered, marks.rebuild.read(), queue_report.doubtful);
        let derived = Self {
            marks,
            dispatcher: Dispatcher::new(
                queues,
                index,
                level_delays_ms(options),
                Batches::new(batches, options.batch_topics.clone()),
                options.dispatches_light_queues,
            ),
            queue_count: queue_report.queue_count,
            index_file_count: index_report.file_count,
            suspect_index_file_count: index_report.suspects.len(),
            index_resume_offset: index_report.resume_offset,
            phases: [queue_phase, index_phase],
        };
        Ok((derived, check))
    }

    /// Gives the index all keys of the message that it ends with. After a crash some may be missing,
    /// also ones that were synced: where entries had to be cut off, the last whole one is taken back
    /// too, as it may be torn. What lies behind `from` is looked at anyway.
    fn complete_last_keys(&self, opening: &Opening<I>, from: u64) -> Result<(), OpenError> {
        let Some(last) = self.index_resume_offset.filter(|last| *last < from) else {
            return Ok(());
        };
        let put = opening.look_at(last, |view| self.dispatcher.rebuild_index_entry(view))?;
        match put {
            // One that finds no room is like those behind it, which wait for some.
            Some(Err(DispatchError::Index(error))) if !error.is_full() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What recovery needs to know of them.
    fn ends(&self, opening: &Opening<I>, mark: Option<&Mark>) -> Result<DerivedEnds, OpenError> {
        let index = self.dispatcher.index.as_ref();
        let has_marked_index = match (index, mark.and_then(|mark| mark.index)) {
            (Some(index), Some(reach)) => index.reaches(reach),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let index_end = index.map(|index| index.end_physical_offset().unwrap_or(0));
        Ok(DerivedEnds {
            queues: queue_check::true_end(opening.segments(), &self.dispatcher)?,
            index: self.index_resume_offset.or(index_end),
            has_marked_index,
        })
    }
}

/// Opens the index, if there is to be one.
fn open_index<I: Io>(
    io: &I,
    options: &StoreOptions,
    found: &Found,
) -> Result<(Option<IndexService<I>>, indexfile::OpenReport), OpenError> {
    let Some(index) = &options.index else {
        return Ok((None, indexfile::OpenReport::default()));
    };
    let checkpoint_timestamp_ms = found.times.index_ms;
    let policy = match found.last_exit {
        LastExit::Clean => indexfile::OpenPolicy::Clean,
        LastExit::Unclean if found.is_derived_in_doubt => indexfile::OpenPolicy::Doubted {
            checkpoint_timestamp_ms,
        },
        LastExit::Unclean if found.is_power_kept => indexfile::OpenPolicy::Killed {
            checkpoint_timestamp_ms,
        },
        LastExit::Unclean => indexfile::OpenPolicy::Unclean {
            checkpoint_timestamp_ms,
        },
    };
    // Candidates of other keys with the same hash must not use up the limit.
    let wide = indexfile::IndexOptions {
        query_count_max: CANDIDATES_MAX,
        ..index.clone()
    };
    let (index, report) = IndexService::open(io.clone(), &options.index_dir(), wide, policy)?;
    Ok((Some(index), report))
}

/// The delay of each level, from the first one on.
fn level_delays_ms(options: &StoreOptions) -> Vec<i64> {
    let delays = &options.delay_levels;
    let delay_ms = |level| delays.due_ms(level, 0).unwrap_or_default();
    (1..=delays.max()).map(delay_ms).collect()
}

/// Brings the derived files in line with the log as recovered.
struct Settling<'a, I: Io> {
    log: &'a CommitLog<I>,
    dispatcher: &'a Dispatcher<I>,
    marks: &'a Marks<I>,
    progress: &'a dyn Progress,
    /// Records whose entries were built again.
    rebuilt: u64,
}

impl<I: Io> Settling<'_, I> {
    fn settle(&mut self, end: u64, found: &mut Redispatch<'_, I>) -> Result<(), OpenError> {
        let queues = &self.dispatcher.queues;
        queues.set().recover(self.log.min_offset(), end)?;
        queues.end_deletions_at(end, self.log.failure().is_none());
        queues.finish_deletions()?;
        let batches = &self.dispatcher.batches.set;
        batches.recover(self.log.min_offset(), end)?;
        // A log that is only read stays as it was, and so do its keys: queries compare with the
        // messages themselves.
        if self.log.failure().is_none() {
            self.rebuild_index(end, found.first_hole)?;
        }
        // A log that is only read leaves its queues, too: readers compare entries with records.
        if self.log.failure().is_none() {
            found.check.finish(self.log, self.dispatcher)?;
            self.rebuild_queues(&found.check)?;
        }
        queues.reset_cursors();
        for ((topic, queue_id), next_offset) in &found.next_offsets {
            let queue = queues.find_or_create(topic, *queue_id)?;
            queue.cursor.reset(*next_offset);
        }
        for missing in &found.missing {
            // A queue offset that was taken once is not given to another message.
            let queue = queues.find_or_create(&missing.topic, missing.queue_id)?;
            let next = missing.first + missing.count;
            if queue.cursor.next() < next {
                queue.cursor.reset(next);
            }
        }
        self.dispatcher
            .start_at(found.undispatched_from.unwrap_or(end));
        Ok(())
    }

    /// Takes out of the index what points behind the log's end or into a hole: from there on it is
    /// built again.
    fn rebuild_index(&mut self, end: u64, first_hole: Option<u64>) -> Result<(), OpenError> {
        let Some(index) = &self.dispatcher.index else {
            return Ok(());
        };
        let valid_end = first_hole.unwrap_or(end);
        if index
            .end_physical_offset()
            .is_none_or(|last| last < valid_end)
        {
            return Ok(());
        }
        let resume = index.truncate(valid_end)?;
        let dispatcher = self.dispatcher;
        self.walk("index", resume.max(self.log.min_offset()), |view| {
            dispatcher.rebuild_index_entry(view).map(|()| true)
        })
    }

    /// Builds the queues again that do not say what the log says.
    fn rebuild_queues(&mut self, check: &QueueCheck) -> Result<(), OpenError> {
        if check.faults().is_empty() || sabotage::is_planted(Lie::GapNotRebuilt) {
            return Ok(());
        }
        let (marks, dispatcher, log_min) = (self.marks, self.dispatcher, self.log.min_offset());
        queue_check::rebuild(marks, check, log_min, dispatcher, |wanted| {
            self.walk("consume queues", log_min, |view| {
                dispatcher.rebuild_queue_entries(view, wanted)
            })
        })
    }

    /// Writes down where the queues end, once they and the log are on the device.
    fn remember_queues(&self) {
        let synced = self.log.flush_now().map_err(|error| error.to_string());
        let set = self.dispatcher.queues.set();
        let synced = synced.and_then(|_| {
            let flushed = set.flush(FlushPolicy::All);
            let flushed = flushed.and_then(|_| self.dispatcher.batches.set.flush());
            flushed.map_err(|error| error.to_string())
        });
        match synced {
            Ok(_) => self.marks.save(self.log.min_offset(), self.dispatcher),
            Err(error) => tracing::warn!(error, "the ends of the queues are not remembered"),
        }
    }

    /// Shows each record from `from`, the start of a record, to the end of the log; `visit` says
    /// whether it has built something.
    fn walk(
        &mut self,
        phase: &'static str,
        from: u64,
        visit: impl FnMut(&RecordView<'_>) -> Result<bool, DispatchError>,
    ) -> Result<(), OpenError> {
        let mut walk = Walk {
            visit,
            rebuilt: 0,
            progress: self.progress,
            phase,
            range: (from, self.log.visible()),
        };
        self.log.walk(from, &mut walk)?;
        self.rebuilt += walk.rebuilt;
        Ok(())
    }
}

/// The visitor of a walk that builds entries.
struct Walk<'a, F> {
    visit: F,
    rebuilt: u64,
    progress: &'a dyn Progress,
    phase: &'static str,
    range: (u64, u64),
}

impl<F> Visitor for Walk<'_, F>
where
    F: FnMut(&RecordView<'_>) -> Result<bool, DispatchError>,
{
    fn record(&mut self, view: &RecordView<'_>) -> Result<(), CallerError> {
        self.rebuilt += u64::from((self.visit)(view)?);
        Ok(())
    }

    fn progress(&mut self, offset: u64) {
        let (from, end) = self.range;
        self.progress.at(Step {
            phase: self.phase,
            done: offset.saturating_sub(from),
            total: end.saturating_sub(from),
        });
    }
}

//! Loading the queues and the index, before anything is brought in line.

use commitlog::Opening;
use consumequeue::{BatchQueueSet, ConsumeQueueSet};
use indexfile::IndexService;
use mmap_core::Io;
use segment_queue::MapBudget;

use crate::batches::Batches;
use crate::begin::{DerivedEnds, Found};
use crate::dispatch::Dispatcher;
use crate::dispatched::Mark;
use crate::error::{DispatchError, OpenError};
use crate::open::Means;
use crate::options::StoreOptions;
use crate::ownership::LastExit;
use crate::queue_check::{self, Marks, QueueCheck};
use crate::queues::Queues;
use crate::report::Phase;

/// Index candidates of one query that are compared with the key itself.
const CANDIDATES_MAX: usize = 4096;

/// The derived files, loaded.
pub(crate) struct Derived<I: Io> {
    pub(crate) dispatcher: Dispatcher<I>,
    pub(crate) marks: Marks<I>,
    pub(crate) queue_count: usize,
    pub(crate) index_file_count: usize,
    pub(crate) suspect_index_file_count: usize,
    /// Messages from here on may be missing in the index.
    index_resume_offset: Option<u64>,
    pub(crate) phases: [Phase; 2],
}

impl<I: Io> Derived<I> {
    /// Finds them, and what is remembered of the queues.
    ///
    /// # Errors
    /// A file cannot be read, or is of another configuration.
    pub(crate) fn open(
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
    pub(crate) fn complete_last_keys(
        &self,
        opening: &Opening<I>,
        from: u64,
    ) -> Result<(), OpenError> {
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
    pub(crate) fn ends(
        &self,
        opening: &Opening<I>,
        mark: Option<&Mark>,
    ) -> Result<DerivedEnds, OpenError> {
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

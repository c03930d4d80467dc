//! Building consume queues and index anew from the log.
//!
//! The new files are made aside, under `foliomq/rebuilding/`, made durable, and then put in the
//! place of the old ones by renaming directories. From the first renaming to the last the store is
//! marked as not closed, and has neither a checkpoint nor marks of the machine's run: should the
//! process end in between, the next start finds queues missing and builds them from the log, all of
//! it; so does the next rebuild.
//!
//! The queues are, up to their written end, byte for byte those that a Java build makes from the
//! same log, with two exceptions. Where the log has lost messages, the queue offsets behind stay
//! true: the lost ones' places have the entry of the next message (Java would shift all that
//! follow). And a topic that was deleted stays so, as far as `foliomq/queues` knows, and one that
//! was created again has the queues of its last life.

mod queues;
mod swap;

use std::collections::BTreeSet;
use std::path::PathBuf;

use indexfile::{IndexOptions, IndexService, OpenPolicy};
use message::{RecordView, Transaction};
use mmap_core::Io;

use self::queues::QueueBuilder;
use self::swap::Swap;
use super::error::OfflineError;
use super::facts::{RecordFacts, level_delays_ms};
use super::files::{SegmentDir, StoreDirs};
use super::log::{LogStep, LogWalk};
use super::shape::Shape;
use crate::error::DispatchError;
use crate::options::StoreOptions;
use crate::ownership::Ownership;
use crate::place::light_places;
use crate::progress::{Progress, Step};

/// Bytes of the log between two words about progress.
const PROGRESS_LEN: u64 = 1 << 20;
/// Where the new files are made, under the directory of our own.
const REBUILDING_DIR: &str = "rebuilding";

/// What is built anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildSelection {
    /// The consume queues, of all kinds.
    pub queues: bool,
    /// The index.
    pub index: bool,
    /// Of the queues, those of this topic only.
    pub topic: Option<String>,
    /// Topics whose queues are batch queues, besides those that have such on disk or records that
    /// are batches.
    pub batch_topics: BTreeSet<String>,
}

impl Default for RebuildSelection {
    /// Everything.
    fn default() -> Self {
        Self {
            queues: true,
            index: true,
            topic: None,
            batch_topics: BTreeSet::new(),
        }
    }
}

/// What a rebuild came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RebuildReport {
    /// Records of the log that were read.
    pub record_count: u64,
    /// Queues that were built.
    pub queue_count: u64,
    /// Entries that were written to them.
    pub entry_count: u64,
    /// Places of lost messages, which have the entry of the next one.
    pub lost_count: u64,
    /// Records that have no entry: their place was taken, or cannot be theirs.
    pub misplaced_count: u64,
    /// Keys that were indexed.
    pub key_count: u64,
    /// Bytes of the log that are no record, with records behind them.
    pub damaged_len: u64,
}

/// Builds what is selected anew. The store must not be open: its lock is taken.
///
/// # Errors
/// The store is open, there is none, or a file cannot be read or written. Up to the moment when
/// the new files take their places, the old ones are as they were.
pub fn rebuild<I: Io>(
    io: &I,
    options: &StoreOptions,
    selection: &RebuildSelection,
    progress: &dyn Progress,
) -> Result<RebuildReport, OfflineError> {
    let dirs = StoreDirs::new(options);
    dirs.check_store(io)?;
    let ownership = Ownership::take(io, &dirs.root)?;
    let shape = Shape::detect(io, options)?;
    let aside = dirs.own.join(REBUILDING_DIR);
    swap::remove_all(io, &aside)?;
    let mut rebuild = Rebuild::begin(io, options, selection, &dirs, shape, aside.clone())?;
    rebuild.read_log(progress)?;
    let (report, swaps) = rebuild.finish(progress)?;
    swap::put_in_place(io, &dirs, &ownership, &aside, &swaps)?;
    Ok(report)
}

struct Rebuild<'a, I: Io> {
    io: &'a I,
    selection: &'a RebuildSelection,
    dirs: &'a StoreDirs,
    aside: PathBuf,
    segment_len: u64,
    delays_ms: Vec<i64>,
    queues: Option<QueueBuilder<I>>,
    index: Option<IndexService<I>>,
    report: RebuildReport,
}

impl<'a, I: Io> Rebuild<'a, I> {
    fn begin(
        io: &'a I,
        options: &StoreOptions,
        selection: &'a RebuildSelection,
        dirs: &'a StoreDirs,
        shape: Shape,
        aside: PathBuf,
    ) -> Result<Self, OfflineError> {
        let queues = selection
            .queues
            .then(|| QueueBuilder::new(io, options, dirs, &shape, selection, &aside))
            .transpose()?;
        let index = match &options.index {
            Some(index) if selection.index => {
                let index = IndexOptions {
                    slot_count: shape.index_slot_count,
                    entry_count_max: shape.index_entry_count_max,
                    ..index.clone()
                };
                io.create_dir_all(&aside)?;
                let dir = aside.join("index");
                let opened = IndexService::open(io.clone(), &dir, index, OpenPolicy::Clean);
                let (service, _) = opened.map_err(DispatchError::Index)?;
                Some(service)
            }
            _ => None,
        };
        Ok(Self {
            io,
            selection,
            dirs,
            aside,
            segment_len: shape.segment_len,
            delays_ms: level_delays_ms(&options.delay_levels),
            queues,
            index,
            report: RebuildReport::default(),
        })
    }

    fn read_log(&mut self, progress: &dyn Progress) -> Result<(), OfflineError> {
        let log = SegmentDir::list(self.io, &self.dirs.log, self.segment_len)?;
        let (min, end) = (log.min(), log.end());
        let mut walk = LogWalk::over(log);
        let mut told = min;
        loop {
            match walk.step() {
                LogStep::Record { offset, .. } => {
                    if offset - told >= PROGRESS_LEN {
                        told = offset;
                        let (done, total) = (offset - min, end - min);
                        let phase = "log";
                        progress.at(Step { phase, done, total });
                    }
                    if let Some(view) = walk.reader.record(offset)? {
                        self.report.record_count += 1;
                        self.record(&view)?;
                    }
                }
                LogStep::Damage { len, .. } | LogStep::Gap { len, .. } => {
                    self.report.damaged_len += len;
                }
                LogStep::Unreadable { error, .. } => return Err(error.into()),
                LogStep::Blank { .. } => {}
                LogStep::End { .. } => return Ok(()),
            }
        }
    }

    fn record(&mut self, view: &RecordView<'_>) -> Result<(), OfflineError> {
        let transaction = view.sys_flag().transaction();
        let fields = view.dispatch_fields();
        if let (Some(queues), true) = (&mut self.queues, transaction.takes_queue_offset()) {
            let facts = RecordFacts::new(view, &fields, &self.delays_ms);
            let is_wanted = |topic: &str| {
                self.selection
                    .topic
                    .as_deref()
                    .is_none_or(|only| only == topic)
            };
            if is_wanted(view.topic()) {
                let in_batch = facts.in_batch_queue(view, &fields);
                let is_batch = view.sys_flag().is_inner_batch();
                queues.put(view.topic(), view.queue_id(), facts, in_batch, is_batch)?;
            }
            if queues.has_light_queues() {
                for place in light_places(view, &fields).filter(|place| is_wanted(place.topic)) {
                    let index = place.index;
                    let facts = RecordFacts { index, ..facts };
                    queues.put_light(place.topic, place.queue_id, facts)?;
                }
            }
        }
        if let Some(index) = &self.index
            && transaction != Transaction::Rollback
        {
            for key in fields.index_keys() {
                let offset = view.physical_offset().cast_unsigned();
                index
                    .put(view.topic(), key, offset, view.store_timestamp_ms())
                    .map_err(DispatchError::Index)?;
                self.report.key_count += 1;
            }
        }
        Ok(())
    }

    /// Makes the new files durable; says which directories they replace.
    fn finish(
        mut self,
        progress: &dyn Progress,
    ) -> Result<(RebuildReport, Vec<Swap>), OfflineError> {
        let mut swaps = Vec::new();
        if let Some(queues) = self.queues.take() {
            queues.finish(&mut self.report, progress)?;
            let parts = [
                ("consumequeue", &self.dirs.queues),
                ("consumequeue_ext", &self.dirs.extensions),
                ("batchconsumequeue", &self.dirs.batch_queues),
            ];
            for (name, place) in parts {
                let made = self.aside.join(name);
                match &self.selection.topic {
                    None => swaps.push(Swap::new(made, place.clone())),
                    Some(topic) => swaps.push(Swap::new(made.join(topic), place.join(topic))),
                }
            }
        }
        if let Some(index) = self.index.take() {
            index.close().map_err(DispatchError::Index)?;
            swaps.push(Swap::new(self.aside.join("index"), self.dirs.index.clone()));
        }
        let mut real = Vec::new();
        for swap in swaps {
            if swap.is_needed(self.io)? {
                real.push(swap);
            }
        }
        Ok((self.report, real))
    }
}

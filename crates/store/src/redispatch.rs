//! Recovery's look at the log: each record is dispatched again, which does nothing where its
//! entries exist, and what points into a hole is taken back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use commitlog::{CallerError, Hole, Visitor};
use consumequeue::PutOutcome;
use message::RecordView;
use mmap_core::Io;

use crate::batches;
use crate::dispatch::Dispatcher;
use crate::error::DispatchError;
use crate::options::RecoveryPolicy;
use crate::place::Place;
use crate::progress::{Progress, Step};
use crate::queue_check::{QueueCheck, QueueFault};
use crate::report::Missing;

/// A queue by topic and queue id.
pub(crate) type QueueKey = (String, i32);

/// Damage that the policy does not pass over.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: {len} bytes at offset {offset} of the log are damaged ({reason}), with good records \
     behind them, and the recovery policy is to refuse; start with the policy `report` to go on \
     without them",
    path.display()
)]
pub(crate) struct RefusedDamage {
    path: PathBuf,
    offset: u64,
    len: u64,
    reason: String,
}

/// The visitor of a recovery.
pub(crate) struct Redispatch<'a, I: Io> {
    dispatcher: &'a Dispatcher<I>,
    policy: RecoveryPolicy,
    progress: &'a dyn Progress,
    log_min: u64,
    log_start: u64,
    log_end: u64,
    /// Queues that have to be built again from the whole log.
    pub(crate) check: QueueCheck,
    /// What the holes have taken.
    pub(crate) missing: Vec<Missing>,
    /// The first hole.
    pub(crate) first_hole: Option<u64>,
    /// Queue entries that records of the scan did not have.
    pub(crate) appended_count: u64,
    /// Whether there was no space for entries.
    is_full: bool,
    /// The first record that has no entries, because there was no space for them.
    pub(crate) undispatched_from: Option<u64>,
    /// The next queue offsets behind the records without entries.
    pub(crate) next_offsets: BTreeMap<QueueKey, i64>,
}

impl<'a, I: Io> Redispatch<'a, I> {
    /// For a log that begins at `log_min`, and of which the bytes from `log_start` to `log_end` may
    /// be read.
    pub(crate) fn new(
        dispatcher: &'a Dispatcher<I>,
        check: QueueCheck,
        policy: RecoveryPolicy,
        progress: &'a dyn Progress,
        (log_min, log_start, log_end): (u64, u64, u64),
    ) -> Self {
        Self {
            dispatcher,
            policy,
            progress,
            log_min,
            log_start,
            log_end,
            check,
            missing: Vec::new(),
            first_hole: None,
            appended_count: 0,
            is_full: false,
            undispatched_from: None,
            next_offsets: BTreeMap::new(),
        }
    }

    /// Puts a record into its queues; where it is already, it is compared.
    fn put_to_queues(&mut self, view: &RecordView<'_>) -> Result<(), DispatchError> {
        if self.dispatcher.has_batch_queues(view.topic()) {
            return self.put_to_batches(view);
        }
        let (places, tags_code) = self.dispatcher.places(view);
        for place in places {
            match self.dispatcher.put_at(view, &place, tags_code) {
                Err(DispatchError::Gap { max_index, .. }) => {
                    self.gap(view, &place, tags_code, max_index)?;
                }
                Ok(Some(PutOutcome::Appended)) => {
                    self.appended_count += 1;
                    self.check_first(&place)?;
                }
                Ok(_) => self
                    .check
                    .compare(self.dispatcher, view, &place, tags_code)?,
                // It is empty until it is built anew.
                Err(DispatchError::Queue(error)) if error.is_damage() => {
                    let key = (place.topic.to_owned(), place.queue_id);
                    self.check.add(key, QueueFault::Damaged);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The first message of a queue, which is not the first that it had: if the log is not read from
    /// its beginning, it may hold the others.
    fn check_first(&mut self, place: &Place<'_>) -> Result<(), DispatchError> {
        if place.index == 0 || self.log_start <= self.log_min {
            return Ok(());
        }
        let Some(queue) = self.dispatcher.queues.find(place.topic, place.queue_id) else {
            return Ok(());
        };
        let before = queue.entries.read_entries(place.index - 1, 1)?;
        if before.first().is_none_or(consumequeue::Entry::is_filler) {
            let key = (place.topic.to_owned(), place.queue_id);
            self.check.add(key, QueueFault::Gap);
        }
        Ok(())
    }

    /// Puts a record into its batch queue; where it is already, it is compared.
    fn put_to_batches(&mut self, view: &RecordView<'_>) -> Result<(), DispatchError> {
        let fields = view.dispatch_fields();
        let Some(entry) = batches::entry_of(view, &fields, fields.tags_code()) else {
            return Ok(());
        };
        if self.dispatcher.is_deleted(view, &Place::own(view)) {
            return Ok(());
        }
        let batches = &self.dispatcher.batches;
        let queue = batches.set.find_or_create(view.topic(), view.queue_id())?;
        let key = (view.topic().to_owned(), view.queue_id());
        let is_gap = match queue.last() {
            Some(last) => last.physical_offset < entry.physical_offset && last.next() < entry.base,
            None => entry.base > 0 && self.log_start > self.log_min,
        };
        if is_gap && self.first_hole.is_none() {
            self.check.add(key, QueueFault::Gap);
            return Ok(());
        }
        let outcome = batches.put(view, &fields, entry.tags_code)?;
        if outcome == Some(PutOutcome::AlreadyBuilt)
            && queue.entries(entry.base, 1)?.first() != Some(&entry)
        {
            self.check.add(key, QueueFault::WrongEntry);
        }
        Ok(())
    }

    /// A record whose predecessors in a queue have no entries: a hole has taken them, or the queue
    /// has lost theirs.
    fn gap(
        &mut self,
        view: &RecordView<'_>,
        place: &Place<'_>,
        tags_code: i64,
        max_index: i64,
    ) -> Result<(), DispatchError> {
        let key = (place.topic.to_owned(), place.queue_id);
        if self.first_hole.is_none() || self.check.has(&key) {
            self.check.add(key, QueueFault::Gap);
            return Ok(());
        }
        self.dispatcher.put_or_fill(view, place, tags_code)?;
        self.add_missing(key, max_index, place.index);
        Ok(())
    }

    /// The queue's entries may have told of a part of them before.
    fn add_missing(&mut self, (topic, queue_id): QueueKey, first: i64, end: i64) {
        let count = end - first;
        let is_same = |known: &&mut Missing| {
            known.first == first && known.queue_id == queue_id && known.topic == topic
        };
        match self.missing.iter_mut().find(is_same) {
            Some(known) => known.count = known.count.max(count),
            None => self.missing.push(Missing {
                topic,
                queue_id,
                first,
                count,
            }),
        }
    }

    fn out_of_space(&mut self, error: &DispatchError) {
        tracing::warn!(
            %error,
            "no space for queues and index: later messages are shown to consumers once there is"
        );
        self.is_full = true;
    }

    /// A record that nothing is dispatched for until there is space.
    fn leave(&mut self, view: &RecordView<'_>) {
        let offset = view.physical_offset().cast_unsigned();
        self.undispatched_from.get_or_insert(offset);
        if view.sys_flag().transaction().takes_queue_offset()
            && !self.dispatcher.has_batch_queues(view.topic())
        {
            let key = (view.topic().to_owned(), view.queue_id());
            self.next_offsets.insert(key, view.queue_offset() + 1);
        }
    }

    /// Lets the entries of messages in the hole point to their neighbours.
    fn empty_queues(&mut self, hole: &Hole) -> Result<(), DispatchError> {
        for named in self.dispatcher.queues.set().queues() {
            let lost = named.queue.indexes_within(hole.offset, hole.end())?;
            if !lost.is_empty() {
                named.queue.pass_over(lost.clone())?;
                let key = (named.topic.as_ref().to_owned(), named.queue_id);
                self.add_missing(key, lost.start, lost.end);
            }
        }
        Ok(())
    }
}

impl<I: Io> Visitor for Redispatch<'_, I> {
    fn record(&mut self, view: &RecordView<'_>) -> Result<(), CallerError> {
        if self.is_full {
            self.leave(view);
            return Ok(());
        }
        let outcome = self
            .put_to_queues(view)
            .and_then(|()| self.dispatcher.recover(view));
        match outcome {
            Err(error) if error.is_full() => {
                self.out_of_space(&error);
                self.leave(view);
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    fn hole(&mut self, hole: &Hole) -> Result<(), CallerError> {
        if self.policy == RecoveryPolicy::Refuse {
            return Err(RefusedDamage {
                path: hole.path.clone(),
                offset: hole.offset,
                len: hole.len,
                reason: hole.reason.to_string(),
            }
            .into());
        }
        tracing::warn!(
            path = %hole.path.display(),
            offset = hole.offset,
            len = hole.len,
            reason = %hole.reason,
            "damage in the log is passed over"
        );
        self.first_hole.get_or_insert(hole.offset);
        match self.empty_queues(hole) {
            Err(error) if error.is_full() => {
                self.out_of_space(&error);
                Ok(())
            }
            outcome => outcome.map_err(Into::into),
        }
    }

    fn progress(&mut self, offset: u64) {
        self.progress.at(Step {
            phase: "log",
            done: offset - self.log_start,
            total: self.log_end - self.log_start,
        });
    }
}

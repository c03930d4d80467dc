//! Dispatch: from records of the log to entries of the derived files, and to whoever waits for
//! new messages. RocketMQ calls it reput.
//!
//! One thread follows the log's visible end, and so does whoever ends a burst ([`crate::burst`]), one
//! at a time; recovery uses the same steps. Derived files are fed plain values, and may be built again
//! from the log at any time: a record that is dispatched twice has one entry. What the records that
//! were just put leave behind is known from notes ([`crate::noted`]); all others are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};

use commitlog::{CommitLog, QueueCursor};
use consumequeue::{BatchQueue, ConsumeQueue, ConsumeQueueError, Entry, PutOutcome};
use indexfile::{IndexError, IndexService};
use message::layout::RECORD_LEN_MIN;
use message::{BatchProperties, DispatchFields, Limits, Message, Parsed, RecordView, Transaction};
use mmap_core::Io;
use mmap_core::sabotage::{self, Lie};

use crate::batches::{self, Batches};
use crate::error::{DispatchError, PutError};
use crate::noted::Dispatching;
use crate::notes::{BatchNotes, Hashes, Notes};
use crate::place::{Place, light_places};
use crate::queues::Queues;
use crate::redispatch::QueueKey;

/// Bytes of the log that one step walks at most, so that waiting readers are told soon.
const STEP_LEN_MAX: u64 = 1 << 20;
/// Queue offsets that a queue may leave out without messages: those of an end of the log that was
/// lost are not given away again.
const LEFT_OUT_COUNT_MAX: u64 = 1 << 20;

/// A message that readers can get from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its queue.
    pub queue_id: i32,
    /// The queue offset behind it: the queue's new maximum.
    pub next_offset: i64,
    /// The tags code of its queue entry.
    pub tags_code: i64,
    /// When it was stored, ms.
    pub store_timestamp_ms: i64,
}

/// Is told of each new message by whoever dispatches it, and so must be quick.
pub type ArrivalListener = dyn Fn(&Arrival<'_>) + Send + Sync;

/// Builds derived entries from records.
pub(crate) struct Dispatcher<I: Io> {
    pub(crate) queues: Queues<I>,
    pub(crate) index: Option<IndexService<I>>,
    level_delays_ms: Vec<i64>,
    pub(crate) batches: Batches<I>,
    /// Whether records have entries in the light queues that they name.
    light_queues: bool,
    pub(crate) listener: OnceLock<Arc<ArrivalListener>>,
    /// Messages that say to be the first of a queue that has others.
    firsts: Mutex<BTreeMap<QueueKey, First>>,
    /// What puts have noted down.
    pub(crate) notes: Notes,
    /// Held by whoever dispatches, for a step.
    dispatching: Mutex<Dispatching<I>>,
    /// Everything below has its entries. Written by who dispatches (Release), read by all.
    pub(crate) next_offset: AtomicU64,
    /// Store time of the last dispatched record. Written before `next_offset`.
    pub(crate) last_store_ms: AtomicI64,
    /// Where the last dispatched record lies; `u64::MAX` before the first. As above.
    pub(crate) last_record: AtomicU64,
}

/// The entry of a message that says to be the first of a queue that has others. Either the topic was
/// deleted and created again, and then the second message comes next; or the record is damaged: no CRC
/// covers a queue offset.
#[derive(Debug, Clone, Copy)]
struct First {
    entry: Entry,
    store_ms: Option<i64>,
}

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dispatched {
    queue: Option<PutOutcome>,
    tags_code: i64,
    /// The queue offset behind the record.
    next_offset: i64,
}

impl<I: Io> Dispatcher<I> {
    pub(crate) fn new(
        queues: Queues<I>,
        index: Option<IndexService<I>>,
        level_delays_ms: Vec<i64>,
        batches: Batches<I>,
        light_queues: bool,
    ) -> Self {
        Self {
            queues,
            index,
            level_delays_ms,
            batches,
            light_queues,
            listener: OnceLock::new(),
            firsts: Mutex::default(),
            notes: Notes::default(),
            dispatching: Mutex::default(),
            next_offset: AtomicU64::new(0),
            last_store_ms: AtomicI64::new(0),
            last_record: AtomicU64::new(u64::MAX),
        }
    }

    /// Where the next step begins: everything below has its entries.
    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset.load(Ordering::Acquire)
    }

    /// Everything below `offset` was dispatched by recovery.
    pub(crate) fn start_at(&self, offset: u64) {
        self.next_offset.store(offset, Ordering::Release);
    }

    /// The record at `offset` is the last one that was dispatched before recovery.
    pub(crate) fn go_on_behind(&self, offset: u64, store_ms: i64) {
        self.last_record.store(offset, Ordering::Relaxed);
        self.last_store_ms.store(store_ms, Ordering::Relaxed);
    }

    /// Store time of the last record that has its entries, ms; 0 before the first.
    pub(crate) fn last_store_ms(&self) -> i64 {
        self.last_store_ms.load(Ordering::Relaxed)
    }

    /// Where the last dispatched record lies, recovered ones included.
    pub(crate) fn last_record(&self) -> Option<u64> {
        Some(self.last_record.load(Ordering::Relaxed)).filter(|offset| *offset != u64::MAX)
    }

    /// Sets who is told of new messages; the first one set stays.
    pub(crate) fn listen(&self, listener: Arc<ArrivalListener>) -> bool {
        self.listener.set(listener).is_ok()
    }

    pub(crate) fn has_batch_queues(&self, topic: &str) -> bool {
        self.batches.has(topic)
    }

    /// What can be noted down of a message before it is appended.
    #[inline]
    pub(crate) fn hashes_of(&self, message: &Message<'_>) -> Option<Hashes> {
        (!self.light_queues).then(|| Hashes::of(message)).flatten()
    }

    /// As [`hashes_of`](Self::hashes_of), for a batch of about so many messages.
    pub(crate) fn batch_notes(&self, count: usize, limits: &Limits) -> BatchNotes {
        // The properties of a message must be those of its record.
        let are_own = limits.batch_properties == BatchProperties::Own;
        BatchNotes::new(count, are_own && !self.light_queues)
    }

    /// Dispatches what the log shows, at most [`STEP_LEN_MAX`] bytes of it. `false` when there
    /// was nothing. One thread at a time; others wait.
    pub(crate) fn step(&self, log: &CommitLog<I>) -> Result<bool, DispatchError> {
        // After a panic its notes and queues are whole: they are only read between two records.
        let dispatching = self.dispatching.lock();
        self.step_alone(
            log,
            &mut dispatching.unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// As [`step`](Self::step); `None` while somebody else is at it.
    pub(crate) fn try_step(&self, log: &CommitLog<I>) -> Option<Result<bool, DispatchError>> {
        let mut dispatching = match self.dispatching.try_lock() {
            Ok(dispatching) => dispatching,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(self.step_alone(log, &mut dispatching))
    }

    fn step_alone(
        &self,
        log: &CommitLog<I>,
        dispatching: &mut Dispatching<I>,
    ) -> Result<bool, DispatchError> {
        let start = self.next_offset().max(log.min_offset());
        if self.step_noted(log, start, dispatching)? {
            return Ok(true);
        }
        self.step_read(log, start)
    }

    /// Dispatches records as they stand in the log.
    fn step_read(&self, log: &CommitLog<I>, start: u64) -> Result<bool, DispatchError> {
        let Some(slice) = log.readable_from(start) else {
            return Ok(false);
        };
        let segment_len = log.options().segment_len;
        let mut offset = start;
        let mut rest: &[u8] = &slice;
        while !rest.is_empty() && offset - start < STEP_LEN_MAX {
            match RecordView::parse(rest) {
                Ok(Parsed::Record(view)) => {
                    let fields = view.dispatch_fields();
                    let dispatched = self.put_to_queues(&view, &fields)?;
                    // Before anything else can fail: it can be read, whatever becomes of its keys.
                    self.tell(&view, dispatched);
                    self.put_to_index(&view, &fields)?;
                    self.last_record.store(offset, Ordering::Relaxed);
                    offset += view.total_size() as u64;
                    rest = rest.get(view.total_size()..).unwrap_or_default();
                    self.last_store_ms
                        .store(view.store_timestamp_ms(), Ordering::Relaxed);
                    self.next_offset.store(offset, Ordering::Release);
                }
                Ok(Parsed::Blank { .. }) => {
                    offset = offset - offset % segment_len + segment_len;
                    self.next_offset.store(offset, Ordering::Release);
                    break;
                }
                // Fewer than 8 bytes at a segment's end hold no blank record.
                Err(_) if segment_len - offset % segment_len < 8 => {
                    offset = offset - offset % segment_len + segment_len;
                    self.next_offset.store(offset, Ordering::Release);
                    break;
                }
                Err(source) => return Err(DispatchError::Record { offset, source }),
            }
        }
        Ok(offset > start)
    }

    /// Removes a topic's queues, of either kind.
    pub(crate) fn delete_topic(&self, log: &CommitLog<I>, topic: &str) -> Result<(), PutError> {
        self.delete_queues(log, topic, |_, _| true)?;
        if self.has_batch_queues(topic) {
            // Nothing is appended to such a topic: there are no cursors.
            let log_end = log.retire([])?;
            let queue_ids = self.batches.queue_ids(topic);
            self.queues.note_batches_deleted(topic, &queue_ids, log_end);
            self.batches.delete_topic(topic)?;
        }
        Ok(())
    }

    /// Removes what is left of batch queues whose deletion was cut short.
    pub(crate) fn finish_batch_deletions(&self) -> Result<(), ConsumeQueueError> {
        for topic in self.batches.set.topics() {
            let is_left = |(name, queue_id, queue): &(String, i32, Arc<BatchQueue<I>>)| {
                let last = queue.last().map_or(0, |last| last.physical_offset);
                *name != topic || self.queues.is_deleted(name, *queue_id, last)
            };
            if self.batches.set.queues().iter().all(is_left) {
                self.batches.delete_topic(&topic)?;
            }
        }
        Ok(())
    }

    /// Removes the queues all of whose messages lie below the log's beginning, but for topics that
    /// `keeps` says; returns how many.
    pub(crate) fn delete_expired_queues(
        &self,
        log: &CommitLog<I>,
        keeps: &dyn Fn(&str) -> bool,
    ) -> Result<usize, PutError> {
        let log_min = log.min_offset();
        let is_expired = |entries: &ConsumeQueue<I>| {
            entries
                .max_physical_end()
                .is_some_and(|physical_end| physical_end <= log_min)
        };
        let queues = self.queues.set().queues();
        let topics: BTreeSet<_> = queues
            .into_iter()
            .filter(|named| is_expired(&named.queue) && !keeps(&named.topic))
            .map(|named| named.topic)
            .collect();
        let mut count = 0;
        for topic in topics {
            count += self.delete_queues(log, &topic, |entries, next| {
                // A message that is in the log only has its entry still to come.
                is_expired(entries) && next.is_none_or(|next| next <= entries.max_index())
            })?;
        }
        Ok(count)
    }

    fn delete_queues(
        &self,
        log: &CommitLog<I>,
        topic: &str,
        is_meant: impl Fn(&ConsumeQueue<I>, Option<i64>) -> bool,
    ) -> Result<usize, PutError> {
        let retire = |cursors: &mut dyn Iterator<Item = &QueueCursor>| Ok(log.retire(cursors)?);
        self.queues.delete(topic, is_meant, retire)
    }

    /// Dispatches one record during recovery, but for its queue entries.
    pub(crate) fn recover(&self, view: &RecordView<'_>) -> Result<(), DispatchError> {
        if !sabotage::is_planted(Lie::IndexNotRebuilt) {
            self.put_to_index(view, &view.dispatch_fields())?;
        }
        self.last_store_ms
            .store(view.store_timestamp_ms(), Ordering::Relaxed);
        let offset = view.physical_offset().cast_unsigned();
        self.last_record.store(offset, Ordering::Relaxed);
        Ok(())
    }

    /// Puts a new record into its queues. Its queue offset may leave out those of messages that
    /// recovery found lost at the end of the queue: their places are filled.
    fn put_to_queues(
        &self,
        view: &RecordView<'_>,
        fields: &DispatchFields<'_>,
    ) -> Result<Dispatched, DispatchError> {
        let tags_code = self.tags_code(view, fields);
        let queue = match self.put_to_queue(view, fields, tags_code) {
            Err(error @ DispatchError::Gap { .. }) => {
                tracing::warn!(%error, "queue offsets without a message are passed over");
                self.rebuild_queue_entry(view)?;
                Some(PutOutcome::Appended)
            }
            outcome => outcome?,
        };
        Ok(Dispatched {
            queue,
            tags_code,
            next_offset: self.next_queue_offset(view, fields, tags_code),
        })
    }

    /// Puts a record into its consume queues again, and nowhere else: its own, and light ones. The
    /// places of messages that the log has lost stand for this one.
    pub(crate) fn rebuild_queue_entry(&self, view: &RecordView<'_>) -> Result<(), DispatchError> {
        let (places, tags_code) = self.places(view);
        for place in places {
            self.put_or_fill(view, &place, tags_code)?;
        }
        if self.has_batch_queues(view.topic()) {
            self.put_to_queue(view, &view.dispatch_fields(), tags_code)?;
        }
        Ok(())
    }

    /// As [`rebuild_queue_entry`](Self::rebuild_queue_entry), into some queues only; whether it has
    /// a place in one of them.
    pub(crate) fn rebuild_queue_entries(
        &self,
        view: &RecordView<'_>,
        wanted: &BTreeSet<&QueueKey>,
    ) -> Result<bool, DispatchError> {
        let (places, tags_code) = self.places(view);
        let mut is_wanted = false;
        for place in places {
            let key = (place.topic.to_owned(), place.queue_id);
            if wanted.contains(&key) {
                self.put_or_fill(view, &place, tags_code)?;
                is_wanted = true;
            }
        }
        if self.has_batch_queues(view.topic())
            && wanted.contains(&(view.topic().to_owned(), view.queue_id()))
        {
            self.put_to_queue(view, &view.dispatch_fields(), tags_code)?;
            is_wanted = true;
        }
        Ok(is_wanted)
    }

    /// Puts a record into the index again, and nowhere else.
    pub(crate) fn rebuild_index_entry(&self, view: &RecordView<'_>) -> Result<(), DispatchError> {
        if sabotage::is_planted(Lie::IndexNotRebuilt) {
            return Ok(());
        }
        self.put_to_index(view, &view.dispatch_fields())
    }

    fn next_queue_offset(
        &self,
        view: &RecordView<'_>,
        fields: &DispatchFields<'_>,
        tags_code: i64,
    ) -> i64 {
        let batch = match self.has_batch_queues(view.topic()) {
            true => batches::entry_of(view, fields, tags_code),
            false => None,
        };
        batch.map_or(view.queue_offset() + 1, |batch| batch.next())
    }

    fn tags_code(&self, view: &RecordView<'_>, fields: &DispatchFields<'_>) -> i64 {
        // A level that is no number delays nothing; Java would fail the whole record.
        fields
            .tags_code_of(view, &self.level_delays_ms)
            .unwrap_or_else(|_| fields.tags_code())
    }

    /// Puts a record's entry into its queue, and those into light queues. What became of the
    /// first; light queues complete themselves.
    fn put_to_queue(
        &self,
        view: &RecordView<'_>,
        fields: &DispatchFields<'_>,
        tags_code: i64,
    ) -> Result<Option<PutOutcome>, DispatchError> {
        if self.has_batch_queues(view.topic()) {
            if self.is_deleted(view, &Place::own(view)) {
                return Ok(None);
            }
            return self.batches.put(view, fields, tags_code);
        }
        if !self.has_entry(view) {
            return Ok(None);
        }
        let outcome = self.put_at(view, &Place::own(view), tags_code)?;
        if self.light_queues {
            for place in light_places(view, fields) {
                self.put_or_fill(view, &place, tags_code)?;
            }
        }
        Ok(outcome)
    }

    /// Whether a record has entries in simple consume queues.
    fn has_entry(&self, view: &RecordView<'_>) -> bool {
        let sys_flag = view.sys_flag();
        sys_flag.transaction().takes_queue_offset()
            && !sys_flag.is_inner_batch()
            && !self.has_batch_queues(view.topic())
    }

    /// The places of a record in simple consume queues, with the tags code of its entries: what
    /// [`dispatch`](Self::dispatch) has put.
    pub(crate) fn places<'a>(&self, view: &RecordView<'a>) -> (Vec<Place<'a>>, i64) {
        let fields = view.dispatch_fields();
        let mut places = Vec::new();
        if self.has_entry(view) {
            places.push(Place::own(view));
            if self.light_queues {
                places.extend(light_places(view, &fields));
            }
        }
        (places, self.tags_code(view, &fields))
    }

    /// Puts a record's entry at a place, and copies of it into the places of messages before it
    /// that the log has lost.
    pub(crate) fn put_or_fill(
        &self,
        view: &RecordView<'_>,
        place: &Place<'_>,
        tags_code: i64,
    ) -> Result<(), DispatchError> {
        let (gap, max_index) = match self.put_at(view, place, tags_code) {
            Err(gap @ DispatchError::Gap { max_index, .. }) => (gap, max_index),
            outcome => return outcome.map(drop),
        };
        let queue = self.queues.find_or_create(place.topic, place.queue_id)?;
        if !can_be_missing(view, &queue.entries, place.index - max_index) {
            tracing::warn!(error = %gap, "a queue offset that cannot be; the message has no entry");
            return Ok(());
        }
        let store_ms = place.unit_time_ms(view);
        let entry = entry_of(view, tags_code);
        queue.entries.put_behind_gap(place.index, entry, store_ms)?;
        Ok(())
    }

    /// Puts a record's entry at a place. `None` where it has none, or an earlier message has it.
    pub(crate) fn put_at(
        &self,
        view: &RecordView<'_>,
        place: &Place<'_>,
        tags_code: i64,
    ) -> Result<Option<PutOutcome>, DispatchError> {
        let Place {
            topic,
            queue_id,
            index,
        } = *place;
        if self.is_deleted(view, place) {
            return Ok(None);
        }
        let queue = self.queues.find_or_create(topic, queue_id)?;
        // Asked again: the queue may have been deleted and made anew since.
        if self.is_deleted(view, place) {
            return Ok(None);
        }
        let entry = entry_of(view, tags_code);
        let store_ms = place.unit_time_ms(view);
        if index == 1 {
            self.begin_anew(&queue.entries, place, &entry)?;
        }
        let outcome = match queue.entries.put_stored(index, entry, store_ms) {
            // The topic was deleted since the queue was found.
            Err(ConsumeQueueError::Deleted { .. }) if self.is_deleted(view, place) => {
                return Ok(None);
            }
            outcome => outcome?,
        };
        match outcome {
            PutOutcome::Gap { max_index } => Err(DispatchError::Gap {
                topic: topic.to_owned(),
                queue_id,
                index,
                max_index,
                physical_offset: view.physical_offset(),
            }),
            PutOutcome::Occupied { .. } if index == 0 => {
                let key = (topic.to_owned(), queue_id);
                let mut firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner);
                firsts.insert(key, First { entry, store_ms });
                Ok(None)
            }
            PutOutcome::Occupied { max_index } => {
                // Java 5.3.3 can use a queue offset twice after a restart; like it, we keep the
                // first message's entry. The record stays findable by key and offset.
                tracing::warn!(
                    topic,
                    queue_id,
                    index,
                    max_index,
                    physical_offset = view.physical_offset(),
                    "a queue offset is taken; the message has no entry in its queue"
                );
                Ok(None)
            }
            outcome => Ok(Some(outcome)),
        }
    }

    /// Before a queue's second message: if another first one came since those that the queue holds, its
    /// topic was deleted and created again, and the queue begins anew with that one.
    fn begin_anew(
        &self,
        queue: &ConsumeQueue<I>,
        place: &Place<'_>,
        second: &Entry,
    ) -> Result<(), DispatchError> {
        let mut firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner);
        if firsts.is_empty() {
            return Ok(());
        }
        let key = (place.topic.to_owned(), place.queue_id);
        let Some(First { entry, store_ms }) = firsts.remove(&key) else {
            return Ok(());
        };
        let last_end = queue.max_physical_end().unwrap_or(0).cast_signed();
        // The log may be read for the second time.
        if (last_end..second.physical_offset).contains(&entry.physical_offset) {
            queue.truncate(0)?;
            queue.put_stored(0, entry, store_ms)?;
        }
        Ok(())
    }

    /// Whether a record was of a queue at a place that has been deleted since.
    pub(crate) fn is_deleted(&self, view: &RecordView<'_>, place: &Place<'_>) -> bool {
        let Place {
            topic, queue_id, ..
        } = *place;
        let offset = view.physical_offset();
        self.queues.is_deleted(topic, queue_id, offset)
    }

    fn put_to_index(
        &self,
        view: &RecordView<'_>,
        fields: &DispatchFields<'_>,
    ) -> Result<(), DispatchError> {
        let Some(index) = &self.index else {
            return Ok(());
        };
        if view.sys_flag().transaction() == Transaction::Rollback {
            return Ok(());
        }
        for key in fields.index_keys() {
            let offset = view.physical_offset().cast_unsigned();
            match index.put(view.topic(), key, offset, view.store_timestamp_ms()) {
                // Readers of queues need not wait for it: the next start completes the index.
                Err(IndexError::Poisoned) => return Ok(()),
                outcome => outcome?,
            };
        }
        Ok(())
    }

    fn tell(&self, view: &RecordView<'_>, dispatched: Dispatched) {
        if let (Some(listener), Some(_)) = (self.listener.get(), dispatched.queue) {
            listener(&Arrival {
                topic: view.topic(),
                queue_id: view.queue_id(),
                next_offset: dispatched.next_offset,
                tags_code: dispatched.tags_code,
                store_timestamp_ms: view.store_timestamp_ms(),
            });
        }
    }
}

fn entry_of(view: &RecordView<'_>, tags_code: i64) -> Entry {
    Entry {
        physical_offset: view.physical_offset(),
        size: i32::try_from(view.total_size()).unwrap_or(i32::MAX),
        tags_code,
    }
}

/// Whether `count` messages of a queue can have been in the log between its last one and this
/// record. Nothing checks the queue offset in a record's header: one that damage has made huge
/// must not fill the disk.
fn can_be_missing<I: Io>(view: &RecordView<'_>, queue: &ConsumeQueue<I>, count: i64) -> bool {
    let last_end = queue.max_physical_end().unwrap_or(0);
    let between = view
        .physical_offset()
        .cast_unsigned()
        .saturating_sub(last_end);
    count.cast_unsigned() <= between / RECORD_LEN_MIN as u64 + LEFT_OUT_COUNT_MAX
}

impl<I: Io> std::fmt::Debug for Dispatcher<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("next_offset", &self.next_offset())
            .finish()
    }
}

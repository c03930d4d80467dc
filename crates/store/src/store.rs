//! The store: what embedders and the broker hold.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use commitlog::{AppendError, Appended, AppendedBatch, Clock, CommitLog, FlushMode, SystemClock};
use consumequeue::{BatchQueue, Boundary, Entry};
use message::{BatchView, Message, Parsed, PreparedRecord, RecordView, Stamp};
use mmap_core::transfer::FileRange;
use mmap_core::{Io, MapSlice, OsIo};

use crate::burst::Burst;
use crate::clean::{CleanError, Cleaned, Cleaner};
use crate::core::Core;
use crate::dispatch::ArrivalListener;
use crate::dispatched;
use crate::error::{CloseError, DispatchError, OpenError, PutError, ReadError};
use crate::filter::Filter;
use crate::get::{self, Get, GetLimits, GetStatus};
use crate::health::{Health, Troubles};
use crate::messages::Messages;
use crate::open::{self, Opened};
use crate::options::StoreOptions;
use crate::place::Place;
use crate::progress::{NoProgress, Progress};
use crate::query::{self, KeyAnswer, KeyQuery};
use crate::queues::{QUEUE_ID_MAX, Queue};
use crate::report::OpenReport;
use crate::residency::{Residency, Wait};
use crate::services::Services;

/// What memory is taken for at first when a batch comes.
const BATCH_COUNT_USUAL: usize = 32;

/// A message store in a directory. See the [crate](crate)'s documentation.
#[derive(Debug)]
pub struct MessageStore<I: Io = OsIo> {
    core: Arc<Core<I>>,
    /// `None` when the caller steps the services itself, and once the store is closed.
    services: Mutex<Option<Services<I>>>,
}

/// What became of a batch.
#[derive(Debug)]
pub struct PutBatch {
    /// The records together.
    pub appended: AppendedBatch,
    /// Where each of them starts in the log.
    pub physical_offsets: Vec<u64>,
}

impl MessageStore<OsIo> {
    /// Opens the store in `options.root`, recovering it if it was not closed, and starts its
    /// threads.
    ///
    /// # Errors
    /// See [`OpenError`]: another owner, other sizes, foreign files, I/O.
    pub fn open(options: StoreOptions) -> Result<(Self, OpenReport), OpenError> {
        Self::open_showing(options, &NoProgress)
    }

    /// As [`open`](Self::open), and tells `progress` how far a long recovery has come.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_showing(
        options: StoreOptions,
        progress: &dyn Progress,
    ) -> Result<(Self, OpenReport), OpenError> {
        let clock = Arc::new(SystemClock::new());
        let (store, report) = Self::recover(OsIo, options, clock, progress)?;
        store.start_services()?;
        Ok((store, report))
    }
}

impl<I: Io> MessageStore<I> {
    /// Opens a store on any device with any clock, without threads: call
    /// [`start_services`](Self::start_services), or the steps.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with(
        io: I,
        options: StoreOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, OpenReport), OpenError> {
        Self::recover(io, options, clock, &NoProgress)
    }

    fn recover(
        io: I,
        options: StoreOptions,
        clock: Arc<dyn Clock>,
        progress: &dyn Progress,
    ) -> Result<(Self, OpenReport), OpenError> {
        let Opened {
            ownership,
            checkpoint,
            log,
            dispatcher,
            marks,
            dispatched,
            run_id,
            state,
            report,
        } = open::open(&io, &options, &clock, progress)?;
        let dispatched = dispatched.map(Arc::new);
        if let Some(marks) = dispatched.clone() {
            log.on_failure(move || marks.forget());
        }
        let core = Core {
            io,
            options,
            log,
            dispatcher,
            marks,
            checkpoint,
            ownership,
            flushing_derived: Mutex::default(),
            dispatched,
            run_id,
            sync_target: Mutex::default(),
            state: Mutex::new(state),
            residency: Residency::new(Arc::clone(&clock)),
            clock,
            cleaner: Cleaner::default(),
            troubles: Troubles::default(),
            no_space: Mutex::default(),
        };
        // The machine's run, and that everything is synced up to here. The service tries again; in
        // the run of before it comes early enough.
        if !report.is_power_kept
            && let Err(error) = core.step_flush_derived()
        {
            tracing::warn!(%error, "cannot sync queues, index or checkpoint");
        }
        core.remember_later();
        core.mark_dispatched();
        Ok((
            Self {
                core: Arc::new(core),
                services: Mutex::new(None),
            },
            report,
        ))
    }

    /// Starts the store's threads: flush, preallocation, dispatch.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start_services(&self) -> Result<(), OpenError> {
        let services = Services::start(&self.core)?;
        *self.lock_services() = Some(services);
        Ok(())
    }

    /// The options it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.core.options
    }

    /// The log, for what this facade does not offer.
    pub fn log(&self) -> &CommitLog<I> {
        &self.core.log
    }

    /// Stores a message at the end of its queue. The message is in the log on return; whether it
    /// survives a power loss is what the ticket says.
    ///
    /// # Errors
    /// See [`PutError`]. Nothing was stored then, and no queue offset used.
    pub fn put(&self, message: &Message<'_>) -> Result<Appended, PutError> {
        self.core.check_space()?;
        let mut record = self.core.log.prepare(message)?;
        let dispatcher = &self.core.dispatcher;
        let hashes = dispatcher.hashes_of(message);
        let len = record.len();
        let appended = self.append_to(message, |queue| {
            let note = |stamp: &Stamp| {
                if let Some(hashes) = hashes {
                    dispatcher.notes.add(hashes.at(stamp, len, queue.number));
                }
            };
            self.core.log.append_noted(&mut record, &queue.cursor, note)
        })?;
        Ok(appended)
    }

    /// Stores the messages of a client's batch: all of them, one behind the other, or none. The
    /// body of `message` is the batch; its topic, queue, hosts and times are those of each
    /// message.
    ///
    /// # Errors
    /// See [`PutError`]. Nothing was stored then.
    pub fn put_batch(&self, message: &Message<'_>) -> Result<PutBatch, PutError> {
        self.core.check_space()?;
        let limits = &self.core.options.limits;
        let dispatcher = &self.core.dispatcher;
        let mut records = Vec::with_capacity(BATCH_COUNT_USUAL);
        let mut notes = dispatcher.batch_notes(BATCH_COUNT_USUAL, limits);
        for inner in BatchView::new(message.body) {
            let inner = inner?;
            let record = PreparedRecord::of_batch_message(message, &inner, limits)?;
            notes.add(&message.single(&inner), record.len());
            records.push(record);
        }
        let appended = self.append_to(message, |queue| {
            let note = |first: &Stamp| dispatcher.notes.add_all(&notes, first, queue.number);
            let log = &self.core.log;
            log.append_batch_noted(&mut records, &queue.cursor, note)
        })?;
        let mut next = appended.physical_offset;
        let offset_of = |record: &PreparedRecord<'_>| {
            let offset = next;
            next += record.len() as u64;
            offset
        };
        let physical_offsets = records.iter().map(offset_of).collect();
        Ok(PutBatch {
            appended,
            physical_offsets,
        })
    }

    /// Begins a burst of puts: see [`Burst`]. `None` where what is put is not visible at once, which
    /// the flush service sees to.
    pub fn burst(&self) -> Option<Burst<I>> {
        matches!(self.core.options.flush, FlushMode::Async { .. }).then(|| Burst::begin(&self.core))
    }

    /// Reads a queue from `offset`. What is found can be read without copying, for as long as the
    /// answer is held. What is not in memory is waited for.
    ///
    /// # Errors
    /// When the queue's file cannot be read.
    pub fn get(
        &self,
        topic: &str,
        queue_id: i32,
        offset: i64,
        limits: &GetLimits,
        filter: &dyn Filter,
    ) -> Result<Get<I>, ReadError> {
        let from = Place {
            topic,
            queue_id,
            index: offset,
        };
        self.get_waiting(&from, limits, filter, Wait::ForDevice)
    }

    /// As [`get`](Self::get), of what is in memory: for a thread that must not wait for the device.
    /// It ends before a message that is not, which the next one then begins with.
    ///
    /// # Errors
    /// As [`get`](Self::get). [`ReadError::is_not_in_memory`]: another thread has to get it.
    pub fn get_in_memory(
        &self,
        topic: &str,
        queue_id: i32,
        offset: i64,
        limits: &GetLimits,
        filter: &dyn Filter,
    ) -> Result<Get<I>, ReadError> {
        let from = Place {
            topic,
            queue_id,
            index: offset,
        };
        self.get_waiting(&from, limits, filter, Wait::Never)
    }

    fn get_waiting(
        &self,
        from: &Place<'_>,
        limits: &GetLimits,
        filter: &dyn Filter,
        wait: Wait,
    ) -> Result<Get<I>, ReadError> {
        let core = &self.core;
        let source = get::Source {
            log: &core.log,
            residency: &core.residency,
            wait,
        };
        if let Some(queue) = core.dispatcher.queues.find(from.topic, from.queue_id) {
            return get::get(source, &queue, from, limits, &core.options, filter);
        }
        match self.find_batches(from.topic, from.queue_id) {
            Some(queue) => {
                let bounds = &core.options.read;
                get::get_batches(source, &queue, from, limits, bounds, filter)
            }
            None => Ok(Get::empty(GetStatus::NoMatchedLogicQueue, 0, 0, 0)),
        }
    }

    /// Where in their files messages of this store lie, one range for each of their slices: to be
    /// sent from there.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn file_ranges(
        &self,
        messages: &Messages<I>,
    ) -> Result<Vec<FileRange<I::File>>, ReadError> {
        let segments = self.core.log.segments();
        let range = |(offset, len)| {
            let range = segments.file_range(offset, len)?;
            range.ok_or(ReadError::Gone { offset })
        };
        messages.places().map(range).collect()
    }

    /// The record that starts at a log offset; `None` where none does, or it cannot be read.
    pub fn look_up(&self, physical_offset: u64) -> Option<MapSlice<I::Map>> {
        self.record_at(physical_offset).ok().flatten()
    }

    /// The record that starts at a log offset; `None` where none does.
    ///
    /// # Errors
    /// When the device does not give it.
    pub fn record_at(&self, physical_offset: u64) -> Result<Option<MapSlice<I::Map>>, ReadError> {
        match self.core.log.record_at(physical_offset) {
            Err(commitlog::ReadError::Device(error)) => Err(ReadError::Log(error)),
            found => Ok(found.ok()),
        }
    }

    /// Finds messages by key.
    ///
    /// # Errors
    /// When the index cannot be read, or there is none.
    pub fn query(&self, query: &KeyQuery<'_>) -> Result<KeyAnswer<I>, ReadError> {
        let index = self
            .core
            .dispatcher
            .index
            .as_ref()
            .ok_or(ReadError::NoIndex)?;
        query::by_key(&self.core.log, index, query)
    }

    /// The first offset of a queue; `None` for a queue that is not there.
    pub fn min_offset(&self, topic: &str, queue_id: i32) -> Option<i64> {
        let simple = self.find(topic, queue_id);
        simple.map(|queue| queue.entries.min_index()).or_else(|| {
            self.find_batches(topic, queue_id)
                .map(|queue| queue.min_index())
        })
    }

    /// The offset behind a queue's last readable message; `None` for a queue that is not there.
    pub fn max_offset(&self, topic: &str, queue_id: i32) -> Option<i64> {
        let simple = self.find(topic, queue_id);
        let simple = simple.map(|queue| get::readable_end(&self.core.log, &queue));
        simple.or_else(|| {
            self.find_batches(topic, queue_id)
                .map(|queue| queue.max_index())
        })
    }

    /// The offset of a queue's message by store time; 0 for a queue that is not there. The
    /// answers at the edges are RocketMQ's, see [`Boundary`].
    ///
    /// # Errors
    /// When the queue's file cannot be read.
    pub fn offset_by_time(
        &self,
        topic: &str,
        queue_id: i32,
        timestamp_ms: i64,
        boundary: Boundary,
    ) -> Result<i64, ReadError> {
        let Some(queue) = self.find(topic, queue_id) else {
            return match self.find_batches(topic, queue_id) {
                Some(queue) => Ok(queue.index_by_time(timestamp_ms, boundary)?),
                None => Ok(0),
            };
        };
        let unreadable = Cell::new(None);
        let store_time = |entry: &Entry| match self.store_time_of(entry) {
            Ok(time) => time,
            Err(error) => {
                unreadable.set(Some(error));
                None
            }
        };
        let found = queue
            .entries
            .index_by_time(timestamp_ms, boundary, &store_time)?;
        match unreadable.into_inner() {
            Some(error) => Err(error),
            None => Ok(found),
        }
    }

    /// When the message at a queue offset was stored, ms; `None` when it is not there.
    ///
    /// # Errors
    /// When the queue's file cannot be read.
    pub fn store_time_at(
        &self,
        topic: &str,
        queue_id: i32,
        offset: i64,
    ) -> Result<Option<i64>, ReadError> {
        match self.entry(topic, queue_id, offset)? {
            Some(entry) => self.store_time_of(&entry),
            None => Ok(None),
        }
    }

    /// When the oldest message of the log was stored, ms; `None` for an empty log.
    pub fn earliest_store_time(&self) -> Option<i64> {
        let slice = self.core.log.record_at(self.core.log.min_offset()).ok()?;
        match RecordView::parse(&slice) {
            Ok(Parsed::Record(view)) => Some(view.store_timestamp_ms()),
            _ => None,
        }
    }

    /// The entry of a queue offset, in a batch queue that of the record with the message; `None`
    /// when it is not there.
    ///
    /// # Errors
    /// When the queue's file cannot be read.
    pub fn entry(
        &self,
        topic: &str,
        queue_id: i32,
        offset: i64,
    ) -> Result<Option<Entry>, ReadError> {
        match self.find(topic, queue_id) {
            Some(queue) => Ok(queue.entries.entry(offset)?),
            None => match self.find_batches(topic, queue_id) {
                Some(queue) => Ok(queue.entries(offset, 1)?.first().map(get::entry_of_batch)),
                None => Ok(None),
            },
        }
    }

    /// Sets who is told of new messages. The first listener stays; `false` for a later one.
    pub fn listen(&self, listener: Arc<ArrivalListener>) -> bool {
        self.core.dispatcher.listen(listener)
    }

    /// Bytes of the log that readers could see and whose entries are not built yet.
    pub fn dispatch_behind_bytes(&self) -> u64 {
        self.core
            .log
            .visible()
            .saturating_sub(self.core.dispatcher.next_offset())
    }

    /// Removes a topic's queues; its messages stay in the log until they expire. A put to the topic
    /// meanwhile comes before or after: then it begins the queue anew.
    ///
    /// # Errors
    /// When a file cannot be removed, or the log has failed.
    pub fn delete_topic(&self, topic: &str) -> Result<(), PutError> {
        let core = &self.core;
        core.dispatcher.delete_topic(&core.log, topic)
    }

    /// Removes the queues all of whose messages have expired, but for topics that `keeps` says;
    /// returns how many (RocketMQ: `cleanExpiredConsumeQueue`). Their numbering begins anew.
    ///
    /// # Errors
    /// As [`delete_topic`](Self::delete_topic).
    pub fn delete_expired_queues(&self, keeps: &dyn Fn(&str) -> bool) -> Result<usize, PutError> {
        let core = &self.core;
        core.dispatcher.delete_expired_queues(&core.log, keeps)
    }

    /// The topics that have queues, each with one more than its highest queue id.
    pub fn topics(&self) -> BTreeMap<String, i32> {
        let mut topics = BTreeMap::new();
        for named in self.core.dispatcher.queues.set().queues() {
            let count = topics.entry(named.topic.to_string()).or_insert(0);
            *count = named.queue_id.saturating_add(1).max(*count);
        }
        topics
    }

    /// The topics that have batch queues, each with one more than its highest queue id.
    pub fn batch_topics(&self) -> BTreeMap<String, i32> {
        let mut topics = BTreeMap::new();
        for (topic, queue_id, _) in self.core.dispatcher.batches.set.queues() {
            let count = topics.entry(topic).or_insert(0);
            *count = queue_id.saturating_add(1).max(*count);
        }
        topics
    }

    /// Lets what is old enough go at any hour, in the next rounds of cleaning (RocketMQ:
    /// `executeDeleteFilesManually`).
    pub fn clean_manually(&self) {
        self.core.cleaner.ask_manually();
    }

    /// How the store is doing.
    pub fn health(&self) -> Health {
        self.core.health()
    }

    /// Looks at the disks and at the log's state. For a store without threads.
    pub fn step_watch(&self) {
        self.core.step_watch();
    }

    /// Unmaps what nobody has read for a while, and what is beyond the budget of mapped bytes. For a
    /// store without threads.
    pub fn step_unmap(&self) {
        self.core.step_unmap();
    }

    /// One round of cleaning; see [`CleanOptions`](crate::CleanOptions). `pause` is called between
    /// two files, and says whether to go on. For a store without threads.
    ///
    /// # Errors
    /// See [`CleanError`]; the next round tries again.
    pub fn step_clean(
        &self,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Cleaned, CleanError> {
        self.core.step_clean(pause)
    }

    /// Does a piece of the dispatcher's work; `false` when there was none. For a store without
    /// threads.
    ///
    /// # Errors
    /// See [`DispatchError`]; the next call tries again.
    pub fn step_dispatch(&self) -> Result<bool, DispatchError> {
        self.core.step_dispatch()
    }

    /// Syncs queues, index and checkpoint. For a store without threads.
    ///
    /// # Errors
    /// When a sync fails.
    pub fn step_flush_derived(&self) -> Result<(), CloseError> {
        self.core.step_flush_derived()
    }

    /// Closes the store: stops its threads, dispatches and syncs everything, removes the `abort`
    /// file, releases the lock once nobody holds the store any more.
    ///
    /// # Errors
    /// See [`CloseError`]; the next opening recovers then.
    pub fn close(&self) -> Result<(), CloseError> {
        let services = self.lock_services().take();
        drop(services);
        let core = &self.core;
        core.log.close()?;
        while core.step_dispatch()? {}
        core.step_flush_derived()?;
        // What was flushed by closing the log counts from the second time on.
        core.step_flush_derived()?;
        core.marks.save(core.log.min_offset(), &core.dispatcher);
        dispatched::remove(&core.io, &core.options.own_dir())?;
        core.ownership.mark_closed(&core.io)?;
        Ok(())
    }

    fn find(&self, topic: &str, queue_id: i32) -> Option<Arc<Queue<I>>> {
        self.core.dispatcher.queues.find(topic, queue_id)
    }

    fn find_batches(&self, topic: &str, queue_id: i32) -> Option<Arc<BatchQueue<I>>> {
        let batches = &self.core.dispatcher.batches;
        batches
            .has(topic)
            .then(|| batches.set.find(topic, queue_id))?
    }

    /// Appends to the message's queue, again if its topic was deleted between the two.
    fn append_to<T>(
        &self,
        message: &Message<'_>,
        mut append: impl FnMut(&Queue<I>) -> Result<T, AppendError>,
    ) -> Result<T, PutError> {
        loop {
            let queue = self.queue_for_put(message)?;
            match append(&queue) {
                Err(AppendError::Retired) => {}
                outcome => {
                    self.core.note_append(&outcome);
                    return Ok(outcome?);
                }
            }
        }
    }

    fn queue_for_put(&self, message: &Message<'_>) -> Result<Arc<Queue<I>>, PutError> {
        let Message {
            topic, queue_id, ..
        } = *message;
        if !(0..=QUEUE_ID_MAX).contains(&queue_id) {
            let topic = topic.to_owned();
            return Err(PutError::QueueId {
                topic,
                queue_id,
                max: QUEUE_ID_MAX,
            });
        }
        if message.sys_flag.is_inner_batch() {
            return Err(PutError::Unsupported {
                what: "an inner batch",
            });
        }
        if self.core.dispatcher.has_batch_queues(topic) {
            let dir = self.core.options.batch_queue_dir();
            return Err(PutError::BatchQueues {
                topic: topic.to_owned(),
                dir,
            });
        }
        Ok(self
            .core
            .dispatcher
            .queues
            .find_or_create(topic, queue_id)?)
    }

    fn store_time_of(&self, entry: &Entry) -> Result<Option<i64>, ReadError> {
        let slice = match u64::try_from(entry.physical_offset) {
            Ok(offset) => self.record_at(offset)?,
            Err(_) => None,
        };
        Ok(match slice.as_deref().map(RecordView::parse) {
            Some(Ok(Parsed::Record(view))) => Some(view.store_timestamp_ms()),
            _ => None,
        })
    }

    fn lock_services(&self) -> std::sync::MutexGuard<'_, Option<Services<I>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Whether the consume queues say what the log says, from the log alone; and what is done about
//! those that do not: they are built again.
//!
//! - Each record that recovery dispatches again is compared with the entry that is there.
//! - The last entry of each queue that has changed since the store wrote down its end must be that
//!   of the record it points to: then the queue's length is true.
//! - A queue that ends below its mark ([`QueueMarks`]), or behind whose end the log has messages, has
//!   lost entries.
//!
//! What is older than all that is compared when it is read (`get`): an entry never leads to another
//! message.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use commitlog::CommitLog;
use consumequeue::{ConsumeQueue, DoubtfulQueue, Entry};
use message::{Parsed, RecordView};
use mmap_core::Io;
use segment_queue::{FlushPolicy, SegmentQueue};

use crate::dispatch::Dispatcher;
use crate::error::{DispatchError, OpenError};
use crate::get::entry_of_batch;
use crate::place::{Place, index_in};
use crate::queue_marks::{MarksFile, QueueMarks};
use crate::redispatch::QueueKey;

/// Entries read at once around one that is compared.
const WINDOW_COUNT: i64 = 204;
/// Windows kept at most: 4 KiB each.
const WINDOW_MAX: usize = 4096;
/// Entries of one queue that are compared with their records in detail. More make it a matter for
/// a rebuild at once.
const SUSPECT_MAX: usize = 64;
/// A record larger than this is not read to check an entry.
const RECORD_LEN_MAX: u64 = 256 << 20;

/// Why a queue is built again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum QueueFault {
    /// Entries before a new one are missing.
    Gap,
    /// A message of the log has no entry, though later ones have.
    MissingEntry,
    /// An entry is not that of the message at its place.
    WrongEntry,
    /// The queue ends before it ended when the store was last closed or recovered.
    Shorter,
    /// Files are short or missing, or something in the middle is no entry.
    Damaged,
    /// An earlier rebuild was cut short, or a sync has failed.
    Unfinished,
}

/// A queue that was built again, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuiltQueue {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue_id: i32,
    /// Why.
    pub fault: QueueFault,
}

impl fmt::Display for RebuiltQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fault {
            QueueFault::Gap | QueueFault::MissingEntry => "entries were missing",
            QueueFault::WrongEntry => "an entry was not its message's",
            QueueFault::Shorter => "it was shorter than before",
            QueueFault::Damaged => "its files were damaged",
            QueueFault::Unfinished => "an earlier rebuild was cut short, or a sync has failed",
        };
        write!(f, "{}-{}: {what}", self.topic, self.queue_id)
    }
}

/// Collects what is wrong with queues while the log is read.
#[derive(Debug)]
pub(crate) struct QueueCheck {
    /// What was remembered when the store was opened.
    marks: QueueMarks,
    /// Entries of messages below are as who dispatched them left them.
    believed_end: u64,
    /// Queues whose rebuild was cut short, or of which a sync has failed.
    unfinished: QueueMarks,
    doubtful: Vec<DoubtfulQueue>,
    faults: BTreeMap<QueueKey, QueueFault>,
    /// Entries that may be those of other messages with the same queue offset.
    suspects: HashMap<QueueKey, Vec<(i64, Entry)>>,
    windows: HashMap<QueueKey, Window>,
}

/// Entries of a queue from an index on.
#[derive(Debug)]
struct Window {
    first: i64,
    entries: Vec<Entry>,
}

impl QueueCheck {
    pub(crate) fn new(
        marks: QueueMarks,
        unfinished: QueueMarks,
        doubtful: Vec<DoubtfulQueue>,
    ) -> Self {
        let fault = |key: &QueueKey| (key.clone(), QueueFault::Unfinished);
        Self {
            faults: unfinished.ends.keys().map(fault).collect(),
            marks,
            believed_end: 0,
            unfinished,
            doubtful,
            suspects: HashMap::new(),
            windows: HashMap::new(),
        }
    }

    /// The entries of messages below `end` are as who dispatched them left them. Those behind are
    /// compared when their records are dispatched again.
    pub(crate) fn believe_below(&mut self, end: u64) {
        self.believed_end = end;
    }

    /// The queue has to be built again.
    pub(crate) fn add(&mut self, key: QueueKey, fault: QueueFault) {
        self.faults.entry(key).or_insert(fault);
    }

    pub(crate) fn has(&self, key: &QueueKey) -> bool {
        self.faults.contains_key(key)
    }

    /// What is wrong, when all has been looked at.
    pub(crate) fn faults(&self) -> &BTreeMap<QueueKey, QueueFault> {
        &self.faults
    }

    /// The queues that were built again.
    pub(crate) fn rebuilt(&self) -> Vec<RebuiltQueue> {
        let rebuilt = |((topic, queue_id), fault): (&QueueKey, &QueueFault)| RebuiltQueue {
            topic: topic.clone(),
            queue_id: *queue_id,
            fault: *fault,
        };
        self.faults.iter().map(rebuilt).collect()
    }

    /// Compares a record that was dispatched before with the entry at its place.
    pub(crate) fn compare<I: Io>(
        &mut self,
        dispatcher: &Dispatcher<I>,
        view: &RecordView<'_>,
        place: &Place<'_>,
        tags_code: i64,
    ) -> Result<(), DispatchError> {
        let Some(queue) = dispatcher.queues.find(place.topic, place.queue_id) else {
            return Ok(());
        };
        let key = (place.topic.to_owned(), place.queue_id);
        let Some(found) = self.entry_at(&queue.entries, &key, place.index)? else {
            self.add(key, QueueFault::MissingEntry);
            return Ok(());
        };
        let is_same = found.physical_offset == view.physical_offset()
            && u64::try_from(found.size).ok() == Some(view.total_size() as u64);
        if is_same {
            if place.index == 0 {
                // What came before was of a topic that has been deleted since.
                self.suspects.remove(&key);
                if self.faults.get(&key) != Some(&QueueFault::Unfinished) {
                    self.faults.remove(&key);
                }
            }
            let code = queue.entries.tags_code(&found)?;
            // In the delay topic it follows the configuration of the day.
            let is_known = code == Some(tags_code)
                || (code.is_some() && place.topic == message::names::topic::SCHEDULE);
            if !is_known {
                self.add(key, QueueFault::WrongEntry);
            }
            return Ok(());
        }
        let suspects = self.suspects.entry(key.clone()).or_default();
        if suspects.len() < SUSPECT_MAX {
            suspects.push((place.index, found));
        } else {
            self.add(key, QueueFault::WrongEntry);
        }
        Ok(())
    }

    /// The entry at an index; `None` where no message's is.
    fn entry_at<I: Io>(
        &mut self,
        queue: &ConsumeQueue<I>,
        key: &QueueKey,
        index: i64,
    ) -> Result<Option<Entry>, DispatchError> {
        let inside = |window: &Window| {
            let position = usize::try_from(index - window.first).ok()?;
            window.entries.get(position).copied()
        };
        if let Some(entry) = self.windows.get(key).and_then(inside) {
            return Ok(Some(entry).filter(|entry| !entry.is_filler()));
        }
        let entries = queue.read_entries(index, WINDOW_COUNT as usize)?;
        let entry = entries.first().copied();
        if self.windows.len() >= WINDOW_MAX {
            self.windows.clear();
        }
        let window = Window {
            first: index,
            entries,
        };
        self.windows.insert(key.clone(), window);
        Ok(entry.filter(|entry| !entry.is_filler()))
    }

    /// Looks at everything that the scan could not: the log is open now, and ends where it ends.
    pub(crate) fn finish<I: Io>(
        &mut self,
        log: &CommitLog<I>,
        dispatcher: &Dispatcher<I>,
    ) -> Result<(), OpenError> {
        self.windows = HashMap::new();
        let mut records = Records::new(log.segments());
        for (key, suspects) in std::mem::take(&mut self.suspects) {
            for (index, entry) in suspects {
                if !records.has_place(&entry, &key, index)? {
                    self.add(key, QueueFault::WrongEntry);
                    break;
                }
            }
        }
        self.check_doubtful(&mut records, dispatcher)?;
        self.check_ends(&mut records, log, dispatcher)
    }

    /// Queues behind whose end something was found: whether a message of the log.
    fn check_doubtful<I: Io>(
        &mut self,
        records: &mut Records<'_, I>,
        dispatcher: &Dispatcher<I>,
    ) -> Result<(), OpenError> {
        for doubtful in std::mem::take(&mut self.doubtful) {
            let key = (doubtful.topic.as_ref().to_owned(), doubtful.queue_id);
            let Some(queue) = dispatcher.queues.set().find(&key.0, key.1) else {
                continue;
            };
            let mut is_lost = doubtful.doubt.is_damage;
            for (index, entry) in &doubtful.doubt.behind {
                is_lost = is_lost
                    || (*index >= queue.max_index() && records.has_place(entry, &key, *index)?);
            }
            if is_lost {
                self.add(key, QueueFault::Damaged);
            }
        }
        Ok(())
    }

    /// Queues that end below their marks, or whose last entry is not true.
    fn check_ends<I: Io>(
        &mut self,
        records: &mut Records<'_, I>,
        log: &CommitLog<I>,
        dispatcher: &Dispatcher<I>,
    ) -> Result<(), OpenError> {
        let set = dispatcher.queues.set();
        let batches = &dispatcher.batches;
        let marks = std::mem::take(&mut self.marks.ends);
        let is_untrimmed = self.marks.log_min == log.min_offset();
        for (key, (min, max)) in &marks {
            let found = match batches.has(&key.0) {
                true => { batches.set.find(&key.0, key.1) }
                    .map(|queue| (queue.min_index(), queue.max_index())),
                false => {
                    { set.find(&key.0, key.1) }.map(|queue| (queue.min_index(), queue.max_index()))
                }
            };
            let is_shorter = found.is_none_or(|(found_min, found_max)| {
                found_max < *max || (is_untrimmed && found_min > *min)
            });
            if is_shorter {
                self.add(key.clone(), QueueFault::Shorter);
            }
        }
        for (topic, queue_id, queue) in batches.set.queues() {
            if queue.was_damaged() {
                self.add((topic, queue_id), QueueFault::Damaged);
            }
        }
        let log_min = log.min_offset().cast_signed();
        for named in set.queues() {
            let key = (named.topic.as_ref().to_owned(), named.queue_id);
            let marked = marks.get(&key).map(|(_, max)| *max);
            let is_believed = marked == Some(named.queue.max_index())
                || named.queue.max_physical_end() <= Some(self.believed_end);
            if is_believed || self.has(&key) {
                continue;
            }
            if let Some((index, entry)) = named.queue.last_message()?
                && entry.physical_offset >= log_min
                && !is_true_end(records, &named.queue, &key, index, &entry)?
            {
                self.add(key, QueueFault::WrongEntry);
            }
        }
        self.marks.ends = marks;
        Ok(())
    }

    /// Where a queue's numbers must go on at least: what it had before, or is remembered to have
    /// had.
    pub(crate) fn known_max(&self, key: &QueueKey) -> i64 {
        let of = |marks: &QueueMarks| marks.ends.get(key).map_or(0, |(_, max)| *max);
        of(&self.marks).max(of(&self.unfinished))
    }
}

/// Whether a queue's last entry is that of the message it points to, or one of the copies that
/// stand for messages lost behind it.
fn is_true_end<I: Io>(
    records: &mut Records<'_, I>,
    queue: &ConsumeQueue<I>,
    key: &QueueKey,
    index: i64,
    entry: &Entry,
) -> Result<bool, OpenError> {
    let Some(own) = records.index_of(entry, key)? else {
        return Ok(false);
    };
    if own >= index {
        return Ok(own == index);
    }
    let original = queue.read_entries(own, 1)?;
    Ok(original.first() == Some(entry))
}

/// Reads records to compare them with entries; by `pread`, as anything can be there.
pub(crate) struct Records<'a, I: Io> {
    segments: &'a Arc<SegmentQueue<I>>,
    buf: Vec<u8>,
}

impl<'a, I: Io> Records<'a, I> {
    pub(crate) fn new(segments: &'a Arc<SegmentQueue<I>>) -> Self {
        Self {
            segments,
            buf: Vec::new(),
        }
    }

    /// Which index the record that an entry points to has in a queue; `None` when there is no
    /// record of this length, or it is not in the queue.
    pub(crate) fn index_of(
        &mut self,
        entry: &Entry,
        (topic, queue_id): &QueueKey,
    ) -> Result<Option<i64>, OpenError> {
        let segments = self.segments;
        let (Ok(offset), Ok(len)) = (
            u64::try_from(entry.physical_offset),
            u64::try_from(entry.size),
        ) else {
            return Ok(None);
        };
        let room = segments.segment_len() - offset % segments.segment_len();
        let is_inside = offset >= segments.min_offset()
            && offset
                .checked_add(len)
                .is_some_and(|end| end <= segments.published());
        if !is_inside || len > room.min(RECORD_LEN_MAX) {
            return Ok(None);
        }
        self.buf.resize(len as usize, 0);
        segments
            .read_exact_at(offset, &mut self.buf)
            .map_err(commitlog::LogError::from)?;
        let Ok(Parsed::Record(view)) = RecordView::parse(&self.buf) else {
            return Ok(None);
        };
        let is_there =
            view.total_size() as u64 == len && view.physical_offset() == entry.physical_offset;
        Ok(is_there
            .then(|| index_in(&view, topic, *queue_id))
            .flatten())
    }

    fn has_place(&mut self, entry: &Entry, key: &QueueKey, index: i64) -> Result<bool, OpenError> {
        Ok(self.index_of(entry, key)? == Some(index))
    }
}

/// Where the last message of all queues ends by entries that are true: one that damage has moved
/// would let recovery begin behind messages without entries.
pub(crate) fn true_end<I: Io>(
    segments: &Arc<SegmentQueue<I>>,
    dispatcher: &Dispatcher<I>,
) -> Result<u64, OpenError> {
    let mut records = Records::new(segments);
    let mut batch_end = 0;
    for (topic, queue_id, queue) in dispatcher.batches.set.queues() {
        if let Some(last) = queue.last()
            && let Some(_index) = records.index_of(&entry_of_batch(&last), &(topic, queue_id))?
        {
            batch_end = batch_end.max(last.physical_end().cast_unsigned());
        }
    }
    let mut queues = dispatcher.queues.set().queues();
    queues.sort_by_cached_key(|named| std::cmp::Reverse(named.queue.max_physical_end()));
    for named in queues {
        let key = (named.topic.as_ref().to_owned(), named.queue_id);
        let Some((_, entry)) = named.queue.last_message()? else {
            break;
        };
        if records.index_of(&entry, &key)?.is_some() {
            let end = named.queue.max_physical_end().unwrap_or(0);
            return Ok(end.max(batch_end));
        }
    }
    Ok(batch_end)
}

/// The two files of marks, and what goes into them.
#[derive(Debug)]
pub(crate) struct Marks<I: Io> {
    pub(crate) queues: MarksFile<I>,
    pub(crate) rebuild: MarksFile<I>,
}

impl<I: Io> Marks<I> {
    pub(crate) fn of(io: &I, own_dir: &std::path::Path) -> Self {
        Self {
            queues: MarksFile::of_queues(io, own_dir),
            rebuild: MarksFile::of_rebuild(io, own_dir),
        }
    }

    /// Writes down the ends of all queues, which must be on the device, as what they point to. A
    /// failure is told: nothing depends on it.
    pub(crate) fn save(&self, log_min: u64, dispatcher: &Dispatcher<I>) {
        let queues = dispatcher.queues.set().queues().into_iter();
        let end = |named: consumequeue::NamedQueue<I>| {
            // The log may have been trimmed since; what opening finds must be what is written.
            let min = named.queue.correct_min(log_min);
            let min = min.unwrap_or_else(|_| named.queue.min_index());
            let ends = (min, named.queue.max_index());
            ((named.topic.as_ref().to_owned(), named.queue_id), ends)
        };
        let batches = dispatcher.batches.set.queues().into_iter();
        let batches = batches.map(|(topic, queue_id, queue)| {
            ((topic, queue_id), (queue.min_index(), queue.max_index()))
        });
        let ends = queues.map(end).chain(batches);
        let marks = QueueMarks {
            log_min,
            ends: ends.filter(|(_, (_, max))| *max > 0).collect(),
            deleted: dispatcher.queues.deleted_above(log_min),
        };
        if marks != self.queues.read()
            && let Err(error) = self.queues.write(&marks)
        {
            tracing::warn!(%error, "the ends of the queues are not remembered");
        }
    }
}

impl<I: Io> Marks<I> {
    /// A sync of queues has failed: the kernel may count pages of theirs as written that the device
    /// never got, and no later sync would write them. The next opening builds those queues again
    /// that are not known to be durable. That this cannot be noted either is told.
    pub(crate) fn doubt_unsynced(&self, dispatcher: &Dispatcher<I>) {
        let queues = dispatcher.queues.set().queues().into_iter();
        let queues = queues.filter(|named| named.queue.flushed_index() < named.queue.max_index());
        let queues = queues.map(|named| {
            let key = (named.topic.as_ref().to_owned(), named.queue_id);
            (key, (0, named.queue.max_index()))
        });
        let batches = dispatcher.batches.set.queues().into_iter();
        let batches = batches.filter(|(_, _, queue)| !queue.is_flushed());
        let batches = batches.map(|(topic, queue_id, _)| ((topic, queue_id), (0, 0)));
        let noted = self.rebuild.read();
        let mut doubted = noted.clone();
        doubted.ends.extend(queues.chain(batches));
        if doubted != noted
            && let Err(error) = self.rebuild.write(&doubted)
        {
            tracing::warn!(%error, "queues of which a sync has failed are not noted for a rebuild");
        }
    }
}

/// Builds queues again: the marks of those before, everything removed, `build` from the log, synced,
/// the marks removed.
pub(crate) fn rebuild<I: Io>(
    marks: &Marks<I>,
    check: &QueueCheck,
    log_min: u64,
    dispatcher: &Dispatcher<I>,
    build: impl FnOnce(&BTreeSet<&QueueKey>) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let queues = &dispatcher.queues;
    let mut before = QueueMarks::default();
    for key in check.faults().keys() {
        if dispatcher.has_batch_queues(&key.0) {
            before.ends.insert(key.clone(), (0, 0));
            continue;
        }
        let entries = &queues.find_or_create(&key.0, key.1)?.entries;
        let max = entries.max_index().max(check.known_max(key));
        before.ends.insert(key.clone(), (0, max));
    }
    marks.rebuild.write(&before)?;
    for (topic, queue_id) in before.ends.keys() {
        if dispatcher.has_batch_queues(topic) {
            let queue = dispatcher.batches.set.find_or_create(topic, *queue_id)?;
            queue.clear()?;
        } else {
            queues.find_or_create(topic, *queue_id)?.entries.clear()?;
        }
    }
    build(&before.ends.keys().collect())?;
    for ((topic, queue_id), (_, max)) in &before.ends {
        if dispatcher.has_batch_queues(topic) {
            continue;
        }
        let queue = queues.find_or_create(topic, *queue_id)?;
        // All its messages have expired: its numbers go on.
        if queue.entries.max_physical_end().is_none() && log_min > 0 {
            queue.entries.begin_at(*max)?;
        }
    }
    queues.set().flush(FlushPolicy::All)?;
    dispatcher.batches.set.flush()?;
    marks.rebuild.remove()?;
    Ok(())
}

//! The queues of all topics: for each the next offset that a put takes, and its consume queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use commitlog::QueueCursor;
use consumequeue::{ConsumeQueue, ConsumeQueueError, ConsumeQueueSet};
use mmap_core::Io;

use crate::queue_marks::MarksFile;
use crate::redispatch::QueueKey;

/// Queue ids above this are refused: RocketMQ's tools create far fewer, and each costs memory.
pub(crate) const QUEUE_ID_MAX: i32 = 65_535;

/// One queue of a topic.
#[derive(Debug)]
pub(crate) struct Queue<I: Io> {
    /// The next queue offset; changed only under the log's append lock.
    pub(crate) cursor: QueueCursor,
    pub(crate) entries: Arc<ConsumeQueue<I>>,
    /// Tells it from all others that there are or have been since the start: what notes call it.
    pub(crate) number: u32,
    pub(crate) topic: Arc<str>,
    pub(crate) queue_id: i32,
    /// A reader has found an entry that does not belong to its place in the log, and said so.
    pub(crate) is_reported: AtomicBool,
}

/// Finds queues by topic and queue id, without allocating.
///
/// Locks, in this order: `changing`, `topics`. `topics` is held for moments only.
#[derive(Debug)]
pub(crate) struct Queues<I: Io> {
    set: ConsumeQueueSet<I>,
    // By topic. Written when a queue is seen for the first time.
    topics: RwLock<Topics<I>>,
    /// Held while a queue is made, and all the while that queues are deleted.
    changing: Mutex<()>,
    /// Queues that were deleted, and where the log ended then: records of theirs below it, which are
    /// dispatched later or by a recovery, have no entries any more.
    deleted: Mutex<BTreeMap<QueueKey, u64>>,
    /// The highest of those ends: asked for each record.
    deleted_end: AtomicU64,
    /// Counts removals from the table, for those who keep queues of it.
    forgotten_count: AtomicU64,
    /// Where that is remembered.
    marks: MarksFile<I>,
}

/// The queues of one topic by queue id.
type TopicQueues<I> = HashMap<i32, Arc<Queue<I>>>;

/// The queues that were put to or read from.
#[derive(Debug)]
struct Topics<I: Io> {
    by_name: HashMap<Arc<str>, TopicQueues<I>>,
    by_number: HashMap<u32, Arc<Queue<I>>>,
    /// That of the next queue.
    next_number: u32,
}

impl<I: Io> Default for Topics<I> {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            by_number: HashMap::new(),
            next_number: 0,
        }
    }
}

impl<I: Io> Queues<I> {
    /// `deleted` are the queues that the file of marks says were deleted.
    pub(crate) fn new(
        set: ConsumeQueueSet<I>,
        marks: MarksFile<I>,
        deleted: BTreeMap<QueueKey, u64>,
    ) -> Self {
        Self {
            set,
            marks,
            forgotten_count: AtomicU64::new(0),
            deleted_end: AtomicU64::new(deleted.values().copied().max().unwrap_or(0)),
            deleted: Mutex::new(deleted),
            topics: RwLock::default(),
            changing: Mutex::default(),
        }
    }

    pub(crate) fn set(&self) -> &ConsumeQueueSet<I> {
        &self.set
    }

    /// The queue, if it was ever put to or has entries.
    pub(crate) fn find(&self, topic: &str, queue_id: i32) -> Option<Arc<Queue<I>>> {
        if let Some(queue) = self.known(topic, queue_id) {
            return Some(queue);
        }
        self.set.find(topic, queue_id)?;
        let _changing = lock(&self.changing);
        let entries = self.set.find(topic, queue_id)?;
        Some(self.add(topic, queue_id, entries))
    }

    /// The queue, created where it is new. `queue_id` has been checked.
    pub(crate) fn find_or_create(
        &self,
        topic: &str,
        queue_id: i32,
    ) -> Result<Arc<Queue<I>>, ConsumeQueueError> {
        if let Some(queue) = self.known(topic, queue_id) {
            return Ok(queue);
        }
        let _changing = lock(&self.changing);
        let entries = self.set.find_or_create(topic, queue_id)?;
        Ok(self.add(topic, queue_id, entries))
    }

    /// Forgets and removes queues of a topic: those that `is_meant` says, by their entries and the
    /// next offset that a put would take, where that is known. Returns how many.
    ///
    /// `retire` ends all appending with their cursors and says where the log ends then. It takes the
    /// cursors while nothing is appended, and each is asked for then: no message comes in between.
    /// Who puts from then on begins a new queue, once the files are gone.
    pub(crate) fn delete<E: From<ConsumeQueueError>>(
        &self,
        topic: &str,
        is_meant: impl Fn(&ConsumeQueue<I>, Option<i64>) -> bool,
        retire: impl FnOnce(&mut dyn Iterator<Item = &QueueCursor>) -> Result<u64, E>,
    ) -> Result<usize, E> {
        let _changing = lock(&self.changing);
        let named = self.set.queues_of(topic);
        let count = named.len();
        let known = self.known_of(topic);
        let mut meant = Vec::new();
        let mut cursors = named.into_iter().filter_map(|(queue_id, entries)| {
            let cursor = known.get(&queue_id).map(|queue| &queue.cursor);
            if !is_meant(&entries, cursor.map(QueueCursor::next)) {
                return None;
            }
            meant.push(queue_id);
            cursor
        });
        let log_end = retire(&mut cursors)?;
        self.forget(topic, &meant);
        self.note_deleted(topic, &meant, log_end);
        if meant.len() == count {
            self.set.delete_topic(topic)?;
        } else {
            for queue_id in &meant {
                self.set.delete_queue(topic, *queue_id)?;
            }
        }
        Ok(meant.len())
    }

    /// Remembers that batch queues are being deleted, in a log that ends here.
    pub(crate) fn note_batches_deleted(&self, topic: &str, queue_ids: &[i32], log_end: u64) {
        let _changing = lock(&self.changing);
        self.note_deleted(topic, queue_ids, log_end);
    }

    /// Whether a record at this offset may belong to a queue that was deleted after it was appended.
    #[inline]
    pub(crate) fn may_be_deleted(&self, offset: u64) -> bool {
        offset < self.deleted_end.load(Ordering::Acquire)
    }

    /// Whether a record at this offset belongs to a queue that was deleted after it was appended.
    /// To be asked with the queue in hand: it is the new one then, if there is one.
    pub(crate) fn is_deleted(&self, topic: &str, queue_id: i32, offset: i64) -> bool {
        if !self.may_be_deleted(offset.cast_unsigned()) {
            return false;
        }
        let key = (topic.to_owned(), queue_id);
        let log_end = lock(&self.deleted).get(&key).copied();
        log_end.is_some_and(|log_end| offset.cast_unsigned() < log_end)
    }

    /// The deleted queues of which a log that begins at `log_min` may have records.
    pub(crate) fn deleted_above(&self, log_min: u64) -> BTreeMap<QueueKey, u64> {
        let mut deleted = lock(&self.deleted);
        deleted.retain(|_, log_end| *log_end > log_min);
        deleted.clone()
    }

    /// The log ends here: what is appended from now on was not deleted, though the log has been longer
    /// when queues were. Durable where `is_kept`, before anything is appended.
    pub(crate) fn end_deletions_at(&self, end: u64, is_kept: bool) {
        let clamp = |deleted: &mut BTreeMap<QueueKey, u64>| {
            let mut is_beyond = false;
            for log_end in deleted.values_mut().filter(|log_end| **log_end > end) {
                *log_end = end;
                is_beyond = true;
            }
            is_beyond
        };
        if !clamp(&mut lock(&self.deleted)) {
            return;
        }
        self.deleted_end.fetch_min(end, Ordering::AcqRel);
        if !is_kept {
            return;
        }
        let mut marks = self.marks.read();
        clamp(&mut marks.deleted);
        // Without marks deleted messages may come back; with wrong ones new messages are lost.
        if let Err(error) = self.marks.write(&marks) {
            tracing::warn!(%error, "what is remembered of queues is given up");
            if let Err(error) = self.marks.remove() {
                tracing::warn!(%error, "deletions of queues are remembered with a wrong end");
            }
        }
    }

    /// Removes what is left of queues whose deletion was cut short, or which a Java broker has
    /// built again from the records of before.
    pub(crate) fn finish_deletions(&self) -> Result<(), ConsumeQueueError> {
        let deleted = lock(&self.deleted).clone();
        for ((topic, queue_id), log_end) in deleted {
            let Some(queue) = self.set.find(&topic, queue_id) else {
                continue;
            };
            if queue.max_physical_end().is_none_or(|end| end <= log_end) {
                self.forget(&topic, &[queue_id]);
                self.set.delete_queue(&topic, queue_id)?;
            }
        }
        Ok(())
    }

    /// Takes queues out of the table.
    fn forget(&self, topic: &str, queue_ids: &[i32]) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let Topics {
            by_name, by_number, ..
        } = &mut *topics;
        let Some(queues) = by_name.get_mut(topic) else {
            return;
        };
        self.forgotten_count.fetch_add(1, Ordering::Release);
        for queue_id in queue_ids {
            if let Some(queue) = queues.remove(queue_id) {
                by_number.remove(&queue.number);
            }
        }
        if queues.is_empty() {
            by_name.remove(topic);
        }
    }

    /// Before any of their files goes. What cannot be remembered comes back with the next crash.
    fn note_deleted(&self, topic: &str, queue_ids: &[i32], log_end: u64) {
        if queue_ids.is_empty() {
            return;
        }
        let mut marks = self.marks.read();
        for queue_id in queue_ids {
            let key = (topic.to_owned(), *queue_id);
            marks.ends.remove(&key);
            marks.deleted.insert(key.clone(), log_end);
            lock(&self.deleted).insert(key, log_end);
        }
        self.deleted_end.fetch_max(log_end, Ordering::AcqRel);
        if let Err(error) = self.marks.write(&marks) {
            tracing::warn!(%error, topic, "the deletion of queues is not remembered");
        }
    }

    /// Sets the next offsets to the ends of the queues: recovery has built their entries.
    pub(crate) fn reset_cursors(&self) {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        for queue in topics.by_number.values() {
            queue.cursor.reset(queue.entries.max_index());
        }
    }

    fn known(&self, topic: &str, queue_id: i32) -> Option<Arc<Queue<I>>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.by_name.get(topic)?.get(&queue_id).cloned()
    }

    /// Changes whenever queues were taken out of the table.
    pub(crate) fn forgotten_count(&self) -> u64 {
        self.forgotten_count.load(Ordering::Acquire)
    }

    /// The queue of this number, if it was not deleted.
    pub(crate) fn numbered(&self, number: u32) -> Option<Arc<Queue<I>>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.by_number.get(&number).cloned()
    }

    fn known_of(&self, topic: &str) -> TopicQueues<I> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.by_name.get(topic).cloned().unwrap_or_default()
    }

    /// The caller holds `changing`. Two threads may come here with the same queue: the first one's
    /// cursor counts.
    fn add(&self, topic: &str, queue_id: i32, entries: Arc<ConsumeQueue<I>>) -> Arc<Queue<I>> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let name = match topics.by_name.get_key_value(topic) {
            Some((name, _)) => Arc::clone(name),
            None => topic.into(),
        };
        let queues = topics.by_name.entry(Arc::clone(&name)).or_default();
        if let Some(queue) = queues.get(&queue_id) {
            return Arc::clone(queue);
        }
        let number = topics.next_number;
        let queue = Arc::new(Queue {
            cursor: QueueCursor::new(entries.max_index()),
            entries,
            number,
            topic: Arc::clone(&name),
            queue_id,
            is_reported: AtomicBool::new(false),
        });
        topics.next_number += 1;
        topics.by_number.insert(number, Arc::clone(&queue));
        let queues = topics.by_name.entry(name).or_default();
        queues.insert(queue_id, Arc::clone(&queue));
        queue
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

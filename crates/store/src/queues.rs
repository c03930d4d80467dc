//! The queues of all topics: for each the next offset that a put takes, and its consume queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use commitlog::QueueCursor;
use consumequeue::{ConsumeQueue, ConsumeQueueError, ConsumeQueueSet};
use mmap_core::Io;

/// Queue ids above this are refused: RocketMQ's tools create far fewer, and each costs memory.
pub(crate) const QUEUE_ID_MAX: i32 = 65_535;

/// One queue of a topic.
#[derive(Debug)]
pub(crate) struct Queue<I: Io> {
    /// The next queue offset; changed only under the log's append lock.
    pub(crate) cursor: QueueCursor,
    pub(crate) entries: Arc<ConsumeQueue<I>>,
}

/// Finds queues by topic and queue id, without allocating.
///
/// Locks, in this order: `changing`, `topics`. `topics` is held for moments only.
#[derive(Debug)]
pub(crate) struct Queues<I: Io> {
    set: ConsumeQueueSet<I>,
    // By topic. Written when a queue is seen for the first time.
    topics: RwLock<HashMap<String, TopicQueues<I>>>,
    /// Held while a queue is made, and all the while that queues are deleted.
    changing: Mutex<()>,
    /// Topics and queues that were deleted, and where the log ended then: records of theirs below
    /// it, which are dispatched later, have no entries any more.
    deleted: Mutex<Vec<Deleted>>,
    /// How many of them there are: asked for each record.
    deleted_count: AtomicUsize,
}

/// Queues that were deleted.
#[derive(Debug)]
struct Deleted {
    topic: String,
    queue_ids: Vec<i32>,
    log_end: u64,
}

/// The queues of one topic by queue id.
type TopicQueues<I> = HashMap<i32, Arc<Queue<I>>>;

impl<I: Io> Queues<I> {
    pub(crate) fn new(set: ConsumeQueueSet<I>) -> Self {
        Self {
            set,
            topics: RwLock::default(),
            changing: Mutex::default(),
            deleted: Mutex::default(),
            deleted_count: AtomicUsize::new(0),
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

    /// Forgets and removes queues of a topic: all, or those that `is_meant` says. Returns how many.
    ///
    /// `retire` ends all appending with their cursors and says where the log ends then. Who puts
    /// from then on begins a new queue, once the files are gone.
    pub(crate) fn delete<E: From<ConsumeQueueError>>(
        &self,
        topic: &str,
        is_meant: impl Fn(&ConsumeQueue<I>) -> bool,
        dispatched: u64,
        retire: impl FnOnce(&[QueueCursor]) -> Result<u64, E>,
    ) -> Result<usize, E> {
        let _changing = lock(&self.changing);
        let named = self.set.queues_of(topic);
        let count = named.len();
        let meant: Vec<i32> = named
            .into_iter()
            .filter(|(_, entries)| is_meant(entries))
            .map(|(queue_id, _)| queue_id)
            .collect();
        let cursors = self.forget(topic, &meant);
        let log_end = retire(&cursors)?;
        self.note_deleted(topic, &meant, log_end, dispatched);
        if meant.len() == count {
            self.set.delete_topic(topic)?;
        } else {
            for queue_id in &meant {
                self.set.delete_queue(topic, *queue_id)?;
            }
        }
        Ok(meant.len())
    }

    /// Whether a record at this offset belongs to a queue that was deleted after it was appended.
    /// To be asked with the queue in hand: it is the new one then, if there is one.
    pub(crate) fn is_deleted(&self, topic: &str, queue_id: i32, offset: i64) -> bool {
        if self.deleted_count.load(Ordering::Acquire) == 0 {
            return false;
        }
        lock(&self.deleted).iter().any(|deleted| {
            deleted.topic == topic
                && deleted.queue_ids.contains(&queue_id)
                && offset.cast_unsigned() < deleted.log_end
        })
    }

    /// Takes queues out of the table; returns their cursors.
    fn forget(&self, topic: &str, queue_ids: &[i32]) -> Vec<QueueCursor> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let Some(queues) = topics.get_mut(topic) else {
            return Vec::new();
        };
        let forgotten = queue_ids.iter().filter_map(|id| queues.remove(id));
        let cursors = forgotten.map(|queue| queue.cursor.clone()).collect();
        if queues.is_empty() {
            topics.remove(topic);
        }
        cursors
    }

    fn note_deleted(&self, topic: &str, queue_ids: &[i32], log_end: u64, dispatched: u64) {
        let mut deleted = lock(&self.deleted);
        // Of earlier ones everything has been dispatched by now.
        deleted.retain(|earlier| earlier.log_end > dispatched);
        deleted.push(Deleted {
            topic: topic.to_owned(),
            queue_ids: queue_ids.to_vec(),
            log_end,
        });
        self.deleted_count.store(deleted.len(), Ordering::Release);
    }

    /// Sets the next offsets to the ends of the queues: recovery has built their entries.
    pub(crate) fn reset_cursors(&self) {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        for queue in topics.values().flat_map(HashMap::values) {
            queue.cursor.reset(queue.entries.max_index());
        }
    }

    fn known(&self, topic: &str, queue_id: i32) -> Option<Arc<Queue<I>>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic)?.get(&queue_id).cloned()
    }

    /// The caller holds `changing`. Two threads may come here with the same queue: the first one's
    /// cursor counts.
    fn add(&self, topic: &str, queue_id: i32, entries: Arc<ConsumeQueue<I>>) -> Arc<Queue<I>> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.entry(topic.to_owned()).or_default();
        Arc::clone(queues.entry(queue_id).or_insert_with(|| {
            let cursor = QueueCursor::new(entries.max_index());
            Arc::new(Queue { cursor, entries })
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

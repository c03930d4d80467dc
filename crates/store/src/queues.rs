//! The queues of all topics: for each the next offset that a put takes, and its consume queue.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

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
#[derive(Debug)]
pub(crate) struct Queues<I: Io> {
    set: ConsumeQueueSet<I>,
    // By topic. Written when a queue is seen for the first time.
    topics: RwLock<HashMap<String, TopicQueues<I>>>,
}

/// The queues of one topic by queue id.
type TopicQueues<I> = HashMap<i32, Arc<Queue<I>>>;

impl<I: Io> Queues<I> {
    pub(crate) fn new(set: ConsumeQueueSet<I>) -> Self {
        Self {
            set,
            topics: RwLock::default(),
        }
    }

    pub(crate) fn set(&self) -> &ConsumeQueueSet<I> {
        &self.set
    }

    /// The queue, if it was ever put to or has entries.
    pub(crate) fn find(&self, topic: &str, queue_id: i32) -> Option<Arc<Queue<I>>> {
        self.known(topic, queue_id)
            .or_else(|| Some(self.add(topic, queue_id, self.set.find(topic, queue_id)?)))
    }

    /// The queue, created where it is new. `queue_id` has been checked.
    pub(crate) fn find_or_create(
        &self,
        topic: &str,
        queue_id: i32,
    ) -> Result<Arc<Queue<I>>, ConsumeQueueError> {
        match self.known(topic, queue_id) {
            Some(queue) => Ok(queue),
            None => {
                let entries = self.set.find_or_create(topic, queue_id)?;
                Ok(self.add(topic, queue_id, entries))
            }
        }
    }

    /// Forgets and removes a topic's queues.
    pub(crate) fn delete_topic(&self, topic: &str) -> Result<(), ConsumeQueueError> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.remove(topic);
        self.set.delete_topic(topic).map(drop)
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

    /// Two threads may come here with the same queue: the first one's cursor counts.
    fn add(&self, topic: &str, queue_id: i32, entries: Arc<ConsumeQueue<I>>) -> Arc<Queue<I>> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.entry(topic.to_owned()).or_default();
        Arc::clone(queues.entry(queue_id).or_insert_with(|| {
            let cursor = QueueCursor::new(entries.max_index());
            Arc::new(Queue { cursor, entries })
        }))
    }
}

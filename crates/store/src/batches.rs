//! Topics with batch consume queues: which they are, and what a record leaves in their queues.
//!
//! Records of such topics are kept, indexed and served; none is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use consumequeue::{BatchEntry, BatchQueue, BatchQueueSet, ConsumeQueueError, PutOutcome};
use message::{DispatchFields, RecordView};
use mmap_core::Io;

use crate::error::DispatchError;
use crate::redispatch::QueueKey;

/// The batch queues, and the topics that have them.
#[derive(Debug)]
pub(crate) struct Batches<I: Io> {
    pub(crate) set: BatchQueueSet<I>,
    /// Only ever shrinks, by deletions.
    topics: RwLock<BTreeSet<String>>,
    /// Whether there have been such topics at all: asked for each put and each record, which must
    /// not write to a lock's cache line for it. Never changes.
    is_used: bool,
    /// Records that say to be the first of a queue that has others.
    firsts: Mutex<BTreeMap<QueueKey, BatchEntry>>,
}

impl<I: Io> Batches<I> {
    /// Topics that are known to have batch queues, by their attributes or by files that are there:
    /// a Java broker refuses to start where such a topic has simple ones.
    pub(crate) fn new(set: BatchQueueSet<I>, mut topics: BTreeSet<String>) -> Self {
        topics.extend(set.topics());
        Self {
            set,
            is_used: !topics.is_empty(),
            topics: RwLock::new(topics),
            firsts: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.is_used && {
            let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
            topics.contains(topic)
        }
    }

    /// The queues of a topic that are there.
    pub(crate) fn queue_ids(&self, topic: &str) -> Vec<i32> {
        let queues = self.set.queues().into_iter();
        queues
            .filter(|(name, _, _)| name == topic)
            .map(|(_, queue_id, _)| queue_id)
            .collect()
    }

    /// Removes a topic's queues: one of this name may be of another kind from now on.
    pub(crate) fn delete_topic(&self, topic: &str) -> Result<(), ConsumeQueueError> {
        self.set.delete_topic(topic)?;
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.remove(topic);
        Ok(())
    }

    /// Puts a record of such a topic into its queue.
    pub(crate) fn put(
        &self,
        view: &RecordView<'_>,
        fields: &DispatchFields<'_>,
        tags_code: i64,
    ) -> Result<Option<PutOutcome>, DispatchError> {
        let Some(entry) = entry_of(view, fields, tags_code) else {
            return Ok(None);
        };
        let queue = self.set.find_or_create(view.topic(), view.queue_id())?;
        self.begin_anew(&queue, view, &entry)?;
        match queue.put(entry)? {
            PutOutcome::Occupied { .. } if entry.base == 0 => {
                self.lock_firsts().insert(key_of(view), entry);
                Ok(None)
            }
            outcome => Ok(Some(outcome)),
        }
    }

    /// Before a record that follows one which said to be its queue's first, with none of the others in
    /// between: the topic was deleted and created again, and the queue begins anew with that one. A
    /// single record that says so may be damaged: no CRC covers what it says.
    fn begin_anew(
        &self,
        queue: &BatchQueue<I>,
        view: &RecordView<'_>,
        second: &BatchEntry,
    ) -> Result<(), DispatchError> {
        let mut firsts = self.lock_firsts();
        if firsts.is_empty() {
            return Ok(());
        }
        let key = key_of(view);
        let Some(first) = firsts.get(&key).filter(|first| first.next() == second.base) else {
            return Ok(());
        };
        let last_end = queue.last().map_or(0, |last| last.physical_end());
        // The log may be read for the second time.
        if (last_end..second.physical_offset).contains(&first.physical_offset) {
            queue.clear()?;
            queue.put(*first)?;
        }
        firsts.remove(&key);
        Ok(())
    }

    fn lock_firsts(&self) -> MutexGuard<'_, BTreeMap<QueueKey, BatchEntry>> {
        self.firsts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(view: &RecordView<'_>) -> QueueKey {
    (view.topic().to_owned(), view.queue_id())
}

/// The entry of a record; `None` for one that has no place in a queue, or whose count of messages
/// is none.
pub(crate) fn entry_of(
    view: &RecordView<'_>,
    fields: &DispatchFields<'_>,
    tags_code: i64,
) -> Option<BatchEntry> {
    if !view.sys_flag().transaction().takes_queue_offset() {
        return None;
    }
    let (base, count) = match (fields.inner_base, fields.inner_count) {
        (Some(base), Some(count)) => (base.parse().ok()?, count.parse().ok()?),
        _ => (view.queue_offset(), 1),
    };
    let entry = BatchEntry {
        physical_offset: view.physical_offset(),
        size: i32::try_from(view.total_size()).ok()?,
        tags_code,
        store_timestamp_ms: view.store_timestamp_ms(),
        base,
        count,
    };
    entry.is_used().then_some(entry)
}

//! All batch consume queues of a store: `batchconsumequeue/<topic>/<queue id>/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use mmap_core::{FileKind, Io, OsIo};
use segment_queue::Trimmed;

use crate::batch::BatchQueue;
use crate::error::ConsumeQueueError;
use crate::hot::{lock, read, write};
use crate::options::{BatchQueueOptions, OpenPolicy};
use crate::set::{check_name, list, queue_id_of};

/// The batch queues of all topics that have some.
///
/// Locks, in this order: `changing`, `queues`. `queues` is held for moments only.
#[derive(Debug)]
pub struct BatchQueueSet<I: Io = OsIo> {
    io: I,
    root: PathBuf,
    options: BatchQueueOptions,
    queues: RwLock<BTreeMap<String, Queues<I>>>,
    /// Held while queues come and go.
    changing: Mutex<()>,
}

/// A topic's queues by id.
type Queues<I> = BTreeMap<i32, Arc<BatchQueue<I>>>;

impl<I: Io> BatchQueueSet<I> {
    /// Finds the queues under `root`, which need not exist.
    ///
    /// # Errors
    /// Those of [`BatchQueue::open`].
    pub fn open(
        io: I,
        root: &Path,
        options: BatchQueueOptions,
        policy: OpenPolicy,
    ) -> Result<Self, ConsumeQueueError> {
        let mut topics = BTreeMap::new();
        for entry in list(&io, root)? {
            let topic_dir = root.join(&entry.name);
            let Some(topic) = entry
                .name
                .to_str()
                .filter(|_| entry.kind == FileKind::Directory)
            else {
                continue;
            };
            let mut queues = BTreeMap::new();
            for entry in list(&io, &topic_dir)? {
                if let Some(queue_id) = queue_id_of(&entry) {
                    let dir = topic_dir.join(&entry.name);
                    let queue = BatchQueue::open(io.clone(), &dir, &options, policy)?;
                    queues.insert(queue_id, Arc::new(queue));
                }
            }
            topics.insert(topic.to_owned(), queues);
        }
        Ok(Self {
            io,
            root: root.to_owned(),
            options,
            queues: RwLock::new(topics),
            changing: Mutex::new(()),
        })
    }

    /// The topics that have a directory.
    pub fn topics(&self) -> Vec<String> {
        read(&self.queues).keys().cloned().collect()
    }

    /// The queues of this moment.
    pub fn queues(&self) -> Vec<(String, i32, Arc<BatchQueue<I>>)> {
        let queues = read(&self.queues);
        let of_topic = |(topic, queues): (&String, &Queues<I>)| {
            let named = |(queue_id, queue): (&i32, &Arc<BatchQueue<I>>)| {
                (topic.clone(), *queue_id, Arc::clone(queue))
            };
            queues.iter().map(named).collect::<Vec<_>>()
        };
        queues.iter().flat_map(of_topic).collect()
    }

    /// The queue `queue_id` of `topic`, if there is one.
    pub fn find(&self, topic: &str, queue_id: i32) -> Option<Arc<BatchQueue<I>>> {
        read(&self.queues).get(topic)?.get(&queue_id).cloned()
    }

    /// The queue `queue_id` of `topic`, made if there is none.
    ///
    /// # Errors
    /// [`ConsumeQueueError::Name`] for what cannot be a directory's name.
    pub fn find_or_create(
        &self,
        topic: &str,
        queue_id: i32,
    ) -> Result<Arc<BatchQueue<I>>, ConsumeQueueError> {
        if let Some(queue) = self.find(topic, queue_id) {
            return Ok(queue);
        }
        check_name(topic, queue_id)?;
        let _changing = lock(&self.changing);
        if let Some(queue) = self.find(topic, queue_id) {
            return Ok(queue);
        }
        let dir = self.root.join(topic).join(queue_id.to_string());
        let io = self.io.clone();
        let queue = Arc::new(BatchQueue::open(
            io,
            &dir,
            &self.options,
            OpenPolicy::Clean,
        )?);
        let mut queues = write(&self.queues);
        let of_topic = queues.entry(topic.to_owned()).or_default();
        of_topic.insert(queue_id, Arc::clone(&queue));
        Ok(queue)
    }

    /// Deletes a topic's queues and their files; returns how many there were.
    ///
    /// # Errors
    /// Those of removing the files. The topic is gone from the set all the same.
    pub fn delete_topic(&self, topic: &str) -> Result<usize, ConsumeQueueError> {
        let _changing = lock(&self.changing);
        let Some(queues) = write(&self.queues).remove(topic) else {
            return Ok(0);
        };
        let topic_dir = self.root.join(topic);
        for (queue_id, queue) in &queues {
            queue.clear()?;
            self.remove_dir(&topic_dir.join(queue_id.to_string()))?;
        }
        self.remove_dir(&topic_dir)?;
        Ok(queues.len())
    }

    /// Removes an empty directory, durably; one that nothing was ever put to is not there.
    fn remove_dir(&self, dir: &Path) -> Result<(), ConsumeQueueError> {
        match (self.io.remove_dir(dir), dir.parent()) {
            (Ok(()), Some(parent)) => Ok(self.io.sync_dir(parent)?),
            (Err(error), _) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Brings every queue in line with a log of `log_min..log_end`.
    ///
    /// # Errors
    /// As [`BatchQueue::recover`].
    pub fn recover(&self, log_min: u64, log_end: u64) -> Result<(), ConsumeQueueError> {
        for (_, _, queue) in self.queues() {
            queue.recover(log_min, log_end)?;
        }
        Ok(())
    }

    /// Makes durable what was put before the call.
    ///
    /// # Errors
    /// As [`BatchQueue::flush`].
    pub fn flush(&self) -> Result<(), ConsumeQueueError> {
        for (_, _, queue) in self.queues() {
            queue.flush()?;
        }
        Ok(())
    }

    /// Unmaps the files that nothing is put to; see [`BatchQueue::step_unmap`].
    pub fn step_unmap(&self, now: Duration) {
        for (_, _, queue) in self.queues() {
            queue.step_unmap(now);
        }
    }

    /// Trims every queue; see [`BatchQueue::trim`].
    ///
    /// # Errors
    /// As there.
    pub fn trim(&self, log_min: u64) -> Result<Trimmed, ConsumeQueueError> {
        let mut sum = Trimmed::default();
        for (_, _, queue) in self.queues() {
            let trimmed = queue.trim(log_min)?;
            sum.segment_count += trimmed.segment_count;
            sum.len += trimmed.len;
        }
        Ok(sum)
    }
}

//! All consume queues of a store: `consumequeue/<topic>/<queue id>/`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use mmap_core::{DirEntry, FileKind, Io, OsIo};
use segment_queue::{FlushPolicy, Trimmed};

use crate::error::ConsumeQueueError;
use crate::hot::{Shared, lock, read, write};
use crate::opening;
use crate::options::{ConsumeQueueOptions, OpenPolicy};
use crate::queue::ConsumeQueue;
use crate::recover::Doubt;

/// The longest name that file systems allow, in bytes.
const NAME_LEN_MAX: usize = 255;

/// The queues of all topics.
///
/// A queue costs some 300 bytes of memory while it is at rest; its files are open and mapped only
/// while it is in use, and of no more than
/// [`hot_queue_count_max`](ConsumeQueueOptions::hot_queue_count_max) queues at a time.
///
/// Locks, in this order: `changing`, `topics`. `topics` is held for moments only.
#[derive(Debug)]
pub struct ConsumeQueueSet<I: Io = OsIo> {
    root: PathBuf,
    shared: Arc<Shared<I>>,
    topics: RwLock<Topics<I>>,
    /// Held while queues come and go, so that a topic is not created while it is deleted.
    changing: Mutex<()>,
}

/// The queues of each topic.
pub(crate) type Topics<I> = HashMap<Arc<str>, Queues<I>>;

/// A topic's queues by ascending id.
pub(crate) type Queues<I> = Vec<(i32, Arc<ConsumeQueue<I>>)>;

/// A queue and whose it is.
#[derive(Clone, Debug)]
pub struct NamedQueue<I: Io = OsIo> {
    /// The topic.
    pub topic: Arc<str>,
    /// The queue's id within the topic.
    pub queue_id: i32,
    /// The queue.
    pub queue: Arc<ConsumeQueue<I>>,
}

/// What opening a set found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// Count of topics.
    pub topic_count: usize,
    /// Count of queues.
    pub queue_count: usize,
    /// What is no queue by its name, and was left alone, as RocketMQ does.
    pub ignored: Vec<PathBuf>,
    /// Queues that may have lost entries. The log tells.
    pub doubtful: Vec<DoubtfulQueue>,
}

/// A queue that may have lost entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoubtfulQueue {
    /// The topic.
    pub topic: Arc<str>,
    /// The queue's id within the topic.
    pub queue_id: i32,
    /// What was found behind its end.
    pub doubt: Doubt,
}

/// What bringing a set in line with the log did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoverReport {
    /// Count of queues that entries were cut off from.
    pub cut_queue_count: u64,
    /// Count of entries cut off.
    pub cut_entry_count: u64,
}

impl<I: Io> ConsumeQueueSet<I> {
    /// Finds the queues under `root`, which need not exist, and the ends of each. No file stays
    /// open.
    ///
    /// # Errors
    /// [`ConsumeQueueError::Options`]; those of a queue's files, naming the file and the cure.
    pub fn open(
        io: I,
        root: &Path,
        options: ConsumeQueueOptions,
        policy: OpenPolicy,
    ) -> Result<(Self, OpenReport), ConsumeQueueError> {
        options.validate()?;
        let shared = Arc::new(Shared::new(io, options, policy));
        let (topics, report) = opening::open(&shared, root, policy)?;
        let set = Self {
            root: root.to_owned(),
            shared,
            topics: RwLock::new(topics),
            changing: Mutex::new(()),
        };
        Ok((set, report))
    }

    /// Brings every queue in line with a log of `log_min..log_end`; see [`ConsumeQueue::recover`].
    ///
    /// # Errors
    /// As there. The queues before the one concerned are done.
    pub fn recover(&self, log_min: u64, log_end: u64) -> Result<RecoverReport, ConsumeQueueError> {
        let mut report = RecoverReport::default();
        for named in self.queues() {
            let cut_count = named.queue.recover(log_min, log_end)?;
            report.cut_queue_count += u64::from(cut_count > 0);
            report.cut_entry_count += cut_count;
        }
        Ok(report)
    }

    /// The queue `queue_id` of `topic`, if there is one. Allocates nothing.
    pub fn find(&self, topic: &str, queue_id: i32) -> Option<Arc<ConsumeQueue<I>>> {
        let topics = read(&self.topics);
        let queues = topics.get(topic)?;
        let position = queues.binary_search_by_key(&queue_id, |(id, _)| *id).ok()?;
        queues.get(position).map(|(_, queue)| Arc::clone(queue))
    }

    /// The queue `queue_id` of `topic`, made if there is none. On disk it begins with its first
    /// entry.
    ///
    /// # Errors
    /// [`ConsumeQueueError::Name`] for what cannot be a directory's name.
    pub fn find_or_create(
        &self,
        topic: &str,
        queue_id: i32,
    ) -> Result<Arc<ConsumeQueue<I>>, ConsumeQueueError> {
        if let Some(queue) = self.find(topic, queue_id) {
            return Ok(queue);
        }
        check_name(topic, queue_id)?;
        let _changing = lock(&self.changing);
        if let Some(queue) = self.find(topic, queue_id) {
            return Ok(queue);
        }
        let dir = self.root.join(topic).join(queue_id.to_string());
        // There are files if deleting the topic has failed half way.
        let (queue, _doubt) = ConsumeQueue::open_shared(&self.shared, &dir, OpenPolicy::Clean)?;
        let mut topics = write(&self.topics);
        let queues = topics.entry(Arc::from(topic)).or_default();
        let position = queues.partition_point(|(id, _)| *id < queue_id);
        queues.insert(position, (queue_id, Arc::clone(&queue)));
        Ok(queue)
    }

    /// Deletes a topic's queues and their files; returns how many there were. What is being read
    /// of them stays valid.
    ///
    /// # Errors
    /// Those of removing the files. The topic is gone from the set all the same.
    pub fn delete_topic(&self, topic: &str) -> Result<usize, ConsumeQueueError> {
        let _changing = lock(&self.changing);
        let Some(queues) = write(&self.topics).remove(topic) else {
            return Ok(0);
        };
        for (_, queue) in &queues {
            queue.delete()?;
        }
        let io = &self.shared.io;
        match io.remove_dir(&self.root.join(topic)) {
            Ok(()) => io.sync_dir(&self.root)?,
            // Nothing was ever put to it.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(queues.len())
    }

    /// Deletes one queue and its files; `false` when there is none.
    ///
    /// # Errors
    /// As [`delete_topic`](Self::delete_topic).
    pub fn delete_queue(&self, topic: &str, queue_id: i32) -> Result<bool, ConsumeQueueError> {
        let _changing = lock(&self.changing);
        let taken = write(&self.topics).get_mut(topic).and_then(|queues| {
            let position = queues.binary_search_by_key(&queue_id, |(id, _)| *id).ok()?;
            Some(queues.remove(position).1)
        });
        match taken {
            Some(queue) => queue.delete().map(|()| true),
            None => Ok(false),
        }
    }

    /// The queues of a topic, by ascending id.
    pub fn queues_of(&self, topic: &str) -> Vec<(i32, Arc<ConsumeQueue<I>>)> {
        read(&self.topics).get(topic).cloned().unwrap_or_default()
    }

    /// The queues of this moment, in no order.
    pub fn queues(&self) -> Vec<NamedQueue<I>> {
        let topics = read(&self.topics);
        let of_topic = |(topic, queues): (&Arc<str>, &Queues<I>)| {
            let named = |(queue_id, queue): &(i32, Arc<ConsumeQueue<I>>)| NamedQueue {
                topic: Arc::clone(topic),
                queue_id: *queue_id,
                queue: Arc::clone(queue),
            };
            queues.iter().map(named).collect::<Vec<_>>()
        };
        topics.iter().flat_map(of_topic).collect()
    }

    /// Commit-log offset behind the last message of all queues; `None` without messages.
    pub fn max_physical_end(&self) -> Option<u64> {
        let topics = read(&self.topics);
        let queues = topics.values().flatten();
        queues
            .filter_map(|(_, queue)| queue.max_physical_end())
            .max()
    }

    /// Flushes the queues that were put to since they were last flushed, as far as the policy finds
    /// each worth it; returns whether everything put before the call is durable now.
    ///
    /// # Errors
    /// The first failed sync ends all putting. [`ConsumeQueueError::Poisoned`] from then on.
    pub fn flush(&self, policy: FlushPolicy) -> Result<bool, ConsumeQueueError> {
        // Also when nothing was put since: what failed before is not durable.
        self.shared.check_poison()?;
        let mut done = true;
        for queue in self.shared.take_dirty() {
            if let Some(queue) = queue.upgrade() {
                done &= queue.flush(policy)?;
            }
        }
        Ok(done)
    }

    /// Trims every queue; see [`ConsumeQueue::trim`].
    ///
    /// # Errors
    /// As there. The queues before the one concerned are done.
    pub fn trim(&self, log_min: u64) -> Result<Trimmed, ConsumeQueueError> {
        let mut sum = Trimmed::default();
        for named in self.queues() {
            let trimmed = match named.queue.trim(log_min) {
                // Its topic was deleted meanwhile.
                Err(ConsumeQueueError::Deleted { .. }) => continue,
                trimmed => trimmed?,
            };
            sum.segment_count += trimmed.segment_count;
            sum.len += trimmed.len;
        }
        Ok(sum)
    }

    /// Unmaps files that were not read for a while, and those read least recently where the budget
    /// is exceeded; the last one of each queue stays. See [`SegmentQueue::step_unmap`].
    ///
    /// [`SegmentQueue::step_unmap`]: segment_queue::SegmentQueue::step_unmap
    pub fn step_unmap(&self, now: Duration) {
        for queue in self.shared.hot_queues() {
            queue.step_unmap(now);
        }
    }

    /// Count of queues whose files are open.
    pub fn hot_queue_count(&self) -> usize {
        self.shared.hot_count()
    }

    /// Flushes everything and closes.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(self) -> Result<(), ConsumeQueueError> {
        self.flush(FlushPolicy::All).map(|_| ())
    }
}

/// The queue id that a directory's name stands for, in the one way to write it.
pub(crate) fn queue_id_of(entry: &DirEntry) -> Option<i32> {
    let name = entry
        .name
        .to_str()
        .filter(|_| entry.kind == FileKind::Directory)?;
    let queue_id: i32 = name.parse().ok()?;
    (queue_id >= 0 && name == queue_id.to_string()).then_some(queue_id)
}

/// A directory's entries; one that does not exist has none.
pub(crate) fn list<I: Io>(io: &I, dir: &Path) -> Result<Vec<DirEntry>, ConsumeQueueError> {
    match io.list(dir) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        listed => Ok(listed?),
    }
}

pub(crate) fn check_name(topic: &str, queue_id: i32) -> Result<(), ConsumeQueueError> {
    let reason = if topic.is_empty() || topic == "." || topic == ".." {
        "a topic must have a name"
    } else if topic.contains(['/', '\0']) {
        "a topic must not contain '/' or NUL"
    } else if topic.len() > NAME_LEN_MAX {
        "a topic must not be longer than 255 bytes"
    } else if queue_id < 0 {
        "a queue id must not be negative"
    } else {
        return Ok(());
    };
    Err(ConsumeQueueError::Name {
        topic: topic.to_owned(),
        queue_id,
        reason,
    })
}

//! Which queues have files open: a bounded number, whatever the number of queues.
//!
//! A queue at rest is a few numbers in memory. One that is put to or read from opens its files and
//! enters the ring; when the ring is too long, the queue that was not used for longest is closed
//! (by the clock rule: one bit of use per queue, cleared as the hand passes). Nothing is synced
//! then: what was put is in the page cache, and a flush opens the file again. While the ring is
//! full, most puts to closed queues leave them so (`queue/aside.rs`).

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

use mmap_core::{Io, IoError};

use crate::error::ConsumeQueueError;
use crate::options::{ConsumeQueueOptions, ExtensionOptions, OpenPolicy};
use crate::queue::ConsumeQueue;

/// What all queues of a set have in common.
#[derive(Debug)]
pub(crate) struct Shared<I: Io> {
    pub(crate) io: I,
    pub(crate) options: ConsumeQueueOptions,
    /// What was written before the process began may not be on the device.
    pub(crate) is_unclean: bool,
    /// The queues whose files are open. Locked after a queue's writer; within it other writers are
    /// only tried.
    ring: Mutex<VecDeque<Weak<ConsumeQueue<I>>>>,
    /// The queues that were put to since they were last flushed.
    dirty: Mutex<Vec<Weak<ConsumeQueue<I>>>>,
    /// Directories that have new names in them: those of topics, and what is above.
    unsynced_dirs: Mutex<BTreeSet<PathBuf>>,
    syncing_dirs: Mutex<()>,
    /// A sync failed. Set once (Release), read by puts and flushes (Acquire).
    poisoned: AtomicBool,
}

impl<I: Io> Shared<I> {
    pub(crate) fn new(io: I, options: ConsumeQueueOptions, policy: OpenPolicy) -> Self {
        Self {
            io,
            options,
            is_unclean: policy == OpenPolicy::Unclean,
            ring: Mutex::new(VecDeque::new()),
            dirty: Mutex::new(Vec::new()),
            unsynced_dirs: Mutex::new(BTreeSet::new()),
            syncing_dirs: Mutex::new(()),
            poisoned: AtomicBool::new(false),
        }
    }

    /// The extensions' options, if new entries get units.
    pub(crate) fn written_extensions(&self) -> Option<&ExtensionOptions> {
        let options = self.options.extensions.as_ref();
        options.filter(|options| options.is_written)
    }

    /// Takes in a queue that has just opened its files, and closes others if there are too many.
    /// The caller holds the queue's writer.
    pub(crate) fn admit(&self, queue: Weak<ConsumeQueue<I>>) {
        let mut ring = lock(&self.ring);
        // It may still be there, if an error closed its files.
        if !ring.iter().any(|other| other.ptr_eq(&queue)) {
            ring.push_back(queue);
        }
        // Two rounds: the first may only clear bits. Queues that are busy stay.
        let mut steps = ring.len() * 2;
        while ring.len() > self.options.hot_queue_count_max && steps > 0 {
            steps -= 1;
            let Some(candidate) = ring.pop_front() else {
                break;
            };
            let Some(queue) = candidate.upgrade() else {
                continue;
            };
            if !queue.try_cool() {
                ring.push_back(candidate);
            }
        }
    }

    /// The queues in the ring.
    pub(crate) fn hot_queues(&self) -> Vec<Arc<ConsumeQueue<I>>> {
        lock(&self.ring).iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether a queue that opens its files closes another's.
    pub(crate) fn is_full(&self) -> bool {
        lock(&self.ring).len() >= self.options.hot_queue_count_max
    }

    /// Count of queues in the ring; for tests and gauges.
    pub(crate) fn hot_count(&self) -> usize {
        lock(&self.ring).len()
    }

    pub(crate) fn add_dirty(&self, queue: Weak<ConsumeQueue<I>>) {
        lock(&self.dirty).push(queue);
    }

    pub(crate) fn take_dirty(&self) -> Vec<Weak<ConsumeQueue<I>>> {
        std::mem::take(&mut lock(&self.dirty))
    }

    /// Creates a queue's directory and what is missing above it. The names become durable with the
    /// next flush: many new queues must not cost their writer a sync each.
    pub(crate) fn create_dirs(&self, dir: &Path) -> Result<(), IoError> {
        if self.io.metadata(dir)?.is_some() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.create_dirs(parent)?;
            self.io.create_dir(dir)?;
            self.add_unsynced_dir(parent);
        }
        Ok(())
    }

    /// Lets the next flush make the names in `dir` durable.
    pub(crate) fn add_unsynced_dir(&self, dir: &Path) {
        let mut dirs = lock(&self.unsynced_dirs);
        if !dirs.contains(dir) {
            dirs.insert(dir.to_owned());
        }
    }

    /// Makes durable the names of directories that were there before the call.
    pub(crate) fn sync_dirs(&self) -> Result<(), IoError> {
        // One at a time, so that nobody finds the list empty before the syncs are done; writers
        // do not wait.
        let _one_at_a_time = lock(&self.syncing_dirs);
        let dirs = std::mem::take(&mut *lock(&self.unsynced_dirs));
        for dir in dirs {
            match self.io.sync_dir(&dir) {
                // The topic was deleted.
                Err(error) if error.is_not_found() => {}
                synced => synced?,
            }
        }
        Ok(())
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn check_poison(&self) -> Result<(), ConsumeQueueError> {
        if self.poisoned.load(Ordering::Acquire) {
            Err(ConsumeQueueError::Poisoned)
        } else {
            Ok(())
        }
    }
}

// Every critical section of this crate leaves whole values behind, so a poisoned lock's content
// can be used.

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

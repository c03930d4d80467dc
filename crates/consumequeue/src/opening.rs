//! Opening all queues of a directory: by several threads where they are many, as each waits for the
//! kernel to find its files.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use mmap_core::{FileKind, Io};

use crate::error::ConsumeQueueError;
use crate::hot::Shared;
use crate::options::OpenPolicy;
use crate::queue::ConsumeQueue;
use crate::recover::Doubt;
use crate::set::{DoubtfulQueue, OpenReport, Topics, list, queue_id_of};

/// Fewer queues are opened by one thread.
const PARALLEL_COUNT_MIN: usize = 1024;
/// More threads would find the kernel busy.
const THREAD_COUNT_MAX: usize = 4;

/// A queue's directory, and what its path says.
struct QueueDir {
    topic: Arc<str>,
    queue_id: i32,
    dir: PathBuf,
}

type Opened<I> = Result<(Arc<ConsumeQueue<I>>, Option<Doubt>), ConsumeQueueError>;

/// Finds the queues under `root`, which need not exist, and the ends of each.
pub(crate) fn open<I: Io>(
    shared: &Arc<Shared<I>>,
    root: &Path,
    policy: OpenPolicy,
) -> Result<(Topics<I>, OpenReport), ConsumeQueueError> {
    let mut opening = Opening {
        report: OpenReport::default(),
        topics: Topics::new(),
    };
    let dirs = opening.find(&shared.io, root)?;
    let opened = open_all(shared, &dirs, policy);
    opening.collect(shared, dirs, opened)?;
    Ok((opening.topics, opening.report))
}

struct Opening<I: Io> {
    report: OpenReport,
    topics: Topics<I>,
}

impl<I: Io> Opening<I> {
    fn find(&mut self, io: &I, root: &Path) -> Result<Vec<QueueDir>, ConsumeQueueError> {
        let mut dirs = Vec::new();
        for entry in list(io, root)? {
            let topic_dir = root.join(&entry.name);
            match entry.name.to_str() {
                Some(topic) if entry.kind == FileKind::Directory => {
                    self.find_in_topic(io, &Arc::from(topic), &topic_dir, &mut dirs)?;
                }
                _ => self.report.ignored.push(topic_dir),
            }
        }
        Ok(dirs)
    }

    fn find_in_topic(
        &mut self,
        io: &I,
        topic: &Arc<str>,
        topic_dir: &Path,
        dirs: &mut Vec<QueueDir>,
    ) -> Result<(), ConsumeQueueError> {
        self.report.topic_count += 1;
        self.topics.entry(Arc::clone(topic)).or_default();
        for entry in list(io, topic_dir)? {
            let dir = topic_dir.join(&entry.name);
            match queue_id_of(&entry) {
                Some(queue_id) => dirs.push(QueueDir {
                    topic: Arc::clone(topic),
                    queue_id,
                    dir,
                }),
                None => self.report.ignored.push(dir),
            }
        }
        Ok(())
    }

    /// Short files beside queues of the configured length are damage; where no queue has it, the
    /// directory was written with another configuration.
    fn collect(
        &mut self,
        shared: &Arc<Shared<I>>,
        dirs: Vec<QueueDir>,
        opened: Vec<Opened<I>>,
    ) -> Result<(), ConsumeQueueError> {
        let mut short = Vec::new();
        // Queues that have entries in files of the configured length.
        let mut well_count = 0;
        for (found, opened) in dirs.into_iter().zip(opened) {
            match opened {
                Err(error) if error.is_short() => short.push((found, error)),
                opened => {
                    let opened = opened?;
                    well_count += usize::from(opened.0.max_index() > 0);
                    self.add(&found, opened);
                }
            }
        }
        for (found, error) in short {
            if well_count == 0 {
                return Err(error);
            }
            self.add(&found, ConsumeQueue::open_broken(shared, &found.dir));
        }
        for queues in self.topics.values_mut() {
            queues.sort_unstable_by_key(|(queue_id, _)| *queue_id);
        }
        Ok(())
    }

    fn add(&mut self, found: &QueueDir, (queue, doubt): (Arc<ConsumeQueue<I>>, Option<Doubt>)) {
        self.report.queue_count += 1;
        self.report
            .doubtful
            .extend(doubt.map(|doubt| DoubtfulQueue {
                topic: Arc::clone(&found.topic),
                queue_id: found.queue_id,
                doubt,
            }));
        let queues = self.topics.entry(Arc::clone(&found.topic)).or_default();
        queues.push((found.queue_id, queue));
    }
}

/// Opens the queues in these directories, in their order.
fn open_all<I: Io>(
    shared: &Arc<Shared<I>>,
    dirs: &[QueueDir],
    policy: OpenPolicy,
) -> Vec<Opened<I>> {
    let open = |dirs: &[QueueDir]| -> Vec<Opened<I>> {
        let open = |found: &QueueDir| ConsumeQueue::open_shared(shared, &found.dir, policy);
        dirs.iter().map(open).collect()
    };
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let count = count.min(THREAD_COUNT_MAX);
    if dirs.len() < PARALLEL_COUNT_MIN || count == 1 {
        return open(dirs);
    }
    let mut parts = dirs.chunks(dirs.len().div_ceil(count));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let spawn = |part| {
            let thread = thread::Builder::new().name("open-queues".to_owned());
            let spawned = thread.spawn_scoped(scope, move || open(part));
            (part, spawned)
        };
        let others: Vec<_> = parts.map(spawn).collect();
        let mut opened = open(own);
        for (part, spawned) in others {
            opened.append(&mut match spawned {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // The system has no thread left.
                Err(_) => open(part),
            });
        }
        opened
    })
}

//! Carrying plans out, and looking at the disks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use commitlog::LogError;
use consumequeue::ConsumeQueueError;
use indexfile::IndexError;
use mmap_core::{Io, IoError};

use super::facts::{self, CleanFacts, DiskUse, LogFile};
use super::options::CleanOptions;
use super::plan::{CleanPlan, plan};
use crate::dispatch::Dispatcher;
use crate::error::PutError;
use crate::health::{self, Troubles};
use crate::options::StoreOptions;

/// Rounds that a manual delete lasts (`CleanCommitLogService.MANUAL_DELETE_FILE_MAX_TIMES`).
const MANUAL_ROUND_COUNT: u32 = 20;

/// What one round removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cleaned {
    /// Files of the log.
    pub log_file_count: u64,
    /// Files of the consume queues.
    pub queue_file_count: u64,
    /// Files of the index.
    pub index_file_count: u64,
    /// Their bytes; those of the index are sparse.
    pub bytes: u64,
}

/// Files were not removed; the next round tries again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CleanError {
    /// Of the log.
    #[error("commit log: {0}")]
    Log(#[from] LogError),
    /// Of a consume queue.
    #[error("consume queue: {0}")]
    Queue(#[from] ConsumeQueueError),
    /// Of the index.
    #[error("index: {0}")]
    Index(#[from] IndexError),
    /// Files could not be looked at.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// What the cleaner remembers between two rounds, and what puts ask it.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// Rounds that a manual delete still lasts.
    manual_rounds: AtomicU32,
    /// Where the log began when the queues and the index were last trimmed; they are trimmed in the
    /// first round whatever it is.
    trimmed_to: AtomicU64,
    /// Whether a disk is too full for more messages: what `disks` says, for puts.
    is_full: AtomicBool,
    disks: Mutex<Disks>,
}

/// The disks as they were last looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disks {
    pub(crate) log: Option<DiskUse>,
    pub(crate) queues: Option<DiskUse>,
}

/// What of a store is cleaned.
pub(crate) struct Cleanable<'a, I: Io> {
    pub(crate) io: &'a I,
    pub(crate) options: &'a StoreOptions,
    pub(crate) log: &'a commitlog::CommitLog<I>,
    pub(crate) dispatcher: &'a Dispatcher<I>,
    pub(crate) now_ms: i64,
}

impl Cleaner {
    /// Asks for a manual delete: what is old enough goes at any hour, for some rounds.
    pub(crate) fn ask_manually(&self) {
        self.manual_rounds
            .store(MANUAL_ROUND_COUNT, Ordering::Relaxed);
    }

    /// Whether a manual delete is going on.
    pub(crate) fn is_asked(&self) -> bool {
        self.manual_rounds.load(Ordering::Relaxed) > 0
    }

    /// The disks as they were last looked at.
    pub(crate) fn disks(&self) -> Disks {
        *self.lock_disks()
    }

    /// Refuses a put while a disk is too full.
    pub(crate) fn check_space(&self, options: &StoreOptions) -> Result<(), PutError> {
        if !self.is_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let disks = self.disks();
        let limit_percent = options.clean.full_percent();
        let full = [
            (options.commit_log_dir(), disks.log),
            (options.queue_dir(), disks.queues),
        ]
        .into_iter()
        .find_map(|(path, disk)| {
            disk.filter(|disk| disk.percent() > limit_percent)
                .map(|disk| (path, disk))
        });
        match full {
            Some((path, disk)) => Err(PutError::DiskFull {
                path,
                used: disk.used,
                limit: disk.limit,
                used_percent: disk.percent(),
                limit_percent,
            }),
            None => Ok(()),
        }
    }

    /// Looks at the disks: begins or ends the state in which no messages are taken.
    pub(crate) fn look_at_disks<I: Io>(&self, store: &Cleanable<'_, I>, troubles: &Troubles) {
        let facts = store.facts(Vec::new(), false);
        let limit = store.options.clean.full_percent();
        let is_full = [facts.log_disk, facts.queue_disk]
            .into_iter()
            .flatten()
            .any(|disk| disk.percent() > limit);
        *self.lock_disks() = Disks {
            log: facts.log_disk,
            queues: facts.queue_disk,
        };
        self.is_full.store(is_full, Ordering::Relaxed);
        match self.check_space(store.options) {
            Ok(()) => troubles.end(health::DISK_FULL),
            Err(refusal) => {
                troubles.begin(health::DISK_FULL, store.now_ms, || refusal.to_string());
            }
        }
    }

    /// One round: plans, removes files of the log with `pause` between two, which tells whether
    /// to go on, and lets queues and index follow.
    pub(crate) fn round<I: Io>(
        &self,
        store: &Cleanable<'_, I>,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Cleaned, CleanError> {
        let manual = self
            .manual_rounds
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        let plan = plan(
            &store.facts(store.log_files()?, manual),
            &store.options.clean,
        );
        let mut cleaned = Cleaned::default();
        let removed = self.remove_log_files(store, &plan, &mut cleaned, pause);
        // What has gone has gone, also if not all did.
        let followed = self.trim_derived(store, &mut cleaned);
        removed?;
        followed?;
        Ok(cleaned)
    }

    fn remove_log_files<I: Io>(
        &self,
        store: &Cleanable<'_, I>,
        plan: &CleanPlan,
        cleaned: &mut Cleaned,
        pause: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<(), CleanError> {
        let CleanOptions { pause: gap, .. } = store.options.clean;
        for (position, planned) in plan.removed().enumerate() {
            if position > 0 && !pause(gap) {
                break;
            }
            let trimmed = store.log.trim_to(planned.file.end())?;
            if trimmed.segment_count > 0 {
                let (path, why) = (planned.file.path.display(), planned.verdict);
                tracing::info!(%path, %why, "a file of the commit log is removed");
            }
            cleaned.log_file_count += trimmed.segment_count;
            cleaned.bytes += trimmed.len;
        }
        Ok(())
    }

    fn trim_derived<I: Io>(
        &self,
        store: &Cleanable<'_, I>,
        cleaned: &mut Cleaned,
    ) -> Result<(), CleanError> {
        let log_min = store.log.min_offset();
        if self.trimmed_to.load(Ordering::Relaxed) == log_min {
            return Ok(());
        }
        let queues = store.dispatcher.queues.set().trim(log_min)?;
        let batches = store.dispatcher.batches.set.trim(log_min)?;
        cleaned.queue_file_count = queues.segment_count + batches.segment_count;
        cleaned.bytes += queues.len + batches.len;
        if let Some(index) = &store.dispatcher.index {
            let index = index.trim(log_min)?;
            cleaned.index_file_count = index.file_count as u64;
            cleaned.bytes += index.bytes;
        }
        self.trimmed_to.store(log_min, Ordering::Relaxed);
        Ok(())
    }

    fn lock_disks(&self) -> MutexGuard<'_, Disks> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Io> Cleanable<'_, I> {
    fn facts(&self, log: Vec<LogFile>, manual: bool) -> CleanFacts {
        CleanFacts {
            settled: self.log.flushed().min(self.dispatcher.next_offset()),
            ..facts::with_disks(self.io, self.options, self.now_ms, manual, log)
        }
    }

    fn log_files(&self) -> Result<Vec<LogFile>, IoError> {
        let segments = self.log.segments().segments();
        let mut files = Vec::with_capacity(segments.len());
        for segment in segments.iter() {
            let (path, base, len) = (segment.path(), segment.base(), segment.len());
            files.push(match self.io.metadata(&path)? {
                Some(info) => facts::log_file(path, base, &info),
                // Somebody else has removed it; nothing is kept by keeping what is left of it.
                None => LogFile {
                    path,
                    base,
                    len,
                    modified_ms: 0,
                },
            });
        }
        Ok(files)
    }
}

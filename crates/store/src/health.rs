//! What is wrong at the moment: said in one log line when it begins and in one when it ends, and
//! listed for whoever asks in between.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clean::DiskUse;

/// The log takes no more messages until the store is opened again: a write or sync failed.
pub const LOG_FAILED: &str = "commitLogFailed";
/// Messages are refused: there was no space for the last one.
pub const NO_SPACE: &str = "noSpace";
/// Messages are refused: a disk is fuller than `diskSpaceWarningLevelRatio`.
pub const DISK_FULL: &str = "diskFull";
/// Readers do not see newer messages: their queue or index entries cannot be written.
pub const DISPATCH: &str = "dispatch";
/// Queue entries are not synced any more: after a crash they are built again from the log.
pub const QUEUE_SYNC: &str = "consumeQueueSync";
/// Index entries are not synced any more: after a crash they are built again from the log.
pub const INDEX_SYNC: &str = "indexSync";
/// The checkpoint is not synced: after a crash more of the log is read.
pub const CHECKPOINT_SYNC: &str = "checkpointSync";
/// Old files cannot be removed.
pub const CLEANING: &str = "cleaning";

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What: one of this module's names, or the caller's own.
    pub name: &'static str,
    /// Since when, Unix time in milliseconds.
    pub since_ms: i64,
    /// Why, as it was found at first.
    pub reason: String,
}

/// The troubles of this moment, by name.
#[derive(Debug, Default)]
pub struct Troubles {
    /// How many there are: asked on paths where there is no time for the lock.
    count: AtomicUsize,
    list: Mutex<Vec<Trouble>>,
}

impl Troubles {
    /// Notes that something is wrong, unless it is known; a new one is logged.
    pub fn begin(&self, name: &'static str, now_ms: i64, reason: impl FnOnce() -> String) {
        let mut list = self.lock();
        if list.iter().any(|known| known.name == name) {
            return;
        }
        let reason = reason();
        tracing::error!(trouble = name, %reason, "something is wrong");
        list.push(Trouble {
            name,
            since_ms: now_ms,
            reason,
        });
        self.count.store(list.len(), Ordering::Relaxed);
    }

    /// Notes that it is over; logged if it was known.
    pub fn end(&self, name: &'static str) {
        if self.is_empty() {
            return;
        }
        let mut list = self.lock();
        let count = list.len();
        list.retain(|known| known.name != name);
        if list.len() < count {
            tracing::info!(trouble = name, "it is over");
        }
        self.count.store(list.len(), Ordering::Relaxed);
    }

    /// Begins or ends a trouble by how something went.
    pub fn note<T, E: Error + 'static>(
        &self,
        name: &'static str,
        now_ms: i64,
        result: &Result<T, E>,
    ) {
        match result {
            Ok(_) => self.end(name),
            Err(error) => self.begin(name, now_ms, || chain(error)),
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// What is wrong, oldest first.
    pub fn list(&self) -> Vec<Trouble> {
        self.lock().clone()
    }

    /// The reason of one of them.
    pub fn reason(&self, name: &str) -> Option<String> {
        let list = self.lock();
        let known = list.iter().find(|known| known.name == name)?;
        Some(known.reason.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Trouble>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a store is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Why messages are refused; `None` when they are taken.
    pub refusal: Option<String>,
    /// All that is wrong, oldest first.
    pub troubles: Vec<Trouble>,
    /// The disk of the log, when it was last looked at.
    pub log_disk: Option<DiskUse>,
    /// The disk of the consume queues, when it was last looked at.
    pub queue_disk: Option<DiskUse>,
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays_until_it_is_over() {
        let troubles = Troubles::default();
        assert!(troubles.is_empty());
        troubles.begin("a", 1, || "first".to_owned());
        troubles.begin("a", 2, || panic!("known"));
        troubles.begin("b", 3, || "other".to_owned());
        let list = troubles.list();
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].since_ms, &*list[0].reason), (1, "first"));
        troubles.end("a");
        troubles.end("a");
        assert_eq!(troubles.reason("a"), None);
        assert_eq!(troubles.reason("b").as_deref(), Some("other"));
        troubles.note("b", 4, &Ok::<_, std::io::Error>(()));
        assert!(troubles.is_empty());
    }

    #[test]
    fn a_chain_says_each_thing_once() {
        let inner = std::io::Error::other("the disk is gone");
        let outer = mmap_core::IoError::new("write", "/a", inner);
        assert_eq!(chain(&outer), "write /a: the disk is gone");
    }
}

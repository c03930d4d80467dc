//! What a commit log can be told when it is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use message::Limits;
use mmap_core::{Advice, WarmUp};
use thiserror::Error;

/// Length of a segment file: 1 GiB (RocketMQ: `mappedFileSizeCommitLog`).
pub const DEFAULT_SEGMENT_LEN: u64 = 1 << 30;

/// How many bytes may wait for the group commit: 32 MiB.
pub const DEFAULT_PENDING_LEN_MAX: usize = 32 << 20;

/// Blocks are allocated this far ahead of the writer: 16 MiB.
pub const DEFAULT_ALLOCATE_STEP: u64 = 16 << 20;

/// How long an append waits for room in the pending bytes, or for the next segment: 5 s.
pub const DEFAULT_APPEND_WAIT: Duration = Duration::from_secs(5);

/// When appended records reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    /// Records are acknowledged when they are in the page cache; a service syncs them later.
    ///
    /// After a crash of the process nothing is lost. After a power loss, what was appended since
    /// the last sync is: at most `interval` and the time of one sync, if at least `least_pages`
    /// were written meanwhile, else `thorough_interval`.
    Async {
        /// Pause between two looks at what is to be flushed
        /// (RocketMQ: `flushIntervalCommitLog`, 500 ms).
        interval: Duration,
        /// Fewer dirty 4 KiB pages than this are left for later
        /// (RocketMQ: `flushCommitLogLeastPages`, 4).
        least_pages: u64,
        /// So often everything is flushed, however little
        /// (RocketMQ: `flushCommitLogThoroughInterval`, 10 s).
        thorough_interval: Duration,
    },
    /// Records are acknowledged, and readable, after they were synced: nothing acknowledged is
    /// lost by a crash or a power loss. All records that wait share one write and one sync.
    Sync {
        /// After this long a waiting ticket resolves to [`FlushError::Timeout`]; the record
        /// stays in the log and may yet become durable (RocketMQ: `syncFlushTimeout`, 5 s).
        ///
        /// [`FlushError::Timeout`]: crate::FlushError::Timeout
        timeout: Duration,
    },
}

impl FlushMode {
    /// RocketMQ's `ASYNC_FLUSH` with its defaults.
    pub const fn async_default() -> Self {
        Self::Async {
            interval: Duration::from_millis(500),
            least_pages: 4,
            thorough_interval: Duration::from_secs(10),
        }
    }

    /// What a power loss can take of what was acknowledged; `None` in sync mode: nothing.
    pub fn loss_window(&self) -> Option<LossWindow> {
        let Self::Async {
            interval,
            least_pages,
            thorough_interval,
        } = *self
        else {
            return None;
        };
        // The first step of the flush at or behind the thorough interval makes the thorough one.
        let small_time = match least_pages {
            0 => interval,
            _ => thorough_interval.saturating_add(interval),
        };
        Some(LossWindow {
            time: interval,
            small_time,
            small_len: least_pages.saturating_add(1) * segment_queue::FLUSH_PAGE_LEN,
        })
    }

    /// RocketMQ's `SYNC_FLUSH` with its defaults.
    pub const fn sync_default() -> Self {
        Self::Sync {
            timeout: Duration::from_secs(5),
        }
    }
}

/// What a power loss can take in async mode: what was acknowledged within these times before it,
/// and while the last sync ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossWindow {
    /// In general.
    pub time: Duration,
    /// Of less than `small_len` bytes, which may wait for the thorough flush.
    pub small_time: Duration,
    /// Bytes.
    pub small_len: u64,
}

impl fmt::Display for LossWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            small_time,
            small_len,
        } = self;
        write!(f, "the last {time:?} and the time of a sync")?;
        if small_time > time {
            write!(f, " ({small_time:?} for less than {small_len} bytes)")?;
        }
        Ok(())
    }
}

/// What is done to the pages of the log before records are written to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogWarmUp {
    /// Blocks are allocated, and that is all.
    None,
    /// In async mode the pages just ahead of the last record are faulted in for writing, so that
    /// appending takes no page fault. In sync mode, where nothing is written through the mapping,
    /// as `None`.
    Window,
    /// As `Window`; and before that the whole of each new segment is warmed up while it waits for
    /// its turn.
    Whole(WarmUp),
}

/// How to open a commit log. Plain data; [`CommitLogOptions::validate`] checks it.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitLogOptions {
    /// The directory of the segment files. It is created when missing.
    pub dir: PathBuf,
    /// Length of each segment file in bytes. Part of the format: a directory with segments of
    /// another length is refused. Default: [`DEFAULT_SEGMENT_LEN`].
    pub segment_len: u64,
    /// When records reach the device. Default: [`FlushMode::async_default`].
    pub flush: FlushMode,
    /// The largest body and record, and whether records end in a CRC property.
    /// Default: RocketMQ's.
    pub limits: Limits,
    /// In sync mode: bytes that may wait for the group commit, the group being written
    /// included. A single larger record is let in when nothing else waits.
    /// Default: [`DEFAULT_PENDING_LEN_MAX`].
    pub pending_len_max: usize,
    /// How long an append waits for the next segment, and in sync mode for room, before it is
    /// refused. Default: [`DEFAULT_APPEND_WAIT`].
    pub append_wait: Duration,
    /// Blocks are allocated in steps of this many bytes, ahead of the writer.
    /// Default: [`DEFAULT_ALLOCATE_STEP`].
    pub allocate_step: u64,
    /// Where a log without segments starts, rounded down to a multiple of `segment_len`.
    /// Default: 0.
    pub base_when_empty: u64,
    /// What is done to pages before they are written. Default: [`LogWarmUp::Window`].
    pub warm_up: LogWarmUp,
    /// Whether the segment that is appended to is kept in memory. Opening fails if
    /// `RLIMIT_MEMLOCK` does not allow it. Default: no.
    pub lock_tail: bool,
    /// What the kernel is told of how the segments are read. Default: [`Advice::Normal`].
    pub advice: Advice,
}

/// An option that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{option} is {value}; it must be {rule}")]
pub struct OptionsError {
    /// The field of [`CommitLogOptions`].
    pub option: &'static str,
    /// What it was set to.
    pub value: u64,
    /// What is allowed.
    pub rule: &'static str,
}

impl CommitLogOptions {
    /// The defaults, for a log in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_len: DEFAULT_SEGMENT_LEN,
            flush: FlushMode::async_default(),
            limits: Limits::default(),
            pending_len_max: DEFAULT_PENDING_LEN_MAX,
            append_wait: DEFAULT_APPEND_WAIT,
            allocate_step: DEFAULT_ALLOCATE_STEP,
            base_when_empty: 0,
            warm_up: LogWarmUp::Window,
            lock_tail: false,
            advice: Advice::Normal,
        }
    }

    /// Checks the options without changing them.
    ///
    /// # Errors
    ///
    /// The first option that cannot be used, with what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let refuse = |option, value, rule| {
            Err(OptionsError {
                option,
                value,
                rule,
            })
        };
        // RocketMQ's total size and blank size are 32-bit signed integers.
        if self.segment_len < SEGMENT_LEN_MIN || self.segment_len > i32::MAX as u64 {
            return refuse(
                "segment_len",
                self.segment_len,
                "between 128 and 2147483647 bytes",
            );
        }
        if self.pending_len_max == 0 {
            return refuse("pending_len_max", 0, "at least 1 byte");
        }
        if self.allocate_step == 0 {
            return refuse("allocate_step", 0, "at least 1 byte");
        }
        if self.base_when_empty > i64::MAX as u64 - self.segment_len {
            return refuse(
                "base_when_empty",
                self.base_when_empty,
                "a segment below 2^63",
            );
        }
        Ok(())
    }
}

/// The smallest record is 91 bytes (RocketMQ 5.3.3 `calMsgLength` with nothing in it), and a
/// blank record of 8 must still fit behind it.
const SEGMENT_LEN_MIN: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_of_loss_follows_from_the_mode() {
        assert_eq!(FlushMode::sync_default().loss_window(), None);
        let window = FlushMode::async_default().loss_window().unwrap();
        assert_eq!(
            window.to_string(),
            "the last 500ms and the time of a sync (10.5s for less than 20480 bytes)"
        );
        let every_page = FlushMode::Async {
            interval: Duration::from_millis(5),
            least_pages: 0,
            thorough_interval: Duration::from_secs(10),
        };
        let text = every_page.loss_window().unwrap().to_string();
        assert_eq!(text, "the last 5ms and the time of a sync");
    }

    #[test]
    fn options_are_checked_by_name() {
        let good = CommitLogOptions::new("x");
        assert_eq!(good.validate(), Ok(()));
        let mut bad = good.clone();
        bad.segment_len = 8;
        assert_eq!(bad.validate().unwrap_err().option, "segment_len");
        bad.segment_len = 4096;
        bad.base_when_empty = u64::MAX;
        assert_eq!(bad.validate().unwrap_err().option, "base_when_empty");
    }
}

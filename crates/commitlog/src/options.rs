//! What a commit log can be told when it is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use message::Limits;
use mmap_core::{Advice, WarmUp};
use segment_queue::MapBudget;
use thiserror::Error;

/// Length of a segment file: 1 GiB (RocketMQ: `mappedFileSizeCommitLog`).
pub const DEFAULT_SEGMENT_LEN: u64 = 1 << 30;

/// How many bytes may wait for the group commit: 32 MiB.
pub const DEFAULT_PENDING_LEN_MAX: usize = 32 << 20;

/// Blocks are allocated this far ahead of the writer: 16 MiB.
pub const DEFAULT_ALLOCATE_STEP: u64 = 16 << 20;

/// How long an append waits for room in the pending bytes, or for the next segment: 5 s.
pub const DEFAULT_APPEND_WAIT: Duration = Duration::from_secs(5);

/// Buffers of the stage: 5 (RocketMQ: `transientStorePoolSize`).
pub const DEFAULT_STAGE_BUFFER_COUNT: usize = 5;

/// Bytes of each: 4 MiB. RocketMQ's are as long as a segment, 1 GiB.
pub const DEFAULT_STAGE_BUFFER_LEN: usize = 4 << 20;

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
    /// Records are acknowledged when they are in a buffer of this process; a service commits them
    /// to the page cache a little later, and only then can they be read; another one syncs them
    /// (RocketMQ: `transientStorePoolEnable`). No append waits for the kernel's writing of dirty
    /// pages.
    ///
    /// A crash of the process loses what was not committed ([`FlushMode::kill_window`]), a power
    /// loss that and what was not synced.
    Staged {
        /// The buffers, and when they are committed.
        stage: StageOptions,
        /// As in [`FlushMode::Async`], of what is committed.
        interval: Duration,
        /// As in [`FlushMode::Async`].
        least_pages: u64,
        /// As in [`FlushMode::Async`].
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

    /// RocketMQ's `ASYNC_FLUSH` with a transient store pool, and the defaults.
    pub const fn staged_default() -> Self {
        Self::Staged {
            stage: StageOptions::DEFAULT,
            interval: Duration::from_millis(500),
            least_pages: 4,
            thorough_interval: Duration::from_secs(10),
        }
    }

    /// What a power loss can take of what was acknowledged; `None` in sync mode: nothing.
    pub fn loss_window(&self) -> Option<LossWindow> {
        match *self {
            Self::Async {
                interval,
                least_pages,
                thorough_interval,
            } => Some(LossWindow::new(interval, least_pages, thorough_interval)),
            Self::Staged {
                stage,
                interval,
                least_pages,
                thorough_interval,
            } => {
                let flush = LossWindow::new(interval, least_pages, thorough_interval);
                Some(flush.behind(stage.window()))
            }
            Self::Sync { .. } => None,
        }
    }

    /// What the end of the process can take of what was acknowledged; `None` but in staged mode:
    /// nothing.
    pub fn kill_window(&self) -> Option<LossWindow> {
        match self {
            Self::Staged { stage, .. } => Some(stage.window()),
            Self::Async { .. } | Self::Sync { .. } => None,
        }
    }

    pub(crate) fn stage(&self) -> Option<&StageOptions> {
        match self {
            Self::Staged { stage, .. } => Some(stage),
            Self::Async { .. } | Self::Sync { .. } => None,
        }
    }

    /// RocketMQ's `SYNC_FLUSH` with its defaults.
    pub const fn sync_default() -> Self {
        Self::Sync {
            timeout: Duration::from_secs(5),
        }
    }
}

/// The buffers of [`FlushMode::Staged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageOptions {
    /// How many there are (RocketMQ: `transientStorePoolSize`). When all are full, or are being
    /// committed, appends wait for [`CommitLogOptions::append_wait`] at most.
    /// Default: [`DEFAULT_STAGE_BUFFER_COUNT`].
    pub buffer_count: usize,
    /// Bytes of each, made and locked in memory when the log is opened; in whole pages.
    /// Default: [`DEFAULT_STAGE_BUFFER_LEN`].
    pub buffer_len: usize,
    /// Pause between two looks at what is to be committed
    /// (RocketMQ: `commitIntervalCommitLog`, 200 ms).
    pub interval: Duration,
    /// Fewer 4 KiB pages than this are left for later; so many are committed at once
    /// (RocketMQ: `commitCommitLogLeastPages`, 4).
    pub least_pages: u64,
    /// So often everything is committed, however little
    /// (RocketMQ: `commitCommitLogThoroughInterval`, 200 ms).
    pub thorough_interval: Duration,
    /// An append for which no buffer is free is refused at once, and does not wait
    /// (RocketMQ: `fastFailIfNoBufferInStorePool`). Default: no.
    pub is_fast_failing: bool,
}

impl StageOptions {
    /// RocketMQ's defaults, but for the length of the buffers.
    pub const DEFAULT: Self = Self {
        buffer_count: DEFAULT_STAGE_BUFFER_COUNT,
        buffer_len: DEFAULT_STAGE_BUFFER_LEN,
        interval: Duration::from_millis(200),
        least_pages: 4,
        thorough_interval: Duration::from_millis(200),
        is_fast_failing: false,
    };

    fn window(&self) -> LossWindow {
        let Self {
            interval,
            least_pages,
            thorough_interval,
            ..
        } = *self;
        // Each look is a thorough one then.
        let is_always_thorough = thorough_interval <= interval;
        let least_pages = if is_always_thorough { 0 } else { least_pages };
        LossWindow {
            last: "a write",
            ..LossWindow::new(interval, least_pages, thorough_interval)
        }
    }
}

impl Default for StageOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a power loss, or the end of the process, can take: what was acknowledged within these times
/// before it, and while the last sync, or write, ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossWindow {
    /// In general.
    pub time: Duration,
    /// Of less than `small_len` bytes, which may wait for the thorough round.
    pub small_time: Duration,
    /// Bytes.
    pub small_len: u64,
    /// What may have been running last.
    last: &'static str,
}

impl LossWindow {
    fn new(interval: Duration, least_pages: u64, thorough_interval: Duration) -> Self {
        // The first step at or behind the thorough interval makes the thorough round.
        let small_time = match least_pages {
            0 => interval,
            _ => thorough_interval.saturating_add(interval),
        };
        Self {
            time: interval,
            small_time,
            small_len: least_pages.saturating_add(1) * segment_queue::FLUSH_PAGE_LEN,
            last: "a sync",
        }
    }

    /// The window of what passes through two rounds, one after the other.
    fn behind(self, first: Self) -> Self {
        Self {
            time: self.time.saturating_add(first.time),
            small_time: self.small_time.saturating_add(first.small_time),
            small_len: self.small_len.max(first.small_len),
            last: "a write and a sync",
        }
    }
}

impl fmt::Display for LossWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            small_time,
            small_len,
            last,
        } = self;
        write!(f, "the last {time:?} and the time of {last}")?;
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
    /// How long an append waits for the next segment, and in sync and staged mode for room, before
    /// it is refused. Default: [`DEFAULT_APPEND_WAIT`].
    pub append_wait: Duration,
    /// Blocks are allocated in steps of this many bytes, ahead of the writer.
    /// Default: [`DEFAULT_ALLOCATE_STEP`].
    pub allocate_step: u64,
    /// Bytes that may be mapped at a time, together with other queues. The segment at the end stays
    /// mapped. Default: `None`, no bound.
    pub budget: Option<MapBudget>,
    /// How long a segment that is not read stays mapped, by the steps of
    /// [`SegmentQueue::step_unmap`](segment_queue::SegmentQueue::step_unmap). Default: `None`, for
    /// good.
    pub unmap_after: Option<Duration>,
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
            budget: None,
            unmap_after: None,
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
        if let Some(stage) = self.flush.stage() {
            if stage.buffer_count == 0 {
                return refuse("stage.buffer_count", 0, "at least 1");
            }
            if stage.buffer_len == 0 {
                return refuse("stage.buffer_len", 0, "at least 1 byte");
            }
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
    fn a_stage_adds_its_own_window() {
        assert_eq!(FlushMode::async_default().kill_window(), None);
        assert_eq!(FlushMode::sync_default().kill_window(), None);
        let mut mode = FlushMode::staged_default();
        let text = mode.kill_window().unwrap().to_string();
        assert_eq!(text, "the last 200ms and the time of a write");
        let window = mode.loss_window().unwrap();
        assert_eq!(window.time, Duration::from_millis(700));
        assert_eq!(window.small_time, Duration::from_millis(10_700));
        if let FlushMode::Staged { stage, .. } = &mut mode {
            stage.thorough_interval = Duration::from_secs(1);
        }
        let window = mode.kill_window().unwrap();
        assert_eq!(window.small_time, Duration::from_millis(1_200));
        assert_eq!(window.small_len, 20_480);
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
        let mut bad = good.clone();
        bad.flush = FlushMode::staged_default();
        assert_eq!(bad.validate(), Ok(()));
        if let FlushMode::Staged { stage, .. } = &mut bad.flush {
            stage.buffer_count = 0;
        }
        assert_eq!(bad.validate().unwrap_err().option, "stage.buffer_count");
    }
}

//! What the tests share: a clock of their own, messages, and opening.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use commitlog::{
    CallerError, Clock, CommitLog, CommitLogOptions, CrcCheck, DirQuarantine, FlushMode, Known,
    LogError, RecoverFrom, RecoveryReport, StageOptions, Tail,
};
use message::{Message, Parsed, RecordView};
use mmap_core::{Io, SimIo};

pub(crate) const SEGMENT_LEN: u64 = 16 * 1024;
pub(crate) const START_MS: i64 = 1_700_000_000_000;

/// A clock that stands still unless told otherwise.
#[derive(Debug)]
pub(crate) struct TestClock {
    pub(crate) wall_ms: AtomicI64,
    pub(crate) monotonic_ms: AtomicU64,
}

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            wall_ms: AtomicI64::new(START_MS),
            monotonic_ms: AtomicU64::new(0),
        })
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.wall_ms
            .fetch_add(time.as_millis() as i64, Ordering::Relaxed);
        self.monotonic_ms
            .fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::Relaxed))
    }
}

/// What a test knows of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) queue_id: i32,
    pub(crate) queue_offset: i64,
    pub(crate) store_ms: i64,
    pub(crate) body: Vec<u8>,
    pub(crate) properties: Vec<u8>,
}

impl Record {
    pub(crate) fn of(view: &RecordView<'_>) -> Self {
        Self {
            offset: view.physical_offset() as u64,
            queue_id: view.queue_id(),
            queue_offset: view.queue_offset(),
            store_ms: view.store_timestamp_ms(),
            body: view.body().to_vec(),
            properties: view.properties().bytes().to_vec(),
        }
    }

    /// A line that tells two records apart without their bytes.
    pub(crate) fn summary(&self) -> String {
        let Self {
            offset,
            queue_id,
            queue_offset,
            store_ms,
            ..
        } = self;
        let (body, properties) = (&self.body, &self.properties);
        format!(
            "{offset}: queue {queue_id} at {queue_offset}, stored {store_ms}, body {} bytes crc \
             {:08x}, properties {} bytes crc {:08x}",
            body.len(),
            message::body_crc(body),
            properties.len(),
            message::body_crc(properties),
        )
    }
}

pub(crate) fn message<'a>(queue_id: i32, body: &'a [u8], properties: &'a [u8]) -> Message<'a> {
    Message {
        properties,
        ..Message::new("TopicTest", queue_id, body)
    }
}

/// Bytes of a record of [`message`].
pub(crate) fn record_len(body: &[u8], properties: &[u8]) -> u64 {
    (91 + "TopicTest".len() + body.len() + properties.len()) as u64
}

/// Staged mode with buffers of a page, of which every step of the commit commits all.
pub(crate) const STAGED: FlushMode = FlushMode::Staged {
    stage: StageOptions {
        buffer_count: 3,
        buffer_len: 4096,
        interval: Duration::ZERO,
        thorough_interval: Duration::ZERO,
        ..StageOptions::DEFAULT
    },
    interval: Duration::from_millis(500),
    least_pages: 4,
    thorough_interval: Duration::from_secs(10),
};

pub(crate) fn options(flush: FlushMode) -> CommitLogOptions {
    let mut options = CommitLogOptions::new("/store/commitlog");
    options.segment_len = SEGMENT_LEN;
    options.allocate_step = 4096;
    options.flush = flush;
    options
}

/// What is known after a crash: nothing.
pub(crate) fn from_start() -> RecoverFrom {
    RecoverFrom {
        offset: 0,
        last_store_ms: 0,
        known: Known::NOTHING,
        crc: CrcCheck::Body,
        tail: Tail::Unknown,
    }
}

pub(crate) struct Opened<I: Io> {
    pub(crate) log: CommitLog<I>,
    pub(crate) report: RecoveryReport,
    pub(crate) records: Vec<Record>,
    pub(crate) kept: Vec<PathBuf>,
}

pub(crate) fn try_open<I: Io>(
    io: &I,
    options: CommitLogOptions,
    clock: Arc<dyn Clock>,
    from: &RecoverFrom,
) -> Result<Opened<I>, LogError> {
    let mut records = Vec::new();
    let mut quarantine = DirQuarantine::new(io.clone(), options.dir.with_file_name("quarantine"));
    let mut visit = |view: &RecordView<'_>| -> Result<(), CallerError> {
        records.push(Record::of(view));
        Ok(())
    };
    let (log, report) =
        CommitLog::open(io.clone(), options, clock)?.recover(from, &mut visit, &mut quarantine)?;
    Ok(Opened {
        log,
        report,
        records,
        kept: quarantine.kept().to_vec(),
    })
}

pub(crate) fn open(io: &SimIo, flush: FlushMode) -> Opened<SimIo> {
    try_open(io, options(flush), TestClock::new(), &from_start()).unwrap()
}

/// Everything that readers can see, by walking over the log as dispatch does.
pub(crate) fn visible_records<I: Io>(log: &CommitLog<I>) -> Vec<Record> {
    let mut records = Vec::new();
    let mut offset = log.min_offset();
    while let Some(slice) = log.readable_from(offset) {
        let mut rest: &[u8] = &slice;
        let mut next = offset + slice.len() as u64;
        while !rest.is_empty() {
            match RecordView::parse(rest).unwrap() {
                Parsed::Record(view) => {
                    records.push(Record::of(&view));
                    rest = &rest[view.total_size()..];
                }
                Parsed::Blank { .. } => {
                    let segment_len = log.options().segment_len;
                    next = offset - offset % segment_len + segment_len;
                    break;
                }
            }
        }
        offset = next;
    }
    records
}

pub(crate) fn segment_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}"))
}

//! What is done to a store, step by step, and what it answers: the same for Java's and for ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The shape of a store's files: part of the format.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
pub(super) struct Shape {
    pub(super) segment_len: u64,
    pub(super) queue_file_len: u64,
    pub(super) slot_count: u32,
    pub(super) entry_count_max: u32,
    /// Whether queue entries have units beside them (RocketMQ: `enableConsumeQueueExt`).
    pub(super) is_extended: bool,
    /// How often Java's store syncs all of the log and tells its checkpoint, ms.
    pub(super) sync_interval_ms: u64,
    /// Whether a message is acknowledged only after its sync (RocketMQ: `SYNC_FLUSH`).
    pub(super) is_sync: bool,
}

impl Shape {
    /// So small that a few messages fill a file of each kind.
    pub(super) const SMALL: Self = Self {
        segment_len: 4096,
        queue_file_len: 200,
        slot_count: 100,
        entry_count_max: 400,
        is_extended: false,
        sync_interval_ms: 10_000,
        is_sync: false,
    };

    /// The golden stores'.
    pub(super) const GOLDEN: Self = Self {
        segment_len: 1 << 20,
        queue_file_len: 20_000,
        slot_count: 1000,
        entry_count_max: 4000,
        is_extended: true,
        sync_interval_ms: 10_000,
        is_sync: false,
    };

    /// The configuration of Java's store.
    pub(super) fn conf(&self, store: &Path) -> String {
        let root = store.display();
        format!(
            "storePathRootDir={root}\nstorePathCommitLog={root}/commitlog\n\
             mappedFileSizeCommitLog={}\nmappedFileSizeConsumeQueue={}\n\
             maxHashSlotNum={}\nmaxIndexNum={}\n\
             enableConsumeQueueExt={}\nmappedFileSizeConsumeQueueExt={}\n\
             flushCommitLogThoroughInterval={}\nflushDiskType={}\n\
             haListenPort=0\ntimerWheelEnable=false\nenableCompaction=false\n\
             diskMaxUsedSpaceRatio=95\nfileReservedTime=100000\n",
            self.segment_len,
            self.queue_file_len,
            self.slot_count,
            self.entry_count_max,
            self.is_extended,
            EXTENSION_FILE_LEN,
            self.sync_interval_ms,
            match self.is_sync {
                true => "SYNC_FLUSH",
                false => "ASYNC_FLUSH",
            },
        )
    }
}

/// One thing that is done to an open store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Step {
    /// A message is put, and everything is dispatched before the store is left.
    Put {
        topic: String,
        queue_id: i32,
        /// Its key, which its body repeats.
        key: String,
        body_len: usize,
    },
    /// Nothing happens for longer than RocketMQ's recovery goes back behind its checkpoint (3 s).
    Pause,
    /// Every queue is read from end to end.
    Dump,
    /// The messages of a key are looked up.
    Find { topic: String, key: String },
    /// A Java store is started on the directory, by mistake.
    Intrude,
    /// The store is closed; without it the process dies.
    Close,
}

/// Bytes of a file of an extended consume queue, in every shape.
pub(super) const EXTENSION_FILE_LEN: u64 = 1 << 20;

/// How long a pause is.
pub(super) const PAUSE: Duration = Duration::from_millis(3_500);

/// One answer of a store.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub(super) enum Answer {
    Open { started: bool },
    Put(Put),
    Message(Served),
    Find(Found),
}

/// How a put ended.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Put {
    pub(super) acknowledged: bool,
    pub(super) topic: String,
    pub(super) queue_id: i32,
    pub(super) key: String,
    #[serde(default)]
    pub(super) queue_offset: i64,
    #[serde(default)]
    pub(super) offset: i64,
    pub(super) body_crc: u32,
}

/// A message as a consumer gets it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Served {
    pub(super) topic: String,
    pub(super) queue_id: i32,
    /// Where in the queue it stands.
    pub(super) slot: i64,
    /// Its place in the log; none if it could not be decoded.
    pub(super) offset: Option<i64>,
    #[serde(default)]
    pub(super) body_crc: u32,
}

/// The log offsets that the index has for a key.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Found {
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) offsets: Vec<i64>,
}

/// The text that [`Step::Put`] sends.
pub(super) fn body(key: &str, len: usize) -> Vec<u8> {
    key.bytes().cycle().take(len).collect()
}

/// A step in the language of the Java program.
pub(super) fn line(step: &Step, place: &Place) -> String {
    let store = &place.name;
    match step {
        Step::Put {
            topic,
            queue_id,
            key,
            body_len,
        } => format!("put {store} {topic} {queue_id} {key} {body_len}"),
        Step::Dump => format!("dump {store}"),
        Step::Find { topic, key } => format!("find {store} {topic} {key}"),
        Step::Intrude => format!("intrude {store} {}", place.conf().display()),
        Step::Close => format!("close {store}"),
        Step::Pause => format!("pause {}", PAUSE.as_millis()),
    }
}

/// The answers that the Java program wrote, each with the name of its store.
pub(super) fn read(file: &Path) -> Result<Vec<(String, Answer)>> {
    #[derive(Deserialize)]
    struct Line {
        store: String,
        #[serde(flatten)]
        answer: Answer,
    }
    let text = std::fs::read_to_string(file).context("the answers of Java's stores")?;
    text.lines()
        .map(|line| {
            let Line { store, answer } =
                serde_json::from_str(line).with_context(|| format!("answer {line}"))?;
            Ok((store, answer))
        })
        .collect()
}

/// A store of a scenario: its directory and its shape.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) shape: Shape,
}

impl Place {
    pub(super) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Where the configuration of Java's store is.
    pub(super) fn conf(&self) -> PathBuf {
        self.dir.join("java.conf")
    }
}

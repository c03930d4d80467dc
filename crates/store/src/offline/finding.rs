//! What a look at a store finds.

use std::fmt;
use std::path::PathBuf;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; legal in a store of RocketMQ's.
    Info,
    /// A difference that costs something now or later, or that the next start puts right.
    Warning,
    /// Damage: messages, or ways to find them, are lost.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The part of a store that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The commit log.
    Log,
    /// Consume queues.
    Queue,
    /// Extensions of consume queues.
    Extension,
    /// Batch consume queues.
    BatchQueue,
    /// The index.
    Index,
    /// The checkpoint.
    Checkpoint,
    /// The JSON tables.
    Config,
    /// Lock, abort file, and what is our own.
    State,
}

impl Part {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Queue => "queue",
            Self::Extension => "extension",
            Self::BatchQueue => "batch_queue",
            Self::Index => "index",
            Self::Checkpoint => "checkpoint",
            Self::Config => "config",
            Self::State => "state",
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// What kind of difference it is. The names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum FindingKind {
            $($(#[$doc])* $variant,)+
        }

        impl FindingKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name, in snake case.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// The system does not let a file be read.
    Unreadable = "unreadable",
    /// A name that does not belong in its directory.
    ForeignFile = "foreign_file",
    /// A file is longer or shorter than its siblings.
    FileLength = "file_length",
    /// A file is missing between two others.
    FileMissing = "file_missing",
    /// Bytes of the log that are no record, with records behind them.
    LogDamage = "log_damage",
    /// The last bytes written to the log are no whole record.
    LogTailDamage = "log_tail_damage",
    /// Bytes behind the log's end that are not zero.
    BytesBehindEnd = "bytes_behind_end",
    /// A record whose CRC property does not fit it, though its body does.
    RecordCrcProperty = "record_crc_property",
    /// Padding that does not reach from its place to the end of its file.
    BlankLength = "blank_length",
    /// A record that was stored before its predecessor.
    StoreTimeBackwards = "store_time_backwards",
    /// Queue offsets that no record has, between those of two others.
    QueueOffsetGap = "queue_offset_gap",
    /// A queue offset that an earlier record has.
    QueueOffsetRepeated = "queue_offset_repeated",
    /// The offsets of a queue begin anew: its topic was deleted and created again.
    QueueBegunAnew = "queue_begun_anew",
    /// A filler record: recovery put it where the log was damaged.
    FillerRecord = "filler_record",
    /// There are records of a queue, but the queue is not there.
    QueueMissing = "queue_missing",
    /// A record has no entry in its queue.
    EntryMissing = "entry_missing",
    /// The entry in a record's place is another message's.
    EntryOfOtherRecord = "entry_of_other_record",
    /// An entry whose size is not its record's.
    EntrySize = "entry_size",
    /// An entry whose tags code is not its record's.
    EntryTags = "entry_tags",
    /// An entry that points at no record of its queue.
    EntryWithoutRecord = "entry_without_record",
    /// An entry that points behind the log's end.
    EntryBehindEnd = "entry_behind_end",
    /// An entry names an extension unit that is not there or not its record's.
    ExtensionUnit = "extension_unit",
    /// A batch entry with other figures than its record.
    BatchEntry = "batch_entry",
    /// An index header that does not fit its file's entries.
    IndexHeader = "index_header",
    /// A slot or an entry that breaks the chain of its slot.
    IndexChain = "index_chain",
    /// A key of a record that has no entry in the index.
    KeyMissing = "key_missing",
    /// An index entry of a record that does not have the key.
    IndexEntryWrongKey = "index_entry_wrong_key",
    /// An index entry that points at no record.
    IndexEntryWithoutRecord = "index_entry_without_record",
    /// An index entry that points behind the log's end.
    IndexEntryBehindEnd = "index_entry_behind_end",
    /// An index entry whose time is not its record's.
    IndexEntryTime = "index_entry_time",
    /// A checkpoint that is not as long as it should be.
    CheckpointLength = "checkpoint_length",
    /// A checkpoint that promises more than there is.
    CheckpointAhead = "checkpoint_ahead",
    /// The store was not closed; the next start recovers it.
    NotClosed = "not_closed",
    /// A process has the store open.
    InUse = "in_use",
    /// What an earlier recovery cut off is kept.
    Quarantined = "quarantined",
    /// A table that cannot be read.
    ConfigUnreadable = "config_unreadable",
    /// A topic's queues are of another kind than its settings say.
    QueueType = "queue_type",
    /// A queue whose topic is in no table.
    TopicUnknown = "topic_unknown",
    /// A consumer's or the delay service's offset that its queue does not have.
    OffsetOutOfRange = "offset_out_of_range",
}

/// Messages of a queue that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePlace {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue_id: i32,
    /// Queue offset of the first message concerned.
    pub first: i64,
    /// Queue offset of the last message concerned.
    pub last: i64,
}

/// One difference, or one run of equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub kind: FindingKind,
    /// The part of the store.
    pub part: Part,
    /// The file.
    pub path: PathBuf,
    /// Position in the file, in bytes.
    pub position: u64,
    /// Bytes concerned there; 0 where that says nothing.
    pub len: u64,
    /// How many things are concerned: records, entries, keys.
    pub count: u64,
    /// Where in the log the records concerned begin, if records are.
    pub log_offset: Option<u64>,
    /// The messages concerned, if they are known.
    pub queue: Option<QueuePlace>,
    /// What was found and what was expected.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        kind: FindingKind,
        part: Part,
        (path, position): (PathBuf, u64),
        detail: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            kind,
            part,
            path,
            position,
            len: 0,
            count: 1,
            log_offset: None,
            queue: None,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7} {} {}@{}",
            self.severity,
            self.kind.name(),
            self.path.display(),
            self.position
        )?;
        if let Some(place) = &self.queue {
            write!(f, " {}/{}", place.topic, place.queue_id)?;
            if place.first == place.last {
                write!(f, " [{}]", place.first)?;
            } else {
                write!(f, " [{}..={}]", place.first, place.last)?;
            }
        }
        write!(f, ": {}", self.detail)
    }
}

/// How many findings there are of each severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Errors.
    pub errors: u64,
    /// Warnings.
    pub warnings: u64,
    /// The others.
    pub infos: u64,
    /// Errors that are files which could not be read: what they hold was not checked.
    pub unreadable: u64,
}

impl Totals {
    /// Counts a finding.
    pub fn add(&mut self, finding: &Finding) {
        match finding.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
            Severity::Info => self.infos += 1,
        }
        self.unreadable += u64::from(finding.kind == FindingKind::Unreadable);
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.errors == 0 && self.warnings == 0
    }
}

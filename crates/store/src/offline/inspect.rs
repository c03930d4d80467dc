//! One thing at a time: a record, an entry, a slot, the checkpoint.

use std::path::{Path, PathBuf};

use consumequeue::{BATCH_ENTRY_LEN, BatchEntry, ENTRY_LEN, Entry};
use indexfile::{
    ENTRY_LEN as INDEX_ENTRY_LEN, FIRST_ENTRY, HEADER_LEN, IndexEntry, IndexHeader, IndexLayout,
    SLOT_LEN, is_index_name, key_hash,
};
use message::layout::BLANK_LEN_MIN;
use message::{Parsed, RecordError, RecordView};
use mmap_core::{Access, FileKind, Io, IoFile};
use segment_queue::parse_segment_name;

use super::error::OfflineError;
use super::files::{SegmentDir, StoreDirs, list_or_nothing};
use super::log::LogReader;
use super::queue_files::EntryReader;
use super::shape::Shape;
use crate::checkpoint::CHECKPOINT_FILE;
use crate::options::StoreOptions;
use crate::state::{Anchor, StateFile};

/// Bytes of a record that are read at most.
const RECORD_LEN_MAX: u64 = 1 << 30;
/// Bytes read first, to learn a record's length.
const HEAD_LEN: usize = 4096;
/// Entries of a chain that are followed at most.
const CHAIN_LEN_MAX: usize = 100_000;
/// Length of an extension unit without a bitmap.
pub(crate) const UNIT_LEN_MIN: usize = 20;

/// The bytes at a place, as a record: [`RecordView::parse`] says what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBytes {
    /// The file.
    pub path: PathBuf,
    /// Position in it.
    pub position: u64,
    /// The log offset of the place, if the file's name is a segment's.
    pub log_offset: Option<u64>,
    /// The record's bytes, or what of them there is.
    pub bytes: Vec<u8>,
}

/// An entry of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueEntryView {
    /// Of a consume queue.
    Simple {
        /// The file and the position in it.
        place: (PathBuf, u64),
        /// Its index: the message's queue offset.
        index: i64,
        /// What it says.
        entry: Entry,
        /// The unit that it names, if it names one and there is one.
        unit: Option<ExtensionUnit>,
    },
    /// Of a batch consume queue.
    Batch {
        /// The file and the position in it.
        place: (PathBuf, u64),
        /// Its ordinal among the queue's entries.
        ordinal: u64,
        /// What it says.
        entry: BatchEntry,
    },
}

/// What an entry refers to when 8 bytes of tags code are not enough (RocketMQ 5.3.3
/// `ConsumeQueueExt.CqExtUnit`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionUnit {
    /// Its file and the position in it.
    pub place: (PathBuf, u64),
    /// The tags code that the entry stands for.
    pub tags_code: i64,
    /// When the message was stored, ms.
    pub store_ms: i64,
    /// Bytes of the bitmap behind these fields.
    pub bitmap_len: u16,
}

/// The fields of the checkpoint, ms but for the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointFields {
    /// `physicMsgTimestamp`.
    pub physic_ms: i64,
    /// `logicsMsgTimestamp`.
    pub logics_ms: i64,
    /// `indexMsgTimestamp`.
    pub index_ms: i64,
    /// `masterFlushedOffset`.
    pub master_flushed_offset: i64,
    /// `confirmPhyOffset`.
    pub confirm_offset: i64,
}

/// What the store remembers of itself: `foliomq/state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnState {
    /// The run of the machine that it was written in.
    pub run_id: String,
    /// Length of a segment of the log.
    pub segment_len: u64,
    /// Everything below this log offset is synced.
    pub flushed: u64,
    /// Everything below this log offset has synced entries in queues and index.
    pub derived: u64,
    /// Log offset, length and store time (ms) of the record that ties it to the log.
    pub anchor: Option<(u64, u32, i64)>,
    /// Whether that record stands there: otherwise nothing of this counts.
    pub is_anchored: bool,
}

/// An index file and its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFileView {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub len: u64,
    /// Its header.
    pub header: IndexHeader,
}

/// An entry met on the way down a slot's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexChainEntry {
    /// The file.
    pub path: PathBuf,
    /// Position of the entry in it.
    pub position: u64,
    /// Its ordinal.
    pub ordinal: u32,
    /// What it says.
    pub entry: IndexEntry,
}

/// Reads what stands at a position of a file as a record.
///
/// # Errors
/// The file cannot be read, or ends before the position.
pub fn record_in_file<I: Io>(
    io: &I,
    path: &Path,
    position: u64,
) -> Result<RecordBytes, OfflineError> {
    let file = io.open(path, Access::ReadOnly)?;
    let mut bytes = vec![0; HEAD_LEN];
    let mut read = file.read_at(&mut bytes, position)?;
    if read == 0 {
        return Err(no_place(path, format!("the file ends before {position}")));
    }
    bytes.truncate(read);
    let parsed = RecordView::parse(&bytes);
    if let Err(RecordError::TooShort { need, .. }) = parsed
        && need as u64 <= RECORD_LEN_MAX
        && need > read
    {
        let left = file.len()?.saturating_sub(position);
        bytes.resize(usize::try_from(left.min(need as u64)).unwrap_or(need), 0);
        read = file.read_at(&mut bytes, position)?;
        bytes.truncate(read);
    }
    let len = match RecordView::parse(&bytes) {
        Ok(Parsed::Record(view)) => view.total_size(),
        Ok(Parsed::Blank { .. }) => BLANK_LEN_MIN,
        Err(_) => bytes.len(),
    };
    bytes.truncate(len);
    let base = path.file_name().and_then(parse_segment_name);
    Ok(RecordBytes {
        path: path.to_owned(),
        position,
        log_offset: base.map(|base| base + position),
        bytes,
    })
}

/// Reads what stands at a log offset as a record.
///
/// # Errors
/// No file of the log holds the offset, or it cannot be read.
pub fn record_at<I: Io>(
    io: &I,
    options: &StoreOptions,
    offset: u64,
) -> Result<RecordBytes, OfflineError> {
    let dirs = StoreDirs::new(options);
    let shape = Shape::detect(io, options)?;
    let log = SegmentDir::list(io, &dirs.log, shape.segment_len)?;
    if log.find(offset).is_none() {
        let what = format!(
            "no file holds log offset {offset}; they reach from {} to {}",
            log.min(),
            log.end()
        );
        return Err(no_place(&dirs.log, what));
    }
    let (path, position) = log.place(offset);
    record_in_file(io, &path, position)
}

/// Reads the entry of a queue offset, in whichever kind of queue the topic has.
///
/// # Errors
/// The queue is not there, holds no such offset, or cannot be read.
pub fn queue_entry<I: Io>(
    io: &I,
    options: &StoreOptions,
    topic: &str,
    queue_id: i32,
    index: i64,
) -> Result<QueueEntryView, OfflineError> {
    let dirs = StoreDirs::new(options);
    let shape = Shape::detect(io, options)?;
    let id = queue_id.to_string();
    let batch = dirs.batch_queues.join(topic).join(&id);
    if io.metadata(&batch)?.is_some() {
        let files = SegmentDir::list(io, &batch, shape.batch_queue_file_len)?;
        return batch_entry(&batch, EntryReader::new(files, HEAD_LEN), index);
    }
    let dir = dirs.queues.join(topic).join(&id);
    if io.metadata(&dir)?.is_none() {
        return Err(no_place(&dir, "no such queue".to_owned()));
    }
    let files = SegmentDir::list(io, &dir, shape.queue_file_len)?;
    let mut reader = EntryReader::<I, ENTRY_LEN>::new(files, ENTRY_LEN);
    let bytes = match u64::try_from(index) {
        Ok(ordinal) => reader.entry(ordinal)?,
        Err(_) => None,
    };
    let Some(bytes) = bytes else {
        let what = format!(
            "no file holds queue offset {index}; they reach from {} to {}",
            reader.first(),
            reader.end()
        );
        return Err(no_place(&dir, what));
    };
    let entry = Entry::decode(&bytes);
    let unit = match entry.extension_offset() {
        Some(at) => extension_unit(io, options, topic, queue_id, at)?,
        None => None,
    };
    Ok(QueueEntryView::Simple {
        place: reader.place(index.unsigned_abs()),
        index,
        entry,
        unit,
    })
}

fn batch_entry<I: Io>(
    dir: &Path,
    mut reader: EntryReader<I, BATCH_ENTRY_LEN>,
    index: i64,
) -> Result<QueueEntryView, OfflineError> {
    for ordinal in reader.first()..reader.end() {
        let Some(bytes) = reader.entry(ordinal)? else {
            break;
        };
        let entry = BatchEntry::decode(&bytes);
        if !entry.is_used() {
            break;
        }
        if (entry.base..entry.base + i64::from(entry.count)).contains(&index) {
            return Ok(QueueEntryView::Batch {
                place: reader.place(ordinal),
                ordinal,
                entry,
            });
        }
    }
    Err(no_place(
        dir,
        format!("no entry holds queue offset {index}"),
    ))
}

/// Reads the unit at an offset of a queue's extension; `None` where none is.
///
/// # Errors
/// A file cannot be read.
pub fn extension_unit<I: Io>(
    io: &I,
    options: &StoreOptions,
    topic: &str,
    queue_id: i32,
    offset: u64,
) -> Result<Option<ExtensionUnit>, OfflineError> {
    let dirs = StoreDirs::new(options);
    let shape = Shape::detect(io, options)?;
    let dir = dirs.extensions.join(topic).join(queue_id.to_string());
    let mut files = SegmentDir::list(io, &dir, shape.extension_file_len)?;
    let mut bytes = [0; UNIT_LEN_MIN];
    if files.read(offset, &mut bytes)? < bytes.len() {
        return Ok(None);
    }
    Ok(decode_unit(&bytes).map(|unit| ExtensionUnit {
        place: files.place(offset),
        ..unit
    }))
}

/// Reads a unit's fields; `None` when its lengths do not agree. Its place is not known here.
pub(crate) fn decode_unit(bytes: &[u8; UNIT_LEN_MIN]) -> Option<ExtensionUnit> {
    let narrow = |position: usize| {
        let field = bytes.get(position..)?.first_chunk()?;
        Some(i16::from_be_bytes(*field))
    };
    let bitmap_len = u16::try_from(narrow(18)?).ok()?;
    let is_sound = i64::from(narrow(0)?) == UNIT_LEN_MIN as i64 + i64::from(bitmap_len);
    is_sound.then(|| ExtensionUnit {
        place: (PathBuf::new(), 0),
        tags_code: wide(bytes, 2),
        store_ms: wide(bytes, 10),
        bitmap_len,
    })
}

/// Reads the checkpoint.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn checkpoint<I: Io>(
    io: &I,
    options: &StoreOptions,
) -> Result<(PathBuf, CheckpointFields), OfflineError> {
    let path = options.root.join(CHECKPOINT_FILE);
    let mut bytes = [0; 40];
    let file = io.open(&path, Access::ReadOnly)?;
    let read = file.read_at(&mut bytes, 0)?;
    let fields = decode_checkpoint(bytes.get(..read).unwrap_or_default());
    Ok((path, fields))
}

/// Reads the fields of a checkpoint; those that are not there are 0.
pub(crate) fn decode_checkpoint(bytes: &[u8]) -> CheckpointFields {
    CheckpointFields {
        physic_ms: wide(bytes, 0),
        logics_ms: wide(bytes, 8),
        index_ms: wide(bytes, 16),
        master_flushed_offset: wide(bytes, 24),
        confirm_offset: wide(bytes, 32),
    }
}

/// Reads what the store remembers of itself; `None` when it is not there, or torn.
///
/// # Errors
/// A file cannot be read.
pub fn own_state<I: Io>(io: &I, options: &StoreOptions) -> Result<Option<OwnState>, OfflineError> {
    let dirs = StoreDirs::new(options);
    let Some(state) = StateFile::read(io, &dirs.own)? else {
        return Ok(None);
    };
    let shape = Shape::detect(io, options)?;
    let log = SegmentDir::list(io, &dirs.log, shape.segment_len)?;
    let mut log = LogReader::new(log);
    let is_anchored = match &state.anchor {
        Some(anchor) => log
            .record(anchor.offset)?
            .is_some_and(|view| Anchor::of(&view) == *anchor),
        None => false,
    };
    Ok(Some(OwnState {
        run_id: state.run_id,
        segment_len: state.segment_len,
        flushed: state.flushed,
        derived: state.derived,
        anchor: state
            .anchor
            .map(|anchor| (anchor.offset, anchor.len, anchor.store_ms)),
        is_anchored,
    }))
}

/// The index files, oldest first.
///
/// # Errors
/// A file cannot be read.
pub fn index_files<I: Io>(
    io: &I,
    options: &StoreOptions,
) -> Result<Vec<IndexFileView>, OfflineError> {
    let dir = StoreDirs::new(options).index;
    let mut views = Vec::new();
    for entry in list_or_nothing(io, &dir)? {
        let is_index = entry.name.to_str().is_some_and(is_index_name);
        if !is_index || entry.kind != FileKind::File {
            continue;
        }
        let path = dir.join(&entry.name);
        let mut bytes = [0; HEADER_LEN];
        io.open(&path, Access::ReadOnly)?.read_at(&mut bytes, 0)?;
        views.push(IndexFileView {
            path,
            len: entry.len,
            header: IndexHeader::decode(&bytes),
        });
    }
    Ok(views)
}

/// Content of a slot of an index file: the ordinal of its newest entry.
///
/// # Errors
/// The file has no such slot, or cannot be read.
pub fn index_slot<I: Io>(
    io: &I,
    path: &Path,
    layout: IndexLayout,
    slot: u32,
) -> Result<i32, OfflineError> {
    if slot >= layout.slot_count {
        let what = format!("no slot {slot}; there are {}", layout.slot_count);
        return Err(no_place(path, what));
    }
    let mut bytes = [0; SLOT_LEN];
    let file = io.open(path, Access::ReadOnly)?;
    file.read_exact_at(&mut bytes, layout.slot_position(slot) as u64)?;
    Ok(i32::from_be_bytes(bytes))
}

/// An entry of an index file.
///
/// # Errors
/// The file has no such entry, or cannot be read.
pub fn index_entry<I: Io>(
    io: &I,
    path: &Path,
    layout: IndexLayout,
    ordinal: u32,
) -> Result<IndexChainEntry, OfflineError> {
    if !(FIRST_ENTRY..layout.entry_count_max).contains(&ordinal) {
        let last = layout.entry_count_max - 1;
        let what = format!("no entry {ordinal}; they are {FIRST_ENTRY} to {last}");
        return Err(no_place(path, what));
    }
    let position = layout.entry_position(ordinal) as u64;
    let mut bytes = [0; INDEX_ENTRY_LEN];
    let file = io.open(path, Access::ReadOnly)?;
    file.read_exact_at(&mut bytes, position)?;
    Ok(IndexChainEntry {
        path: path.to_owned(),
        position,
        ordinal,
        entry: IndexEntry::decode(&bytes),
    })
}

/// The entries of a key's hash in an index file, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn index_chain<I: Io>(
    io: &I,
    path: &Path,
    layout: IndexLayout,
    topic: &str,
    key: &str,
) -> Result<Vec<IndexChainEntry>, OfflineError> {
    let hash = key_hash(topic, key);
    let newest = index_slot(io, path, layout, layout.slot_of(hash))?;
    let mut chain = Vec::new();
    let mut ordinal = u32::try_from(newest).unwrap_or(0);
    for _ in 0..CHAIN_LEN_MAX {
        if !(FIRST_ENTRY..layout.entry_count_max).contains(&ordinal) {
            break;
        }
        let found = index_entry(io, path, layout, ordinal)?;
        let previous = u32::try_from(found.entry.previous).unwrap_or(0);
        if found.entry.key_hash == hash {
            chain.push(found);
        }
        // An entry continues an older one; anything else is damage, and would be a loop.
        if previous >= ordinal {
            break;
        }
        ordinal = previous;
    }
    Ok(chain)
}

fn no_place(path: &Path, what: String) -> OfflineError {
    OfflineError::NoSuchPlace {
        path: path.to_owned(),
        what,
    }
}

fn wide(bytes: &[u8], position: usize) -> i64 {
    let field = bytes.get(position..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |field| i64::from_be_bytes(*field))
}

//! Up to where the log was dispatched, for a start in the same run of the machine:
//! `foliomq/dispatched`.
//!
//! What a killed process had written is in the page cache, as it wrote it. So here a number in a
//! mapping is as good as a synced one: it costs seven stores of 8 bytes for each MiB or second, and is
//! a place far nearer to the log's end than the one in `foliomq/state`, for which queues and index had
//! to be synced. Everything below it is in the log and has its entries, whatever of that is on the
//! device.
//!
//! It is believed in the run of the machine, and with the mounts, in which it was written
//! ([`Io::run_id`]), and if the `lock` file has not been changed since (a Java broker writes it when
//! it starts; what puts files back sets the time of their modification, but not that of their
//! change). Never after a sync of the log, the queues or the index has failed: then it is made
//! invalid at once, because the page cache may lose what it could not write. It is there while the
//! store is open, never synced and never needed. Big-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `FMQD` |
//! | 4 | 4 | CRC-32 of the bytes from 8 to 128, without its highest bit |
//! | 8 | 8 | length of a segment of the log |
//! | 16 | 8 | last change (`st_ctime`) of `lock`, ns |
//! | 24 | 104 | name of the machine's run, padded with zeros |
//! | 128, 192 | 56 each | two marks, written in turn: a process that is killed leaves one of them whole |
//!
//! A mark:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 20 | the last record that was dispatched: offset, length, CRC of its body, store time in ms |
//! | 24 | 8 | everything below this offset of the log is synced |
//! | 32 | 8 | first offset in the last file of the index |
//! | 40 | 8 | ordinal behind that file's last entry; 0 for an empty index, -1 for none |
//! | 48 | 8 | 1, and CRC-32 of the header's CRC and the bytes before |

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use indexfile::IndexReach;
use message::body_crc;
use mmap_core::{Access, CellRegion, Io, IoError, IoFile};

use crate::state::Anchor;

/// Name of the file below the directory of our own.
const FILE: &str = "dispatched";
const FILE_LEN: usize = 4096;
const MAGIC: [u8; 4] = *b"FMQD";
const HEAD_LEN: usize = 128;
const CRC_POSITION: usize = 4;
const FIELDS_POSITION: usize = 8;
const MARK_POSITIONS: [usize; 2] = [HEAD_LEN, HEAD_LEN + 64];
const MARK_LEN: usize = 56;
const WORD_COUNT: usize = MARK_LEN / 8;
/// A new mark is due when so much of the log has been dispatched since the last one.
const STRIDE: u64 = 1 << 20;
/// The index's ordinal where there is no index.
const NO_INDEX: u64 = u64::MAX;

/// A mark: everything up to the end of a record has been dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The record.
    pub(crate) anchor: Anchor,
    /// Everything below was synced.
    pub(crate) flushed: u64,
    /// How far the index reached; `None` if there was none.
    pub(crate) index: Option<IndexReach>,
}

/// What ties marks to where and when they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) segment_len: u64,
    pub(crate) lock_changed: SystemTime,
    pub(crate) run_id: String,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is not there, or was written elsewhere or at another time.
    Nothing,
    /// It was written in this run of the machine, and vouches for nothing yet.
    ThisRun,
    /// As `ThisRun`, and this mark stands there.
    Mark(Mark),
    /// It is damaged.
    Torn,
}

impl Origin {
    fn encode(&self) -> [u8; HEAD_LEN] {
        let since = self.lock_changed.duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.map_or(0, |since| since.as_nanos() as u64);
        let mut fields = Vec::with_capacity(HEAD_LEN);
        fields.extend(self.segment_len.to_be_bytes());
        fields.extend(nanos.to_be_bytes());
        fields.extend(self.run_id.bytes());
        fields.resize(HEAD_LEN - FIELDS_POSITION, 0);
        let mut head = [0; HEAD_LEN];
        let crc = body_crc(&fields).to_be_bytes();
        let bytes = MAGIC.into_iter().chain(crc).chain(fields);
        head.iter_mut()
            .zip(bytes)
            .for_each(|(byte, value)| *byte = value);
        head
    }

    /// What the file says to whoever is at this place and time.
    pub(crate) fn read<I: Io>(&self, io: &I, own_dir: &Path) -> Found {
        let mut bytes = [0; FILE_LEN];
        let path = own_dir.join(FILE);
        let len = match io.open(&path, Access::ReadOnly) {
            Ok(file) => file.read_at(&mut bytes, 0),
            Err(error) if error.is_not_found() => return Found::Nothing,
            Err(error) => Err(error),
        };
        match len {
            Ok(_) => self.decode(&bytes),
            Err(error) => {
                tracing::warn!(%error, "a file of the store's own is not used");
                Found::Torn
            }
        }
    }

    fn decode(&self, bytes: &[u8; FILE_LEN]) -> Found {
        let head = bytes.first_chunk().unwrap_or(&[0; HEAD_LEN]);
        if head[..FIELDS_POSITION] == [0; FIELDS_POSITION] {
            return Found::Nothing;
        }
        let head_crc = crc_of(head);
        if head[..CRC_POSITION] != MAGIC || head_crc != body_crc(&head[FIELDS_POSITION..]) {
            return Found::Torn;
        }
        if self.run_id.is_empty() || *head != self.encode() {
            return Found::Nothing;
        }
        let slots = MARK_POSITIONS.map(|position| -> [u64; WORD_COUNT] {
            let (words, _) = bytes[position..position + MARK_LEN].as_chunks();
            std::array::from_fn(|index| {
                words.get(index).map_or(0, |word| u64::from_be_bytes(*word))
            })
        });
        let marks = slots
            .iter()
            .filter_map(|words| Mark::decode(words, head_crc));
        match marks.max_by_key(|mark| mark.anchor.end()) {
            Some(mark) => Found::Mark(mark),
            // A process that is killed leaves one of two unfinished.
            None if slots.iter().all(|words| *words != [0; WORD_COUNT]) => Found::Torn,
            None => Found::ThisRun,
        }
    }
}

fn crc_of(head: &[u8; HEAD_LEN]) -> u32 {
    let mut crc = [0; 4];
    crc.copy_from_slice(&head[CRC_POSITION..FIELDS_POSITION]);
    u32::from_be_bytes(crc)
}

impl Mark {
    fn encode(&self, head_crc: u32) -> [u64; WORD_COUNT] {
        let anchor = &self.anchor;
        let index = match self.index {
            Some(reach) => [
                reach.begin_physical_offset.cast_unsigned(),
                reach.next_entry.into(),
            ],
            None => [0, NO_INDEX],
        };
        let mut words = [
            anchor.offset,
            u64::from(anchor.len) << 32 | u64::from(anchor.body_crc),
            anchor.store_ms.cast_unsigned(),
            self.flushed,
            index[0],
            index[1],
            0,
        ];
        words[WORD_COUNT - 1] = check(&words, head_crc);
        words
    }

    fn decode(words: &[u64; WORD_COUNT], head_crc: u32) -> Option<Self> {
        if words[WORD_COUNT - 1] != check(words, head_crc) {
            return None;
        }
        let [offset, len_and_crc, store_ms, flushed, begin, next_entry, _] = *words;
        let index = IndexReach {
            begin_physical_offset: begin.cast_signed(),
            next_entry: next_entry as u32,
        };
        Some(Self {
            anchor: Anchor {
                offset,
                len: (len_and_crc >> 32) as u32,
                body_crc: len_and_crc as u32,
                store_ms: store_ms.cast_signed(),
            },
            flushed,
            index: (next_entry != NO_INDEX).then_some(index),
        })
    }
}

/// Never 0, which stands where nothing was written.
fn check(words: &[u64; WORD_COUNT], head_crc: u32) -> u64 {
    let mut bytes = [0; MARK_LEN];
    let (chunks, _) = bytes.as_chunks_mut::<8>();
    let fields = words.iter().take(WORD_COUNT - 1);
    let fields = std::iter::once(u64::from(head_crc)).chain(fields.copied());
    for (chunk, word) in chunks.iter_mut().zip(fields) {
        *chunk = word.to_be_bytes();
    }
    1 << 32 | u64::from(body_crc(&bytes))
}

/// Makes what the file says invalid; one that is not there is as good. Before anything is changed
/// below what it vouches for.
///
/// # Errors
/// It may be valid still.
pub(crate) fn forget<I: Io>(io: &I, own_dir: &Path) -> Result<(), IoError> {
    const INVALID: [u8; FIELDS_POSITION] = [0; FIELDS_POSITION];
    let file = match io.open(&own_dir.join(FILE), Access::ReadWrite) {
        Err(error) if error.is_not_found() => return Ok(()),
        opened => opened?,
    };
    let mut head = INVALID;
    // One that a full disk had no room for says nothing, and has no block to write to either.
    if file.read_at(&mut head, 0).is_ok() && head == INVALID {
        return Ok(());
    }
    file.write_all_at(&INVALID, 0)
}

/// Removes the file; one that is not there is as good.
pub(crate) fn remove<I: Io>(io: &I, own_dir: &Path) -> Result<(), IoError> {
    match io.remove_file(&own_dir.join(FILE)) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The file while the store is open.
#[derive(Debug)]
pub(crate) struct DispatchMarks<I: Io> {
    /// Where the next mark is due. A hint.
    due: AtomicU64,
    /// `None` when it is not kept, or not any more.
    open: Mutex<Option<OpenMarks<I>>>,
}

#[derive(Debug)]
struct OpenMarks<I: Io> {
    cells: CellRegion<I::Map>,
    head_crc: u32,
    /// Which of the two is written next.
    next: usize,
    last: Option<Mark>,
}

impl<I: Io> DispatchMarks<I> {
    /// Opens the file for marks of this run. Those that are there stay if they are believed.
    /// Without the file the next recovery reads more.
    ///
    /// # Errors
    /// It cannot be kept, and may be valid: then nothing could end that when a sync fails.
    pub(crate) fn open(io: &I, own_dir: &Path, origin: &Origin) -> Result<Self, IoError> {
        let opened = match origin.run_id.is_empty() {
            true => Ok(None),
            false => OpenMarks::open(io, own_dir, origin).map(Some),
        };
        let open = match opened {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(%error, "a file of the store's own is not kept");
                forget(io, own_dir)?;
                None
            }
        };
        Ok(Self {
            due: AtomicU64::new(0),
            open: Mutex::new(open),
        })
    }

    /// Whether so much has been dispatched since the last mark that another one is due.
    #[inline]
    pub(crate) fn is_due(&self, dispatched: u64) -> bool {
        dispatched >= self.due.load(Ordering::Relaxed)
    }

    /// Writes a mark.
    pub(crate) fn write(&self, mark: &Mark) {
        self.due
            .store(mark.anchor.end() + STRIDE, Ordering::Relaxed);
        if let Some(open) = self.lock().as_mut() {
            open.write(mark);
        }
    }

    /// A sync has failed: nothing is vouched for any more.
    pub(crate) fn forget(&self) {
        self.due.store(u64::MAX, Ordering::Relaxed);
        if let Some(open) = self.lock().take() {
            open.cells.store_u64(0, 0, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<OpenMarks<I>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Io> OpenMarks<I> {
    fn open(io: &I, own_dir: &Path, origin: &Origin) -> Result<Self, IoError> {
        let path = own_dir.join(FILE);
        let file = match io.open(&path, Access::ReadWrite) {
            Err(error) if error.is_not_found() => {
                io.create_dir_all(own_dir)?;
                io.create(&path, FILE_LEN as u64)?
            }
            opened => opened?,
        };
        if file.len()? < FILE_LEN as u64 {
            file.set_len(FILE_LEN as u64)?;
        }
        file.allocate(0, FILE_LEN as u64)?;
        let head = origin.encode();
        let last = match origin.read(io, own_dir) {
            Found::Mark(mark) => Some(mark),
            Found::ThisRun => None,
            // The head comes last: it makes the rest valid.
            Found::Nothing | Found::Torn => {
                file.write_all_at(&[0; FIELDS_POSITION], 0)?;
                file.write_all_at(&[0; FILE_LEN - HEAD_LEN], HEAD_LEN as u64)?;
                file.write_all_at(&head[FIELDS_POSITION..], FIELDS_POSITION as u64)?;
                file.write_all_at(&head[..FIELDS_POSITION], 0)?;
                None
            }
        };
        let map = file.map(0, FILE_LEN, Access::ReadWrite)?;
        let mut open = Self {
            cells: CellRegion::new(map, FILE_LEN),
            head_crc: crc_of(&head),
            next: 0,
            last,
        };
        // The one that is believed is not the first to be overwritten.
        if let Some(last) = last {
            let first = open.cells.load_u64(MARK_POSITIONS[0], Ordering::Relaxed);
            open.next = usize::from(first == last.anchor.offset);
        }
        Ok(open)
    }

    fn write(&mut self, mark: &Mark) {
        if self.last == Some(*mark) {
            return;
        }
        let position = MARK_POSITIONS[self.next % MARK_POSITIONS.len()];
        for (index, word) in mark.encode(self.head_crc).into_iter().enumerate() {
            self.cells
                .store_u64(position + 8 * index, word, Ordering::Release);
        }
        self.next += 1;
        self.last = Some(*mark);
    }
}

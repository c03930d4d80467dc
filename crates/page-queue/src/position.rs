//! A reader's saved position: a file with two slots in pages of their own. One holds what was synced
//! last and is left alone; the other takes every later position until it is synced in turn. So a
//! crash leaves one of both whole.

use std::path::{Path, PathBuf};

use crc32fast::hash;
use mmap_core::{Access, Io, IoFile};

use crate::bytes::{put, u32_at, u64_at};
use crate::error::PageQueueError;

/// Where the second slot begins.
const SLOT_DISTANCE: u64 = 4096;
const FILE_LEN: usize = 2 * SLOT_DISTANCE as usize;

const LEN: usize = 24;
/// The letters `FMPR`.
const MAGIC: u32 = 0x464D_5052;

const CRC: usize = 4;
const SEQUENCE: usize = CRC + 4;
const POSITION: usize = SEQUENCE + 8;
const _: () = assert!(POSITION + 8 == LEN);

const REMEDY: &str = "remove it, and the reader begins at the first item again";

/// The file of a reader.
#[derive(Debug)]
pub(crate) struct PositionFile<I: Io> {
    file: I::File,
    /// The slot that the next position goes to: 0 or 1.
    slot: u64,
    /// Of the last position.
    sequence: u64,
    position: u64,
    /// The last position is not synced.
    is_dirty: bool,
    /// It waits in the page cache to be synced: not after a failure, when the kernel may have
    /// dropped it.
    is_written: bool,
}

impl<I: Io> PositionFile<I> {
    /// Makes the file of a new reader; durable on return.
    pub(crate) fn create(io: &I, path: &Path, position: u64) -> Result<Self, PageQueueError> {
        let mut bytes = [0; FILE_LEN];
        bytes[..LEN].copy_from_slice(&encode(1, position));
        io.replace(path, &bytes, None)?;
        Ok(Self {
            file: io.open(path, Access::ReadWrite)?,
            slot: 1,
            sequence: 1,
            position,
            is_dirty: false,
            is_written: false,
        })
    }

    /// Opens a reader's file; returns the newest position that is whole.
    pub(crate) fn open(io: &I, path: PathBuf) -> Result<(Self, u64), PageQueueError> {
        let file = io.open(&path, Access::ReadWrite)?;
        let slots = [(0, read_slot(&file, 0)?), (1, read_slot(&file, 1)?)];
        let whole = slots
            .into_iter()
            .filter_map(|(slot, content)| Some((slot, content?)));
        let newest = whole.max_by_key(|(_, (sequence, _))| *sequence);
        let Some((slot, (sequence, position))) = newest else {
            return Err(PageQueueError::DamagedFile {
                path,
                remedy: REMEDY,
            });
        };
        let mut opened = Self {
            file,
            slot,
            sequence,
            position,
            is_dirty: true,
            is_written: false,
        };
        // A killed process may have left it in the page cache only, and a sync that failed, counted
        // as clean: so it is written again.
        opened.sync()?;
        Ok((opened, position))
    }

    /// Writes a position over the last one that was not synced.
    pub(crate) fn write(&mut self, position: u64) -> Result<(), PageQueueError> {
        self.sequence += 1;
        self.position = position;
        self.is_dirty = true;
        self.write_slot()
    }

    fn write_slot(&mut self) -> Result<(), PageQueueError> {
        self.is_written = false;
        let bytes = encode(self.sequence, self.position);
        self.file.write_all_at(&bytes, self.slot * SLOT_DISTANCE)?;
        self.is_written = true;
        Ok(())
    }

    /// Makes the last position durable. A failed sync can be repeated: the position is written
    /// again, and the other slot stays as it is until then.
    pub(crate) fn sync(&mut self) -> Result<(), PageQueueError> {
        if !self.is_dirty {
            return Ok(());
        }
        if !self.is_written {
            self.write_slot()?;
        }
        self.is_written = false;
        self.file.sync_data()?;
        self.is_dirty = false;
        self.slot = 1 - self.slot;
        Ok(())
    }
}

/// Sequence and position, if the slot is whole.
fn read_slot(file: &impl IoFile, slot: u64) -> Result<Option<(u64, u64)>, PageQueueError> {
    let mut bytes = [0; LEN];
    if file.read_at(&mut bytes, slot * SLOT_DISTANCE)? < LEN {
        return Ok(None);
    }
    let is_whole = u32_at(&bytes, 0) == MAGIC && u32_at(&bytes, CRC) == hash(&bytes[SEQUENCE..]);
    Ok(is_whole.then(|| (u64_at(&bytes, SEQUENCE), u64_at(&bytes, POSITION))))
}

fn encode(sequence: u64, position: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    put(&mut bytes, 0, &MAGIC.to_be_bytes());
    put(&mut bytes, SEQUENCE, &sequence.to_be_bytes());
    put(&mut bytes, POSITION, &position.to_be_bytes());
    let crc = hash(&bytes[SEQUENCE..]);
    put(&mut bytes, CRC, &crc.to_be_bytes());
    bytes
}

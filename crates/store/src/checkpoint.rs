//! The `checkpoint` file: up to which store times the log, the queues and the index are on disk.
//!
//! 4,096 bytes, mapped, rewritten in place (RocketMQ 5.3.3 `StoreCheckpoint`), big-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `physicMsgTimestamp`: store time of the last message whose log bytes are synced, ms |
//! | 8 | 8 | `logicsMsgTimestamp`: store time of the last message whose queue entry is synced, ms |
//! | 16 | 8 | `indexMsgTimestamp`: end time of the last full index file that is synced, ms |
//! | 24 | 8 | `masterFlushedOffset` (replication; kept as found) |
//! | 32 | 8 | `confirmPhyOffset` (replication; kept as found) |
//!
//! It has no checksum and is only a hint of where to begin: a missing, empty or torn checkpoint
//! makes recovery read more of the log, never lose a message.

use std::path::Path;
use std::sync::atomic::Ordering;

use mmap_core::{Access, CellRegion, Io, IoError, IoFile, RawMap};

/// Bytes of the checkpoint file.
pub const CHECKPOINT_LEN: u64 = 4096;
/// File name under the store's root.
pub const CHECKPOINT_FILE: &str = "checkpoint";

const PHYSIC_POSITION: usize = 0;
const LOGICS_POSITION: usize = PHYSIC_POSITION + 8;
const INDEX_POSITION: usize = LOGICS_POSITION + 8;
/// What recovery goes back behind the checkpoint: store times are taken a little before the
/// append, and Java's clock may step (RocketMQ 5.3.3 `StoreCheckpoint.getMinTimestamp`).
const MARGIN_MS: i64 = 3000;

/// The three times of the checkpoint, in milliseconds since the epoch; 0 = nothing known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointTimes {
    /// Log bytes of messages stored up to this time are synced.
    pub physic_ms: i64,
    /// Queue entries of messages stored up to this time are synced.
    pub logics_ms: i64,
    /// Full index files up to this time are synced.
    pub index_ms: i64,
}

impl CheckpointTimes {
    /// The store time from which recovery must look again: what is older is in the log and in
    /// the queues on disk.
    pub fn recovery_start_ms(&self) -> i64 {
        (self.physic_ms.min(self.logics_ms) - MARGIN_MS).max(0)
    }

    /// What was stored before this time is in the log on disk, ms; 0 when nothing is known.
    pub fn flushed_before_ms(&self) -> i64 {
        (self.physic_ms - MARGIN_MS).max(0)
    }
}

/// The mapped checkpoint file.
#[derive(Debug)]
pub struct Checkpoint<I: Io> {
    region: CellRegion<I::Map>,
}

impl<I: Io> Checkpoint<I> {
    /// Opens the checkpoint under `root`, creating it with zeros where it is missing or short.
    ///
    /// # Errors
    /// When the file cannot be created, extended, allocated or mapped.
    pub fn open(io: &I, root: &Path) -> Result<Self, IoError> {
        let path = root.join(CHECKPOINT_FILE);
        let file = match io.metadata(&path)? {
            Some(_) => io.open(&path, Access::ReadWrite)?,
            None => {
                let file = io.create(&path, CHECKPOINT_LEN)?;
                io.sync_dir(root)?;
                file
            }
        };
        if file.len()? < CHECKPOINT_LEN {
            file.set_len(CHECKPOINT_LEN)?;
        }
        // The block must exist before it is written through the mapping: a full disk would
        // answer with a signal.
        file.allocate(0, CHECKPOINT_LEN)?;
        let map = file.map(0, CHECKPOINT_LEN as usize, Access::ReadWrite)?;
        Ok(Self {
            region: CellRegion::new(map, CHECKPOINT_LEN as usize),
        })
    }

    /// Reads the times of a checkpoint without mapping it; zeros where there is none.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn read(io: &I, root: &Path) -> Result<CheckpointTimes, IoError> {
        let path = root.join(CHECKPOINT_FILE);
        if io.metadata(&path)?.is_none() {
            return Ok(CheckpointTimes::default());
        }
        let mut bytes = [0u8; INDEX_POSITION + 8];
        let read = io.open(&path, Access::ReadOnly)?.read_at(&mut bytes, 0)?;
        if read < bytes.len() {
            return Ok(CheckpointTimes::default());
        }
        let [physic_ms, logics_ms, index_ms] = [PHYSIC_POSITION, LOGICS_POSITION, INDEX_POSITION]
            .map(|position| {
                let mut cell = [0u8; 8];
                cell.copy_from_slice(&bytes[position..position + 8]);
                i64::from_be_bytes(cell)
            });
        Ok(CheckpointTimes {
            physic_ms,
            logics_ms,
            index_ms,
        })
    }

    /// The times as they stand.
    pub fn times(&self) -> CheckpointTimes {
        CheckpointTimes {
            physic_ms: self.load(PHYSIC_POSITION),
            logics_ms: self.load(LOGICS_POSITION),
            index_ms: self.load(INDEX_POSITION),
        }
    }

    /// Log bytes of messages stored up to `ms` are synced. Never moves back.
    pub fn advance_physic(&self, ms: i64) {
        self.advance(PHYSIC_POSITION, ms);
    }

    /// Queue entries of messages stored up to `ms` are synced. Never moves back.
    pub fn advance_logics(&self, ms: i64) {
        self.advance(LOGICS_POSITION, ms);
    }

    /// Full index files up to `ms` are synced. Never moves back.
    pub fn advance_index(&self, ms: i64) {
        self.advance(INDEX_POSITION, ms);
    }

    /// Writes the file through to the device.
    ///
    /// # Errors
    /// When the sync fails.
    pub fn flush(&self) -> Result<(), IoError> {
        self.region.map().sync_range(0, CHECKPOINT_LEN as usize)
    }

    fn load(&self, position: usize) -> i64 {
        self.region
            .load_u64(position, Ordering::Relaxed)
            .cast_signed()
    }

    fn advance(&self, position: usize, ms: i64) {
        if ms > self.load(position) {
            self.region
                .store_u64(position, ms.cast_unsigned(), Ordering::Relaxed);
        }
    }
}

//! okaywal: a write-ahead log whose every commit is synced, as a group where several threads
//! commit. Its files are used again once checkpointed (here at once), so that it keeps nothing for
//! readers.

use std::io;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use message::Message;
use okaywal::{Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use crate::engine::{Engine, Reader, Writer, value};

pub(crate) struct Wal {
    log: WriteAheadLog,
}

struct Puts<'a> {
    log: &'a WriteAheadLog,
    buffer: Vec<u8>,
}

/// Gives every checkpointed file free.
#[derive(Debug)]
struct Forgetful;

impl Wal {
    pub(crate) fn open(dir: &Path, is_sync: bool) -> Result<Self> {
        ensure!(is_sync, "okaywal puts nothing without a sync");
        let log = WriteAheadLog::recover(dir, Forgetful)?;
        Ok(Self { log })
    }
}

impl Engine for Wal {
    fn writer(&self, _thread: u64) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Puts {
            log: &self.log,
            buffer: Vec::new(),
        }))
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        bail!("okaywal keeps nothing for readers")
    }
}

impl Writer for Puts<'_> {
    fn put(&mut self, message: &Message<'_>) -> Result<()> {
        let mut entry = self.log.begin_entry()?;
        entry.write_chunk(value(message, &mut self.buffer))?;
        entry.commit()?;
        Ok(())
    }
}

impl LogManager for Forgetful {
    fn recover(&mut self, _entry: &mut Entry<'_>) -> io::Result<()> {
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

//! The crate commitlog: a log of segments with an index of offsets. Threads share it behind a lock.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use commitlog_crate::message::MessageSet;
use commitlog_crate::{CommitLog, LogOptions, ReadLimit};
use message::Message;

use crate::engine::{Engine, READ_COUNT, Reader, Tally, Writer, value};

pub(crate) struct Log {
    log: Mutex<CommitLog>,
}

struct Puts<'a> {
    log: &'a Log,
    buffer: Vec<u8>,
}

struct Gets<'a> {
    log: &'a Log,
    next: u64,
    /// About the bytes of [`READ_COUNT`] messages; reads are limited by bytes.
    limit: ReadLimit,
}

impl Log {
    pub(crate) fn open(dir: &Path, is_sync: bool) -> Result<Self> {
        ensure!(!is_sync, "commitlog has no group commit");
        let log = Mutex::new(CommitLog::new(LogOptions::new(dir))?);
        Ok(Self { log })
    }

    fn lock(&self) -> MutexGuard<'_, CommitLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Log {
    fn writer(&self, _thread: u64) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Puts {
            log: self,
            buffer: Vec::new(),
        }))
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        let log = self.lock();
        let first = log.read(0, ReadLimit::max_bytes(1 << 14))?;
        let one = first.iter().next().context("no messages")?;
        let one_len = one.size() as usize + HEADER_LEN;
        Ok(Box::new(Gets {
            log: self,
            next: 0,
            limit: ReadLimit::max_bytes(READ_COUNT * one_len),
        }))
    }
}

/// Bytes in front of a message's payload in its file.
const HEADER_LEN: usize = 20;

impl Writer for Puts<'_> {
    fn put(&mut self, message: &Message<'_>) -> Result<()> {
        let value = value(message, &mut self.buffer);
        self.log.lock().append_msg(value)?;
        Ok(())
    }
}

impl Reader for Gets<'_> {
    fn read(&mut self) -> Result<Tally> {
        let log = self.log.lock();
        let found = log.read(self.next, self.limit)?;
        let mut tally = Tally::default();
        for message in found.iter() {
            tally.add(1, message.payload());
        }
        self.next += tally.count;
        if self.next >= log.next_offset() {
            self.next = 0;
        }
        Ok(tally)
    }
}

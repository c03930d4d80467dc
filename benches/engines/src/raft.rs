//! raft-engine: the log store of TiKV. Each thread puts to a raft group of its own; an index of all
//! entries is in memory.

use std::path::Path;

use anyhow::{Context, Result};
use message::Message;
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine as RaftEngine, LogBatch, MessageExt};

use crate::engine::{Engine, READ_COUNT, Reader, Tally, Writer};

pub(crate) struct Raft {
    engine: RaftEngine,
    is_sync: bool,
}

struct Puts<'a> {
    engine: &'a RaftEngine,
    is_sync: bool,
    group: u64,
    index: u64,
    batch: LogBatch,
    entry: [BytesValue; 1],
}

struct Gets<'a> {
    engine: &'a RaftEngine,
    begin: u64,
    end: u64,
    next: u64,
    entries: Vec<BytesValue>,
}

/// Entries whose values begin with their index, eight bytes.
#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let index = entry.value.first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(index)
    }
}

impl Raft {
    pub(crate) fn open(dir: &Path, is_sync: bool) -> Result<Self> {
        let config = Config {
            dir: dir.to_str().context("a directory's name")?.to_owned(),
            ..Config::default()
        };
        let engine = RaftEngine::open(config)?;
        Ok(Self { engine, is_sync })
    }
}

impl Engine for Raft {
    fn writer(&self, thread: u64) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Puts {
            engine: &self.engine,
            is_sync: self.is_sync,
            group: thread + 1,
            index: 0,
            batch: LogBatch::default(),
            entry: [BytesValue::new()],
        }))
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        let begin = self.engine.first_index(1).context("no entries")?;
        Ok(Box::new(Gets {
            engine: &self.engine,
            begin,
            end: self.engine.last_index(1).context("no entries")? + 1,
            next: begin,
            entries: Vec::new(),
        }))
    }
}

impl Writer for Puts<'_> {
    fn put(&mut self, message: &Message<'_>) -> Result<()> {
        self.index += 1;
        let [entry] = &mut self.entry;
        entry.value.clear();
        // The body begins with the message's number; the index takes its place.
        entry.value.extend_from_slice(&self.index.to_be_bytes());
        entry.value.extend_from_slice(&message.body[8..]);
        entry.value.extend_from_slice(message.properties);
        self.batch.add_entries::<Indexed>(self.group, &self.entry)?;
        self.engine.write(&mut self.batch, self.is_sync)?;
        Ok(())
    }
}

impl Reader for Gets<'_> {
    fn read(&mut self) -> Result<Tally> {
        let to = (self.next + READ_COUNT as u64).min(self.end);
        self.entries.clear();
        self.engine
            .fetch_entries_to::<Indexed>(1, self.next, to, None, &mut self.entries)?;
        let mut tally = Tally::default();
        for entry in &self.entries {
            tally.add(1, &entry.value);
        }
        self.next = if to < self.end { to } else { self.begin };
        Ok(tally)
    }
}

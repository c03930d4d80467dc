//! redb: a B-tree of copied pages. One transaction a message, keys by number.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use message::Message;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use crate::engine::{Engine, READ_COUNT, Reader, Tally, Writer, value};

const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");

pub(crate) struct Table {
    database: Database,
    is_sync: bool,
    next: AtomicU64,
}

struct Puts<'a> {
    table: &'a Table,
    buffer: Vec<u8>,
}

struct Gets {
    table: ReadOnlyTable<u64, &'static [u8]>,
    next: u64,
    end: u64,
}

impl Table {
    pub(crate) fn open(dir: &Path, is_sync: bool) -> Result<Self> {
        let database = Database::create(dir.join("redb"))?;
        Ok(Self {
            database,
            is_sync,
            next: AtomicU64::new(0),
        })
    }
}

impl Engine for Table {
    fn writer(&self, _thread: u64) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Puts {
            table: self,
            buffer: Vec::new(),
        }))
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        let transaction = self.database.begin_read()?;
        Ok(Box::new(Gets {
            table: transaction.open_table(MESSAGES)?,
            next: 0,
            end: self.next.load(Ordering::Relaxed),
        }))
    }
}

impl Writer for Puts<'_> {
    fn put(&mut self, message: &Message<'_>) -> Result<()> {
        let key = self.table.next.fetch_add(1, Ordering::Relaxed);
        let mut transaction = self.table.database.begin_write()?;
        if !self.table.is_sync {
            transaction.set_durability(Durability::None)?;
        }
        transaction
            .open_table(MESSAGES)?
            .insert(key, value(message, &mut self.buffer))?;
        transaction.commit()?;
        Ok(())
    }
}

impl Reader for Gets {
    fn read(&mut self) -> Result<Tally> {
        let to = (self.next + READ_COUNT as u64).min(self.end);
        let mut tally = Tally::default();
        for found in self.table.range(self.next..to)? {
            tally.add(1, found?.1.value());
        }
        self.next = if to < self.end { to } else { 0 };
        Ok(tally)
    }
}

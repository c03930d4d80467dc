//! This workspace's store, with consume queues and the index.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use benches::{QUEUES, TOPIC};
use message::Message;
use store::{AllMessages, FlushMode, GetLimits, MessageStore, StoreOptions};

use crate::engine::{Engine, READ_COUNT, Reader, Tally, Writer};

/// How often it is looked whether dispatch has caught up.
const POLL: Duration = Duration::from_micros(200);

const LIMITS: GetLimits = GetLimits {
    count_max: READ_COUNT,
    bytes_max: 1 << 20,
};

pub(crate) struct Ours {
    store: MessageStore,
    is_sync: bool,
}

struct Puts<'a> {
    store: &'a MessageStore,
    is_sync: bool,
}

/// Reads the queues in turn.
struct Gets<'a> {
    store: &'a MessageStore,
    queue: i32,
    offsets: [i64; QUEUES as usize],
}

impl Ours {
    pub(crate) fn open(dir: &Path, is_sync: bool) -> Result<Self> {
        let mut options = StoreOptions::new(dir);
        if is_sync {
            options.flush = FlushMode::sync_default();
        }
        let (store, _report) = MessageStore::open(options)?;
        Ok(Self { store, is_sync })
    }
}

impl Engine for Ours {
    fn writer(&self, _thread: u64) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Puts {
            store: &self.store,
            is_sync: self.is_sync,
        }))
    }

    fn settle(&self) {
        while self.store.dispatch_behind_bytes() > 0 {
            thread::sleep(POLL);
        }
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Gets {
            store: &self.store,
            queue: 0,
            offsets: [0; QUEUES as usize],
        }))
    }
}

impl Writer for Puts<'_> {
    fn put(&mut self, message: &Message<'_>) -> Result<()> {
        let ticket = self.store.put(message)?.ticket;
        if self.is_sync {
            ticket.wait()?;
        }
        Ok(())
    }
}

impl Reader for Gets<'_> {
    fn read(&mut self) -> Result<Tally> {
        let queue = self.queue;
        self.queue = (queue + 1) % QUEUES;
        let Some(offset) = self.offsets.get_mut(queue as usize) else {
            return Ok(Tally::default());
        };
        let got = self
            .store
            .get(TOPIC, queue, *offset, &LIMITS, &AllMessages)?;
        let mut tally = Tally::default();
        for slice in got.messages.slices() {
            tally.add(0, slice);
        }
        tally.count = got.messages.count() as u64;
        let end = self.store.max_offset(TOPIC, queue).unwrap_or(0);
        *offset = if got.next_offset < end {
            got.next_offset
        } else {
            0
        };
        Ok(tally)
    }
}

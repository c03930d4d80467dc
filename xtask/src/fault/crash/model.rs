//! What the store was told to keep, and what it promised about it.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use message::RecordView;

/// A message that was put, as its producer knows it.
#[derive(Clone, Debug)]
pub struct Issued {
    pub topic: u64,
    pub queue_id: i32,
    /// Which life of the queue it belongs to: deleting a topic begins a new one.
    pub generation: u32,
    /// Its place in the queue; half and rolled-back messages have none.
    pub queue_offset: Option<i64>,
    pub physical_offset: u64,
    pub len: u64,
    pub store_ms: i64,
    pub flag: i32,
    pub body: Vec<u8>,
    pub properties: String,
    pub keys: Vec<String>,
    pub is_indexed: bool,
    /// It was acknowledged as durable, or a reader saw what only durable messages may show.
    pub is_durable: bool,
    /// It was in the page cache when the process was killed, and the machine has lived since.
    pub survives_kill: bool,
}

/// A topic and a queue of it.
pub type QueueName = (u64, i32);

/// What is expected of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueState {
    pub generation: u32,
    /// The queue offset of the next message.
    pub next_offset: i64,
    /// Messages from here on must be in the queue. Those before were deleted with the topic; a
    /// crash may bring the last of them back, because the log still has them.
    pub must_from: i64,
    /// The queue offset behind the messages that have expired.
    pub expired_to: i64,
}

/// Everything that was issued, in the order of the log, and what may be gone of it.
#[derive(Debug, Default)]
pub struct Model {
    pub issued: Vec<Issued>,
    pub queues: BTreeMap<QueueName, QueueState>,
    /// The log's first offset: at least, because removed files stay removed...
    pub min_at_least: u64,
    /// ...and at most, because nobody asked for more.
    pub min_at_most: u64,
    /// Cleaning was to remove what lies below. Where it failed, or the machine died meanwhile, the
    /// log may still have messages of which queues and index know nothing any more.
    pub cleaned_to: u64,
    /// Makes keys distinct.
    pub serial: u64,
}

pub fn topic_name(topic: u64) -> String {
    format!("Topic{topic}")
}

impl Issued {
    pub fn end(&self) -> u64 {
        self.physical_offset + self.len
    }

    pub fn queue(&self) -> QueueName {
        (self.topic, self.queue_id)
    }

    /// Compares a record with what was put.
    pub fn check(&self, view: &RecordView<'_>) -> Result<()> {
        let place = self.physical_offset;
        view.verify_body_crc()?;
        ensure!(
            view.physical_offset() == place.cast_signed() && view.total_size() as u64 == self.len,
            "the record at {place} is not the one that was put there"
        );
        ensure!(
            view.topic() == topic_name(self.topic) && view.queue_id() == self.queue_id,
            "the record at {place} has the topic {} and queue {}",
            view.topic(),
            view.queue_id()
        );
        ensure!(
            view.queue_offset() == self.queue_offset.unwrap_or(0),
            "the record at {place} has the queue offset {}, not {:?}",
            view.queue_offset(),
            self.queue_offset
        );
        ensure!(
            view.store_timestamp_ms() == self.store_ms && view.flag() == self.flag,
            "the record at {place} has another store time or flag"
        );
        ensure!(
            view.body() == self.body,
            "the record at {place} has another body than was put"
        );
        let properties = view.properties().bytes();
        ensure!(
            properties.starts_with(self.properties.as_bytes()),
            "the record at {place} has the properties {:?} instead of {:?}",
            String::from_utf8_lossy(properties),
            self.properties
        );
        Ok(())
    }
}

impl Model {
    /// The end of the log, everything included.
    pub fn end(&self) -> u64 {
        self.issued.last().map_or(self.min_at_least, Issued::end)
    }

    /// Everything below was synced.
    pub fn flushed_to(&mut self, flushed: u64) {
        for message in self.issued.iter_mut().rev() {
            if message.is_durable && message.end() <= flushed {
                break;
            }
            message.is_durable |= message.end() <= flushed;
        }
    }

    /// The message that starts at a log offset.
    pub fn at(&self, physical_offset: u64) -> Option<&Issued> {
        let index = self
            .issued
            .binary_search_by_key(&physical_offset, |message| message.physical_offset);
        self.issued.get(index.ok()?)
    }

    pub fn queue(&mut self, name: QueueName) -> &mut QueueState {
        self.queues.entry(name).or_default()
    }

    /// A topic's queues are deleted: their next messages begin new ones.
    pub fn delete_topic(&mut self, topic: u64) {
        for (_, queue) in self.queues.iter_mut().filter(|(name, _)| name.0 == topic) {
            *queue = QueueState {
                generation: queue.generation + 1,
                ..QueueState::default()
            };
        }
    }

    /// The messages of a queue's life that the log holds from `min` on, in order.
    pub fn of_queue(&self, name: QueueName, generation: u32, min: u64) -> Vec<&Issued> {
        let belongs = |message: &&Issued| {
            message.queue() == name
                && message.generation == generation
                && message.queue_offset.is_some()
                && message.physical_offset >= min
        };
        self.issued.iter().filter(belongs).collect()
    }
}

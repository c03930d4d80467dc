//! What an engine has to do.

use anyhow::Result;
use benches::sum;
use message::Message;

/// Messages of one read, as a pull's.
pub(crate) const READ_COUNT: usize = 32;

/// An open engine that threads put to.
pub(crate) trait Engine: Sync {
    /// What thread number `thread` puts with.
    fn writer(&self, thread: u64) -> Result<Box<dyn Writer + '_>>;

    /// Waits until what is derived from the messages is there.
    fn settle(&self) {}

    /// What reads the messages that thread 0 has put, in order; an error where the engine reads
    /// nothing back but at its recovery.
    fn reader(&self) -> Result<Box<dyn Reader + '_>>;
}

/// Puts of one thread.
pub(crate) trait Writer {
    /// Puts a message; in sync mode it is on the device when this returns.
    fn put(&mut self, message: &Message<'_>) -> Result<()>;
}

/// A reader with its place.
pub(crate) trait Reader {
    /// Reads the next [`READ_COUNT`] messages and sums their bytes; begins again at the end.
    fn read(&mut self) -> Result<Tally>;
}

/// What was read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    pub(crate) sum: u64,
}

impl Tally {
    /// Counts the bytes of `count` messages.
    pub(crate) fn add(&mut self, count: usize, bytes: &[u8]) {
        self.count += count as u64;
        self.bytes += bytes.len() as u64;
        self.sum = self.sum.wrapping_add(sum(bytes));
    }

    /// Counts what another read has found.
    pub(crate) fn merge(&mut self, other: Tally) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// A message as engines see it that know no properties: its body, then its properties.
pub(crate) fn value<'a>(message: &Message<'_>, buffer: &'a mut Vec<u8>) -> &'a [u8] {
    buffer.clear();
    buffer.extend_from_slice(message.body);
    buffer.extend_from_slice(message.properties);
    buffer
}

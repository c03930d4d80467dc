//! What was promised: which message stands at which queue offset, and what consumers committed.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Result, bail, ensure};

use super::message::Identity;

/// Queues of each topic.
pub const QUEUE_COUNT: i32 = 4;

/// Everything that a store must still have.
#[derive(Debug, Default)]
pub struct Ledger {
    topics: Vec<Topic>,
    /// Those that are stored, as far as is known.
    stored: HashSet<Identity>,
    /// By topic and queue: what the consumers' group committed.
    commits: BTreeMap<(usize, i32), Commits>,
    /// The number of the next message of each producer.
    next_sequence: BTreeMap<u16, u64>,
}

/// A topic and what its queues hold.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    queues: Vec<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// What was read back, by queue offset.
    read: Vec<Identity>,
    /// What was acknowledged or consumed, and not read back since.
    promised: BTreeMap<i64, Identity>,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's number.
    pub topic: usize,
    /// The queue.
    pub queue: i32,
    /// The place in it.
    pub offset: i64,
}

/// What is known of a group's offset in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commits {
    /// The last that was acknowledged.
    pub acknowledged: i64,
    /// The last that was sent.
    pub sent: i64,
    /// Not less than this may be left: it was on disk, or was asked for after an earlier restart.
    pub kept: i64,
}

impl Ledger {
    /// The topics, by number.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Adds a topic; its number.
    pub fn add_topic(&mut self, prefix: &str) -> usize {
        let number = self.topics.len();
        let queues = (0..QUEUE_COUNT).map(|_| Queue::default()).collect();
        self.topics.push(Topic {
            name: format!("{prefix}{number}"),
            queues,
        });
        number
    }

    /// Messages that are known to be stored.
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    /// The number from which a producer goes on.
    pub fn next_sequence(&self, producer: u16) -> u64 {
        self.next_sequence.get(&producer).copied().unwrap_or(0)
    }

    /// Notes that a producer has used all numbers below this one.
    pub fn set_next_sequence(&mut self, producer: u16, next: u64) {
        self.next_sequence.insert(producer, next);
    }

    /// A message was acknowledged, or consumed: it must stand there from now on.
    pub fn promise(&mut self, place: Place, identity: Identity) -> Result<()> {
        let queue = self.queue_mut(place)?;
        let read = queue.read.get(place.offset as usize);
        let known = read.or_else(|| queue.promised.get(&place.offset)).copied();
        match known {
            Some(known) if known != identity => {
                bail!("{identity:?} at {place:?}, where {known:?} was promised")
            }
            Some(_) => Ok(()),
            None => {
                queue.promised.insert(place.offset, identity);
                ensure!(
                    self.stored.insert(identity),
                    "{identity:?} at {place:?} and elsewhere"
                );
                Ok(())
            }
        }
    }

    /// How far a queue was read back.
    pub fn read_to(&self, topic: usize, queue: i32) -> i64 {
        self.queue(topic, queue)
            .map_or(0, |queue| queue.read.len() as i64)
    }

    /// A message was read at the place behind those that were read before.
    pub fn read(&mut self, place: Place, identity: Identity) -> Result<()> {
        let queue = self.queue_mut(place)?;
        let expected = queue.read.len() as i64;
        ensure!(place.offset == expected, "{place:?} instead of {expected}");
        queue.read.push(identity);
        match queue.promised.remove(&place.offset) {
            Some(promised) if promised != identity => {
                bail!("{identity:?} at {place:?}, where {promised:?} was promised")
            }
            Some(_) => Ok(()),
            None => {
                ensure!(
                    self.stored.insert(identity),
                    "{identity:?} at {place:?} and elsewhere"
                );
                Ok(())
            }
        }
    }

    /// A queue was read to its end: nothing that was promised lies behind it.
    pub fn check_end(&self, topic: usize, queue: i32) -> Result<()> {
        let Some(known) = self.queue(topic, queue) else {
            return Ok(());
        };
        let end = known.read.len();
        if let Some((offset, identity)) = known.promised.first_key_value() {
            let count = known.promised.len();
            bail!(
                "lost: topic {topic}, queue {queue} ends at {end}; {count} were promised from \
                 {offset} on, first {identity:?}"
            );
        }
        Ok(())
    }

    /// What stands at a place that was read before.
    pub fn at(&self, place: Place) -> Option<Identity> {
        let queue = self.queue(place.topic, place.queue)?;
        queue.read.get(usize::try_from(place.offset).ok()?).copied()
    }

    /// Whether anything was promised in this topic.
    pub fn is_used(&self, topic: usize) -> bool {
        let queues = self.topics.get(topic).map(|topic| topic.queues.as_slice());
        let is_used = |queue: &Queue| !queue.read.is_empty() || !queue.promised.is_empty();
        queues.unwrap_or_default().iter().any(is_used)
    }

    /// What the group committed, by topic and queue.
    pub fn commits(&mut self) -> &mut BTreeMap<(usize, i32), Commits> {
        &mut self.commits
    }

    fn queue(&self, topic: usize, queue: i32) -> Option<&Queue> {
        let queue = usize::try_from(queue).ok()?;
        self.topics.get(topic)?.queues.get(queue)
    }

    fn queue_mut(&mut self, place: Place) -> Result<&mut Queue> {
        let Place { topic, queue, .. } = place;
        let found = self.topics.get_mut(topic).and_then(|topic| {
            let queue = usize::try_from(queue).ok()?;
            topic.queues.get_mut(queue)
        });
        match found {
            Some(queue) if place.offset >= 0 => Ok(queue),
            _ => bail!("there is no place {place:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: i64) -> Place {
        Place {
            topic: 0,
            queue: 1,
            offset,
        }
    }

    #[test]
    fn losses_doubles_and_changes_are_noticed() {
        let mut ledger = Ledger::default();
        ledger.add_topic("T");
        let message = |number| Identity::new(1, number);
        assert!(ledger.promise(place(1), message(7)).is_ok());
        assert!(ledger.promise(place(1), message(8)).is_err(), "another one");
        assert!(ledger.promise(place(2), message(7)).is_err(), "twice");
        assert!(ledger.read(place(1), message(7)).is_err(), "a gap");
        assert!(ledger.read(place(0), message(6)).is_ok(), "never promised");
        assert!(ledger.check_end(0, 1).is_err(), "one is lost");
        assert!(ledger.read(place(1), message(7)).is_ok());
        assert!(ledger.read(place(2), message(6)).is_err(), "again");
        let mut ledger = Ledger::default();
        ledger.add_topic("T");
        assert!(ledger.promise(place(0), message(1)).is_ok());
        assert!(ledger.read(place(0), message(2)).is_err(), "not that one");
    }
}

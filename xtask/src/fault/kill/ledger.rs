//! What was promised: which message stands at which queue offset, and what consumers committed.
//!
//! A promise may be loose: a broker that keeps records in its own memory for a while may lose, when
//! it is killed, what it has acknowledged just before. Then the log must end before all of that.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

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
    /// Those that a kill has taken, as was allowed: they must never come back.
    lost: HashSet<Identity>,
    /// Since the last kill: where in the log the last acknowledged message stands that is left...
    last_kept: Option<i64>,
    /// ...and the first that is lost.
    first_lost: Option<i64>,
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
    promised: BTreeMap<i64, Promised>,
}

#[derive(Clone, Copy, Debug)]
struct Promised {
    identity: Identity,
    /// Its place in the log.
    physical: i64,
    is_loose: bool,
}

/// What a client was told of a message.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Where it stands.
    pub place: Place,
    /// Its place in the log.
    pub physical: i64,
    /// Which message it is.
    pub identity: Identity,
    /// When it was acknowledged; `None` for one that was consumed.
    pub acknowledged_at: Option<Instant>,
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

    /// A message was acknowledged, or consumed: it must stand there from now on, unless the promise
    /// is loose.
    pub fn promise(&mut self, told: &Told, is_loose: bool) -> Result<()> {
        let Told {
            place,
            physical,
            identity,
            ..
        } = *told;
        let queue = self.queue_mut(place)?;
        let read = queue.read.get(place.offset as usize).copied();
        let known = read.or_else(|| Some(queue.promised.get(&place.offset)?.identity));
        match known {
            Some(known) if known != identity => {
                bail!("{identity:?} at {place:?}, where {known:?} was promised")
            }
            Some(_) => {
                if let Some(promised) = queue.promised.get_mut(&place.offset) {
                    promised.is_loose &= is_loose;
                }
                Ok(())
            }
            None => {
                let promised = Promised {
                    identity,
                    physical,
                    is_loose,
                };
                queue.promised.insert(place.offset, promised);
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
        let promised = queue.promised.remove(&place.offset);
        ensure!(
            !self.lost.contains(&identity),
            "{identity:?} at {place:?} was gone after a kill and has come back"
        );
        match promised {
            Some(promised) if promised.identity != identity => {
                let promised = promised.identity;
                bail!("{identity:?} at {place:?}, where {promised:?} was promised")
            }
            Some(promised) => {
                self.last_kept = self.last_kept.max(Some(promised.physical));
                Ok(())
            }
            None => {
                ensure!(
                    self.stored.insert(identity),
                    "{identity:?} at {place:?} and elsewhere"
                );
                Ok(())
            }
        }
    }

    /// A queue was read to its end: nothing that was promised lies behind it, but what may be lost.
    pub fn check_end(&mut self, topic: usize, queue: i32) -> Result<()> {
        let place = Place {
            topic,
            queue,
            offset: 0,
        };
        let known = self.queue_mut(place)?;
        let end = known.read.len();
        let promised = std::mem::take(&mut known.promised);
        let mut strict = promised.iter().filter(|(_, promised)| !promised.is_loose);
        if let Some((offset, promised)) = strict.next() {
            let (count, identity) = (1 + strict.count(), promised.identity);
            bail!(
                "lost: topic {topic}, queue {queue} ends at {end}; {count} were promised from \
                 {offset} on, first {identity:?}"
            );
        }
        for promised in promised.into_values() {
            self.stored.remove(&promised.identity);
            self.lost.insert(promised.identity);
            let first = self.first_lost.unwrap_or(i64::MAX);
            self.first_lost = Some(first.min(promised.physical));
        }
        Ok(())
    }

    /// All queues were read to their ends: what is left of the log lies before all that is lost.
    pub fn check_order(&mut self) -> Result<()> {
        let (kept, lost) = (self.last_kept.take(), self.first_lost.take());
        if let (Some(kept), Some(lost)) = (kept, lost) {
            ensure!(
                kept < lost,
                "a message at {kept} of the log is there, and one at {lost} is lost"
            );
        }
        Ok(())
    }

    /// Messages that kills have taken, as was allowed.
    pub fn lost_count(&self) -> usize {
        self.lost.len()
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

    fn told(offset: i64, number: u64) -> Told {
        Told {
            place: place(offset),
            physical: offset * 100,
            identity: Identity::new(1, number),
            acknowledged_at: None,
        }
    }

    #[test]
    fn losses_doubles_and_changes_are_noticed() {
        let mut ledger = Ledger::default();
        ledger.add_topic("T");
        let message = |number| Identity::new(1, number);
        assert!(ledger.promise(&told(1, 7), false).is_ok());
        assert!(ledger.promise(&told(1, 8), false).is_err(), "another one");
        assert!(ledger.promise(&told(2, 7), false).is_err(), "twice");
        assert!(ledger.read(place(1), message(7)).is_err(), "a gap");
        assert!(ledger.read(place(0), message(6)).is_ok(), "never promised");
        assert!(ledger.read(place(1), message(7)).is_ok());
        assert!(ledger.read(place(2), message(6)).is_err(), "again");
        let mut ledger = Ledger::default();
        ledger.add_topic("T");
        assert!(ledger.promise(&told(0, 1), false).is_ok());
        assert!(ledger.read(place(0), message(2)).is_err(), "not that one");
        let mut ledger = Ledger::default();
        ledger.add_topic("T");
        assert!(ledger.promise(&told(0, 1), false).is_ok());
        assert!(ledger.check_end(0, 1).is_err(), "it is lost");
    }

    #[test]
    fn what_may_be_lost_is_the_end_of_the_log_and_stays_so() {
        let mut ledger = Ledger::default();
        ledger.add_topic("T");
        let message = |number| Identity::new(1, number);
        for offset in 0..3 {
            assert!(ledger.promise(&told(offset, offset as u64), true).is_ok());
        }
        assert!(ledger.read(place(0), message(0)).is_ok());
        assert!(ledger.check_end(0, 1).is_ok() && ledger.check_order().is_ok());
        assert_eq!((ledger.len(), ledger.lost_count()), (1, 2));
        assert!(ledger.read(place(1), message(2)).is_err(), "back again");

        // One that was consumed was committed, and so was all before it.
        let mut ledger = Ledger::default();
        ledger.add_topic("T");
        assert!(ledger.promise(&told(0, 1), true).is_ok());
        assert!(ledger.promise(&told(0, 1), false).is_ok());
        assert!(ledger.check_end(0, 1).is_err(), "it was consumed");
        let mut ledger = Ledger::default();
        ledger.add_topic("T");
        let elsewhere = Told {
            place: Place {
                queue: 0,
                ..place(0)
            },
            ..told(9, 9)
        };
        assert!(ledger.promise(&told(0, 1), true).is_ok());
        assert!(ledger.promise(&elsewhere, true).is_ok());
        assert!(ledger.read(elsewhere.place, message(9)).is_ok());
        assert!(ledger.check_end(0, 1).is_ok());
        assert!(ledger.check_order().is_err(), "a later one is there");
    }
}

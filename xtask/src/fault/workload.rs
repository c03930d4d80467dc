//! Clients that send, read, and remember what they were told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::{ClientError, ClientOptions, Outgoing, Producer, PullConsumer, Received, StartAt};
use client::{Receipt, SendStatus};
use message::MessageId;
use mmap_core::Random;

/// The topics that messages go to; each has four queues.
pub(super) const TOPICS: [&str; 3] = ["FaultA", "FaultB", "FaultC"];

/// The group that reads while messages are sent.
const FOLLOWER: &str = "fault_follower";
/// Bytes that name a message at the beginning of its body.
const NAME_LEN: usize = 12;

/// Which message it is: who sent it, and as which of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) producer: u32,
    pub(super) ordinal: u64,
}

/// Where the broker says that a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: &'static str,
    pub(super) queue: i32,
    pub(super) offset: i64,
    pub(super) physical: i64,
}

/// What a producer was told of a message.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// It is stored there.
    Acked(Place),
    /// It is not stored, for this reason.
    Refused(String),
    /// Nothing: it may be stored or not.
    Unknown,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) identity: Identity,
    pub(super) answer: Answer,
    pub(super) asked_at: Instant,
    pub(super) answered_at: Instant,
}

/// What clients did from the start of one broker to its end.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) sent: Vec<Sent>,
    /// What the consumer was given.
    pub(super) seen: HashMap<Identity, Place>,
    /// What it was given that no producer has sent.
    pub(super) foreign: Vec<String>,
}

impl History {
    /// Whether anything was refused.
    pub(super) fn has_refusals(&self) -> bool {
        let mut answers = self.sent.iter().map(|sent| &sent.answer);
        answers.any(|answer| matches!(answer, Answer::Refused(_)))
    }
}

/// How far the clients are, while they run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    acked: AtomicU64,
    refused: AtomicU64,
    seen: AtomicU64,
    last_refusal: Mutex<String>,
}

impl Tally {
    /// Messages that were acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Requests that were refused with a reason.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Messages that the consumer was given.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Why the last request was refused.
    pub(super) fn last_refusal(&self) -> String {
        let last = self.last_refusal.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, answers: &[Answer]) {
        match answers.first() {
            Some(Answer::Acked(_)) => {
                self.acked
                    .fetch_add(answers.len() as u64, Ordering::Relaxed);
            }
            Some(Answer::Refused(why)) => {
                let mut last = self
                    .last_refusal
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                last.clone_from(why);
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            Some(Answer::Unknown) | None => {}
        }
    }
}

/// Running clients.
#[derive(Debug)]
pub(super) struct Workload {
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    producers: Vec<JoinHandle<Vec<Sent>>>,
    consumer: Option<JoinHandle<History>>,
}

impl Workload {
    /// Starts producers, each going on after the ordinal in `last` and resting for `pause` after
    /// each request, and a consumer.
    pub(super) fn start(options: &ClientOptions, seed: u64, last: &[u64], pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Tally::default());
        let producers = (0..).zip(last).map(|(producer, last)| {
            let (options, stop) = (options.clone(), Arc::clone(&stop));
            let tally = Arc::clone(&tally);
            let after = Identity {
                producer,
                ordinal: *last,
            };
            thread::spawn(move || Sender::new(options, seed, after, tally).run(&stop, pause))
        });
        let producers = producers.collect();
        let (options, stopped) = (options.clone(), Arc::clone(&stop));
        let seen = Arc::clone(&tally);
        let consumer = thread::spawn(move || follow(&options, seed, &stopped, &seen));
        Self {
            stop,
            tally,
            producers,
            consumer: Some(consumer),
        }
    }

    /// How far the clients are.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Lets the clients end what they are at, and returns what they know. With the broker gone,
    /// that is at once.
    pub(super) fn finish(mut self) -> Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        if let Some(consumer) = self.consumer.take() {
            let Ok(seen) = consumer.join() else {
                bail!("the consumer panicked");
            };
            history = seen;
        }
        for producer in self.producers.drain(..) {
            let Ok(sent) = producer.join() else {
                bail!("a producer panicked");
            };
            history.sent.extend(sent);
        }
        Ok(history)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The body of a message: its name, then bytes that its name and the seed determine. An even seed
/// makes all records equally long, so that what one life of a store has written ends where a
/// record of the next one begins.
pub(super) fn body_of(seed: u64, identity: Identity) -> Vec<u8> {
    let Identity { producer, ordinal } = identity;
    let mut random = Random::new(seed ^ (u64::from(producer) << 48) ^ ordinal);
    let len = match random.below(20) {
        _ if seed.is_multiple_of(2) => 700,
        0 => random.below(30_000),
        1..4 => random.below(20),
        _ => random.below(1_500),
    };
    let mut body = Vec::with_capacity(NAME_LEN + len as usize);
    body.extend(producer.to_be_bytes());
    body.extend(ordinal.to_be_bytes());
    body.extend(random.bytes(len as usize));
    body
}

/// The key by which a message can be found.
pub(super) fn key_of(identity: Identity) -> String {
    format!("k{}-{:08}", identity.producer, identity.ordinal)
}

/// Which message a body is; an error if it is none of ours, byte by byte.
pub(super) fn identify(seed: u64, body: &[u8]) -> Result<Identity> {
    let (Some(producer), Some(ordinal)) = (
        body.first_chunk::<4>(),
        body.get(4..NAME_LEN).and_then(<[u8]>::first_chunk::<8>),
    ) else {
        bail!("a body of {} bytes that nobody sent", body.len());
    };
    let identity = Identity {
        producer: u32::from_be_bytes(*producer),
        ordinal: u64::from_be_bytes(*ordinal),
    };
    if body != body_of(seed, identity) {
        bail!("{identity:?} has not the body that was sent");
    }
    Ok(identity)
}

/// The topic by its name, as [`TOPICS`] has it.
pub(super) fn known_topic(name: &str) -> Option<&'static str> {
    TOPICS.into_iter().find(|topic| *topic == name)
}

/// Where a message came from.
pub(super) fn place_of(message: &Received) -> Result<Place> {
    Ok(Place {
        topic: known_topic(&message.topic).with_context(|| message.topic.clone())?,
        queue: message.queue_id,
        offset: message.queue_offset,
        physical: message.id.physical_offset,
    })
}

/// One producer, one message at a time; some of them in batches.
struct Sender {
    producer: Producer,
    seed: u64,
    last: Identity,
    random: Random,
    sent: Vec<Sent>,
    tally: Arc<Tally>,
}

impl Sender {
    fn new(options: ClientOptions, seed: u64, after: Identity, tally: Arc<Tally>) -> Self {
        let group = format!("fault_producer_{}", after.producer);
        let mixed = seed ^ u64::from(after.producer) ^ (after.ordinal << 8);
        Self {
            producer: Producer::new(options, &group),
            seed,
            last: after,
            random: Random::new(mixed),
            sent: Vec::new(),
            tally,
        }
    }

    fn run(mut self, stop: &AtomicBool, pause: Duration) -> Vec<Sent> {
        while !stop.load(Ordering::Relaxed) {
            let topic = self.random.pick(&TOPICS);
            let count = if self.random.once_in(8) {
                self.random.between(2, 7)
            } else {
                1
            };
            if self.send(topic, count) {
                thread::sleep(pause);
            } else {
                // The broker is gone or going; not to run hot until `stop` says so.
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.sent
    }

    /// Sends messages in one request; false when there was no answer.
    fn send(&mut self, topic: &'static str, count: u64) -> bool {
        let identities: Vec<_> = (1..=count)
            .map(|step| Identity {
                ordinal: self.last.ordinal + step,
                ..self.last
            })
            .collect();
        self.last.ordinal += count;
        let bodies: Vec<_> = identities
            .iter()
            .map(|identity| (body_of(self.seed, *identity), key_of(*identity)))
            .collect();
        let keys: Vec<_> = bodies.iter().map(|(_, key)| [key.as_str()]).collect();
        let messages: Vec<_> = bodies
            .iter()
            .zip(&keys)
            .map(|((body, _), keys)| Outgoing {
                body,
                keys,
                ..Outgoing::default()
            })
            .collect();
        let asked_at = Instant::now();
        let outcome = match &messages[..] {
            [single] => self.producer.send(topic, single),
            several => self.producer.send_batch(topic, several),
        };
        let answered_at = Instant::now();
        let answers = answers(topic, &outcome, identities.len());
        self.tally.count(&answers);
        let is_answered = !matches!(answers.first(), Some(Answer::Unknown));
        let sent = identities.into_iter().zip(answers);
        self.sent.extend(sent.map(|(identity, answer)| Sent {
            identity,
            answer,
            asked_at,
            answered_at,
        }));
        is_answered
    }
}

/// What the outcome of one request says of each of its messages.
fn answers(
    topic: &'static str,
    outcome: &Result<Receipt, ClientError>,
    count: usize,
) -> Vec<Answer> {
    match outcome {
        Ok(receipt) if receipt.status == SendStatus::Stored => {
            let ids = receipt.offset_message_id.split(',');
            let places: Vec<_> = (0..)
                .zip(ids)
                .filter_map(|(index, id)| {
                    let id: MessageId = id.parse().ok()?;
                    Some(Answer::Acked(Place {
                        topic,
                        queue: receipt.queue.id,
                        offset: receipt.queue_offset + index,
                        physical: id.physical_offset,
                    }))
                })
                .collect();
            if places.len() == count {
                return places;
            }
            vec![Answer::Unknown; count]
        }
        // Too large for the log's files, shutting down, or a fault: not stored.
        Err(ClientError::Refused { code, remark, .. }) => {
            vec![Answer::Refused(format!("{code} {remark}")); count]
        }
        _ => vec![Answer::Unknown; count],
    }
}

/// Reads all topics with one group, committing now and then, until told to stop.
fn follow(options: &ClientOptions, seed: u64, stop: &AtomicBool, tally: &Tally) -> History {
    let mut history = History::default();
    let mut consumers: HashMap<&str, PullConsumer> = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        for topic in TOPICS {
            if let Some(consumer) = consumers.get_mut(topic) {
                if poll(consumer, seed, &mut history).is_err() {
                    consumers.remove(topic);
                }
                tally
                    .seen
                    .store(history.seen.len() as u64, Ordering::Relaxed);
                continue;
            }
            let made = PullConsumer::new(options.clone(), FOLLOWER, topic, StartAt::Earliest);
            match made {
                Ok(consumer) => drop(consumers.insert(topic, consumer)),
                // Not there yet, or the broker is gone.
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    history
}

fn poll(consumer: &mut PullConsumer, seed: u64, history: &mut History) -> Result<(), ClientError> {
    for message in consumer.poll(Duration::from_millis(10))? {
        let known = identify(seed, &message.body).and_then(|it| Ok((it, place_of(&message)?)));
        match known {
            Ok((identity, place)) => drop(history.seen.insert(identity, place)),
            Err(error) => history.foreign.push(format!("a consumer got {error:#}")),
        }
    }
    consumer.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_name_their_messages() {
        for ordinal in 0..50 {
            let identity = Identity {
                producer: 3,
                ordinal,
            };
            let mut body = body_of(7, identity);
            assert_eq!(identify(7, &body).unwrap(), identity);
            *body.last_mut().unwrap() ^= 1;
            assert!(identify(7, &body).is_err());
        }
        assert!(identify(7, b"short").is_err());
    }
}

//! The load of one life: producers and a consumer, until the broker is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::{
    ClientError, ClientOptions, Connection, Outgoing, Producer, PullConsumer, SendStatus, StartAt,
};
use message::MessageId;
use mmap_core::Random;
use remoting::header::{SendMessageRequestHeaderV2, SendMessageResponseHeader};
use remoting::{Command, RequestCode, ResponseCode};

use super::ledger::{Place, QUEUE_COUNT, Told};
use super::message::{ANY_QUEUE, Identity};

/// The consumers' group.
pub const GROUP: &str = "killed";
/// Producers that keep many sends under way on a connection of their own.
pub const WINDOW_PRODUCERS: u16 = 2;
/// The producer that uses the client as applications do.
pub const CALLING_PRODUCER: u16 = WINDOW_PRODUCERS;
/// As long as an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom the load talks to, and about what.
#[derive(Debug)]
pub struct Load<'a> {
    /// The broker.
    pub broker: &'a str,
    /// Its name server.
    pub name_server: &'a str,
    /// The topics of the window producers: number and name.
    pub topics: &'a [(usize, String)],
    /// The topic of the calling producer and the consumer.
    pub common: (usize, String),
    /// Set when nothing is to be sent any more.
    pub stop: &'a AtomicBool,
}

/// What a client was promised.
#[derive(Debug, Default)]
pub struct Promises {
    /// Messages that were acknowledged, or consumed.
    pub messages: Vec<Told>,
    /// The number of the producer's next message.
    pub next_sequence: Option<(u16, u64)>,
    /// By queue of the common topic: the last offset sent, and the last acknowledged.
    pub commits: BTreeMap<i32, (i64, Option<i64>)>,
    /// Refusals, by code.
    pub refused: BTreeSet<String>,
}

impl Load<'_> {
    /// Sends with a window until the connection breaks.
    pub fn send_with_window(
        &self,
        producer: u16,
        first: u64,
        mut random: Random,
    ) -> Result<Promises> {
        let mut promises = Promises::default();
        let mut sequence = first;
        let window = 1 + random.below(24) as usize;
        let Ok(mut connection) = Connection::connect(self.broker, PATIENCE) else {
            promises.next_sequence = Some((producer, sequence));
            return Ok(promises);
        };
        let mut under_way = BTreeMap::new();
        'alive: loop {
            while under_way.len() < window && !self.stop.load(Ordering::Relaxed) {
                let identity = Identity::new(producer, sequence);
                sequence += 1;
                let (topic, name) = &self.topics[random.below(self.topics.len() as u64) as usize];
                let queue = random.below(QUEUE_COUNT as u64) as i32;
                let request = send_request(name, *topic, queue, identity);
                let Ok(opaque) = connection.send(request) else {
                    break 'alive;
                };
                under_way.insert(opaque, (*topic, queue, identity));
            }
            if under_way.is_empty() {
                break;
            }
            let answer = match connection.receive(Instant::now() + PATIENCE) {
                Ok(Some(answer)) => answer,
                Ok(None) => bail!("no answer to a send within {PATIENCE:?}"),
                Err(_) => break,
            };
            let Some((topic, queue, identity)) = under_way.remove(&answer.opaque) else {
                bail!("an answer to what was not asked: {answer:?}");
            };
            if answer.response_code() != ResponseCode::SUCCESS {
                promises.refuse(answer.response_code(), answer.remark.as_deref());
                continue;
            }
            let header: SendMessageResponseHeader<'_> = answer.header()?;
            let offset = header.queue_offset;
            let place = Place {
                topic,
                queue,
                offset,
            };
            let id: MessageId = header.msg_id.parse().context("the id of an answer")?;
            promises.messages.push(Told {
                place,
                physical: id.physical_offset,
                identity,
                acknowledged_at: Some(Instant::now()),
            });
        }
        promises.next_sequence = Some((producer, sequence));
        Ok(promises)
    }

    /// Sends one by one and in batches, as applications do, until the broker is gone.
    pub fn send_by_calls(&self, first: u64, mut random: Random) -> Result<Promises> {
        let mut promises = Promises::default();
        let mut sequence = first;
        let mut producer = Producer::new(self.client_options(), "killed_callers");
        let (topic, name) = &self.common;
        while !self.stop.load(Ordering::Relaxed) {
            let count = if random.chance(30) {
                2 + random.below(6)
            } else {
                1
            };
            let batch: Vec<_> = (sequence..sequence + count)
                .map(|number| {
                    let identity = Identity::new(CALLING_PRODUCER, number);
                    (identity, identity.key(), identity.body(*topic, ANY_QUEUE))
                })
                .collect();
            sequence += count;
            let keys: Vec<_> = batch.iter().map(|(_, key, _)| [key.as_str()]).collect();
            let outgoing: Vec<_> = batch
                .iter()
                .zip(&keys)
                .map(|((_, _, body), keys)| Outgoing {
                    body,
                    keys,
                    ..Outgoing::default()
                })
                .collect();
            let outcome = match &*outgoing {
                [single] => producer.send(name, single),
                several => producer.send_batch(name, several),
            };
            let receipt = match outcome {
                Ok(receipt) => receipt,
                Err(ClientError::Refused { code, remark, .. }) => {
                    promises.refuse(code, Some(&remark));
                    continue;
                }
                // A broker that stops tells its name server first.
                Err(ClientError::NoQueue { .. }) => {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(error) => {
                    ended(error)?;
                    break;
                }
            };
            if receipt.status != SendStatus::Stored {
                promises.refused.insert(format!("{:?}", receipt.status));
                continue;
            }
            let acknowledged_at = Some(Instant::now());
            let ids = receipt.offset_message_id.split(',');
            for ((offset, (identity, ..)), id) in (receipt.queue_offset..).zip(&batch).zip(ids) {
                let place = Place {
                    topic: *topic,
                    queue: receipt.queue.id,
                    offset,
                };
                let id: MessageId = id.parse().context("the id of an answer")?;
                promises.messages.push(Told {
                    place,
                    physical: id.physical_offset,
                    identity: *identity,
                    acknowledged_at,
                });
            }
        }
        promises.next_sequence = Some((CALLING_PRODUCER, sequence));
        Ok(promises)
    }

    /// Consumes the common topic and commits, until the broker is gone.
    pub fn consume(&self) -> Result<Promises> {
        let mut promises = Promises::default();
        let (topic, name) = &self.common;
        let options = self.client_options();
        let mut consumer = loop {
            match PullConsumer::new(options.clone(), GROUP, name, StartAt::Earliest) {
                Ok(consumer) => break consumer,
                // It is being created.
                Err(ClientError::NoQueue { .. }) if !self.stop.load(Ordering::Relaxed) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    ended(error)?;
                    return Ok(promises);
                }
            }
        };
        while !self.stop.load(Ordering::Relaxed) {
            let received = match consumer.poll(Duration::from_millis(100)) {
                Ok(received) => received,
                Err(error) => {
                    ended(error)?;
                    break;
                }
            };
            for message in &received {
                let place = Place {
                    topic: *topic,
                    queue: message.queue_id,
                    offset: message.queue_offset,
                };
                let identity = Identity::of_body(&message.body, *topic, message.queue_id)
                    .with_context(|| format!("consumed at {place:?}"))?;
                promises.messages.push(Told {
                    place,
                    physical: message.id.physical_offset,
                    identity,
                    acknowledged_at: None,
                });
            }
            let offsets: Vec<_> = consumer
                .offsets()
                .map(|(queue, offset)| (queue.id, offset))
                .collect();
            for (queue, offset) in &offsets {
                promises.commits.entry(*queue).or_default().0 = *offset;
            }
            if let Err(error) = consumer.commit() {
                ended(error)?;
                break;
            }
            for (queue, offset) in &offsets {
                promises.commits.entry(*queue).or_default().1 = Some(*offset);
            }
        }
        Ok(promises)
    }

    fn client_options(&self) -> ClientOptions {
        ClientOptions {
            timeout: PATIENCE,
            ..ClientOptions::new(self.name_server)
        }
    }
}

impl Promises {
    fn refuse(&mut self, code: ResponseCode, remark: Option<&str>) {
        let remark = remark.unwrap_or_default();
        self.refused.insert(format!("{code} {remark}"));
    }
}

/// A broken connection is how each life ends; anything else is a fault.
fn ended(error: ClientError) -> Result<()> {
    match error {
        ClientError::Connect { .. } | ClientError::Io { .. } | ClientError::Closed { .. } => Ok(()),
        error => Err(error.into()),
    }
}

fn send_request(name: &str, topic: usize, queue: i32, identity: Identity) -> Command {
    let key = identity.key();
    let properties = format!("KEYS\u{1}{key}\u{2}UNIQ_KEY\u{1}U{key}\u{2}WAIT\u{1}true");
    let header = SendMessageRequestHeaderV2 {
        producer_group: "killed_producers",
        topic: name,
        default_topic: "TBW102",
        default_topic_queue_nums: QUEUE_COUNT,
        queue_id: queue,
        born_timestamp: 1_700_000_000_000,
        properties: Some(&properties),
        ..Default::default()
    };
    Command::request(RequestCode::SEND_MESSAGE_V2)
        .with_header(&header)
        .with_body(identity.body(topic, queue as u8))
}

//! Everything that a broker serves, read like a consumer that begins at the beginning.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use client::{ClientError, ClientOptions, PullConsumer, Queue, Received, StartAt};
use remoting::header::{
    GetMaxOffsetRequestHeader, OffsetResponseHeader, QueryMessageRequestHeader,
};
use remoting::{Command, RequestCode, ResponseCode};

use super::workload::{Identity, Place, TOPICS, identify, key_of, place_of};

/// The group that reads everything; it never commits.
const READER: &str = "fault_reader";
/// How long all queues of a topic may take to be read.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// How many messages a query by key may return.
const QUERY_COUNT_MAX: i32 = 64;

/// All messages, by their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) messages: BTreeMap<Place, Identity>,
}

impl Found {
    /// Reads all topics from the beginning to the end that the broker says they have, and checks
    /// that each queue is complete: every offset once, every body as it was sent.
    pub(super) fn read(options: &ClientOptions, seed: u64) -> Result<Self> {
        let mut found = Self::default();
        for topic in TOPICS {
            found.read_topic(options, seed, topic)?;
        }
        Ok(found)
    }

    fn read_topic(
        &mut self,
        options: &ClientOptions,
        seed: u64,
        topic: &'static str,
    ) -> Result<()> {
        let made = PullConsumer::new(options.clone(), READER, topic, StartAt::Earliest);
        let mut consumer = match made {
            Ok(consumer) => consumer,
            // Nobody has sent to it yet, or its creation was not acknowledged.
            Err(ClientError::NoQueue { .. }) => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("read {topic}")),
        };
        let queues: Vec<_> = consumer
            .offsets()
            .map(|(queue, offset)| (queue.clone(), offset))
            .collect();
        let mut ends = BTreeMap::new();
        let mut next = BTreeMap::new();
        for (queue, begin) in queues {
            // Nothing is old enough to be deleted.
            ensure!(
                begin == 0,
                "{topic}, queue {}: begins at offset {begin}",
                queue.id
            );
            ends.insert(queue.id, max_offset(&mut consumer, topic, &queue)?);
            next.insert(queue.id, begin);
        }
        let deadline = Instant::now() + READ_LIMIT;
        while ends.iter().any(|(queue, end)| next[queue] < *end) {
            if Instant::now() >= deadline {
                bail!("{topic}: its queues end at {ends:?}, but reading stops at {next:?}");
            }
            let polled = consumer.poll(Duration::from_millis(200));
            for message in polled.with_context(|| format!("read {topic} at {next:?}"))? {
                self.take(seed, &message, &mut next)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, seed: u64, message: &Received, next: &mut BTreeMap<i32, i64>) -> Result<()> {
        let place = place_of(message)?;
        let expected = next.entry(place.queue).or_default();
        ensure!(
            place.offset == *expected,
            "a gap in a queue: {place:?} came where offset {expected} was due"
        );
        *expected += 1;
        let identity = identify(seed, &message.body).with_context(|| format!("{place:?}"))?;
        self.messages.insert(place, identity);
        Ok(())
    }
}

fn max_offset(consumer: &mut PullConsumer, topic: &str, queue: &Queue) -> Result<i64> {
    let header = GetMaxOffsetRequestHeader {
        topic,
        queue_id: queue.id,
        committed: true,
    };
    let request = Command::request(RequestCode::GET_MAX_OFFSET).with_header(&header);
    let answer = consumer
        .client()
        .call_checked(&queue.broker_address, request)?;
    let header: OffsetResponseHeader = answer.header()?;
    Ok(header.offset)
}

/// Whether a query by its key finds the message.
pub(super) fn has_key(
    connection: &mut client::Connection,
    seed: u64,
    topic: &str,
    identity: Identity,
) -> Result<bool> {
    let key = key_of(identity);
    let header = QueryMessageRequestHeader {
        topic,
        key: &key,
        max_num: QUERY_COUNT_MAX,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        unique_key_query: None,
    };
    let answer = connection
        .call(Command::request(RequestCode::QUERY_MESSAGE).with_header(&header))
        .with_context(|| format!("query for {key}"))?;
    match answer.response_code() {
        ResponseCode::SUCCESS => {}
        ResponseCode::QUERY_NOT_FOUND => return Ok(false),
        code => bail!(
            "query for {key}: {code} {}",
            answer.remark.unwrap_or_default()
        ),
    }
    let messages = Received::read_all(connection.address(), &answer.body)?;
    Ok(messages
        .iter()
        .any(|message| identify(seed, &message.body).is_ok_and(|found| found == identity)))
}

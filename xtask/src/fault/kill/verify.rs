//! What a broker that has started again must still answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use client::Connection;
use message::{Parsed, RecordView};
use mmap_core::Random;
use remoting::header::{
    OffsetResponseHeader, PullMessageRequestHeader, PullMessageResponseHeader,
    QueryConsumerOffsetRequestHeader, QueryMessageRequestHeader, pull_flag,
};
use remoting::{Command, RequestCode, ResponseCode};

use super::ledger::{Ledger, Place, QUEUE_COUNT};
use super::load::GROUP;
use super::message::Identity;

/// As long as an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests that are under way at a time.
const WINDOW: usize = 64;
/// Messages that a pull asks for.
const PULL_COUNT: i32 = 256;
/// Places read again, and keys asked for, of messages that were checked before.
const SAMPLE: usize = 8;
/// Keys asked for of the messages that were last in the log when the broker died.
const NEWEST: usize = 24;

/// Asks a broker.
#[derive(Debug)]
pub struct Verifier<'a> {
    connection: Connection,
    ledger: &'a mut Ledger,
}

/// An answered pull.
#[derive(Debug)]
struct Pulled {
    code: ResponseCode,
    min_offset: i64,
    max_offset: i64,
    messages: Vec<(i64, Identity)>,
}

impl<'a> Verifier<'a> {
    /// Connects to the broker.
    pub fn new(broker: &str, ledger: &'a mut Ledger) -> Result<Self> {
        let connection = Connection::connect(broker, PATIENCE)?;
        Ok(Self { connection, ledger })
    }

    /// Everything since the last check, a sample of what is older, the group's offsets.
    pub fn check(&mut self, random: &mut Random) -> Result<()> {
        let new = self.read_on()?;
        let newest = new.iter().rev().take(NEWEST).copied();
        let old = self.sample(random);
        let asked: Vec<_> = newest.chain(old.iter().copied()).collect();
        self.check_keys(&asked)?;
        self.check_places(&old)?;
        self.check_offsets()
    }

    /// Every message and every key from the beginning.
    pub fn check_all(&mut self) -> Result<()> {
        self.read_on()?;
        for topic in 0..self.ledger.topics().len() {
            for queue in 0..QUEUE_COUNT {
                let places: Vec<_> = (0..self.ledger.read_to(topic, queue))
                    .map(|offset| Place {
                        topic,
                        queue,
                        offset,
                    })
                    .collect();
                let every_pull: Vec<_> = places
                    .iter()
                    .step_by(PULL_COUNT as usize)
                    .copied()
                    .collect();
                self.check_places(&every_pull)?;
                self.check_keys(&places)?;
            }
        }
        self.check_offsets()
    }

    /// Reads all queues from where they were read before to their ends.
    fn read_on(&mut self) -> Result<Vec<Place>> {
        let topics = 0..self.ledger.topics().len();
        let mut open: Vec<_> = topics
            .flat_map(|topic| (0..QUEUE_COUNT).map(move |queue| (topic, queue)))
            .collect();
        let mut found = Vec::new();
        while !open.is_empty() {
            let starts: Vec<_> = open
                .iter()
                .map(|&(topic, queue)| Place {
                    topic,
                    queue,
                    offset: self.ledger.read_to(topic, queue),
                })
                .collect();
            let answers = self.pull(&starts)?;
            open.clear();
            for (start, pulled) in starts.into_iter().zip(answers) {
                if self.take(start, &pulled, &mut found)? {
                    open.push((start.topic, start.queue));
                }
            }
        }
        self.ledger.check_order()?;
        Ok(found)
    }

    /// Notes what a pull from the end of what was read has brought; whether there may be more.
    fn take(&mut self, start: Place, pulled: &Pulled, found: &mut Vec<Place>) -> Result<bool> {
        let Place { topic, queue, .. } = start;
        if pulled.code == ResponseCode::TOPIC_NOT_EXIST {
            ensure!(!self.ledger.is_used(topic), "topic {topic} is forgotten");
            return Ok(false);
        }
        for &(offset, identity) in &pulled.messages {
            let place = Place {
                topic,
                queue,
                offset,
            };
            self.ledger.read(place, identity)?;
            found.push(place);
        }
        let end = self.ledger.read_to(topic, queue);
        ensure!(
            pulled.min_offset <= 0 && end <= pulled.max_offset,
            "topic {topic}, queue {queue} is said to go from {} to {}, and was read to {end}",
            pulled.min_offset,
            pulled.max_offset
        );
        if !pulled.messages.is_empty() {
            return Ok(true);
        }
        ensure!(
            end == pulled.max_offset,
            "topic {topic}, queue {queue} gives nothing at {end} of {}: {}",
            pulled.max_offset,
            pulled.code
        );
        self.ledger.check_end(topic, queue)?;
        Ok(false)
    }

    /// Some places that were read before.
    fn sample(&mut self, random: &mut Random) -> Vec<Place> {
        let mut places = Vec::new();
        for _ in 0..SAMPLE {
            let topic = random.below(self.ledger.topics().len() as u64) as usize;
            let queue = random.below(QUEUE_COUNT as u64) as i32;
            let end = self.ledger.read_to(topic, queue);
            if end > 0 {
                let offset = random.below(end as u64) as i64;
                places.push(Place {
                    topic,
                    queue,
                    offset,
                });
            }
        }
        places
    }

    /// What is pulled from these places is what was read there before.
    fn check_places(&mut self, places: &[Place]) -> Result<()> {
        let answers = self.pull(places)?;
        for (place, pulled) in places.iter().zip(answers) {
            let first = pulled.messages.first().map(|(offset, _)| *offset);
            ensure!(
                first == Some(place.offset),
                "{place:?} gives {first:?}: {}",
                pulled.code
            );
            for (offset, identity) in pulled.messages {
                let place = Place { offset, ..*place };
                let known = self.ledger.at(place);
                ensure!(
                    known == Some(identity),
                    "{place:?} has {identity:?}, and had {known:?}"
                );
            }
        }
        Ok(())
    }

    /// Each of these messages is found by its key, and no other.
    fn check_keys(&mut self, places: &[Place]) -> Result<()> {
        let mut requests = Vec::new();
        for place in places {
            let identity = self.ledger.at(*place).context("an unread place")?;
            let topic = self.ledger.topics().get(place.topic).context("no topic")?;
            let header = QueryMessageRequestHeader {
                topic: &topic.name,
                key: &identity.key(),
                max_num: 8,
                begin_timestamp: 0,
                end_timestamp: i64::MAX,
                unique_key_query: None,
            };
            requests.push(Command::request(RequestCode::QUERY_MESSAGE).with_header(&header));
        }
        let answers = self.ask(requests)?;
        for (place, answer) in places.iter().zip(answers) {
            let identity = self.ledger.at(*place);
            let found = messages_in(&answer.body, place.topic)?;
            ensure!(
                found.len() == 1 && found.first().map(|(_, found)| *found) == identity,
                "the key of {identity:?} at {place:?} finds {found:?}: {} {:?}",
                answer.response_code(),
                answer.remark
            );
        }
        Ok(())
    }

    /// The group's offsets are between what must be kept and what was sent.
    fn check_offsets(&mut self) -> Result<()> {
        let queues: Vec<_> = self.ledger.commits().keys().copied().collect();
        let mut requests = Vec::new();
        for (topic, queue_id) in &queues {
            let topic = self.ledger.topics().get(*topic).context("no topic")?;
            let header = QueryConsumerOffsetRequestHeader {
                consumer_group: GROUP,
                topic: &topic.name,
                queue_id: *queue_id,
                set_zero_if_not_found: Some(false),
            };
            let code = RequestCode::QUERY_CONSUMER_OFFSET;
            requests.push(Command::request(code).with_header(&header));
        }
        let answers = self.ask(requests)?;
        for ((topic, queue), answer) in queues.into_iter().zip(answers) {
            let offset = match answer.response_code() {
                ResponseCode::SUCCESS => answer.header::<OffsetResponseHeader>()?.offset,
                ResponseCode::QUERY_NOT_FOUND => 0,
                code => bail!("asked for an offset: {code} {:?}", answer.remark),
            };
            let end = self.ledger.read_to(topic, queue);
            let commits = self.ledger.commits().entry((topic, queue)).or_default();
            ensure!(
                (commits.kept..=commits.sent).contains(&offset) && offset <= end,
                "the group is at {offset} of {end} in topic {topic}, queue {queue}: {commits:?}"
            );
            commits.kept = offset;
        }
        Ok(())
    }

    fn pull(&mut self, places: &[Place]) -> Result<Vec<Pulled>> {
        let mut requests = Vec::new();
        for place in places {
            let topic = self.ledger.topics().get(place.topic).context("no topic")?;
            let header = PullMessageRequestHeader {
                consumer_group: "verifiers",
                topic: &topic.name,
                queue_id: place.queue,
                queue_offset: place.offset,
                max_msg_nums: PULL_COUNT,
                sys_flag: pull_flag::SUBSCRIPTION,
                subscription: Some("*"),
                ..Default::default()
            };
            requests.push(Command::request(RequestCode::PULL_MESSAGE).with_header(&header));
        }
        let answers = self.ask(requests)?;
        let pairs = places.iter().zip(answers);
        pairs
            .map(|(place, answer)| Pulled::of(&answer, *place))
            .collect()
    }

    /// The answers to requests, in their order.
    fn ask(&mut self, requests: Vec<Command>) -> Result<Vec<Command>> {
        let count = requests.len();
        let mut requests = requests.into_iter().enumerate();
        let mut under_way = BTreeMap::new();
        let mut answers = BTreeMap::new();
        while answers.len() < count {
            while under_way.len() < WINDOW
                && let Some((index, request)) = requests.next()
            {
                under_way.insert(self.connection.send(request)?, index);
            }
            let answer = self
                .connection
                .receive(Instant::now() + PATIENCE)?
                .with_context(|| format!("no answer within {PATIENCE:?}"))?;
            let index = under_way.remove(&answer.opaque).context("a stray answer")?;
            answers.insert(index, answer);
        }
        Ok(answers.into_values().collect())
    }
}

impl Pulled {
    fn of(answer: &Command, place: Place) -> Result<Self> {
        let code = answer.response_code();
        let header: PullMessageResponseHeader = answer.header()?;
        let messages = messages_in(&answer.body, place.topic)
            .with_context(|| format!("pulled from {place:?}"))?;
        for (expected, (offset, _)) in (place.offset..).zip(&messages) {
            ensure!(
                *offset == expected,
                "pulled {offset} instead of {expected} from {place:?}"
            );
        }
        Ok(Self {
            code,
            min_offset: header.min_offset,
            max_offset: header.max_offset,
            messages,
        })
    }
}

/// Queue offset and identity of each record in an answer, all of one topic.
fn messages_in(body: &[u8], topic: usize) -> Result<Vec<(i64, Identity)>> {
    let mut messages = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let Parsed::Record(record) = RecordView::parse(rest)? else {
            bail!("a blank record in an answer");
        };
        let offset = record.queue_offset();
        let identity = Identity::of_body(record.body(), topic, record.queue_id())
            .with_context(|| format!("topic {topic}, queue {}, {offset}", record.queue_id()))?;
        record.verify_body_crc()?;
        messages.push((offset, identity));
        rest = rest.get(record.total_size()..).unwrap_or_default();
    }
    Ok(messages)
}

/// The group's offsets as `consumerOffset.json` in `store` has them, by topic name and queue;
/// none if there is no such file yet.
pub fn saved_offsets(store: &Path) -> Result<BTreeMap<(String, i32), i64>> {
    let path = store.join("config/consumerOffset.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).context(path.display().to_string()),
    };
    offsets_in(&text).with_context(|| format!("{} is torn:\n{text}", path.display()))
}

/// Reads `"topic@group":{0:5,1:7}`, whose numbers as names are no JSON.
fn offsets_in(text: &str) -> Option<BTreeMap<(String, i32), i64>> {
    let mut offsets = BTreeMap::new();
    text.trim_end().strip_suffix('}')?;
    let needle = format!("@{GROUP}\"");
    let mut rest = text;
    while let Some(at) = rest.find(&needle) {
        let topic = rest.get(..at)?.rsplit('"').next()?.to_owned();
        rest = rest.get(at + needle.len()..)?;
        let (_, table) = rest.split_once('{')?;
        let (table, behind) = table.split_once('}')?;
        for entry in table.split(',').filter(|entry| !entry.trim().is_empty()) {
            let (queue, offset) = entry.split_once(':')?;
            let queue = queue.trim().trim_matches('"').parse().ok()?;
            offsets.insert((topic.clone(), queue), offset.trim().parse().ok()?);
        }
        rest = behind;
    }
    Some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_offsets_are_read() {
        let text = "{\n\t\"offsetTable\":{\n\t\t\"T0@killed\":{0:2,3:40\n\t\t},\n\t\t\
                    \"T1@other\":{0:9},\"T2@killed\":{}\n\t}\n}";
        let offsets = offsets_in(text).unwrap_or_default();
        let expected = [(("T0".to_owned(), 0), 2), (("T0".to_owned(), 3), 40)];
        assert_eq!(offsets, BTreeMap::from(expected));
        assert!(offsets_in("{\"offsetTable\":{\"T0@killed\":{0:2").is_none());
    }
}

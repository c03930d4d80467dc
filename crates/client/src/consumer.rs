//! Reading a topic.

use std::time::{Duration, Instant};

use remoting::body::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use remoting::header::{
    GetMaxOffsetRequestHeader, GetMinOffsetRequestHeader, OffsetResponseHeader,
    PullMessageRequestHeader, PullMessageResponseHeader, QueryConsumerOffsetRequestHeader,
    UpdateConsumerOffsetRequestHeader, pull_flag,
};
use remoting::{Command, RequestCode, ResponseCode};

use crate::error::ClientError;
use crate::received::Received;
use crate::requests::{Client, ClientOptions, header_of, refusal};
use crate::route::Queue;

/// How long a broker may hold a pull for which there is nothing, as RocketMQ's push consumer
/// has it. (Java's broker looks every 5 s and so takes up to 5 s longer.)
const HOLD_TIME: Duration = Duration::from_secs(15);
/// Beyond [`HOLD_TIME`] an answer is overdue after this.
const HOLD_GRACE: Duration = Duration::from_secs(15);
/// How many messages a pull asks for, RocketMQ's default and limit.
const PULL_COUNT: i32 = 32;
/// How long one of several brokers is listened to before the next has its turn.
const TURN_TIME: Duration = Duration::from_millis(20);

/// Where a consumer begins in a queue of which its group has no offset yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest message that is there.
    Earliest,
    /// With the next one that comes.
    Latest,
}

/// Reads all queues of one topic. A pull to every queue is always under way, so a message comes as
/// soon as its broker has it.
#[derive(Debug)]
pub struct PullConsumer {
    client: Client,
    group: String,
    topic: String,
    addresses: Vec<String>,
    cursors: Vec<Cursor>,
    membership: HeartbeatData,
    /// Messages that came and were not handed out yet.
    ready: Vec<Received>,
}

/// How far a queue has been read.
#[derive(Debug)]
struct Cursor {
    queue: Queue,
    next_offset: i64,
    committed_offset: i64,
    pull: Option<Pull>,
}

/// A pull that is under way.
#[derive(Clone, Copy, Debug)]
struct Pull {
    opaque: i32,
    overdue: Instant,
}

impl PullConsumer {
    /// A consumer of the topic for a group, at the offsets that the group has committed.
    ///
    /// # Errors
    /// The topic has no queues to read from, or a broker does not answer.
    pub fn new(
        options: ClientOptions,
        group: &str,
        topic: &str,
        start_at: StartAt,
    ) -> Result<Self, ClientError> {
        let mut client = Client::new(options);
        let queues = client.route(topic)?.unwrap_or_default().read_queues();
        if queues.is_empty() {
            return Err(ClientError::NoQueue {
                topic: topic.to_owned(),
                purpose: "read from",
                name_server: client.name_servers(),
            });
        }
        let mut consumer = Self {
            client,
            group: group.to_owned(),
            topic: topic.to_owned(),
            addresses: Queue::addresses(&queues),
            cursors: Vec::new(),
            membership: membership(group, topic),
            ready: Vec::new(),
        };
        consumer.heartbeat()?;
        for queue in queues {
            let next_offset = consumer.start_offset(&queue, start_at)?;
            let committed_offset = next_offset;
            consumer.cursors.push(Cursor {
                queue,
                next_offset,
                committed_offset,
                pull: None,
            });
        }
        Ok(consumer)
    }

    /// Messages that came; none, if there are none within `timeout`.
    ///
    /// # Errors
    /// A broker that refuses a pull, is gone, or does not answer in time. Messages that came
    /// before are had by polling again.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<Received>, ClientError> {
        let deadline = Instant::now() + timeout;
        loop {
            self.heartbeat()?;
            self.send_pulls()?;
            for address in self.addresses.clone() {
                self.receive(&address, deadline)?;
            }
            if !self.ready.is_empty() || Instant::now() >= deadline {
                return Ok(std::mem::take(&mut self.ready));
            }
            self.check_overdue()?;
        }
    }

    /// Tells the brokers how far this group has read: all that [`PullConsumer::poll`] gave.
    ///
    /// # Errors
    /// A broker refuses, or does not answer in time.
    pub fn commit(&mut self) -> Result<(), ClientError> {
        let Self {
            client,
            group,
            topic,
            cursors,
            ..
        } = self;
        for cursor in cursors
            .iter_mut()
            .filter(|cursor| cursor.next_offset != cursor.committed_offset)
        {
            let header = UpdateConsumerOffsetRequestHeader {
                consumer_group: group,
                topic,
                queue_id: cursor.queue.id,
                commit_offset: cursor.next_offset,
            };
            let request =
                Command::request(RequestCode::UPDATE_CONSUMER_OFFSET).with_header(&header);
            client.call_checked(&cursor.queue.broker_address, request)?;
            cursor.committed_offset = cursor.next_offset;
        }
        Ok(())
    }

    /// The offset that the next message of each queue will have.
    pub fn offsets(&self) -> impl Iterator<Item = (&Queue, i64)> {
        self.cursors
            .iter()
            .map(|cursor| (&cursor.queue, cursor.next_offset))
    }

    /// The client underneath, for other requests.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    fn heartbeat(&mut self) -> Result<(), ClientError> {
        self.client.heartbeat(&self.addresses, &self.membership)
    }

    /// The offset that the group committed, or where to start without.
    fn start_offset(&mut self, queue: &Queue, start_at: StartAt) -> Result<i64, ClientError> {
        let (topic, queue_id) = (self.topic.as_str(), queue.id);
        let code = RequestCode::QUERY_CONSUMER_OFFSET;
        let request = Command::request(code).with_header(&QueryConsumerOffsetRequestHeader {
            consumer_group: &self.group,
            topic,
            queue_id,
            set_zero_if_not_found: Some(false),
        });
        let address = &queue.broker_address;
        let answer = self.client.call(address, request)?;
        let answer = match (answer.response_code(), start_at) {
            (ResponseCode::SUCCESS, _) => answer,
            (ResponseCode::QUERY_NOT_FOUND, StartAt::Earliest) => {
                let header = GetMinOffsetRequestHeader { topic, queue_id };
                let request = Command::request(RequestCode::GET_MIN_OFFSET).with_header(&header);
                self.client.call_checked(address, request)?
            }
            (ResponseCode::QUERY_NOT_FOUND, StartAt::Latest) => {
                let header = GetMaxOffsetRequestHeader {
                    topic,
                    queue_id,
                    committed: true,
                };
                let request = Command::request(RequestCode::GET_MAX_OFFSET).with_header(&header);
                self.client.call_checked(address, request)?
            }
            _ => return Err(refusal(address, code, &answer)),
        };
        let header: OffsetResponseHeader = header_of(address, &answer)?;
        Ok(header.offset)
    }

    /// Sends a pull to each queue that has none under way.
    fn send_pulls(&mut self) -> Result<(), ClientError> {
        let Self {
            client,
            group,
            topic,
            cursors,
            ..
        } = self;
        for cursor in cursors.iter_mut().filter(|cursor| cursor.pull.is_none()) {
            let header = PullMessageRequestHeader {
                consumer_group: group,
                topic,
                queue_id: cursor.queue.id,
                queue_offset: cursor.next_offset,
                max_msg_nums: PULL_COUNT,
                sys_flag: pull_flag::SUSPEND | pull_flag::SUBSCRIPTION,
                suspend_timeout_millis: HOLD_TIME.as_millis() as i64,
                subscription: Some("*"),
                expression_type: Some("TAG"),
                ..PullMessageRequestHeader::default()
            };
            let request = Command::request(RequestCode::PULL_MESSAGE).with_header(&header);
            let address = &cursor.queue.broker_address;
            let opaque = client.with_connection(address, |connection| connection.send(request))?;
            let overdue = Instant::now() + HOLD_TIME + HOLD_GRACE;
            cursor.pull = Some(Pull { opaque, overdue });
        }
        Ok(())
    }

    /// Takes the answers of one broker: the first that comes in this broker's turn, and all
    /// that are there behind it.
    fn receive(&mut self, address: &str, deadline: Instant) -> Result<(), ClientError> {
        let now = Instant::now();
        let is_alone = self.addresses.len() == 1;
        let mut until = if is_alone {
            deadline
        } else {
            deadline.min(now + TURN_TIME)
        };
        loop {
            let outcome = self
                .client
                .with_connection(address, |connection| connection.receive(until));
            match outcome {
                Ok(Some(answer)) => self.accept(address, &answer)?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.forget_pulls(address);
                    return Err(error);
                }
            }
            // A fresh pull for the queue that answered waits for the next round.
            until = now;
        }
    }

    fn accept(&mut self, address: &str, answer: &Command) -> Result<(), ClientError> {
        let is_asked = |cursor: &&mut Cursor| {
            let opaque = cursor.pull.map(|pull| pull.opaque);
            cursor.queue.broker_address == address && opaque == Some(answer.opaque)
        };
        let Some(cursor) = self.cursors.iter_mut().find(is_asked) else {
            return Ok(()); // an answer that was given up
        };
        cursor.pull = None;
        let messages = match answer.response_code() {
            ResponseCode::SUCCESS => Received::read_all(address, &answer.body)?,
            ResponseCode::PULL_NOT_FOUND
            | ResponseCode::PULL_RETRY_IMMEDIATELY
            | ResponseCode::PULL_OFFSET_MOVED => Vec::new(),
            _ => return Err(refusal(address, RequestCode::PULL_MESSAGE, answer)),
        };
        let header: PullMessageResponseHeader = header_of(address, answer)?;
        cursor.next_offset = header.next_begin_offset;
        self.ready.extend(messages);
        Ok(())
    }

    /// The connection is gone, and with it the pulls under way on it.
    fn forget_pulls(&mut self, address: &str) {
        for cursor in &mut self.cursors {
            if cursor.queue.broker_address == address {
                cursor.pull = None;
            }
        }
    }

    fn check_overdue(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        let is_overdue = |cursor: &&mut Cursor| cursor.pull.is_some_and(|pull| pull.overdue <= now);
        let Some(cursor) = self.cursors.iter_mut().find(is_overdue) else {
            return Ok(());
        };
        cursor.pull = None;
        Err(ClientError::TimedOut {
            address: cursor.queue.broker_address.clone(),
            request: RequestCode::PULL_MESSAGE,
            timeout: HOLD_TIME + HOLD_GRACE,
        })
    }
}

/// The heartbeat of a consumer of one topic.
fn membership(group: &str, topic: &str) -> HeartbeatData {
    let subscription = SubscriptionData {
        topic: topic.to_owned(),
        sub_string: "*".to_owned(),
        ..SubscriptionData::default()
    };
    let consumer = ConsumerData {
        group_name: group.to_owned(),
        consume_type: Some(ConsumeType::Actively),
        message_model: Some(MessageModel::Clustering),
        consume_from_where: Some(ConsumeFromWhere::FirstOffset),
        subscription_data_set: vec![subscription],
        unit_mode: false,
    };
    HeartbeatData {
        consumer_data_set: vec![consumer],
        ..HeartbeatData::default()
    }
}

//! Sending messages.

use std::collections::HashMap;

use message::names::{property, topic as topics};
use message::{
    BatchMessage, EncodeError, IdText, PropertiesBuilder, UniqueKeyGenerator, UniqueKeySource,
    encode_batch_message,
};
use remoting::body::{HeartbeatData, ProducerData};
use remoting::header::{SendMessageRequestHeaderV2, SendMessageResponseHeader};
use remoting::{Command, RequestCode, ResponseCode};

use crate::error::ClientError;
use crate::requests::{Client, ClientOptions, header_of, refusal};
use crate::route::Queue;

/// Queues that a topic gets which is created by sending to it, unless the broker has fewer.
const DEFAULT_QUEUE_COUNT: i32 = 4;

/// Sends messages to any topics, to their queues in turn.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    group: String,
    unique_keys: Option<UniqueKeyGenerator>,
    queues: HashMap<String, Vec<Queue>>,
    turn: usize,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The body, sent as it is.
    pub body: &'a [u8],
    /// The tag that subscriptions select by.
    pub tag: Option<&'a str>,
    /// Keys to find it by; none may contain a space.
    pub keys: &'a [&'a str],
    /// Properties of the user.
    pub properties: &'a [(&'a str, &'a str)],
    /// The user's flag.
    pub flag: i32,
}

/// What became of a message that a broker took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// How safe it is.
    pub status: SendStatus,
    /// The id that names its place in the broker's log; of a batch, all of them, with commas.
    pub offset_message_id: String,
    /// The unique key that it was given; of a batch, its first message's.
    pub unique_key: String,
    /// The queue it is in.
    pub queue: Queue,
    /// Its place in the queue; of a batch, its first message's.
    pub queue_offset: i64,
}

/// How safe a message is that a broker took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendStatus {
    /// As safe as the broker was told to make it.
    Stored,
    /// Stored, but not flushed to disk in time.
    FlushDiskTimeout,
    /// Stored, but not replicated in time.
    FlushSlaveTimeout,
    /// Stored, but there is no replica.
    SlaveNotAvailable,
}

impl Producer {
    /// A producer of this group; it connects when it sends.
    pub fn new(options: ClientOptions, group: &str) -> Self {
        Self {
            client: Client::new(options),
            group: group.to_owned(),
            unique_keys: None,
            queues: HashMap::new(),
            turn: 0,
        }
    }

    /// Sends a message, and waits until the broker has it.
    ///
    /// # Errors
    /// The message cannot be sent, or was refused. After any other error it may be stored.
    pub fn send(&mut self, topic: &str, message: &Outgoing<'_>) -> Result<Receipt, ClientError> {
        let queue = self.next_queue(topic)?;
        let (properties, unique_key) = self.properties_of(&queue, message)?;
        let request = Parcel {
            body: message.body,
            properties: &properties,
            flag: message.flag,
        };
        self.exchange(
            topic,
            queue,
            RequestCode::SEND_MESSAGE_V2,
            &request,
            unique_key,
        )
    }

    /// Sends messages as one, all to one queue; they are stored all or none.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub fn send_batch(
        &mut self,
        topic: &str,
        messages: &[Outgoing<'_>],
    ) -> Result<Receipt, ClientError> {
        let queue = self.next_queue(topic)?;
        let mut body = Vec::new();
        let mut first_key = None;
        for message in messages {
            let (properties, unique_key) = self.properties_of(&queue, message)?;
            let Outgoing {
                body: inner_body,
                flag,
                ..
            } = *message;
            let inner = BatchMessage {
                flag,
                body: inner_body,
                properties: properties.as_bytes(),
            };
            encode_batch_message(&inner, &mut body)?;
            first_key.get_or_insert(unique_key);
        }
        let unique_key = first_key.ok_or(ClientError::EmptyBatch)?;
        let request = Parcel {
            body: &body,
            properties: "",
            flag: 0,
        };
        self.exchange(
            topic,
            queue,
            RequestCode::SEND_BATCH_MESSAGE,
            &request,
            unique_key,
        )
    }

    /// The client underneath, for other requests.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    fn exchange(
        &mut self,
        topic: &str,
        queue: Queue,
        code: RequestCode,
        parcel: &Parcel<'_>,
        unique_key: IdText,
    ) -> Result<Receipt, ClientError> {
        self.heartbeat(topic)?;
        let header = SendMessageRequestHeaderV2 {
            producer_group: &self.group,
            topic,
            default_topic: topics::AUTO_CREATE,
            default_topic_queue_nums: DEFAULT_QUEUE_COUNT,
            queue_id: queue.id,
            sys_flag: 0,
            born_timestamp: now_ms(),
            flag: parcel.flag,
            properties: Some(parcel.properties),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(code == RequestCode::SEND_BATCH_MESSAGE),
            broker_name: Some(&queue.broker_name),
        };
        let request = Command::request(code)
            .with_header(&header)
            .with_body(parcel.body.to_vec());
        let outcome = self
            .client
            .call(&queue.broker_address, request)
            .and_then(|answer| {
                let status = SendStatus::of(answer.response_code());
                let refused = || refusal(&queue.broker_address, code, &answer);
                Ok((status.ok_or_else(refused)?, answer))
            });
        if outcome.is_err() {
            // The topic may be elsewhere now: the next message asks again.
            self.queues.remove(topic);
        }
        let (status, answer) = outcome?;
        let stored: SendMessageResponseHeader<'_> = header_of(&queue.broker_address, &answer)?;
        Ok(Receipt {
            status,
            offset_message_id: stored.msg_id.to_owned(),
            unique_key: unique_key.to_string(),
            queue_offset: stored.queue_offset,
            queue: Queue {
                id: stored.queue_id,
                ..queue
            },
        })
    }

    /// The topic's next queue in turn; for a topic that is not there yet, of the brokers that
    /// create topics.
    fn next_queue(&mut self, topic: &str) -> Result<Queue, ClientError> {
        if !self.queues.contains_key(topic) {
            let queues = self.find_queues(topic)?;
            self.queues.insert(topic.to_owned(), queues);
        }
        self.turn = self.turn.wrapping_add(1);
        let queues = self
            .queues
            .get(topic)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let queue = self
            .turn
            .checked_rem(queues.len())
            .and_then(|index| queues.get(index));
        queue.cloned().ok_or_else(|| ClientError::NoQueue {
            topic: topic.to_owned(),
            purpose: "write to",
            name_server: self.client.name_servers(),
        })
    }

    fn find_queues(&mut self, topic: &str) -> Result<Vec<Queue>, ClientError> {
        if let Some(route) = self.client.route(topic)? {
            return Ok(route.write_queues());
        }
        let route = self.client.route(topics::AUTO_CREATE)?.unwrap_or_default();
        let mut queues = route.write_queues();
        queues.retain(|queue| queue.id < DEFAULT_QUEUE_COUNT);
        Ok(queues)
    }

    /// The properties text, and the unique key in it.
    fn properties_of(
        &mut self,
        queue: &Queue,
        message: &Outgoing<'_>,
    ) -> Result<(String, IdText), ClientError> {
        let unique_key = self.next_unique_key(queue)?;
        let mut properties = PropertiesBuilder::new();
        for (name, value) in message.properties {
            properties.push(name, value)?;
        }
        properties.replace(property::UNIQUE_KEY, &unique_key)?;
        properties.replace(property::WAIT, "true")?;
        if let Some(tag) = message.tag {
            properties.replace(property::TAGS, tag)?;
        }
        if !message.keys.is_empty() {
            properties.replace(property::KEYS, &message.keys.join(" "))?;
        }
        let text = String::from_utf8(properties.finish());
        Ok((text.map_err(|_| EncodeError::PropertiesText)?, unique_key))
    }

    fn next_unique_key(&mut self, queue: &Queue) -> Result<IdText, ClientError> {
        if self.unique_keys.is_none() {
            let ip = self.client.connection(&queue.broker_address)?.local_ip()?;
            self.unique_keys = Some(UniqueKeyGenerator::new(UniqueKeySource {
                ip,
                process_id: std::process::id(),
                // Tells the producers of one process apart.
                discriminator: jiff::Timestamp::now().subsec_nanosecond() as u32,
                utc_offset_seconds: jiff::Zoned::now().offset().seconds(),
            }));
        }
        let key = self.unique_keys.as_ref().map(|keys| keys.next(now_ms()));
        Ok(key.unwrap_or_default())
    }

    fn heartbeat(&mut self, topic: &str) -> Result<(), ClientError> {
        let queues = self
            .queues
            .get(topic)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let membership = HeartbeatData {
            producer_data_set: vec![ProducerData {
                group_name: self.group.clone(),
            }],
            ..HeartbeatData::default()
        };
        self.client
            .heartbeat(&Queue::addresses(queues), &membership)
    }
}

impl SendStatus {
    /// `None` for answers that mean the message is not stored.
    fn of(code: ResponseCode) -> Option<Self> {
        match code {
            ResponseCode::SUCCESS => Some(Self::Stored),
            ResponseCode::FLUSH_DISK_TIMEOUT => Some(Self::FlushDiskTimeout),
            ResponseCode::FLUSH_SLAVE_TIMEOUT => Some(Self::FlushSlaveTimeout),
            ResponseCode::SLAVE_NOT_AVAILABLE => Some(Self::SlaveNotAvailable),
            _ => None,
        }
    }
}

/// What one send request carries.
struct Parcel<'a> {
    body: &'a [u8],
    properties: &'a str,
    flag: i32,
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

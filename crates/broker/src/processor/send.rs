//! Sends: one message, or a client's batch (requests 10, 310, 320).
//!
//! RocketMQ 5.3.3 `SendMessageProcessor`. The message goes from the receive buffer into the log;
//! nothing on the way is allocated but the properties that a broker adds.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll};

use message::names::{property, topic as topic_names};
use message::{IdText, Message, MessageId, Properties, PropertiesBuilder, SysFlag, Transaction};
use remoting::body::TopicConfig;
use remoting::header::{SendMessageRequestHeader, SendMessageResponseHeader, SendRegionHeader};
use remoting::{CommandView, RequestCode, ResponseCode};
use store::{AppendError, FlushError, PutError, PutTicket};

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::server::{Exchange, Pending, Reply};
use crate::state::table::Change;
use crate::state::topics;

/// `MQVersion` ordinal of 3.4.9: from here on a client's own retry limit counts.
pub(super) const V3_4_9: i32 = 121;

/// Properties that ask for what this broker does not do; RocketMQ's names.
const TIMER_PROPERTIES: [&str; 3] = [
    property::TIMER_DELAY_SEC,
    property::TIMER_DELAY_MS,
    property::TIMER_DELIVER_MS,
];

/// Properties that a broker sets itself, or takes away.
const BROKERS_PROPERTIES: [&str; 4] = [
    property::POP_CHECK_POINT,
    property::MESSAGE_REGION,
    property::TRACE_ON,
    property::CLUSTER,
];

thread_local! {
    /// The properties of the message that is being sent, with what the broker adds.
    static PROPERTIES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether a request is a send.
#[must_use]
pub fn is_send(code: RequestCode) -> bool {
    matches!(
        code,
        RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE
    )
}

/// Answers a send.
///
/// # Errors
/// The message is refused, with the reason.
pub fn send(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let outcome = SendMessageRequestHeader::from_view(request)
        .map_err(Refusal::from)
        .and_then(|header| store(broker, exchange, request, &header));
    outcome.or_else(|refusal| {
        broker.traffic.refused();
        Ok(exchange.write(
            refusal.code,
            Some(&refusal.remark),
            |writer| region(broker, writer),
            &[],
        ))
    })
}

fn region(broker: &Broker, writer: &mut remoting::HeaderWriter<'_>) {
    let identity = &broker.config.identity;
    writer.header(&SendRegionHeader {
        msg_region: &identity.region_id,
        trace_on: identity.trace,
    });
}

fn store(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
    header: &SendMessageRequestHeader<'_>,
) -> Outcome {
    let is_batch = header.batch == Some(true);
    let topic = topic_to_send_to(broker, header, is_batch)?;
    let queue_id = queue_of(&topic, header.queue_id, request.opaque())?;
    let sent = Properties::new(header.properties.unwrap_or_default().as_bytes());
    let traits = Traits::of(sent);
    traits.check(broker, header, is_batch)?;
    crate::burst::join(&broker.store);
    PROPERTIES.with_borrow_mut(|properties| {
        complete(broker, sent, &traits, properties);
        let message = message(broker, exchange, request, header, queue_id, properties);
        if is_batch {
            return store_batch(broker, exchange, &message, &traits);
        }
        match dead_letter_topic(broker, request, header)? {
            Some(topic) => store_dead(broker, exchange, &message, &topic, &traits),
            None => store_now_or_later(broker, exchange, &message, &traits),
        }
    })
}

/// Stores a message in its queue, or parks it until its delay is over.
fn store_now_or_later(
    broker: &Broker,
    exchange: &mut Exchange<'_>,
    message: &Message<'_>,
    traits: &Traits<'_>,
) -> Outcome {
    match traits.delay_level {
        Some(level) if level > 0 => {
            let parked = crate::schedule::park(broker, message, level)?;
            let later = Message {
                topic: topic_names::SCHEDULE,
                queue_id: parked.queue_id,
                properties: &parked.properties,
                ..*message
            };
            store_one(broker, exchange, &later, traits)
        }
        _ => store_one(broker, exchange, message, traits),
    }
}

/// Stores a message that was tried too often.
fn store_dead(
    broker: &Broker,
    exchange: &mut Exchange<'_>,
    message: &Message<'_>,
    topic: &str,
    traits: &Traits<'_>,
) -> Outcome {
    let mut properties = PropertiesBuilder::from(Properties::new(message.properties));
    properties
        .replace(property::DELAY, "-1")
        .map_err(Refusal::error)?;
    let properties = properties.finish();
    let dead = Message {
        topic,
        queue_id: 0,
        properties: &properties,
        ..*message
    };
    store_one(broker, exchange, &dead, traits)
}

/// A record of the request's body and header; everything else is the broker's.
fn message<'m>(
    broker: &Broker,
    exchange: &Exchange<'_>,
    request: &CommandView<'m>,
    header: &SendMessageRequestHeader<'m>,
    queue_id: i32,
    properties: &'m [u8],
) -> Message<'m> {
    Message {
        topic: header.topic,
        queue_id,
        flag: header.flag,
        sys_flag: SysFlag(header.sys_flag)
            .without(SysFlag::BORN_HOST_V6)
            .without(SysFlag::STORE_HOST_V6),
        born_timestamp_ms: header.born_timestamp,
        born_host: exchange.connection().peer(),
        store_host: broker.address,
        reconsume_times: header.reconsume_times.unwrap_or(0),
        prepared_transaction_offset: 0,
        body: request.body(),
        properties,
    }
}

fn store_one(
    broker: &Broker,
    exchange: &mut Exchange<'_>,
    message: &Message<'_>,
    traits: &Traits<'_>,
) -> Outcome {
    let appended = broker.store.put(message).map_err(refusal)?;
    broker.traffic.stored(1, message.body.len() as u64);
    let host = message.store_host;
    let id = MessageId {
        host,
        physical_offset: appended.physical_offset.cast_signed(),
    };
    let made_key = traits
        .unique_key
        .is_none()
        .then(|| unique_key_of(message.properties))
        .flatten();
    let answer = SendMessageResponseHeader {
        msg_id: &id.text(),
        queue_id: message.queue_id,
        queue_offset: appended.queue_offset,
        transaction_id: traits.unique_key.or(made_key),
        ..Default::default()
    };
    answer_when_durable(broker, exchange, &answer, appended.ticket, traits.waits)
}

fn store_batch(
    broker: &Broker,
    exchange: &mut Exchange<'_>,
    message: &Message<'_>,
    traits: &Traits<'_>,
) -> Outcome {
    let batch = broker.store.put_batch(message).map_err(refusal)?;
    let count = batch.physical_offsets.len();
    crate::burst::stored_batch(count);
    broker
        .traffic
        .stored(count as u64, message.body.len() as u64);
    let mut ids = String::with_capacity(count * (IdText::LEN_MAX + 1));
    let first = MessageId {
        host: message.store_host,
        physical_offset: batch.appended.physical_offset.cast_signed(),
    };
    let mut id = first.text();
    for offset in &batch.physical_offsets {
        if !ids.is_empty() {
            ids.push(',');
        }
        id.move_to(offset.cast_signed());
        ids.push_str(&id);
    }
    let answer = SendMessageResponseHeader {
        msg_id: &ids,
        queue_id: message.queue_id,
        queue_offset: batch.appended.queue_offset,
        transaction_id: traits.unique_key,
        ..Default::default()
    };
    answer_when_durable(
        broker,
        exchange,
        &answer,
        batch.appended.ticket,
        traits.waits,
    )
}

/// Answers at once, or when the ticket resolves.
fn answer_when_durable(
    broker: &Broker,
    exchange: &mut Exchange<'_>,
    answer: &SendMessageResponseHeader<'_>,
    ticket: PutTicket,
    waits: bool,
) -> Outcome {
    let outcome = if waits {
        ticket.try_ready().map(|ready| ready.map(drop))
    } else {
        Some(Ok(()))
    };
    match outcome {
        Some(outcome) => Ok(write_answer(broker, exchange, answer, outcome)),
        None => {
            let identity = &broker.config.identity;
            Ok(Reply::Later(Box::new(Stored {
                ticket,
                outcome: Ok(()),
                region_id: identity.region_id.clone(),
                trace: identity.trace,
                msg_id: answer.msg_id.to_owned(),
                queue_id: answer.queue_id,
                queue_offset: answer.queue_offset,
                transaction_id: answer.transaction_id.map(str::to_owned),
            })))
        }
    }
}

fn write_answer(
    broker: &Broker,
    exchange: &mut Exchange<'_>,
    answer: &SendMessageResponseHeader<'_>,
    outcome: Result<(), FlushError>,
) -> Reply {
    let (code, remark) = code_of(&outcome);
    let fields = |writer: &mut remoting::HeaderWriter<'_>| {
        writer.header(answer);
        region(broker, writer);
    };
    exchange.write(code, remark.as_deref(), fields, &[])
}

fn code_of(outcome: &Result<(), FlushError>) -> (ResponseCode, Option<String>) {
    match outcome {
        Ok(()) => (ResponseCode::SUCCESS, None),
        Err(error @ FlushError::Timeout { .. }) => {
            (ResponseCode::FLUSH_DISK_TIMEOUT, Some(error.to_string()))
        }
        Err(error) => (
            ResponseCode::SYSTEM_ERROR,
            Some(store::health::chain(error)),
        ),
    }
}

/// A stored message whose answer waits for the device.
struct Stored {
    ticket: PutTicket,
    outcome: Result<(), FlushError>,
    region_id: String,
    trace: bool,
    msg_id: String,
    queue_id: i32,
    queue_offset: i64,
    transaction_id: Option<String>,
}

impl Pending for Stored {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ticket = std::pin::Pin::new(&mut self.ticket);
        std::future::Future::poll(ticket, cx).map(|outcome| self.outcome = outcome.map(drop))
    }

    fn answer(self: Box<Self>, exchange: &mut Exchange<'_>) -> Reply {
        let answer = SendMessageResponseHeader {
            msg_id: &self.msg_id,
            queue_id: self.queue_id,
            queue_offset: self.queue_offset,
            transaction_id: self.transaction_id.as_deref(),
            ..Default::default()
        };
        let (code, remark) = code_of(&self.outcome);
        let fields = |writer: &mut remoting::HeaderWriter<'_>| {
            writer.header(&answer);
            writer.header(&SendRegionHeader {
                msg_region: &self.region_id,
                trace_on: self.trace,
            });
        };
        exchange.write(code, remark.as_deref(), fields, &[])
    }
}

/// The topic of a send: checked, found, or created after the client's template.
fn topic_to_send_to(
    broker: &Broker,
    header: &SendMessageRequestHeader<'_>,
    is_batch: bool,
) -> Result<Arc<TopicConfig>, Refusal> {
    let name = header.topic;
    if topics::is_send_forbidden(name) {
        let remark = format!("Sending message to topic[{name}] is forbidden.");
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    let found = match broker.topics.find(name) {
        Some(found) => found,
        None => {
            topics::check_name(name).map_err(|error| {
                Refusal::new(ResponseCode::INVALID_PARAMETER, error.to_string())
            })?;
            create_topic(broker, header)?
        }
    };
    if is_batch && name.starts_with(topic_names::RETRY_PREFIX) {
        let remark = "batch request does not support retry group";
        return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark));
    }
    Ok(found)
}

fn create_topic(
    broker: &Broker,
    header: &SendMessageRequestHeader<'_>,
) -> Result<Arc<TopicConfig>, Refusal> {
    let name = header.topic;
    let is_retry = name.starts_with(topic_names::RETRY_PREFIX);
    let made = if is_retry {
        let topic = || topics::topic(name, 1, topics::perm::READ_WRITE);
        Ok(broker.topics.find_or_create(name, topic))
    } else {
        topics::auto_create(
            &broker.topics,
            &broker.config,
            name,
            header.default_topic,
            header.default_topic_queue_nums,
            i32::from(header.unit_mode == Some(true)),
        )
    };
    let (topic, change) = made.map_err(|_not_created| {
        let remark = format!("topic[{name}] not exist, apply first please!");
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
    })?;
    if change == Change::Made {
        tracing::info!(
            topic = name,
            queues = topic.write_queue_nums,
            "topic created by a send"
        );
        broker.changes.topic_changed(name);
    }
    Ok(topic)
}

/// The queue asked for, or any when the client leaves it to the broker.
fn queue_of(topic: &TopicConfig, wanted: i32, any: i32) -> Result<i32, Refusal> {
    let limit = topic.read_queue_nums.max(topic.write_queue_nums);
    if wanted >= limit {
        let remark = format!("request queueId[{wanted}] is illegal, {topic:?}");
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    Ok(if wanted < 0 {
        any.rem_euclid(topic.write_queue_nums.max(1))
    } else {
        wanted
    })
}

/// What a message's properties ask for, found in one pass.
#[derive(Debug, Default)]
struct Traits<'a> {
    unique_key: Option<&'a str>,
    delay_level: Option<i32>,
    is_half: bool,
    is_timed: bool,
    /// Whether the answer waits until the message is durable.
    waits: bool,
    /// Whether a property is there that the broker sets itself.
    needs_rewrite: bool,
}

impl<'a> Traits<'a> {
    fn of(properties: Properties<'a>) -> Self {
        let mut traits = Self {
            waits: true,
            ..Self::default()
        };
        for (name, value) in properties.iter() {
            let is = |known: &str| name == known.as_bytes();
            let text = || std::str::from_utf8(value).unwrap_or_default();
            if is(property::UNIQUE_KEY) {
                traits.unique_key = Some(text());
            } else if is(property::WAIT) {
                traits.waits = !value.eq_ignore_ascii_case(b"false");
            } else if is(property::DELAY) {
                traits.delay_level = text().parse().ok();
            } else if is(property::TRANSACTION_PREPARED) {
                traits.is_half = value.eq_ignore_ascii_case(b"true");
            } else if BROKERS_PROPERTIES.into_iter().any(is) {
                traits.needs_rewrite = true;
            } else {
                traits.is_timed |= TIMER_PROPERTIES.into_iter().any(is);
            }
        }
        traits
    }

    /// Refuses what would have to be more than stored.
    fn check(
        &self,
        broker: &Broker,
        header: &SendMessageRequestHeader<'_>,
        is_batch: bool,
    ) -> Result<(), Refusal> {
        let has_transaction = SysFlag(header.sys_flag).transaction() != Transaction::None;
        if self.is_half || has_transaction {
            let host = broker.address.ip();
            let remark = format!(
                "the broker[{host}] sending transaction message is forbidden: not supported yet"
            );
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        let is_delayed = self.delay_level.is_some_and(|level| level > 0);
        if self.is_timed && !is_delayed {
            let remark = "accurate timer message is not enabled, timerWheelEnable is false: timer \
                          messages are not supported yet, delay levels are";
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
        if is_batch && is_delayed {
            let remark = "a batch cannot be delayed";
            return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark));
        }
        Ok(())
    }
}

/// The properties as stored: the client's, and what a broker adds.
fn complete(broker: &Broker, sent: Properties<'_>, traits: &Traits<'_>, out: &mut Vec<u8>) {
    out.clear();
    if traits.needs_rewrite {
        let mut kept = PropertiesBuilder::from(sent);
        kept.remove(property::POP_CHECK_POINT)
            .remove(property::MESSAGE_REGION)
            .remove(property::TRACE_ON)
            .remove(property::CLUSTER);
        out.extend_from_slice(&kept.finish());
    } else {
        out.extend_from_slice(sent.bytes());
        if out.last().is_some_and(|last| *last != 2) {
            out.push(2);
        }
    }
    let identity = &broker.config.identity;
    let mut add = |name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        out.push(1);
        out.extend_from_slice(value.as_bytes());
        out.push(2);
    };
    if traits.unique_key.is_none() {
        add(
            property::UNIQUE_KEY,
            &broker.unique_keys.next(crate::clock::now_ms()),
        );
    }
    add(property::MESSAGE_REGION, &identity.region_id);
    add(
        property::TRACE_ON,
        if identity.trace { "true" } else { "false" },
    );
    add(property::CLUSTER, &identity.cluster_name);
}

fn unique_key_of(properties: &[u8]) -> Option<&str> {
    Properties::new(properties).find(property::UNIQUE_KEY)
}

/// Where a message goes that a consumer sends to its group's retry topic by itself, if it was tried
/// too often, or its group consumes in order (`handleRetryAndDLQ`).
fn dead_letter_topic(
    broker: &Broker,
    request: &CommandView<'_>,
    header: &SendMessageRequestHeader<'_>,
) -> Result<Option<String>, Refusal> {
    let Some(group_name) = header.topic.strip_prefix(topic_names::RETRY_PREFIX) else {
        return Ok(None);
    };
    let group = broker.groups.find(group_name).ok_or_else(|| {
        let remark = format!("subscription group not exist, {group_name}");
        Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
    })?;
    let own_limit = header
        .max_reconsume_times
        .filter(|_| request.version() >= V3_4_9);
    let limit = own_limit.unwrap_or(group.retry_max_times);
    let is_orderly = broker
        .locks
        .is_group_locked(group_name, std::time::Instant::now());
    let is_dead = header.reconsume_times.unwrap_or(0) > limit || is_orderly;
    Ok(is_dead.then(|| super::send_back::dead_letter_topic(broker, group_name)))
}

/// RocketMQ's code for a message that was not stored, with the reason.
pub(super) fn refusal(error: PutError) -> Refusal {
    let code = match &error {
        PutError::Encode(_)
        | PutError::Batch(_)
        | PutError::QueueId { .. }
        | PutError::Unsupported { .. }
        | PutError::BatchQueues { .. }
        | PutError::Append(AppendError::TooLarge { .. } | AppendError::EmptyBatch) => {
            ResponseCode::MESSAGE_ILLEGAL
        }
        PutError::Append(AppendError::Busy { .. }) => ResponseCode::SYSTEM_BUSY,
        PutError::Append(
            AppendError::Full { .. } | AppendError::Failed(_) | AppendError::Closed,
        )
        | PutError::DiskFull { .. } => ResponseCode::SERVICE_NOT_AVAILABLE,
        _ => ResponseCode::SYSTEM_ERROR,
    };
    Refusal::new(code, store::health::chain(&error))
}

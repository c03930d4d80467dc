//! Messages that a consumer could not handle and sends back (request 36): retried after a delay,
//! and dead letters after too many tries.
//!
//! RocketMQ 5.3.3 `AbstractSendMessageProcessor.consumerSendMsgBack`.

use std::sync::Arc;

use message::names::{property, topic as topic_names};
use message::{Message, Parsed, PropertiesBuilder, RecordView};
use remoting::header::ConsumerSendMsgBackRequestHeader;
use remoting::{CommandView, ResponseCode};

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::server::Exchange;
use crate::state::groups;
use crate::state::table::Change;
use crate::state::topics::{self, perm};

/// A retry's delay begins at this level (10 s) and grows with each try.
const FIRST_RETRY_LEVEL: i32 = 3;

/// Stores the message again, for the group's retry topic or as a dead letter.
///
/// # Errors
/// The message or its group is not there, or it cannot be stored.
pub fn send_back(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: ConsumerSendMsgBackRequestHeader<'_> = request.header()?;
    let create = super::pull::auto_create(broker);
    let group = groups::find_or_create(&broker.groups, header.group, create).ok_or_else(|| {
        let remark = format!("subscription group not exist, {}", header.group);
        Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
    })?;
    if broker.config.identity.permission & perm::WRITE == 0 {
        let remark = format!(
            "the broker[{}] sending message is forbidden",
            broker.address.ip()
        );
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    if group.retry_queue_nums <= 0 {
        return Ok(exchange.ok());
    }
    let retry_topic = retry_topic(broker, header.group, group.retry_queue_nums)?;
    let record = match u64::try_from(header.offset) {
        Ok(at) => broker.store.record_at(at)?,
        Err(_) => None,
    };
    let record = record.ok_or_else(|| {
        Refusal::error(format!("look message by offset failed, {}", header.offset))
    })?;
    let Ok(Parsed::Record(view)) = RecordView::parse(&record) else {
        return Err(Refusal::error(format!(
            "look message by offset failed, {}",
            header.offset
        )));
    };
    let own_limit = header
        .max_reconsume_times
        .filter(|_| request.version() >= super::send::V3_4_9);
    let limit = own_limit.unwrap_or(group.retry_max_times);
    let is_dead = view.reconsume_times() >= limit || header.delay_level < 0;
    let level = match (is_dead, header.delay_level) {
        (true, _) => 0,
        (false, 0) => FIRST_RETRY_LEVEL + view.reconsume_times(),
        (false, level) => level,
    };
    let topic = if is_dead {
        dead_letter_topic(broker, header.group)
    } else {
        retry_topic
    };
    // Any of the retry queues will do; the offset spreads them.
    let queue_id = if is_dead {
        0
    } else {
        i32::try_from(header.offset % i64::from(group.retry_queue_nums)).unwrap_or(0)
    };
    put(broker, &view, &topic, queue_id, level)?;
    Ok(exchange.ok())
}

fn put(
    broker: &Broker,
    view: &RecordView<'_>,
    topic: &str,
    queue_id: i32,
    level: i32,
) -> Result<(), Refusal> {
    let properties = properties(view, level).map_err(Refusal::error)?;
    let mut message = Message {
        topic,
        queue_id,
        store_host: broker.address,
        reconsume_times: view.reconsume_times().saturating_add(1),
        properties: &properties,
        ..view.to_message()
    };
    let parked;
    if level > 0 {
        parked = crate::schedule::park(broker, &message, level)?;
        message.topic = topic_names::SCHEDULE;
        message.queue_id = parked.queue_id;
        message.properties = &parked.properties;
    }
    // Not waited for: the client asks again if it hears nothing (RocketMQ sets WAIT=false).
    broker.store.put(&message).map_err(super::send::refusal)?;
    broker.traffic.stored(1, view.body().len() as u64);
    Ok(())
}

fn properties(view: &RecordView<'_>, level: i32) -> Result<Vec<u8>, message::EncodeError> {
    let old = view.properties();
    let mut properties = PropertiesBuilder::from(old);
    if old.find(property::RETRY_TOPIC).is_none() {
        properties.push(property::RETRY_TOPIC, view.topic())?;
    }
    if old.find(property::ORIGIN_MESSAGE_ID).is_none() {
        properties.push(property::ORIGIN_MESSAGE_ID, &view.message_id().text())?;
    }
    properties.replace(property::WAIT, "false")?;
    properties.replace(property::DELAY, &level.to_string())?;
    Ok(properties.finish())
}

/// The group's retry topic, created where it is missing.
fn retry_topic(broker: &Broker, group: &str, queue_count: i32) -> Result<String, Refusal> {
    let name = format!("{}{group}", topic_names::RETRY_PREFIX);
    let config = ensure(broker, &name, queue_count);
    if config & perm::WRITE == 0 {
        let remark = format!("the topic[{name}] sending message is forbidden");
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    Ok(name)
}

/// The group's dead-letter topic, created where it is missing.
pub(super) fn dead_letter_topic(broker: &Broker, group: &str) -> String {
    let name = format!("{}{group}", topic_names::DLQ_PREFIX);
    ensure(broker, &name, 1);
    name
}

/// Creates a topic where it is missing; returns its permissions.
pub(super) fn ensure(broker: &Broker, name: &str, queue_count: i32) -> i32 {
    let make = || topics::topic(name, queue_count, perm::READ_WRITE);
    let (topic, change) = broker.topics.find_or_create(name, make);
    if change == Change::Made {
        broker.changes.topic_changed(name);
    }
    topic.perm
}

//! Offsets: those that groups commit (14, 15, 222), and those of queues (29 to 32).
//!
//! RocketMQ 5.3.3 `ConsumerManageProcessor`, `AdminBrokerProcessor`.

use std::sync::Arc;

use remoting::body::{MessageQueue, ResetOffsetBody};
use remoting::header::{
    GetEarliestMsgStoretimeRequestHeader, GetEarliestMsgStoretimeResponseHeader,
    GetMaxOffsetRequestHeader, GetMinOffsetRequestHeader, OffsetResponseHeader,
    QueryConsumerOffsetRequestHeader, ResetOffsetRequestHeader, SearchOffsetRequestHeader,
    UpdateConsumerOffsetRequestHeader,
};
use remoting::{CommandView, ResponseCode};
use store::Boundary;

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::server::Exchange;

/// What a search by time counts for among the bytes of cold reads.
const SEARCH_LEN: u64 = 64 * 1024;

/// Request 14: a group's offset; 0 for a new group on a queue that still has its beginning.
///
/// # Errors
/// There is none: the client then starts where it wants to.
pub fn query(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: QueryConsumerOffsetRequestHeader<'_> = request.header()?;
    let QueryConsumerOffsetRequestHeader {
        consumer_group,
        topic,
        queue_id,
        ..
    } = header;
    if let Some(offset) = broker.offsets.committed(consumer_group, topic, queue_id) {
        return Ok(exchange.header(&OffsetResponseHeader { offset }));
    }
    let min = broker.store.min_offset(topic, queue_id);
    let max = broker.store.max_offset(topic, queue_id).unwrap_or(0);
    // Java asks here whether message 0 is still in memory: a small queue is read from its start.
    let begins_at_zero = min.is_some_and(|min| min <= 0) && max > 0;
    if header.set_zero_if_not_found != Some(false) && begins_at_zero {
        return Ok(exchange.header(&OffsetResponseHeader { offset: 0 }));
    }
    let remark = "Not found, maybe this group consumer boot first";
    Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark))
}

/// Request 15: a group commits an offset.
///
/// # Errors
/// The group or the topic is not known.
pub fn update(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: UpdateConsumerOffsetRequestHeader<'_> = request.header()?;
    let UpdateConsumerOffsetRequestHeader {
        consumer_group,
        topic,
        queue_id,
        commit_offset,
    } = header;
    if broker.groups.find(consumer_group).is_none() {
        let remark = format!("Group {consumer_group} not exist!");
        return Err(Refusal::new(
            ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
            remark,
        ));
    }
    if broker.topics.find(topic).is_none() {
        let remark = format!("Topic {topic} not exist!");
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    }
    if queue_id < 0 || commit_offset < 0 {
        let remark = format!("queueId {queue_id} and commitOffset {commit_offset}: both from 0 on");
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    if !broker.offsets.has_reset(consumer_group, topic, queue_id) {
        broker
            .offsets
            .commit(consumer_group, topic, queue_id, commit_offset);
    }
    Ok(exchange.ok())
}

/// Request 29: the offset of a store time.
///
/// # Errors
/// The header is malformed.
pub fn search(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: SearchOffsetRequestHeader<'_> = request.header()?;
    let is_upper = header
        .boundary_type
        .is_some_and(|text| text.eq_ignore_ascii_case("upper"));
    let boundary = if is_upper {
        Boundary::Upper
    } else {
        Boundary::Lower
    };
    let (topic, queue_id) = (header.topic.to_owned(), header.queue_id);
    let (timestamp_ms, reader) = (header.timestamp, Arc::clone(broker));
    // Each step of the search looks at a record somewhere in the log.
    broker.read_aside(exchange, SEARCH_LEN, move || {
        let store = &reader.store;
        let found = store.offset_by_time(&topic, queue_id, timestamp_ms, boundary);
        Box::new(move |exchange| {
            let offset = found?;
            Ok(exchange.header(&OffsetResponseHeader { offset }))
        })
    })
}

/// Request 30: the offset behind a queue's last message.
///
/// # Errors
/// The header is malformed.
pub fn max(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetMaxOffsetRequestHeader<'_> = request.header()?;
    let offset = broker
        .store
        .max_offset(header.topic, header.queue_id)
        .unwrap_or(0);
    Ok(exchange.header(&OffsetResponseHeader { offset }))
}

/// Request 31: a queue's first offset.
///
/// # Errors
/// The header is malformed.
pub fn min(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetMinOffsetRequestHeader<'_> = request.header()?;
    let offset = broker
        .store
        .min_offset(header.topic, header.queue_id)
        .unwrap_or(0);
    Ok(exchange.header(&OffsetResponseHeader { offset }))
}

/// Request 32: when a queue's first message was stored.
///
/// # Errors
/// The header is malformed.
pub fn earliest(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetEarliestMsgStoretimeRequestHeader<'_> = request.header()?;
    let GetEarliestMsgStoretimeRequestHeader { topic, queue_id } = header;
    let first = broker.store.min_offset(topic, queue_id).unwrap_or(0);
    let time = broker
        .store
        .store_time_at(topic, queue_id, first)
        .map_err(Refusal::error)?;
    let timestamp = time.unwrap_or(-1);
    Ok(exchange.header(&GetEarliestMsgStoretimeResponseHeader { timestamp }))
}

/// Request 222: sets a group to an offset or a time, in one queue or all (RocketMQ's
/// `useServerSideResetOffset`, its default); consumers learn of it at their next pull.
///
/// # Errors
/// The topic or group is not known, or the offset lies outside of the queue.
pub fn reset(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: ResetOffsetRequestHeader<'_> = request.header()?;
    let ResetOffsetRequestHeader { topic, group, .. } = header;
    let config = broker.topics.find(topic).ok_or_else(|| {
        Refusal::new(
            ResponseCode::TOPIC_NOT_EXIST,
            format!("Topic {topic} does not exist"),
        )
    })?;
    if broker.groups.find(group).is_none() {
        let remark = format!("Group {group} does not exist");
        return Err(Refusal::new(
            ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
            remark,
        ));
    }
    let mut body = ResetOffsetBody::default();
    let queues = match header.queue_id {
        one if one >= 0 => one..one.saturating_add(1),
        _ => 0..config.read_queue_nums,
    };
    for queue_id in queues {
        let offset = reset_target(broker, &header, queue_id)?;
        broker.offsets.reset(group, topic, queue_id, offset);
        let queue = MessageQueue {
            broker_name: broker.config.identity.broker_name.clone(),
            queue_id,
            topic: topic.to_owned(),
        };
        body.offset_table.insert(queue, offset);
    }
    super::json_body(exchange, &body)
}

fn reset_target(
    broker: &Broker,
    header: &ResetOffsetRequestHeader<'_>,
    queue_id: i32,
) -> Result<i64, Refusal> {
    let min = broker.store.min_offset(header.topic, queue_id).unwrap_or(0);
    let max = broker.store.max_offset(header.topic, queue_id).unwrap_or(0);
    match header.offset {
        Some(offset) if header.queue_id >= 0 => {
            if (min..=max.saturating_add(1)).contains(&offset) {
                return Ok(offset);
            }
            let remark = format!("offset {offset} lies outside of [{min}, {}]", max + 1);
            Err(Refusal::error(remark))
        }
        _ if header.timestamp < 0 => Ok(max),
        _ => broker
            .store
            .offset_by_time(header.topic, queue_id, header.timestamp, Boundary::Lower)
            .map_err(Refusal::error),
    }
}

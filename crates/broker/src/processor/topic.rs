//! Topics: created, changed, deleted, listed, counted (17, 18, 21, 202, 215, 300, 305, 343, 351).
//!
//! RocketMQ 5.3.3 `AdminBrokerProcessor`.

use std::collections::BTreeMap;
use std::sync::Arc;

use remoting::body::{
    CreateTopicListRequestBody, GroupList, MessageQueue, TopicConfig,
    TopicConfigAndMappingSerializeWrapper, TopicFilterType, TopicList, TopicOffset,
    TopicStatsTable,
};
use remoting::header::{
    CreateTopicRequestHeader, DeleteTopicRequestHeader, GetTopicConfigRequestHeader,
    GetTopicStatsInfoRequestHeader, QueryTopicConsumeByWhoRequestHeader,
    QueryTopicsByConsumerRequestHeader,
};
use remoting::{CommandView, ResponseCode, json};

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::server::Exchange;
use crate::state::table::Change;
use crate::state::topics;

/// Most queues of a topic: each costs memory and a file.
const QUEUE_COUNT_MAX: i32 = 65_536;
/// Attributes of a topic, and what each may be (`TopicAttributes`). `None`: any number.
const ATTRIBUTES: [(&str, Option<&[&str]>); 4] = [
    ("queue.type", Some(&["SimpleCQ"])),
    ("cleanup.policy", Some(&["DELETE"])),
    (
        "message.type",
        Some(&["UNSPECIFIED", "NORMAL", "FIFO", "DELAY"]),
    ),
    ("reserve.time", None),
];

/// Request 17: creates or changes a topic.
///
/// # Errors
/// The name, a number or an attribute is not allowed.
pub fn update(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: CreateTopicRequestHeader<'_> = request.header()?;
    let known = broker.topics.find(header.topic);
    let old = known
        .as_ref()
        .map(|topic| topic.attributes.clone())
        .unwrap_or_default();
    let topic = TopicConfig {
        attributes: change_attributes(old, header.attributes.unwrap_or_default())?,
        order: header.order,
        perm: header.perm,
        read_queue_nums: header.read_queue_nums,
        write_queue_nums: header.write_queue_nums,
        topic_filter_type: match header.topic_filter_type {
            "MULTI_TAG" => TopicFilterType::MultiTag,
            _ => TopicFilterType::SingleTag,
        },
        topic_name: header.topic.to_owned(),
        topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
    };
    put(broker, topic)?;
    Ok(exchange.ok())
}

/// Request 18: the same for several topics.
///
/// # Errors
/// As for one; those before it are made.
pub fn update_list(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let body: CreateTopicListRequestBody = json::decode(request.body())?;
    for topic in body.topic_config_list {
        put(broker, topic)?;
    }
    Ok(exchange.ok())
}

fn put(broker: &Broker, topic: TopicConfig) -> Result<(), Refusal> {
    let invalid = |remark: String| Refusal::new(ResponseCode::INVALID_PARAMETER, remark);
    let name = topic.topic_name.clone();
    topics::check_name(&name).map_err(|error| invalid(error.to_string()))?;
    if topics::is_system(&broker.config, &name) {
        return Err(invalid(format!(
            "The topic[{name}] is conflict with system topic."
        )));
    }
    for (what, count) in [
        ("readQueueNums", topic.read_queue_nums),
        ("writeQueueNums", topic.write_queue_nums),
    ] {
        if !(0..=QUEUE_COUNT_MAX).contains(&count) {
            return Err(invalid(format!(
                "{what} is {count}: 0 to {QUEUE_COUNT_MAX} are possible"
            )));
        }
    }
    let queues = topic.write_queue_nums;
    if broker.topics.put(&name, topic) == Change::Made {
        tracing::info!(topic = name, queues, "topic created or changed");
        broker.changes.topic_changed(&name);
    }
    Ok(())
}

/// Applies `+key=value,-key` to a topic's attributes.
fn change_attributes(
    mut attributes: BTreeMap<String, String>,
    changes: &str,
) -> Result<BTreeMap<String, String>, Refusal> {
    for change in changes
        .split(',')
        .map(str::trim)
        .filter(|change| !change.is_empty())
    {
        if let Some(key) = change.strip_prefix('-') {
            attributes.remove(key);
            continue;
        }
        let pair = change.strip_prefix('+').unwrap_or(change).split_once('=');
        let Some((key, value)) = pair else {
            let remark = format!("attribute {change:?}: +key=value or -key is needed");
            return Err(Refusal::error(remark));
        };
        check_attribute(key, value)?;
        attributes.insert(key.to_owned(), value.to_owned());
    }
    Ok(attributes)
}

fn check_attribute(key: &str, value: &str) -> Result<(), Refusal> {
    let Some((_, allowed)) = ATTRIBUTES.iter().find(|(known, _)| *known == key) else {
        return Err(Refusal::error(format!("unsupported key: {key}")));
    };
    let is_allowed = match allowed {
        Some(values) => values.contains(&value),
        None => value.parse::<i64>().is_ok(),
    };
    if is_allowed {
        return Ok(());
    }
    let allowed = allowed.map_or_else(|| "a number".to_owned(), |values| values.join(", "));
    Err(Refusal::error(format!(
        "attribute {key} = {value}: supported is {allowed}"
    )))
}

/// Request 215: deletes a topic: its settings, queues and offsets. Its messages stay in the log
/// until they expire.
///
/// # Errors
/// It is the system's, or its files cannot be removed.
pub fn delete(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: DeleteTopicRequestHeader<'_> = request.header()?;
    let name = header.topic;
    let invalid = |remark: String| Refusal::new(ResponseCode::INVALID_PARAMETER, remark);
    if name.trim().is_empty() {
        return Err(invalid("The specified topic is blank.".to_owned()));
    }
    if topics::is_system(&broker.config, name) {
        return Err(invalid(format!(
            "The topic[{name}] is conflict with system topic."
        )));
    }
    if broker.topics.remove(name) == Change::Made {
        broker.offsets.remove_topic(name);
        broker.store.delete_topic(name).map_err(Refusal::error)?;
        tracing::info!(topic = name, "topic deleted");
    }
    Ok(exchange.ok())
}

/// Request 21: all topics.
///
/// # Errors
/// Never but for a bug in the encoder.
pub fn all(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    let (data_version, topic_config_table) = broker.topics.snapshot();
    let body = TopicConfigAndMappingSerializeWrapper {
        data_version,
        topic_config_table,
        ..Default::default()
    };
    super::json_body(exchange, &body)
}

/// Request 351: one topic.
///
/// # Errors
/// It does not exist.
pub fn one(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetTopicConfigRequestHeader<'_> = request.header()?;
    super::json_body(exchange, &*find(broker, header.topic)?)
}

/// Request 202: the offsets of a topic's queues.
///
/// # Errors
/// The topic does not exist.
pub fn stats(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetTopicStatsInfoRequestHeader<'_> = request.header()?;
    let topic = find(broker, header.topic)?;
    let mut table = TopicStatsTable::default();
    for queue_id in 0..topic.read_queue_nums.max(topic.write_queue_nums) {
        let name = header.topic;
        let min_offset = broker.store.min_offset(name, queue_id).unwrap_or(0);
        let max_offset = broker.store.max_offset(name, queue_id).unwrap_or(0);
        let last = (max_offset > min_offset)
            .then(|| broker.store.store_time_at(name, queue_id, max_offset - 1));
        let last = last.transpose()?.flatten();
        let offset = TopicOffset {
            last_update_timestamp: last.unwrap_or(0),
            max_offset,
            min_offset,
        };
        table
            .offset_table
            .insert(queue_of(broker, name, queue_id), offset);
    }
    super::json_body(exchange, &table)
}

/// Request 305: the system's topics.
///
/// # Errors
/// Never but for a bug in the encoder.
pub fn system_list(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    let names = broker.topics.names();
    let topic_list = names
        .into_iter()
        .filter(|name| topics::is_system(&broker.config, name))
        .collect();
    super::json_body(
        exchange,
        &TopicList {
            broker_addr: None,
            topic_list,
        },
    )
}

/// Request 300: who consumes a topic.
///
/// # Errors
/// The header is malformed.
pub fn groups(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: QueryTopicConsumeByWhoRequestHeader<'_> = request.header()?;
    let mut groups = broker.consumers.groups_of_topic(header.topic);
    groups.extend(broker.offsets.groups_of_topic(header.topic));
    super::json_body(
        exchange,
        &GroupList {
            group_list: groups.into_iter().collect(),
        },
    )
}

/// Request 343: the topics that a group has offsets in.
///
/// # Errors
/// The header is malformed.
pub fn of_group(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: QueryTopicsByConsumerRequestHeader<'_> = request.header()?;
    let topics = broker.offsets.topics_of_group(header.group);
    let broker_addr = Some(broker.address_text());
    super::json_body(
        exchange,
        &TopicList {
            broker_addr,
            topic_list: topics.into_iter().collect(),
        },
    )
}

/// A topic, or the answer that there is none.
pub(super) fn find(broker: &Broker, name: &str) -> Result<Arc<TopicConfig>, Refusal> {
    broker.topics.find(name).ok_or_else(|| {
        let remark = format!("topic[{name}] not exist");
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
    })
}

/// A queue as bodies name it.
pub(super) fn queue_of(broker: &Broker, topic: &str, queue_id: i32) -> MessageQueue {
    let broker_name = broker.config.identity.broker_name.clone();
    MessageQueue {
        broker_name,
        queue_id,
        topic: topic.to_owned(),
    }
}

//! Queues and how far they are consumed: 41, 42, 202, 208, 303, 315, 317.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One queue of one topic on one broker. As the name of a member it is written as an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueue {
    /// The broker.
    pub broker_name: String,
    /// The queue; -1 where all of a broker's queues are meant.
    pub queue_id: i32,
    /// The topic.
    pub topic: String,
}

/// By topic, broker and queue id, as clients sort.
impl Ord for MessageQueue {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |queue: &Self| {
            (
                queue.topic.clone(),
                queue.broker_name.clone(),
                queue.queue_id,
            )
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for MessageQueue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Body of `LOCK_BATCH_MQ`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LockBatchRequestBody {
    /// Who wants the locks.
    pub client_id: String,
    /// For which group.
    pub consumer_group: String,
    /// On which queues.
    pub mq_set: Vec<MessageQueue>,
    /// Not on the other members of a broker group.
    pub only_this_broker: bool,
}

/// Answer to `LOCK_BATCH_MQ`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchResponseBody {
    /// The queues whose locks the client has now.
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}

/// Body of `UNLOCK_BATCH_MQ`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UnlockBatchRequestBody {
    /// Who gives the locks back.
    pub client_id: String,
    /// For which group.
    pub consumer_group: String,
    /// On which queues.
    pub mq_set: Vec<MessageQueue>,
    /// Not on the other members of a broker group.
    pub only_this_broker: bool,
}

/// Answer to `GET_TOPIC_STATS_INFO`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicStatsTable {
    /// Queue to its range.
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages per second.
    pub topic_put_tps: f64,
}

/// The range of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicOffset {
    /// Store time of the newest message in milliseconds, 0 for none.
    pub last_update_timestamp: i64,
    /// The next message's offset.
    pub max_offset: i64,
    /// The oldest message's offset.
    pub min_offset: i64,
}

/// Answer to `GET_CONSUME_STATS`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStats {
    /// Messages per second.
    pub consume_tps: f64,
    /// Queue to how far it is consumed.
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
}

/// How far a queue is consumed by a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OffsetWrapper {
    /// The next message's offset.
    pub broker_offset: i64,
    /// The group's committed offset.
    pub consumer_offset: i64,
    /// Store time in milliseconds of the last message consumed.
    pub last_timestamp: i64,
    /// How far the group has pulled.
    pub pull_offset: i64,
}

/// Answer to `GET_BROKER_CONSUME_STATS`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStatsList {
    /// `host:port`.
    pub broker_addr: String,
    /// Of each group, by name.
    pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    /// Messages not consumed yet.
    pub total_diff: i64,
    /// Messages pulled and not consumed yet.
    pub total_inflight_diff: i64,
}

/// Answer to `QUERY_CONSUME_TIME_SPAN`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryConsumeTimeSpanBody {
    /// Of each queue.
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// Store times of a queue's messages in milliseconds, -1 where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueTimeSpan {
    /// Of the last message consumed.
    pub consume_time_stamp: i64,
    /// Age in milliseconds of the next message to be consumed, 0 for none.
    pub delay_time: i64,
    /// Of the newest message.
    pub max_time_stamp: i64,
    /// The queue.
    pub message_queue: MessageQueue,
    /// Of the oldest message.
    pub min_time_stamp: i64,
}

/// Answer to `VIEW_BROKER_STATS_DATA`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerStatsData {
    /// Over the last day.
    pub stats_day: BrokerStatsItem,
    /// Over the last hour.
    pub stats_hour: BrokerStatsItem,
    /// Over the last minute.
    pub stats_minute: BrokerStatsItem,
}

/// Figures over some time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerStatsItem {
    /// Mean value of one event.
    pub avgpt: f64,
    /// Sum of the values.
    pub sum: i64,
    /// Sum of the values per second.
    pub tps: f64,
}

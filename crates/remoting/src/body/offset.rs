//! Offsets of consumers and of delay levels: 43, 45, 220 to 223, 308, `consumerOffset.json`,
//! `delayOffset.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stats::MessageQueue;
use super::topic::DataVersion;

/// Answer to `GET_ALL_CONSUMER_OFFSET` and `config/consumerOffset.json`. Java's file also has a
/// `groupTopicMap`, which is derived.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerOffsetSerializeWrapper {
    /// State of the table.
    pub data_version: DataVersion,
    /// `topic@group` to queue to offset.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Answer to `GET_ALL_DELAY_OFFSET` and `config/delayOffset.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DelayOffsetSerializeWrapper {
    /// State of the table.
    pub data_version: DataVersion,
    /// Delay level to the next offset of its queue.
    pub offset_table: BTreeMap<i32, i64>,
}

/// Body of `RESET_CONSUMER_CLIENT_OFFSET` and answer to `INVOKE_BROKER_TO_RESET_OFFSET`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResetOffsetBody {
    /// Queue to offset.
    pub offset_table: BTreeMap<MessageQueue, i64>,
}

/// The same for clients whose language is `CPP`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResetOffsetBodyForC {
    /// Of each queue.
    pub offset_table: Vec<MessageQueueForC>,
}

/// A queue and an offset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueueForC {
    /// The broker.
    pub broker_name: String,
    /// The offset.
    pub offset: i64,
    /// The queue.
    pub queue_id: i32,
    /// The topic.
    pub topic: String,
}

/// Answer to `GET_CONSUMER_STATUS_FROM_CLIENT` and `INVOKE_BROKER_TO_GET_CONSUMER_STATUS`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetConsumerStatusBody {
    /// Client id to queue to offset.
    pub consumer_table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
    /// Queue to offset.
    pub message_queue_table: BTreeMap<MessageQueue, i64>,
}

/// Answer to `QUERY_CORRECTION_OFFSET`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryCorrectionOffsetBody {
    /// Queue id to offset.
    pub correction_offsets: BTreeMap<i32, i64>,
}

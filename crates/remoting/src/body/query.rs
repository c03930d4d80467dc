//! Looking into a queue or a client: 309, 321, 345.

use serde::{Deserialize, Serialize};

use super::heartbeat::SubscriptionData;
use super::names::{known, wire_names};

/// Answer to `QUERY_CONSUME_QUEUE`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryConsumeQueueResponseBody {
    /// The group's filter as text.
    pub filter_data: Option<String>,
    /// The next entry's index.
    pub max_queue_index: i64,
    /// The oldest entry's index.
    pub min_queue_index: i64,
    /// The entries.
    pub queue_data: Option<Vec<ConsumeQueueData>>,
    /// The group's subscription.
    pub subscription_data: Option<SubscriptionData>,
}

/// One entry of a consume queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeQueueData {
    /// Filter bits of the extension, as text.
    pub bit_map: Option<String>,
    /// Whether the group's filter lets the message pass.
    pub eval: bool,
    /// The extension's content, as text.
    pub extend_data_json: Option<String>,
    /// Why the entry could not be judged.
    pub msg: Option<String>,
    /// Physical offset of the message.
    pub physic_offset: i64,
    /// Size of the message in bytes.
    pub physic_size: i32,
    /// Hash of the tags.
    pub tags_code: i64,
}

/// Answer to `QUERY_SUBSCRIPTION_BY_CONSUMER`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QuerySubscriptionResponseBody {
    /// The group.
    pub group: String,
    /// Its subscription.
    pub subscription_data: Option<SubscriptionData>,
    /// The topic.
    pub topic: Option<String>,
}

wire_names! {
    /// How a client fared with a message.
    CMResult {
        /// Consumed.
        Success = "CR_SUCCESS",
        /// To be delivered again.
        Later = "CR_LATER",
        /// Orderly: rolled back.
        Rollback = "CR_ROLLBACK",
        /// Orderly: committed.
        Commit = "CR_COMMIT",
        /// The listener threw an exception.
        ThrowException = "CR_THROW_EXCEPTION",
        /// The listener returned null.
        ReturnNull = "CR_RETURN_NULL",
    }
}

/// Answer to `CONSUME_MESSAGE_DIRECTLY`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeMessageDirectlyResult {
    /// Orderly: whether the offset is committed by itself.
    pub auto_commit: bool,
    /// How it went.
    #[serde(deserialize_with = "known")]
    pub consume_result: Option<CMResult>,
    /// Whether the listener is orderly.
    pub order: bool,
    /// The exception's text.
    pub remark: Option<String>,
    /// Milliseconds; spelled like that upstream.
    pub spent_time_mills: i64,
}

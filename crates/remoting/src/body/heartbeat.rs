//! What clients say about themselves: 34, and parts of it elsewhere.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::names::{known, wire_names};

wire_names! {
    /// How a consumer gets its messages.
    ConsumeType {
        /// Pull and lite pull consumers.
        Actively = "CONSUME_ACTIVELY",
        /// Push consumers.
        Passively = "CONSUME_PASSIVELY",
        /// Pop consumers.
        Pop = "CONSUME_POP",
    }
}

wire_names! {
    /// Whether the members of a group share the messages.
    MessageModel {
        /// Every member gets every message.
        Broadcasting = "BROADCASTING",
        /// Each message goes to one member.
        Clustering = "CLUSTERING",
    }
}

wire_names! {
    /// Where a group without an offset starts.
    ConsumeFromWhere {
        /// Behind the newest message.
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        /// Obsolete.
        LastOffsetAndFromMinWhenBootFirst =
            "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        /// Obsolete.
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        /// Obsolete.
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        /// At the oldest message.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        /// At a time that the client searches for.
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

/// Body of `HEART_BEAT`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeartbeatData {
    /// Client id.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The consumer groups that the client is a member of.
    pub consumer_data_set: Vec<ConsumerData>,
    /// Not 0: a heartbeat of version 2.
    pub heartbeat_fingerprint: i32,
    /// The producer groups that the client is a member of.
    pub producer_data_set: Vec<ProducerData>,
    /// Version 2: subscriptions are left out because they have not changed.
    pub without_sub: bool,
}

/// A client's membership of a producer group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerData {
    /// The group.
    pub group_name: String,
}

/// A client's membership of a consumer group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerData {
    /// Where to start without an offset.
    #[serde(deserialize_with = "known")]
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// How messages are got.
    #[serde(deserialize_with = "known")]
    pub consume_type: Option<ConsumeType>,
    /// The group.
    pub group_name: String,
    /// Whether the members share the messages.
    #[serde(deserialize_with = "known")]
    pub message_model: Option<MessageModel>,
    /// What the client subscribes to.
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Unit mode, which nothing uses.
    pub unit_mode: bool,
}

/// A subscription to one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionData {
    /// Filter by class, which is obsolete.
    pub class_filter_mode: bool,
    /// Java's `String.hashCode` of each tag.
    pub code_set: BTreeSet<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The expression: `*`, `TagA || TagB`, or SQL.
    pub sub_string: String,
    /// Milliseconds since 1970 when the client made the subscription.
    pub sub_version: i64,
    /// The tags, empty for all.
    pub tags_set: BTreeSet<String>,
    /// The topic.
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        Self {
            class_filter_mode: false,
            code_set: BTreeSet::new(),
            expression_type: "TAG".to_owned(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: BTreeSet::new(),
            topic: String::new(),
        }
    }
}

/// Body of `CHECK_CLIENT_CONFIG`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CheckClientRequestBody {
    /// Client id.
    pub client_id: String,
    /// Consumer group.
    pub group: String,
    /// Namespace of the group.
    pub namespace: Option<String>,
    /// The subscription to be checked.
    pub subscription_data: SubscriptionData,
}

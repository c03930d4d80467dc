//! Who is connected: answers to 38, 203, 204, 328.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use super::names::known;

/// Answer to `GET_CONSUMER_LIST_BY_GROUP`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetConsumerListByGroupResponseBody {
    /// Client ids of the group's members.
    pub consumer_id_list: Vec<String>,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Connection {
    /// `host:port`.
    pub client_addr: String,
    /// Client id.
    pub client_id: String,
    /// [`LanguageCode`](crate::LanguageCode) by name.
    pub language: Option<String>,
    /// `MQVersion` ordinal.
    pub version: i32,
}

/// Answer to `GET_CONSUMER_CONNECTION_LIST`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerConnection {
    /// The group's members.
    pub connection_set: Vec<Connection>,
    /// Where the group starts without an offset.
    #[serde(deserialize_with = "known")]
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// How the group gets its messages.
    #[serde(deserialize_with = "known")]
    pub consume_type: Option<ConsumeType>,
    /// Whether the members share the messages.
    #[serde(deserialize_with = "known")]
    pub message_model: Option<MessageModel>,
    /// Topic to subscription.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// Answer to `GET_PRODUCER_CONNECTION_LIST`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerConnection {
    /// The group's members.
    pub connection_set: Vec<Connection>,
}

/// Answer to `GET_ALL_PRODUCER_INFO`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerTableInfo {
    /// Producer group to members.
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

/// One member of a producer group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerInfo {
    /// Client id.
    pub client_id: String,
    /// [`LanguageCode`](crate::LanguageCode) by name.
    pub language: Option<String>,
    /// Milliseconds since 1970 of the last heartbeat.
    pub last_update_timestamp: i64,
    /// `/host:port`.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// `MQVersion` ordinal.
    pub version: i32,
}

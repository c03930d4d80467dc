//! Subscription groups and their settings: 200, 201, 225, 300, 352, `subscriptionGroup.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::topic::DataVersion;

/// Settings of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupConfig {
    /// Free attributes.
    pub attributes: BTreeMap<String, String>,
    /// The broker to read from, 0 for the master.
    pub broker_id: i64,
    /// Whether broadcasting consumers may read.
    pub consume_broadcast_enable: bool,
    /// Whether consumers may read at all.
    pub consume_enable: bool,
    /// Whether a group may start at the oldest message.
    pub consume_from_min_enable: bool,
    /// Whether pop keeps to the order of a queue.
    pub consume_message_orderly: bool,
    /// Minutes that a consumer may take for a message.
    pub consume_timeout_minute: i32,
    /// The group.
    pub group_name: String,
    /// Delays between deliveries of a message.
    pub group_retry_policy: GroupRetryPolicy,
    /// Free bits.
    pub group_sys_flag: i32,
    /// Whether consumers are told about changes of the group's members.
    pub notify_consumer_ids_changed_enable: bool,
    /// Deliveries after the first before a message goes to the dead letters.
    pub retry_max_times: i32,
    /// Queues of the retry topic.
    pub retry_queue_nums: i32,
    /// Subscriptions fixed on the broker.
    pub subscription_data_set: Option<Vec<SimpleSubscriptionData>>,
    /// The broker to read from when the group is far behind.
    pub which_broker_when_consume_slowly: i64,
}

/// RocketMQ's own.
impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// Delays between deliveries of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupRetryPolicy {
    /// Settings of type `CUSTOMIZED`, passed on as they are.
    pub customized_retry_policy: Option<Value>,
    /// Settings of type `EXPONENTIAL`, passed on as they are.
    pub exponential_retry_policy: Option<Value>,
    /// `CUSTOMIZED` or `EXPONENTIAL`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Default for GroupRetryPolicy {
    fn default() -> Self {
        Self {
            customized_retry_policy: None,
            exponential_retry_policy: None,
            kind: "CUSTOMIZED".to_owned(),
        }
    }
}

/// A subscription that is fixed on the broker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SimpleSubscriptionData {
    /// The expression.
    pub expression: String,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The topic.
    pub topic: String,
    /// Milliseconds since 1970 when it was made.
    pub version: i64,
}

/// Answer to `GET_ALL_SUBSCRIPTIONGROUP_CONFIG`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupWrapper {
    /// State of the table.
    pub data_version: DataVersion,
    /// Group to topic to forbidden bits.
    pub forbidden_table: Option<BTreeMap<String, BTreeMap<String, i32>>>,
    /// Group to settings.
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}

/// Body of `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupList {
    /// The groups to be created.
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

/// Answer to `QUERY_TOPIC_CONSUME_BY_WHO`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupList {
    /// The groups.
    pub group_list: Vec<String>,
}

//! Which brokers there are and what they serve: 105, 106, 217, 901.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Answer to `GET_ROUTEINFO_BY_TOPIC`. Written with
/// [`json::encode`](crate::json::encode) for clients that expect fastjson's form, with
/// [`json::encode_standard`](crate::json::encode_standard) for the others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicRouteData {
    /// The brokers that serve the topic.
    pub broker_datas: Vec<BrokerData>,
    /// Broker address to filter servers, which are obsolete.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// `broker-a:4;broker-b:4`, for topics with an order of queues.
    pub order_topic_conf: Option<String>,
    /// The topic's queues on each broker.
    pub queue_datas: Vec<QueueData>,
}

/// A topic's queues on one broker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueData {
    /// The broker.
    pub broker_name: String,
    /// Bits: 1 inherit, 2 write, 4 read, 8 priority.
    pub perm: i32,
    /// Queues that are read.
    pub read_queue_nums: i32,
    /// Bits: 1 unit, 2 unit subscription. Was spelled `topicSynFlag` before 5.0.
    #[serde(alias = "topicSynFlag")]
    pub topic_sys_flag: i32,
    /// Queues that are written.
    pub write_queue_nums: i32,
}

/// A broker: a master and its slaves under one name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerData {
    /// Broker id, 0 for the master, to `host:port`.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Name that master and slaves share.
    pub broker_name: String,
    /// The cluster.
    pub cluster: String,
    /// Whether a slave may stand in for the master.
    pub enable_acting_master: bool,
    /// Zone of the broker.
    pub zone_name: Option<String>,
}

/// Answer to `GET_BROKER_CLUSTER_INFO`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Broker name to broker.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Cluster to broker names.
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

/// Answer to `GET_BROKER_MEMBER_GROUP`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetBrokerMemberGroupResponseBody {
    /// The group asked for; its table is empty if nobody knows it.
    pub broker_member_group: BrokerMemberGroup,
}

/// The addresses under one broker name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerMemberGroup {
    /// Broker id to `host:port`.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Name that master and slaves share.
    pub broker_name: String,
    /// The cluster.
    pub cluster: String,
}

/// Answer to `GET_BROKER_RUNTIME_INFO`, `GET_KVLIST_BY_NAMESPACE` and `REGISTER_BROKER`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KVTable {
    /// Names and values.
    pub table: BTreeMap<String, String>,
}

/// The name server's file `kvConfig.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KVConfigSerializeWrapper {
    /// Namespace to key to value.
    pub config_table: BTreeMap<String, BTreeMap<String, String>>,
}

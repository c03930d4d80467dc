//! Topics and their settings: 17, 18, 21, 206, 215, 351, `topics.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::{known_or_default, wire_names};

/// The state of a table: equality, not order, tells whether it has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataVersion {
    /// Counts changes.
    pub counter: i64,
    /// Epoch of the controller, 0 without one.
    pub state_version: i64,
    /// Milliseconds since 1970 of the last change.
    pub timestamp: i64,
}

wire_names! {
    /// How many tags a message of a topic can have; nothing depends on it.
    #[derive(Default)]
    TopicFilterType {
        /// One.
        #[default]
        SingleTag = "SINGLE_TAG",
        /// Several.
        MultiTag = "MULTI_TAG",
    }
}

/// Settings of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfig {
    /// Such as `message.type` to `NORMAL`.
    pub attributes: BTreeMap<String, String>,
    /// Whether producers keep to an order of queues.
    pub order: bool,
    /// Bits: 1 inherit, 2 write, 4 read, 8 priority.
    pub perm: i32,
    /// Queues that are read.
    pub read_queue_nums: i32,
    /// How many tags a message can have.
    #[serde(deserialize_with = "known_or_default")]
    pub topic_filter_type: TopicFilterType,
    /// The topic.
    pub topic_name: String,
    /// Bits: 1 unit, 2 unit subscription.
    pub topic_sys_flag: i32,
    /// Queues that are written.
    pub write_queue_nums: i32,
}

/// RocketMQ's own: 16 queues, readable and writable.
impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: 6,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

/// `config/topics.json`, and a registration from before 3.0.11.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigSerializeWrapper {
    /// State of the table.
    pub data_version: DataVersion,
    /// Topic to settings.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
}

/// Answer to `GET_ALL_TOPIC_CONFIG`, and part of a registration. The mappings are those of static
/// topics, passed on as they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigAndMappingSerializeWrapper {
    /// State of the topic table.
    pub data_version: DataVersion,
    /// State of the mappings.
    pub mapping_data_version: DataVersion,
    /// Topic to settings.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Topic to `TopicQueueMappingDetail`.
    pub topic_queue_mapping_detail_map: BTreeMap<String, Value>,
    /// Topic to `TopicQueueMappingInfo`.
    pub topic_queue_mapping_info_map: BTreeMap<String, Value>,
}

/// Body of `UPDATE_AND_CREATE_TOPIC_LIST`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CreateTopicListRequestBody {
    /// The topics to be created.
    pub topic_config_list: Vec<TopicConfig>,
}

/// Answer to `GET_ALL_TOPIC_LIST_FROM_NAMESERVER` and others that list topics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicList {
    /// Address of some broker; only of `GET_SYSTEM_TOPIC_LIST_FROM_NS`.
    pub broker_addr: Option<String>,
    /// The topics.
    pub topic_list: Vec<String>,
}

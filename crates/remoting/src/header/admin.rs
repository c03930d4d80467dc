//! Clients, groups and administration of a broker: 17, 21, 34 to 40, 200 to 223, 300 to 353.

use super::macros::headers;

headers! {
    /// The answer to `HEART_BEAT`.
    HeartbeatResponseHeader {
        is_support_heart_beat_v2: bool => "IS_SUPPORT_HEART_BEAT_V2" or false,
        /// The client is to send its subscriptions again.
        is_sub_change: bool => "IS_SUB_CHANGE" or false,
    }

    /// Of `UNREGISTER_CLIENT`.
    UnregisterClientRequestHeader<'a> {
        client_id: &'a str => "clientID",
        producer_group: Option<&'a str> => "producerGroup",
        consumer_group: Option<&'a str> => "consumerGroup",
    }

    /// Of `GET_CONSUMER_LIST_BY_GROUP`.
    GetConsumerListByGroupRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
    }

    /// Of `NOTIFY_CONSUMER_IDS_CHANGED`.
    NotifyConsumerIdsChangedRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
    }

    /// Of `CHECK_TRANSACTION_STATE`.
    CheckTransactionStateRequestHeader<'a> {
        topic: Option<&'a str> => "topic",
        tran_state_table_offset: i64 => "tranStateTableOffset",
        commit_log_offset: i64 => "commitLogOffset",
        msg_id: Option<&'a str> => "msgId",
        transaction_id: Option<&'a str> => "transactionId",
        offset_msg_id: Option<&'a str> => "offsetMsgId",
    }

    /// Of `UPDATE_AND_CREATE_TOPIC`.
    CreateTopicRequestHeader<'a> {
        topic: &'a str => "topic",
        default_topic: &'a str => "defaultTopic",
        read_queue_nums: i32 => "readQueueNums",
        write_queue_nums: i32 => "writeQueueNums",
        perm: i32 => "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: &'a str => "topicFilterType",
        topic_sys_flag: Option<i32> => "topicSysFlag",
        order: bool => "order",
        /// `+key=value,-key2`.
        attributes: Option<&'a str> => "attributes",
        force: Option<bool> => "force",
    }

    /// Of `GET_ALL_TOPIC_CONFIG`; releases up to 5.3.3 ignore all of it.
    GetAllTopicConfigRequestHeader<'a> {
        topic_seq: Option<i32> => "topicSeq",
        /// JSON text.
        data_version: Option<&'a str> => "dataVersion",
        max_topic_num: Option<i32> => "maxTopicNum",
    }

    /// The answer; absent from releases up to 5.3.3.
    GetAllTopicConfigResponseHeader {
        total_topic_num: Option<i32> => "totalTopicNum",
    }

    /// Of `GET_ALL_SUBSCRIPTIONGROUP_CONFIG`; releases up to 5.3.3 ignore all of it.
    GetAllSubscriptionGroupRequestHeader<'a> {
        group_seq: Option<i32> => "groupSeq",
        /// JSON text.
        data_version: Option<&'a str> => "dataVersion",
        max_group_num: Option<i32> => "maxGroupNum",
    }

    /// The answer; absent from releases up to 5.3.3.
    GetAllSubscriptionGroupResponseHeader {
        total_group_num: Option<i32> => "totalGroupNum",
    }

    /// The answer to `GET_BROKER_CONFIG`.
    GetBrokerConfigResponseHeader<'a> {
        /// The configuration's data version as JSON text.
        version: &'a str => "version",
    }

    /// Of `GET_TOPIC_STATS_INFO`.
    GetTopicStatsInfoRequestHeader<'a> {
        topic: &'a str => "topic",
    }

    /// Of `GET_CONSUMER_CONNECTION_LIST`.
    GetConsumerConnectionListRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
    }

    /// Of `GET_PRODUCER_CONNECTION_LIST`.
    GetProducerConnectionListRequestHeader<'a> {
        producer_group: &'a str => "producerGroup",
    }

    /// Of `DELETE_SUBSCRIPTIONGROUP`.
    DeleteSubscriptionGroupRequestHeader<'a> {
        group_name: &'a str => "groupName",
        clean_offset: bool => "cleanOffset" or false,
    }

    /// Of `GET_CONSUME_STATS`.
    GetConsumeStatsRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
        topic: Option<&'a str> => "topic",
        /// Joined by `;`.
        topic_list: Option<&'a str> => "topicList",
    }

    /// Of `DELETE_TOPIC_IN_BROKER`.
    DeleteTopicRequestHeader<'a> {
        topic: &'a str => "topic",
    }

    /// Of `INVOKE_BROKER_TO_GET_CONSUMER_STATUS` and `GET_CONSUMER_STATUS_FROM_CLIENT`.
    GetConsumerStatusRequestHeader<'a> {
        topic: &'a str => "topic",
        group: &'a str => "group",
        /// A client id, whatever its name says.
        client_addr: Option<&'a str> => "clientAddr",
    }

    /// Of `QUERY_TOPIC_CONSUME_BY_WHO`.
    QueryTopicConsumeByWhoRequestHeader<'a> {
        topic: &'a str => "topic",
    }

    /// Of `QUERY_CONSUME_TIME_SPAN`.
    QueryConsumeTimeSpanRequestHeader<'a> {
        topic: &'a str => "topic",
        group: &'a str => "group",
    }

    /// Of `GET_CONSUMER_RUNNING_INFO`, which a broker relays to the client.
    GetConsumerRunningInfoRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
        client_id: &'a str => "clientId",
        jstack_enable: bool => "jstackEnable" or false,
    }

    /// Of `CONSUME_MESSAGE_DIRECTLY`, which a broker relays to the client.
    ConsumeMessageDirectlyResultRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
        client_id: Option<&'a str> => "clientId",
        msg_id: Option<&'a str> => "msgId",
        broker_name: Option<&'a str> => "brokerName",
        topic: Option<&'a str> => "topic",
        topic_sys_flag: Option<i32> => "topicSysFlag",
        group_sys_flag: Option<i32> => "groupSysFlag",
    }

    /// Of `VIEW_BROKER_STATS_DATA`.
    ViewBrokerStatsDataRequestHeader<'a> {
        stats_name: &'a str => "statsName",
        stats_key: &'a str => "statsKey",
    }

    /// Of `GET_BROKER_CONSUME_STATS`.
    GetConsumeStatsInBrokerHeader {
        is_order: bool => "isOrder" or false,
    }

    /// Of `QUERY_TOPICS_BY_CONSUMER`.
    QueryTopicsByConsumerRequestHeader<'a> {
        group: &'a str => "group",
    }

    /// Of `QUERY_SUBSCRIPTION_BY_CONSUMER`.
    QuerySubscriptionByConsumerRequestHeader<'a> {
        group: &'a str => "group",
        topic: Option<&'a str> => "topic",
    }

    /// Of `GET_TOPIC_CONFIG`.
    GetTopicConfigRequestHeader<'a> {
        topic: &'a str => "topic",
    }

    /// Of `GET_SUBSCRIPTIONGROUP_CONFIG`.
    GetSubscriptionGroupConfigRequestHeader<'a> {
        group: &'a str => "group",
    }

    /// Of `CLONE_GROUP_OFFSET`.
    CloneGroupOffsetRequestHeader<'a> {
        src_group: &'a str => "srcGroup",
        dest_group: &'a str => "destGroup",
        topic: Option<&'a str> => "topic",
        offline: bool => "offline" or false,
    }
}

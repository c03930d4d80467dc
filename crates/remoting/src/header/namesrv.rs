//! Requests to the name server: 100 to 105, 205, 216, 217, 219, 224, 322, 327, 901, 904.

use super::macros::headers;

headers! {
    /// Of `GET_ROUTEINFO_BY_TOPIC`.
    GetRouteInfoRequestHeader<'a> {
        topic: &'a str => "topic",
        /// The answer must be JSON that any parser reads.
        accept_standard_json_only: Option<bool> => "acceptStandardJsonOnly",
    }

    /// Of `PUT_KV_CONFIG`.
    PutKVConfigRequestHeader<'a> {
        namespace: &'a str => "namespace",
        key: &'a str => "key",
        value: &'a str => "value",
    }

    /// Of `GET_KV_CONFIG`.
    GetKVConfigRequestHeader<'a> {
        namespace: &'a str => "namespace",
        key: &'a str => "key",
    }

    /// The answer.
    GetKVConfigResponseHeader<'a> {
        value: Option<&'a str> => "value",
    }

    /// Of `DELETE_KV_CONFIG`.
    DeleteKVConfigRequestHeader<'a> {
        namespace: &'a str => "namespace",
        key: &'a str => "key",
    }

    /// Of `GET_KVLIST_BY_NAMESPACE`.
    GetKVListByNamespaceRequestHeader<'a> {
        namespace: &'a str => "namespace",
    }

    /// Of `REGISTER_BROKER`.
    RegisterBrokerRequestHeader<'a> {
        broker_name: &'a str => "brokerName",
        broker_addr: &'a str => "brokerAddr",
        cluster_name: &'a str => "clusterName",
        ha_server_addr: &'a str => "haServerAddr",
        broker_id: i64 => "brokerId",
        heartbeat_timeout_millis: Option<i64> => "heartbeatTimeoutMillis",
        /// Absent from brokers before 5.0.
        enable_acting_master: Option<bool> => "enableActingMaster",
        /// The body is a zlib stream; see `RegisterBrokerBody`.
        compressed: bool => "compressed" or false,
        /// CRC-32 of the body as sent, its sign bit cleared; 0 for none.
        body_crc32: i32 => "bodyCrc32" or 0,
        zone_name: Option<&'a str> => "__ZONE_NAME",
    }

    /// The answer; both fields are absent for a master.
    RegisterBrokerResponseHeader<'a> {
        ha_server_addr: Option<&'a str> => "haServerAddr",
        master_addr: Option<&'a str> => "masterAddr",
    }

    /// Of `UNREGISTER_BROKER`.
    UnRegisterBrokerRequestHeader<'a> {
        broker_name: &'a str => "brokerName",
        broker_addr: &'a str => "brokerAddr",
        cluster_name: &'a str => "clusterName",
        broker_id: i64 => "brokerId",
    }

    /// Of `QUERY_DATA_VERSION`.
    QueryDataVersionRequestHeader<'a> {
        broker_name: &'a str => "brokerName",
        broker_addr: &'a str => "brokerAddr",
        cluster_name: &'a str => "clusterName",
        broker_id: i64 => "brokerId",
    }

    /// The answer.
    QueryDataVersionResponseHeader {
        changed: bool => "changed",
    }

    /// Of `BROKER_HEARTBEAT`.
    BrokerHeartbeatRequestHeader<'a> {
        cluster_name: &'a str => "clusterName",
        broker_addr: &'a str => "brokerAddr",
        broker_name: &'a str => "brokerName",
        broker_id: Option<i64> => "brokerId",
        epoch: Option<i32> => "epoch",
        max_offset: Option<i64> => "maxOffset",
        confirm_offset: Option<i64> => "confirmOffset",
        /// Spelled like that upstream.
        heartbeat_timeout_mills: Option<i64> => "heartbeatTimeoutMills",
        election_priority: Option<i32> => "electionPriority",
    }

    /// Of `GET_BROKER_MEMBER_GROUP`.
    GetBrokerMemberGroupRequestHeader<'a> {
        cluster_name: &'a str => "clusterName",
        broker_name: &'a str => "brokerName",
    }

    /// Of `WIPE_WRITE_PERM_OF_BROKER`.
    WipeWritePermOfBrokerRequestHeader<'a> {
        broker_name: &'a str => "brokerName",
    }

    /// The answer.
    WipeWritePermOfBrokerResponseHeader {
        wipe_topic_count: i32 => "wipeTopicCount",
    }

    /// Of `ADD_WRITE_PERM_OF_BROKER`.
    AddWritePermOfBrokerRequestHeader<'a> {
        broker_name: &'a str => "brokerName",
    }

    /// The answer.
    AddWritePermOfBrokerResponseHeader {
        add_topic_count: i32 => "addTopicCount",
    }

    /// Of `DELETE_TOPIC_IN_NAMESRV`.
    DeleteTopicFromNamesrvRequestHeader<'a> {
        topic: &'a str => "topic",
        /// Only the entries of this cluster's brokers.
        cluster_name: Option<&'a str> => "clusterName",
    }

    /// Of `REGISTER_TOPIC_IN_NAMESRV`.
    RegisterTopicRequestHeader<'a> {
        topic: &'a str => "topic",
    }

    /// Of `GET_TOPICS_BY_CLUSTER`.
    GetTopicsByClusterRequestHeader<'a> {
        cluster: &'a str => "cluster",
    }
}

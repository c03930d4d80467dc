//! Pulling messages: 11 and 361.

use super::macros::headers;

headers! {
    /// Of `PULL_MESSAGE` and `LITE_PULL_MESSAGE`.
    #[derive(Default)]
    PullMessageRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
        topic: &'a str => "topic",
        queue_id: i32 => "queueId",
        queue_offset: i64 => "queueOffset",
        max_msg_nums: i32 => "maxMsgNums",
        /// `PullSysFlag`: see [`pull_flag`].
        sys_flag: i32 => "sysFlag",
        commit_offset: i64 => "commitOffset",
        suspend_timeout_millis: i64 => "suspendTimeoutMillis",
        subscription: Option<&'a str> => "subscription",
        sub_version: i64 => "subVersion",
        /// `TAG` or `SQL92`; absent means `TAG`.
        expression_type: Option<&'a str> => "expressionType",
        max_msg_bytes: Option<i32> => "maxMsgBytes",
        /// -1 SDK, 0 proxy order, 1 proxy broadcast, 2 proxy stream.
        request_source: Option<i32> => "requestSource",
        /// Spelled like that upstream.
        proxy_froward_client_id: Option<&'a str> => "proxyFrowardClientId",
    }

    /// The answer, of every code but an error.
    #[derive(Default)]
    PullMessageResponseHeader {
        suggest_which_broker_id: i64 => "suggestWhichBrokerId",
        next_begin_offset: i64 => "nextBeginOffset",
        min_offset: i64 => "minOffset",
        max_offset: i64 => "maxOffset",
        offset_delta: Option<i64> => "offsetDelta",
        topic_sys_flag: Option<i32> => "topicSysFlag",
        group_sys_flag: Option<i32> => "groupSysFlag",
        /// 1 broker, 2 group, 3 topic, 4 broadcasting, 5 subscription.
        forbidden_type: Option<i32> => "forbiddenType",
    }
}

/// Bits of a pull's `sysFlag` (RocketMQ 5.3.3 `PullSysFlag`).
pub mod pull_flag {
    /// `commitOffset` is to be committed.
    pub const COMMIT_OFFSET: i32 = 0x1;
    /// The request may be held until messages arrive.
    pub const SUSPEND: i32 = 0x2;
    /// The request's own `subscription` counts.
    pub const SUBSCRIPTION: i32 = 0x4;
    /// Filter by class, which is obsolete.
    pub const CLASS_FILTER: i32 = 0x8;
    /// From a lite pull consumer.
    pub const LITE_PULL: i32 = 0x10;
}

//! Offsets: of consumers 14, 15, 220, 222; of queues 29 to 32.

use super::macros::headers;

headers! {
    /// Of `QUERY_CONSUMER_OFFSET`.
    QueryConsumerOffsetRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
        topic: &'a str => "topic",
        queue_id: i32 => "queueId",
        set_zero_if_not_found: Option<bool> => "setZeroIfNotFound",
    }

    /// Of `UPDATE_CONSUMER_OFFSET`.
    UpdateConsumerOffsetRequestHeader<'a> {
        consumer_group: &'a str => "consumerGroup",
        topic: &'a str => "topic",
        queue_id: i32 => "queueId",
        commit_offset: i64 => "commitOffset",
    }

    /// Of `SEARCH_OFFSET_BY_TIMESTAMP`.
    SearchOffsetRequestHeader<'a> {
        topic: &'a str => "topic",
        queue_id: i32 => "queueId",
        /// Store time in milliseconds.
        timestamp: i64 => "timestamp",
        /// `UPPER` in any case; everything else means `LOWER`.
        boundary_type: Option<&'a str> => "boundaryType",
    }

    /// Of `GET_MAX_OFFSET`.
    GetMaxOffsetRequestHeader<'a> {
        topic: &'a str => "topic",
        queue_id: i32 => "queueId",
        committed: bool => "committed" or true,
    }

    /// Of `GET_MIN_OFFSET`.
    GetMinOffsetRequestHeader<'a> {
        topic: &'a str => "topic",
        queue_id: i32 => "queueId",
    }

    /// Of `GET_EARLIEST_MSG_STORETIME`.
    GetEarliestMsgStoretimeRequestHeader<'a> {
        topic: &'a str => "topic",
        queue_id: i32 => "queueId",
    }

    /// The answer to `QUERY_CONSUMER_OFFSET`, `SEARCH_OFFSET_BY_TIMESTAMP`, `GET_MAX_OFFSET` and
    /// `GET_MIN_OFFSET`, which upstream are four classes alike.
    OffsetResponseHeader {
        offset: i64 => "offset",
    }

    /// The answer to `GET_EARLIEST_MSG_STORETIME`.
    GetEarliestMsgStoretimeResponseHeader {
        /// Milliseconds, -1 for none.
        timestamp: i64 => "timestamp",
    }

    /// Of `RESET_CONSUMER_CLIENT_OFFSET` and `INVOKE_BROKER_TO_RESET_OFFSET`.
    ResetOffsetRequestHeader<'a> {
        group: &'a str => "group",
        topic: &'a str => "topic",
        queue_id: i32 => "queueId" or -1,
        offset: Option<i64> => "offset",
        timestamp: i64 => "timestamp",
        is_force: bool => "isForce",
    }
}

//! Looking messages up: 12 and 33, and an index entry's neighbours: 321.

use super::macros::headers;

headers! {
    /// Of `QUERY_MESSAGE`.
    QueryMessageRequestHeader<'a> {
        topic: &'a str => "topic",
        key: &'a str => "key",
        max_num: i32 => "maxNum",
        /// Store time in milliseconds, inclusive.
        begin_timestamp: i64 => "beginTimestamp",
        /// Store time in milliseconds, inclusive.
        end_timestamp: i64 => "endTimestamp",
        /// `key` is a unique key, not a business key.
        unique_key_query: Option<bool> => "_UNIQUE_KEY_QUERY",
    }

    /// The answer.
    QueryMessageResponseHeader {
        index_last_update_timestamp: i64 => "indexLastUpdateTimestamp",
        index_last_update_phyoffset: i64 => "indexLastUpdatePhyoffset",
    }

    /// Of `VIEW_MESSAGE_BY_ID`.
    ViewMessageRequestHeader<'a> {
        topic: Option<&'a str> => "topic",
        /// Physical offset.
        offset: i64 => "offset",
    }

    /// Of `QUERY_CONSUME_QUEUE`.
    QueryConsumeQueueRequestHeader<'a> {
        topic: &'a str => "topic",
        queue_id: i32 => "queueId",
        index: i64 => "index",
        count: i32 => "count",
        consumer_group: Option<&'a str> => "consumerGroup",
    }
}

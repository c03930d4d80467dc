//! Sending messages: 10, 310, 320, 324, 325 and 36.

use super::macros::headers;
use crate::code::RequestCode;
use crate::error::HeaderError;
use crate::view::CommandView;

headers! {
    /// Of [`RequestCode::SEND_MESSAGE`] and [`RequestCode::SEND_REPLY_MESSAGE`], and the common
    /// form of both versions: see [`from_view`](Self::from_view).
    #[derive(Default)]
    SendMessageRequestHeader<'a> {
        producer_group: &'a str => "producerGroup",
        topic: &'a str => "topic",
        /// Topic whose settings a topic gets that is created by this message.
        default_topic: &'a str => "defaultTopic",
        default_topic_queue_nums: i32 => "defaultTopicQueueNums",
        /// Negative: the broker chooses.
        queue_id: i32 => "queueId",
        sys_flag: i32 => "sysFlag",
        /// Milliseconds since 1970.
        born_timestamp: i64 => "bornTimestamp",
        flag: i32 => "flag",
        /// `name\x01value\x02` repeated.
        properties: Option<&'a str> => "properties",
        reconsume_times: Option<i32> => "reconsumeTimes",
        unit_mode: Option<bool> => "unitMode",
        batch: Option<bool> => "batch",
        max_reconsume_times: Option<i32> => "maxReconsumeTimes",
    }

    /// Of [`RequestCode::SEND_MESSAGE_V2`], [`RequestCode::SEND_BATCH_MESSAGE`] and
    /// [`RequestCode::SEND_REPLY_MESSAGE_V2`]: the same with one-letter names.
    #[derive(Default)]
    SendMessageRequestHeaderV2<'a> {
        producer_group: &'a str => "a",
        topic: &'a str => "b",
        default_topic: &'a str => "c",
        default_topic_queue_nums: i32 => "d",
        queue_id: i32 => "e",
        sys_flag: i32 => "f",
        born_timestamp: i64 => "g",
        flag: i32 => "h",
        properties: Option<&'a str> => "i",
        reconsume_times: Option<i32> => "j",
        unit_mode: Option<bool> => "k",
        max_reconsume_times: Option<i32> => "l",
        batch: Option<bool> => "m",
        broker_name: Option<&'a str> => "n",
    }

    /// The answer to every kind of send.
    #[derive(Default)]
    SendMessageResponseHeader<'a> {
        /// Offset message id; of a batch a comma-joined list.
        msg_id: &'a str => "msgId",
        queue_id: i32 => "queueId",
        /// Of a batch the first message's.
        queue_offset: i64 => "queueOffset",
        /// The unique key.
        transaction_id: Option<&'a str> => "transactionId",
        batch_uniq_id: Option<&'a str> => "batchUniqId",
        recall_handle: Option<&'a str> => "recallHandle",
    }

    /// What every answer to a send carries beside its own header
    /// (`AbstractSendMessageProcessor`).
    SendRegionHeader<'a> {
        /// The broker's region.
        msg_region: &'a str => "MSG_REGION",
        /// Whether clients trace.
        trace_on: bool => "TRACE_ON",
    }

    /// Of [`RequestCode::CONSUMER_SEND_MSG_BACK`].
    ConsumerSendMsgBackRequestHeader<'a> {
        /// Physical offset of the message.
        offset: i64 => "offset",
        group: &'a str => "group",
        /// Negative: to the dead letters; 0: the broker chooses.
        delay_level: i32 => "delayLevel",
        origin_msg_id: Option<&'a str> => "originMsgId",
        origin_topic: Option<&'a str> => "originTopic",
        unit_mode: Option<bool> => "unitMode",
        max_reconsume_times: Option<i32> => "maxReconsumeTimes",
    }

    /// Of [`RequestCode::END_TRANSACTION`].
    EndTransactionRequestHeader<'a> {
        topic: Option<&'a str> => "topic",
        producer_group: &'a str => "producerGroup",
        tran_state_table_offset: i64 => "tranStateTableOffset",
        commit_log_offset: i64 => "commitLogOffset",
        /// 0 unknown, 8 commit, 12 rollback.
        commit_or_rollback: i32 => "commitOrRollback",
        from_transaction_check: bool => "fromTransactionCheck" or false,
        msg_id: &'a str => "msgId",
        transaction_id: Option<&'a str> => "transactionId",
    }
}

impl<'a> SendMessageRequestHeader<'a> {
    /// The header of any send request, in the version that its code stands for. A request of
    /// [`RequestCode::SEND_BATCH_MESSAGE`] is a batch whatever its field `m` says.
    ///
    /// # Errors
    /// A field is missing or of another type.
    pub fn from_view(view: &CommandView<'a>) -> Result<Self, HeaderError> {
        match view.request_code() {
            RequestCode::SEND_MESSAGE | RequestCode::SEND_REPLY_MESSAGE => view.header(),
            code => {
                let mut header = Self::from(view.header::<SendMessageRequestHeaderV2<'a>>()?);
                if code == RequestCode::SEND_BATCH_MESSAGE {
                    header.batch = Some(true);
                }
                Ok(header)
            }
        }
    }
}

impl<'a> From<SendMessageRequestHeaderV2<'a>> for SendMessageRequestHeader<'a> {
    fn from(header: SendMessageRequestHeaderV2<'a>) -> Self {
        Self {
            producer_group: header.producer_group,
            topic: header.topic,
            default_topic: header.default_topic,
            default_topic_queue_nums: header.default_topic_queue_nums,
            queue_id: header.queue_id,
            sys_flag: header.sys_flag,
            born_timestamp: header.born_timestamp,
            flag: header.flag,
            properties: header.properties,
            reconsume_times: header.reconsume_times,
            unit_mode: header.unit_mode,
            batch: header.batch,
            max_reconsume_times: header.max_reconsume_times,
        }
    }
}

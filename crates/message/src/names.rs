//! Names that RocketMQ gives meaning to, as they stand in records.

/// Names of properties (RocketMQ 5.3.3 `MessageConst`).
pub mod property {
    /// Keys for the index, separated by one space.
    pub const KEYS: &str = "KEYS";
    /// The tag that subscriptions select by.
    pub const TAGS: &str = "TAGS";
    /// `false`: the sender does not wait for flush and replication. Absent means `true`.
    pub const WAIT: &str = "WAIT";
    /// Delay level, 1 or more.
    pub const DELAY: &str = "DELAY";
    /// Topic from which a retried message came.
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    /// Topic to which a message parked in a system topic belongs.
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    /// Queue to which a message parked in a system topic belongs.
    pub const REAL_QUEUE_ID: &str = "REAL_QID";
    /// `true` on a half message of a transaction.
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    /// Group of the producer of a transaction.
    pub const PRODUCER_GROUP: &str = "PGROUP";
    /// Smallest offset of the queue, added by clients that read.
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    /// Largest offset of the queue, added by clients that read.
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    /// Offset id of the first of a chain of retries.
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    /// How often the message was consumed, when sent back through a producer.
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    /// How often the message may be consumed again.
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    /// Region of the broker, added by it.
    pub const MESSAGE_REGION: &str = "MSG_REGION";
    /// Whether clients shall trace, added by the broker.
    pub const TRACE_ON: &str = "TRACE_ON";
    /// The id that the producing client gave the message.
    pub const UNIQUE_KEY: &str = "UNIQ_KEY";
    /// Number of messages in an inner batch.
    pub const INNER_NUM: &str = "INNER_NUM";
    /// Queue offset of the first message of an inner batch.
    pub const INNER_BASE: &str = "INNER_BASE";
    /// Queue offset of the half message that a transaction's outcome is about.
    pub const TRANSACTION_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
    /// Id of a transaction.
    pub const TRANSACTION_ID: &str = "__transactionId__";
    /// How often the producer of a transaction has been asked for its outcome.
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    /// Seconds before the producer of a transaction is asked first.
    pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    /// Name of the cluster, added by the broker.
    pub const CLUSTER: &str = "CLUSTER";
    /// Names of the light queues (LMQ) the message also belongs to, separated by commas.
    pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
    /// Offsets in those queues, separated by commas.
    pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
    /// Requested delay in seconds.
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    /// Requested delay in milliseconds.
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    /// Requested time of delivery in milliseconds since 1970.
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    /// Time of delivery of a message that is on the timer's wheel.
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    /// Unique key of the timed message to be recalled.
    pub const TIMER_DEL_UNIQUE_KEY: &str = "TIMER_DEL_UNIQKEY";
    /// POP receipt that a message was handed out under.
    pub const POP_CHECK_POINT: &str = "POP_CK";
    /// Key that orders messages: equal keys go to one queue.
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    /// Topic of which a dead letter was a message.
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    /// Unique key of the message that became a dead letter.
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    /// CRC over the record in front of this property, which is the last one.
    pub const CRC32: &str = "__CRC32#";
    /// Properties whose names start so are never stored.
    pub const TRANSIENT_PREFIX: &str = "__RMQ.TRANSIENT.";
}

/// Names of topics (RocketMQ 5.3.3 `TopicValidator`, `MixAll`).
pub mod topic {
    /// Messages that wait for a delay level to pass; queue = level - 1.
    pub const SCHEDULE: &str = "SCHEDULE_TOPIC_XXXX";
    /// Half messages of transactions.
    pub const TRANSACTION_HALF: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
    /// Outcomes of transactions.
    pub const TRANSACTION_OP_HALF: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
    /// Half messages whose outcome nobody told.
    pub const TRANSACTION_CHECK_MAX_TIME: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
    /// Messages that wait for a time.
    pub const TIMER: &str = "rmq_sys_wheel_timer";
    /// Its settings are those of topics created by sending to them.
    pub const AUTO_CREATE: &str = "TBW102";
    /// Traces of clients.
    pub const TRACE: &str = "RMQ_SYS_TRACE_TOPIC";
    /// `%RETRY%` and a consumer group: messages the group could not consume.
    pub const RETRY_PREFIX: &str = "%RETRY%";
    /// `%DLQ%` and a consumer group: messages the group gave up.
    pub const DLQ_PREFIX: &str = "%DLQ%";
    /// Light queues, which have no files in the log of their own.
    pub const LMQ_PREFIX: &str = "%LMQ%";
    /// Topics of the broker itself.
    pub const SYSTEM_PREFIX: &str = "rmq_sys_";
}

//! Pulls (requests 11, 361), with long polling and answers that are sent from where they lie.
//!
//! RocketMQ 5.3.3 `PullMessageProcessor`. A pull that finds nothing new is held, and runs again
//! when a message comes that it wants, or at its deadline.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mmap_core::transfer::{FileRange, Way};
use remoting::body::{MessageModel, SubscriptionGroupConfig, TopicConfig};
use remoting::header::{PullMessageRequestHeader, PullMessageResponseHeader, pull_flag};
use remoting::{CommandView, HeaderWriter, RequestCode, ResponseCode};
use store::{AllMessages, Filter, Get, GetLimits, GetStatus, MessageStore, ReadError, TagFilter};

use super::{Outcome, Refusal, settle};
use crate::broker::Broker;
use crate::config::Transfer;
use crate::hold::Held;
use crate::server::{Content, Exchange, HeldSlot, Reply, ReplyTicket, Resume};
use crate::state::groups::{self, AutoCreate};
use crate::state::topics::perm;

/// The longest that a pull is held, whatever the client asks for.
const HOLD_MAX: Duration = Duration::from_secs(300);

/// Who forbids a pull: `ForbiddenType`.
mod forbidden {
    pub(super) const BROKER: i32 = 1;
    pub(super) const GROUP: i32 = 2;
    pub(super) const TOPIC: i32 = 3;
    pub(super) const BROADCASTING: i32 = 4;
}

/// Answers a pull, or holds it.
///
/// # Errors
/// The pull is refused, with the reason.
pub fn pull(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: PullMessageRequestHeader<'_> = request.header()?;
    let checked = check(broker, request, &header);
    let (topic, group) = match checked {
        Ok(found) => found,
        Err(refused) => return Ok(refuse(exchange, &refused)),
    };
    let wanted = Wanted {
        group: header.consumer_group.to_owned(),
        topic: header.topic.to_owned(),
        queue_id: header.queue_id,
        offset: header.queue_offset,
        limits: GetLimits {
            count_max: usize::try_from(header.max_msg_nums).unwrap_or(0),
            bytes_max: bytes_max(broker, &header),
        },
        filter: filter(broker, &header)?,
        topic_sys_flag: topic.topic_sys_flag,
        group_sys_flag: group.group_sys_flag,
    };
    if header.sys_flag & pull_flag::COMMIT_OFFSET != 0 && header.commit_offset >= 0 {
        broker.offsets.commit(
            &wanted.group,
            &wanted.topic,
            wanted.queue_id,
            header.commit_offset,
        );
    }
    let hold = (header.sys_flag & pull_flag::SUSPEND != 0).then(|| hold_time(broker, &header));
    wanted.answer(broker, exchange, hold)
}

fn bytes_max(broker: &Broker, header: &PullMessageRequestHeader<'_>) -> u64 {
    let limit = broker.config.pull.bytes_max as u64;
    match header.max_msg_bytes {
        Some(bytes) if bytes > 0 => limit.min(u64::from(bytes.unsigned_abs())),
        _ => limit,
    }
}

fn hold_time(broker: &Broker, header: &PullMessageRequestHeader<'_>) -> Duration {
    if !broker.config.pull.long_polling {
        return broker.config.pull.short_polling;
    }
    Duration::from_millis(u64::try_from(header.suspend_timeout_millis).unwrap_or(0)).min(HOLD_MAX)
}

/// A refusal that says who forbids.
struct Refused {
    refusal: Refusal,
    forbidden_type: Option<i32>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            forbidden_type: None,
        }
    }
}

fn forbid(by: i32, remark: impl Into<Cow<'static, str>>) -> Refused {
    Refused {
        refusal: Refusal::new(ResponseCode::NO_PERMISSION, remark),
        forbidden_type: Some(by),
    }
}

fn refuse(exchange: &mut Exchange<'_>, refused: &Refused) -> Reply {
    // Clients fail on a header without the offsets, whatever the code.
    let header = PullMessageResponseHeader {
        forbidden_type: refused.forbidden_type,
        ..Default::default()
    };
    let Refusal { code, remark } = &refused.refusal;
    exchange.write(*code, Some(remark), |writer| writer.header(&header), &[])
}

/// The checks in RocketMQ's order; what they found.
fn check(
    broker: &Broker,
    request: &CommandView<'_>,
    header: &PullMessageRequestHeader<'_>,
) -> Result<(Arc<TopicConfig>, Arc<SubscriptionGroupConfig>), Refused> {
    let (group_name, topic_name) = (header.consumer_group, header.topic);
    if broker.config.identity.permission & perm::READ == 0 {
        let remark = format!(
            "the broker[{}] pulling message is forbidden",
            broker.address.ip()
        );
        return Err(forbid(forbidden::BROKER, remark));
    }
    if request.request_code() == RequestCode::LITE_PULL_MESSAGE && !broker.config.pull.lite_pull {
        return Err(forbid(
            forbidden::BROKER,
            "lite pull is switched off (litePullMessageEnable)",
        ));
    }
    let group = groups::find_or_create(&broker.groups, group_name, auto_create(broker))
        .ok_or_else(|| {
            let remark = format!("subscription group [{group_name}] does not exist");
            Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
        })?;
    if !group.consume_enable {
        let remark = format!("subscription group no permission, {group_name}");
        return Err(forbid(forbidden::GROUP, remark));
    }
    let topic = broker.topics.find(topic_name).ok_or_else(|| {
        let remark = format!("topic[{topic_name}] not exist, apply first please!");
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
    })?;
    if topic.perm & perm::READ == 0 {
        let remark = format!("the topic[{topic_name}] pulling message is forbidden");
        return Err(forbid(forbidden::TOPIC, remark));
    }
    if header.queue_id < 0 || header.queue_id >= topic.read_queue_nums {
        let remark = format!(
            "queueId[{}] is illegal, topic:[{topic_name}] readQueueNums:[{}]",
            header.queue_id, topic.read_queue_nums
        );
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark).into());
    }
    let is_broadcast = broker
        .consumers
        .kind(group_name)
        .is_some_and(|kind| kind.message_model == Some(MessageModel::Broadcasting));
    if is_broadcast && !group.consume_broadcast_enable {
        let remark = format!("the consumer group[{group_name}] can not consume by broadcast way");
        return Err(forbid(forbidden::BROADCASTING, remark));
    }
    Ok((topic, group))
}

/// Whether groups come into being by being named.
pub(super) fn auto_create(broker: &Broker) -> AutoCreate {
    if broker.config.groups.auto_create {
        AutoCreate::Allowed
    } else {
        AutoCreate::SystemOnly
    }
}

/// What a pull wants to see: the header's expression, or what its group subscribed to.
fn filter(broker: &Broker, header: &PullMessageRequestHeader<'_>) -> Result<PullFilter, Refusal> {
    if header.sys_flag & pull_flag::CLASS_FILTER != 0 {
        let remark = "class filters are not supported; subscribe with tags";
        return Err(Refusal::new(
            ResponseCode::SUBSCRIPTION_PARSE_FAILED,
            remark,
        ));
    }
    if header.sys_flag & pull_flag::SUBSCRIPTION != 0 {
        check_type(header.expression_type.unwrap_or("TAG"))?;
        return Ok(PullFilter::of_expression(
            header.subscription.unwrap_or("*"),
        ));
    }
    let (group, topic) = (header.consumer_group, header.topic);
    if broker.consumers.kind(group).is_none() {
        let remark = "the consumer's group info not exist: send a heartbeat first";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark));
    }
    let subscription = broker.consumers.subscription(group, topic).ok_or_else(|| {
        let remark = format!("the consumer's subscription not exist: topic {topic}, group {group}");
        Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark)
    })?;
    if subscription.sub_version < header.sub_version {
        let remark = "the consumer's subscription not latest";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_LATEST, remark));
    }
    check_type(&subscription.expression_type)?;
    if subscription.class_filter_mode {
        let remark = "class filters are not supported; subscribe with tags";
        return Err(Refusal::new(
            ResponseCode::SUBSCRIPTION_PARSE_FAILED,
            remark,
        ));
    }
    Ok(PullFilter::of_expression(&subscription.sub_string))
}

/// Refuses expressions other than tags.
pub(super) fn check_type(expression_type: &str) -> Result<(), Refusal> {
    if expression_type.is_empty() || expression_type == "TAG" {
        return Ok(());
    }
    let remark = format!(
        "The broker does not support consumer to filter message by {expression_type}: only TAG"
    );
    Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
}

/// Which messages a pull wants.
#[derive(Debug, Clone)]
enum PullFilter {
    All,
    Tags(TagFilter),
}

impl PullFilter {
    /// `*`, or tags between `||` (RocketMQ 5.3.3 `FilterAPI.buildSubscriptionData`).
    fn of_expression(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() || text == "*" {
            return Self::All;
        }
        let tags = text
            .split("||")
            .map(str::trim)
            .filter(|tag| !tag.is_empty());
        Self::Tags(TagFilter::new(tags))
    }
}

impl Filter for PullFilter {
    fn matches(&self, tags_code: Option<i64>) -> bool {
        match self {
            Self::All => AllMessages.matches(tags_code),
            Self::Tags(tags) => tags.matches(tags_code),
        }
    }
}

/// What one pull asks for, owned, so that it can be held.
#[derive(Debug)]
struct Wanted {
    group: String,
    topic: String,
    queue_id: i32,
    offset: i64,
    limits: GetLimits,
    filter: PullFilter,
    topic_sys_flag: i32,
    group_sys_flag: i32,
}

impl Wanted {
    /// Reads and answers; with `hold`, waits so long for messages where there are none. A
    /// connection that holds as many pulls as it may is answered at once.
    fn answer(
        self,
        broker: &Arc<Broker>,
        exchange: &mut Exchange<'_>,
        hold: Option<Duration>,
    ) -> Outcome {
        if let Some(reset) = self.reset(broker) {
            return self.answer_with(broker, exchange, hold, Ok(reset));
        }
        let found = match broker.readers.are_there() {
            true => self.read(broker, MessageStore::get_in_memory),
            false => self.read(broker, MessageStore::get),
        };
        match found {
            Err(error) if error.is_not_in_memory() => self.read_aside(broker, exchange, hold),
            found => {
                let found = self.found(broker, found);
                self.answer_with(broker, exchange, hold, found)
            }
        }
    }

    /// Reads where waiting for the device holds up nobody else.
    fn read_aside(
        self,
        broker: &Arc<Broker>,
        exchange: &mut Exchange<'_>,
        hold: Option<Duration>,
    ) -> Outcome {
        let (bytes_max, reader) = (self.limits.bytes_max, Arc::clone(broker));
        broker.read_aside(exchange, bytes_max, move || {
            let found = self.read(&reader, MessageStore::get);
            let found = self.found(&reader, found);
            Box::new(move |exchange| self.answer_with(&reader, exchange, hold, found))
        })
    }

    /// Answers with what was found; or holds the pull where nothing is yet.
    fn answer_with(
        self,
        broker: &Arc<Broker>,
        exchange: &mut Exchange<'_>,
        hold: Option<Duration>,
        found: Result<Found, Refusal>,
    ) -> Outcome {
        let found = found?;
        let got = &found.got;
        let limit = broker.config.network.limits.held_pulls_per_connection_max;
        let hold = hold.filter(|_| waits(got, self.offset));
        let slot = hold.and_then(|time| Some((time, exchange.connection().hold(limit)?)));
        match slot {
            Some((time, slot)) => {
                self.hold(broker, exchange.ticket(), slot, time);
                Ok(Reply::Held)
            }
            None => Ok(self.write(broker, exchange, found)),
        }
    }

    /// What an admin's reset of the group's offset answers, once.
    fn reset(&self, broker: &Broker) -> Option<Found> {
        let Self {
            group,
            topic,
            queue_id,
            ..
        } = self;
        let reset = broker.offsets.take_reset(group, topic, *queue_id)?;
        let min = broker.store.min_offset(topic, *queue_id).unwrap_or(0);
        let max = broker.store.max_offset(topic, *queue_id).unwrap_or(0);
        Some(Found {
            got: Get {
                status: GetStatus::OffsetReset,
                next_offset: reset,
                min_offset: min,
                max_offset: max,
                messages: Default::default(),
            },
            contents: None,
        })
    }

    fn read(&self, broker: &Broker, get: Reading) -> Result<Get, ReadError> {
        let Self {
            topic,
            queue_id,
            offset,
            ..
        } = self;
        get(
            &broker.store,
            topic,
            *queue_id,
            *offset,
            &self.limits,
            &self.filter,
        )
    }

    /// Prepares what was read to be sent.
    fn found(&self, broker: &Broker, read: Result<Get, ReadError>) -> Result<Found, Refusal> {
        let found = read.and_then(|got| {
            let contents = contents(broker, &got)?;
            Ok(Found { got, contents })
        });
        found.map_err(|error| {
            let refusal = Refusal::from(error);
            let reason = || refusal.remark.clone().into_owned();
            broker
                .troubles
                .begin("unreadable", crate::clock::now_ms(), reason);
            refusal
        })
    }

    fn hold(self, broker: &Arc<Broker>, ticket: ReplyTicket, slot: HeldSlot, time: Duration) {
        let (topic, queue_id, offset) = (self.topic.clone(), self.queue_id, self.offset);
        broker.holds.hold(
            &topic,
            queue_id,
            HeldPull {
                wanted: self,
                broker: Arc::clone(broker),
                slot,
                ticket,
                deadline: Instant::now() + time,
            },
        );
        // A message may have come between the look and the hold: which one is not known.
        let max = broker.store.max_offset(&topic, queue_id).unwrap_or(0);
        if max > offset {
            broker.holds.arrived(&topic, queue_id, max, None);
        }
    }

    fn write(&self, broker: &Broker, exchange: &mut Exchange<'_>, found: Found) -> Reply {
        let Found { got, contents } = found;
        broker
            .offsets
            .pulled_to(&self.group, &self.topic, self.queue_id, got.next_offset);
        let code = code_of(&got, self.offset);
        let len = got.messages.byte_len();
        broker.traffic.pulled(got.messages.count() as u64, len);
        let header = PullMessageResponseHeader {
            suggest_which_broker_id: 0,
            next_begin_offset: got.next_offset,
            min_offset: got.min_offset,
            max_offset: got.max_offset,
            topic_sys_flag: Some(self.topic_sys_flag),
            group_sys_flag: Some(self.group_sys_flag),
            ..Default::default()
        };
        let remark = Some(got.status.name());
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let fields = |writer: &mut HeaderWriter<'_>| writer.header(&header);
        match contents {
            Some(contents) => exchange.write_payloads(code, remark, fields, contents, len),
            None => {
                let parts = got.messages.into_parts().into_iter();
                exchange.write_payloads(code, remark, fields, parts.map(Content::Parts), len)
            }
        }
    }
}

/// One of the store's ways to read.
type Reading = fn(&MessageStore, &str, i32, i64, &GetLimits, &dyn Filter) -> Result<Get, ReadError>;

/// What was read for a pull.
struct Found {
    got: Get,
    /// The messages as they are sent; `None`: as slices, many with one call.
    contents: Option<Vec<Content>>,
}

/// Makes of messages what the configured way of sending wants.
///
/// Slices are what suits all of them: neighbours in the log share one, the others share a call, and
/// what was not in memory has been read by the time they are sent.
fn contents(broker: &Broker, got: &Get) -> Result<Option<Vec<Content>>, ReadError> {
    let messages = &got.messages;
    let Transfer::By(way) = broker.config.transfer() else {
        return Ok(None);
    };
    let contents = match way {
        Way::Gather => return Ok(None),
        Way::Map => {
            let slices = messages.owned_slices();
            slices.map(Content::MappedAlone).collect()
        }
        Way::SendFile => match ranges(broker, got)? {
            Some(ranges) => ranges.into_iter().map(Content::File).collect(),
            None => return Ok(None),
        },
        Way::Copy => {
            let Some(ranges) = ranges(broker, got)? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            for range in ranges {
                range.read_to(&mut bytes).map_err(ReadError::Log)?;
            }
            vec![Content::Owned(bytes)]
        }
    };
    Ok(Some(contents))
}

/// The files' ranges of messages; `None` if a file was removed meanwhile, of which the slices stay.
fn ranges(broker: &Broker, got: &Get) -> Result<Option<Vec<FileRange>>, ReadError> {
    match broker.store.file_ranges(&got.messages) {
        Err(ReadError::Gone { .. }) => Ok(None),
        ranges => ranges.map(Some),
    }
}

/// Whether messages may still come at `offset`. A hole in the queue's files is no such place: the
/// client is to go on behind it, and held there a pull would be woken over and over.
fn waits(got: &Get, offset: i64) -> bool {
    got.status != GetStatus::OffsetFoundNull && code_of(got, offset) == ResponseCode::PULL_NOT_FOUND
}

/// RocketMQ 5.3.3 `PullMessageProcessor.composeResponseHeader`.
fn code_of(got: &Get, offset: i64) -> ResponseCode {
    match got.status {
        GetStatus::Found => ResponseCode::SUCCESS,
        GetStatus::NoMatchedMessage | GetStatus::MessageWasRemoving => {
            ResponseCode::PULL_RETRY_IMMEDIATELY
        }
        GetStatus::NoMatchedLogicQueue | GetStatus::NoMessageInQueue if offset != 0 => {
            ResponseCode::PULL_OFFSET_MOVED
        }
        GetStatus::NoMatchedLogicQueue
        | GetStatus::NoMessageInQueue
        | GetStatus::OffsetFoundNull
        | GetStatus::OffsetOverflowOne => ResponseCode::PULL_NOT_FOUND,
        GetStatus::OffsetOverflowBadly | GetStatus::OffsetTooSmall | GetStatus::OffsetReset => {
            ResponseCode::PULL_OFFSET_MOVED
        }
    }
}

/// A pull that waits for messages.
#[derive(Debug)]
pub struct HeldPull {
    wanted: Wanted,
    broker: Arc<Broker>,
    slot: HeldSlot,
    ticket: ReplyTicket,
    deadline: Instant,
}

impl Held for HeldPull {
    fn offset(&self) -> i64 {
        self.wanted.offset
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn matches(&self, tags_code: Option<i64>) -> bool {
        self.wanted.filter.matches(tags_code)
    }

    fn wake(self) {
        let connection = Arc::clone(self.slot.connection());
        // A connection that is closed needs no answer, and a mailbox takes all that can be held.
        let _unanswered = connection.resume(Box::new(self));
    }
}

impl Resume for HeldPull {
    fn ticket(&self) -> ReplyTicket {
        self.ticket
    }

    /// Runs the pull again. Woken early by a message that it then does not get (one that came
    /// between its look and its hold), it is held for the rest of its time.
    fn resume(self: Box<Self>, exchange: &mut Exchange<'_>) -> Reply {
        let Self {
            wanted,
            broker,
            slot,
            deadline,
            ..
        } = *self;
        drop(slot);
        let left = deadline.saturating_duration_since(Instant::now());
        let hold = (!left.is_zero()).then_some(left);
        let outcome = wanted.answer(&broker, exchange, hold);
        settle(exchange, outcome)
    }
}

//! Clients: heartbeats and farewells (34, 35, 46), members of a group (38), queue locks (41, 42).
//!
//! RocketMQ 5.3.3 `ClientManageProcessor`, `ConsumerManageProcessor`, `RebalanceLockManager`.

use std::sync::Arc;
use std::time::Instant;

use message::names::topic as topic_names;
use remoting::body::{
    CheckClientRequestBody, ConsumerData, GetConsumerListByGroupResponseBody, HeartbeatData,
    LockBatchRequestBody, LockBatchResponseBody, UnlockBatchRequestBody,
};
use remoting::header::{
    GetConsumerListByGroupRequestHeader, HeartbeatResponseHeader, UnregisterClientRequestHeader,
};
use remoting::{CommandView, LanguageCode, json};

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::clients::Client;
use crate::clients::consumers::HeartbeatForm;
use crate::server::Exchange;
use crate::state::groups;

/// Request 34: a client says which groups it is in.
///
/// # Errors
/// The body cannot be read.
pub fn heartbeat(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let data: HeartbeatData = json::decode(request.body())?;
    let client = Client {
        id: data.client_id.as_str().into(),
        connection: Arc::clone(exchange.connection()),
        language: request.language().unwrap_or(LanguageCode::Other),
        version: request.version(),
    };
    let form = match (data.heartbeat_fingerprint, data.without_sub) {
        (0, _) => HeartbeatForm::Full,
        (fingerprint, true) => HeartbeatForm::Fingerprint(fingerprint),
        (fingerprint, false) => HeartbeatForm::FullWithFingerprint(fingerprint),
    };
    let now = Instant::now();
    let mut wants_full = form == HeartbeatForm::Full;
    for consumer in data.consumer_data_set {
        wants_full |= register(broker, &client, consumer, form, now);
    }
    for producer in &data.producer_data_set {
        broker
            .producers
            .register(&producer.group_name, &client, now, crate::clock::now_ms());
    }
    let header = HeartbeatResponseHeader {
        is_support_heart_beat_v2: true,
        is_sub_change: wants_full,
    };
    Ok(exchange.header(&header))
}

/// Takes in one group of a heartbeat; whether its subscriptions are to be sent again.
fn register(
    broker: &Broker,
    client: &Client,
    consumer: ConsumerData,
    form: HeartbeatForm,
    now: Instant,
) -> bool {
    let create = super::pull::auto_create(broker);
    let Some(group) = groups::find_or_create(&broker.groups, &consumer.group_name, create) else {
        // As Java: the client finds out by its pulls, which say that the group does not exist.
        return false;
    };
    let name = consumer.group_name.clone();
    let retry_topic = format!("{}{name}", topic_names::RETRY_PREFIX);
    super::send_back::ensure(broker, &retry_topic, group.retry_queue_nums);
    let registered = broker.consumers.register(client, consumer, form, now);
    if registered.changed {
        broker.notify_group(&name);
    }
    registered.wants_full
}

/// Request 35: a client leaves its groups.
///
/// # Errors
/// The header is malformed.
pub fn unregister(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: UnregisterClientRequestHeader<'_> = request.header()?;
    let connection = exchange.connection().id();
    if let Some(group) = header.producer_group {
        broker.producers.unregister(group, connection);
    }
    if let Some(group) = header.consumer_group
        && broker.consumers.unregister(group, connection)
    {
        broker.notify_group(group);
    }
    Ok(exchange.ok())
}

/// Request 46: whether a subscription can be served.
///
/// # Errors
/// It asks for more than tags.
pub fn check(exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
    if !request.body().is_empty() {
        let body: CheckClientRequestBody = json::decode(request.body())?;
        super::pull::check_type(&body.subscription_data.expression_type)?;
    }
    Ok(exchange.ok())
}

/// Request 38: the members of a group.
///
/// # Errors
/// It has none.
pub fn list(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetConsumerListByGroupRequestHeader<'_> = request.header()?;
    let consumer_id_list = broker.consumers.client_ids(header.consumer_group);
    if consumer_id_list.is_empty() {
        let remark = format!("no consumer for this group, {}", header.consumer_group);
        return Err(Refusal::error(remark));
    }
    super::json_body(
        exchange,
        &GetConsumerListByGroupResponseBody { consumer_id_list },
    )
}

/// Request 41: an orderly consumer wants queues for itself; the answer is what it has.
///
/// # Errors
/// The body cannot be read.
pub fn lock(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let body: LockBatchRequestBody = json::decode(request.body())?;
    let now = Instant::now();
    let lock_ok_mq_set = broker
        .locks
        .lock(&body.consumer_group, &body.client_id, body.mq_set, now);
    super::json_body(exchange, &LockBatchResponseBody { lock_ok_mq_set })
}

/// Request 42: it gives them back.
///
/// # Errors
/// The body cannot be read.
pub fn unlock(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let body: UnlockBatchRequestBody = json::decode(request.body())?;
    broker
        .locks
        .unlock(&body.consumer_group, &body.client_id, &body.mq_set);
    Ok(exchange.ok())
}

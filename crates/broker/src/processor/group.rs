//! Consumer groups and connections (200, 201, 203, 204, 207, 328, 352).
//!
//! RocketMQ 5.3.3 `AdminBrokerProcessor`.

use std::sync::Arc;

use remoting::body::{
    Connection as ConnectionInfo, ConsumerConnection, ProducerConnection, ProducerInfo,
    ProducerTableInfo, SubscriptionGroupConfig, SubscriptionGroupWrapper,
};
use remoting::header::{
    DeleteSubscriptionGroupRequestHeader, GetConsumerConnectionListRequestHeader,
    GetProducerConnectionListRequestHeader, GetSubscriptionGroupConfigRequestHeader,
};
use remoting::{CommandView, ResponseCode, json};

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::clients::Client;
use crate::server::Exchange;
use crate::state::groups;

/// Request 200: creates or replaces a group.
///
/// # Errors
/// The name is not allowed.
pub fn update(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let group: SubscriptionGroupConfig = json::decode(request.body())?;
    let name = group.group_name.clone();
    if !groups::is_name(&name) {
        let remark = format!(
            "group name {name:?}: 1 to 120 of the characters ^[%|a-zA-Z0-9_-]+$ are allowed"
        );
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    broker.groups.put(&name, group);
    Ok(exchange.ok())
}

/// Request 201: all groups.
///
/// # Errors
/// Never but for a bug in the encoder.
pub fn all(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    let (data_version, subscription_group_table) = broker.groups.snapshot();
    let forbidden_table = Some(Default::default());
    let body = SubscriptionGroupWrapper {
        data_version,
        forbidden_table,
        subscription_group_table,
    };
    super::json_body(exchange, &body)
}

/// Request 352: one group.
///
/// # Errors
/// It does not exist and cannot be created.
pub fn one(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetSubscriptionGroupConfigRequestHeader<'_> = request.header()?;
    let create = super::pull::auto_create(broker);
    let found = groups::find_or_create(&broker.groups, header.group, create);
    let group = found.ok_or_else(|| {
        let remark = format!("subscription group [{}] does not exist", header.group);
        Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
    })?;
    super::json_body(exchange, &*group)
}

/// Request 207: deletes a group, with its offsets if asked to.
///
/// # Errors
/// The header is malformed.
pub fn delete(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: DeleteSubscriptionGroupRequestHeader<'_> = request.header()?;
    broker.groups.remove(header.group_name);
    if header.clean_offset {
        broker.offsets.remove_group(header.group_name);
    }
    Ok(exchange.ok())
}

/// Request 203: the consumers of a group.
///
/// # Errors
/// It has none.
pub fn consumers(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetConsumerConnectionListRequestHeader<'_> = request.header()?;
    let view = broker
        .consumers
        .view(header.consumer_group)
        .ok_or_else(|| {
            let remark = format!("the consumer group[{}] not online", header.consumer_group);
            Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark)
        })?;
    let subscriptions = view.subscriptions.into_iter();
    let body = ConsumerConnection {
        connection_set: view.clients.iter().map(info).collect(),
        consume_from_where: view.kind.consume_from_where,
        consume_type: view.kind.consume_type,
        message_model: view.kind.message_model,
        subscription_table: subscriptions
            .map(|(topic, subscription)| (topic, (*subscription).clone()))
            .collect(),
    };
    super::json_body(exchange, &body)
}

/// Request 204: the producers of a group.
///
/// # Errors
/// It has none.
pub fn producers(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetProducerConnectionListRequestHeader<'_> = request.header()?;
    let members = broker.producers.members(header.producer_group);
    if members.is_empty() {
        let remark = format!("the producer group[{}] not exist", header.producer_group);
        return Err(Refusal::error(remark));
    }
    let connection_set = members.iter().map(|member| info(&member.client)).collect();
    super::json_body(exchange, &ProducerConnection { connection_set })
}

/// Request 328: all producers.
///
/// # Errors
/// Never but for a bug in the encoder.
pub fn all_producers(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    let mut body = ProducerTableInfo::default();
    for (group, members) in broker.producers.all() {
        let infos = members.iter().map(|member| ProducerInfo {
            client_id: member.client.id.to_string(),
            language: Some(member.client.language.name().to_owned()),
            last_update_timestamp: member.seen_ms,
            remote_ip: format!("/{}", member.client.connection.peer()),
            version: member.client.version,
        });
        body.data.insert(group, infos.collect());
    }
    super::json_body(exchange, &body)
}

fn info(client: &Client) -> ConnectionInfo {
    ConnectionInfo {
        client_addr: client.connection.peer().to_string(),
        client_id: client.id.to_string(),
        language: Some(client.language.name().to_owned()),
        version: client.version,
    }
}

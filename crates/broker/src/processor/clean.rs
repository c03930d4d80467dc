//! Cleaning on demand: old files of the log (329), expired queues (306), queues of topics that are
//! no more (316).
//!
//! RocketMQ 5.3.3 `AdminBrokerProcessor`.

use std::sync::Arc;

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::server::Exchange;
use crate::state::topics;

/// Topics with this prefix are queues of other topics' messages (light message queues), which no
/// topic table knows (`MixAll.LMQ_PREFIX`).
const LMQ_PREFIX: &str = "%LMQ%";

/// Request 329: files of the log that are old enough go in the next rounds of cleaning, whatever
/// the hour.
///
/// # Errors
/// Never.
pub fn expired_log(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    broker.store.clean_manually();
    tracing::info!("a manual delete of the commit log's old files was asked for");
    Ok(exchange.ok())
}

/// Request 306: removes queues all of whose messages have expired; they are numbered anew then.
///
/// # Errors
/// A file cannot be removed.
pub fn expired_queues(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    let keeps = |topic: &str| topics::is_system(&broker.config, topic);
    let count = broker
        .store
        .delete_expired_queues(&keeps)
        .map_err(Refusal::error)?;
    tracing::info!(count, "expired queues are removed");
    Ok(exchange.ok())
}

/// Request 316: removes queues of topics that are not in the topic table.
///
/// # Errors
/// A file cannot be removed.
pub fn unused_topics(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    let is_unused = |topic: &String| {
        broker.topics.find(topic).is_none()
            && !topics::is_system(&broker.config, topic)
            && !topic.starts_with(LMQ_PREFIX)
    };
    let mut topics = broker.store.topics();
    topics.extend(broker.store.batch_topics());
    for topic in topics.into_keys().filter(is_unused) {
        broker.store.delete_topic(&topic).map_err(Refusal::error)?;
        tracing::info!(topic, "queues of a topic that is no more are removed");
    }
    Ok(exchange.ok())
}

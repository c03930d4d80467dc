//! Looking messages up: by key (12) and by their place in the log (33).
//!
//! RocketMQ 5.3.3 `QueryMessageProcessor`.

use std::sync::Arc;

use remoting::header::{
    QueryMessageRequestHeader, QueryMessageResponseHeader, ViewMessageRequestHeader,
};
use remoting::{CommandView, ResponseCode};
use store::KeyQuery;

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::server::{Content, Exchange};

/// Request 12: the messages of a key, stored in a time range.
///
/// # Errors
/// There are none, or there is no index.
pub fn by_key(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: QueryMessageRequestHeader<'_> = request.header()?;
    let wanted = usize::try_from(header.max_num).unwrap_or(0);
    let count_max = match header.unique_key_query {
        Some(true) => broker.config.pull.query_count_default,
        _ => wanted,
    };
    let query = KeyQuery {
        topic: header.topic,
        key: header.key,
        count_max,
        begin_ms: header.begin_timestamp,
        end_ms: header.end_timestamp,
    };
    let answer = broker.store.query(&query)?;
    if answer.messages.is_empty() {
        let remark = "can not find message, maybe time range not correct";
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
    }
    let response = QueryMessageResponseHeader {
        index_last_update_timestamp: answer.index_last_update_ms,
        index_last_update_phyoffset: answer.index_last_update_offset.cast_signed(),
    };
    let len = usize::try_from(answer.messages.byte_len()).unwrap_or(usize::MAX);
    let payloads = answer
        .messages
        .into_slices()
        .into_iter()
        .map(Content::Mapped);
    let fields = |writer: &mut remoting::HeaderWriter<'_>| writer.header(&response);
    Ok(exchange.write_payloads(ResponseCode::SUCCESS, None, fields, payloads, len))
}

/// Request 33: the message at a log offset.
///
/// # Errors
/// No message starts there.
pub fn by_offset(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: ViewMessageRequestHeader<'_> = request.header()?;
    let record = match u64::try_from(header.offset) {
        Ok(at) => broker.store.record_at(at)?,
        Err(_) => None,
    };
    let record = record.ok_or_else(|| {
        Refusal::error(format!(
            "can not find message by the offset, {}",
            header.offset
        ))
    })?;
    let len = record.len();
    let payload = [Content::Mapped(record)];
    Ok(exchange.write_payloads(ResponseCode::SUCCESS, None, |_| (), payload, len))
}

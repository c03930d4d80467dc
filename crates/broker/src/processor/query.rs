//! Looking messages up: by key (12) and by their place in the log (33).
//!
//! RocketMQ 5.3.3 `QueryMessageProcessor`.

use std::sync::Arc;

use mmap_core::MapSlice;
use remoting::header::{
    QueryMessageRequestHeader, QueryMessageResponseHeader, ViewMessageRequestHeader,
};
use remoting::{CommandView, ResponseCode};
use store::{KeyAnswer, KeyQuery};

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::server::{Content, Exchange};

/// What a look-up counts for among the bytes of cold reads.
const ASIDE_LEN: u64 = 256 * 1024;

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
    let (topic, key) = (header.topic.to_owned(), header.key.to_owned());
    let (begin_ms, end_ms) = (header.begin_timestamp, header.end_timestamp);
    let reader = Arc::clone(broker);
    // Slots, entries and messages lie all over files that nobody else reads.
    broker.read_aside(exchange, ASIDE_LEN, move || {
        let answer = reader.store.query(&KeyQuery {
            topic: &topic,
            key: &key,
            count_max,
            begin_ms,
            end_ms,
        });
        Box::new(move |exchange| write_found(exchange, answer?))
    })
}

fn write_found(exchange: &mut Exchange<'_>, answer: KeyAnswer) -> Outcome {
    if answer.messages.is_empty() {
        let remark = "can not find message, maybe time range not correct";
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
    }
    let response = QueryMessageResponseHeader {
        index_last_update_timestamp: answer.index_last_update_ms,
        index_last_update_phyoffset: answer.index_last_update_offset.cast_signed(),
    };
    let len = usize::try_from(answer.messages.byte_len()).unwrap_or(usize::MAX);
    let payloads = answer.messages.into_parts().into_iter().map(Content::Parts);
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
    let (offset, reader) = (header.offset, Arc::clone(broker));
    broker.read_aside(exchange, ASIDE_LEN, move || {
        let found = match u64::try_from(offset) {
            Ok(at) => reader.store.record_at(at),
            Err(_) => Ok(None),
        };
        Box::new(move |exchange| write_record(exchange, offset, found?))
    })
}

fn write_record(exchange: &mut Exchange<'_>, offset: i64, record: Option<MapSlice>) -> Outcome {
    let record = record
        .ok_or_else(|| Refusal::error(format!("can not find message by the offset, {offset}")))?;
    let len = record.len();
    let payload = [Content::Mapped(record)];
    Ok(exchange.write_payloads(ResponseCode::SUCCESS, None, |_| (), payload, len))
}

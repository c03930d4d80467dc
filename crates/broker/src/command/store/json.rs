//! The JSON forms of what the tools find. docs/tools.md describes them; fields are added, never
//! renamed.

use std::path::Path;

use message::{MessageId, Parsed, RecordView};
use serde_json::{Map, Value, json};
use store::offline::{Finding, RecordBytes, Shape, Totals};

/// A finding of `verify`.
pub(super) fn finding(finding: &Finding) -> Value {
    let mut value = json!({
        "type": "finding",
        "severity": finding.severity.name(),
        "kind": finding.kind.name(),
        "part": finding.part.name(),
        "path": path(&finding.path),
        "position": finding.position,
        "len": finding.len,
        "count": finding.count,
        "logOffset": finding.log_offset,
        "detail": finding.detail,
    });
    if let (Some(place), Value::Object(fields)) = (&finding.queue, &mut value) {
        fields.insert("topic".to_owned(), json!(place.topic));
        fields.insert("queueId".to_owned(), json!(place.queue_id));
        fields.insert("firstQueueOffset".to_owned(), json!(place.first));
        fields.insert("lastQueueOffset".to_owned(), json!(place.last));
    }
    value
}

/// How many findings there are.
pub(super) fn totals(totals: &Totals) -> Value {
    json!({
        "errors": totals.errors,
        "warnings": totals.warnings,
        "infos": totals.infos,
        "unreadable": totals.unreadable,
    })
}

/// The sizes of a store's files, under the names of a broker.conf.
pub(super) fn shape(shape: &Shape) -> Value {
    json!({
        "mappedFileSizeCommitLog": shape.segment_len,
        "mappedFileSizeConsumeQueue": shape.queue_file_len,
        "mappedFileSizeConsumeQueueExt": shape.extension_file_len,
        "mapperFileSizeBatchConsumeQueue": shape.batch_queue_file_len,
        "maxHashSlotNum": shape.index_slot_count,
        "maxIndexNum": shape.index_entry_count_max,
    })
}

/// What stands where a record was looked for.
pub(super) fn record_bytes(record: &RecordBytes) -> Value {
    let mut value = json!({
        "path": path(&record.path),
        "position": record.position,
        "logOffset": record.log_offset,
    });
    let Value::Object(fields) = &mut value else {
        return value;
    };
    match RecordView::parse(&record.bytes) {
        Ok(Parsed::Record(view)) => {
            fields.insert("what".to_owned(), json!("record"));
            fields.insert("record".to_owned(), record_fields(&view));
        }
        Ok(Parsed::Blank { size }) => {
            fields.insert("what".to_owned(), json!("blank"));
            fields.insert("size".to_owned(), json!(size));
        }
        Err(error) => {
            fields.insert("what".to_owned(), json!("none"));
            fields.insert("reason".to_owned(), json!(error.to_string()));
            let shown = record.bytes.get(..64).unwrap_or(&record.bytes);
            fields.insert("bytes".to_owned(), json!(hex(shown)));
        }
    }
    value
}

/// A record's header and properties, and whether its CRCs are right.
fn record_fields(view: &RecordView<'_>) -> Value {
    let mut value = message(view, view.queue_offset());
    if let Value::Object(fields) = &mut value {
        let body = view.verify_body_crc();
        fields.insert("bodyCrc".to_owned(), json!(view.body_crc()));
        fields.insert("bodyCrcOk".to_owned(), json!(body.is_ok()));
        let property = view
            .properties()
            .find(message::names::property::CRC32)
            .map(|_| view.verify_crc_property().is_ok());
        fields.insert("crcPropertyOk".to_owned(), json!(property));
        let version = match view.version() {
            message::layout::Version::V1 => 1,
            message::layout::Version::V2 => 2,
        };
        fields.insert("version".to_owned(), json!(version));
        let (name, body) = body_field(view.body());
        fields.insert(name.to_owned(), json!(body));
    }
    value
}

/// A message without its body, at its place in a queue.
pub(super) fn message(view: &RecordView<'_>, queue_offset: i64) -> Value {
    let fields = view.dispatch_fields();
    let keys: Vec<&str> = fields
        .keys
        .unwrap_or_default()
        .split(' ')
        .filter(|key| !key.is_empty())
        .collect();
    let id = MessageId {
        host: view.store_host(),
        physical_offset: view.physical_offset(),
    };
    json!({
        "topic": view.topic(),
        "queueId": view.queue_id(),
        "queueOffset": queue_offset,
        "logOffset": view.physical_offset(),
        "size": view.total_size(),
        "offsetMsgId": &*id.text(),
        "uniqKey": fields.unique_key,
        "keys": keys,
        "tags": fields.tags.map(String::from_utf8_lossy),
        "flag": view.flag(),
        "sysFlag": view.sys_flag().0,
        "bornTimestamp": view.born_timestamp_ms(),
        "bornHost": view.born_host().to_string(),
        "storeTimestamp": view.store_timestamp_ms(),
        "storeHost": view.store_host().to_string(),
        "reconsumeTimes": view.reconsume_times(),
        "preparedTransactionOffset": view.prepared_transaction_offset(),
        "bodyLen": view.body().len(),
        "properties": properties(message::Properties::new(view.properties().bytes())),
    })
}

/// Properties as a map; of equal names the last counts, as for clients.
pub(super) fn properties(properties: message::Properties<'_>) -> Value {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let pairs = properties.iter();
    let map: Map<String, Value> = pairs
        .map(|(name, value)| (text(name), Value::String(text(value))))
        .collect();
    Value::Object(map)
}

/// A body as text if it is UTF-8, else in base64; and the name of the field that says so.
pub(super) fn body_field(body: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(body) {
        Ok(text) => ("body", text.to_owned()),
        Err(_) => ("bodyBase64", base64(body)),
    }
}

/// A path as text.
pub(super) fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        for place in 0..4 {
            let digit = group >> (18 - 6 * place) & 0x3f;
            text.push(match DIGITS.get(digit as usize) {
                Some(digit) if place <= chunk.len() => char::from(*digit),
                _ => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}

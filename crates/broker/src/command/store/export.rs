//! `foliomq store export`.

use std::io::{BufWriter, Read, Write};
use std::ops::ControlFlow;

use anyhow::Result;
use flate2::read::ZlibDecoder;
use message::{Compression, RecordView};
use mmap_core::OsIo;
use serde_json::{Value, json};
use store::offline::{self, ExportRange};

use super::{CLEAN, json, options, write_line};
use crate::cli::store::ExportFlags;
use crate::progress::Bar;

/// Longest body that is inflated, in bytes.
const INFLATED_LEN_MAX: u64 = 64 << 20;

/// Prints each message as a line of JSON.
pub(super) fn run(flags: &ExportFlags) -> Result<u8> {
    let options = options(&flags.store)?;
    let range = ExportRange {
        topic: flags.topic.as_deref(),
        queue_id: flags.queue,
        key: flags.key.as_deref(),
        from_ms: flags.from,
        until_ms: flags.until,
        from_queue_offset: flags.from_queue_offset,
        until_queue_offset: flags.until_queue_offset,
        from_log_offset: flags.from_offset,
        until_log_offset: flags.until_offset,
        scan_log: flags.scan,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut left = flags.count.unwrap_or(u64::MAX);
    let bar = Bar::new();
    let mut take = |view: &RecordView<'_>, queue_offset: i64| {
        for message in messages(view, queue_offset, flags.decompress) {
            if left == 0 {
                return Ok(ControlFlow::Break(()));
            }
            left -= 1;
            write_line(&mut out, &message)?;
        }
        Ok(if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    };
    let report = offline::export(&OsIo, &options, &range, &mut take, &bar)?;
    bar.clear();
    out.flush()?;
    if report.missing_count > 0 || report.damaged_len > 0 {
        tracing::warn!(
            missing = report.missing_count,
            damaged_bytes = report.damaged_len,
            "some messages cannot be read: `foliomq store verify` says which"
        );
    }
    Ok(CLEAN)
}

/// The messages of a record: one, or those of a batch that is stored as one record.
fn messages(view: &RecordView<'_>, queue_offset: i64, decompress: bool) -> Vec<Value> {
    let outer = json::message(view, queue_offset);
    let Some(batch) = view.inner_batch() else {
        return vec![with_body(outer, view, decompress)];
    };
    let inner = (queue_offset..).zip(batch.iter().map_while(Result::ok));
    inner
        .map(|(queue_offset, message)| {
            let properties = message::Properties::new(message.properties);
            let mut value = outer.clone();
            if let Value::Object(fields) = &mut value {
                let own = message::DispatchFields::new(properties);
                let keys: Vec<&str> = own.keys.unwrap_or_default().split(' ').collect();
                let (name, body) = json::body_field(message.body);
                for (name, value) in [
                    ("queueOffset", json!(queue_offset)),
                    ("flag", json!(message.flag)),
                    ("bodyLen", json!(message.body.len())),
                    ("properties", json::properties(properties)),
                    ("uniqKey", json!(own.unique_key)),
                    ("keys", json!(keys)),
                    ("tags", json!(own.tags.map(String::from_utf8_lossy))),
                    (name, json!(body)),
                ] {
                    fields.insert(name.to_owned(), value);
                }
            }
            value
        })
        .collect()
}

fn with_body(mut value: Value, view: &RecordView<'_>, decompress: bool) -> Value {
    let inflated = match view.sys_flag().compression() {
        Some(Compression::Zlib) if decompress => inflate(view.body()),
        _ => None,
    };
    if let Value::Object(fields) = &mut value {
        let is_compressed = view.sys_flag().compression().is_some() && inflated.is_none();
        let (name, body) = json::body_field(inflated.as_deref().unwrap_or(view.body()));
        fields.insert(name.to_owned(), json!(body));
        fields.insert("compressed".to_owned(), json!(is_compressed));
    }
    value
}

/// The body as the producer had it; `None` when it is no zlib stream, or too long.
fn inflate(body: &[u8]) -> Option<Vec<u8>> {
    let mut inflated = Vec::new();
    let mut decoder = ZlibDecoder::new(body).take(INFLATED_LEN_MAX + 1);
    decoder.read_to_end(&mut inflated).ok()?;
    (inflated.len() as u64 <= INFLATED_LEN_MAX).then_some(inflated)
}

//! Looking messages up: by key over a time range, by offset.

use commitlog::CommitLog;
use indexfile::{IndexError, IndexService};
use message::{Parsed, RecordView};
use mmap_core::{Io, MapSlice, OsIo};

use crate::error::ReadError;
use crate::messages::Messages;

/// Messages of one query at most (RocketMQ: `maxMsgsNumBatch`).
pub const QUERY_COUNT_MAX: usize = 64;

/// A query by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyQuery<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key: one of KEYS, or the unique key.
    pub key: &'a str,
    /// Messages at most; [`QUERY_COUNT_MAX`] whatever is asked for.
    pub count_max: usize,
    /// Stored at this time or later, ms.
    pub begin_ms: i64,
    /// Stored at this time or earlier, ms.
    pub end_ms: i64,
}

/// The answer to a query by key.
#[derive(Debug)]
pub struct KeyAnswer<I: Io = OsIo> {
    /// The messages, oldest first. Of more than asked for, the newest.
    pub messages: Messages<I>,
    /// Store time of the last message in the index, ms; 0 for an empty index.
    pub index_last_update_ms: i64,
    /// Log offset of the last message in the index; 0 for an empty index.
    pub index_last_update_offset: u64,
}

/// Finds the messages of a key. The index names candidates by hash; each is compared with the
/// key itself and the exact time, which RocketMQ 5.3.3 leaves to the client.
pub(crate) fn by_key<I: Io>(
    log: &CommitLog<I>,
    index: &IndexService<I>,
    query: &KeyQuery<'_>,
) -> Result<KeyAnswer<I>, ReadError> {
    let KeyQuery {
        topic,
        key,
        begin_ms,
        end_ms,
        ..
    } = *query;
    let count_max = query.count_max.min(QUERY_COUNT_MAX);
    let mut candidates = index.query(topic, key, usize::MAX, begin_ms, end_ms)?;
    // Newest first; a message whose KEYS hold the key twice is found twice.
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    candidates.dedup();
    let mut found: Vec<MapSlice<I::Map>> = Vec::new();
    for offset in candidates {
        if found.len() == count_max {
            break;
        }
        match log.record_at(offset) {
            Ok(slice) if has_key(&slice, query) => found.push(slice),
            Err(commitlog::ReadError::Device(error)) => return Err(ReadError::Log(error)),
            Ok(_) | Err(_) => {}
        }
    }
    if found.is_empty() && index.is_poisoned() {
        // It may be one of those that were not indexed since.
        return Err(IndexError::Poisoned.into());
    }
    found.reverse();
    let mut messages = Messages::default();
    for slice in found {
        messages.push(&slice, 0..slice.len());
    }
    let last = index.last_update();
    Ok(KeyAnswer {
        messages,
        index_last_update_ms: last.map_or(0, |last| last.timestamp_ms),
        index_last_update_offset: last.map_or(0, |last| last.physical_offset),
    })
}

fn has_key(record: &[u8], query: &KeyQuery<'_>) -> bool {
    let Ok(Parsed::Record(view)) = RecordView::parse(record) else {
        return false;
    };
    // Up to now nobody has looked at its body.
    view.verify_body_crc().is_ok()
        && view.topic() == query.topic
        && (query.begin_ms..=query.end_ms).contains(&view.store_timestamp_ms())
        && view
            .dispatch_fields()
            .index_keys()
            .any(|key| key == query.key)
}

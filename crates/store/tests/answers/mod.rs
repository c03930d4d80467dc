//! Opens a golden store with the sizes it was written with, and compares what ours answers with
//! what Java answered and with the records themselves.
//!
//! A test file takes this in with `mod answers;` beside `mod golden;`.

#![allow(dead_code, reason = "each test file uses the part it needs")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and looks at the real files"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use message::{Parsed, RecordView};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::{
    AllMessages, Boundary, GetLimits, GetStatus, IndexOptions, KeyQuery, MessageStore, OpenReport,
    StoreOptions,
};

use crate::golden::GoldenSet;

/// The options of a set's `broker.conf`.
pub(crate) fn options(set: &GoldenSet) -> StoreOptions {
    let number = |key: &str| -> u64 {
        let text = set
            .setting(key)
            .unwrap_or_else(|| panic!("{key} in broker.conf"));
        text.parse()
            .unwrap_or_else(|error| panic!("{key}={text}: {error}"))
    };
    let is_on = |key: &str| set.setting(key).as_deref() == Some("true");
    let mut options = StoreOptions::new(set.store_dir());
    options.extension_file_len = number("mappedFileSizeConsumeQueueExt");
    options.writes_extensions = is_on("enableConsumeQueueExt");
    options.dispatches_light_queues = is_on("enableMultiDispatch");
    options.segment_len = number("mappedFileSizeCommitLog");
    let is_set = |key: &str| set.setting(key).as_deref() == Some("true");
    options.queue_file_len = number("mappedFileSizeConsumeQueue");
    options.extension_file_len = number("mappedFileSizeConsumeQueueExt");
    options.writes_extensions = is_set("enableConsumeQueueExt");
    options.dispatches_light_queues = is_set("enableMultiDispatch");
    options.index = Some(IndexOptions {
        slot_count: number("maxHashSlotNum") as u32,
        entry_count_max: number("maxIndexNum") as u32,
        ..IndexOptions::DEFAULT
    });
    options
}

pub(crate) fn open(set: &GoldenSet) -> (MessageStore, OpenReport) {
    MessageStore::open(options(set)).unwrap()
}

/// One record of the log as the set's description has it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) topic: String,
    pub(crate) queue_id: i32,
    pub(crate) queue_offset: i64,
    store_timestamp_ms: i64,
    /// Whether a queue holds it: half and rolled back messages stand in none.
    is_queued: bool,
    /// The light queues that hold it, too, each with its place in it.
    pub(crate) light_places: Vec<(String, i64)>,
    keys: Vec<String>,
    hash: String,
}

/// Every record of the undamaged log.
pub(crate) fn records(set: &GoldenSet) -> Vec<Record> {
    set.records().iter().map(Record::new).collect()
}

impl Record {
    fn new(value: &Value) -> Self {
        let number = |name: &str| value[name].as_i64().unwrap();
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let properties: HashMap<String, String> = text("properties")
            .split('\u{2}')
            .filter_map(|pair| pair.split_once('\u{1}'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut keys: Vec<String> = properties.get("UNIQ_KEY").cloned().into_iter().collect();
        let listed = properties.get("KEYS").map_or("", String::as_str);
        keys.extend(
            listed
                .split(' ')
                .filter(|key| !key.is_empty())
                .map(str::to_owned),
        );
        let list = |name: &str| properties.get(name).map_or("", String::as_str).split(',');
        let light_places = list("INNER_MULTI_DISPATCH")
            .zip(list("INNER_MULTI_QUEUE_OFFSET"))
            .filter_map(|(name, offset)| Some((name.to_owned(), offset.parse().ok()?)))
            .collect();
        let offset = number("offset") as u64;
        Self {
            light_places,
            offset,
            end: offset + number("size") as u64,
            topic: text("topic"),
            queue_id: number("queueId") as i32,
            queue_offset: number("queueOffset"),
            store_timestamp_ms: number("storeTimestamp"),
            is_queued: matches!(number("sysFlag") & 0xC, 0 | 0x8),
            keys,
            hash: text("recordSha256"),
        }
    }
}

/// Each of these records is in the log with every byte, in its queue at its offset, and found by
/// each of its keys; and the queues hold nothing else.
pub(crate) fn check_records(store: &MessageStore, records: &[Record]) {
    let mut by_key: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    for record in records {
        let slice = store
            .look_up(record.offset)
            .unwrap_or_else(|| panic!("no record at {}", record.offset));
        let hash = format!("{:x}", Sha256::digest(&*slice));
        assert_eq!(hash, record.hash, "record at {}", record.offset);
        if record.is_queued {
            check_place(store, record);
        }
        for key in &record.keys {
            let places = by_key.entry((&record.topic, key)).or_default();
            places.push(record.offset as i64);
        }
    }
    check_queue_contents(store, records);
    for ((topic, key), mut places) in by_key {
        places.sort_unstable();
        places.dedup();
        let newest = places.len().saturating_sub(store::QUERY_COUNT_MAX);
        let query = KeyQuery {
            topic,
            key,
            count_max: store::QUERY_COUNT_MAX,
            begin_ms: 0,
            end_ms: i64::MAX,
        };
        let found = found(&store.query(&query).unwrap());
        assert_eq!(found, places[newest..], "key {key} of {topic}");
    }
}

/// Whether the record's place holds a record of its topic: what fills a hole has a topic of its own.
pub(crate) fn holds(store: &MessageStore, record: &Record) -> bool {
    store.look_up(record.offset).is_some_and(|slice| {
        matches!(RecordView::parse(&slice), Ok(Parsed::Record(view)) if view.topic() == record.topic)
    })
}

/// Read from end to end, the queues hold these records in order, each once, and nothing else.
fn check_queue_contents(store: &MessageStore, records: &[Record]) {
    let mut expected: BTreeMap<(&str, i32), Vec<i64>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.is_queued) {
        let queue = expected.entry((&record.topic, record.queue_id));
        queue.or_default().push(record.queue_offset);
    }
    for ((topic, queue_id), offsets) in expected {
        let mut read = Vec::new();
        let mut next = store.min_offset(topic, queue_id).unwrap();
        let limits = GetLimits {
            count_max: 32,
            bytes_max: 1 << 20,
        };
        while next < store.max_offset(topic, queue_id).unwrap() {
            let got = store
                .get(topic, queue_id, next, &limits, &AllMessages)
                .unwrap();
            read.extend(got.messages.records().map(|view| view.queue_offset()));
            assert!(got.next_offset > next, "{topic}-{queue_id} stuck at {next}");
            next = got.next_offset;
        }
        assert_eq!(read, offsets, "{topic}-{queue_id}");
    }
}

/// Reads the record by its place in the queue.
fn check_place(store: &MessageStore, record: &Record) {
    let place = format!(
        "{}-{} at {}",
        record.topic, record.queue_id, record.queue_offset
    );
    let limits = GetLimits {
        count_max: 1,
        bytes_max: 1,
    };
    let got = store
        .get(
            &record.topic,
            record.queue_id,
            record.queue_offset,
            &limits,
            &AllMessages,
        )
        .unwrap();
    assert_eq!(got.status, GetStatus::Found, "{place}");
    let view = got.messages.records().next().unwrap();
    assert_eq!(view.physical_offset() as u64, record.offset, "{place}");
    assert_eq!(view.queue_offset(), record.queue_offset, "{place}");
    assert_eq!(
        view.store_timestamp_ms(),
        record.store_timestamp_ms,
        "{place}"
    );
}

/// Every message that Java served is served by ours: the same place, record and body.
pub(crate) fn check_served(store: &MessageStore, served: &[Value]) {
    for served in served {
        let topic = served["topic"].as_str().unwrap();
        let queue_id = served["queueId"].as_i64().unwrap() as i32;
        let queue_offset = served["queueOffset"].as_i64().unwrap();
        let place = format!("{topic}-{queue_id} at {queue_offset}");
        let limits = GetLimits {
            count_max: 1,
            bytes_max: 1,
        };
        let got = store
            .get(topic, queue_id, queue_offset, &limits, &AllMessages)
            .unwrap();
        assert_eq!(got.status, GetStatus::Found, "{place}");
        assert_eq!(got.next_offset, queue_offset + 1, "{place}");
        let view = got.messages.records().next().unwrap();
        assert_eq!(
            Some(view.physical_offset()),
            served["commitLogOffset"].as_i64(),
            "{place}"
        );
        assert_eq!(view.queue_offset(), queue_offset, "{place}");
        assert_eq!(
            Some(view.store_timestamp_ms()),
            served["storeTimestamp"].as_i64(),
            "{place}"
        );
        for (name, value) in served["properties"].as_object().unwrap() {
            assert_eq!(
                view.properties().find(name),
                value.as_str(),
                "{place} {name}"
            );
        }
    }
}

/// The bounds of the queues and the searches by time are Java's.
pub(crate) fn check_queues(store: &MessageStore, manifest: &Value) {
    for (topic, of_topic) in manifest["topics"].as_object().unwrap() {
        for (queue_id, queue) in of_topic["queues"].as_object().unwrap() {
            let id: i32 = queue_id.parse().unwrap();
            let place = format!("{topic}-{queue_id}");
            // A queue that was never put to has no files: Java answers 0.
            assert_eq!(
                store.min_offset(topic, id).or(Some(0)),
                queue["min"].as_i64(),
                "{place}"
            );
            assert_eq!(
                store.max_offset(topic, id).or(Some(0)),
                queue["max"].as_i64(),
                "{place}"
            );
            for search in queue["searchOffset"].as_array().into_iter().flatten() {
                let at = search["timestamp"].as_i64().unwrap();
                for (boundary, name) in [(Boundary::Lower, "lower"), (Boundary::Upper, "upper")] {
                    let found = store.offset_by_time(topic, id, at, boundary).unwrap();
                    assert_eq!(Some(found), search[name].as_i64(), "{place} {name} {at}");
                }
            }
        }
    }
}

/// Queries by key and by id find what Java's found.
pub(crate) fn check_queries(store: &MessageStore, manifest: &Value) {
    for query in manifest["queryByKey"].as_array().unwrap() {
        let text = |name: &str| query[name].as_str().unwrap();
        let answer = store
            .query(&KeyQuery {
                topic: text("topic"),
                key: text("key"),
                count_max: query["maxNum"].as_u64().unwrap() as usize,
                begin_ms: query["begin"].as_i64().unwrap(),
                end_ms: query["end"].as_i64().unwrap(),
            })
            .unwrap();
        assert_eq!(offsets(&query["hits"]), found(&answer), "{query}");
        // Java's client threw where nothing was found, and there was no header to look at.
        if let Some(last_update_ms) = query["indexLastUpdateTimestamp"].as_i64() {
            assert_eq!(answer.index_last_update_ms, last_update_ms, "{query}");
        }
    }
    for query in manifest["queryByMsgId"].as_array().unwrap() {
        let answer = store
            .query(&KeyQuery {
                topic: query["topic"].as_str().unwrap(),
                key: query["uniqKey"].as_str().unwrap(),
                count_max: 32,
                begin_ms: 0,
                end_ms: i64::MAX,
            })
            .unwrap();
        assert_eq!(offsets(&query["byUniqKey"]), found(&answer), "{query}");
        let id: message::MessageId = query["offsetMsgId"].as_str().unwrap().parse().unwrap();
        let slice = store.look_up(id.physical_offset as u64).unwrap();
        let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
            panic!("a record")
        };
        assert_eq!(view.message_id(), id);
        let by_id = &query["byOffsetMsgId"];
        assert_eq!(
            Some(view.physical_offset()),
            by_id["commitLogOffset"].as_i64()
        );
    }
}

fn offsets(hits: &Value) -> Vec<i64> {
    let mut offsets: Vec<i64> = hits
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| hit["commitLogOffset"].as_i64().unwrap())
        .collect();
    offsets.sort_unstable();
    offsets
}

fn found(answer: &store::KeyAnswer) -> Vec<i64> {
    answer
        .messages
        .records()
        .map(|view| view.physical_offset())
        .collect()
}

/// The hash of every file of the log, the queues and the index, by its path.
pub(crate) fn fingerprint(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for part in [
        "commitlog",
        "consumequeue",
        "consumequeue_ext",
        "batchconsumequeue",
        "index",
    ] {
        let dir = root.join(part);
        if dir.is_dir() {
            hash_files(&dir, &mut files);
        }
    }
    files
}

fn hash_files(dir: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            hash_files(&path, files);
        } else {
            let hash = format!("{:x}", Sha256::digest(fs::read(&path).unwrap()));
            files.insert(path, hash);
        }
    }
}

/// A second and a third opening, after a close and after a death, change no file and no answer.
pub(crate) fn check_reopening(set: &GoldenSet, retained: &[Record], end: u64) {
    let root = set.store_dir();
    let closed = fingerprint(&root);
    drop(reopen(set, end));
    let store = reopen(set, end);
    check_records(&store, retained);
    store.close().unwrap();
    drop(store);
    let reopened = fingerprint(&root);
    let changed: Vec<_> = closed
        .keys()
        .chain(reopened.keys())
        .filter(|path| closed.get(*path) != reopened.get(*path))
        .collect();
    assert!(changed.is_empty(), "changed by reopening: {changed:?}");
}

fn reopen(set: &GoldenSet, end: u64) -> MessageStore {
    let (store, report) = open(set);
    assert!(report.log.cut.is_none(), "{report}");
    assert_eq!(store.log().max_offset(), end);
    store
}

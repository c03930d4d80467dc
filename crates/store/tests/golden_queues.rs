//! Consume queues, their extensions and batch consume queues of real stores: built from the log
//! they have the bytes that a Java broker wrote, and those that it wrote are served as they are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "looks at the real files, beside the store under test"
)]

mod answers;
mod golden;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use golden::GoldenSet;
use message::{Parsed, RecordView};
use store::{AllMessages, Boundary, GetLimits, GetStatus, MessageStore, TagFilter};

const DIRS: [&str; 3] = ["consumequeue", "consumequeue_ext", "batchconsumequeue"];

/// The derived queue files below a store, without the zeros at the end of each.
fn queue_files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for dir in DIRS {
        collect(&root.join(dir), root, &mut files);
    }
    files
}

fn collect(dir: &Path, root: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, root, files);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0);
            bytes.truncate(used.map_or(0, |last| last + 1));
            files.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
        }
    }
}

/// Java's files and those that ours builds from the same log.
fn rebuilt(set: &GoldenSet) -> [BTreeMap<PathBuf, Vec<u8>>; 2] {
    let java = queue_files(&set.store_dir());
    for dir in DIRS {
        if set.store_dir().join(dir).exists() {
            set.remove(dir);
        }
    }
    set.remove("checkpoint");
    set.write("abort", b"1");
    let mut options = answers::options(set);
    options.batch_topics = ["GoldBcq".to_owned()].into();
    let (store, report) = MessageStore::open(options).unwrap();
    assert_eq!(report.rebuilt_queues, [], "{report}");
    store.close().unwrap();
    [java, queue_files(&set.store_dir())]
}

#[test]
fn queues_light_queues_and_batch_queues_are_built_as_java_built_them() {
    for name in ["clean", "special"] {
        let [java, ours] = rebuilt(&GoldenSet::unpack(name));
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&java), "{name}");
        for (path, bytes) in &java {
            assert!(ours[path] == *bytes, "{name}: {}", path.display());
        }
    }
}

#[test]
fn extensions_are_built_as_java_built_them() {
    let [java, ours] = rebuilt(&GoldenSet::unpack("killed"));
    let mut unit_bytes = 0;
    for (path, bytes) in &java {
        // Java was killed before it had dispatched all.
        let same = ours[path].get(..bytes.len());
        assert!(same == Some(&bytes[..]), "{}", path.display());
        if path.starts_with("consumequeue_ext") {
            unit_bytes += bytes.len();
        }
    }
    assert!(unit_bytes > 50_000, "{unit_bytes}");
}

/// The queue offsets of `GoldA` with each tag, by the messages themselves; and what is served.
fn check_tags(store: &MessageStore) {
    let limits = GetLimits {
        count_max: 32,
        bytes_max: 1 << 20,
    };
    let (mut all, mut by_tag) = (0, 0);
    for queue_id in 0..4 {
        let end = store.max_offset("GoldA", queue_id).unwrap();
        let mut tags: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for offset in 0..end {
            let entry = store.entry("GoldA", queue_id, offset).unwrap().unwrap();
            let slice = store.look_up(entry.physical_offset as u64).unwrap();
            let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
                panic!("a record")
            };
            let tag = view.properties().find("TAGS").unwrap_or_default();
            tags.entry(tag.to_owned()).or_default().push(offset);
            all += 1;
        }
        for (tag, offsets) in tags.iter().filter(|(tag, _)| !tag.is_empty()) {
            let filter = TagFilter::new([tag.as_str()]);
            let mut found = Vec::new();
            let mut offset = 0;
            while offset < end {
                let got = store
                    .get("GoldA", queue_id, offset, &limits, &filter)
                    .unwrap();
                assert!(matches!(
                    got.status,
                    GetStatus::Found | GetStatus::NoMatchedMessage
                ));
                found.extend(got.messages.records().map(|view| view.queue_offset()));
                offset = got.next_offset;
            }
            assert_eq!(found, *offsets, "{tag}");
            by_tag += found.len();
        }
    }
    assert!(
        all > 2600 && by_tag > all / 2,
        "{all} messages, {by_tag} with a tag"
    );
}

#[test]
fn a_tag_is_read_from_the_extension() {
    for is_written in [true, false] {
        let set = GoldenSet::unpack("killed");
        let mut options = answers::options(&set);
        options.writes_extensions = is_written;
        let (store, report) = MessageStore::open(options).unwrap();
        assert_eq!(report.rebuilt_queues, [], "{report}");
        check_tags(&store);
        store.close().unwrap();
    }
}

#[test]
fn an_extension_that_is_gone_is_done_without() {
    let set = GoldenSet::unpack("killed");
    set.remove("consumequeue_ext");
    let mut options = answers::options(&set);
    options.writes_extensions = false;
    let (store, _) = MessageStore::open(options).unwrap();
    answers::check_served(&store, &set.served());
    store.close().unwrap();
}

/// What Java serves of the batch topic, by the message; and where a search for a time leads.
fn check_batches(store: &MessageStore, set: &GoldenSet) {
    let limits = GetLimits {
        count_max: 1,
        bytes_max: 1 << 20,
    };
    let mut count = 0;
    for served in set.served() {
        if served["topic"] != "GoldBcq" {
            continue;
        }
        let queue_id = served["queueId"].as_i64().unwrap() as i32;
        let offset = served["queueOffset"].as_i64().unwrap();
        let got = store
            .get("GoldBcq", queue_id, offset, &limits, &AllMessages)
            .unwrap();
        assert_eq!(got.status, GetStatus::Found);
        let view = got.messages.records().next().unwrap();
        assert_eq!(
            Some(view.physical_offset()),
            served["commitLogOffset"].as_i64()
        );
        let place = (offset - view.queue_offset()) as usize;
        let (body, message_count) = match view.inner_batch() {
            Some(batch) => {
                let messages: Vec<_> = batch.iter().map(Result::unwrap).collect();
                (messages[place].body, messages.len())
            }
            None => (view.body(), 1),
        };
        assert_eq!(got.next_offset, view.queue_offset() + message_count as i64);
        assert_eq!(Some(body.len() as u64), served["bodyLen"].as_u64());
        let time = store.store_time_at("GoldBcq", queue_id, offset).unwrap();
        assert_eq!(time, served["storeTimestamp"].as_i64());
        count += 1;
    }
    assert_eq!(count, 43);
    let manifest = set.manifest();
    for (queue_id, queue) in manifest["topics"]["GoldBcq"]["queues"].as_object().unwrap() {
        let id: i32 = queue_id.parse().unwrap();
        assert_eq!(store.min_offset("GoldBcq", id), queue["min"].as_i64());
        assert_eq!(store.max_offset("GoldBcq", id), queue["max"].as_i64());
        for search in queue["searchOffset"].as_array().unwrap() {
            let at = search["timestamp"].as_i64().unwrap();
            for (boundary, name) in [(Boundary::Lower, "lower"), (Boundary::Upper, "upper")] {
                let found = store.offset_by_time("GoldBcq", id, at, boundary).unwrap();
                assert_eq!(Some(found), search[name].as_i64(), "{queue_id} {name} {at}");
            }
        }
    }
}

#[test]
fn batches_are_served_as_java_serves_them() {
    let set = GoldenSet::unpack("special");
    let (store, report) = answers::open(&set);
    assert_eq!(report.rebuilt_queues, [], "{report}");
    check_batches(&store, &set);
    store.close().unwrap();
    drop(store);
    // The same from queues that are built again.
    set.remove("batchconsumequeue/GoldBcq/0");
    let (store, _) = answers::open(&set);
    check_batches(&store, &set);
    store.close().unwrap();
    drop(store);
    let (store, report) = answers::open(&set);
    assert_eq!(report.rebuilt_queues, [], "{report}");
    check_batches(&store, &set);
}

#[test]
fn a_batch_topic_that_was_deleted_can_be_made_again_as_another_kind() {
    let set = GoldenSet::unpack("special");
    let (store, _) = answers::open(&set);
    assert!(store.max_offset("GoldBcq", 0).is_some());
    store.delete_topic("GoldBcq").unwrap();
    let message = message::Message::new("GoldBcq", 0, b"simple");
    assert_eq!(store.put(&message).unwrap().queue_offset, 0);
    // Not closed, and the whole log is read again.
    drop(store);
    set.remove("checkpoint");
    let (store, report) = answers::open(&set);
    assert_eq!(report.rebuilt_queues, [], "{report}");
    assert_eq!(store.batch_topics().get("GoldBcq"), None);
    assert_eq!(store.max_offset("GoldBcq", 0), Some(1));
    assert_eq!(store.put(&message).unwrap().queue_offset, 1);
    store.close().unwrap();
}

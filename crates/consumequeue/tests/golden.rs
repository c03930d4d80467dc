//! What a Java broker queued, and answered: see data/README.md.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use consumequeue::{
    Boundary, ConsumeQueueOptions, ConsumeQueueSet, ENTRY_LEN, Entry, OpenPolicy, PutOutcome,
};
use mmap_core::{Io, IoFile, OsIo};

const ENTRIES: &str = include_str!("data/clean.entries");
const SEARCHES: &str = include_str!("data/clean.searches");
const FILE_LEN: u64 = 20_000;
const FILE_NAME: &str = "00000000000000000000";

struct Golden {
    /// Bytes of each queue.
    queues: BTreeMap<(&'static str, i32), Vec<u8>>,
    /// Store time by commit-log offset.
    store_times: HashMap<i64, i64>,
}

fn golden() -> Golden {
    let mut golden = Golden {
        queues: BTreeMap::new(),
        store_times: HashMap::new(),
    };
    for line in ENTRIES.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [topic, queue_id, hex, store_time] = fields[..] else {
            panic!("{line}")
        };
        let mut bytes = [0; ENTRY_LEN];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap();
        }
        let queue = golden
            .queues
            .entry((topic, queue_id.parse().unwrap()))
            .or_default();
        queue.extend_from_slice(&bytes);
        let offset = Entry::decode(&bytes).physical_offset;
        golden
            .store_times
            .insert(offset, store_time.parse().unwrap());
    }
    golden
}

fn open(root: &Path, policy: OpenPolicy) -> ConsumeQueueSet {
    let options = ConsumeQueueOptions::with_file_len(FILE_LEN);
    ConsumeQueueSet::open(OsIo, root, options, policy)
        .unwrap()
        .0
}

fn check_searches(set: &ConsumeQueueSet, golden: &Golden) {
    let store_time = |entry: &Entry| golden.store_times.get(&entry.physical_offset).copied();
    for line in SEARCHES.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [topic, queue_id, time, lower, upper] = fields[..] else {
            panic!("{line}")
        };
        let queue = set.find(topic, queue_id.parse().unwrap()).unwrap();
        for (boundary, expected) in [(Boundary::Lower, lower), (Boundary::Upper, upper)] {
            let found = queue
                .index_by_time(time.parse().unwrap(), boundary, &store_time)
                .unwrap();
            assert_eq!(found, expected.parse().unwrap(), "{boundary:?} of {line}");
        }
    }
}

#[test]
fn javas_queues_are_read_as_java_reads_them() {
    let golden = golden();
    for policy in [OpenPolicy::Clean, OpenPolicy::Unclean] {
        let root = tempfile::tempdir().unwrap();
        for ((topic, queue_id), bytes) in &golden.queues {
            let dir = root.path().join(topic).join(queue_id.to_string());
            OsIo.create_dir_all(&dir).unwrap();
            let file = OsIo.create(&dir.join(FILE_NAME), FILE_LEN).unwrap();
            file.write_all_at(bytes, 0).unwrap();
        }
        let set = open(root.path(), policy);
        assert_eq!(set.recover(0, 6_718_221).unwrap().cut_entry_count, 0);
        assert_eq!(set.queues().len(), golden.queues.len());
        for ((topic, queue_id), bytes) in &golden.queues {
            let queue = set.find(topic, *queue_id).unwrap();
            assert_eq!(queue.min_index(), 0);
            assert_eq!(queue.max_index() as usize, bytes.len() / ENTRY_LEN);
        }
        check_searches(&set, &golden);
    }
}

#[test]
fn the_same_puts_make_the_same_bytes() {
    let golden = golden();
    let root = tempfile::tempdir().unwrap();
    let set = open(root.path(), OpenPolicy::Clean);
    for ((topic, queue_id), bytes) in &golden.queues {
        let queue = set.find_or_create(topic, *queue_id).unwrap();
        for (index, bytes) in (0..).zip(bytes.as_chunks().0) {
            assert_eq!(
                queue.put(index, Entry::decode(bytes)).unwrap(),
                PutOutcome::Appended
            );
        }
    }
    check_searches(&set, &golden);
    set.close().unwrap();
    for ((topic, queue_id), bytes) in &golden.queues {
        let path = root
            .path()
            .join(topic)
            .join(queue_id.to_string())
            .join(FILE_NAME);
        let ours = OsIo.read(&path, FILE_LEN).unwrap();
        assert!(ours[..bytes.len()] == bytes[..], "{}", path.display());
        assert!(ours[bytes.len()..].iter().all(|byte| *byte == 0));
    }
}

//! What a Java broker indexed, and answered: see data/README.md.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::path::Path;

use indexfile::{IndexOptions, IndexService, OpenPolicy};
use mmap_core::{Io, IoFile, OsIo};

const JAVA_FILE: &[u8] = include_bytes!("data/clean.index");
const KEYS: &str = include_str!("data/clean.keys");
const QUERIES: &str = include_str!("data/clean.queries");
const OPTIONS: IndexOptions = IndexOptions {
    slot_count: 1000,
    entry_count_max: 4000,
    ..IndexOptions::DEFAULT
};
const FILE_LEN: u64 = 84_040;

fn fields(line: &str) -> Vec<&str> {
    line.split('\t').collect()
}

fn check_queries(index: &IndexService) {
    for line in QUERIES.lines() {
        let [topic, key, count_max, end_ms, hits] = fields(line)[..] else {
            panic!("{line}")
        };
        let expected: Vec<u64> = hits
            .split(',')
            .filter(|hit| !hit.is_empty())
            .map(|hit| hit.parse().unwrap())
            .collect();
        let end_ms = end_ms.parse().unwrap();
        let mut found = index
            .query(topic, key, count_max.parse().unwrap(), 0, end_ms)
            .unwrap();
        found.reverse();
        assert_eq!(found, expected, "{topic} {key}");
    }
}

fn open(dir: &Path, policy: OpenPolicy) -> IndexService {
    IndexService::open(OsIo, dir, OPTIONS, policy).unwrap().0
}

#[test]
fn javas_file_answers_as_java_did() {
    for policy in [
        OpenPolicy::Clean,
        OpenPolicy::Unclean {
            checkpoint_timestamp_ms: 0,
        },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("20261123021424034");
        let file = OsIo.create(&path, FILE_LEN).unwrap();
        file.write_all_at(JAVA_FILE, 0).unwrap();
        let (index, report) = IndexService::open(OsIo, dir.path(), OPTIONS, policy).unwrap();
        if policy != OpenPolicy::Clean {
            // Java's chains hold up against the replay, to the last entry.
            assert_eq!(report.suspects[0].kept_count, 1577);
            assert_eq!(report.resume_offset, index.end_physical_offset());
        }
        check_queries(&index);
        index.close().unwrap();
        assert_eq!(
            OsIo.read(&path, FILE_LEN).unwrap()[..JAVA_FILE.len()],
            *JAVA_FILE
        );
    }
}

#[test]
fn the_same_puts_make_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path(), OpenPolicy::Clean);
    for line in KEYS.lines() {
        let [offset, store_time_ms, topic, key] = fields(line)[..] else {
            panic!("{line}")
        };
        index
            .put(
                topic,
                key,
                offset.parse().unwrap(),
                store_time_ms.parse().unwrap(),
            )
            .unwrap();
    }
    check_queries(&index);
    index.close().unwrap();
    let entries = OsIo.list(dir.path()).unwrap();
    let ours = OsIo
        .read(&dir.path().join(&entries[0].name), FILE_LEN)
        .unwrap();
    assert!(ours[..JAVA_FILE.len()] == *JAVA_FILE, "the files differ");
    assert!(ours[JAVA_FILE.len()..].iter().all(|byte| *byte == 0));
}

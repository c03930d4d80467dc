//! Rebuilding derived files: on stores that a Java broker wrote, the queues come out as Java's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "compares files behind the store's back"
)]

mod golden;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use golden::GoldenSet;
use mmap_core::{LockError, OsIo};
use store::offline::{
    self, Finding, OfflineError, RebuildSelection, Severity, VerifyOptions, rebuild,
};
use store::{MessageStore, NoProgress, StoreOptions};

const QUEUE_PARTS: [&str; 3] = ["consumequeue", "consumequeue_ext", "batchconsumequeue"];

/// Every file under `dir`, by its path below it.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        let Ok(entries) = next.read_dir() else {
            continue;
        };
        for entry in entries.map(Result::unwrap) {
            if entry.metadata().unwrap().is_dir() {
                dirs.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(dir).unwrap().to_owned();
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// What is wrong with a store, by verify.
fn problems(options: &StoreOptions) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut sink = |finding: &Finding| {
        if finding.severity > Severity::Info {
            found.push(finding.clone());
        }
    };
    let verify = VerifyOptions::default();
    offline::verify(&OsIo, options, &verify, &mut sink, &NoProgress).unwrap();
    found
}

fn options(set: &GoldenSet) -> StoreOptions {
    StoreOptions::new(set.store_dir())
}

#[test]
fn queues_are_those_that_java_built() {
    for name in ["clean", "killed", "special"] {
        let set = GoldenSet::unpack(name);
        let before: Vec<_> = QUEUE_PARTS
            .map(|part| files(&set.store_dir().join(part)))
            .into();
        let selection = RebuildSelection::default();
        let report = rebuild(&OsIo, &options(&set), &selection, &NoProgress).unwrap();
        assert_eq!(
            (report.misplaced_count, report.lost_count),
            (0, 0),
            "{name}"
        );
        for (part, before) in QUEUE_PARTS.into_iter().zip(before) {
            let after = files(&set.store_dir().join(part));
            let names = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> {
                files.keys().cloned().collect()
            };
            assert_eq!(names(&before), names(&after), "{name}/{part}");
            for (file, java) in before {
                let ours = &after[&file];
                assert_eq!(java.len(), ours.len(), "{name}/{part}/{}", file.display());
                // Java was killed before the last records were dispatched.
                let end = java
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |at| at + 1);
                assert!(
                    java[..end] == ours[..end],
                    "{name}/{part}/{}",
                    file.display()
                );
                if name != "killed" {
                    assert!(java == *ours, "{name}/{part}/{}", file.display());
                }
            }
        }
        let found = problems(&options(&set));
        assert!(found.is_empty(), "{name}: {found:#?}");
        assert!(!set.store_dir().join("foliomq/rebuilding").exists());
        assert_eq!(set.store_dir().join("abort").exists(), name == "killed");
    }
}

#[test]
fn what_was_lost_or_damaged_is_whole_again() {
    let set = GoldenSet::unpack("killed");
    set.remove("consumequeue/GoldA");
    set.remove("consumequeue_ext");
    set.remove("index");
    set.write("consumequeue/GoldB/0/00000000000000000000", &[0xff; 20_000]);
    assert!(!problems(&options(&set)).is_empty());
    let report = rebuild(
        &OsIo,
        &options(&set),
        &RebuildSelection::default(),
        &NoProgress,
    )
    .unwrap();
    assert_eq!(report.key_count, 6305);
    let found = problems(&options(&set));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn one_topic_alone() {
    let set = GoldenSet::unpack("clean");
    let before = files(&set.store_dir().join("consumequeue"));
    let index_before = files(&set.store_dir().join("index"));
    set.write("consumequeue/GoldB/1/00000000000000000000", &[7; 20_000]);
    set.write("consumequeue/GoldA/1/00000000000000000000", &[7; 20_000]);
    let selection = RebuildSelection {
        index: false,
        topic: Some("GoldB".to_owned()),
        ..RebuildSelection::default()
    };
    rebuild(&OsIo, &options(&set), &selection, &NoProgress).unwrap();
    let after = files(&set.store_dir().join("consumequeue"));
    for (file, bytes) in &before {
        let is_other = file.starts_with("GoldA/1");
        assert_eq!(after[file] == *bytes, !is_other, "{}", file.display());
    }
    assert!(index_before == files(&set.store_dir().join("index")));
}

#[test]
fn a_store_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::new(dir.path());
    let (store, _) = MessageStore::open(options.clone()).unwrap();
    let refused = rebuild(&OsIo, &options, &RebuildSelection::default(), &NoProgress);
    assert!(matches!(
        refused,
        Err(OfflineError::Lock(LockError::Held { .. }))
    ));
    store.close().unwrap();
}

#[test]
fn a_rebuild_that_died_is_completed_by_the_next_start() {
    let set = GoldenSet::unpack("clean");
    let expected = files(&set.store_dir().join("consumequeue"));
    // As it is left between two renamings: marked as open, without the hints, and without one of
    // the directories.
    set.remove("checkpoint");
    set.remove("consumequeue");
    set.write("abort", b"1");
    fs::create_dir_all(set.store_dir().join("foliomq/rebuilding/old")).unwrap();
    let mut opening = options(&set);
    opening = offline::Shape::detect(&OsIo, &opening)
        .unwrap()
        .apply_to(&opening);
    opening.queue_file_len = 20_000;
    let (store, _) = MessageStore::open(opening.clone()).unwrap();
    store.close().unwrap();
    drop(store);
    assert!(expected == files(&set.store_dir().join("consumequeue")));

    // The next rebuild does as well.
    set.remove("consumequeue");
    set.write("abort", b"1");
    rebuild(&OsIo, &opening, &RebuildSelection::default(), &NoProgress).unwrap();
    assert!(expected == files(&set.store_dir().join("consumequeue")));
    assert!(!set.store_dir().join("foliomq/rebuilding").exists());
}

//! Verify on stores that a Java broker wrote: nothing is found where nothing is wrong, and every
//! damage is found where it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::disallowed_types,
    reason = "damages files behind the store's back"
)]

mod golden;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use golden::{GoldenSet, TORN_VARIANTS};
use mmap_core::{LockState, OsIo};
use store::offline::{self, Finding, FindingKind, Part, Severity, VerifyOptions, VerifyReport};
use store::{IndexOptions, MessageStore, NoProgress, StoreOptions};

fn verify(options: &StoreOptions) -> (Vec<Finding>, VerifyReport) {
    let mut found = Vec::new();
    let report = offline::verify(
        &OsIo,
        options,
        &VerifyOptions::default(),
        &mut |finding: &Finding| found.push(finding.clone()),
        &NoProgress,
    )
    .unwrap();
    (found, report)
}

/// Turns one bit of a file around; the second time it is as before.
fn flip(path: &Path, position: u64, bit: u8) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], position)
        .unwrap();
}

/// What verify says of a store with one bit turned around.
fn findings_of_flip(set: &GoldenSet, file: &str, position: u64, bit: u8) -> Vec<Finding> {
    let path = set.store_dir().join(file);
    flip(&path, position, bit);
    let (found, _) = verify(&StoreOptions::new(set.store_dir()));
    flip(&path, position, bit);
    found
}

/// Flips a bit and wants to be told so: a warning or error whose place is at most `near` bytes
/// away from the flip, in the file itself.
#[track_caller]
fn expect_named(set: &GoldenSet, file: &str, position: u64, bit: u8, near: u64) {
    let found = findings_of_flip(set, file, position, bit);
    let path = set.store_dir().join(file);
    let is_named = found.iter().any(|finding| {
        let end = finding.position + finding.len;
        finding.severity > Severity::Info
            && finding.path == path
            && (finding.position..=end.max(finding.position + near)).contains(&position)
    });
    assert!(is_named, "{file}@{position} bit {bit}: {found:#?}");
}

/// Every file's bytes hash and time of change.
fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir().unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
            files.insert(entry.path(), (metadata.len(), metadata.modified().unwrap()));
        }
    }
    files
}

#[test]
fn stores_of_java_have_no_differences() {
    let expected = [
        ("clean", 631, 1577, 1577),
        // Killed before the last four records were dispatched.
        ("killed", 2995, 6297, 6305),
        ("special", 65, 124, 124),
    ];
    for (name, record_count, entry_count, key_count) in expected {
        let set = GoldenSet::unpack(name);
        let before = fingerprint(&set.store_dir());
        let (found, report) = verify(&StoreOptions::new(set.store_dir()));
        for finding in &found {
            assert_eq!(finding.severity, Severity::Info, "{name}: {finding}");
        }
        assert_eq!(report.log.record_count, record_count, "{name}");
        assert_eq!(report.index_entry_count, entry_count, "{name}");
        assert_eq!(report.key_count, key_count, "{name}");
        assert_eq!(report.shape.index_slot_count, 1000, "{name}");
        assert_eq!(fingerprint(&set.store_dir()), before, "{name} was changed");
    }
}

#[test]
fn a_flipped_bit_of_a_record_is_named() {
    let set = GoldenSet::unpack("clean");
    let records = set.records();
    let record = records
        .iter()
        .find(|record| record["topic"] == "GoldA" && record["offset"].as_u64() > Some(1_100_000))
        .unwrap();
    let number = |name: &str| record[name].as_u64().unwrap();
    let (offset, size, body_len) = (number("offset"), number("size"), number("bodyLen"));
    let file = format!("commitlog/{:020}", offset / 1_048_576 * 1_048_576);
    let start = offset % 1_048_576;
    // Total size, magic, body CRC, physical offset, a byte of the body.
    for (field, bit) in [
        (1, 3),
        (3, 0),
        (6, 1),
        (9, 4),
        (33, 2),
        (88 + body_len / 2, 7),
    ] {
        expect_named(&set, &file, start + field, bit, size);
    }
    // Queue id, queue offset: told where the entry is that does not fit.
    for (field, bit) in [(15, 1), (26, 0), (27, 0)] {
        let found = findings_of_flip(&set, &file, start + field, bit);
        let tells = |finding: &Finding| {
            finding.severity > Severity::Info && finding.log_offset == Some(offset)
        };
        assert!(found.iter().any(tells), "field at {field}: {found:#?}");
    }
    // Store time, topic: told by the index and the queue.
    for (field, bit) in [(60, 0), (88 + body_len + 2, 1)] {
        let found = findings_of_flip(&set, &file, start + field, bit);
        let tells = |finding: &Finding| finding.log_offset == Some(offset);
        assert!(found.iter().any(tells), "field at {field}: {found:#?}");
    }
}

#[test]
fn damage_does_not_hide_what_is_behind_it() {
    let set = GoldenSet::unpack("clean");
    let path = set.store_dir().join("commitlog/00000000000001048576");
    flip(&path, 4, 0);
    flip(&path, 500_000, 3);
    let (found, report) = verify(&StoreOptions::new(set.store_dir()));
    let damage: Vec<_> = found
        .iter()
        .filter(|finding| finding.kind == FindingKind::LogDamage)
        .collect();
    assert_eq!(damage.len(), 2, "{found:#?}");
    assert_eq!(report.log.record_count, 629);
    // The entries of both are told as pointing at no record; no others are.
    let orphans = found
        .iter()
        .filter(|finding| finding.kind == FindingKind::EntryWithoutRecord);
    assert!(orphans.map(|finding| finding.count).sum::<u64>() <= 2);
    assert!(!found.iter().any(|f| f.kind == FindingKind::EntryMissing));
}

#[test]
fn a_flipped_bit_of_a_queue_entry_is_named() {
    let set = GoldenSet::unpack("clean");
    let queue = "consumequeue/GoldA/0/00000000000000000000";
    for position in [2, 7, 9, 11, 13, 19, 20 * 7 + 3, 20 * 7 + 11] {
        expect_named(&set, queue, position, 1, 20);
    }
}

#[test]
fn a_flipped_bit_of_an_extension_unit_is_named() {
    let set = GoldenSet::unpack("killed");
    let unit = "consumequeue_ext/GoldA/1/00000000000000000000";
    for position in [1, 5, 17, 20 * 300 + 12] {
        expect_named(&set, unit, position, 2, 20);
    }
}

#[test]
fn a_flipped_bit_of_a_batch_entry_is_named() {
    let set = GoldenSet::unpack("special");
    let queue = "batchconsumequeue/GoldBcq/0/00000000000000000000";
    for position in [7, 11, 19, 26, 35, 37, 46 + 7, 46 + 37] {
        expect_named(&set, queue, position, 0, 46);
    }
}

#[test]
fn a_flipped_bit_of_an_index_file_is_named() {
    let set = GoldenSet::unpack("clean");
    let file = "index/20261123021424034";
    let entries = 40 + 4 * 1000;
    // Header: times, offsets, count of slots, next entry.
    for position in [6, 14, 22, 30, 35, 38] {
        expect_named(&set, file, position, 1, 20);
    }
    // An entry: hash, offset, seconds, previous.
    for position in [2, 9, 15, 19] {
        expect_named(&set, file, entries + 20 * 40 + position, 1, 20);
    }
    // A slot in use.
    let path = set.store_dir().join(file);
    let bytes = std::os::unix::fs::FileExt::read_exact_at;
    let handle = OpenOptions::new().read(true).open(&path).unwrap();
    let mut slots = vec![0; 4000];
    bytes(&handle, &mut slots, 40).unwrap();
    let used = slots.chunks(4).position(|slot| slot != [0; 4]).unwrap() as u64;
    expect_named(&set, file, 40 + used * 4 + 3, 0, 4);
    expect_named(&set, file, 40 + used * 4, 7, 4);
}

#[test]
fn a_checkpoint_that_promises_too_much_is_named() {
    let set = GoldenSet::unpack("clean");
    for position in [2, 10] {
        expect_named(&set, "checkpoint", position, 1, 8);
    }
}

#[test]
fn what_is_missing_is_named() {
    let set = GoldenSet::unpack("clean");
    set.remove("consumequeue/GoldA/2");
    set.remove("index");
    set.remove("checkpoint");
    let (found, _) = verify(&StoreOptions::new(set.store_dir()));
    let of = |kind| found.iter().find(|finding| finding.kind == kind);
    let queue = of(FindingKind::QueueMissing).expect("the queue");
    assert_eq!(queue.severity, Severity::Error);
    assert_eq!(queue.path, set.store_dir().join("consumequeue/GoldA/2"));
    let keys = of(FindingKind::KeyMissing).expect("the keys");
    assert_eq!((keys.part, keys.count), (Part::Index, 1577));
    assert!(of(FindingKind::CheckpointLength).is_some());

    // A topic without any queue was deleted: its records stay in the log.
    let set = GoldenSet::unpack("clean");
    set.remove("consumequeue/GoldA");
    let (found, _) = verify(&StoreOptions::new(set.store_dir()));
    assert!(
        found.iter().all(|f| f.severity == Severity::Info),
        "{found:#?}"
    );
}

#[test]
fn torn_stores_are_read_to_their_end() {
    for variant in TORN_VARIANTS {
        let set = GoldenSet::torn(variant);
        let (found, report) = verify(&StoreOptions::new(set.store_dir()));
        let kinds: Vec<_> = found.iter().map(|f| (f.severity, f.kind)).collect();
        let has = |kind| kinds.iter().any(|(_, found)| *found == kind);
        assert!(report.log.record_count >= 2_800, "{variant}: {report:?}");
        match variant {
            "asis" => assert!(report.totals.is_clean(), "{kinds:?}"),
            "bitflip_last" => assert!(has(FindingKind::LogTailDamage), "{kinds:?}"),
            "bitflip_mid_lastfile" => assert!(has(FindingKind::LogDamage), "{kinds:?}"),
            "garbage_after" => assert!(has(FindingKind::BytesBehindEnd), "{kinds:?}"),
            "lastfile_empty" | "lastfile_truncated" => {
                assert!(has(FindingKind::FileLength), "{variant}: {kinds:?}");
            }
            "index_deleted" => assert!(has(FindingKind::KeyMissing), "{kinds:?}"),
            "cq_and_checkpoint_deleted" => assert!(has(FindingKind::QueueMissing), "{kinds:?}"),
            "checkpoint_deleted" => assert!(has(FindingKind::CheckpointLength), "{kinds:?}"),
            _ => {}
        }
    }
}

#[test]
fn a_store_in_use_gives_no_false_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.segment_len = 1024 * 1024;
    options.index = Some(IndexOptions {
        slot_count: 10_000,
        entry_count_max: 50_000,
        ..IndexOptions::DEFAULT
    });
    let (store, _) = MessageStore::open(options.clone()).unwrap();
    let enough = AtomicBool::new(false);
    let mut count = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0_u32;
            while number < 500_000 && !enough.load(Ordering::Acquire) {
                put(&store, number);
                number += 1;
            }
            number
        });
        let mut compared = 0;
        while compared < 5_000 && !writer.is_finished() {
            // Up to a second ago: nothing is dispatched later than that.
            let now_ms = VerifyOptions::default().now_ms + 1_000;
            let mut found = Vec::new();
            let report = offline::verify(
                &OsIo,
                &options,
                &VerifyOptions { now_ms },
                &mut |finding: &Finding| found.push(finding.clone()),
                &NoProgress,
            )
            .unwrap();
            assert!(matches!(report.lock, LockState::Held { .. }));
            assert!(
                found.iter().all(|f| f.severity == Severity::Info),
                "{found:#?}"
            );
            compared += report.log.record_count;
        }
        assert!(compared >= 5_000, "only {compared} records were compared");
        enough.store(true, Ordering::Release);
        count = writer.join().unwrap();
    });
    store.close().unwrap();
    drop(store);
    let (found, report) = verify(&options);
    assert!(found.is_empty(), "{found:#?}");
    let both = (report.log.record_count, report.key_count);
    assert_eq!(both, (u64::from(count), u64::from(count)));
}

fn put(store: &MessageStore, number: u32) {
    let text = format!("KEYS\x01key{number}\x02");
    store
        .put(&message::Message {
            properties: text.as_bytes(),
            ..message::Message::new("T", (number % 4).cast_signed(), &[7; 200])
        })
        .unwrap();
}

#[test]
fn what_recovery_put_over_damage_is_no_difference() {
    for variant in [
        "bitflip_mid_lastfile",
        "bitflip_last",
        "index_deleted",
        "tail_zero_body",
    ] {
        let set = GoldenSet::torn(variant);
        let found = StoreOptions::new(set.store_dir());
        let options = offline::Shape::detect(&OsIo, &found)
            .unwrap()
            .apply_to(&found);
        let (store, _) = MessageStore::open(options.clone()).unwrap();
        store.close().unwrap();
        drop(store);
        let (found, report) = verify(&options);
        let listed: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(report.totals.is_clean(), "{variant}: {listed:#?}");
        assert!(report.log.record_count > 2_800, "{variant}");
    }
}

#[test]
fn a_hole_that_recovery_filled_is_told_and_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.segment_len = 64 * 1024;
    options.index = Some(IndexOptions {
        slot_count: 100,
        entry_count_max: 1_000,
        ..IndexOptions::DEFAULT
    });
    let (store, _) = MessageStore::open(options.clone()).unwrap();
    for number in 0..600 {
        put(&store, number);
    }
    store.close().unwrap();
    drop(store);
    flip(
        &dir.path().join("commitlog/00000000000000065536"),
        30_000,
        2,
    );
    let (found, _) = verify(&options);
    let damage = found
        .iter()
        .find(|finding| finding.kind == FindingKind::LogDamage)
        .expect("the damage");
    assert!(
        (damage.position..damage.position + damage.len).contains(&30_000),
        "{damage}"
    );

    // The next start reads the log again for the queues, and finds it.
    std::fs::remove_dir_all(dir.path().join("consumequeue")).unwrap();
    let abort = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(dir.path().join("abort"));
    drop(abort.unwrap());
    let (store, report) = MessageStore::open(options.clone()).unwrap();
    store.close().unwrap();
    drop(store);
    let (found, verified) = verify(&options);
    let listed: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(verified.totals.is_clean(), "{report}: {listed:#?}");
    let kinds: Vec<_> = found.iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&FindingKind::FillerRecord), "{listed:#?}");
    assert!(kinds.contains(&FindingKind::QueueOffsetGap), "{listed:#?}");
    // The filler is a record; it is no message.
    assert_eq!(verified.log.record_count, 600);
}

#[test]
fn a_file_that_cannot_be_read_hides_no_other() {
    let set = GoldenSet::unpack("clean");
    let name = "commitlog/00000000000002097152";
    set.remove(name);
    // A file that answers every read below its first mapping with an I/O error.
    let path = set.store_dir().join(name);
    std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
    let (found, report) = verify(&StoreOptions::new(set.store_dir()));
    let unreadable: Vec<_> = found
        .iter()
        .filter(|finding| finding.kind == FindingKind::Unreadable)
        .collect();
    assert!(report.totals.unreadable > 0, "{found:#?}");
    assert!(unreadable.iter().any(|f| f.path == path), "{unreadable:#?}");
    let range = 2_097_152..3_145_728;
    let hidden = set.records();
    let hidden = hidden
        .iter()
        .filter(|record| range.contains(&record["offset"].as_u64().unwrap()));
    assert_eq!(report.log.record_count, 631 - hidden.count() as u64);
}

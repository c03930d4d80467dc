//! The tools on devices that fail and on files that are nonsense.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "damages files behind the store's back"
)]

mod golden;
mod small;

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use golden::GoldenSet;
use message::{Message, RecordView};
use mmap_core::{CrashStyle, Io, OsIo, Random, SimIo};
use small::{Ticks, options};
use store::offline::{
    self, ExportRange, Finding, FindingKind, RebuildSelection, VerifyOptions, VerifyReport,
};
use store::{MessageStore, NoProgress, StoreOptions};

const MESSAGE_COUNT: u64 = 120;

fn open(io: &SimIo) -> MessageStore<SimIo> {
    let clock = Arc::new(Ticks::default());
    MessageStore::open_with(io.clone(), options(), clock)
        .unwrap()
        .0
}

/// A store that was closed, all of it on the device.
fn closed_store(seed: u64) -> SimIo {
    let io = SimIo::new(seed);
    let store = filled(&io);
    store.close().unwrap();
    drop(store);
    io
}

/// A store whose process was killed, all of it dispatched and on the device. The last message is
/// one of `Other`.
fn killed_store(seed: u64) -> SimIo {
    let io = SimIo::new(seed);
    let store = filled(&io);
    while store.step_dispatch().unwrap() {}
    store.log().flush_now().unwrap();
    for _ in 0..2 {
        store.step_flush_derived().unwrap();
    }
    io.crash(CrashStyle::KillProcess)
}

fn filled(io: &SimIo) -> MessageStore<SimIo> {
    let store = open(io);
    for number in 0..MESSAGE_COUNT {
        let properties = format!("KEYS\u{1}key{number}\u{2}");
        store
            .put(&Message {
                properties: properties.as_bytes(),
                ..Message::new(
                    if number % 3 == 0 { "Third" } else { "Other" },
                    (number % 2) as i32,
                    &[number as u8; 300],
                )
            })
            .unwrap();
    }
    store
}

fn verify<I: Io>(io: &I, options: &StoreOptions) -> (Vec<Finding>, VerifyReport) {
    let mut found = Vec::new();
    let mut sink = |finding: &Finding| found.push(finding.clone());
    let verify = VerifyOptions::default();
    let report = offline::verify(io, options, &verify, &mut sink, &NoProgress).unwrap();
    (found, report)
}

#[test]
fn a_rebuild_that_dies_anywhere_loses_nothing() {
    rebuild_dies(closed_store, &RebuildSelection::default(), 8);
}

/// The queues of the others, and what is written down of them, reach as far as ever.
#[test]
fn a_rebuild_of_one_topic_that_dies_anywhere_loses_nothing() {
    let selection = RebuildSelection {
        index: false,
        topic: Some("Third".to_owned()),
        ..RebuildSelection::default()
    };
    rebuild_dies(closed_store, &selection, 1);
    rebuild_dies(killed_store, &selection, 1);
}

fn rebuild_dies(store_of: impl Fn(u64) -> SimIo, selection: &RebuildSelection, step: usize) {
    let whole = {
        let io = store_of(1);
        let before = io.operation_count();
        offline::rebuild(&io, &options(), selection, &NoProgress).unwrap();
        io.operation_count() - before
    };
    assert!(whole > 30, "{whole} operations");
    for nth in (1..=whole).step_by(step) {
        for style in [CrashStyle::KillProcess, CrashStyle::Tear] {
            let io = store_of(nth);
            io.fail_from("*", nth, ErrorKind::Other);
            let outcome = offline::rebuild(&io, &options(), selection, &NoProgress);
            assert!(outcome.is_err(), "operation {nth} of {whole}");
            let io = io.crash(style);
            let store = open(&io);
            while store.step_dispatch().unwrap() {}
            store.close().unwrap();
            drop(store);
            let (found, report) = verify(&io, &options());
            let listed: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert!(report.totals.is_clean(), "{nth} {style:?}: {listed:#?}");
            assert_eq!(report.log.record_count, MESSAGE_COUNT, "{nth} {style:?}");
            assert_eq!(report.key_count, MESSAGE_COUNT, "{nth} {style:?}");
            let has_files = report.queues.iter().filter(|queue| queue.has_files);
            assert_eq!(has_files.count(), 4, "{nth} {style:?}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding() {
    let io = closed_store(2);
    let reads = {
        let before = io.operation_count();
        let (found, _) = verify(&io, &options());
        assert!(found.is_empty(), "{found:?}");
        io.operation_count() - before
    };
    let mut found_count = 0;
    for nth in 1..reads {
        io.clear_faults();
        io.fail_nth("read", nth, ErrorKind::Other);
        let mut found = Vec::new();
        let mut sink = |finding: &Finding| found.push(finding.clone());
        let verify = VerifyOptions::default();
        match offline::verify(&io, &options(), &verify, &mut sink, &NoProgress) {
            // The shape of the files could not be found.
            Err(offline::OfflineError::Io(_)) => {}
            Err(error) => panic!("read {nth}: {error}"),
            Ok(report) => {
                let is_told = report.totals.unreadable > 0;
                // Behind the last read there is none to fail.
                assert!(is_told || found.is_empty(), "read {nth}: {found:?}");
                found_count += u64::from(is_told);
                let mut unreadable = found
                    .iter()
                    .filter(|finding| finding.kind == FindingKind::Unreadable);
                assert!(unreadable.all(|finding| finding.path.starts_with("/store")));
            }
        }
    }
    assert!(found_count > 10, "{found_count} of {reads}");
}

/// Random damage: the tools say something or nothing, and never panic.
#[test]
fn no_bytes_make_a_tool_panic() {
    let seed = match std::env::var("FOLIOMQ_SEED") {
        Ok(seed) => seed.parse().expect("FOLIOMQ_SEED is a number"),
        Err(_) => Random::fresh_seed(),
    };
    println!("FOLIOMQ_SEED={seed}");
    let mut random = Random::new(seed);
    let mut next = |bound: u64| random.below(bound);
    for name in ["special", "killed"] {
        let set = GoldenSet::unpack(name);
        let files = files_of(set.store_dir());
        let options = StoreOptions::new(set.store_dir());
        for _ in 0..6 {
            let path = &files[next(files.len() as u64) as usize];
            let before = std::fs::read(path).unwrap();
            let mut bytes = before.clone();
            match next(8) {
                0 => bytes.truncate(next(before.len() as u64 + 1) as usize),
                1 => bytes.extend(vec![7; next(5_000) as usize]),
                _ if bytes.is_empty() => bytes.push(1),
                kind => {
                    // Most of what matters is at a file's beginning.
                    let range = if kind < 6 { 3_000 } else { u64::MAX };
                    for _ in 0..=next(20) {
                        let at = next(range.min(bytes.len() as u64)) as usize;
                        bytes[at] ^= next(256) as u8;
                    }
                }
            }
            std::fs::write(path, &bytes).unwrap();
            look_at_everything(&options);
            std::fs::write(path, &before).unwrap();
        }
    }
}

fn look_at_everything(options: &StoreOptions) {
    verify(&OsIo, options);
    for range in [
        ExportRange::default(),
        ExportRange {
            topic: Some("GoldA"),
            from_ms: Some(1_795_400_130_000),
            ..ExportRange::default()
        },
        ExportRange {
            topic: Some("GoldBcq"),
            ..ExportRange::default()
        },
        ExportRange {
            topic: Some("GoldA"),
            key: Some("common"),
            ..ExportRange::default()
        },
    ] {
        let mut take = |_: &RecordView<'_>, _| Ok(ControlFlow::Continue(()));
        let _ = offline::export(&OsIo, options, &range, &mut take, &NoProgress);
    }
    let _ = offline::queue_entry(&OsIo, options, "GoldA", 0, 3);
    let _ = offline::queue_entry(&OsIo, options, "GoldBcq", 0, 3);
    let _ = offline::checkpoint(&OsIo, options);
    let _ = offline::index_files(&OsIo, options);
    let _ = offline::record_at(&OsIo, options, 930);
}

fn files_of(root: PathBuf) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![root];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

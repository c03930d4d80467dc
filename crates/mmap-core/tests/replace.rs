//! The replacement of a small file on the simulated device, failing and crashing at every step.
//! Not under Miri: hundreds of replacements take it minutes, and none of them is unsafe.
#![cfg(all(feature = "sim", not(miri)))]
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::ErrorKind;
use std::path::Path;

use mmap_core::{CrashStyle, Io, SimIo};

const STYLES: [CrashStyle; 3] = [
    CrashStyle::KillProcess,
    CrashStyle::LoseUnsynced,
    CrashStyle::Tear,
];

fn state() -> &'static Path {
    Path::new("/store/config/state.json")
}

fn backup() -> &'static Path {
    Path::new("/store/config/state.json.bak")
}

/// A device with a state that was replaced once, so that there is a backup.
fn new_device(seed: u64) -> SimIo {
    let io = SimIo::new(seed);
    io.create_dir_all(state().parent().unwrap()).unwrap();
    io.replace(state(), b"older", Some(backup())).unwrap();
    assert_eq!(
        io.metadata(backup()).unwrap(),
        None,
        "nothing to back up yet"
    );
    io.replace(state(), b"old", Some(backup())).unwrap();
    assert_eq!(io.read(backup(), 99).unwrap(), b"older");
    io
}

#[test]
fn sim_replace_fails_and_crashes_at_every_step() {
    let io = new_device(0);
    let before = io.operation_count();
    io.replace(state(), b"new", Some(backup())).unwrap();
    let step_count = io.operation_count() - before;
    assert!(step_count >= 8);

    for step in 1..=step_count {
        for seed in 0..10 {
            for style in STYLES {
                let io = new_device(seed);
                io.fail_from("*", step, ErrorKind::Other);
                let error = io.replace(state(), b"new", Some(backup())).unwrap_err();
                let io = io.crash(style);
                let content = io.read(state(), 99).unwrap();
                let kept = io.read(backup(), 99).unwrap();
                let context = format!("step {step} ({error}), seed {seed}, {style:?}");
                assert!(
                    content == b"old" || content == b"new",
                    "{context}: {content:?}"
                );
                assert!(kept == b"older" || kept == b"old", "{context}: {kept:?}");
                assert!(
                    content == b"old" || kept == b"old",
                    "{context}: old is gone"
                );
                io.replace(state(), b"next", Some(backup())).unwrap();
                assert_eq!(io.read(state(), 99).unwrap(), b"next");
                let names = io.list(state().parent().unwrap()).unwrap().len();
                assert_eq!(names, 2, "{context}: a temporary file is left");
            }
        }
    }
}

#[test]
fn sim_replace_is_durable_on_return() {
    for seed in 0..5 {
        for style in STYLES {
            let io = new_device(seed);
            io.replace(state(), b"new", Some(backup())).unwrap();
            let io = io.crash(style);
            assert_eq!(io.read(state(), 99).unwrap(), b"new");
            assert_eq!(io.read(backup(), 99).unwrap(), b"old");
            assert_eq!(io.list(state().parent().unwrap()).unwrap().len(), 2);
        }
    }
}

/// One failed operation, then life goes on: old content is there, and the next try succeeds.
#[test]
fn sim_replace_can_be_tried_again() {
    for op in [
        "remove", "create", "write", "sync_all", "stat", "rename", "sync_dir",
    ] {
        let io = new_device(3);
        io.fail_next(op, ErrorKind::StorageFull);
        let error = io.replace(state(), b"new", Some(backup())).unwrap_err();
        assert!(error.is_full());
        assert_eq!(error.op(), op);
        let content = io.read(state(), 99).unwrap();
        assert_eq!(content, if op == "sync_dir" { b"new" } else { b"old" });
        io.replace(state(), b"new", Some(backup())).unwrap();
        assert_eq!(io.read(state(), 99).unwrap(), b"new");
    }
}

#[test]
fn sim_backup_is_copied_where_links_are_refused() {
    let io = new_device(3);
    io.fail_next("link", ErrorKind::Unsupported);
    io.replace(state(), b"new", Some(backup())).unwrap();
    let io = io.crash(CrashStyle::LoseUnsynced);
    assert_eq!(io.read(backup(), 99).unwrap(), b"old");
    assert_eq!(io.read(state(), 99).unwrap(), b"new");
}

//! Failpoints: armed in this process, and in a child process that they kill.
//!
//! They are global to the process, so that only one test of this binary arms them here.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use mmap_core::failpoint::{Action, ENVIRONMENT, arm};
use mmap_core::{Access, AppendRegion, HEAD_LEN, Io, IoFile, OsIo, RawMap};

const CHILD_DIR: &str = "MMAP_CORE_TEST_DIR";
const SIGKILL: i32 = 9;
/// A record of three parts, 42 bytes.
const RECORD: [&[u8]; 3] = [b"HEADER and more", b"the body", b"the properties here"];

#[test]
fn armed_failpoints_let_operations_fail() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 4096).unwrap();
    let map = file.map(0, 4096, Access::ReadWrite).unwrap();
    {
        let _guard = arm(
            "mmap_core.sync_data",
            Action::Error(ErrorKind::StorageFull),
            Some(2),
        );
        file.sync_data().unwrap();
        let error = file.sync_data().unwrap_err();
        assert!(error.is_full());
        assert_eq!((error.op(), error.path()), ("sync_data", file.path()));
        file.sync_data().unwrap();
    }
    {
        let _guard = arm("mmap_core.msync", Action::Error(ErrorKind::Other), None);
        assert_eq!(map.sync_range(10, 20).unwrap_err().offset(), Some(10));
        map.sync_range(10, 20).unwrap_err();
    }
    map.sync_range(10, 20).unwrap();

    let path = dir.path().join("state");
    let backup = dir.path().join("state.bak");
    OsIo.replace(&path, b"first", None).unwrap();
    // Without hard links, the backup is a copy.
    let guard = arm(
        "mmap_core.link",
        Action::Error(ErrorKind::PermissionDenied),
        None,
    );
    OsIo.replace(&path, b"second", Some(&backup)).unwrap();
    drop(guard);
    assert_eq!(OsIo.read(&path, 99).unwrap(), b"second");
    assert_eq!(OsIo.read(&backup, 99).unwrap(), b"first");
    assert_eq!(
        OsIo.list(dir.path()).unwrap().len(),
        3,
        "no temporary file is left"
    );
}

/// Kills a process at every operation of a replacement: the content is the old or the new one.
#[test]
fn a_process_killed_while_replacing_leaves_old_or_new() {
    let mut finished = 0;
    for (name, hits) in [
        ("mmap_core.remove", 3),
        ("mmap_core.create", 1),
        ("mmap_core.write", 1),
        ("mmap_core.sync_all", 1),
        ("mmap_core.link", 1),
        ("mmap_core.rename", 2),
        ("mmap_core.sync_dir", 1),
    ] {
        for nth in 1..=hits + 1 {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("state"), b"old").unwrap();
            std::fs::write(dir.path().join("state.bak"), b"older").unwrap();
            let status = run_child(dir.path(), &format!("{name}=kill@{nth}"));
            let content = std::fs::read(dir.path().join("state")).unwrap();
            let backup = std::fs::read(dir.path().join("state.bak")).unwrap();
            if nth > hits {
                assert!(status.success(), "{name} is hit {hits} times");
                assert_eq!((&*content, &*backup), (&b"new"[..], &b"old"[..]));
                finished += 1;
            } else {
                assert_eq!(status.signal(), Some(SIGKILL), "{name}@{nth}");
                assert!(content == b"old" || content == b"new", "{name}@{nth}");
                assert!(backup == b"older" || backup == b"old", "{name}@{nth}");
                assert!(content == b"old" || backup == b"old", "{name}@{nth}");
                // What it left does not stand in the way of the next one.
                let state = dir.path().join("state");
                OsIo.replace(&state, b"next", Some(&dir.path().join("state.bak")))
                    .unwrap();
                assert_eq!(OsIo.list(dir.path()).unwrap().len(), 2);
            }
        }
    }
    assert_eq!(finished, 7);
}

/// Kills a process at every half of every part that it appends: without its head, nothing counts.
#[test]
fn a_process_killed_while_appending_leaves_no_head_without_the_rest() {
    let whole: Vec<u8> = RECORD.concat();
    let mut finished = false;
    for nth in 1..20 {
        let dir = tempfile::tempdir().unwrap();
        let status = run_child_of(
            "child_appends",
            dir.path(),
            &format!("mmap_core.append=kill@{nth}"),
        );
        let left = std::fs::read(dir.path().join("log")).unwrap();
        if status.success() {
            assert_eq!(left[..whole.len()], whole);
            finished = true;
            break;
        }
        assert_eq!(status.signal(), Some(SIGKILL), "{nth}");
        if left[..HEAD_LEN] != [0; HEAD_LEN] {
            assert_eq!(left[HEAD_LEN..whole.len()], whole[HEAD_LEN..], "{nth}");
        }
    }
    assert!(finished);
}

#[test]
#[ignore = "the child process of the test above"]
fn child_appends() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else {
        return;
    };
    let file = OsIo.create(&dir.join("log"), 4096).unwrap();
    let map = file.map(0, 4096, Access::ReadWrite).unwrap();
    let (_region, mut appender) = AppendRegion::new(map, 0);
    assert_eq!(appender.write_head_last(&RECORD), Some(0..42));
    appender.publish();
}

#[test]
#[ignore = "the child process of the test above"]
fn child_replaces() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else {
        return;
    };
    OsIo.replace(&dir.join("state"), b"new", Some(&dir.join("state.bak")))
        .unwrap();
}

fn run_child(dir: &Path, failpoints: &str) -> ExitStatus {
    run_child_of("child_replaces", dir, failpoints)
}

fn run_child_of(test: &str, dir: &Path, failpoints: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", test])
        .env(CHILD_DIR, dir)
        .env(ENVIRONMENT, failpoints)
        .output()
        .unwrap()
        .status
}

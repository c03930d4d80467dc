//! The lock of a store directory, against locks of every other kind.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]
#![allow(clippy::print_stderr, reason = "skips are loud")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use mmap_core::{Io, LockError, LockState, OsIo};

/// Takes an exclusive `fcntl` record lock on byte 0, as a Java broker does, says whether it got
/// it, and keeps it until its standard input ends.
const POSIX_LOCK: &str = "
import fcntl, sys
f = open(sys.argv[1], 'r+b')
try:
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    print('locked', flush=True)
except OSError:
    print('refused', flush=True)
sys.stdin.read()
";

#[test]
fn a_second_taker_in_this_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let lock = OsIo.lock(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"lock", "RocketMQ's content");
    match OsIo.lock(&path) {
        Err(LockError::Held {
            path: held,
            holder_pid: None,
        }) => assert_eq!(held, path),
        other => panic!("{other:?}"),
    }
    drop(lock);
    OsIo.lock(&path).unwrap();
}

#[test]
fn taking_a_lock_again_does_not_change_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    drop(OsIo.lock(&path).unwrap());
    let first = OsIo.metadata(&path).unwrap();
    // The file system's clock, which is a coarse one, goes on.
    let deadline = Instant::now() + Duration::from_secs(10);
    let other = dir.path().join("other");
    while first.as_ref().unwrap().changed >= changed_now(&other) {
        assert!(Instant::now() < deadline);
    }
    drop(OsIo.lock(&path).unwrap());
    assert_eq!(OsIo.metadata(&path).unwrap(), first);
}

fn changed_now(path: &Path) -> SystemTime {
    std::fs::write(path, b"x").unwrap();
    OsIo.metadata(path).unwrap().unwrap().changed
}

#[test]
fn looking_at_the_lock_neither_takes_nor_creates_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    assert_eq!(OsIo.lock_state(&path).unwrap(), LockState::Free);
    assert!(!path.exists());
    let lock = OsIo.lock(&path).unwrap();
    let held = LockState::Held { holder_pid: None };
    assert_eq!(OsIo.lock_state(&path).unwrap(), held);
    drop(lock);
    assert_eq!(OsIo.lock_state(&path).unwrap(), LockState::Free);
    let Some(mut other) = PosixLocker::spawn(&path) else {
        return;
    };
    let held = LockState::Held {
        holder_pid: Some(other.child.id()),
    };
    assert_eq!(OsIo.lock_state(&path).unwrap(), held);
    other.stop();
}

#[test]
fn closing_another_descriptor_keeps_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let _lock = OsIo.lock(&path).unwrap();
    drop(std::fs::File::open(&path).unwrap());
    assert_eq!(OsIo.read(&path, 100).unwrap(), b"lock");
    assert!(matches!(OsIo.lock(&path), Err(LockError::Held { .. })));
    let Some(mut other) = PosixLocker::spawn(&path) else {
        return;
    };
    assert_eq!(other.answer, "refused");
    other.stop();
}

#[test]
fn excludes_and_is_excluded_by_javas_kind_of_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    std::fs::write(&path, b"lock").unwrap();
    let Some(mut other) = PosixLocker::spawn(&path) else {
        return;
    };
    assert_eq!(other.answer, "locked");
    match OsIo.lock(&path) {
        Err(
            error @ LockError::Held {
                holder_pid: Some(pid),
                ..
            },
        ) => {
            assert_eq!(pid, other.child.id());
            assert!(
                error.to_string().contains(&format!("process {pid}")),
                "{error}"
            );
        }
        result => panic!("{result:?}"),
    }
    other.stop();

    let lock = OsIo.lock(&path).unwrap();
    let mut other = PosixLocker::spawn(&path).unwrap();
    assert_eq!(other.answer, "refused");
    other.stop();
    drop(lock);
    let mut other = PosixLocker::spawn(&path).unwrap();
    assert_eq!(other.answer, "locked");
    other.stop();
}

#[test]
fn a_lock_file_that_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none/lock");
    match OsIo.lock(&path) {
        Err(LockError::Io(error)) => {
            assert!(error.is_not_found());
            assert_eq!(error.path(), path);
        }
        other => panic!("{other:?}"),
    }
}

struct PosixLocker {
    child: Child,
    answer: String,
}

impl PosixLocker {
    fn spawn(path: &Path) -> Option<Self> {
        let child = Command::new("python3")
            .args(["-c", POSIX_LOCK])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "python3 is needed: {error}"
                );
                eprintln!("SKIPPED: no python3 to take a lock in another process: {error}");
                return None;
            }
        };
        let mut answer = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut answer)
            .unwrap();
        Some(Self {
            child,
            answer: answer.trim_end().to_owned(),
        })
    }

    /// Ends the process by ending its input, and waits for it.
    fn stop(&mut self) {
        self.child.stdin.take().unwrap().flush().unwrap();
        self.child.wait().unwrap();
    }
}

//! What only a process of its own can show: SIGBUS, and address space that runs out. And gauges of
//! the whole process, which other tests would disturb: this binary's tests take turns.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]
#![allow(clippy::print_stderr, reason = "skips are loud")]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mmap_core::{
    Access, AppendRegion, Io, IoFile, OsIo, RawMap, StagePool, check_lockable, counters,
    install_sigbus_handler, reaper,
};
use rustix::process::{Resource, Rlimit, Signal, geteuid, setrlimit};

const CHILD_DIR: &str = "MMAP_CORE_TEST_DIR";
/// A user without rights.
const NOBODY: u32 = 65_534;
const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn sigbus_names_file_and_offset_and_aborts() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_child("child_reads_a_cut_file", dir.path());
    assert_eq!(output.status.signal(), Some(SIGABRT), "{output:?}");
    let expected = format!(
        "mmap-core: SIGBUS at offset 12291 of {}: the page cannot be read or written (file cut by \
         another program, device full or failing); aborting\n",
        dir.path().join("00000000000000000000").display()
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(&expected), "{stderr}");
}

#[test]
#[ignore = "the child process of the test above"]
fn child_reads_a_cut_file() {
    let Some(path) = child_path() else { return };
    install_sigbus_handler().unwrap();
    install_sigbus_handler().unwrap();
    let file = OsIo.create(&path, 65_536).unwrap();
    let region = AppendRegion::read_only(file.map(4096, 8196, Access::ReadOnly).unwrap(), 8196);
    file.set_len(8192).unwrap();
    assert_eq!(region.bytes(0..4096).unwrap()[4095], 0);
    let unreadable = region.slice(8192..8196).unwrap();
    panic!(
        "read {} instead of a signal",
        std::hint::black_box(unreadable[3])
    );
}

#[test]
fn sigbus_elsewhere_is_left_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_child("child_reads_a_foreign_mapping", dir.path());
    assert_eq!(output.status.signal(), Some(SIGBUS), "{output:?}");
    assert!(
        !String::from_utf8(output.stderr)
            .unwrap()
            .contains("mmap-core: SIGBUS")
    );
}

#[test]
#[ignore = "the child process of the test above"]
fn child_reads_a_foreign_mapping() {
    let Some(path) = child_path() else { return };
    install_sigbus_handler().unwrap();
    let file = OsIo.create(&path, 4096).unwrap();
    drop(file.map(0, 4096, Access::ReadOnly).unwrap());
    // A signal that is sent has no address of ours either. The first one restores std's handler,
    // the second one that handler the default action, and the third one ends the process. Another
    // thread may take them, and those that are sent before it does count as one.
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        rustix::process::kill_process(rustix::process::getpid(), Signal::BUS).unwrap();
        std::thread::yield_now();
    }
}

#[test]
fn address_space_that_runs_out_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_child("child_runs_out_of_address_space", dir.path());
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "the child process of the test above"]
fn child_runs_out_of_address_space() {
    const LEN: usize = 1 << 30;
    let Some(path) = child_path() else { return };
    let file = OsIo.create(&path, LEN as u64).unwrap();
    let limit = Some(6 * LEN as u64);
    setrlimit(
        Resource::As,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
    let mut maps = Vec::new();
    let error = loop {
        match file.map(0, LEN, Access::ReadOnly) {
            Ok(map) => maps.push(map),
            Err(error) => break error,
        }
        assert!(maps.len() < 6);
    };
    assert!(error.is_out_of_memory());
    let text = error.to_string();
    assert!(text.contains("RLIMIT_AS") && text.contains(&format!("{} mappings", maps.len())));
    assert_eq!(file.len().unwrap(), LEN as u64);
    // What was given up just now is waited for.
    maps.clear();
    maps.push(file.map(0, LEN, Access::ReadOnly).unwrap());
}

/// Locking more than is allowed. Root may lock anything, so that the child gives that right up.
#[test]
fn a_lock_that_is_not_allowed_says_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new("setpriv");
    child.args(["--bounding-set=-ipc_lock", "--"]).arg(&exe);
    if Command::new("setpriv")
        .args(["--bounding-set=-ipc_lock", "true"])
        .status()
        .is_err()
        || !geteuid().is_root()
    {
        child = Command::new(exe);
    }
    let child = child.args(child_arguments("child_locks_too_much"));
    let output = child.env(CHILD_DIR, dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if geteuid().is_root() && text.contains("may lock anything") {
        assert!(std::env::var_os("CI").is_none(), "setpriv is needed");
        eprintln!("SKIPPED: root, and no setpriv to give up CAP_IPC_LOCK");
        return;
    }
    assert!(output.status.success(), "{text}");
}

#[test]
#[ignore = "the child process of the test above"]
fn child_locks_too_much() {
    let Some(path) = child_path() else { return };
    let limit = |current| {
        let maximum = Some(131_072);
        setrlimit(Resource::Memlock, Rlimit { current, maximum }).unwrap();
    };
    limit(Some(65_536));
    assert!(check_lockable(131_072).is_err(), "may lock anything");
    check_lockable(65_536).unwrap();
    let file = OsIo.create(&path, 1 << 20).unwrap();
    let map = file.map(0, 1 << 20, Access::ReadWrite).unwrap();
    map.lock_on_fault(0..65_536).unwrap();
    let expected = "(131072 bytes asked for, 65536 locked already; RLIMIT_MEMLOCK is 65536 bytes and \
                    can be raised to 131072 bytes: raise it";
    for refusal in [
        map.lock(65_536..196_608).unwrap_err(),
        map.lock_on_fault(65_536..196_608).unwrap_err(),
        check_lockable(131_072).unwrap_err(),
    ] {
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
    limit(Some(131_072));
    map.lock(65_536..131_072).unwrap();
    map.unlock(0..131_072).unwrap();
    check_lockable(131_072).unwrap();
    let residency = map.resident(0..1 << 20).unwrap();
    assert_eq!(residency.pages, 256);
    let mut byte = [1];
    file.read_exact_at(&mut byte, 131_071).unwrap();
    assert_eq!(byte, [0]);
}

#[test]
fn mappings_are_counted_and_large_ones_reaped() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 64 << 20).unwrap();
    let (bytes, files) = (counters::mapped_bytes(), counters::mapped_files());
    let small = file.map(0, 5000, Access::ReadOnly).unwrap();
    assert_eq!(counters::mapped_bytes(), bytes + 5000);
    drop(small);
    assert_eq!(
        counters::mapped_bytes(),
        bytes,
        "small ones are unmapped at once"
    );
    // More than the reaper's queue holds: the rest is unmapped here.
    let maps: Vec<_> = (0..300)
        .map(|_| file.map(0, 64 << 20, Access::ReadOnly).unwrap())
        .collect();
    assert_eq!(counters::mapped_files(), files + 300);
    drop(maps);
    reaper::settle();
    assert_eq!(
        (counters::mapped_bytes(), counters::mapped_files()),
        (bytes, files)
    );
}

#[test]
fn a_slice_dropped_last_unmaps() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 16 << 20).unwrap();
    let files = counters::mapped_files();
    let region = AppendRegion::read_only(file.map(0, 16 << 20, Access::ReadOnly).unwrap(), 100);
    let slice = region.slice(10..20).unwrap();
    drop((region, file));
    reaper::settle();
    assert_eq!(counters::mapped_files(), files + 1);
    assert_eq!(*slice, [0; 10]);
    drop(slice);
    reaper::settle();
    assert_eq!(counters::mapped_files(), files);
}

#[test]
fn stage_buffers_that_may_not_be_locked_work_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = child("child_may_not_lock", dir.path());
    if geteuid().is_root() {
        // Root may lock what it likes.
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => println!("SKIPPED: another user cannot run this program: {error}"),
    }
}

#[test]
#[ignore = "the child process of the test above"]
fn child_may_not_lock() {
    let limit = Some(65_536);
    setrlimit(
        Resource::Memlock,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
    let pool = StagePool::new(3, 1 << 20).unwrap();
    let text = pool.lock_refusal().unwrap().to_string();
    assert!(
        text.contains("3145728 bytes asked for") && text.contains("RLIMIT_MEMLOCK is 65536"),
        "{text}"
    );
    let mut buffer = pool.take().unwrap();
    assert_eq!(buffer.push(b"works all the same"), 18);
    assert!(StagePool::new(2, 4096).unwrap().lock_refusal().is_none());
}

fn run_child(test: &str, dir: &Path) -> Output {
    child(test, dir).output().unwrap()
}

fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(child_arguments(test)).env(CHILD_DIR, dir);
    command
}

fn child_arguments(test: &str) -> [&str; 4] {
    ["--exact", "--ignored", "--nocapture", test]
}

fn child_path() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(|dir| PathBuf::from(dir).join("00000000000000000000"))
}

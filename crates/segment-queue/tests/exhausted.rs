//! Address space and map entries that run out, on real files, each in a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends by panicking, and skips loudly"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mmap_core::{Access, Io, IoFile, OsIo, OsMap, reaper};
use rustix::process::{Resource, Rlimit, setrlimit};
use segment_queue::{QueueError, SegmentQueue, SegmentQueueOptions, SegmentWriter};

const CHILD_DIR: &str = "SEGMENT_QUEUE_TEST_DIR";
const MIB: u64 = 1 << 20;

/// More map entries than this take too long to use up.
const MAX_MAP_COUNT_MOST: usize = 300_000;

fn run_child(test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", test])
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// A queue of `count` sparse segments, each of which begins with its number. Nothing is mapped.
fn filled(dir: &Path, segment_len: u64, count: u64) -> (Arc<SegmentQueue>, SegmentWriter) {
    let mut options = SegmentQueueOptions::new(dir.join("queue"), segment_len);
    options.allocate_step = 4096;
    let (_, mut writer) = SegmentQueue::open(OsIo, &options).unwrap();
    for index in 0..count {
        writer.roll().unwrap();
        writer.append(&[&[index as u8; 8]]).unwrap();
    }
    writer.close().unwrap();
    let (queue, mut writer) = SegmentQueue::open(OsIo, &options).unwrap();
    writer.resume((count - 1) * segment_len + 8).unwrap();
    reaper::settle();
    (queue, writer)
}

fn read(queue: &SegmentQueue, index: u64) -> Result<(), QueueError> {
    let slice = queue.try_slice(index * queue.segment_len(), 8)?.unwrap();
    assert_eq!(*slice, [index as u8; 8]);
    Ok(())
}

#[track_caller]
fn check_refusal(refusal: &QueueError, limit: &str) {
    assert!(refusal.is_out_of_memory(), "{refusal}");
    let text = refusal.to_string();
    assert!(
        text.contains("RLIMIT_AS") && text.contains("vm.max_map_count"),
        "{text}"
    );
    assert!(text.contains(limit), "{text}");
}

/// Bytes of address space in use.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn address_space_is_taken_from_what_is_idle_and_then_refused() {
    run_child("child_uses_up_address_space");
}

#[test]
#[ignore = "the child process of the test above"]
fn child_uses_up_address_space() {
    const LEN: u64 = 256 * MIB;
    let Some(dir) = child_dir() else { return };
    let (queue, mut writer) = filled(&dir, LEN, 10);
    // Four segments fit, and half of another for everything else.
    let limit = address_space() + 4 * LEN + LEN / 2;
    let both = Some(limit);
    setrlimit(
        Resource::As,
        Rlimit {
            current: both,
            maximum: both,
        },
    )
    .unwrap();

    for index in 0..9 {
        read(&queue, index).unwrap();
    }
    assert!(
        (LEN..=4 * LEN).contains(&queue.mapped_len()),
        "{}",
        queue.mapped_len()
    );

    // What readers hold is not idle.
    queue.release();
    reaper::settle();
    let slice = |index| queue.slice(index * LEN, 8).unwrap();
    let held: Vec<_> = (0..4).map(slice).collect();
    let file = queue.segments()[5].path();
    let before = OsIo.metadata(&file).unwrap();
    check_refusal(&read(&queue, 5).unwrap_err(), &limit.to_string());
    assert_eq!(
        OsIo.metadata(&file).unwrap(),
        before,
        "the file is as it was"
    );
    let names = OsIo.list(&dir.join("queue")).unwrap();
    check_refusal(&writer.roll().unwrap_err(), &limit.to_string());
    assert_eq!(
        OsIo.list(&dir.join("queue")).unwrap(),
        names,
        "no file is left"
    );
    assert!(!queue.is_poisoned());
    assert!(
        held.iter()
            .enumerate()
            .all(|(index, slice)| **slice == [index as u8; 8])
    );

    drop(held);
    read(&queue, 5).unwrap();
    writer.roll().unwrap();
    writer.append(&[b"goes on"]).unwrap();
    writer.publish();
    assert_eq!(&*queue.slice(10 * LEN, 7).unwrap(), b"goes on");
}

#[test]
fn map_entries_are_taken_from_what_is_idle_and_then_refused() {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let most: usize = text.trim().parse().unwrap();
    if most > MAX_MAP_COUNT_MOST {
        eprintln!("SKIPPED: vm.max_map_count is {most}, more than can be used up in a short time");
        return;
    }
    run_child("child_uses_up_map_entries");
}

#[test]
#[ignore = "the child process of the test above"]
fn child_uses_up_map_entries() {
    let Some(dir) = child_dir() else { return };
    let (queue, mut writer) = filled(&dir, 8192, 6);
    let file = OsIo.create(&dir.join("other"), 4096).unwrap();
    // Room from the start: a vector that grows maps memory.
    let mut others: Vec<OsMap> = Vec::with_capacity(MAX_MAP_COUNT_MOST);
    // The same page again and again, which the kernel cannot join to one entry.
    let use_up = |others: &mut Vec<OsMap>| {
        while let Ok(map) = file.map(0, 4096, Access::ReadOnly) {
            others.push(map);
        }
    };
    read(&queue, 0).unwrap();
    read(&queue, 1).unwrap();
    use_up(&mut others);
    assert!(others.len() > 1000);
    read(&queue, 2).unwrap();
    assert_eq!(queue.mapped_len(), 8192, "the idle ones gave way");
    writer.roll().unwrap();

    queue.release();
    use_up(&mut others);
    let most = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let most = format!("vm.max_map_count, {} mappings", most.trim());
    check_refusal(&read(&queue, 3).unwrap_err(), &most);
    let names = OsIo.list(&dir.join("queue")).unwrap();
    check_refusal(&writer.roll().unwrap_err(), &most);
    assert_eq!(OsIo.list(&dir.join("queue")).unwrap(), names);

    others.truncate(others.len() - 8);
    read(&queue, 3).unwrap();
    writer.roll().unwrap();
}

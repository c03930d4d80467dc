//! Four terabytes of log: opening them maps and reads nothing, reading all over them keeps the page
//! tables small. A test of its own, because it measures its process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

use std::fs;
use std::path::Path;
use std::time::Instant;

use segment_queue::mmap_core::{Advice, Io, OsIo, counters};
use segment_queue::{SegmentQueue, SegmentQueueOptions, segment_name};

const SEGMENT_LEN: u64 = 1 << 30;
const SEGMENT_COUNT: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A number of a file in /proc/self: the one behind `name`.
fn of_process(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(Path::new("/proc/self").join(file)).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    let number = line.split_ascii_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// Bytes of this process's page tables.
fn page_tables() -> u64 {
    1024 * of_process("status", "VmPTE:")
}

fn open(dir: &Path, mapped_len_max: Option<u64>) -> std::sync::Arc<SegmentQueue> {
    let mut options = SegmentQueueOptions::new(dir, SEGMENT_LEN);
    options.mapped_len_max = mapped_len_max;
    // Without it each first touch reads the device's read-ahead: megabytes of zeros.
    options.advice = Advice::Random;
    SegmentQueue::open_read_only(OsIo, &options).unwrap()
}

/// Reads a byte in each quarter of each segment; returns the most that the page tables took.
fn read_all_over(queue: &SegmentQueue) -> u64 {
    let mut most = 0;
    for quarter in 0..SEGMENT_COUNT * 4 {
        let slice = queue.slice(quarter * (SEGMENT_LEN / 4), 1).unwrap();
        assert_eq!(*slice, [0]);
        if quarter % 256 == 255 {
            most = most.max(page_tables());
        }
    }
    most
}

#[test]
fn four_terabytes_open_at_once_and_serve_with_small_page_tables() {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..SEGMENT_COUNT {
        let path = dir.path().join(segment_name(index * SEGMENT_LEN));
        OsIo.create(&path, SEGMENT_LEN).unwrap();
    }
    let (before, read_before) = (page_tables(), of_process("io", "rchar:"));
    let start = Instant::now();
    let queue = open(dir.path(), Some(16 * SEGMENT_LEN));
    let took = start.elapsed();
    // What was read is /proc itself.
    assert!(of_process("io", "rchar:") - read_before < 64 * 1024);
    assert_eq!(queue.published(), 4 << 40);
    assert_eq!((queue.mapped_len(), counters::mapped_files()), (0, 0));

    let bounded = read_all_over(&queue);
    assert!(bounded < 64 * MIB, "{bounded} bytes of page tables");
    assert_eq!(queue.mapped_len(), 16 * SEGMENT_LEN);
    drop(queue);

    let unbounded = read_all_over(&open(dir.path(), None));
    println!(
        "opened {SEGMENT_COUNT} segments in {took:?}; page tables: {} KiB before, at most {} KiB \
         with 16 of them mapped, {} KiB with all",
        before / 1024,
        bounded / 1024,
        unbounded / 1024
    );
    assert!(unbounded > 4 * bounded, "the test would not notice");
}

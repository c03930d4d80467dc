//! A reader who goes through a queue that is not in memory does not wait for each of its pages.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]
#![allow(
    clippy::disallowed_types,
    reason = "real files are dropped from memory"
)]
#![allow(clippy::print_stderr, reason = "skips are loud")]

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consumequeue::{ConsumeQueue, ConsumeQueueOptions, Entry, OpenPolicy};
use mmap_core::{Access, Io, IoFile, OsIo, RawMap};

const COUNT: i64 = 5000;
/// What the entries take.
const LEN: usize = 20 * COUNT as usize;

#[test]
fn what_follows_is_read_ahead_for_a_reader_who_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let open = || -> Arc<ConsumeQueue> {
        let options = ConsumeQueueOptions::DEFAULT;
        ConsumeQueue::open(OsIo, dir.path(), options, OpenPolicy::Clean).unwrap()
    };
    let queue = open();
    for index in 0..COUNT {
        let entry = Entry {
            physical_offset: index * 100,
            size: 100,
            tags_code: 0,
        };
        queue.put(index, entry).unwrap();
    }
    drop(queue);
    let queue = open();
    let path = dir.path().join("00000000000000000000");
    let opened = OsIo.open(&path, Access::ReadOnly).unwrap();
    let map = opened.map(0, LEN, Access::ReadOnly).unwrap();
    let in_memory = || map.resident(0..LEN).unwrap();
    let file = File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    if in_memory().resident > 0 {
        eprintln!("SKIPPED: this file system's files are in memory only");
        return;
    }

    // Four pages hold 819 entries.
    queue.entries(0, 800).unwrap().unwrap();
    let found = in_memory();
    assert!(found.resident < found.pages, "a single read reads no more");
    queue.entries(32, 800).unwrap().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while in_memory().resident < found.pages {
        assert!(Instant::now() < deadline, "{:?}", in_memory());
        std::thread::yield_now();
    }
}

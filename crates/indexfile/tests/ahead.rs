//! What puts touch is in memory soon after an index was opened, so that they do not wait for the
//! device.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the page cache of real files is looked at"
)]
#![allow(clippy::print_stderr, reason = "skips are loud")]

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use indexfile::{IndexOptions, IndexService, OpenPolicy, PutOutcome};
use mmap_core::{Access, Io, IoFile, OsIo, RawMap};

const OPTIONS: IndexOptions = IndexOptions {
    slot_count: 500_000,
    entry_count_max: 100_000,
    query_count_max: 1000,
};
const KEY_COUNT: u64 = 20_000;
const SLOTS_LEN: usize = 4 * OPTIONS.slot_count as usize;

fn open(dir: &Path) -> IndexService {
    IndexService::open(OsIo, dir, OPTIONS, OpenPolicy::Clean)
        .unwrap()
        .0
}

/// Pages of the slots that are in memory.
fn cached_count(map: &impl RawMap) -> usize {
    map.resident(0..SLOTS_LEN).unwrap().resident
}

#[test]
fn slots_are_read_when_a_file_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    for number in 0..KEY_COUNT {
        // All over the slots.
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string();
        let put = index.put("topic", &key, number * 100, 1_700_000_000_000);
        assert_eq!(put.unwrap(), PutOutcome::Indexed);
    }
    index.flush().unwrap();
    drop(index);
    let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap();
    let path = path.unwrap().path();
    let opened = OsIo.open(&path, Access::ReadOnly).unwrap();
    let map = opened.map(0, SLOTS_LEN, Access::ReadOnly).unwrap();
    let all = cached_count(&map);
    let file = File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    if cached_count(&map) > all / 4 {
        eprintln!("SKIPPED: this file system's files are in memory only");
        return;
    }

    let index = open(dir.path());
    let deadline = Instant::now() + Duration::from_secs(10);
    while cached_count(&map) < all {
        let count = cached_count(&map);
        assert!(
            Instant::now() < deadline,
            "{count} of {all} pages were read"
        );
        std::thread::yield_now();
    }
    drop(index);
}

//! What tests of small stores on a simulated device share.

#![allow(dead_code, reason = "each test file uses the part it needs")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use store::{Clock, IndexOptions, StoreOptions};

pub(crate) const SEGMENT_LEN: u64 = 16 * 1024;
pub(crate) const ENTRIES_PER_FILE: u64 = 16;

/// A clock that moves by a millisecond each time it is read.
#[derive(Debug, Default)]
pub(crate) struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed) as i64
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A store whose files are full after a few messages.
pub(crate) fn options() -> StoreOptions {
    let mut options = StoreOptions::new("/store");
    options.segment_len = SEGMENT_LEN;
    options.queue_file_len = 20 * ENTRIES_PER_FILE;
    options.index = Some(IndexOptions {
        slot_count: 16,
        entry_count_max: 40,
        ..IndexOptions::DEFAULT
    });
    options
}

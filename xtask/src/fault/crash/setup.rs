//! What a seed chooses once: sizes, flush mode, which faults there are; and the machine's clock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use message::{CrcProperty, Limits};
use mmap_core::{Random, WarmUp};
use store::{Clock, FlushMode, IndexOptions, LogWarmUp, StoreOptions};

/// Where the store lies on the simulated machine.
pub const ROOT: &str = "/data/store";

/// The variable that lets topics be deleted too. What recovery may bring back of them is not fully
/// described by the model yet.
pub const DELETES: &str = "FOLIOMQ_FAULT_DELETES";

/// The fixed choices of a seed.
#[derive(Debug)]
pub struct Setup {
    pub options: StoreOptions,
    pub topics: u64,
    pub queues: u64,
    /// Operations of the device fail now and then.
    pub has_errors: bool,
    /// The disk is full now and then.
    pub has_full_disk: bool,
    /// Segments expire.
    pub has_trims: bool,
    /// Topics are deleted.
    pub has_deletes: bool,
}

impl Setup {
    pub fn new(random: &mut Random) -> Self {
        let mut options = StoreOptions::new(ROOT);
        // Multiples of a page and not.
        options.segment_len = random.pick(&[8 * 1024, 16 * 1024, 16 * 1024, 20_000, 64 * 1024]);
        options.queue_file_len = 20 * random.pick(&[8, 32, 32, 300, 1000]);
        let (slot_count, entry_count_max) =
            random.pick(&[(16, 40), (16, 40), (7, 11), (64, 400), (1500, 300)]);
        options.index = Some(IndexOptions {
            slot_count,
            entry_count_max,
            ..IndexOptions::DEFAULT
        });
        options.flush = match random.below(3) {
            0 => FlushMode::sync_default(),
            1 => FlushMode::async_default(),
            _ => staged(random),
        };
        options.limits = Limits {
            crc_property: random.pick(&[CrcProperty::Omit, CrcProperty::Append]),
            ..Limits::default()
        };
        let has_trims = random.once_in(2);
        if has_trims {
            options.clean.log_len_max = Some(options.segment_len * random.between(2, 7));
        }
        let touch = WarmUp::Touch {
            sync_every: random.once_in(2).then_some(2),
        };
        options.log_warm_up = random.pick(&[
            LogWarmUp::None,
            LogWarmUp::Window,
            LogWarmUp::Whole(touch),
            LogWarmUp::Whole(WarmUp::Zeros),
        ]);
        Self {
            options,
            topics: random.between(1, 5),
            queues: random.between(1, 4),
            has_errors: random.once_in(3),
            has_full_disk: random.once_in(4),
            has_trims,
            has_deletes: random.once_in(3) && std::env::var_os(DELETES).is_some(),
        }
    }

    pub fn is_sync(&self) -> bool {
        matches!(self.options.flush, FlushMode::Sync { .. })
    }

    /// Records wait in buffers of the process before they are in the files.
    pub fn is_staged(&self) -> bool {
        matches!(self.options.flush, FlushMode::Staged { .. })
    }

    /// A put for which no buffer is free is refused.
    pub fn is_fast_failing(&self) -> bool {
        matches!(&self.options.flush, FlushMode::Staged { stage, .. } if stage.is_fast_failing)
    }
}

/// Buffers for some records, or for less than one.
fn staged(random: &mut Random) -> FlushMode {
    let mut mode = FlushMode::staged_default();
    if let FlushMode::Staged { stage, .. } = &mut mode {
        stage.buffer_count = random.between(1, 4) as usize;
        stage.buffer_len = random.pick(&[4096, 4096, 12_288, 65_536]);
        stage.is_fast_failing = random.once_in(4);
    }
    mode
}

/// A clock that moves on by some fraction of a millisecond each time it is read, so that some
/// messages share one; and by leaps, forwards and for the wall clock also backwards.
#[derive(Debug, Default)]
pub struct Ticks {
    quarters: AtomicU64,
    wall_shift_ms: AtomicI64,
}

impl Ticks {
    pub fn leap(&self, by_ms: u64) {
        self.quarters.fetch_add(by_ms * 4, Ordering::Relaxed);
    }

    /// Sets the wall clock: back, if `by_ms` is negative.
    pub fn set_wall(&self, by_ms: i64) {
        self.wall_shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    fn ms(&self) -> u64 {
        self.quarters.fetch_add(1, Ordering::Relaxed) / 4
    }
}

impl Clock for Ticks {
    fn wall_ms(&self) -> i64 {
        let shift = self.wall_shift_ms.load(Ordering::Relaxed);
        1_700_000_000_000 + shift + self.ms().cast_signed()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.ms())
    }
}

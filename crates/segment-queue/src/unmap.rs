//! Letting go of mappings: of segments that nobody has used for a while, and of those used least
//! recently when more is mapped than may be. Not of slices: they keep their mapping for themselves.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use mmap_core::Io;
use mmap_core::sync::atomic::{AtomicU64, Ordering};

use crate::error::QueueError;
use crate::guard::lock;
use crate::queue::SegmentQueue;
use crate::segment::Segment;

/// Bits of a stamp below its milliseconds: they count the mappings made since the last step, so that
/// uses between two steps have an order.
const MILLISECOND_SHIFT: u32 = 20;

/// How long readers get to drop their slices when there is no memory for a mapping: 20 ms.
const RELIEF_PAUSE: Duration = Duration::from_millis(20);

/// The stamp of a segment that is not mapped.
pub(crate) const NEVER: u64 = 0;

/// Tells when segments were used, as far as steps and mappings tell: reading it costs one load of a
/// cache line that rarely changes.
#[derive(Debug)]
pub(crate) struct UseClock {
    /// Milliseconds of the last step, and the mappings made since. Orders nothing.
    stamp: AtomicU64,
    /// Milliseconds of the first step: what was used before it is no older than it.
    began_ms: OnceLock<u64>,
}

/// Bytes that the queues which share it may have mapped together. A handle: clones are the same
/// budget.
#[derive(Debug, Clone)]
pub struct MapBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    len_max: u64,
    /// Bytes of the mappings that segments of all queues keep; orders nothing.
    mapped_len: AtomicU64,
}

impl MapBudget {
    /// A budget of so many bytes.
    pub fn new(len_max: u64) -> Self {
        Self(Arc::new(Budget {
            len_max,
            mapped_len: AtomicU64::new(0),
        }))
    }

    /// Bytes that the queues keep mapped now.
    pub fn mapped_len(&self) -> u64 {
        self.0.mapped_len.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, len: u64) {
        self.0.mapped_len.fetch_add(len, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, len: u64) {
        self.0.mapped_len.fetch_sub(len, Ordering::Relaxed);
    }

    /// Whether that is more than may be.
    pub fn is_exceeded(&self) -> bool {
        self.mapped_len() > self.0.len_max
    }
}

impl PartialEq for MapBudget {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for MapBudget {}

/// What [`SegmentQueue::step_unmap`] let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unmapped {
    /// Segments.
    pub segment_count: u64,
    /// Their bytes.
    pub len: u64,
}

impl UseClock {
    pub(crate) fn new() -> Self {
        Self {
            stamp: AtomicU64::new(NEVER + 1),
            began_ms: OnceLock::new(),
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
    }

    /// The stamp of a mapping that is made now; later uses get a higher one.
    pub(crate) fn tick(&self) -> u64 {
        self.stamp.fetch_add(1, Ordering::Relaxed)
    }

    /// Goes on to `now`; returns the stamp below which uses are older than `age`.
    fn advance(&self, now: Duration, age: Duration) -> u64 {
        let (now_ms, age_ms) = (milliseconds(now), milliseconds(age));
        let began_ms = *self.began_ms.get_or_init(|| now_ms);
        self.stamp
            .fetch_max(now_ms << MILLISECOND_SHIFT, Ordering::Relaxed);
        match now_ms.checked_sub(age_ms) {
            // Stamps from before the first step are taken for as old as that step.
            Some(oldest_ms) if oldest_ms >= began_ms => (oldest_ms + 1) << MILLISECOND_SHIFT,
            _ => NEVER,
        }
    }
}

/// Whole milliseconds that leave room for the shift.
fn milliseconds(time: Duration) -> u64 {
    const MOST: u64 = (1 << (u64::BITS - MILLISECOND_SHIFT)) - 2;
    u64::try_from(time.as_millis()).map_or(MOST, |time| time.min(MOST))
}

impl<I: Io> SegmentQueue<I> {
    /// Bytes of the segments that the queue keeps mapped now. Mappings that only slices keep are
    /// not among them.
    pub fn mapped_len(&self) -> u64 {
        self.home.mapped_len.load(Ordering::Relaxed)
    }

    /// Unmaps the segments that were not read for
    /// [`unmap_after`](crate::SegmentQueueOptions::unmap_after), and the least recently read ones
    /// until [`mapped_len_max`](crate::SegmentQueueOptions::mapped_len_max) and
    /// [`budget`](crate::SegmentQueueOptions::budget) are kept. To be called
    /// now and then, several times within `unmap_after`; `now` is of any clock that never runs
    /// backwards.
    ///
    /// What stays: the last segment, what the writer has open, and the segments that hold one of
    /// the offsets in `keep` (readers' positions, say), also in the time up to the next step.
    /// Slices that are held stay valid, and keep their mapping.
    pub fn step_unmap(&self, now: Duration, keep: &[u64]) -> Unmapped {
        keep.clone_into(&mut lock(&self.keep_mapped));
        let mut unmapped = Unmapped::default();
        if let Some(age) = self.home.unmap_after {
            let stamp = self.home.use_clock.advance(now, age);
            for (segment, used) in self.idle_segments(None) {
                if used < stamp {
                    unmapped.add(&segment);
                }
            }
        }
        self.keep_budget(None, &mut unmapped);
        unmapped
    }

    /// Unmaps the least recently used until the budget is kept; `mapped`, an offset in the segment
    /// that was mapped just now, stays.
    pub(crate) fn keep_budget(&self, mapped: Option<u64>, unmapped: &mut Unmapped) {
        if !self.is_too_much_mapped() {
            return;
        }
        let mut idle = self.idle_segments(mapped);
        idle.sort_unstable_by_key(|(segment, used)| (*used, segment.base()));
        for (segment, _) in idle {
            if !self.is_too_much_mapped() {
                break;
            }
            unmapped.add(&segment);
        }
    }

    fn is_too_much_mapped(&self) -> bool {
        let home = &self.home;
        home.mapped_len_max
            .is_some_and(|most| self.mapped_len() > most)
            || home.budget.as_ref().is_some_and(MapBudget::is_exceeded)
    }

    /// Maps by `map`. If address space or map entries are used up, what is idle is unmapped, readers
    /// get a moment to drop their slices, and then it is tried once more.
    pub(crate) fn map_with_relief<T>(
        &self,
        map: impl Fn() -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        match map() {
            Err(error) if error.is_out_of_memory() => {
                let mut unmapped = Unmapped::default();
                for (segment, _) in self.idle_segments(None) {
                    unmapped.add(&segment);
                }
                thread::sleep(RELIEF_PAUSE);
                map()
            }
            result => result,
        }
    }

    /// The mapped segments that need not stay so, with the stamps of their last use.
    fn idle_segments(&self, mapped: Option<u64>) -> Vec<(Arc<Segment<I>>, u64)> {
        let segments = self.segments();
        let Some((_last, others)) = segments.split_last() else {
            return Vec::new();
        };
        let keep = lock(&self.keep_mapped);
        let stays = |segment: &Segment<I>| {
            let mut offsets = keep.iter().copied().chain(mapped);
            offsets.any(|offset| (segment.base()..segment.end()).contains(&offset))
        };
        others
            .iter()
            .map(|segment| (segment, segment.used()))
            .filter(|(segment, used)| *used != NEVER && !stays(segment))
            .map(|(segment, used)| (Arc::clone(segment), used))
            .collect()
    }
}

impl Unmapped {
    /// Unmaps a segment, unless its writer has it open, and counts it.
    fn add<I: Io>(&mut self, segment: &Segment<I>) {
        if segment.unmap_detached() {
            self.segment_count += 1;
            self.len += segment.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_age_from_the_first_step_on_and_have_an_order_between_steps() {
        let clock = UseClock::new();
        let (seconds, age) = (Duration::from_secs, Duration::from_secs(10));
        let early = clock.tick();
        assert!(clock.now() > early);
        assert_eq!(clock.advance(seconds(1_000), age), NEVER);
        let at_first_step = clock.now();
        assert_eq!(clock.advance(seconds(1_009), age), NEVER);
        let later = clock.now();
        let older = clock.advance(seconds(1_010), age);
        assert!(early < older && at_first_step < older && older < later);
        assert!(clock.advance(seconds(1_018), age) <= later);
        assert!(clock.advance(seconds(1_019), age) > later);
        assert!(
            clock.advance(Duration::MAX, age) > clock.advance(seconds(0), age),
            "time that runs backwards ages nothing"
        );
    }
}

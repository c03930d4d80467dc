//! What is known of a log's bytes before they are read: the difference between a record that was
//! damaged and one that was never written.

/// What is known of a log before it is recovered.
///
/// A device that loses power forgets, in any order, what was not synced: bytes that are no record
/// may be all that is left of the log's end, and what follows them proves nothing. Bytes that were
/// synced, or that a machine which never stopped has in its cache, are different: there a record
/// that cannot be read is damage, and the records behind it are good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Everything below this offset was synced: `u64::MAX` after a clean stop, 0 when nothing is
    /// known. It is the end of a record or of a segment.
    pub flushed: u64,
    /// Nothing below `flushed` was stored after this time, ms, if that is known. A later record there
    /// tells that somebody cut the log and wrote on since: `flushed` ends before it.
    pub flushed_last_ms: Option<i64>,
    /// Records stored before this time were synced, ms (RocketMQ: `physicMsgTimestamp` of the
    /// checkpoint); 0 when nothing is known.
    pub flushed_before_ms: i64,
    /// The machine has not lost power since the log was last written.
    pub is_power_kept: bool,
    /// Everything below was written whole, though of what lies above `flushed` nothing tells that it
    /// was synced; 0 if nothing but `flushed` is known. Needs `is_power_kept`.
    pub whole: u64,
    /// Store time of the last record that was appended before a clean stop, ms: what was stored
    /// earlier and stands behind it is what an earlier truncation left.
    pub last_store_ms: Option<i64>,
}

impl Known {
    /// What a clean stop tells: everything was synced.
    pub const CLEAN: Self = Self {
        flushed: u64::MAX,
        flushed_last_ms: None,
        flushed_before_ms: 0,
        is_power_kept: true,
        whole: 0,
        last_store_ms: None,
    };

    /// Nothing: the log ends at the first bytes that are not its next record.
    pub const NOTHING: Self = Self {
        flushed: 0,
        flushed_last_ms: None,
        flushed_before_ms: 0,
        is_power_kept: false,
        whole: 0,
        last_store_ms: None,
    };

    /// Takes in a record: one that is newer than all that was synced was written over it.
    pub(crate) fn see(&mut self, offset: u64, store_ms: i64) {
        if offset < self.flushed
            && self
                .flushed_last_ms
                .is_some_and(|last_ms| store_ms > last_ms)
        {
            self.flushed = offset;
        }
    }

    /// Whether a record found behind damage proves that the damage lies within the log.
    pub(crate) fn vouches_for(&self, offset: u64, store_ms: i64) -> bool {
        self.is_power_kept || offset <= self.flushed || store_ms < self.flushed_before_ms
    }

    /// Whether a record at `offset` that was stored at `store_ms`, before its predecessor, is what
    /// an earlier truncation left there (Java leaves it) and not a step back of the clock.
    pub(crate) fn is_stale(&self, offset: u64, store_ms: i64, previous_ms: i64) -> bool {
        store_ms < previous_ms
            && (offset >= self.flushed || self.last_store_ms == Some(previous_ms))
    }
}

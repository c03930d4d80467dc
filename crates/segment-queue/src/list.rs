//! The segments of a queue in order, without gaps: an immutable list, replaced when it changes.

use std::sync::Arc;

use mmap_core::Io;

use crate::segment::Segment;

/// Segments by ascending offset, each following the one before.
#[derive(Debug)]
pub(crate) struct SegmentList<I: Io>(Arc<[Arc<Segment<I>>]>);

impl<I: Io> SegmentList<I> {
    pub(crate) fn new(segments: impl IntoIterator<Item = Arc<Segment<I>>>) -> Self {
        let list = Self(segments.into_iter().collect());
        debug_assert!(
            list.0
                .windows(2)
                .all(|pair| matches!(pair, [a, b] if a.end() == b.base()))
        );
        list
    }

    pub(crate) fn segments(&self) -> &Arc<[Arc<Segment<I>>]> {
        &self.0
    }

    pub(crate) fn first(&self) -> Option<&Arc<Segment<I>>> {
        self.0.first()
    }

    pub(crate) fn last(&self) -> Option<&Arc<Segment<I>>> {
        self.0.last()
    }

    /// The segment that holds `offset`.
    pub(crate) fn find(&self, offset: u64) -> Option<&Arc<Segment<I>>> {
        let first = self.0.first()?;
        let index = offset.checked_sub(first.base())? / first.len();
        self.0.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn with_last(&self, segment: Arc<Segment<I>>) -> Self {
        Self::new(self.0.iter().cloned().chain([segment]))
    }

    pub(crate) fn with_first(&self, segment: Arc<Segment<I>>) -> Self {
        Self::new([segment].into_iter().chain(self.0.iter().cloned()))
    }

    pub(crate) fn without_first(&self) -> Self {
        Self::new(self.0.iter().skip(1).cloned())
    }

    pub(crate) fn without_last(&self) -> Self {
        let count = self.0.len().saturating_sub(1);
        Self::new(self.0.iter().take(count).cloned())
    }
}

//! Several parts of one mapping, kept alive together.

use std::fmt;
use std::ops::Range;

use crate::append::{AppendRegion, MapSlice};
use crate::map::{OsMap, RawMap};

/// Published bytes of a mapping, in parts: what [`MapSlice`] is for one range. However many parts
/// there are, they take one reference count.
pub struct MapParts<M: RawMap = OsMap> {
    region: AppendRegion<M>,
    /// Each within the published bytes of `region`; none is empty.
    ranges: Vec<Range<usize>>,
    len: usize,
}

impl<M: RawMap> MapParts<M> {
    /// No part yet, of the mapping of a slice, with room for so many.
    pub fn of(slice: &MapSlice<M>, capacity: usize) -> Self {
        Self {
            region: slice.region().clone(),
            ranges: Vec::with_capacity(capacity),
            len: 0,
        }
    }

    /// Whether a slice is of the same mapping.
    #[inline]
    pub fn is_of(&self, slice: &MapSlice<M>) -> bool {
        self.region.is_same(slice.region())
    }

    /// Adds a part of a slice of the same mapping. One that follows the last part makes it longer.
    ///
    /// # Panics
    /// If the slice is of another mapping, or `range` not within it.
    #[inline]
    pub fn push(&mut self, slice: &MapSlice<M>, range: Range<usize>) {
        let within = slice.range();
        assert!(
            self.is_of(slice) && range.start <= range.end && range.end <= within.len(),
            "not a part of this mapping"
        );
        let (start, end) = (within.start + range.start, within.start + range.end);
        self.len += range.len();
        match self.ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ if start == end => {}
            _ => self.ranges.push(start..end),
        }
    }

    /// Bytes of all parts.
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.len
    }

    /// How many parts there are.
    #[inline]
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// The part with this number; `None` behind the last.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.ranges.get(index).map(|range| self.bytes(range))
    }

    /// The parts, in the order in which they were added.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ranges.iter().map(|range| self.bytes(range))
    }

    /// The parts as slices, each with a reference count of its own.
    pub fn slices(&self) -> impl Iterator<Item = MapSlice<M>> {
        let slice = |range: &Range<usize>| self.region.slice(range.clone());
        self.ranges.iter().filter_map(slice)
    }

    #[inline]
    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.region.published_bytes(range.start, range.len())
    }
}

impl<M: RawMap> fmt::Debug for MapParts<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapParts")
            .field("region", &self.region)
            .field("ranges", &self.ranges)
            .finish()
    }
}

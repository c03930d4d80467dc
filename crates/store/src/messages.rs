//! Records read from the log: slices of the mapping, kept alive for as long as they are held.

use std::fmt;
use std::ops::Range;

use message::{Parsed, RecordView};
use mmap_core::{Io, MapParts, MapSlice, OsIo};

/// Records of one read, in order, as they stand in the log. Nothing is copied: records that lie
/// next to each other share a slice, and all of a segment one reference to it. While this is held,
/// the segments it points into stay mapped, also when they are deleted meanwhile.
pub struct Messages<I: Io = OsIo> {
    /// Of one mapping each; a mapping that is returned to begins anew.
    parts: Vec<MapParts<I::Map>>,
    count: usize,
    len: u64,
}

impl<I: Io> Messages<I> {
    /// Makes room for so many records of the mapping of a slice.
    pub(crate) fn expect(&mut self, slice: &MapSlice<I::Map>, count: usize) {
        self.parts.push(MapParts::of(slice, count));
    }

    /// Adds a record, which is a part of a slice.
    #[inline]
    pub(crate) fn push(&mut self, slice: &MapSlice<I::Map>, range: Range<usize>) {
        self.len += range.len() as u64;
        self.count += 1;
        match self.parts.last_mut() {
            Some(last) if last.is_of(slice) => last.push(slice, range),
            _ => self.push_first(slice, range),
        }
    }

    /// Adds a record of another mapping than the one before.
    #[cold]
    fn push_first(&mut self, slice: &MapSlice<I::Map>, range: Range<usize>) {
        let mut parts = MapParts::of(slice, 1);
        parts.push(slice, range);
        self.parts.push(parts);
    }

    /// How many records.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of all records.
    pub fn byte_len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes, one slice for records that lie next to each other.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().flat_map(MapParts::iter)
    }

    /// The bytes, to be sent one after the other: each of these keeps its mapping alive.
    pub fn into_parts(self) -> Vec<MapParts<I::Map>> {
        self.parts
    }

    /// As [`slices`](Self::slices), each of which keeps its mapping alive.
    pub fn owned_slices(&self) -> impl Iterator<Item = MapSlice<I::Map>> {
        self.parts.iter().flat_map(MapParts::slices)
    }

    /// The slices by place in the log and length.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        self.slices().map(|slice| {
            // A slice begins with a record, and a record says where it is.
            let offset = match RecordView::parse(slice) {
                Ok(Parsed::Record(view)) => view.physical_offset().cast_unsigned(),
                _ => u64::MAX,
            };
            (offset, slice.len() as u64)
        })
    }

    /// The records, decoded one by one. Ends early where the bytes are no record, which means
    /// that a queue entry pointed somewhere else.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.slices().flat_map(|slice| {
            let mut rest = slice;
            std::iter::from_fn(move || {
                let Ok(Parsed::Record(view)) = RecordView::parse(rest) else {
                    return None;
                };
                rest = rest.get(view.total_size()..)?;
                Some(view)
            })
        })
    }
}

impl<I: Io> Default for Messages<I> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            count: 0,
            len: 0,
        }
    }
}

impl<I: Io> fmt::Debug for Messages<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("count", &self.count)
            .field("slices", &self.slices().count())
            .field("len", &self.len)
            .finish()
    }
}

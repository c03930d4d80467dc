//! Records read from the log: slices of the mapping, kept alive for as long as they are held.

use std::fmt;

use message::{Parsed, RecordView};
use mmap_core::{Io, MapSlice, OsIo};

/// Records of one read, in order, as they stand in the log. Nothing is copied: records that lie
/// next to each other share a slice. While this is held, the segments it points into stay mapped,
/// also when they are deleted meanwhile.
pub struct Messages<I: Io = OsIo> {
    slices: Vec<MapSlice<I::Map>>,
    count: usize,
    len: u64,
}

impl<I: Io> Messages<I> {
    pub(crate) fn push(&mut self, slice: MapSlice<I::Map>, count: usize) {
        self.len += slice.len() as u64;
        self.count += count;
        self.slices.push(slice);
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

    /// The bytes, to be sent one after the other.
    pub fn slices(&self) -> &[MapSlice<I::Map>] {
        &self.slices
    }

    /// The slices themselves, each of which keeps its mapping alive.
    pub fn into_slices(self) -> Vec<MapSlice<I::Map>> {
        self.slices
    }

    /// The slices, each with its place in the log.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, &MapSlice<I::Map>)> {
        self.slices.iter().map(|slice| {
            // A slice begins with a record, and a record says where it is.
            let offset = match RecordView::parse(slice) {
                Ok(Parsed::Record(view)) => view.physical_offset().cast_unsigned(),
                _ => u64::MAX,
            };
            (offset, slice)
        })
    }

    /// The records, decoded one by one. Ends early where the bytes are no record, which means
    /// that a queue entry pointed somewhere else.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.slices.iter().flat_map(|slice| {
            let mut rest: &[u8] = slice;
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
            slices: Vec::new(),
            count: 0,
            len: 0,
        }
    }
}

impl<I: Io> fmt::Debug for Messages<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("count", &self.count)
            .field("slices", &self.slices.len())
            .field("len", &self.len)
            .finish()
    }
}

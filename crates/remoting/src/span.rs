//! Where a text of a header lies.

/// A text, either in the JSON header itself or among the decoded texts of
/// [`Scratch`](crate::Scratch): bit 63 is set for the latter, bits 32 to 62 are the position of
/// its first byte, the others its length.
///
/// One word, so that results that hold one travel in registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(u64);

/// Headers are shorter than 2^24 bytes, and so is what is decoded of them.
const DECODED: u64 = 1 << 63;

impl Span {
    /// The bytes from `start` to `end` of the header.
    #[inline]
    pub(crate) fn of_header(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end < 1 << 31);
        Self((start as u64) << 32 | (end - start) as u64)
    }

    /// The bytes from `start` to `end` of the decoded texts.
    #[inline]
    pub(crate) fn of_decoded(start: usize, end: usize) -> Self {
        Self(Self::of_header(start, end).0 | DECODED)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 as u32 == 0
    }

    /// The text itself.
    #[inline]
    pub(crate) fn text<'t>(self, header: &'t str, decoded: &'t str) -> &'t str {
        let place = if self.0 & DECODED == 0 {
            header
        } else {
            decoded
        };
        let start = ((self.0 & !DECODED) >> 32) as usize;
        place
            .get(start..start + self.0 as u32 as usize)
            .unwrap_or_default()
    }
}

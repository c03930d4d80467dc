//! Reading big-endian fields off the front of a slice, and searching bytes; never panics.

/// A slice that is consumed from its front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes; `None`, and nothing consumed, if fewer are left.
    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(front)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*front)
    }

    #[inline]
    pub(crate) fn i8(&mut self) -> Option<i8> {
        self.array().map(i8::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }
}

/// Position of the first `needle`, eight bytes at a time: the dispatcher does this for every
/// property of every message.
#[inline]
pub(crate) fn find_byte(bytes: &[u8], needle: u8) -> Option<usize> {
    const LOW_BITS: u64 = u64::from_be_bytes([0x7f; 8]);
    let pattern = u64::from_be_bytes([needle; 8]);
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let difference = u64::from_be_bytes(*word) ^ pattern;
        // The top bit of each byte that is zero, and of no other: no carry leaves its byte, so
        // the first match is the first byte in memory order too.
        let zero_bytes = !(((difference & LOW_BITS) + LOW_BITS) | difference | LOW_BITS);
        if zero_bytes != 0 {
            return Some(index * 8 + zero_bytes.leading_zeros() as usize / 8);
        }
    }
    let position = tail.iter().position(|byte| *byte == needle)?;
    Some(words.len() * 8 + position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reader_stops_at_the_end() {
        let mut reader = Reader::new(&[0, 0, 0, 7, 9]);
        assert_eq!(reader.i32(), Some(7));
        assert_eq!(reader.i16(), None);
        assert_eq!(reader.left(), 1, "a failed read consumes nothing");
        assert_eq!(reader.i8(), Some(9));
        assert_eq!(reader.bytes(1), None);
    }

    proptest! {
        #[test]
        fn find_byte_is_position(bytes in prop::collection::vec(0u8..5, 0..40), needle in 0u8..5) {
            prop_assert_eq!(find_byte(&bytes, needle), bytes.iter().position(|b| *b == needle));
        }

        #[test]
        fn find_byte_is_position_for_any_byte(bytes: Vec<u8>, needle: u8) {
            prop_assert_eq!(find_byte(&bytes, needle), bytes.iter().position(|b| *b == needle));
        }
    }
}

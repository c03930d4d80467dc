//! Reading ahead of a reader.

use std::ops::Range;

use crate::map::{Advice, RawMap};

/// Bytes asked for at once. The kernel begins no more of a request than one transfer of the device,
/// or its read-ahead, if that is more; smaller pieces than need be would be as many reads.
const PIECE_LEN: usize = 1 << 20;

/// Has the kernel begin to read a range of a mapping, and waits for nothing.
///
/// This is advice: where the kernel does not take it, reading takes longer.
pub fn read_ahead<M: RawMap>(map: &M, range: Range<usize>) {
    let end = range.end.min(map.len());
    for start in (range.start..end).step_by(PIECE_LEN) {
        let piece = start..end.min(start + PIECE_LEN);
        if map.advise(Advice::WillNeed, piece).is_err() {
            return;
        }
    }
}

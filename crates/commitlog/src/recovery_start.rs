//! Where to start a recovery, told from the segments and a checkpoint.

use message::SysFlag;
use message::layout::{
    BORN_HOST_POSITION, HEADER_LEN_MAX, MAGIC_POSITION, SYS_FLAG_POSITION, Version, host_len,
};
use mmap_core::Io;
use segment_queue::SegmentQueue;

use crate::error::LogError;

/// The store time, in ms, of the record at the very start of the segment that begins at `base`.
///
/// Read in place, as RocketMQ 5.3.3 does (`CommitLog.isMappedFileMatchedRecover`): only the magic
/// number is checked, so that a record with a damaged body still names its time. `None` when no
/// record starts there, or one that was never stamped.
///
/// # Errors
///
/// The segment cannot be read.
pub fn first_store_timestamp<I: Io>(
    queue: &SegmentQueue<I>,
    base: u64,
) -> Result<Option<i64>, LogError> {
    let mut header = [0; HEADER_LEN_MAX];
    queue.read_exact_at(base, &mut header)?;
    let Some(magic) = field::<4>(&header, MAGIC_POSITION).map(u32::from_be_bytes) else {
        return Ok(None);
    };
    if Version::from_magic(magic).is_none() {
        return Ok(None);
    }
    let sys_flag = field::<4>(&header, SYS_FLAG_POSITION).map_or(0, i32::from_be_bytes);
    let born_host_len = host_len(SysFlag(sys_flag).contains(SysFlag::BORN_HOST_V6));
    let store_timestamp = field::<8>(&header, BORN_HOST_POSITION + born_host_len);
    Ok(store_timestamp
        .map(i64::from_be_bytes)
        .filter(|timestamp_ms| *timestamp_ms != 0))
}

/// The base offset of the segment at which a recovery after an unclean stop starts: the last one
/// whose first record was stored at or before `checkpoint_ms`, else the oldest
/// (RocketMQ 5.3.3 `CommitLog.recoverAbnormally`).
///
/// # Errors
///
/// A segment cannot be read.
pub fn recovery_start<I: Io>(queue: &SegmentQueue<I>, checkpoint_ms: i64) -> Result<u64, LogError> {
    for segment in queue.segments().iter().rev() {
        let first = first_store_timestamp(queue, segment.base())?;
        if first.is_some_and(|first_ms| first_ms <= checkpoint_ms) {
            return Ok(segment.base());
        }
    }
    Ok(queue.min_offset())
}

fn field<const LEN: usize>(header: &[u8], position: usize) -> Option<[u8; LEN]> {
    header.get(position..)?.first_chunk().copied()
}

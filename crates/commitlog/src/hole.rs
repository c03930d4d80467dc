//! Damage in the middle of a log: what is known of it, and the records that take its place.
//!
//! A hole is filled so that every reader of the log, a Java broker's recovery and dispatch too,
//! walks over it: with records that say that their transaction was rolled back, which neither
//! queues nor index take in (RocketMQ 5.3.3 `CommitLogDispatcherBuildConsumeQueue`,
//! `IndexService.buildIndex`), or with the blank record that ends a segment.

use std::path::PathBuf;

use message::{
    EncodeError, Limits, Message, PreparedRecord, RecordView, Stamp, SysFlag, Transaction,
    blank_record,
};
use mmap_core::{Io, IoError};
use segment_queue::{QueueError, SegmentWriter};

use crate::scan::Invalid;

/// Topic of the records that fill holes; shortened where there is no room for it. No queue has it.
pub const HOLE_TOPIC: &str = "FOLIOMQ_HOLE";

/// The longest filler, in bytes: Java reads each record whole.
const FILLER_LEN_MAX: u64 = 1 << 20;
/// The shortest record, in bytes: a topic of one byte, and nothing else.
pub(crate) const FILLER_LEN_MIN: u64 = 92;

/// Bytes in the middle of a log that are no records, with good records behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The segment file in which it begins.
    pub path: PathBuf,
    /// Its first byte.
    pub offset: u64,
    /// How many bytes: up to the next record, or to the end of what is known to be synced.
    pub len: u64,
    /// What stood at its first byte instead of a record.
    pub reason: Invalid,
    /// Store time of the record before it, ms; of the one behind it if there is none.
    pub(crate) store_ms: i64,
}

impl Hole {
    /// The offset behind it.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// Whether a record fills a hole that recovery found.
pub fn is_filler(view: &RecordView<'_>) -> bool {
    view.sys_flag().transaction() == Transaction::Rollback
        && !view.topic().is_empty()
        && HOLE_TOPIC.starts_with(view.topic())
        && view.body().iter().all(|byte| *byte == 0)
}

/// Writes filler records over a hole, and zeros behind a blank one.
pub(crate) fn fill<I: Io>(
    writer: &mut SegmentWriter<I>,
    hole: &Hole,
    limits: &Limits,
) -> Result<(), QueueError> {
    let segment_len = writer.queue().segment_len();
    let mut offset = hole.offset;
    while offset < hole.end() {
        let segment_end = offset - offset % segment_len + segment_len;
        if hole.end() >= segment_end {
            // What is left of the hole's bytes must never pass for records again.
            let blank = blank_record((segment_end - offset) as u32);
            writer.erase(offset + blank.len() as u64, segment_end)?;
            writer.overwrite(offset, &blank)?;
            offset = segment_end;
        } else {
            let len = piece_len(hole.end() - offset);
            let bytes = filler(offset, len, hole.store_ms, limits)
                .map_err(|error| IoError::invalid("fill", &hole.path, error.to_string()))?;
            writer.overwrite(offset, &bytes)?;
            offset += len;
        }
    }
    Ok(())
}

/// The length of the next filler: what is left, or so much that a filler fits behind it.
fn piece_len(left: u64) -> u64 {
    if left <= FILLER_LEN_MAX {
        left
    } else {
        FILLER_LEN_MAX.min(left - FILLER_LEN_MIN)
    }
}

/// A record of `len` bytes, at least [`FILLER_LEN_MIN`], that nothing is dispatched for.
fn filler(offset: u64, len: u64, store_ms: i64, limits: &Limits) -> Result<Vec<u8>, EncodeError> {
    let nobody = ([0, 0, 0, 0], 0).into();
    let limits = Limits {
        body_len_max: usize::MAX,
        record_len_max: usize::MAX,
        ..*limits
    };
    let record_len = |topic: &str, body: &[u8]| {
        let message = filler_message(topic, body, nobody, store_ms);
        PreparedRecord::new(&message, &limits).map(|record| record.len() as u64)
    };
    let shortest = HOLE_TOPIC.get(..1).unwrap_or(HOLE_TOPIC);
    let spare = len.saturating_sub(record_len(shortest, &[])?);
    let topic_len = (HOLE_TOPIC.len() as u64).min(1 + spare) as usize;
    let topic = HOLE_TOPIC.get(..topic_len).unwrap_or(shortest);
    let body = vec![0; len.saturating_sub(record_len(topic, &[])?) as usize];
    let mut record = PreparedRecord::new(&filler_message(topic, &body, nobody, store_ms), &limits)?;
    record.stamp(Stamp {
        queue_offset: 0,
        physical_offset: offset.cast_signed(),
        store_timestamp_ms: store_ms,
    });
    Ok(record.parts().concat())
}

fn filler_message<'a>(
    topic: &'a str,
    body: &'a [u8],
    nobody: std::net::SocketAddr,
    store_ms: i64,
) -> Message<'a> {
    Message {
        topic,
        queue_id: 0,
        flag: 0,
        sys_flag: SysFlag::TRANSACTION_ROLLBACK,
        born_timestamp_ms: store_ms,
        born_host: nobody,
        store_host: nobody,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::Parsed;

    #[test]
    fn fillers_have_any_length_and_are_recognised() {
        for len in (FILLER_LEN_MIN..200).chain([FILLER_LEN_MAX]) {
            let bytes = filler(4096, len, 7, &Limits::default()).unwrap();
            assert_eq!(bytes.len() as u64, len);
            let Ok(Parsed::Record(view)) = RecordView::parse(&bytes) else {
                panic!("no record of {len} bytes")
            };
            view.verify_body_crc().unwrap();
            assert!(is_filler(&view), "{len}");
            assert_eq!(
                (view.physical_offset(), view.store_timestamp_ms()),
                (4096, 7)
            );
            assert!(!view.sys_flag().transaction().takes_queue_offset());
        }
    }

    #[test]
    fn pieces_leave_room_for_the_last_one() {
        assert_eq!(piece_len(FILLER_LEN_MAX), FILLER_LEN_MAX);
        for more in [1, FILLER_LEN_MIN, FILLER_LEN_MIN + 1, 3 * FILLER_LEN_MAX] {
            let left = FILLER_LEN_MAX + more;
            let first = piece_len(left);
            assert!(
                first <= FILLER_LEN_MAX && left - first >= FILLER_LEN_MIN,
                "{more}"
            );
        }
    }
}

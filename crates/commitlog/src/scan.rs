//! Walking over the records of a log by `pread`, with bounded memory and without trust.
//!
//! A block that cannot be read is an error here, where a mapping would raise a signal. The scan
//! decides nothing: it says what stands at each place, and what to do about it is recovery's.

use std::fmt;

use message::layout::{MAGIC_BLANK, MAGIC_POSITION, PHYSICAL_OFFSET_POSITION, RECORD_LEN_MIN};
use message::{Parsed, RecordError, RecordView};
use mmap_core::Io;
use mmap_core::sabotage::{self, Lie};
use segment_queue::SegmentQueue;

use crate::append::BLANK_LEN;
use crate::error::LogError;

/// Bytes read at a time: 1 MiB. A longer record is read whole, once its header has said that it
/// belongs where it is.
const CHUNK_LEN: u64 = 1 << 20;

/// What a device writes whole or not at all.
const SECTOR_LEN: u64 = 512;

/// Bytes of a record up to and including its physical offset.
const HEAD_LEN: usize = PHYSICAL_OFFSET_POSITION + 8;

// The head of every record can be read before its length is believed.
const _: () = assert!(HEAD_LEN <= RECORD_LEN_MIN);

/// Which CRCs a scan computes (RocketMQ: `checkCRCOnRecover`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrcCheck {
    /// Those of bodies.
    #[default]
    Body,
    /// Those of bodies, and each record must have a valid CRC property
    /// (RocketMQ 5.x: `forceVerifyPropCRC`).
    BodyAndProperty,
    /// None: for devices that check what they read.
    Omit,
}

/// Why the bytes at an offset are not the log's next record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// Nothing was ever written there.
    Unwritten,
    /// The bytes are not a record, or not the one that was written.
    Record(RecordError),
    /// The record reaches beyond its segment.
    Size {
        /// Its length as found.
        found: u32,
        /// Bytes to the end of the segment.
        left: u64,
    },
    /// A record that says it belongs elsewhere: bytes of another file, or of a log that had
    /// another start.
    PhysicalOffset {
        /// Where it says it belongs.
        found: i64,
    },
    /// A record that has its body and its lengths, and zeros for a sector of its topic and
    /// properties, which no CRC covers: a power loss came while it was written. RocketMQ keeps
    /// such a record, and its keys and tags are lost.
    Torn {
        /// The first offset that was not written.
        offset: u64,
    },
    /// A record that was stored before its predecessor, above what is known to be flushed: bytes
    /// that an earlier truncation left behind (Java leaves them), not what was appended next.
    StoreTime {
        /// Its store time, ms.
        found_ms: i64,
        /// Its predecessor's.
        previous_ms: i64,
    },
    /// A record whose place in its queue is before its predecessor's, above what is known to be
    /// flushed: stale, as with [`Invalid::StoreTime`].
    QueueOffset {
        /// Its queue offset.
        found: i64,
        /// That of the last record of the queue before it.
        previous: i64,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwritten => f.write_str("nothing was written here"),
            Self::Record(error) => error.fmt(f),
            Self::Size { found, left } => {
                write!(
                    f,
                    "a record of {found} bytes where the segment has {left} left"
                )
            }
            Self::PhysicalOffset { found } => write!(f, "a record that belongs at {found}"),
            Self::Torn { offset } => write!(f, "a record that was not written from {offset} on"),
            Self::StoreTime {
                found_ms,
                previous_ms,
            } => {
                write!(
                    f,
                    "a record stored at {found_ms} ms behind one stored at {previous_ms} ms"
                )
            }
            Self::QueueOffset { found, previous } => {
                write!(
                    f,
                    "message {found} of a queue behind message {previous} of the same"
                )
            }
        }
    }
}

/// What stands at an offset.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A record that belongs there.
    Record(RecordView<'a>),
    /// The end of a segment: a blank record, or no room for any.
    SegmentEnd,
    /// Anything else.
    Invalid(Invalid),
}

/// A window over the files that moves with the scan.
#[derive(Debug)]
pub(crate) struct Scanner<'a, I: Io> {
    queue: &'a SegmentQueue<I>,
    crc: CrcCheck,
    buffer: Vec<u8>,
    /// The offset of the buffer's first byte.
    buffer_offset: u64,
}

impl<'a, I: Io> Scanner<'a, I> {
    pub(crate) fn new(queue: &'a SegmentQueue<I>, crc: CrcCheck) -> Self {
        Self {
            queue,
            crc,
            buffer: Vec::new(),
            buffer_offset: 0,
        }
    }

    /// What stands at `offset`, which lies in some segment.
    pub(crate) fn look_at(&mut self, offset: u64) -> Result<Found<'_>, LogError> {
        let segment_len = self.queue.segment_len();
        let left = segment_len - offset % segment_len;
        if left < BLANK_LEN {
            return Ok(Found::SegmentEnd);
        }
        let head = self.bytes(offset, left.min(HEAD_LEN as u64))?;
        let Some((size, magic)) = size_and_magic(head) else {
            return Ok(Found::SegmentEnd);
        };
        // RocketMQ 5.3.3 does not look at a blank record's size either.
        if magic == MAGIC_BLANK {
            return Ok(Found::SegmentEnd);
        }
        if let Err(invalid) = check_head(head, size, offset, left) {
            return Ok(Found::Invalid(invalid));
        }
        let crc = self.crc;
        let record = self.bytes(offset, u64::from(size))?;
        match RecordView::parse(record) {
            Ok(Parsed::Record(view)) => match check_crc(&view, crc) {
                Ok(()) => Ok(Found::Record(view)),
                Err(error) => Ok(Found::Invalid(Invalid::Record(error))),
            },
            Ok(Parsed::Blank { .. }) => Ok(Found::SegmentEnd),
            Err(error) => Ok(Found::Invalid(Invalid::Record(error))),
        }
    }

    /// The end of the last byte from `offset` to `end` that is not zero; `None` if all are.
    /// Both lie in one segment.
    pub(crate) fn last_written(&mut self, offset: u64, end: u64) -> Result<Option<u64>, LogError> {
        let mut last = None;
        let mut at = offset;
        while let Some(written) = self.next_written(at)?.filter(|written| *written < end) {
            at = at.max(written);
            let len = CHUNK_LEN.min(end - at);
            let bytes = self.bytes(at, len)?;
            if let Some(index) = bytes.iter().rposition(|byte| *byte != 0) {
                last = Some(at + index as u64 + 1);
            }
            at += len;
        }
        Ok(last)
    }

    /// Calls `take` with the bytes from `offset` to `end`, piece by piece.
    pub(crate) fn copy<E>(
        &mut self,
        offset: u64,
        end: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, LogError> {
        let mut at = offset;
        while at < end {
            let len = CHUNK_LEN.min(end - at);
            if let Err(error) = take(self.bytes(at, len)?) {
                return Ok(Err(error));
            }
            at += len;
        }
        Ok(Ok(()))
    }

    /// Bytes of a segment.
    pub(crate) fn segment_len(&self) -> u64 {
        self.queue.segment_len()
    }

    /// The first offset from `offset` on where the files may hold bytes that are not zero.
    pub(crate) fn next_written(&self, offset: u64) -> Result<Option<u64>, LogError> {
        if offset >= self.queue.published() {
            return Ok(None);
        }
        Ok(self.queue.seek_data(offset)?)
    }

    /// `len` bytes at `offset`, within one segment, read now if they are not in the window.
    pub(crate) fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8], LogError> {
        let is_inside = offset >= self.buffer_offset
            && offset + len <= self.buffer_offset + self.buffer.len() as u64;
        if !is_inside {
            self.read(offset, len)?;
        }
        let start = (offset - self.buffer_offset) as usize;
        Ok(self
            .buffer
            .get(start..start + len as usize)
            .unwrap_or_default())
    }

    fn read(&mut self, offset: u64, len: u64) -> Result<(), LogError> {
        let segment_len = self.queue.segment_len();
        let left = (segment_len - offset % segment_len)
            .min(self.queue.published().saturating_sub(offset).max(len));
        let wanted = len.max(CHUNK_LEN).min(left) as usize;
        let missing = wanted.saturating_sub(self.buffer.len());
        if self.buffer.try_reserve_exact(missing).is_err() {
            return Err(LogError::OutOfMemory { offset, len });
        }
        self.buffer.resize(wanted, 0);
        self.buffer_offset = offset;
        self.queue.read_exact_at(offset, &mut self.buffer)?;
        Ok(())
    }
}

fn size_and_magic(head: &[u8]) -> Option<(u32, u32)> {
    let size = u32::from_be_bytes(*head.first_chunk()?);
    let magic = u32::from_be_bytes(*head.get(MAGIC_POSITION..)?.first_chunk()?);
    Some((size, magic))
}

/// Checks what must be true before a record's length is believed.
fn check_head(head: &[u8], size: u32, offset: u64, left: u64) -> Result<(), Invalid> {
    if u64::from(size) > left {
        // Too long to be parsed; all other reasons are better told by the parser.
        return match RecordView::parse(head) {
            Err(RecordError::TooShort { .. }) | Ok(_) => Err(Invalid::Size { found: size, left }),
            Err(error) => Err(Invalid::Record(error)),
        };
    }
    if size as usize >= RECORD_LEN_MIN
        && let Some(found) = head
            .get(PHYSICAL_OFFSET_POSITION..)
            .and_then(<[u8]>::first_chunk)
    {
        let found = i64::from_be_bytes(*found);
        if found != offset.cast_signed() {
            return match RecordView::parse(head) {
                Err(error @ (RecordError::Magic(_) | RecordError::Size { .. })) => {
                    Err(Invalid::Record(error))
                }
                _ => Err(Invalid::PhysicalOffset { found }),
            };
        }
        return Ok(());
    }
    // No record is so short: the parser says what it is.
    match RecordView::parse(head) {
        Err(RecordError::Unwritten) => Err(Invalid::Unwritten),
        Err(error) => Err(Invalid::Record(error)),
        Ok(_) => Err(Invalid::Size { found: size, left }),
    }
}

/// The first sector of the device whose share of the record's topic and properties is zeros: it
/// was not written when the power failed. The body has its CRC.
///
/// Sectors are those of the segment, whose length may be no multiple of them.
pub(crate) fn unwritten_sector(
    view: &RecordView<'_>,
    offset: u64,
    segment_len: u64,
) -> Option<u64> {
    let tail_len = view.topic_bytes().len() + 2 + view.properties().bytes().len();
    let tail_start = view.total_size() - tail_len;
    let base = offset - offset % segment_len;
    let mut at = offset - base + tail_start as u64;
    let mut rest = view.bytes().get(tail_start..)?;
    while !rest.is_empty() {
        let share = (SECTOR_LEN - at % SECTOR_LEN).min(rest.len() as u64);
        let (sector, behind) = rest.split_at(share as usize);
        // A share of one or two bytes may be the length of empty properties; others end in 0x02.
        let is_length = sector.len() <= 2 && view.properties().bytes().is_empty();
        if !is_length && sector.iter().all(|byte| *byte == 0) {
            return Some(base + at);
        }
        at += share;
        rest = behind;
    }
    unwritten_end(view, offset)
}

/// Where the zeros begin that the properties end in: a process that was killed while it copied the
/// record may leave them anywhere. Properties end in 0x02, or in a value.
fn unwritten_end(view: &RecordView<'_>, offset: u64) -> Option<u64> {
    let properties = view.properties().bytes();
    let written = properties.iter().rposition(|byte| *byte != 0);
    let zeros = properties.len() - written.map_or(0, |last| last + 1);
    (zeros > 0).then(|| offset + (view.total_size() - zeros) as u64)
}

fn check_crc(view: &RecordView<'_>, crc: CrcCheck) -> Result<(), RecordError> {
    match crc {
        _ if sabotage::is_planted(Lie::CrcUnchecked) => Ok(()),
        CrcCheck::Omit => Ok(()),
        CrcCheck::Body => view.verify_body_crc(),
        CrcCheck::BodyAndProperty => {
            view.verify_body_crc()?;
            view.verify_crc_property()
        }
    }
}

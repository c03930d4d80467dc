//! Walking over the records of a log that may be damaged, or growing.
//!
//! Recovery (`commitlog`) decides where a log ends and cuts it there. Here nothing is decided:
//! what is no record is reported, and the walk goes on at the next record that there is.

use message::layout::{
    MAGIC_BLANK, MAGIC_POSITION, MAGIC_V1, MAGIC_V2, PHYSICAL_OFFSET_POSITION, RECORD_LEN_MIN,
};
use message::{Parsed, RecordError, RecordView};
use mmap_core::{Io, IoError};

use super::files::SegmentDir;

/// Bytes read at a time.
const CHUNK_LEN: usize = 1 << 20;
/// What is passed over where the device does not let us read.
const PAGE_LEN: u64 = 4096;
/// Bytes of a record up to and including its physical offset.
const HEAD_LEN: usize = PHYSICAL_OFFSET_POSITION + 8;
/// Bytes of a blank record that have a meaning.
const BLANK_LEN: u64 = message::layout::BLANK_LEN_MIN as u64;

/// What stands at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// A record of so many bytes that belongs there, with the body that was written.
    Record { len: u64 },
    /// Padding; it says that it has so many bytes.
    Blank { size: u32 },
    /// No room for any record.
    SegmentEnd,
    /// Zeros.
    Unwritten,
    /// Anything else, and why it is no record.
    Invalid(String),
}

/// Reads a log through a window.
#[derive(Debug)]
pub(crate) struct LogReader<I: Io> {
    files: SegmentDir<I>,
    /// Bytes read at a time.
    chunk_len: usize,
    buffer: Vec<u8>,
    buffer_offset: u64,
}

impl<I: Io> LogReader<I> {
    pub(crate) fn new(files: SegmentDir<I>) -> Self {
        Self::with_chunk(files, CHUNK_LEN)
    }

    /// A reader that reads so many bytes at a time: few where records lie apart.
    pub(crate) fn with_chunk(files: SegmentDir<I>, chunk_len: usize) -> Self {
        Self {
            files,
            chunk_len,
            buffer: Vec::new(),
            buffer_offset: 0,
        }
    }

    pub(crate) fn files(&self) -> &SegmentDir<I> {
        &self.files
    }

    /// What stands at `offset`, which lies in some file.
    pub(crate) fn look_at(&mut self, offset: u64) -> Result<Look, IoError> {
        let segment_len = self.files.file_len();
        let left = segment_len - offset % segment_len;
        if left < BLANK_LEN {
            return Ok(Look::SegmentEnd);
        }
        let head = self.bytes(offset, left.min(HEAD_LEN as u64))?;
        let (Some(size), Some(magic)) = (u32_at(head, 0), u32_at(head, MAGIC_POSITION)) else {
            return Ok(Look::Invalid("the file ends here".to_owned()));
        };
        if magic == MAGIC_BLANK {
            return Ok(Look::Blank { size });
        }
        if let Err(look) = check_head(head, size, offset, left) {
            return Ok(look);
        }
        let record = self.bytes(offset, u64::from(size))?;
        let checked = match RecordView::parse(record) {
            Ok(Parsed::Record(view)) => view.verify_body_crc(),
            Ok(Parsed::Blank { size }) => return Ok(Look::Blank { size }),
            Err(error) => Err(error),
        };
        Ok(match checked {
            Ok(()) => Look::Record {
                len: u64::from(size),
            },
            Err(error) => Look::Invalid(error.to_string()),
        })
    }

    /// The record at `offset`, if one is there, its CRC not checked.
    pub(crate) fn record(&mut self, offset: u64) -> Result<Option<RecordView<'_>>, IoError> {
        let segment_len = self.files.file_len();
        let left = segment_len - offset % segment_len;
        let Some(head) = self
            .bytes(offset, HEAD_LEN as u64)?
            .first_chunk::<HEAD_LEN>()
        else {
            return Ok(None);
        };
        let size = u32_at(head, 0).unwrap_or(0);
        if check_head(head, size, offset, left).is_err() {
            return Ok(None);
        }
        let bytes = self.bytes(offset, u64::from(size))?;
        Ok(match RecordView::parse(bytes) {
            Ok(Parsed::Record(view)) => Some(view),
            _ => None,
        })
    }

    /// The first place behind `from` where a record stands that belongs there and was not stored
    /// before `not_before_ms`.
    pub(crate) fn find_record(
        &mut self,
        from: u64,
        not_before_ms: i64,
    ) -> Result<Option<u64>, IoError> {
        let mut buf = vec![0; CHUNK_LEN];
        let mut at = from + 1;
        while at < self.files.end() {
            if self.files.find(at).is_none() {
                match self.files.next_base(at) {
                    Some(next) => at = next,
                    None => return Ok(None),
                }
            }
            let data = match self.files.seek_data(at) {
                Ok(Some(data)) => data,
                Ok(None) => match self.files.next_base(at) {
                    Some(next) => {
                        at = next;
                        continue;
                    }
                    None => return Ok(None),
                },
                // Reading will tell.
                Err(_) => at,
            };
            let read = match self.files.read(data, &mut buf) {
                Ok(read) => read,
                Err(_) => match self.read_page(data, &mut buf) {
                    Some(read) => read,
                    None => {
                        at = next_page(data);
                        continue;
                    }
                },
            };
            if read == 0 {
                // Removed since it was listed.
                match self.files.next_base(at) {
                    Some(next) => at = next,
                    None => return Ok(None),
                }
                continue;
            }
            let chunk = buf.get(..read).unwrap_or_default();
            for start in record_starts(chunk) {
                let candidate = data + start as u64;
                if self.is_record(candidate, not_before_ms)? {
                    return Ok(Some(candidate));
                }
            }
            // The magic number of a record may lie across two chunks.
            let overlap = if read as u64 > 2 * BLANK_LEN {
                BLANK_LEN
            } else {
                0
            };
            at = data + read as u64 - overlap;
        }
        Ok(None)
    }

    /// Reads to the end of the page at `offset`; `None` when it cannot be read.
    fn read_page(&mut self, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let len = usize::try_from(next_page(offset) - offset).ok()?;
        self.files.read(offset, buf.get_mut(..len)?).ok()
    }

    /// The end of the last byte behind `from` that is not zero.
    pub(crate) fn last_written(&mut self, from: u64) -> Result<Option<u64>, IoError> {
        let mut buf = vec![0; CHUNK_LEN];
        let (mut at, mut last) = (from, None);
        while at < self.files.end() {
            let data = match self.files.find(at) {
                Some(_) => self.files.seek_data(at)?,
                None => None,
            };
            let Some(data) = data else {
                match self.files.next_base(at) {
                    Some(next) => at = next,
                    None => break,
                }
                continue;
            };
            let read = self.files.read(data, &mut buf)?;
            let chunk = buf.get(..read).unwrap_or_default();
            if let Some(index) = chunk.iter().rposition(|byte| *byte != 0) {
                last = Some(data + index as u64 + 1);
            }
            at = match (read as u64, self.files.next_base(at)) {
                (0, Some(next)) => next,
                (0, None) => break,
                (read, _) => data + read,
            };
        }
        Ok(last)
    }

    fn is_record(&mut self, offset: u64, not_before_ms: i64) -> Result<bool, IoError> {
        // One that cannot be read is not there for whoever goes on behind it.
        if !matches!(self.look_at(offset), Ok(Look::Record { .. })) {
            return Ok(false);
        }
        let record = self.record(offset)?;
        Ok(record.is_some_and(|view| view.store_timestamp_ms() >= not_before_ms))
    }

    /// Makes the window begin at `offset`, with up to `len` bytes.
    fn fill(&mut self, offset: u64, len: usize) -> Result<(), IoError> {
        self.buffer.resize(len, 0);
        self.buffer_offset = offset;
        match self.files.read(offset, &mut self.buffer) {
            Ok(read) => {
                self.buffer.truncate(read);
                Ok(())
            }
            Err(error) => {
                self.buffer.clear();
                Err(error)
            }
        }
    }

    /// Up to `len` bytes at `offset`; fewer where the file ends.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8], IoError> {
        let end = self.buffer_offset + self.buffer.len() as u64;
        let is_inside = offset >= self.buffer_offset && offset.saturating_add(len) <= end;
        if !is_inside {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            // A place that cannot be read must not hide what lies before it.
            if self.fill(offset, len.max(self.chunk_len)).is_err() {
                self.fill(offset, len)?;
            }
        }
        let start = usize::try_from(offset - self.buffer_offset).unwrap_or(usize::MAX);
        let rest = self.buffer.get(start..).unwrap_or_default();
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        Ok(rest.get(..len).unwrap_or_default())
    }
}

/// The start of the next page of a device.
fn next_page(offset: u64) -> u64 {
    offset - offset % PAGE_LEN + PAGE_LEN
}

/// Where in `chunk` the magic number of a record says that one might begin.
fn record_starts(chunk: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let magics = [MAGIC_V1.to_be_bytes(), MAGIC_V2.to_be_bytes()];
    let [first, ..] = magics[0];
    let places = chunk.iter().enumerate().skip(MAGIC_POSITION);
    places
        .filter(move |(_, byte)| **byte == first)
        .filter(move |(at, _)| {
            let found = chunk.get(*at..).and_then(<[u8]>::first_chunk::<4>);
            found.is_some_and(|found| magics.contains(found))
        })
        .map(|(at, _)| at - MAGIC_POSITION)
}

/// Checks what must be true before a record's length is believed.
fn check_head(head: &[u8], size: u32, offset: u64, left: u64) -> Result<(), Look> {
    if head.iter().all(|byte| *byte == 0) {
        return Err(Look::Unwritten);
    }
    match RecordView::parse(head) {
        // The head is all that was given.
        Err(RecordError::TooShort { .. }) | Ok(_) => {}
        Err(error) => return Err(Look::Invalid(error.to_string())),
    }
    if u64::from(size) > left || (size as usize) < RECORD_LEN_MIN {
        return Err(Look::Invalid(format!(
            "a record of {size} bytes where the file has {left} left"
        )));
    }
    let found = head
        .get(PHYSICAL_OFFSET_POSITION..)
        .and_then(<[u8]>::first_chunk)
        .map(|bytes| i64::from_be_bytes(*bytes));
    match found {
        Some(found) if found == offset.cast_signed() => Ok(()),
        Some(found) => Err(Look::Invalid(format!("a record that belongs at {found}"))),
        None => Err(Look::Invalid("the file ends here".to_owned())),
    }
}

fn u32_at(bytes: &[u8], position: usize) -> Option<u32> {
    let field = bytes.get(position..)?.first_chunk()?;
    Some(u32::from_be_bytes(*field))
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum LogStep {
    /// A record.
    Record { offset: u64, len: u64 },
    /// Padding that has room for `left` bytes and says `size`.
    Blank { offset: u64, size: u32, left: u64 },
    /// Bytes that are no record, with records behind them.
    Damage {
        offset: u64,
        len: u64,
        reason: String,
    },
    /// A file that is not there, or does not say where it ends.
    Gap { offset: u64, len: u64 },
    /// Bytes that the system does not let us read, up to the next record that it does.
    Unreadable {
        offset: u64,
        len: u64,
        error: IoError,
    },
    /// No records behind this.
    End { offset: u64, end: LogEnd },
}

/// Why a log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogEnd {
    /// The files are full, or end in padding.
    Files,
    /// Zeros.
    Unwritten,
    /// Something that is no record.
    Invalid(String),
}

/// A walk over the records of a log, through whatever is wrong with it.
#[derive(Debug)]
pub(crate) struct LogWalk<I: Io> {
    pub(crate) reader: LogReader<I>,
    offset: u64,
    /// The latest store time so far: older records behind damage are stale.
    last_store_ms: i64,
    is_done: bool,
}

impl<I: Io> LogWalk<I> {
    /// A walk from `start`, the beginning of a record.
    pub(crate) fn new(reader: LogReader<I>, start: u64) -> Self {
        Self {
            reader,
            offset: start,
            last_store_ms: 0,
            is_done: false,
        }
    }

    /// A walk over all there is.
    pub(crate) fn over(files: SegmentDir<I>) -> Self {
        let start = files.min();
        Self::new(LogReader::new(files), start)
    }

    /// Takes the next step; after the end, the end again.
    pub(crate) fn step(&mut self) -> LogStep {
        if self.is_done || self.offset >= self.reader.files.end() {
            return self.end(LogEnd::Files);
        }
        match self.try_step() {
            Ok(step) => step,
            Err(error) => {
                let offset = self.offset;
                match self.reader.find_record(offset, self.last_store_ms) {
                    Ok(Some(next)) => self.offset = next,
                    Ok(None) | Err(_) => self.is_done = true,
                }
                let end = if self.is_done {
                    self.reader.files.end()
                } else {
                    self.offset
                };
                let len = end - offset;
                LogStep::Unreadable { offset, len, error }
            }
        }
    }

    /// The latest store time of the records so far.
    pub(crate) fn last_store_ms(&self) -> i64 {
        self.last_store_ms
    }

    fn try_step(&mut self) -> Result<LogStep, IoError> {
        let offset = self.offset;
        if self.reader.files.find(offset).is_none() {
            return Ok(self.go_to_next_file(offset, |len| LogStep::Gap { offset, len }));
        }
        let left = self.reader.files.file_len() - offset % self.reader.files.file_len();
        match self.reader.look_at(offset)? {
            Look::Record { len } => {
                if let Some(view) = self.reader.record(offset)? {
                    self.last_store_ms = self.last_store_ms.max(view.store_timestamp_ms());
                }
                self.offset += len;
                Ok(LogStep::Record { offset, len })
            }
            Look::Blank { size } => {
                Ok(self.go_to_next_file(offset, |_| LogStep::Blank { offset, size, left }))
            }
            Look::SegmentEnd => {
                self.offset += left;
                Ok(self.step())
            }
            Look::Unwritten => self.skip(LogEnd::Unwritten, "zeros where a record should start"),
            Look::Invalid(reason) => self.skip(LogEnd::Invalid(reason.clone()), &reason),
        }
    }

    fn skip(&mut self, end: LogEnd, reason: &str) -> Result<LogStep, IoError> {
        let offset = self.offset;
        let next = self.reader.find_record(offset, self.last_store_ms)?;
        Ok(match next {
            None => self.end(end),
            Some(next) => {
                self.offset = next;
                LogStep::Damage {
                    offset,
                    len: next - offset,
                    reason: reason.to_owned(),
                }
            }
        })
    }

    fn go_to_next_file(&mut self, offset: u64, step: impl FnOnce(u64) -> LogStep) -> LogStep {
        match self.reader.files.next_base(offset) {
            Some(next) => {
                let file_end =
                    offset - offset % self.reader.files.file_len() + self.reader.files.file_len();
                // A missing file is a step of its own.
                self.offset = if self.reader.files.find(offset).is_some() {
                    file_end
                } else {
                    next
                };
                step(self.offset - offset)
            }
            None => self.end(LogEnd::Files),
        }
    }

    fn end(&mut self, end: LogEnd) -> LogStep {
        self.is_done = true;
        LogStep::End {
            offset: self.offset,
            end,
        }
    }
}

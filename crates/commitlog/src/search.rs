//! Finding the next good record behind damage.

use message::RecordView;
use message::layout::{MAGIC_BLANK, MAGIC_POSITION, Version};
use mmap_core::Io;

use crate::append::BLANK_LEN;
use crate::error::LogError;
use crate::hole::FILLER_LEN_MIN;
use crate::scan::{Found, Scanner};

/// Bytes that are searched at a time.
const WINDOW_LEN: u64 = 1 << 20;
/// Bytes of a magic number.
const MAGIC_LEN: usize = 4;

/// Where the log goes on behind damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    /// A good record, or a blank one, begins here.
    pub(crate) offset: u64,
    /// Store time of the record, ms; `None` for a blank one.
    pub(crate) store_ms: Option<i64>,
}

impl<I: Io> Scanner<'_, I> {
    /// The first record behind the damage at `offset` that is whole, belongs where it is, and that
    /// `accept` takes; or the blank record that ends the segment.
    ///
    /// The place where the damaged record says that the next one begins is tried first: a body may
    /// hold the bytes of another record.
    pub(crate) fn next_good(
        &mut self,
        offset: u64,
        files_end: u64,
        accept: &mut dyn FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Option<Resume>, LogError> {
        if let Some(next) = self.end_as_told(offset)?
            && let Some(resume) = self.good_at(next, accept)?
        {
            return Ok(Some(resume));
        }
        let segment_len = self.segment_len();
        // What is damaged may be the end of a segment, shorter than any record.
        let segment_end = offset - offset % segment_len + segment_len;
        let from = (offset + FILLER_LEN_MIN).min(segment_end);
        self.first_good(from, files_end, accept)
    }

    /// As [`next_good`](Self::next_good), for a place where nothing tells of a record.
    pub(crate) fn first_good(
        &mut self,
        from: u64,
        files_end: u64,
        accept: &mut dyn FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Option<Resume>, LogError> {
        let segment_len = self.segment_len();
        let mut at = from;
        while at < files_end {
            let segment_end = (at - at % segment_len + segment_len).min(files_end);
            if let Some(resume) = self.search(at, segment_end, accept)? {
                return Ok(Some(resume));
            }
            at = segment_end;
        }
        Ok(None)
    }

    /// Where the record at `offset` ends by its own length, if that is within its segment.
    fn end_as_told(&mut self, offset: u64) -> Result<Option<u64>, LogError> {
        let segment_len = self.segment_len();
        let left = segment_len - offset % segment_len;
        if left < FILLER_LEN_MIN {
            return Ok(None);
        }
        let size = self.bytes(offset, MAGIC_POSITION as u64)?.first_chunk();
        let size = u64::from(size.map_or(0, |size| u32::from_be_bytes(*size)));
        Ok((FILLER_LEN_MIN..left)
            .contains(&size)
            .then(|| offset + size))
    }

    /// Looks for a magic number from `from` to `end`, which lie in one segment.
    fn search(
        &mut self,
        from: u64,
        end: u64,
        accept: &mut dyn FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Option<Resume>, LogError> {
        let mut at = from;
        // What was never written is not read.
        while let Some(written) = self.next_written(at)?
            && written.max(at) + BLANK_LEN <= end
        {
            // A magic number may begin in the zeros of a size before it.
            at = at.max(written.saturating_sub(BLANK_LEN));
            let len = (WINDOW_LEN + BLANK_LEN).min(end - at);
            let places = magic_places(self.bytes(at, len)?);
            for place in places {
                if let Some(resume) = self.good_at(at + place as u64, accept)? {
                    return Ok(Some(resume));
                }
            }
            // The last bytes are looked at again: a magic number may reach over the border.
            at += (len - BLANK_LEN).max(1);
        }
        Ok(None)
    }

    fn good_at(
        &mut self,
        offset: u64,
        accept: &mut dyn FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Option<Resume>, LogError> {
        let segment_len = self.segment_len();
        let left = segment_len - offset % segment_len;
        if left < BLANK_LEN {
            return Ok(None);
        }
        // The size of a blank record is checked here: a magic number alone may be anything.
        let head = self.bytes(offset, BLANK_LEN)?;
        if head == u64_head(left, MAGIC_BLANK) {
            return Ok(Some(Resume {
                offset,
                store_ms: None,
            }));
        }
        match self.look_at(offset)? {
            Found::Record(view) if accept(&view) => Ok(Some(Resume {
                offset,
                store_ms: Some(view.store_timestamp_ms()),
            })),
            _ => Ok(None),
        }
    }
}

/// The first 8 bytes of a record of this size and magic number.
fn u64_head(size: u64, magic: u32) -> [u8; 8] {
    (size << 32 | u64::from(magic)).to_be_bytes()
}

/// Where in `bytes` a record could start: each place with a known magic number behind its size.
fn magic_places(bytes: &[u8]) -> Vec<usize> {
    let is_known = |bytes: &[u8; MAGIC_LEN]| {
        let magic = u32::from_be_bytes(*bytes);
        magic == MAGIC_BLANK || Version::from_magic(magic).is_some()
    };
    let mut places = Vec::new();
    for (number, chunk) in bytes.chunks(CHUNK_LEN).enumerate() {
        // Behind a log's end are zeros mostly, and no magic number begins with one.
        if chunk.iter().fold(0, |all, byte| all | byte) == 0 {
            continue;
        }
        let first = number * CHUNK_LEN;
        let magic_at = |at: &usize| bytes.get(*at..).and_then(<[u8]>::first_chunk);
        let found = (first.max(MAGIC_POSITION)..first + chunk.len())
            .filter(|at| magic_at(at).is_some_and(is_known));
        places.extend(found.map(|at| at - MAGIC_POSITION));
    }
    places
}

/// Bytes that are looked at together for whether all are zero.
const CHUNK_LEN: usize = 256;

//! What the store remembers of its consume queues: `foliomq/queues`.
//!
//! A queue whose last files are lost looks like a shorter one, and one whose directory is lost like
//! one that never was: the next message would get a queue offset for the second time. So the ends
//! of all queues are written down when the store is closed and after a recovery, with the log and
//! the queues synced before; not after one in the same run of the machine that found everything as
//! it was. A queue that ends below its mark is built again from the log. One that was made since,
//! and is gone with all its files, is noticed only if recovery reads one of its records.
//!
//! Queues that were deleted are here too, with the place where the log ended then: their records
//! are still in the log, and must not come back when a part of it is dispatched again.
//!
//! The file is never needed, and ignored when torn. Java only ever lets queues grow, or deletes a
//! topic; then the log decides. (The first index tells as long as the log begins where it did.)
//! Big-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `FMQQ` |
//! | 4 | 4 | CRC-32 of all that follows, without its highest bit |
//! | 8 | 4 | count of queues |
//! | 12 | 4 | count of deleted queues |
//! | 16 | 8 | first offset of the log |
//! | 24 | 22 and the topic each | queues: i64 first index, i64 index behind the last, i32 queue id, u16 length of the topic, topic |
//! | behind | 14 and the topic each | deleted: u64 end of the log, i32 queue id, u16 length of the topic, topic |
//!
//! `foliomq/rebuild` has the same form: the queues that are being built again, each with the index
//! behind its last entry before. It is there from before the first entry is removed until the last
//! one is synced, so that a rebuild that was cut short is done again. So are queues of which a sync
//! has failed: what the page cache holds of them proves nothing, and no later sync would write it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use message::body_crc;
use mmap_core::{Io, IoError};

use crate::redispatch::QueueKey;

const MAGIC: [u8; 4] = *b"FMQQ";
/// More than the marks of ten million queues.
const FILE_LEN_MAX: u64 = 1 << 30;

/// The ends of queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QueueMarks {
    /// Where the log began.
    pub(crate) log_min: u64,
    /// First index and index behind the last.
    pub(crate) ends: BTreeMap<QueueKey, (i64, i64)>,
    /// Where the log ended when the queue was deleted.
    pub(crate) deleted: BTreeMap<QueueKey, u64>,
}

impl QueueMarks {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        bytes.extend(count(self.ends.len()));
        bytes.extend(count(self.deleted.len()));
        bytes.extend(self.log_min.to_be_bytes());
        for (key, (min, max)) in &self.ends {
            bytes.extend(min.to_be_bytes());
            bytes.extend(max.to_be_bytes());
            encode_key(&mut bytes, key);
        }
        for (key, log_end) in &self.deleted {
            bytes.extend(log_end.to_be_bytes());
            encode_key(&mut bytes, key);
        }
        let crc = bytes.get(8..).map_or(0, body_crc);
        if let Some(head) = bytes.get_mut(..8) {
            head[..4].copy_from_slice(&MAGIC);
            head[4..].copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }

    /// `None` when the bytes are not whole.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_at_checked(8)?;
        let crc = u32::from_be_bytes(head.get(4..)?.try_into().ok()?);
        if head.get(..4)? != MAGIC || crc != body_crc(rest) {
            return None;
        }
        let mut marks = Self::default();
        let end_count = take_u32(&mut rest)?;
        let deleted_count = take_u32(&mut rest)?;
        marks.log_min = take_i64(&mut rest)?.cast_unsigned();
        for _ in 0..end_count {
            let (min, max) = (take_i64(&mut rest)?, take_i64(&mut rest)?);
            marks.ends.insert(take_key(&mut rest)?, (min, max));
        }
        for _ in 0..deleted_count {
            let log_end = take_i64(&mut rest)?.cast_unsigned();
            marks.deleted.insert(take_key(&mut rest)?, log_end);
        }
        rest.is_empty().then_some(marks)
    }
}

/// One of the two files.
#[derive(Debug, Clone)]
pub(crate) struct MarksFile<I: Io> {
    io: I,
    path: PathBuf,
}

impl<I: Io> MarksFile<I> {
    /// The ends of all queues.
    pub(crate) fn of_queues(io: &I, own_dir: &Path) -> Self {
        Self {
            io: io.clone(),
            path: own_dir.join("queues"),
        }
    }

    /// The queues that are being built again.
    pub(crate) fn of_rebuild(io: &I, own_dir: &Path) -> Self {
        Self {
            io: io.clone(),
            path: own_dir.join("rebuild"),
        }
    }

    /// What it holds; nothing where it is missing, torn or cannot be read.
    pub(crate) fn read(&self) -> QueueMarks {
        match self.io.read(&self.path, FILE_LEN_MAX) {
            Ok(bytes) => QueueMarks::decode(&bytes).unwrap_or_else(|| {
                let path = self.path.display();
                tracing::warn!(%path, "a file of the store's own is torn, and not used");
                QueueMarks::default()
            }),
            Err(error) => {
                if !error.is_not_found() {
                    tracing::warn!(%error, "a file of the store's own is not used");
                }
                QueueMarks::default()
            }
        }
    }

    /// Replaces it, durably.
    ///
    /// # Errors
    /// The old content is there still.
    pub(crate) fn write(&self, marks: &QueueMarks) -> Result<(), IoError> {
        if let Some(dir) = self.path.parent() {
            self.io.create_dir_all(dir)?;
        }
        self.io.replace(&self.path, &marks.encode(), None)
    }

    /// Removes it, durably; one that is not there is as good.
    ///
    /// # Errors
    /// It may be there still.
    pub(crate) fn remove(&self) -> Result<(), IoError> {
        match self.io.remove_file(&self.path) {
            Err(error) if error.is_not_found() => Ok(()),
            removed => {
                removed?;
                self.path
                    .parent()
                    .map_or(Ok(()), |dir| self.io.sync_dir(dir))
            }
        }
    }
}

fn encode_key(bytes: &mut Vec<u8>, (topic, queue_id): &QueueKey) {
    // A topic is a file name: 255 bytes at most.
    let len = u16::try_from(topic.len()).unwrap_or(u16::MAX);
    bytes.extend(queue_id.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(topic.as_bytes().get(..usize::from(len)).unwrap_or_default());
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).copied().map(u32::from_be_bytes)
}

fn take_i64(rest: &mut &[u8]) -> Option<i64> {
    take(rest).copied().map(i64::from_be_bytes)
}

fn take_key(rest: &mut &[u8]) -> Option<QueueKey> {
    let queue_id = take(rest).copied().map(i32::from_be_bytes)?;
    let len = take(rest).copied().map(u16::from_be_bytes)?;
    let (topic, behind) = rest.split_at_checked(usize::from(len))?;
    *rest = behind;
    Some((std::str::from_utf8(topic).ok()?.to_owned(), queue_id))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use mmap_core::{CrashStyle, SimIo};

    fn marks() -> QueueMarks {
        let key = |topic: &str, queue_id| (topic.to_owned(), queue_id);
        QueueMarks {
            log_min: 1 << 30,
            ends: [
                (key("TopicA", 0), (3, 17)),
                (key("%RETRY%g", 3), (0, i64::MAX)),
            ]
            .into(),
            deleted: [(key("Gone", 1), 1 << 40)].into(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(QueueMarks::decode(&marks().encode()), Some(marks()));
        let empty = QueueMarks::default();
        assert_eq!(QueueMarks::decode(&empty.encode()), Some(empty));
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_noticed() {
        let bytes = marks().encode();
        for position in 0..bytes.len() {
            // The highest bit of the CRC is not kept.
            for bit in 0..7 {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1 << bit;
                assert_eq!(
                    QueueMarks::decode(&flipped),
                    None,
                    "byte {position} bit {bit}"
                );
            }
            assert_eq!(QueueMarks::decode(&bytes[..position]), None);
        }
    }

    #[test]
    fn a_crash_leaves_the_old_marks_or_the_new_ones() {
        for seed in 0..50 {
            let io = SimIo::new(seed);
            let file = MarksFile::of_queues(&io, Path::new("/store/foliomq"));
            assert_eq!(file.read(), QueueMarks::default());
            file.write(&QueueMarks::default()).unwrap();
            io.fail_nth("*", seed % 6 + 1, std::io::ErrorKind::Other);
            let written = file.write(&marks()).is_ok();
            let io = io.crash(CrashStyle::Tear);
            let found = MarksFile::of_queues(&io, Path::new("/store/foliomq")).read();
            assert!(found == marks() || (!written && found == QueueMarks::default()));
        }
    }
}

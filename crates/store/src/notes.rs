//! What a put notes down of its record for dispatch, which then need not read the record.
//!
//! Whoever puts has the properties at hand; the dispatching thread would have to fetch them again,
//! from another core's cache or from memory, half a dozen lines of each record. So tags and keys
//! are hashed on the way in, and a note of 64 bytes is left under the append lock: notes are in the
//! order of the log, and each is there before its record is visible.
//!
//! A note is a hint, and none is needed. There is none for records that leave more behind than one
//! entry and a few keys, nor while too many wait or the list is being taken: dispatch reads those
//! records in the log.

use std::sync::{Mutex, PoisonError};

use consumequeue::Entry;
use indexfile::TopicHash;
use message::names::topic;
use message::{DispatchFields, Message, Properties, Stamp, Transaction};

/// Notes that wait at most, 4 MiB of them: what a busy writer puts while dispatch waits for its turn
/// on the processor, or for the device.
const WAITING_MAX: usize = 64 * 1024;
/// A list that has grown beyond this is given back once dispatch has caught up.
const KEPT_MAX: usize = 4 * 1024;
/// Keys of a message that has a note at most: UNIQ_KEY and three others.
const KEYS_MAX: usize = 4;

/// What dispatch needs to know of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) physical_offset: u64,
    pub(crate) len: u32,
    /// The number of its queue.
    pub(crate) queue: u32,
    pub(crate) queue_offset: i64,
    pub(crate) store_timestamp_ms: i64,
    pub(crate) hashes: Hashes,
}

/// What is computed before the record has its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// The tags code of its queue entry.
    pub(crate) tags_code: i64,
    keys: [i32; KEYS_MAX],
    key_count: u8,
}

/// The notes of a batch whose place is not known yet: their offsets begin at 0.
#[derive(Debug)]
pub(crate) struct BatchNotes {
    notes: Vec<Note>,
    /// Where the next record begins.
    len: u64,
    /// Whether each message so far has one: a batch has notes for all or for none.
    is_whole: bool,
}

/// Notes that wait to be taken.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    waiting: Mutex<Vec<Note>>,
}

impl Hashes {
    /// Those of a message; `None` if it is not one for a note.
    #[inline]
    pub(crate) fn of(message: &Message<'_>) -> Option<Self> {
        let is_plain = message.sys_flag.transaction() == Transaction::None
            && !message.sys_flag.is_inner_batch()
            && message.topic != topic::SCHEDULE;
        if !is_plain {
            return None;
        }
        let fields = DispatchFields::new(Properties::new(message.properties));
        let topic = TopicHash::new(message.topic);
        let mut hashes = Self {
            tags_code: fields.tags_code(),
            keys: [0; KEYS_MAX],
            key_count: 0,
        };
        for key in fields.index_keys() {
            *hashes.keys.get_mut(usize::from(hashes.key_count))? = topic.of_key(key);
            hashes.key_count += 1;
        }
        Some(hashes)
    }

    /// The hashes of its keys.
    pub(crate) fn keys(&self) -> &[i32] {
        self.keys.get(..usize::from(self.key_count)).unwrap_or(&[])
    }

    /// The note of a record that was written there.
    pub(crate) fn at(self, stamp: &Stamp, len: usize, queue: u32) -> Note {
        Note {
            physical_offset: stamp.physical_offset.cast_unsigned(),
            len: len as u32,
            queue,
            queue_offset: stamp.queue_offset,
            store_timestamp_ms: stamp.store_timestamp_ms,
            hashes: self,
        }
    }
}

impl Note {
    /// What its queue keeps of the record.
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            physical_offset: self.physical_offset.cast_signed(),
            size: i32::try_from(self.len).unwrap_or(i32::MAX),
            tags_code: self.hashes.tags_code,
        }
    }

    /// Where the next record begins.
    pub(crate) fn end(&self) -> u64 {
        self.physical_offset + u64::from(self.len)
    }
}

impl BatchNotes {
    /// For a batch of so many messages, if it is one that has notes at all.
    pub(crate) fn new(count: usize, has_notes: bool) -> Self {
        Self {
            notes: Vec::with_capacity(if has_notes { count } else { 0 }),
            len: 0,
            is_whole: has_notes,
        }
    }

    /// Adds the note of the next message, whose record has `len` bytes.
    pub(crate) fn add(&mut self, message: &Message<'_>, len: usize) {
        let Some(hashes) = self.is_whole.then(|| Hashes::of(message)).flatten() else {
            self.is_whole = false;
            self.notes.clear();
            return;
        };
        let place = Stamp {
            queue_offset: self.notes.len() as i64,
            physical_offset: self.len.cast_signed(),
            store_timestamp_ms: 0,
        };
        self.notes.push(hashes.at(&place, len, 0));
        self.len += len as u64;
    }
}

impl Notes {
    /// Leaves the notes of a batch whose first record has this stamp; as [`add`](Self::add).
    pub(crate) fn add_all(&self, batch: &BatchNotes, first: &Stamp, queue: u32) {
        let Ok(mut waiting) = self.waiting.try_lock() else {
            return;
        };
        if waiting.len() + batch.notes.len() > WAITING_MAX {
            return;
        }
        waiting.extend(batch.notes.iter().map(|note| Note {
            physical_offset: note.physical_offset + first.physical_offset.cast_unsigned(),
            queue,
            queue_offset: note.queue_offset + first.queue_offset,
            store_timestamp_ms: first.store_timestamp_ms,
            ..*note
        }));
    }

    /// Leaves a note. It is left out rather than waited for: the caller holds the append lock.
    #[inline]
    pub(crate) fn add(&self, note: Note) {
        if let Ok(mut waiting) = self.waiting.try_lock()
            && waiting.len() < WAITING_MAX
        {
            waiting.push(note);
        }
    }

    /// Takes what waits, in exchange for the list, which is emptied.
    pub(crate) fn take(&self, list: &mut Vec<Note>) {
        list.clear();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            list.shrink_to(KEPT_MAX);
            waiting.shrink_to(KEPT_MAX);
        } else {
            std::mem::swap(&mut *waiting, list);
        }
    }
}

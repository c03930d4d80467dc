//! Dispatch of records that have notes: see [`crate::notes`]. What a note cannot tell, and whatever
//! is out of the ordinary, is left to the dispatch of records as they stand in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use commitlog::CommitLog;
use consumequeue::{ConsumeQueue, ConsumeQueueError, Entry, PutOutcome};
use indexfile::{HashedKey, IndexError, key_hash};
use message::{Parsed, RecordView};
use mmap_core::Io;

use crate::dispatch::{Arrival, Dispatcher};
use crate::error::DispatchError;
use crate::notes::Note;
use crate::place::Place;
use crate::queues::Queue;

/// Records that are put into queues, and told of, before they are put into the index: enough
/// for the misses of their slots to overlap, and few enough for nobody to wait long.
const RUN_MAX: usize = 64;

/// What only whoever holds the dispatcher's lock uses.
#[derive(Debug)]
pub(crate) struct Dispatching<I: Io> {
    /// Notes that were taken, and how many of them are used up.
    taken: Vec<Note>,
    used: usize,
    /// Queues that notes have named, by number.
    queues: Vec<Option<Arc<Queue<I>>>>,
    /// How often queues had been deleted when the first of them was kept here.
    forgotten_count: u64,
    /// Working memory: records of the run, and the keys of all, to be put.
    group: Group,
    keys: Vec<HashedKey>,
}

impl<I: Io> Default for Dispatching<I> {
    fn default() -> Self {
        Self {
            taken: Vec::new(),
            used: 0,
            queues: Vec::new(),
            forgotten_count: 0,
            group: Group::default(),
            keys: Vec::new(),
        }
    }
}

/// The records of a run that are of one queue, and follow one another there.
#[derive(Debug, Default)]
struct Group {
    members: Vec<Member>,
    /// Their entries, in the same order.
    entries: Vec<Entry>,
}

/// A record of a group.
#[derive(Debug)]
struct Member {
    /// Which note of the run it has.
    number: usize,
    queue_offset: i64,
    store_timestamp_ms: i64,
}

impl Group {
    /// Becomes that of the note at `first`.
    fn take(&mut self, notes: &[Note], first: usize, is_taken: &mut [bool; RUN_MAX]) {
        self.members.clear();
        self.entries.clear();
        let mut next = None;
        for (number, (note, is_taken)) in notes.iter().zip(is_taken).enumerate().skip(first) {
            let (queue, queue_offset) = (note.queue, note.queue_offset);
            if next.is_none_or(|next| next == (queue, queue_offset)) {
                next = Some((queue, queue_offset + 1));
                *is_taken = true;
                self.members.push(Member {
                    number,
                    queue_offset,
                    store_timestamp_ms: note.store_timestamp_ms,
                });
                self.entries.push(note.entry());
            }
        }
    }

    /// Puts the entries into their queue, as many as that takes; returns how many are there then. The
    /// reason why others are not is for the dispatch of their records to find.
    fn put<I: Io>(&self, queue: &ConsumeQueue<I>) -> usize {
        let mut done = 0;
        while let Some((member, left)) = self.members.get(done).zip(self.entries.get(done..)) {
            match member.put_first(queue, left) {
                Ok(0) | Err(_) => break,
                Ok(count) => done += count,
            }
        }
        done
    }
}

impl Member {
    /// Puts the first of these entries, its own, and of those behind it what can be put with the same
    /// write. Returns how many are in the queue then: 0 if there is no place for the first.
    fn put_first<I: Io>(
        &self,
        queue: &ConsumeQueue<I>,
        entries: &[Entry],
    ) -> Result<usize, ConsumeQueueError> {
        let count = queue.put_run(self.queue_offset, entries)?;
        let Some(own) = entries.first().filter(|_| count == 0) else {
            return Ok(count);
        };
        match queue.put_stored(self.queue_offset, *own, Some(self.store_timestamp_ms))? {
            PutOutcome::Appended | PutOutcome::AlreadyBuilt => Ok(1),
            PutOutcome::Gap { .. } | PutOutcome::Occupied { .. } => Ok(0),
        }
    }
}

impl<I: Io> Dispatcher<I> {
    /// Dispatches records from `start` on that have notes, at most [`RUN_MAX`]. `false` if the first
    /// one has none.
    pub(crate) fn step_noted(
        &self,
        log: &CommitLog<I>,
        start: u64,
        state: &mut Dispatching<I>,
    ) -> Result<bool, DispatchError> {
        let visible = log.visible();
        let forgotten_count = self.queues.forgotten_count();
        if std::mem::replace(&mut state.forgotten_count, forgotten_count) != forgotten_count {
            // A deleted queue must not live on here.
            state.queues.clear();
        }
        let run = self.noted_run(start, visible, state);
        let notes = state.taken.get(run.clone()).unwrap_or_default();
        debug_assert!(notes.iter().all(|note| self.agrees(log, note)));
        let is_put = self.put_entries(notes, &mut state.queues, &mut state.group);
        let count = is_put.iter().take_while(|is_put| **is_put).count();
        let done = run.start..run.start + count;
        // Also of those behind one that is left: they are in their queues.
        let tell = |state: &mut Dispatching<I>| {
            let notes = state.taken.get(run.clone()).unwrap_or_default();
            for (note, _) in notes.iter().zip(is_put).filter(|(_, is_put)| *is_put) {
                self.tell_noted(note, &state.queues);
            }
            if count < notes.len() {
                // A queue that takes no more may have been deleted.
                state.queues.clear();
            }
        };
        state.keys.clear();
        for note in state.taken.get(done.clone()).unwrap_or_default() {
            let key = |key_hash: &i32| HashedKey {
                key_hash: *key_hash,
                physical_offset: note.physical_offset,
                store_timestamp_ms: note.store_timestamp_ms,
            };
            state.keys.extend(note.hashes.keys().iter().map(key));
        }
        // Before anything else can fail: they can be read, whatever becomes of their keys.
        tell(state);
        let done_notes = state.taken.get(done.clone()).unwrap_or_default();
        let Some(last) = done_notes.last().copied() else {
            return Ok(false);
        };
        if let Some(index) = &self.index {
            match index.put_hashed(&state.keys) {
                // Readers of queues need not wait for it: the next start completes the index.
                Err(IndexError::Poisoned) => {}
                outcome => outcome?,
            }
        }
        self.note_done(last.physical_offset, last.store_timestamp_ms, last.end());
        state.used = done.end;
        Ok(true)
    }

    /// The notes of the records that lie one behind the other from `start` on, as far as these are
    /// visible and certainly not deleted.
    fn noted_run(
        &self,
        start: u64,
        visible: u64,
        state: &mut Dispatching<I>,
    ) -> std::ops::Range<usize> {
        if state.used >= state.taken.len() {
            self.notes.take(&mut state.taken);
            state.used = 0;
        }
        let notes = state.taken.get(state.used..).unwrap_or_default();
        // Those of records that were read in the log meanwhile.
        let is_old = |note: &Note| note.physical_offset < start;
        state.used += notes.iter().take_while(|note| is_old(note)).count();
        let notes = state.taken.get(state.used..).unwrap_or_default();
        let mut next = start;
        let is_next = |note: &&Note| {
            let is_next = note.physical_offset == next
                && note.end() <= visible
                && !self.queues.may_be_deleted(next);
            next = note.end();
            is_next
        };
        let len = notes.iter().take(RUN_MAX).take_while(is_next).count();
        state.used..state.used + len
    }

    /// Puts the entries of a run of records, queue by queue. Returns whose are there then.
    fn put_entries(
        &self,
        notes: &[Note],
        queues: &mut Vec<Option<Arc<Queue<I>>>>,
        group: &mut Group,
    ) -> [bool; RUN_MAX] {
        let mut is_put = [false; RUN_MAX];
        let mut is_taken = [false; RUN_MAX];
        for (first, note) in notes.iter().enumerate() {
            if is_taken.get(first) != Some(&false) {
                continue;
            }
            group.take(notes, first, &mut is_taken);
            let number = note.queue as usize;
            if number >= queues.len() {
                queues.resize(number + 1, None);
            }
            let Some(place) = queues.get_mut(number) else {
                continue;
            };
            if place.is_none() {
                *place = self.queues.numbered(note.queue);
            }
            let Some(queue) = place else {
                continue;
            };
            let count = group.put(&queue.entries);
            for member in group.members.iter().take(count) {
                if let Some(is_put) = is_put.get_mut(member.number) {
                    *is_put = true;
                }
            }
        }
        is_put
    }

    fn tell_noted(&self, note: &Note, queues: &[Option<Arc<Queue<I>>>]) {
        let Some(listener) = self.listener.get() else {
            return;
        };
        if let Some(Some(queue)) = queues.get(note.queue as usize) {
            listener(&Arrival {
                topic: &queue.topic,
                queue_id: queue.queue_id,
                next_offset: note.queue_offset + 1,
                tags_code: note.hashes.tags_code,
                store_timestamp_ms: note.store_timestamp_ms,
            });
        }
    }

    /// Whether the record in the log says the same, as far as it can be read.
    fn agrees(&self, log: &CommitLog<I>, note: &Note) -> bool {
        let Some(slice) = log.slice(note.physical_offset, note.len as usize) else {
            return true;
        };
        let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
            return false;
        };
        let (places, tags_code) = self.places(&view);
        let fields = view.dispatch_fields();
        let keys = fields.index_keys().map(|key| key_hash(view.topic(), key));
        let is_its_queue = |queue: Arc<Queue<I>>| {
            let place = Place {
                topic: &queue.topic,
                queue_id: queue.queue_id,
                index: note.queue_offset,
            };
            places == [place]
        };
        let queue = self.queues.numbered(note.queue);
        queue.is_none_or(is_its_queue)
            && tags_code == note.hashes.tags_code
            && keys.eq(note.hashes.keys().iter().copied())
            && view.physical_offset() == note.physical_offset.cast_signed()
            && view.store_timestamp_ms() == note.store_timestamp_ms
            && view.total_size() == note.len as usize
    }

    /// The records up to `end` have their entries.
    fn note_done(&self, last_record: u64, last_store_ms: i64, end: u64) {
        self.last_record.store(last_record, Ordering::Relaxed);
        self.last_store_ms.store(last_store_ms, Ordering::Relaxed);
        self.next_offset.store(end, Ordering::Release);
    }
}

//! Dispatch of records that have notes: see [`crate::notes`]. What a note cannot tell, and whatever
//! is out of the ordinary, is left to the dispatch of records as they stand in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use commitlog::CommitLog;
use consumequeue::{ConsumeQueueError, Entry, PutOutcome};
use indexfile::{HashedKey, IndexError, key_hash};
use message::{Parsed, RecordView};
use mmap_core::Io;

use crate::dispatch::{Arrival, Dispatcher};
use crate::error::DispatchError;
use crate::notes::Note;
use crate::place::Place;
use crate::queues::Queue;

/// Records that are put into queues before they are put into the index, and then told of: enough
/// for the misses of their slots to overlap, and few enough for nobody to wait long.
const RUN_MAX: usize = 64;

/// What only the thread that dispatches uses.
#[derive(Debug)]
pub(crate) struct Dispatching<I: Io> {
    /// Notes that were taken, and how many of them are used up.
    taken: Vec<Note>,
    used: usize,
    /// Queues that notes have named, by number.
    queues: Vec<Option<Arc<Queue<I>>>>,
    /// How often queues had been deleted when the first of them was kept here.
    forgotten_count: u64,
    /// The keys of the run, to be put.
    keys: Vec<HashedKey>,
}

impl<I: Io> Default for Dispatching<I> {
    fn default() -> Self {
        Self {
            taken: Vec::new(),
            used: 0,
            queues: Vec::new(),
            forgotten_count: 0,
            keys: Vec::new(),
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
        state.keys.clear();
        let mut count = 0;
        for note in state.taken.get(run.clone()).unwrap_or_default() {
            debug_assert!(self.agrees(log, note), "{note:?} is not what the log says");
            if !self.put_noted(note, &mut state.queues)? {
                break;
            }
            let key = |key_hash: &i32| HashedKey {
                key_hash: *key_hash,
                physical_offset: note.physical_offset,
                store_timestamp_ms: note.store_timestamp_ms,
            };
            state.keys.extend(note.hashes.keys().iter().map(key));
            count += 1;
        }
        let done = run.start..run.start + count;
        let Some(last) = state.taken.get(done.clone()).and_then(<[Note]>::last) else {
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
        for note in state.taken.get(done.clone()).unwrap_or_default() {
            self.tell_noted(note, &state.queues);
        }
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

    /// Puts the entry of a record. `false` where that is not all that there is to do.
    fn put_noted(
        &self,
        note: &Note,
        queues: &mut Vec<Option<Arc<Queue<I>>>>,
    ) -> Result<bool, DispatchError> {
        let number = note.queue as usize;
        if number >= queues.len() {
            queues.resize(number + 1, None);
        }
        let Some(place) = queues.get_mut(number) else {
            return Ok(false);
        };
        if place.is_none() {
            *place = self.queues.numbered(note.queue);
        }
        let Some(queue) = place else {
            return Ok(false);
        };
        let entry = Entry {
            physical_offset: note.physical_offset.cast_signed(),
            size: i32::try_from(note.len).unwrap_or(i32::MAX),
            tags_code: note.hashes.tags_code,
        };
        let store_ms = Some(note.store_timestamp_ms);
        match queue.entries.put_stored(note.queue_offset, entry, store_ms) {
            Ok(PutOutcome::Appended | PutOutcome::AlreadyBuilt) => Ok(true),
            Ok(PutOutcome::Gap { .. } | PutOutcome::Occupied { .. }) => Ok(false),
            Err(ConsumeQueueError::Deleted { .. }) => {
                *place = None;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
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

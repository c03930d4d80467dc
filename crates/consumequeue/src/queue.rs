//! One consume queue: its numbers, which are always there, and its files, which are opened when
//! they are needed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock, Weak};
use std::time::Duration;

use mmap_core::{Io, MapSlice, OsIo, RawMap};
use segment_queue::{
    AppendError, DamagePolicy, FlushPolicy, SegmentQueue, SegmentQueueOptions, SegmentWriter,
};

use crate::entry::{ENTRY_LEN, Entry};
use crate::error::ConsumeQueueError;
use crate::extension::{Extension, ExtensionUnit, Referenced, sync_closed};
use crate::hot::{Shared, lock, read, write};
use crate::options::{
    ConsumeQueueOptions, ExtensionOptions, OpenPolicy, index_to_offset, offset_to_index,
};
use crate::read::{Entries, read_pages};
use crate::recover::{Bounds, Doubt};
use crate::search::{entry_at, last_where};

mod aside;
mod ends;
mod run;

pub(crate) use ends::remove_segments;

/// Fillers or copies appended at once.
const FILL_COUNT: usize = 1024;
/// Entries at a queue's end that count as just put.
const NEW_COUNT: i64 = 100_000;
/// How often a read is repeated because the files were closed and reopened under it.
const READ_ATTEMPTS: usize = 3;

/// The entries of one queue of a topic.
///
/// One thread at a time puts; any number read. An entry is readable as soon as
/// [`max_index`](Self::max_index) has passed it.
///
/// Locks, in this order: `writer`, the ring of open queues, `readers`. `writer` is held while files
/// are opened and begun; `readers` for moments only.
#[derive(Debug)]
pub struct ConsumeQueue<I: Io = OsIo> {
    this: Weak<Self>,
    shared: Arc<Shared<I>>,
    dir: Box<Path>,
    /// Index of the first place in the first file. Written under `writer`.
    base_index: AtomicI64,
    /// Index of the first message. Written under `writer`.
    pub(crate) min_index: AtomicI64,
    /// Commit-log offset of the message there, at most; `i64::MAX` without messages. Written under
    /// `writer`.
    pub(crate) min_physical: AtomicI64,
    /// Index behind the last entry. Written under `writer` (Release) after the entry is readable.
    pub(crate) max_index: AtomicI64,
    /// Commit-log offset behind the last message, -1 without messages. Written under `writer`.
    pub(crate) max_physical_end: AtomicI64,
    /// Where the queue ended when it was opened: nothing below was put by this process.
    opened_index: i64,
    /// Entries below are durable. Raised by flushes, lowered by truncation.
    pub(crate) flushed_index: AtomicI64,
    /// Used since the ring's hand passed.
    used: AtomicBool,
    /// In the list of queues to flush.
    dirty: AtomicBool,
    /// Its files are gone for good. Set under `writer`.
    deleted: AtomicBool,
    /// Puts while its files were closed. Written under `writer`.
    aside_count: AtomicU32,
    /// There while the files are open, and only then.
    readers: RwLock<Option<Arc<SegmentQueue<I>>>>,
    pub(crate) writer: Mutex<Files<I>>,
    /// The extension files, once an entry refers to them.
    extension: OnceLock<Box<Extension<I>>>,
}

/// The one writer of a queue whose files are open.
type Files<I> = Option<Box<SegmentWriter<I>>>;

/// What to do about entries that are not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    ForDevice,
    Never,
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The entry is in its place.
    Appended,
    /// The message lies below the end of the last one: its entry is there.
    AlreadyBuilt,
    /// The place is taken, though the message is a new one. RocketMQ drops the entry with a
    /// warning; nothing is changed here either.
    Occupied {
        /// The only index that can be put to.
        max_index: i64,
    },
    /// Entries before it are missing; nothing was put. RocketMQ appends all the same, and from
    /// then on the queue's indexes are wrong. The caller puts the missing entries from the log,
    /// or [fillers](ConsumeQueue::fill) where the log has lost the messages.
    Gap {
        /// The first missing index.
        max_index: i64,
    },
}

impl<I: Io> ConsumeQueue<I> {
    /// Opens the queue in `dir`, which need not exist, by itself; a
    /// [`ConsumeQueueSet`](crate::ConsumeQueueSet) holds many.
    ///
    /// # Errors
    /// [`ConsumeQueueError::Options`]; [`ConsumeQueueError::Queue`] when the files are of another
    /// shape or damaged.
    pub fn open(
        io: I,
        dir: &Path,
        options: ConsumeQueueOptions,
        policy: OpenPolicy,
    ) -> Result<Arc<Self>, ConsumeQueueError> {
        options.validate()?;
        let shared = Arc::new(Shared::new(io, options, policy));
        Self::open_shared(&shared, dir, policy).map(|(queue, _doubt)| queue)
    }

    /// A queue whose files cannot be used: it has to be built anew from the log.
    pub(crate) fn open_broken(shared: &Arc<Shared<I>>, dir: &Path) -> (Arc<Self>, Option<Doubt>) {
        let doubt = Doubt {
            is_damage: true,
            behind: Vec::new(),
        };
        (Self::with_bounds(shared, dir, Bounds::EMPTY), Some(doubt))
    }

    pub(crate) fn open_shared(
        shared: &Arc<Shared<I>>,
        dir: &Path,
        policy: OpenPolicy,
    ) -> Result<(Arc<Self>, Option<Doubt>), ConsumeQueueError> {
        let (bounds, doubt) = match Bounds::find(&shared.io, &shared.options, dir, policy) {
            Err(error) if error.is_broken() => return Ok(Self::open_broken(shared, dir)),
            found => found?,
        };
        let queue = Self::with_bounds(shared, dir, bounds);
        if bounds.flushed_index < bounds.max_index {
            queue.mark_dirty();
            // The names may be as new as the entries.
            for above in dir.ancestors().skip(1).take(2) {
                shared.add_unsynced_dir(above);
            }
        }
        if let Some(options) = shared.written_extensions() {
            queue.extension(options).check_files(shared, options)?;
        }
        Ok((queue, doubt))
    }

    pub(crate) fn with_bounds(shared: &Arc<Shared<I>>, dir: &Path, bounds: Bounds) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            shared: Arc::clone(shared),
            dir: dir.into(),
            base_index: AtomicI64::new(bounds.base_index),
            min_index: AtomicI64::new(bounds.min_index),
            min_physical: AtomicI64::new(bounds.min_physical),
            max_index: AtomicI64::new(bounds.max_index),
            max_physical_end: AtomicI64::new(bounds.max_physical_end),
            opened_index: bounds.max_index,
            flushed_index: AtomicI64::new(bounds.flushed_index),
            used: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            aside_count: AtomicU32::new(0),
            readers: RwLock::new(None),
            writer: Mutex::new(None),
            extension: OnceLock::new(),
        })
    }

    /// Index of the first message; [`max_index`](Self::max_index) when there is none.
    pub fn min_index(&self) -> i64 {
        self.min_index.load(Ordering::Acquire)
    }

    /// Index behind the last entry: the next message's.
    #[inline]
    pub fn max_index(&self) -> i64 {
        self.max_index.load(Ordering::Acquire)
    }

    /// Commit-log offset behind the last message: all that lie below are in the queue. `None`
    /// without messages.
    pub fn max_physical_end(&self) -> Option<u64> {
        u64::try_from(self.max_physical_end.load(Ordering::Acquire)).ok()
    }

    /// Index of the first place in the first file.
    pub(crate) fn base_index(&self) -> i64 {
        self.base_index.load(Ordering::Acquire)
    }

    /// Entries below this index are durable.
    pub fn flushed_index(&self) -> i64 {
        self.flushed_index.load(Ordering::Acquire)
    }

    /// The queue's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts a message's entry at `index`, which must be the next one; see [`PutOutcome`].
    ///
    /// The first message of a queue may have any index: what lies before it in its file is filled
    /// with entries that stand for no message.
    ///
    /// # Errors
    /// Nothing was put then. [`ConsumeQueueError::Entry`]; [`ConsumeQueueError::Deleted`];
    /// [`ConsumeQueueError::Poisoned`]; [`ConsumeQueueError::is_full`] tells a full disk.
    pub fn put(&self, index: i64, entry: Entry) -> Result<PutOutcome, ConsumeQueueError> {
        self.put_stored(index, entry, None)
    }

    /// As [`put`](Self::put), of a message stored at `store_time_ms`: where extension units are
    /// [written](crate::ExtensionOptions::is_written), the entry refers to one. If there is no
    /// room for the unit, or no time is given, the entry has its tags code in itself, as with
    /// RocketMQ.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_stored(
        &self,
        index: i64,
        mut entry: Entry,
        store_time_ms: Option<i64>,
    ) -> Result<PutOutcome, ConsumeQueueError> {
        entry.check(index)?;
        self.shared.check_poison()?;
        let mut files = lock(&self.writer);
        let physical_end = self.max_physical_end.load(Ordering::Relaxed);
        let max_index = self.max_index.load(Ordering::Relaxed);
        // With the very end of the last message and an index behind it, it is that message, and
        // copies of its entry stand before it that were put for lost ones.
        let is_copied = entry.physical_end() == physical_end && index >= max_index;
        if entry.physical_end() <= physical_end && !is_copied {
            return Ok(PutOutcome::AlreadyBuilt);
        }
        let is_first = physical_end < 0;
        if index < max_index && !is_first {
            return Ok(PutOutcome::Occupied { max_index });
        }
        if index > max_index && !is_first {
            return Ok(PutOutcome::Gap { max_index });
        }
        if let (Some(store_time_ms), Some(options)) =
            (store_time_ms, self.shared.written_extensions())
        {
            let unit = ExtensionUnit::encode(entry.tags_code, store_time_ms);
            let extension = self.extension(options);
            let referenced = || self.last_referenced(&mut files);
            match extension.append(&self.shared, options, &unit, referenced) {
                Ok(offset) => entry = entry.extended_by(offset),
                Err(error) if error.is_full() => {}
                Err(error) => return Err(error),
            }
        }
        let appended = if is_first {
            self.put_first(&mut files, index, entry)
        } else {
            self.append(&mut files, &entry.encode())
        };
        self.or_close(&mut files, appended)?;
        if self.min_index.load(Ordering::Relaxed) == index {
            // The first message, or the first after all others have expired.
            self.min_physical
                .store(entry.physical_offset, Ordering::Release);
        }
        self.publish(&mut files, index + 1);
        self.max_physical_end
            .store(entry.physical_end(), Ordering::Release);
        Ok(PutOutcome::Appended)
    }

    /// Puts a message's entry at `index` behind messages that the log has lost: their places get
    /// copies of it, so that every index stays true, and whoever trusts an entry (a Java broker)
    /// reads this message twice and passes over none.
    ///
    /// After a crash half way there are copies and no entry: the message is put again.
    ///
    /// # Errors
    /// As [`put`](Self::put). Some of the copies may be there.
    pub fn put_behind_gap(
        &self,
        index: i64,
        entry: Entry,
        store_time_ms: Option<i64>,
    ) -> Result<PutOutcome, ConsumeQueueError> {
        let outcome = self.put_stored(index, entry, store_time_ms)?;
        let PutOutcome::Gap { max_index } = outcome else {
            return Ok(outcome);
        };
        // The first copy has the unit, and the others refer to it.
        self.put_stored(max_index, entry, store_time_ms)?;
        self.repeat_last(index + 1)?;
        Ok(PutOutcome::Appended)
    }

    /// Puts copies of the last entry up to `index`, for messages at the end of the queue that the
    /// log has lost. A queue without messages stays as it is.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn repeat_last(&self, index: i64) -> Result<(), ConsumeQueueError> {
        self.shared.check_poison()?;
        let mut files = lock(&self.writer);
        let max_index = self.max_index.load(Ordering::Relaxed);
        if index > max_index && self.max_physical_end.load(Ordering::Relaxed) >= 0 {
            let writer = self.open_files(&mut files)?;
            let copy = entry_at(writer.queue(), max_index - 1)?;
            let copied = self.append_copies(&mut files, copy, index - max_index);
            self.or_close(&mut files, copied)?;
            if self.min_index.load(Ordering::Relaxed) == max_index {
                // The last message has expired, and so have its copies.
                self.min_index.store(index, Ordering::Release);
            }
            self.publish(&mut files, index);
        }
        Ok(())
    }

    /// Puts fillers up to `index`, for messages that the log has lost: the indexes of those behind
    /// stay true.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn fill(&self, index: i64) -> Result<(), ConsumeQueueError> {
        self.shared.check_poison()?;
        let mut files = lock(&self.writer);
        let max_index = self.max_index.load(Ordering::Relaxed);
        if index > max_index {
            let filled = self.append_copies(&mut files, Entry::FILLER, index - max_index);
            self.or_close(&mut files, filled)?;
            if self.min_index.load(Ordering::Relaxed) == max_index {
                self.min_index.store(index, Ordering::Release);
            }
            self.publish(&mut files, index);
        }
        Ok(())
    }

    /// Up to `count_max` entries from index `from`, as far as one file holds them; `None` when
    /// there is nothing at that index (any more, or yet).
    ///
    /// # Errors
    /// Those of opening and mapping the file.
    pub fn entries(
        &self,
        from: i64,
        count_max: usize,
    ) -> Result<Option<Entries<I>>, ConsumeQueueError> {
        self.entries_waiting(from, count_max, Wait::ForDevice)
    }

    /// As [`entries`](Self::entries), of entries that are in memory, in files that are open: it
    /// does not wait for the device.
    ///
    /// # Errors
    /// As [`entries`](Self::entries), and [`ConsumeQueueError::NotInMemory`].
    pub fn entries_in_memory(
        &self,
        from: i64,
        count_max: usize,
    ) -> Result<Option<Entries<I>>, ConsumeQueueError> {
        self.entries_waiting(from, count_max, Wait::Never)
    }

    fn entries_waiting(
        &self,
        from: i64,
        count_max: usize,
        wait: Wait,
    ) -> Result<Option<Entries<I>>, ConsumeQueueError> {
        match self.find_entries(from, count_max, wait) {
            // Its files went while they were opened.
            Err(_) if self.deleted.load(Ordering::Acquire) => Ok(None),
            found => found,
        }
    }

    fn find_entries(
        &self,
        from: i64,
        count_max: usize,
        wait: Wait,
    ) -> Result<Option<Entries<I>>, ConsumeQueueError> {
        for _ in 0..READ_ATTEMPTS {
            let max_index = self.max_index();
            if from < self.min_index() || from >= max_index || count_max == 0 {
                return Ok(None);
            }
            let per_file = self.shared.options.entries_per_file();
            let count = (max_index - from)
                .min(per_file - from % per_file)
                .min(i64::try_from(count_max).unwrap_or(i64::MAX));
            let len = usize::try_from(index_to_offset(count)).unwrap_or(usize::MAX);
            if wait == Wait::Never && read(&self.readers).is_none() {
                return Err(self.not_in_memory());
            }
            let Some(queue) = self.open_queue()? else {
                return Ok(None);
            };
            // Nothing when the files were closed, put to and opened again in between: then `queue`
            // ends before. Or the entries were trimmed, which `min_index` tells.
            if let Some(bytes) = queue.try_slice(index_to_offset(from), len)? {
                self.bring_in(from, &bytes, wait)?;
                return Ok(Some(Entries {
                    first_index: from,
                    bytes,
                }));
            }
        }
        Ok(None)
    }

    /// Brings entries into memory, unless this process has just put them: what the device does not
    /// give is an error here, where touching it would be a signal.
    fn bring_in(
        &self,
        from: i64,
        bytes: &MapSlice<I::Map>,
        wait: Wait,
    ) -> Result<(), ConsumeQueueError> {
        let is_new = from >= self.opened_index && from + NEW_COUNT >= self.max_index();
        if is_new {
            return Ok(());
        }
        let map = bytes.region().map();
        let found = map.resident(bytes.range())?;
        match wait {
            _ if found.resident == found.pages => Ok(()),
            Wait::ForDevice => Ok(read_pages(map, bytes.range())?),
            Wait::Never => Err(self.not_in_memory()),
        }
    }

    fn not_in_memory(&self) -> ConsumeQueueError {
        ConsumeQueueError::NotInMemory {
            dir: self.dir.to_path_buf(),
        }
    }

    /// The entry at `index`; `None` when there is none, or a filler.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub fn entry(&self, index: i64) -> Result<Option<Entry>, ConsumeQueueError> {
        let entries = self.entries(index, 1)?;
        Ok(entries
            .and_then(|entries| entries.iter().next())
            .map(|(_, entry)| entry))
    }

    /// Makes durable what was put, as far as the policy finds it worth it; returns whether all of
    /// it is durable now.
    ///
    /// # Errors
    /// The first failed sync ends all putting, to this queue and to the others of its set.
    pub fn flush(&self, policy: FlushPolicy) -> Result<bool, ConsumeQueueError> {
        self.shared.check_poison()?;
        // Cleared first: who puts from now on enters the queue again.
        self.dirty.store(false, Ordering::Release);
        // The units first: an entry that is durable refers to a unit that is.
        let flushed = match &self.shared.options.extensions {
            Some(options) if self.shared.is_unclean || self.extension.get().is_some() => {
                self.extension(options).flush(&self.shared)
            }
            _ => Ok(()),
        }
        .and_then(|()| self.sync(policy))
        .inspect_err(|_| self.shared.poison())?;
        self.flushed_index.fetch_max(flushed, Ordering::AcqRel);
        let done = self.flushed_index() >= self.max_index();
        if !done {
            self.mark_dirty();
        }
        Ok(done)
    }

    /// Syncs, and returns the index below which entries are durable.
    fn sync(&self, policy: FlushPolicy) -> Result<i64, ConsumeQueueError> {
        let open = read(&self.readers).clone();
        if let Some(queue) = open {
            let flushed = offset_to_index(queue.flush(policy)?);
            if flushed > self.flushed_index() {
                self.shared.sync_dirs()?;
            }
            return Ok(flushed);
        }
        self.shared.sync_dirs()?;
        // Closed to make room. What is put meanwhile is in the file before it is below the end.
        let max_index = self.max_index();
        let due = index_to_offset(self.flushed_index())..index_to_offset(max_index);
        sync_closed(&self.shared, &self.dir, due, self.shared.options.file_len)?;
        Ok(max_index)
    }

    /// The first message: anew if the files, which have none, are not where it belongs.
    fn put_first(
        &self,
        files: &mut MutexGuard<'_, Files<I>>,
        index: i64,
        entry: Entry,
    ) -> Result<(), ConsumeQueueError> {
        self.begin_files(files, index, Entry::FILLER)?;
        self.append(files, &entry.encode())?;
        self.min_index.store(index, Ordering::Release);
        Ok(())
    }

    /// Fills the file that `index` belongs to up to there, and makes it the first.
    fn begin_files(
        &self,
        files: &mut MutexGuard<'_, Files<I>>,
        index: i64,
        filler: Entry,
    ) -> Result<(), ConsumeQueueError> {
        let per_file = self.shared.options.entries_per_file();
        let base_index = index - index % per_file;
        let max_index = self.max_index.load(Ordering::Relaxed);
        if index < max_index || self.base_index.load(Ordering::Relaxed) != base_index {
            let writer = self.open_files(files)?;
            writer.reset(index_to_offset(base_index))?;
            self.base_index.store(base_index, Ordering::Release);
            self.max_index.store(base_index, Ordering::Release);
            self.flushed_index.store(base_index, Ordering::Release);
        }
        let fill_count = index - self.max_index.load(Ordering::Relaxed);
        self.append_copies(files, filler, fill_count)
    }

    fn append_copies(
        &self,
        files: &mut MutexGuard<'_, Files<I>>,
        entry: Entry,
        mut count: i64,
    ) -> Result<(), ConsumeQueueError> {
        let copies = entry.encode().repeat(FILL_COUNT);
        let per_file = self.shared.options.entries_per_file();
        while count > 0 {
            let place = offset_to_index(self.open_files(files)?.position()) % per_file;
            let step = count.min(per_file - place).min(FILL_COUNT as i64);
            let len = usize::try_from(index_to_offset(step)).unwrap_or(0);
            self.append(files, copies.get(..len).unwrap_or_default())?;
            count -= step;
        }
        Ok(())
    }

    /// Appends whole entries that fit into one file, beginning a new one if need be.
    fn append(
        &self,
        files: &mut MutexGuard<'_, Files<I>>,
        bytes: &[u8],
    ) -> Result<(), ConsumeQueueError> {
        debug_assert!(bytes.len().is_multiple_of(ENTRY_LEN));
        if files.is_none() && self.append_aside(bytes)? {
            return Ok(());
        }
        let writer = self.open_files(files)?;
        match writer.append(&[bytes]) {
            Ok(_) => return Ok(()),
            Err(AppendError::NeedsRoll { .. }) => {
                if writer.queue().segments().is_empty() {
                    self.shared.create_dirs(&self.dir)?;
                }
                writer.roll()?;
            }
            Err(error) => return Err(error.into()),
        }
        writer.append(&[bytes])?;
        Ok(())
    }

    fn publish(&self, files: &mut MutexGuard<'_, Files<I>>, max_index: i64) {
        if let Some(writer) = files.as_mut() {
            writer.publish();
        }
        self.max_index.store(max_index, Ordering::Release);
        self.mark_dirty();
    }

    /// After a failed append the writer may have got half of the way: the files are closed, and
    /// opened at the queue's end by the next who needs them.
    pub(crate) fn or_close<T>(
        &self,
        files: &mut MutexGuard<'_, Files<I>>,
        result: Result<T, ConsumeQueueError>,
    ) -> Result<T, ConsumeQueueError> {
        if result.is_err() {
            self.close_files(files);
        }
        result
    }

    fn mark_dirty(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel) {
            self.shared.add_dirty(Weak::clone(&self.this));
        }
    }
}

/// Opening and closing the files.
impl<I: Io> ConsumeQueue<I> {
    /// The writer, with files opened if they are not.
    pub(crate) fn open_files<'a>(
        &self,
        files: &'a mut MutexGuard<'_, Files<I>>,
    ) -> Result<&'a mut SegmentWriter<I>, ConsumeQueueError> {
        self.used.store(true, Ordering::Relaxed);
        let writer = match files.take() {
            Some(writer) => writer,
            None => self.open_writer()?,
        };
        Ok(files.insert(writer))
    }

    fn open_writer(&self) -> Result<Box<SegmentWriter<I>>, ConsumeQueueError> {
        if self.deleted.load(Ordering::Relaxed) {
            return Err(ConsumeQueueError::Deleted {
                dir: self.dir.to_path_buf(),
            });
        }
        let end = index_to_offset(self.max_index.load(Ordering::Relaxed));
        let options = SegmentQueueOptions {
            base_when_empty: end,
            ..self
                .shared
                .options
                .segments(&self.dir, DamagePolicy::Refuse)
        };
        let (queue, mut writer) = SegmentQueue::open(self.shared.io.clone(), &options)?;
        writer.resume(end)?;
        writer.mark_unflushed(index_to_offset(self.flushed_index()));
        *write(&self.readers) = Some(queue);
        self.shared.admit(Weak::clone(&self.this));
        Ok(Box::new(writer))
    }

    pub(crate) fn close_files(&self, files: &mut MutexGuard<'_, Files<I>>) {
        **files = None;
        *write(&self.readers) = None;
        if let Some(extension) = self.extension.get() {
            extension.close_files();
        }
    }

    /// The open queue, opened now if it is closed; `None` for a deleted one.
    pub(crate) fn open_queue(&self) -> Result<Option<Arc<SegmentQueue<I>>>, ConsumeQueueError> {
        if let Some(queue) = &*read(&self.readers) {
            self.used.store(true, Ordering::Relaxed);
            return Ok(Some(Arc::clone(queue)));
        }
        let mut files = lock(&self.writer);
        if self.deleted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.open_files(&mut files)?;
        Ok(read(&self.readers).clone())
    }

    /// Unmaps what is not read, and not the last file.
    pub(crate) fn step_unmap(&self, now: Duration) {
        let open = read(&self.readers).clone();
        if let Some(queue) = open {
            queue.step_unmap(now, &[]);
        }
    }

    /// Closes the files unless they are in use or were since the last call; returns whether they
    /// are closed.
    pub(crate) fn try_cool(&self) -> bool {
        if self.used.swap(false, Ordering::Relaxed) {
            return false;
        }
        let Ok(mut files) = self.writer.try_lock() else {
            return false;
        };
        self.close_files(&mut files);
        true
    }
}

/// Extension units.
impl<I: Io> ConsumeQueue<I> {
    /// The tags code that an entry of this queue stands for: its own, or that of the extension
    /// unit that it refers to. `None` if there is no such unit, or none that is whole: then nobody
    /// knows the message's tag but the message (RocketMQ passes it to the client).
    ///
    /// # Errors
    /// Those of reading the unit.
    #[inline]
    pub fn tags_code(&self, entry: &Entry) -> Result<Option<i64>, ConsumeQueueError> {
        match entry.extension_offset() {
            None => Ok(Some(entry.tags_code)),
            Some(offset) => Ok(self.unit_at(offset)?.map(|unit| unit.tags_code)),
        }
    }

    /// The extension unit that an entry of this queue refers to.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn unit(&self, entry: &Entry) -> Result<Option<ExtensionUnit>, ConsumeQueueError> {
        match entry.extension_offset() {
            None => Ok(None),
            Some(offset) => self.unit_at(offset),
        }
    }

    fn unit_at(&self, offset: u64) -> Result<Option<ExtensionUnit>, ConsumeQueueError> {
        match &self.shared.options.extensions {
            None => Ok(None),
            Some(options) => self.extension(options).unit(&self.shared, options, offset),
        }
    }

    fn extension(&self, options: &ExtensionOptions) -> &Extension<I> {
        self.extension
            .get_or_init(|| Box::new(Extension::of_queue(&self.shared, options, &self.dir)))
    }

    /// The last unit that an entry refers to.
    fn last_referenced(
        &self,
        files: &mut MutexGuard<'_, Files<I>>,
    ) -> Result<Referenced, ConsumeQueueError> {
        let base_index = self.base_index.load(Ordering::Relaxed);
        let max_index = self.max_index.load(Ordering::Relaxed);
        if self.max_physical_end.load(Ordering::Relaxed) < 0 || max_index <= base_index {
            return Ok(Referenced::Nothing);
        }
        let queue = Arc::clone(self.open_files(files)?.queue());
        // Found at once but where units were not written for long: then the whole queue is looked
        // through, once, as no unit that an entry refers to may be written over.
        let found = last_where(&queue, base_index..max_index, |entry| {
            entry.extension_offset().is_some()
        })?;
        Ok(match found {
            Some((index, entry)) => match entry.extension_offset() {
                Some(offset) if index + 1 == max_index => Referenced::Last(offset),
                Some(offset) => Referenced::Earlier(offset),
                None => Referenced::Nothing,
            },
            None => Referenced::Nothing,
        })
    }
}

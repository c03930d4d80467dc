//! Readers: each walks over the items on its own, and remembers where it is.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mmap_core::{Io, OsIo};

use crate::error::PageQueueError;
use crate::guard::lock;
use crate::options::Durability;
use crate::position::PositionFile;
use crate::queue::{Item, PageQueue, Shared};

/// Letters of a reader's name, at most.
const NAME_LEN_MAX: usize = 100;

/// A reader of a queue, known by its name. There is one at a time, and readers of other names are
/// none of its concern.
///
/// [`pop`](Self::pop) hands out items one after the other; [`commit`](Self::commit) says that all of
/// them are done. A reader that is made again, after a crash or not, begins behind the last item
/// committed: every item is delivered **at least once**.
pub struct Reader<I: Io = OsIo> {
    shared: Arc<Shared<I>>,
    place: Arc<Place<I>>,
    name: String,
    missed_count: u64,
}

/// What the queue knows of a reader, whether it is in use or not.
pub(crate) struct Place<I: Io> {
    /// The number of the next item. Written by the reader; orders nothing.
    position: AtomicU64,
    /// Written under `file`, after the file was.
    committed: AtomicU64,
    in_use: AtomicBool,
    file: Mutex<PositionFile<I>>,
}

impl<I: Io> Place<I> {
    pub(crate) fn new(file: PositionFile<I>, position: u64) -> Self {
        Self {
            position: AtomicU64::new(position),
            committed: AtomicU64::new(position),
            in_use: AtomicBool::new(false),
            file: Mutex::new(file),
        }
    }

    pub(crate) fn sync(&self) -> Result<(), PageQueueError> {
        lock(&self.file).sync()
    }
}

pub(crate) fn is_reader_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(is_letter)
        && !name.starts_with('.')
        && !name.ends_with(mmap_core::replace::TEMPORARY_SUFFIX)
}

impl<I: Io> PageQueue<I> {
    /// The reader of this name: where it was committed last, or, a new one, at the first item. A
    /// new one is known, and keeps [`trim_read`](Self::trim_read) from trimming, from now on.
    ///
    /// # Errors
    /// [`PageQueueError::ReaderInUse`], [`PageQueueError::ReaderName`], or those of writing its
    /// file.
    pub fn reader(&self, name: &str) -> Result<Reader<I>, PageQueueError> {
        if !is_reader_name(name) {
            return Err(PageQueueError::ReaderName {
                name: name.to_owned(),
            });
        }
        let mut readers = lock(&self.shared.readers);
        let place = match readers.get(name) {
            Some(place) => Arc::clone(place),
            None => {
                let path = self.shared.reader_path(name);
                if let Some(dir) = path.parent() {
                    self.shared.io.create_dir_all(dir)?;
                }
                let first = self.first();
                let file = PositionFile::create(&self.shared.io, &path, first)?;
                let place = Arc::new(Place::new(file, first));
                readers.insert(name.to_owned(), Arc::clone(&place));
                place
            }
        };
        if place.in_use.swap(true, Ordering::AcqRel) {
            return Err(PageQueueError::ReaderInUse {
                name: name.to_owned(),
            });
        }
        let committed = place.committed.load(Ordering::Acquire);
        place.position.store(committed, Ordering::Relaxed);
        Ok(Reader {
            shared: Arc::clone(&self.shared),
            place,
            name: name.to_owned(),
            missed_count: 0,
        })
    }

    /// The names of all readers, in use or not, with the numbers behind what they committed.
    pub fn readers(&self) -> Vec<(String, u64)> {
        let readers = lock(&self.shared.readers);
        let committed = |place: &Place<I>| place.committed.load(Ordering::Acquire);
        readers
            .iter()
            .map(|(name, place)| (name.clone(), committed(place)))
            .collect()
    }

    /// Forgets a reader that is not in use; returns whether there was one.
    ///
    /// # Errors
    /// [`PageQueueError::ReaderInUse`], or those of removing its file.
    pub fn remove_reader(&self, name: &str) -> Result<bool, PageQueueError> {
        let mut readers = lock(&self.shared.readers);
        let Some(place) = readers.get(name) else {
            return Ok(false);
        };
        if place.in_use.load(Ordering::Acquire) {
            return Err(PageQueueError::ReaderInUse {
                name: name.to_owned(),
            });
        }
        let path = self.shared.reader_path(name);
        self.shared.io.remove_file(&path)?;
        if let Some(dir) = path.parent() {
            self.shared.io.sync_dir(dir)?;
        }
        readers.remove(name);
        Ok(true)
    }
}

impl<I: Io> Shared<I> {
    fn reader_path(&self, name: &str) -> PathBuf {
        self.options.dir.join("readers").join(name)
    }

    /// The next items of the readers in use.
    pub(crate) fn reading_positions(&self) -> Vec<u64> {
        let readers = lock(&self.readers);
        let in_use = readers
            .values()
            .filter(|place| place.in_use.load(Ordering::Acquire));
        in_use
            .map(|place| place.position.load(Ordering::Relaxed))
            .collect()
    }
}

impl<I: Io> Reader<I> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the next item.
    pub fn position(&self) -> u64 {
        self.place.position.load(Ordering::Relaxed)
    }

    /// The number behind the last item committed: where it begins when it is made again.
    pub fn committed(&self) -> u64 {
        self.place.committed.load(Ordering::Acquire)
    }

    /// How many items are waiting.
    pub fn waiting_count(&self) -> u64 {
        let position = self.position().max(self.shared.first());
        self.shared.end().saturating_sub(position)
    }

    /// How many items were trimmed or dropped before this reader came to them, since it was made.
    pub fn missed_count(&self) -> u64 {
        self.missed_count
    }

    /// The next item; it stays the next one. `None` at the end.
    ///
    /// # Errors
    /// [`PageQueueError::Damaged`], and the reader stays in front of the item: go on behind it with
    /// [`seek`](Self::seek). Those of mapping a page.
    pub fn peek(&mut self) -> Result<Option<Item<I>>, PageQueueError> {
        loop {
            let first = self.shared.first();
            if let Some(missed_count) = first.checked_sub(self.position()) {
                self.missed_count += missed_count;
                self.seek(first);
            }
            let position = self.position();
            if position >= self.shared.end() {
                return Ok(None);
            }
            match self.shared.get(position) {
                // Dropped since.
                Err(PageQueueError::OutOfRange { .. }) if position < self.shared.first() => {}
                item => return item.map(Some),
            }
        }
    }

    /// The next item, and goes on behind it. `None` at the end.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    pub fn pop(&mut self) -> Result<Option<Item<I>>, PageQueueError> {
        let item = self.peek()?;
        if let Some(item) = &item {
            self.seek(item.number() + 1);
        }
        Ok(item)
    }

    /// Goes to an item, back or forth. Numbers below the first lead to the first, and numbers
    /// behind the end wait for it.
    pub fn seek(&mut self, number: u64) {
        self.place.position.store(number, Ordering::Relaxed);
    }

    /// Says that everything popped so far is done: [`commit_to`](Self::commit_to) the position.
    ///
    /// # Errors
    /// As [`commit_to`](Self::commit_to).
    pub fn commit(&mut self) -> Result<(), PageQueueError> {
        self.commit_to(self.position())
    }

    /// Says that everything below `number` is done, for those who finish items out of order. A
    /// number below the last one takes it back.
    ///
    /// Durable on return with [`Durability::EachPush`], otherwise with the next flush.
    ///
    /// # Errors
    /// [`PageQueueError::OutOfRange`] behind the end, or those of writing and syncing its file: then
    /// the last position counts.
    pub fn commit_to(&mut self, number: u64) -> Result<(), PageQueueError> {
        let end = self.shared.end();
        if number > end {
            return Err(PageQueueError::OutOfRange {
                number,
                first: self.shared.first(),
                end,
            });
        }
        let mut file = lock(&self.place.file);
        file.write(number)?;
        if self.shared.options.durability == Durability::EachPush {
            file.sync()?;
        }
        self.place.committed.store(number, Ordering::Release);
        Ok(())
    }
}

impl<I: Io> Drop for Reader<I> {
    fn drop(&mut self) {
        self.place.in_use.store(false, Ordering::Release);
    }
}

impl<I: Io> fmt::Debug for Reader<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("name", &self.name)
            .field("position", &self.position())
            .field("committed", &self.committed())
            .finish_non_exhaustive()
    }
}

//! The rolling set of index files: put, query, flush, trim.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::tz::TimeZone;
use mmap_core::{Io, OsIo};

use crate::blocks::Blocks;
use crate::error::IndexError;
use crate::file::{Body, IndexFile};
use crate::key::key_hash;
use crate::layout::Header;
use crate::mapped::{MappedIndex, NewEntry};
use crate::name::next_name;
use crate::options::{IndexOptions, OpenPolicy, OpenReport, SuspectFile};
use crate::recover::{
    Loaded, Recovery, is_in_doubt, last_agrees, last_used, load, remove, remove_all,
    take_back_uncounted,
};
use crate::repair::Writes;
use crate::select::{self, IndexRead, TimeRange};

/// Full files that may stay mapped until a flush; the put that begins one more flushes first.
const UNFLUSHED_FILES_MAX: usize = 4;

/// The index of a store: all its files.
///
/// Puts come from one thread at a time, in the order of the log; queries, flushes and trims from
/// any thread.
///
/// Locks, in this order: `flushing`, `writer`, `files`. `files` is held for moments only. The
/// writer's is held while a file is begun, which is the only input and output that a put does.
#[derive(Debug)]
pub struct IndexService<I: Io = OsIo> {
    io: I,
    dir: PathBuf,
    options: IndexOptions,
    /// Oldest first. Replaced as a whole, so that a query works on a set that does not change.
    files: RwLock<Arc<[Arc<IndexFile<I>>]>>,
    writer: Mutex<Writer<I>>,
    /// One flush at a time, so that who returns from one knows that everything before is synced.
    flushing: Mutex<()>,
    /// A file was created since the directory was last synced. Set by the writer (Release) after
    /// the creation, cleared by the flusher (Acquire) before the sync.
    directory_dirty: AtomicBool,
    /// A sync failed. Set once (Release), read by puts and flushes (Acquire).
    poisoned: AtomicBool,
}

/// One key of a message, to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashedKey {
    /// The hash of topic and key; see [`TopicHash`](crate::TopicHash).
    pub key_hash: i32,
    /// Where the message lies in the log.
    pub physical_offset: u64,
    /// When it was stored, Unix time in milliseconds.
    pub store_timestamp_ms: i64,
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The key has a new entry.
    Indexed,
    /// The message was indexed before: it lies below the last one, or is the last one put again.
    AlreadyIndexed,
}

/// What a flush made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Store time of the last message in the full files that this flush synced: what RocketMQ
    /// keeps in the checkpoint as `indexMsgTimestamp`. `None` when no file had become full.
    pub full_files_end_timestamp_ms: Option<i64>,
}

/// The last message put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUpdate {
    /// Its store time, Unix time in milliseconds.
    pub timestamp_ms: i64,
    /// Its commit-log offset.
    pub physical_offset: u64,
}

/// How far an index reached at some time; the default for one without entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexReach {
    /// Commit-log offset of the first message in the last file.
    pub begin_physical_offset: i64,
    /// Ordinal behind that file's last entry.
    pub next_entry: u32,
}

impl IndexReach {
    fn of(header: &Header) -> Self {
        Self {
            begin_physical_offset: header.begin_physical_offset,
            next_entry: header.next_entry,
        }
    }
}

/// What a trim removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Count of files.
    pub file_count: usize,
    /// Their length in bytes; they are sparse.
    pub bytes: u64,
}

/// What only the putting thread uses.
#[derive(Debug)]
struct Writer<I: Io> {
    /// The last file, once it has been put to.
    active: Option<Active<I>>,
    /// Offset of the last message put.
    end_physical_offset: Option<i64>,
    /// Puts at this offset may be repetitions: it was the last one when the index was opened, or
    /// when a put failed between two keys of its message.
    repeated_offset: Option<i64>,
}

#[derive(Debug)]
struct Active<I: Io> {
    mapped: Arc<MappedIndex<I>>,
    blocks: Blocks,
}

impl<I: Io> IndexService<I> {
    /// Opens the index files in `dir`, which need not exist.
    ///
    /// # Errors
    /// [`IndexError::Options`], or [`IndexError::Length`] when a file is of another shape: nothing
    /// has been changed then. [`IndexError::Io`].
    pub fn open(
        io: I,
        dir: &Path,
        options: IndexOptions,
        policy: OpenPolicy,
    ) -> Result<(Self, OpenReport), IndexError> {
        options.validate()?;
        let loaded = load(&io, dir, options.layout())?;
        let mut report = OpenReport::default();
        let mut files = believed(&io, loaded, policy, &mut report)?;
        if !last_agrees(&io, &files)? {
            let recovery = Recovery::cut(&io, files, u64::MAX)?;
            report.resume_offset = Some(resume_offset(&recovery.files));
            report.suspects.extend(recovery.suspects);
            files = recovery.files;
        }
        report.file_count = files.len();
        if let Some(last) = files.last()
            && !last.is_full()
        {
            last.mapped(&io)?.read_ahead();
        }
        // A killed process may have left the name of its last file in the cache only.
        let directory_dirty = AtomicBool::new(policy != OpenPolicy::Clean && !files.is_empty());
        let end_physical_offset = last_used(&files).map(|header| header.end_physical_offset);
        let service = Self {
            io,
            dir: dir.to_owned(),
            options,
            files: RwLock::new(files.into()),
            writer: Mutex::new(Writer {
                active: None,
                end_physical_offset,
                repeated_offset: end_physical_offset,
            }),
            flushing: Mutex::new(()),
            directory_dirty,
            poisoned: AtomicBool::new(false),
        };
        Ok((service, report))
    }

    /// Adds an entry for one key of the message at `physical_offset`, beginning a new file when
    /// the last one is full.
    ///
    /// The keys of a message are put one after the other, and messages in the order of the log: a
    /// message below the last one is known to be indexed. RocketMQ indexes the very last message
    /// again when it is dispatched again; here its keys are recognised (after an open, and after
    /// a put that failed).
    ///
    /// # Errors
    /// [`IndexError::Poisoned`]; [`IndexError::Io`], and [`IndexError::is_full`] of it for a full
    /// disk. Nothing was put then.
    pub fn put(
        &self,
        topic: &str,
        key: &str,
        physical_offset: u64,
        store_timestamp_ms: i64,
    ) -> Result<PutOutcome, IndexError> {
        let new = HashedKey {
            key_hash: key_hash(topic, key),
            physical_offset,
            store_timestamp_ms,
        };
        self.check_poison()?;
        self.put_one(&mut self.lock_writer(), &new)
    }

    /// As [`put`](Self::put) one after the other, for keys that were [hashed](crate::TopicHash)
    /// before. Each must be of the message of the one before or of a later one.
    ///
    /// # Errors
    /// As [`put`](Self::put). Those before the one concerned were put.
    pub fn put_hashed(&self, keys: &[HashedKey]) -> Result<(), IndexError> {
        self.check_poison()?;
        let mut writer = self.lock_writer();
        if let Some(active) = &writer.active {
            active
                .mapped
                .bring_in_slots(keys.iter().map(|key| key.key_hash));
        }
        for key in keys {
            self.put_one(&mut writer, key)?;
        }
        Ok(())
    }

    fn put_one(&self, writer: &mut Writer<I>, key: &HashedKey) -> Result<PutOutcome, IndexError> {
        let new = NewEntry {
            key_hash: key.key_hash,
            physical_offset: i64::try_from(key.physical_offset).map_err(|_| {
                IndexError::Offset {
                    offset: key.physical_offset,
                }
            })?,
            store_timestamp_ms: key.store_timestamp_ms,
        };
        if self.is_indexed(writer, &new)? {
            return Ok(PutOutcome::AlreadyIndexed);
        }
        if let Err(error) = self.append(writer, new) {
            writer.repeated_offset = writer.end_physical_offset;
            return Err(error);
        }
        writer.end_physical_offset = Some(new.physical_offset);
        Ok(PutOutcome::Indexed)
    }

    /// Offsets of the messages that may have this key and were stored between two times, both
    /// included; the newest first, at most `count_max` and at most
    /// [`IndexOptions::query_count_max`].
    ///
    /// Candidates, in two ways: only the hash of a key is stored, and only the second of a store
    /// time, so that messages up to 999 ms before `begin_ms` or of another key can be among them.
    /// No message of the range is missed for that (RocketMQ misses those of the first second).
    ///
    /// # Errors
    /// [`IndexError::Io`].
    pub fn query(
        &self,
        topic: &str,
        key: &str,
        count_max: usize,
        begin_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<u64>, IndexError> {
        let key_hash = key_hash(topic, key);
        let range = TimeRange { begin_ms, end_ms };
        let count_max = count_max.min(self.options.query_count_max);
        let mut found = Vec::new();
        for file in self.files().iter().rev() {
            let header = file.header();
            if header.is_empty() {
                continue;
            }
            if range.meets(&header) {
                file.read(&self.io, |index| {
                    select::select(index, key_hash, range, count_max, &mut found)
                })?;
            }
            if header.begin_timestamp_ms < begin_ms || found.len() >= count_max {
                break;
            }
        }
        Ok(found)
    }

    /// The last message put, also before this opening. `None` for an index without entries.
    pub fn last_update(&self) -> Option<LastUpdate> {
        let header = last_used(&self.files())?;
        Some(LastUpdate {
            timestamp_ms: header.end_timestamp_ms,
            physical_offset: u64::try_from(header.end_physical_offset).ok()?,
        })
    }

    /// Commit-log offset of the last message put: those below are indexed.
    pub fn end_physical_offset(&self) -> Option<u64> {
        self.last_update().map(|last| last.physical_offset)
    }

    /// How far the index reaches: by its last file that has entries.
    pub fn reach(&self) -> IndexReach {
        let last = last_used(&self.files());
        last.map_or(IndexReach::default(), |header| IndexReach::of(&header))
    }

    /// Whether the index reaches at least as far as it did, by a file that begins as that one did and
    /// has no fewer entries. One that was deleted and begun again since begins with another message.
    pub fn reaches(&self, reach: IndexReach) -> bool {
        let has = |file: &Arc<IndexFile<I>>| {
            let now = IndexReach::of(&file.header());
            now.begin_physical_offset == reach.begin_physical_offset
                && now.next_entry >= reach.next_entry
        };
        reach == IndexReach::default() || self.files().iter().rev().any(has)
    }

    /// Whether a sync failed, so that nothing more is put.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Count of files.
    pub fn file_count(&self) -> usize {
        self.files().len()
    }

    /// Makes durable what was put before the call, and closes the files that are full.
    ///
    /// # Errors
    /// After a failed sync the index is poisoned: it takes nothing more. [`IndexError::Poisoned`]
    /// from then on.
    pub fn flush(&self) -> Result<Flushed, IndexError> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_poison()?;
        self.flush_files()
            .inspect_err(|_| self.poisoned.store(true, Ordering::Release))
    }

    /// Removes the files whose messages all lie below `log_min`; never the last one.
    ///
    /// Queries that run meanwhile are not disturbed.
    ///
    /// # Errors
    /// [`IndexError::Io`]; the files before the one concerned are gone.
    pub fn trim(&self, log_min: u64) -> Result<Trimmed, IndexError> {
        let files = self.files();
        let mut trimmed = Trimmed::default();
        let Some((_last, candidates)) = files.split_last() else {
            return Ok(trimmed);
        };
        for file in candidates {
            let end = u64::try_from(file.header().end_physical_offset).unwrap_or(0);
            if end >= log_min {
                break;
            }
            remove(&self.io, file.path())?;
            self.change_files(|list| list.retain(|kept| !Arc::ptr_eq(kept, file)));
            trimmed.file_count += 1;
            trimmed.bytes += file.layout().file_len();
        }
        Ok(trimmed)
    }

    /// Forgets the entries of messages at or above `log_end`, which recovery cut off the log.
    ///
    /// RocketMQ leaves them. They point behind the log's end, later at other messages, and keep
    /// what is written there from being indexed. For the time before the store serves.
    ///
    /// Returns the offset from which messages must be put again; those that are indexed already
    /// are recognised.
    ///
    /// # Errors
    /// [`IndexError::Io`].
    pub fn truncate(&self, log_end: u64) -> Result<u64, IndexError> {
        let mut writer = self.lock_writer();
        writer.active = None;
        let recovery = Recovery::cut(&self.io, self.files().to_vec(), log_end)?;
        let resume = resume_offset(&recovery.files);
        writer.end_physical_offset =
            last_used(&recovery.files).map(|header| header.end_physical_offset);
        writer.repeated_offset = writer.end_physical_offset;
        self.change_files(|list| *list = recovery.files);
        Ok(resume)
    }

    /// Flushes and closes.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(self) -> Result<Flushed, IndexError> {
        self.flush()
    }

    /// Whether the message is known to have this key already.
    fn is_indexed(&self, writer: &Writer<I>, new: &NewEntry) -> Result<bool, IndexError> {
        let Some(end) = writer.end_physical_offset else {
            return Ok(false);
        };
        if new.physical_offset < end {
            return Ok(true);
        }
        if writer.repeated_offset != Some(new.physical_offset) {
            return Ok(false);
        }
        // The keys of one message may lie in two files.
        for file in self.files().iter().rev().take(2) {
            let found = file.read(&self.io, |index| {
                select::contains(index, new.key_hash, new.physical_offset)
            })?;
            if found == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn append(&self, writer: &mut Writer<I>, new: NewEntry) -> Result<(), IndexError> {
        if writer
            .active
            .as_ref()
            .is_none_or(|active| active.mapped.is_full())
        {
            writer.active = None;
            writer.active = Some(self.next_active(new.store_timestamp_ms)?);
        }
        if let Some(active) = &mut writer.active {
            active.mapped.put(&mut active.blocks, new)?;
        }
        Ok(())
    }

    /// The last file if it has room, else a new one.
    fn next_active(&self, store_timestamp_ms: i64) -> Result<Active<I>, IndexError> {
        let files = self.files();
        let file_len = usize::try_from(self.options.layout().file_len()).unwrap_or(usize::MAX);
        let mut blocks = Blocks::new(file_len);
        if let Some(last) = files.last()
            && !last.is_full()
        {
            return Ok(Active {
                mapped: last.mapped(&self.io)?,
                blocks,
            });
        }
        let mapped_count = files
            .iter()
            .filter(|file| matches!(file.body(), Body::Mapped(_)))
            .count();
        if mapped_count >= UNFLUSHED_FILES_MAX {
            self.flush()?;
        }
        let mapped = self.create_file(&files, &mut blocks, store_timestamp_ms)?;
        Ok(Active { mapped, blocks })
    }

    /// Begins a file named by the store time of its first message, which is the time of creation
    /// unless the index is being built again.
    fn create_file(
        &self,
        files: &[Arc<IndexFile<I>>],
        blocks: &mut Blocks,
        store_timestamp_ms: i64,
    ) -> Result<Arc<MappedIndex<I>>, IndexError> {
        let last = files.last();
        let name = next_name(
            store_timestamp_ms,
            &TimeZone::system(),
            last.map(|file| file.name()),
        );
        if last.is_none() {
            self.io.create_dir_all(&self.dir)?;
        }
        // A missing file in the middle would not be noticed, so at most one name is in doubt.
        if self.directory_dirty.swap(false, Ordering::AcqRel) {
            self.io.sync_dir(&self.dir).inspect_err(|_| {
                self.directory_dirty.store(true, Ordering::Release);
            })?;
        }
        let path = self.dir.join(name);
        let previous = last.map(|file| file.header()).unwrap_or_default();
        let layout = self.options.layout();
        let file = self.io.create(&path, layout.file_len())?;
        let mapped = MappedIndex::new(file, layout).and_then(|mapped| {
            mapped.seed(blocks, &previous)?;
            Ok(Arc::new(mapped))
        });
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(error) => {
                // The first error is the one to report; an empty file left behind does no harm.
                let _ = self.io.remove_file(&path);
                return Err(error.into());
            }
        };
        let body = Body::Mapped(Arc::clone(&mapped));
        self.change_files(|list| list.push(Arc::new(IndexFile::new(path, layout, body))));
        self.directory_dirty.store(true, Ordering::Release);
        Ok(mapped)
    }

    fn flush_files(&self) -> Result<Flushed, IndexError> {
        let mut flushed = Flushed::default();
        let files = self.files();
        for file in files.iter() {
            let Body::Mapped(mapped) = file.body() else {
                continue;
            };
            // Asked before the sync, so that the last put is in it.
            let full = mapped.is_full();
            mapped.sync()?;
            if full {
                let header = mapped.header();
                flushed.full_files_end_timestamp_ms = flushed
                    .full_files_end_timestamp_ms
                    .max(Some(header.end_timestamp_ms));
                file.replace_body(Body::Closed(header));
            }
        }
        if self.directory_dirty.swap(false, Ordering::AcqRel) {
            self.io.sync_dir(&self.dir)?;
        }
        Ok(flushed)
    }

    fn check_poison(&self) -> Result<(), IndexError> {
        if self.poisoned.load(Ordering::Acquire) {
            Err(IndexError::Poisoned)
        } else {
            Ok(())
        }
    }

    fn files(&self) -> Arc<[Arc<IndexFile<I>>]> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_files(&self, change: impl FnOnce(&mut Vec<Arc<IndexFile<I>>>)) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let mut list = files.to_vec();
        change(&mut list);
        *files = list.into();
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer<I>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages from here on must be put (again): all that lie behind the last one, and that one, of
/// which keys may be missing.
fn resume_offset<I: Io>(files: &[Arc<IndexFile<I>>]) -> u64 {
    last_used(files)
        .and_then(|header| u64::try_from(header.end_physical_offset).ok())
        .unwrap_or(0)
}

/// What is left of the files of a directory, by how far they can be believed.
fn believed<I: Io>(
    io: &I,
    loaded: Loaded<I>,
    policy: OpenPolicy,
    report: &mut OpenReport,
) -> Result<Vec<Arc<IndexFile<I>>>, IndexError> {
    let gone = [&loaded.empty[..], &loaded.broken].concat();
    report.ignored = loaded.ignored;
    if !gone.is_empty() {
        report.resume_offset = Some(resume_offset(&loaded.files));
    }
    let files = match policy {
        OpenPolicy::Clean => {
            remove_all(io, gone)?;
            loaded.files
        }
        OpenPolicy::Unclean {
            checkpoint_timestamp_ms,
        }
        | OpenPolicy::Doubted {
            checkpoint_timestamp_ms,
        } => {
            let writes = match policy {
                OpenPolicy::Doubted { .. } => Writes::All,
                _ => Writes::Differences,
            };
            let since = checkpoint_timestamp_ms;
            let recovery = Recovery::after_crash(io, loaded.files, gone, since, writes)?;
            report.resume_offset = Some(resume_offset(&recovery.files));
            report.suspects = recovery.suspects;
            recovery.files
        }
        OpenPolicy::Killed {
            checkpoint_timestamp_ms,
        } => {
            remove_all(io, gone)?;
            take_back_uncounted(io, &loaded.files)?;
            for file in &loaded.files {
                if is_in_doubt(file, checkpoint_timestamp_ms) {
                    file.mapped(io)?.mark_dirty();
                }
            }
            report.resume_offset = Some(resume_offset(&loaded.files));
            loaded.files
        }
    };
    let broken = loaded.broken.into_iter().map(|path| SuspectFile {
        path,
        entry_count: 0,
        kept_count: 0,
        removed: true,
    });
    report.suspects.extend(broken);
    Ok(files)
}

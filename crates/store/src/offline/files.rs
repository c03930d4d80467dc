//! The files of a store, read without opening it.

use std::path::{Path, PathBuf};

use mmap_core::{Access, FileKind, Io, IoError, IoFile};
use segment_queue::parse_segment_name;

use super::error::OfflineError;
use crate::options::StoreOptions;
use crate::ownership::LOCK_FILE;

/// Where the parts of a store lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDirs {
    /// The store's directory.
    pub root: PathBuf,
    /// The commit log.
    pub log: PathBuf,
    /// Consume queues.
    pub queues: PathBuf,
    /// Extensions of consume queues.
    pub extensions: PathBuf,
    /// Batch consume queues.
    pub batch_queues: PathBuf,
    /// Index files.
    pub index: PathBuf,
    /// JSON tables.
    pub config: PathBuf,
    /// Files of our own.
    pub own: PathBuf,
}

impl StoreDirs {
    /// The directories of a store with these options.
    pub fn new(options: &StoreOptions) -> Self {
        let root = options.root.clone();
        let log = options
            .commit_log_dir
            .clone()
            .unwrap_or_else(|| root.join("commitlog"));
        Self {
            log,
            queues: options.queue_dir(),
            extensions: root.join("consumequeue_ext"),
            batch_queues: options.batch_queue_dir(),
            index: options.index_dir(),
            config: root.join("config"),
            own: options.own_dir(),
            root,
        }
    }

    /// Refuses a directory that is no store. A store that was never put to has no log yet, and one
    /// that lost its log still has a lock file.
    pub(crate) fn check_store<I: Io>(&self, io: &I) -> Result<(), OfflineError> {
        for path in [&self.log, &self.root.join(LOCK_FILE)] {
            if io.metadata(path)?.is_some() {
                return Ok(());
            }
        }
        Err(OfflineError::NoStore {
            path: self.root.clone(),
            what: "neither commitlog/ nor lock",
        })
    }
}

/// A file of a [`SegmentDir`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentFile {
    /// Offset of its first byte.
    pub(crate) base: u64,
    /// Its length, which may not be what it should.
    pub(crate) len: u64,
}

/// A directory of files that are one address space, as it was when it was listed.
#[derive(Debug)]
pub(crate) struct SegmentDir<I: Io> {
    io: I,
    dir: PathBuf,
    /// What a file's length should be.
    file_len: u64,
    /// Ascending.
    files: Vec<SegmentFile>,
    /// Names that are no segment's.
    foreign: Vec<PathBuf>,
    open: Option<(u64, I::File)>,
}

impl<I: Io> SegmentDir<I> {
    /// Lists a directory; one that does not exist is empty.
    pub(crate) fn list(io: &I, dir: &Path, file_len: u64) -> Result<Self, IoError> {
        let mut listed = Self {
            io: io.clone(),
            dir: dir.to_owned(),
            file_len: file_len.max(1),
            files: Vec::new(),
            foreign: Vec::new(),
            open: None,
        };
        for entry in list_or_nothing(io, dir)? {
            match parse_segment_name(&entry.name) {
                _ if entry.kind == FileKind::Directory => {}
                Some(base) => listed.files.push(SegmentFile {
                    base,
                    len: entry.len,
                }),
                None => listed.foreign.push(dir.join(&entry.name)),
            }
        }
        listed.files.sort_unstable_by_key(|file| file.base);
        Ok(listed)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    pub(crate) fn files(&self) -> &[SegmentFile] {
        &self.files
    }

    pub(crate) fn foreign(&self) -> &[PathBuf] {
        &self.foreign
    }

    /// Offset of the first byte there is; 0 without files.
    pub(crate) fn min(&self) -> u64 {
        self.files.first().map_or(0, |file| file.base)
    }

    /// Offset behind the last file, as long as it should be.
    pub(crate) fn end(&self) -> u64 {
        self.files
            .last()
            .map_or(0, |file| file.base.saturating_add(self.file_len))
    }

    /// The file whose share of the address space holds `offset`.
    pub(crate) fn find(&self, offset: u64) -> Option<SegmentFile> {
        let behind = self.files.partition_point(|file| file.base <= offset);
        let file = self.files.get(behind.checked_sub(1)?)?;
        (offset - file.base < self.file_len).then_some(*file)
    }

    /// The base of the first file behind `offset`'s.
    pub(crate) fn next_base(&self, offset: u64) -> Option<u64> {
        let behind = self.files.partition_point(|file| file.base <= offset);
        self.files.get(behind).map(|file| file.base)
    }

    pub(crate) fn path_of(&self, base: u64) -> PathBuf {
        self.dir.join(segment_queue::segment_name(base))
    }

    /// The file and the position in it that an offset stands for.
    pub(crate) fn place(&self, offset: u64) -> (PathBuf, u64) {
        match self.find(offset) {
            Some(file) => (self.path_of(file.base), offset - file.base),
            None => {
                let position = offset % self.file_len;
                (self.path_of(offset - position), position)
            }
        }
    }

    /// Reads from `offset` what its file holds, up to `buf`'s length; 0 where nothing is, also
    /// where the file has gone since it was listed.
    pub(crate) fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, IoError> {
        let Some(segment) = self.find(offset) else {
            return Ok(0);
        };
        let position = offset - segment.base;
        let room = usize::try_from(self.file_len - position).unwrap_or(usize::MAX);
        let len = buf.len().min(room);
        let Some(buf) = buf.get_mut(..len) else {
            return Ok(0);
        };
        let Some(file) = self.file(segment.base)? else {
            return Ok(0);
        };
        let mut done = 0;
        while done < buf.len() {
            let Some(rest) = buf.get_mut(done..) else {
                break;
            };
            match file.read_at(rest, position + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// The first offset from `offset` on, within its file, where bytes other than zeros may stand.
    pub(crate) fn seek_data(&mut self, offset: u64) -> Result<Option<u64>, IoError> {
        let Some(segment) = self.find(offset) else {
            return Ok(None);
        };
        let Some(file) = self.file(segment.base)? else {
            return Ok(None);
        };
        let found = file.seek_data(offset - segment.base)?;
        Ok(found
            .map(|position| segment.base + position)
            .filter(|found| found - segment.base < segment.len))
    }

    /// Closes what is open.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    fn file(&mut self, base: u64) -> Result<Option<&I::File>, IoError> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != base) {
            self.open = None;
            match self.io.open(&self.path_of(base), Access::ReadOnly) {
                Ok(file) => self.open = Some((base, file)),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(self.open.as_ref().map(|(_, file)| file))
    }
}

/// The entries of a directory; none where it does not exist.
pub(crate) fn list_or_nothing<I: Io>(
    io: &I,
    dir: &Path,
) -> Result<Vec<mmap_core::DirEntry>, IoError> {
    match io.list(dir) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}

//! Files that are measured: made in a state that is known, removed when dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mmap_core::{Access, AppendRegion, Appender, Io, IoFile, OsFile, OsIo, OsMap, counters};
use rustix::fs::Advice as FileAdvice;

use crate::process;

/// What is written to make blocks; as large as the page cache's largest folios.
const FILL_LEN: usize = 1 << 20;

/// What a new file has on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocks {
    /// Reserved by `fallocate`: never written.
    Allocated,
    /// Written once and synced; the pages are in the page cache.
    Written,
}

/// A file and its length.
#[derive(Debug)]
pub(super) struct TestFile {
    path: PathBuf,
    file: Arc<OsFile>,
    len: u64,
}

impl TestFile {
    /// Makes an allocated file; one of that name is replaced.
    pub(super) fn create_unsynced(dir: &Path, name: &str, len: u64) -> Result<Self> {
        let path = dir.join(name);
        let _none_was_there = std::fs::remove_file(&path);
        let file = Arc::new(OsIo.create(&path, len)?);
        // Removed from here on, also where the device is too small.
        let file = Self { path, file, len };
        file.file.allocate(0, len)?;
        Ok(file)
    }

    /// Makes a file in a state that is known, and durable.
    pub(super) fn create(dir: &Path, name: &str, len: u64, blocks: Blocks) -> Result<Self> {
        let file = Self::create_unsynced(dir, name, len)?;
        if blocks == Blocks::Written {
            let filler = vec![1; FILL_LEN];
            for offset in (0..len).step_by(FILL_LEN) {
                let part = &filler[..FILL_LEN.min((len - offset) as usize)];
                file.file.write_all_at(part, offset)?;
            }
        }
        file.file.sync_all()?;
        Ok(file)
    }

    pub(super) fn file(&self) -> &Arc<OsFile> {
        &self.file
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn map(&self, access: Access) -> Result<OsMap> {
        let len = usize::try_from(self.len)?;
        Ok(self.file.map(0, len, access)?)
    }

    /// A mapping to write to from the front.
    pub(super) fn appender(&self) -> Result<(AppendRegion, Appender)> {
        Ok(AppendRegion::new(self.map(Access::ReadWrite)?, 0))
    }

    /// A mapping to read.
    pub(super) fn region(&self) -> Result<AppendRegion> {
        let map = self.map(Access::ReadOnly)?;
        Ok(AppendRegion::read_only(map, usize::try_from(self.len)?))
    }

    /// Takes the file out of the page cache; what is mapped stays there.
    pub(super) fn drop_cache(&self) -> Result<()> {
        await_unmapped()?;
        self.file.sync_data()?;
        rustix::fs::fadvise(&*self.file, 0, None, FileAdvice::DontNeed)?;
        Ok(())
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_file(&self.path);
    }
}

/// Waits until large mappings that were dropped are unmapped, which a thread of mmap-core does.
pub(super) fn await_unmapped() -> Result<()> {
    let limit = Duration::from_secs(10);
    process::poll(limit, || (counters::mapped_files() == 0).then_some(()))
        .context("a mapping is still there")
}

/// Reads bytes so that none of them can be left out.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_be_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    words.chain(rest).fold(0, u64::wrapping_add)
}

/// A size as people write it.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

//! An open file of the simulated device.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::content::{Inode, SimMap};
use super::{SECTOR_LEN, SimIo};
use crate::error::IoError;
use crate::io::{Access, IoFile};

/// An open file of the simulated device.
pub struct SimFile {
    io: SimIo,
    inode: Arc<Inode>,
    path: Arc<Path>,
    access: Access,
}

impl SimFile {
    pub(super) fn new(io: SimIo, inode: Arc<Inode>, path: &Path, access: Access) -> Self {
        Self {
            io,
            inode,
            path: path.into(),
            access,
        }
    }

    fn error(&self, op: &'static str, source: impl Into<io::Error>) -> IoError {
        IoError::new(op, &*self.path, source.into())
    }

    /// Counts an operation that changes the file.
    fn check_write(&self, op: &'static str) -> Result<(), IoError> {
        self.io.check(op, &self.path)?;
        match self.access {
            Access::ReadOnly => Err(self.error(op, io::ErrorKind::PermissionDenied)),
            Access::ReadWrite => Ok(()),
        }
    }

    /// Writes what `check_write` lets through: all, or of a write that is to fail a first part.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), IoError> {
        const OP: &str = "write";
        if self.io.dies_next() && self.access == Access::ReadWrite {
            let len = self.first_part(bytes.len(), offset);
            self.change(OP, offset, |content, position| {
                content.write_at(position, &bytes[..len])
            })?;
        }
        let mut result = self.check_write(OP).map_err(|error| error.at(offset));
        let len = match &result {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => 0,
            Err(_) => self.first_part(bytes.len(), offset),
            Ok(()) => bytes.len(),
        };
        let written = self.change(OP, offset, |content, position| {
            content.write_at(position, &bytes[..len])
        });
        if result.is_ok() {
            result = written.map_err(|error| error.at(offset));
        }
        result
    }

    /// How much of a write arrives that is not completed: it ends between two sectors.
    fn first_part(&self, len: usize, offset: u64) -> usize {
        let len = self.io.device().random.up_to(len.saturating_sub(1));
        let end = offset.saturating_add(len as u64);
        end.saturating_sub(end % SECTOR_LEN as u64)
            .saturating_sub(offset) as usize
    }

    /// Changes the content at an offset, or for a length, that must be one of this machine.
    fn change(
        &self,
        op: &'static str,
        offset: u64,
        change: impl FnOnce(&mut super::content::Content, usize) -> Result<(), io::Error>,
    ) -> Result<(), IoError> {
        let now_ms = self.io.device().now_ms;
        let Ok(position) = usize::try_from(offset) else {
            return Err(self.error(op, io::ErrorKind::FileTooLarge));
        };
        let mut content = self.inode.lock();
        change(&mut content, position).map_err(|source| self.error(op, source))?;
        content.modified_ms = now_ms;
        content.changed_ms = now_ms;
        Ok(())
    }

    fn sync(&self, op: &'static str) -> Result<(), IoError> {
        let result = self.io.check(op, &self.path);
        let mut content = self.inode.lock();
        let len = content.len();
        match result {
            Ok(()) => content.sync(0, len),
            Err(_) => content.forget_dirty(0, len),
        }
        result
    }
}

impl IoFile for SimFile {
    type Map = SimMap;

    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.inode.lock().len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        const OP: &str = "set_len";
        self.check_write(OP)?;
        self.change(OP, len, |content, len| content.set_len(len))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), IoError> {
        const OP: &str = "allocate";
        self.check_write(OP)?;
        let Ok(len) = usize::try_from(len) else {
            return Err(self.error(OP, io::ErrorKind::StorageFull).at(offset));
        };
        self.change(OP, offset, |content, position| {
            content.allocate(position, len)
        })
        .map_err(|error| error.at(offset))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), IoError> {
        let wanted = buf.len();
        if self.read_at(buf, offset)? == wanted {
            return Ok(());
        }
        Err(self.error("read", io::ErrorKind::UnexpectedEof).at(offset))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError> {
        self.io
            .check("read", &self.path)
            .map_err(|error| error.at(offset))?;
        let content = self.inode.lock();
        let Some(position) = usize::try_from(offset)
            .ok()
            .filter(|offset| *offset < content.len())
        else {
            return Ok(0);
        };
        let len = buf.len().min(content.len() - position);
        content.read(position, &mut buf[..len]);
        Ok(len)
    }

    fn seek_data(&self, offset: u64) -> Result<Option<u64>, IoError> {
        self.io
            .check("seek_data", &self.path)
            .map_err(|error| error.at(offset))?;
        let content = self.inode.lock();
        let position = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(content.seek_data(position).map(|found| found as u64))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), IoError> {
        self.write(bytes, offset)
    }

    fn write_parts_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), IoError> {
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        self.write(&parts.concat(), offset)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.sync("sync_data")
    }

    fn sync_all(&self) -> Result<(), IoError> {
        self.sync("sync_all")
    }

    fn map(&self, offset: u64, len: usize, access: Access) -> Result<SimMap, IoError> {
        const OP: &str = "map";
        self.io
            .check(OP, &self.path)
            .map_err(|error| error.at(offset))?;
        if access == Access::ReadWrite && self.access == Access::ReadOnly {
            return Err(self.error(OP, io::ErrorKind::PermissionDenied).at(offset));
        }
        let content = self.inode.lock();
        let end = offset
            .checked_add(len as u64)
            .filter(|end| *end <= content.len() as u64);
        let (Some(end), 1..) = (end, len) else {
            let what = format!("{len} bytes of a file of {}", content.len());
            return Err(IoError::invalid(OP, &*self.path, what).at(offset));
        };
        let range = offset as usize..end as usize;
        let path = Arc::clone(&self.path);
        Ok(SimMap::new(
            self.io.clone(),
            &self.inode,
            &content,
            path,
            range,
            access,
        ))
    }

    fn link_count(&self) -> Result<u64, IoError> {
        Ok(self.io.device().names.link_count(&self.inode))
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile")
            .field("path", &self.path)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

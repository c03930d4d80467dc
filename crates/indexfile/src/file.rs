//! An index file of the service's list: mapped while it is written or not yet synced, else closed
//! and read on demand, so that a long history holds neither mappings nor descriptors.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use mmap_core::{Access, Io, IoError, IoFile};

use crate::error::IndexError;
use crate::layout::{ENTRY_LEN, HEADER_LEN, Header, IndexEntry, Layout, SLOT_LEN};
use crate::mapped::MappedIndex;
use crate::select::IndexRead;

/// A file by name.
#[derive(Debug)]
pub(crate) struct IndexFile<I: Io> {
    path: PathBuf,
    layout: Layout,
    /// Held for moments only, never across a system call.
    body: RwLock<Body<I>>,
}

#[derive(Debug)]
pub(crate) enum Body<I: Io> {
    Mapped(Arc<MappedIndex<I>>),
    Closed(Header),
}

impl<I: Io> Clone for Body<I> {
    fn clone(&self) -> Self {
        match self {
            Self::Mapped(mapped) => Self::Mapped(Arc::clone(mapped)),
            Self::Closed(header) => Self::Closed(*header),
        }
    }
}

impl<I: Io> IndexFile<I> {
    /// Opens a file that exists, as a closed one.
    ///
    /// # Errors
    /// [`IndexError::Length`] when it is not of the configured length.
    pub(crate) fn open(io: &I, path: PathBuf, layout: Layout) -> Result<Self, IndexError> {
        let file = open_checked(io, &path, layout, Access::ReadOnly)?;
        let mut bytes = [0; HEADER_LEN];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::new(
            path,
            layout,
            Body::Closed(Header::decode(&bytes)),
        ))
    }

    pub(crate) fn new(path: PathBuf, layout: Layout, body: Body<I>) -> Self {
        Self {
            path,
            layout,
            body: RwLock::new(body),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's name; every file was found or made under one that is ASCII.
    pub(crate) fn name(&self) -> &str {
        self.path
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or_default()
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn body(&self) -> Body<I> {
        self.body
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn replace_body(&self, body: Body<I>) {
        *self.body.write().unwrap_or_else(PoisonError::into_inner) = body;
    }

    pub(crate) fn header(&self) -> Header {
        match self.body() {
            Body::Mapped(mapped) => mapped.header(),
            Body::Closed(header) => header,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.header().next_entry >= self.layout.entry_count_max
    }

    /// The file's mapping, made now if there is none.
    pub(crate) fn mapped(&self, io: &I) -> Result<Arc<MappedIndex<I>>, IndexError> {
        if let Body::Mapped(mapped) = self.body() {
            return Ok(mapped);
        }
        let file = open_checked(io, &self.path, self.layout, Access::ReadWrite)?;
        let mapped = Arc::new(MappedIndex::new(file, self.layout)?);
        self.replace_body(Body::Mapped(Arc::clone(&mapped)));
        Ok(mapped)
    }

    /// Runs `read` on the file, opening it if it is closed. A file that was removed meanwhile has
    /// nothing to say: `None`.
    pub(crate) fn read<T>(
        &self,
        io: &I,
        read: impl FnOnce(&dyn IndexRead) -> Result<T, IoError>,
    ) -> Result<Option<T>, IndexError> {
        match self.body() {
            Body::Mapped(mapped) => Ok(Some(read(&*mapped)?)),
            Body::Closed(header) => match io.open(&self.path, Access::ReadOnly) {
                Ok(file) => Ok(Some(read(&ClosedIndex {
                    layout: self.layout,
                    header,
                    file,
                })?)),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// Opens an index file, unless its length is not what the options say.
pub(crate) fn open_checked<I: Io>(
    io: &I,
    path: &Path,
    layout: Layout,
    access: Access,
) -> Result<I::File, IndexError> {
    let file = io.open(path, access)?;
    let len = file.len()?;
    if len == layout.file_len() {
        return Ok(file);
    }
    Err(IndexError::Length {
        path: path.to_owned(),
        len,
        expected: layout.file_len(),
        slot_count: layout.slot_count,
        entry_count_max: layout.entry_count_max,
    })
}

/// A closed file during one query: slots and entries are read one by one, so that a damaged disk
/// gives an error and no signal.
struct ClosedIndex<F> {
    layout: Layout,
    header: Header,
    file: F,
}

impl<F: IoFile> IndexRead for ClosedIndex<F> {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn header(&self) -> Header {
        self.header
    }

    fn slot(&self, slot: u32) -> Result<i32, IoError> {
        let mut bytes = [0; SLOT_LEN];
        self.file
            .read_exact_at(&mut bytes, self.layout.slot_position(slot) as u64)?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn entry(&self, ordinal: u32) -> Result<IndexEntry, IoError> {
        let mut bytes = [0; ENTRY_LEN];
        self.file
            .read_exact_at(&mut bytes, self.layout.entry_position(ordinal) as u64)?;
        Ok(IndexEntry::decode(&bytes))
    }
}

//! Why a store could not be looked at.

use std::path::PathBuf;

use mmap_core::{IoError, LockError};

use crate::error::{DispatchError, OpenError};

/// Why a store could not be looked at or rebuilt. What is wrong *in* a store is a
/// [`Finding`](super::Finding), not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// The directory holds no store.
    #[error(
        "{}: no store: {what}; give the directory that has commitlog/ in it", path.display()
    )]
    NoStore {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// There is nothing at the place that was asked for.
    #[error("{}: {what}", path.display())]
    NoSuchPlace {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with the place.
        what: String,
    },
    /// The store is open.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A derived file could not be written.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// The derived files that are built anew could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Whoever is shown the messages has had enough, or failed.
    #[error("cannot hand on what was read: {0}")]
    Consumer(#[from] std::io::Error),
}

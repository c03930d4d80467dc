//! Memory-mapped files and everything the kernel does for them. The only crate with unsafe.
//!
//! - [`AppendRegion`]: bytes written once and published by one position, read as plain slices that
//!   keep the mapping alive ([`MapSlice`], [`MapParts`]). For logs.
//! - [`CellRegion`]: aligned big-endian cells rewritten in place, each atomic. For indexes and
//!   checkpoints.
//! - [`StagePool`]: locked memory in which bytes wait to be written to a file.
//! - [`ReadOnlyMap`] and [`PrivateMap`] (copy on write): files that nobody has locked, copied from.
//! - [`Io`] and [`IoFile`]: the file system as a type parameter, with [`OsIo`] as the real one.
//!   [`Io::run_id`] names the run of the machine, for who believes what a killed process left in the
//!   page cache.
//! - [`read_ahead`]: having the kernel read from the device what will be read soon, and
//!   [`prefetch()`]: having the processor fetch it from memory.
//! - [`transfer`]: the ways from a file to a socket.
//! - [`Published`]: the position below which bytes may be read; over [`sync`], for loom.
//! - [`failpoint!`]: named places for tests, compiled out otherwise; beside them [`sabotage`].
//! - With the feature `sim`: `SimIo`, a device that crashes and fails as it is told; `Random`, from
//!   whose seeds it and the tests draw; and for loom `WatchedIo`, the same with its mapped bytes
//!   watched.
//!
//! It is not: a general mapping library (memmap2 is), or portable; it wants Linux 5.14 or newer.
//!
//! # What cannot be checked
//! Nobody else may rewrite published bytes of a mapped file, or shorten it. Take the directory's
//! lock ([`Io::lock`]) before mapping files for writing, allocate blocks before they are written
//! through a mapping ([`IoFile::allocate`]), and never shorten a mapped file. docs/unsafe.md says
//! what follows from breaking it.
//!
//! # Example
//! ```
//! use mmap_core::{Access, AppendRegion, Io, IoFile, OsIo};
//!
//! # let dir = tempfile::tempdir()?;
//! let _lock = OsIo.lock(&dir.path().join("lock"))?;
//! let file = OsIo.create(&dir.path().join("00000000000000000000"), 1 << 20)?;
//! file.allocate(0, 1 << 20)?;
//! let (region, mut appender) = AppendRegion::new(file.map(0, 1 << 20, Access::ReadWrite)?, 0);
//!
//! let range = appender.write(&[b"hello, ", b"world"]).ok_or("the region is full")?;
//! appender.publish();
//! file.sync_data()?;
//!
//! let slice = region.slice(range).ok_or("not published")?;
//! drop((region, appender));
//! assert_eq!(&*slice, b"hello, world");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("mmap-core needs 64-bit Linux (5.14 or newer)");

#[macro_use]
pub mod failpoint;
mod ahead;
mod append;
mod cell;
pub mod counters;
mod error;
mod io;
mod limits;
mod lock;
mod map;
mod modes;
mod os;
mod parts;
mod prefetch;
mod publish;
pub mod reaper;
pub mod replace;
mod retire;
mod run;
pub mod sabotage;
pub mod sigbus;
#[cfg(feature = "sim")]
mod sim;
mod stage;
pub mod sync;
pub mod transfer;
mod warm;
mod write_back;

pub use ahead::read_ahead;
pub use append::{AppendRegion, Appender, HEAD_LEN, MapSlice};
pub use cell::CellRegion;
pub use error::{IoError, LockError, LockState};
pub use io::{Access, DirEntry, FileInfo, FileKind, Io, IoFile, Space};
pub use limits::check_lockable;
pub use lock::OsLock;
pub use map::{Advice, NoGuard, OsMap, RawMap, Residency};
pub use modes::{PrivateMap, ReadOnlyMap};
pub use os::{OsFile, OsIo};
pub use parts::MapParts;
pub use prefetch::prefetch;
pub use publish::Published;
pub use sigbus::install_sigbus_handler;
#[cfg(feature = "sim")]
pub use sim::{CrashStyle, Random, SimFile, SimIo, SimLock, SimMap, SimWriteGuard};
#[cfg(all(loom, feature = "sim"))]
pub use sim::{WatchedFile, WatchedIo, WatchedMap};
pub use stage::{StageBuffer, StageError, StagePool};
pub use warm::{WarmUp, warm_up};
pub use write_back::write_back;

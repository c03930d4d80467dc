//! Named places where a test injects an error or ends the process.
//!
//! Without the feature `failpoints`, [`failpoint!`](crate::failpoint!) expands to nothing. With it,
//! each place asks a table, global to the process, what to do. A test arms an entry for as long as
//! it holds a [`FailGuard`]; a child process is armed by its environment, with entries separated by
//! `;`:
//!
//! ```text
//! FOLIOMQ_FAILPOINTS="mmap_core.write=error(storage_full);mmap_core.rename=kill@3"
//! FOLIOMQ_FAILPOINTS="change=kill@17"                  before the 17th operation that changes the disk
//! FOLIOMQ_FAILPOINTS="change:/config/=kill@2"          of those in a directory `config`
//! FOLIOMQ_FAILPOINTS="foliomq.stopping!change=kill@5"  counted from when the broker begins to stop
//! ```
//!
//! [`ANY`], [`CHANGE`] and [`MEMORY`] stand for many names, so that every gap between two file
//! operations, or two stores through a mapping, can be struck by counting. What a kill struck is
//! written to the standard error.
//!
//! As the table is global, tests that use it belong into a test binary of their own, one at a time.

#[cfg(feature = "failpoints")]
mod table;

#[cfg(feature = "failpoints")]
pub(crate) use table::is_armed;
#[cfg(feature = "failpoints")]
pub use table::{Action, ENVIRONMENT, FailGuard, arm, hit};

/// All failpoints of the workspace, by name: the crate, then the operation. A failpoint of
/// `mmap_core` stands right before the operation. Hitting one that is not listed here panics, so
/// the list is whole.
pub const NAMES: &[&str] = &[
    "foliomq.serving",
    "foliomq.stopping",
    "mmap_core.allocate",
    "mmap_core.append",
    "mmap_core.create",
    "mmap_core.create_dir",
    "mmap_core.link",
    "mmap_core.list",
    "mmap_core.lock",
    "mmap_core.lock_state",
    "mmap_core.map",
    "mmap_core.msync",
    "mmap_core.open",
    "mmap_core.publish",
    "mmap_core.read",
    "mmap_core.remove",
    "mmap_core.remove_dir",
    "mmap_core.rename",
    "mmap_core.seek_data",
    "mmap_core.set_len",
    "mmap_core.stat",
    "mmap_core.statvfs",
    "mmap_core.store_cell",
    "mmap_core.sync_all",
    "mmap_core.sync_data",
    "mmap_core.sync_dir",
    "mmap_core.write",
    "mmap_core.write_middle",
];

/// Stands for every file operation.
pub const ANY: &str = "any";

/// Stands for the file operations in [`CHANGES`]. What lies between two of them leaves the same
/// files behind wherever it is struck, but for what is written through mappings.
pub const CHANGE: &str = "change";

/// The failpoints of operations that change what is on disk, or how safe it is.
pub const CHANGES: &[&str] = &[
    "mmap_core.allocate",
    "mmap_core.create",
    "mmap_core.create_dir",
    "mmap_core.link",
    "mmap_core.lock",
    "mmap_core.msync",
    "mmap_core.remove",
    "mmap_core.remove_dir",
    "mmap_core.rename",
    "mmap_core.set_len",
    "mmap_core.sync_all",
    "mmap_core.sync_data",
    "mmap_core.sync_dir",
    "mmap_core.write",
    "mmap_core.write_middle",
];

/// Stands for every place in [`STORES`].
pub const MEMORY: &str = "memory";

/// The failpoints of what is written through mappings, which can only end the process: in the
/// middle of each part that is appended, before what was appended is published, and before each
/// cell that is rewritten.
pub const STORES: &[&str] = &[
    "mmap_core.append",
    "mmap_core.publish",
    "mmap_core.store_cell",
];

/// A place where a test can interfere.
///
/// `failpoint!("crate.operation")` can only end the process;
/// `failpoint!("crate.operation", path, |source| error)`, before an operation on a file, can also
/// return `Err(error)` from the function around it, made from an injected [`std::io::Error`].
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($($arguments:tt)*) => {};
}

/// A place where a test can interfere.
///
/// `failpoint!("crate.operation")` can only end the process;
/// `failpoint!("crate.operation", path, |source| error)`, before an operation on a file, can also
/// return `Err(error)` from the function around it, made from an injected [`std::io::Error`].
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        if let Some(source) = $crate::failpoint::hit($name, None) {
            panic!(
                "failpoint {} cannot return an error, only kill: {source}",
                $name
            );
        }
    };
    ($name:literal, $path:expr, $error:expr) => {
        if let Some(source) = $crate::failpoint::hit($name, Some($path)) {
            return Err(($error)(source));
        }
    };
}

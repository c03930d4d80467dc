//! Cleaning: which files of the log have been kept for long enough, or have to go because the disk
//! fills up; and what is derived from them.
//!
//! The rules are RocketMQ 5.3.3's (`DefaultMessageStore.CleanCommitLogService`). They are a pure
//! function, [`plan`], from [`CleanFacts`] (files with their times, space, the clock) and
//! [`CleanOptions`] to a [`CleanPlan`]: what goes, what stays, and why. [`plan_clean`] makes the
//! plan of a directory without changing it; the store's thread `store-clean` makes one from time
//! to time and carries it out. Only whole files at the beginning of the log ever go, and never
//! the last one.

mod cleaner;
mod derived;
mod facts;
mod options;
mod plan;

pub use cleaner::{CleanError, Cleaned};
pub(crate) use cleaner::{Cleanable, Cleaner};
pub use derived::{DerivedFile, DerivedKind};
pub use facts::{CleanFacts, DiskUse, LogFile};
pub use options::{CleanOptions, DeleteWhen, DeleteWhenError};
pub use plan::{CleanPlan, Gone, Kept, PlannedFile, Pressure, Trigger, Verdict, plan};

use mmap_core::{Io, IoError};

use crate::options::StoreOptions;

/// What the cleaner would do now with the store in `options.root`, which may be in use, also by a
/// Java broker. Nothing is locked or changed. `manual`: as if somebody had asked for a manual
/// delete.
///
/// # Errors
/// A directory or file cannot be read.
pub fn plan_clean<I: Io>(
    io: &I,
    options: &StoreOptions,
    now_ms: i64,
    manual: bool,
) -> Result<CleanPlan, IoError> {
    let facts = facts::of_directory(io, options, now_ms, manual)?;
    let mut plan = plan(&facts, &options.clean);
    plan.derived = derived::below(io, options, plan.log_min)?;
    Ok(plan)
}

//! The broker's binary: as users build it, or with the places where faults are planted.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace;

/// The broker as users build it.
pub(super) fn release() -> Result<PathBuf> {
    workspace::release_broker()
}

/// The broker with failpoints and lies compiled in, in a directory of its own.
pub(super) fn with_failpoints() -> Result<PathBuf> {
    let target = workspace::target_dir().join("failpoints");
    let mut command = workspace::cargo_command(&["build", "--quiet", "--package", "foliomq"]);
    command.args(["--features", "failpoints", "--target-dir"]);
    workspace::run(command.arg(&target))?;
    Ok(target.join("debug/foliomq"))
}

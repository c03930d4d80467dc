//! A mount namespace of our own: what is mounted here goes away with this process, however it ends.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::mount::mount_bind;

use super::random::Random;

/// Says to the second run of this program that it is there already.
const MARK: &str = "FOLIOMQ_FAULT_NAMESPACE";
/// Where Linux tells one start of the machine from the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Starts this program again in a namespace of its own, unless that has happened. A user who is
/// not root becomes root of a user namespace, which may mount FUSE and tmpfs.
pub(super) fn enter() -> Result<()> {
    if std::env::var_os(MARK).is_some() {
        return Ok(());
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(std::env::current_exe().context("path of this program")?);
    command.args(std::env::args_os().skip(1)).env(MARK, "1");
    Err(command.exec()).context("unshare (of util-linux)")
}

/// The boot id that processes in this namespace read.
#[derive(Debug)]
pub(super) struct BootId {
    file: PathBuf,
}

impl BootId {
    /// Puts a file in `dir` in the place of the kernel's.
    pub(super) fn replace(dir: &Path, random: &mut Random) -> Result<Self> {
        let boot_id = Self {
            file: dir.join("boot_id"),
        };
        boot_id.renew(random)?;
        mount_bind(&boot_id.file, BOOT_ID).with_context(|| format!("replace {BOOT_ID}"))?;
        Ok(boot_id)
    }

    /// From now on the machine has been started anew.
    pub(super) fn renew(&self, random: &mut Random) -> Result<()> {
        let (high, low) = (random.next(), random.next());
        let text = format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}\n",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        );
        fs::write(&self.file, text).context("boot id")
    }
}

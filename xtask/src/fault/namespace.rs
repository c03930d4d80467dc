//! A mount namespace of our own: what is mounted here goes away with this process, however it ends.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use mmap_core::Random;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

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
    let mut command = unshare();
    command.arg(std::env::current_exe().context("path of this program")?);
    command.args(std::env::args_os().skip(1)).env(MARK, "1");
    Err(command.exec()).context("unshare (of util-linux)")
}

/// Why there can be no such namespace here; `None` if there can. Some machines refuse it to those
/// who are not root, or let them have one in which nothing may be mounted.
pub(super) fn missing() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        if std::env::var_os(MARK).is_some() {
            return None;
        }
        try_mounts().err().map(|error| format!("{error:#}"))
    });
    missing.clone()
}

/// Mounts what the suites mount, in a process that ends at once.
fn try_mounts() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("fault-probe-").tempdir()?;
    let script = format!(
        r#"mount -t tmpfs none "$0" && : >"$0/boot_id" && mount --bind "$0/boot_id" {BOOT_ID}"#
    );
    let output = unshare()
        .args(["sh", "-c", &script])
        .arg(dir.path())
        .output()
        .context("unshare (of util-linux)")?;
    ensure!(
        output.status.success(),
        "no mount namespace: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Runs what is added to it in a mount namespace.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--propagation", "private", "--"]);
    command
}

/// The boot id that processes in this namespace read; the kernel's own again when dropped, because
/// nothing can be mounted in the place of a file that is deleted meanwhile.
#[derive(Debug)]
pub(super) struct BootId {
    file: PathBuf,
}

impl BootId {
    /// Puts a file in `dir` in the place of the kernel's.
    pub(super) fn replace(dir: &Path, random: &mut Random) -> Result<Self> {
        let file = dir.join("boot_id");
        fs::write(&file, text(random)).context("boot id")?;
        mount_bind(&file, BOOT_ID).with_context(|| format!("replace {BOOT_ID}"))?;
        Ok(Self { file })
    }

    /// From now on the machine has been started anew.
    pub(super) fn renew(&self, random: &mut Random) -> Result<()> {
        fs::write(&self.file, text(random)).context("boot id")
    }
}

impl Drop for BootId {
    fn drop(&mut self) {
        if let Err(error) = unmount(BOOT_ID, UnmountFlags::DETACH) {
            eprintln!("{BOOT_ID}: {error}");
        }
    }
}

/// A boot id as the kernel writes it.
fn text(random: &mut Random) -> String {
    let (high, low) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}\n",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

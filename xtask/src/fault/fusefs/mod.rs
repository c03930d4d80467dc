//! A file system of our own, in memory, that keeps unsynced data apart.
//!
//! Each file has two contents, the current one and the one that its last successful sync left;
//! each directory two sets of names. What programs see is the current one. [`Volume::cut`] is a
//! power cut: of every file, each page that was not synced survives, vanishes, or tears at 512
//! bytes; of all changes of names that no directory sync has made durable, the first ones survive
//! and the others vanish. [`Rule`]s let single operations fail as a failing device does.
//!
//! It is stricter than ext4: a sync of a new file does not make its name durable, a failed sync
//! gives the pages up (a second one proves nothing about them), and what is written while a sync
//! runs is not part of it.
//!
//! Mounted through `/dev/fuse` by the process itself, as root or in a user namespace; no library
//! and no helper program is needed.

mod content;
mod fate;
mod names;
mod rules;
mod serve;
mod volume;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fuser::{BackgroundSession, Config, MountOption};

pub use fate::Damage;
pub use fuser::Errno;
pub use rules::{Effect, Operation, Rule};
pub use volume::{Image, Settings, Volume};

use super::namespace;
use crate::process;

/// Threads that answer the kernel; a sync occupies one for as long as it takes.
const THREAD_COUNT: usize = 6;
/// How long a mount may stay busy after its last user was killed.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(20);

/// A volume that is mounted; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    volume: Arc<Volume>,
    mountpoint: PathBuf,
    session: Option<BackgroundSession>,
}

/// Why there is no FUSE here, or no namespace to mount it in; `None` if there is.
pub fn missing() -> Option<String> {
    let device = Path::new("/dev/fuse");
    match File::options().read(true).write(true).open(device) {
        Ok(_) => namespace::missing(),
        Err(error) => Some(format!("{}: {error}", device.display())),
    }
}

impl Disk {
    /// Mounts the volume on a directory, which is made if it is missing.
    pub fn mount(volume: Volume, mountpoint: &Path) -> Result<Self> {
        Self::mount_shared(Arc::new(volume), mountpoint)
    }

    fn mount_shared(volume: Arc<Volume>, mountpoint: &Path) -> Result<Self> {
        fs::create_dir_all(mountpoint).context("mount point")?;
        let mut config = Config::default();
        config.n_threads = Some(THREAD_COUNT);
        config.mount_options = vec![
            MountOption::FSName("foliomq-fault".to_owned()),
            MountOption::DefaultPermissions,
        ];
        let served = serve::Served(Arc::clone(&volume));
        let session = fuser::spawn_mount(served, mountpoint, &config)
            .with_context(|| format!("mount FUSE on {}", mountpoint.display()))?;
        Ok(Self {
            volume,
            mountpoint: mountpoint.to_owned(),
            session: Some(session),
        })
    }

    /// What is mounted.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Lets the kernel write back what was stored into mappings, as it does by itself from time
    /// to time. Nothing becomes durable by that.
    pub fn write_back(&self) -> Result<()> {
        let root = File::open(&self.mountpoint).context("mount point")?;
        rustix::fs::syncfs(root).context("syncfs")
    }

    /// Unmounts and mounts again, so that the kernel remembers nothing of it. The volume's users
    /// must be gone.
    pub fn remount(mut self) -> Result<Self> {
        self.end()?;
        Self::mount_shared(Arc::clone(&self.volume), &self.mountpoint)
    }

    /// Unmounts; the volume's users must be gone.
    pub fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        let gone = process::poll(UNMOUNT_LIMIT, || {
            let flags = rustix::mount::UnmountFlags::empty();
            rustix::mount::unmount(&self.mountpoint, flags).ok()
        });
        if gone.is_none() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(&self.mountpoint, flags).context("unmount")?;
        }
        // Its threads end by themselves when the mount is gone; one that the kernel has not let in
        // any more says that the connection was aborted.
        match session.guard.join() {
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionAborted => Ok(()),
            Ok(outcome) => outcome.context("end of the FUSE session"),
            Err(_) => bail!("a thread of the FUSE session panicked"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error:#}", self.mountpoint.display());
        }
    }
}

//! A small disk that is filled to the last block.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::FallocateFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{Flush, Outcome, PATIENCE, Place, RESUME_LIMIT, Scenario, Trial};
use crate::process;
use crate::workspace;

/// Bytes of the disk.
const DISK_LEN: u64 = 28 << 20;
/// Bytes that something else uses at first, twice, and frees later.
const BALLAST_LEN: u64 = 6 << 20;

/// A real file system.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tmpfs,
    Ext4,
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (kind, name) in [(Kind::Tmpfs, "tmpfs"), (Kind::Ext4, "ext4")] {
        for flush in Flush::BOTH {
            all.push(Scenario {
                name: format!("full-{name}-{}", flush.short_name()),
                is_short: matches!(
                    (kind, flush),
                    (Kind::Tmpfs, Flush::Async) | (Kind::Ext4, Flush::Sync)
                ),
                run: Box::new(move |place| run(place, kind, flush)),
            });
        }
    }
    all
}

fn run(place: &Place<'_>, kind: Kind, flush: Flush) -> Result<Outcome> {
    let disk = match SmallDisk::mount(kind, &place.dir) {
        Ok(disk) => disk,
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    let ballast = [
        disk.add_ballast("ballast-1")?,
        disk.add_ballast("ballast-2")?,
    ];
    let mut trial = Trial::new(place, &disk.path, flush)?;
    trial.node.start()?;
    trial.begin_work(Duration::ZERO);
    fill(&mut trial, &disk)?;
    fs::remove_file(&ballast[0]).context("free ballast")?;
    let resumed = trial.await_resumption(RESUME_LIMIT)?;
    fill(&mut trial, &disk)?;
    trial.end_work()?;
    let slowest = trial.check_refusals(&[&disk.path.display().to_string(), "bytes"])?;
    trial.check_served()?;
    restart_full(&mut trial)?;
    trial.begin_work(Duration::from_millis(5));
    trial.await_tally("refusals after a restart", PATIENCE, |tally| {
        tally.refused() > 10
    })?;
    fs::remove_file(&ballast[1]).context("free ballast")?;
    let resumed_again = trial.await_resumption(RESUME_LIMIT)?;
    trial.await_consumer()?;
    trial.end_work()?;
    trial.check_kept()?;
    trial.stop()?;
    trial.node.start()?;
    trial.check_kept()?;
    trial.stop()?;
    disk.unmount()?;
    Ok(Outcome::Passed(format!(
        "slowest refusal {:.0} ms, resumed {:.1} s and {:.1} s after space came back",
        slowest.as_secs_f64() * 1e3,
        resumed.as_secs_f64(),
        resumed_again.as_secs_f64()
    )))
}

/// Lets the clients send until they are refused, takes the blocks that are left, and sees that
/// consumers go on.
fn fill(trial: &mut Trial<'_>, disk: &SmallDisk) -> Result<()> {
    let refused = trial.tally()?.refused();
    trial.await_tally("the disk is full", PATIENCE, |tally| {
        tally.refused() > refused + 10
    })?;
    disk.take_the_rest()?;
    let acked = trial.tally()?.acked();
    let refused = trial.tally()?.refused();
    trial.await_tally("refusals", PATIENCE, |tally| tally.refused() > refused + 50)?;
    // All of the log is read again, while producers knock.
    let found = trial.found()?;
    let count = found.messages.len() as u64;
    trial.await_tally("consumers go on", RESUME_LIMIT, |tally| {
        tally.seen() >= count
    })?;
    // Records that fit into blocks allocated before may still be taken; no more than that.
    let more = trial.tally()?.acked() - acked;
    ensure!(more < 20_000, "{more} messages were stored on a full disk");
    Ok(())
}

/// Stopped and started, then killed and started, on a disk without a free block.
fn restart_full(trial: &mut Trial<'_>) -> Result<()> {
    // What cannot be saved is no reason to stop otherwise than asked.
    trial.node.stop()?;
    trial.node.start().context("start on a full disk")?;
    trial
        .check_served()
        .context("after a stop on a full disk")?;
    trial.node.kill()?;
    trial
        .node
        .start()
        .context("start on a full disk after kill -9")?;
    trial
        .check_served()
        .context("after kill -9 on a full disk")?;
    Ok(())
}

/// A mounted file system of [`DISK_LEN`] bytes; unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
    is_mounted: bool,
}

impl SmallDisk {
    fn mount(kind: Kind, dir: &Path) -> Result<Self> {
        let path = dir.join("disk");
        fs::create_dir(&path).context("mount point")?;
        match kind {
            Kind::Tmpfs => {
                let size = std::ffi::CString::new(format!("size={DISK_LEN}"))?;
                mount(
                    "tmpfs",
                    &path,
                    "tmpfs",
                    MountFlags::empty(),
                    size.as_c_str(),
                )
                .context("mount tmpfs")?;
            }
            Kind::Ext4 => {
                let image = dir.join("ext4.img");
                File::create(&image)?.set_len(DISK_LEN).context("image")?;
                let mut make = Command::new("mkfs.ext4");
                workspace::output(make.args(["-q", "-F", "-m", "0"]).arg(&image))?;
                let mut mount = Command::new("mount");
                workspace::output(mount.args(["-o", "loop"]).arg(&image).arg(&path))?;
            }
        }
        Ok(Self {
            path,
            is_mounted: true,
        })
    }

    /// A file of [`BALLAST_LEN`] bytes.
    fn add_ballast(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        let file = File::create(&path).context("ballast")?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BALLAST_LEN).context("ballast")?;
        Ok(path)
    }

    /// Takes every block that is left.
    fn take_the_rest(&self) -> Result<()> {
        let path = self.path.join("filler");
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .context("filler")?;
        let full = loop {
            if let Err(error) = file.write_all(&[0xA5; 4096]) {
                break error;
            }
        };
        if full.kind() != std::io::ErrorKind::StorageFull {
            return Err(full).context("fill the disk");
        }
        // Takes what delayed allocation has only promised; it may find less than that.
        let _less_than_promised = file.sync_all();
        Ok(())
    }

    fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.is_mounted) {
            return Ok(());
        }
        let done = process::poll(PATIENCE, || unmount(&self.path, UnmountFlags::empty()).ok());
        done.context("the disk stays busy")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            // The broker may still be there; the mount goes when it does.
            let _busy = unmount(&self.path, UnmountFlags::DETACH);
        }
    }
}

//! Control groups (version 1) that make a process's device slow or its memory small.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

/// Where the controllers are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// A group of our own below the one that this process is in; removed when dropped, by which time
/// its processes have ended.
#[derive(Debug)]
pub(super) struct Group {
    dir: PathBuf,
}

impl Group {
    /// A group whose processes read `bytes` and `reads` a second at most from the device below
    /// `dir`. It hands out its time in slices of some hundredths of a second.
    pub(super) fn slow_reads(dir: &Path, bytes: u64, reads: u64) -> Result<Self> {
        let device = disk_of(dir)?;
        let group = Self::new("blkio")?;
        for (file, most) in [
            ("blkio.throttle.read_bps_device", bytes),
            ("blkio.throttle.read_iops_device", reads),
        ] {
            group.set(file, &format!("{device} {most}"))?;
        }
        Ok(group)
    }

    /// A group whose processes have so much memory, page cache included.
    pub(super) fn little_memory(bytes: u64) -> Result<Self> {
        let group = Self::new("memory")?;
        group.set("memory.limit_in_bytes", &bytes.to_string())?;
        Ok(group)
    }

    /// Moves a process into the group.
    pub(super) fn take_in(&self, pid: Pid) -> Result<()> {
        self.set("cgroup.procs", &pid.as_raw_nonzero().to_string())
    }

    fn new(controller: &str) -> Result<Self> {
        let parent = own_group(controller)?;
        let dir = parent.join(format!("foliomq-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("no group {}", dir.display()))?;
        Ok(Self { dir })
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, value).with_context(|| format!("write {value:?} to {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

/// The group of this process, where the controller is mounted by itself, as version 1 has it.
fn own_group(controller: &str) -> Result<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let found = groups.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        names
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    });
    match found {
        Some(path) => Ok(Path::new(ROOT).join(controller).join(&path[1..])),
        None => bail!("there is no control group of version 1 for {controller}"),
    }
}

/// The device that holds a directory, as `major:minor`: the whole of it, where that is a partition.
fn disk_of(dir: &Path) -> Result<String> {
    let device = fs::metadata(dir)?.dev();
    let name = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let known = PathBuf::from("/sys/dev/block").join(&name);
    if !known.exists() {
        bail!("{} lies on no block device ({name})", dir.display());
    }
    if !known.join("partition").exists() {
        return Ok(name);
    }
    let disk = fs::canonicalize(&known)?.join("../dev");
    Ok(fs::read_to_string(disk)?.trim().to_owned())
}

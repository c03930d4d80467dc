//! What names a run of the machine, for the files of some directories.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// Where Linux names this run of itself (`random(4)`).
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";
/// File systems that have a directory for each mounted device below `/sys/fs`. It is made when the
/// device is mounted, and its inode number is not used again in this run of the machine.
const FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];
/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): a number that no other mount of this run has had.
const UNIQUE_MOUNT: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// See [`Io::run_id`](crate::Io::run_id): the machine's boot id, and ten digits for the mounts.
pub(crate) fn run_id(dirs: &[&Path]) -> Option<String> {
    let boot_id = fs::read_to_string(BOOT_ID_PATH).ok()?;
    let boot_id = boot_id.trim();
    let first = fs::metadata(dirs.first()?).ok()?;
    let mut hash = Hash::default();
    hash.add(&[first.dev(), first.ino()]);
    for dir in dirs {
        hash.add(&mount_of(&existing(dir)?)?);
    }
    (!boot_id.is_empty()).then(|| format!("{boot_id}-{:010x}", hash.0 >> 24))
}

/// The directory, or the nearest above it that exists.
fn existing(dir: &Path) -> Option<PathBuf> {
    let is_there = |dir: &&Path| fs::metadata(dir).is_ok();
    dir.ancestors().find(is_there).map(Path::to_owned)
}

/// Numbers that change if what holds `path` is unmounted and mounted again. `None` where nothing
/// tells: the kernel uses the numbers of devices and of mounts again.
fn mount_of(path: &Path) -> Option<[u64; 2]> {
    let device = fs::metadata(path).ok()?.dev();
    // A file system may be mounted in many places, in those of containers for one.
    if let Some(number) = number_of_mounted(device) {
        return Some([device, number]);
    }
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), UNIQUE_MOUNT).ok()?;
    let is_known = found.stx_mask & UNIQUE_MOUNT.bits() != 0;
    is_known.then_some([device, found.stx_mnt_id])
}

fn number_of_mounted(device: u64) -> Option<u64> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let name = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name: OsString = name.file_name()?.to_owned();
    let directory = |kind: &&str| -> io::Result<u64> {
        Ok(fs::metadata(Path::new("/sys/fs").join(kind).join(&name))?.ino())
    };
    FILE_SYSTEMS.iter().find_map(|kind| directory(kind).ok())
}

/// FNV-1a.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, numbers: &[u64]) {
        for byte in numbers.iter().flat_map(|number| number.to_be_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_name_for_a_directory_and_another_for_its_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&other).unwrap();
        let name = run_id(&[&one]);
        // Where the kernel does not tell mounts apart there is no name, and nothing is believed.
        assert_eq!(run_id(&[&one]), name);
        if let Some(name) = name {
            assert!(name.len() <= 47, "{name}");
            assert_ne!(run_id(&[&other]), Some(name.clone()));
            // What is not there yet is where its directory will be.
            let below = run_id(&[&one, &one.join("later")]);
            fs::create_dir(one.join("later")).unwrap();
            assert_eq!(run_id(&[&one, &one.join("later")]), below);
        }
        assert_eq!(run_id(&[&dir.path().join("missing")]), None);
    }
}

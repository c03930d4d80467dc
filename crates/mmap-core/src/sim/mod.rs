//! A simulated device, for tests of what happens when the machine stops or the disk fails.
//!
//! File contents are heap pages, shared by all open files and mappings as the page cache is; below
//! them lies the image that would survive a power cut. [`SimIo::crash`] makes the device as it is
//! found afterwards. The same seed and the same calls give the same device.
//!
//! How it is not like a disk:
//! - Names become durable by `sync_dir` of their directory only (ext4 also makes a new file's name
//!   durable when the file is synced); by themselves in the order in which they were changed, or
//!   (`CrashStyle::Scatter`), as the standard allows and ext4 does not do, in any.
//! - A page is 4096 bytes, a sector 512; a sector is written whole or not at all.
//! - A sync that fails leaves its pages clean and lost, as ext4 does: a later sync proves nothing.
//! - Writing through a mapping where no block was allocated panics if the device is full; a real
//!   one raises SIGBUS. Bytes, not pages, would be needed to count metadata: it takes no space.
//! - A mapped file keeps its length: changing it is refused with `ResourceBusy`. Linux allows it,
//!   and raises SIGBUS when the part cut off is touched.
//! - Space of a removed file comes back once its last mapping and open file are gone and the
//!   removal is durable.
//! - There are no permissions and no symbolic links; a path is compared as it is written; roots (a
//!   path without parent, and the empty path) exist.
//! - A file has its whole length in memory: use small segments.

mod content;
mod faults;
mod file;
mod namespace;
mod random;
mod space;
#[cfg(loom)]
mod watched;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use content::{SimMap, SimWriteGuard};
pub use file::SimFile;
pub use random::Random;
#[cfg(loom)]
pub use watched::{WatchedFile, WatchedIo, WatchedMap};

use content::Inode;
use faults::{Effect, Faults, Span};
use namespace::{Namespace, Node, parent};
use space::SpaceMeter;

use crate::error::{IoError, LockError, LockState};
use crate::io::{Access, DirEntry, FileInfo, FileKind, Io, Space};

const PAGE_LEN: usize = 4096;
const SECTOR_LEN: usize = 512;

/// Size of a device without a limit: larger than any test, small enough to add to.
const NO_LIMIT: u64 = 1 << 60;

/// A simulated device. Cheap to clone; clones are the same device.
///
/// Operations have the names that [`IoError::op`] gives: `create`, `open`, `stat`, `list`,
/// `create_dir`, `sync_dir`, `rename`, `link`, `remove`, `remove_dir`, `lock`, `statvfs`;
/// `set_len`, `allocate`, `read`, `write`, `sync_data`, `sync_all`, `map`; `msync`, `madvise`,
/// `populate_read`, `populate_write`, `mlock`, `munlock`, `mincore`.
///
/// ```
/// use mmap_core::{CrashStyle, Io, SimIo};
/// # use std::path::Path;
///
/// let io = SimIo::new(7);
/// io.create_dir_all(Path::new("/store"))?;
/// io.replace(Path::new("/store/state"), b"old", None)?;
/// io.fail_next("rename", std::io::ErrorKind::Other);
/// assert!(io.replace(Path::new("/store/state"), b"new", None).is_err());
///
/// let io = io.crash(CrashStyle::Tear);
/// assert_eq!(io.read(Path::new("/store/state"), 10)?, b"old");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SimIo {
    device: Arc<Mutex<Device>>,
    space: Arc<SpaceMeter>,
}

/// What a crash leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashStyle {
    /// The process is killed and the kernel lives: everything is there, and still to be synced.
    KillProcess,
    /// Power is cut before the kernel wrote anything by itself: nothing of it is there.
    LoseUnsynced,
    /// Power is cut at a bad time: of each page everything, nothing or some sectors; of the file's
    /// length the old or the new; of the names' changes a first part.
    Tear,
    /// As `Tear`, but of the names' changes any: no journal keeps them in order.
    Scatter,
}

/// A lock held on a simulated device.
pub struct SimLock {
    io: SimIo,
    path: PathBuf,
}

struct Device {
    random: Random,
    faults: Faults,
    names: Namespace,
    locked: BTreeSet<PathBuf>,
    /// A clock that advances with each operation.
    now_ms: u64,
    /// How often the power was cut.
    boot_count: u64,
    end: Option<End>,
}

/// When the machine dies, and what it leaves.
enum End {
    /// Before so many more operations, counted down to 0.
    Coming { countdown: u64, style: CrashStyle },
    /// It has, and left this.
    Wreck(SimIo),
}

impl SimIo {
    /// An empty device without a limit.
    pub fn new(seed: u64) -> Self {
        Self::with(
            Random::new(seed),
            Namespace::default(),
            SpaceMeter::new(NO_LIMIT).into(),
            0,
            0,
        )
    }

    fn with(
        random: Random,
        names: Namespace,
        space: Arc<SpaceMeter>,
        now_ms: u64,
        boot_count: u64,
    ) -> Self {
        let faults = Faults::default();
        let device = Device {
            random,
            faults,
            names,
            locked: BTreeSet::new(),
            now_ms,
            boot_count,
            end: None,
        };
        Self {
            device: Arc::new(Mutex::new(device)),
            space,
        }
    }

    /// The device as it is found after a crash, without faults and locks.
    ///
    /// This one and what is open on it go on, as a process that does not know that it is dead;
    /// nothing of that reaches the new one.
    #[must_use]
    pub fn crash(&self, style: CrashStyle) -> Self {
        self.left_behind(&mut self.device(), style)
    }

    fn left_behind(&self, device: &mut Device, style: CrashStyle) -> Self {
        let space = Arc::new(SpaceMeter::new(self.space.limit()));
        let mut pages = Random::new(device.random.next());
        let mut names = Random::new(device.random.next());
        let survivor =
            |inode: &Arc<Inode>| Arc::new(inode.crash(style, &mut pages, Arc::clone(&space)));
        let names = device.names.crash(style, &mut names, survivor);
        let seed = device.random.next();
        let boot_count = device.boot_count + u64::from(style != CrashStyle::KillProcess);
        Self::with(Random::new(seed), names, space, device.now_ms, boot_count)
    }

    /// Lets the machine die right before the `nth` operation from now on (from 1; storing through a
    /// mapping counts as one), or in the middle of it, if it is a write to a file. What is left is
    /// a [`wreck`](SimIo::wreck); this device goes on as after [`crash`](SimIo::crash).
    pub fn crash_at(&self, nth: u64, style: CrashStyle) {
        self.device().end = Some(End::Coming {
            countdown: nth,
            style,
        });
    }

    /// What [`crash_at`](SimIo::crash_at) has left, once it has come; given out once.
    pub fn wreck(&self) -> Option<Self> {
        let mut device = self.device();
        match device.end.take() {
            Some(End::Wreck(wreck)) => Some(wreck),
            end => {
                device.end = end;
                None
            }
        }
    }

    /// Whether [`crash_at`](SimIo::crash_at) has come.
    pub fn is_wrecked(&self) -> bool {
        matches!(self.device().end, Some(End::Wreck(_)))
    }

    /// Takes back what [`crash_at`](SimIo::crash_at) has set.
    pub fn cancel_crash(&self) {
        self.device().end = None;
    }

    /// Whether the machine dies with the next operation.
    fn dies_next(&self) -> bool {
        matches!(self.device().end, Some(End::Coming { countdown: 1, .. }))
    }

    /// Counts down to the machine's end.
    fn pass(&self, device: &mut Device) {
        if let Some(End::Coming { countdown, style }) = &mut device.end {
            *countdown = countdown.saturating_sub(1);
            if *countdown == 0 {
                let style = *style;
                device.end = Some(End::Wreck(self.left_behind(device, style)));
            }
        }
    }

    /// Lets the kernel write some dirty pages and some changes of names by itself.
    pub fn writeback(&self) {
        let mut device = self.device();
        let Device { random, names, .. } = &mut *device;
        for inode in names.files() {
            inode.lock().write_back(random);
        }
        names.write_back(random);
    }

    /// Limits the bytes that files may take from now on.
    pub fn space_limit(&self, bytes: u64) {
        self.space.set_limit(bytes);
    }

    /// Lets the next operation called `op` (`*`: any) fail.
    pub fn fail_next(&self, op: &str, kind: io::ErrorKind) {
        self.fail_nth(op, 1, kind);
    }

    /// Lets the `nth` operation called `op` (`*`: any) from now on fail, counted from 1.
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn fail_nth(&self, op: &str, nth: u64, kind: io::ErrorKind) {
        let effect = Effect::Fail(kind);
        self.device().faults.add(op, nth, effect, Span::Once);
    }

    /// As [`fail_nth`](SimIo::fail_nth), with all that follow: the device is gone.
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn fail_from(&self, op: &str, nth: u64, kind: io::ErrorKind) {
        let effect = Effect::Fail(kind);
        self.device().faults.add(op, nth, effect, Span::Forever);
    }

    /// Lets whoever asks for the next operation called `op` (`*`: any) panic, as a fault of the program
    /// would.
    pub fn panic_next(&self, op: &str) {
        self.device().faults.add(op, 1, Effect::Panic, Span::Once);
    }

    /// Takes back what was set to fail.
    pub fn clear_faults(&self) {
        self.device().faults.clear();
    }

    /// How many operations there were, failed ones included: run a piece of code once to learn how
    /// many it takes, then let each of them fail.
    pub fn operation_count(&self) -> u64 {
        self.device().faults.operation_count
    }

    /// Changes one bit (0 to 7) of a file on the device, as a failing medium does.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidInput` beyond the file's end.
    ///
    /// # Panics
    /// If the file is mapped.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) -> Result<(), IoError> {
        const OP: &str = "flip_bit";
        let inode = self.file(OP, path)?;
        let mut content = inode.lock();
        if offset >= content.len() as u64 {
            return Err(IoError::invalid(OP, path, "beyond the end").at(offset));
        }
        content.flip_bit(offset as usize, bit % 8);
        Ok(())
    }

    /// Sets the time of a file's last modification, as a tool does that puts files back.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn set_modified(&self, path: &Path, modified: SystemTime) -> Result<(), IoError> {
        const OP: &str = "utimens";
        let now_ms = self.begin(OP, path)?.now_ms;
        let since_1970 = modified.duration_since(SystemTime::UNIX_EPOCH);
        let inode = self.file(OP, path)?;
        let mut content = inode.lock();
        content.modified_ms = since_1970.map_or(0, |since| since.as_millis() as u64);
        content.changed_ms = now_ms;
        Ok(())
    }

    /// Counts an operation, and fails it if it is to fail.
    fn check(&self, op: &'static str, path: &Path) -> Result<(), IoError> {
        self.begin(op, path).map(drop)
    }

    /// As [`check`](SimIo::check), and goes on with the device.
    fn begin(&self, op: &'static str, path: &Path) -> Result<MutexGuard<'_, Device>, IoError> {
        let mut device = self.device();
        self.pass(&mut device);
        device.now_ms += 1;
        device
            .faults
            .check(op)
            .map_err(|source| IoError::new(op, path, source))?;
        Ok(device)
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, op: &'static str, path: &Path) -> Result<Arc<Inode>, IoError> {
        match self.device().names.find(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Directory) => Err(fault(op, path, io::ErrorKind::IsADirectory)),
            None => Err(fault(op, path, io::ErrorKind::NotFound)),
        }
    }
}

impl Io for SimIo {
    type File = SimFile;
    type Map = SimMap;
    type Lock = SimLock;

    fn create(&self, path: &Path, len: u64) -> Result<SimFile, IoError> {
        const OP: &str = "create";
        let mut device = self.begin(OP, path)?;
        device.check_free(OP, path)?;
        let Ok(len) = usize::try_from(len) else {
            return Err(fault(OP, path, io::ErrorKind::FileTooLarge));
        };
        let inode = Arc::new(Inode::new(Arc::clone(&self.space), len));
        inode.lock().modified_ms = device.now_ms;
        inode.lock().changed_ms = device.now_ms;
        device.names.add(path, Node::File(Arc::clone(&inode)));
        Ok(SimFile::new(self.clone(), inode, path, Access::ReadWrite))
    }

    fn open(&self, path: &Path, access: Access) -> Result<SimFile, IoError> {
        const OP: &str = "open";
        self.check(OP, path)?;
        Ok(SimFile::new(
            self.clone(),
            self.file(OP, path)?,
            path,
            access,
        ))
    }

    fn metadata(&self, path: &Path) -> Result<Option<FileInfo>, IoError> {
        let device = self.begin("stat", path)?;
        let Some(node) = device.names.find(path) else {
            return Ok(None);
        };
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        Ok(Some(match node {
            Node::Directory => FileInfo {
                kind: FileKind::Directory,
                len: 0,
                modified: at(0),
                changed: at(0),
                link_count: 1,
            },
            Node::File(inode) => {
                let content = inode.lock();
                FileInfo {
                    kind: FileKind::File,
                    len: content.len() as u64,
                    modified: at(content.modified_ms),
                    changed: at(content.changed_ms),
                    link_count: device.names.link_count(&inode),
                }
            }
        }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, IoError> {
        const OP: &str = "list";
        let device = self.begin(OP, dir)?;
        device.check_directory(OP, dir)?;
        let entry = |(path, node): (&Path, &Node)| {
            let name = path.file_name().map_or_else(OsString::new, OsString::from);
            match node {
                Node::Directory => DirEntry {
                    name,
                    kind: FileKind::Directory,
                    len: 0,
                },
                Node::File(inode) => DirEntry {
                    name,
                    kind: FileKind::File,
                    len: inode.lock().len() as u64,
                },
            }
        };
        Ok(device.names.children(dir).map(entry).collect())
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), IoError> {
        const OP: &str = "create_dir";
        let above: Vec<&Path> = dir.ancestors().collect();
        for dir in above.into_iter().rev() {
            if self.device().names.is_directory(dir) {
                continue;
            }
            let mut device = self.begin(OP, dir)?;
            device.check_free(OP, dir)?;
            device.names.add(dir, Node::Directory);
            drop(device);
            if let Err(error) = self.sync_dir(parent(dir)) {
                // A retry would find the directory and not sync its name.
                self.device().names.remove(dir);
                return Err(error);
            }
        }
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> Result<(), IoError> {
        const OP: &str = "create_dir";
        let mut device = self.begin(OP, dir)?;
        if !device.names.is_directory(dir) {
            device.check_directory(OP, parent(dir))?;
            device.check_free(OP, dir)?;
            device.names.add(dir, Node::Directory);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        const OP: &str = "sync_dir";
        // `replace` and the operating system call the directory of a plain name `.`.
        let dir = if dir == Path::new(".") {
            Path::new("")
        } else {
            dir
        };
        let mut device = self.begin(OP, dir)?;
        device.check_directory(OP, dir)?;
        device.names.sync(dir);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        const OP: &str = "rename";
        let mut device = self.begin(OP, from)?;
        let node = device.find(OP, from)?;
        device.check_directory(OP, parent(to))?;
        match (&node, device.names.find(to)) {
            // rename(2): two names of one file both stay.
            (Node::File(old), Some(Node::File(new))) if Arc::ptr_eq(old, &new) => return Ok(()),
            (_, None) | (Node::File(_), Some(Node::File(_))) => {}
            (Node::File(_), Some(Node::Directory)) => {
                return Err(fault(OP, from, io::ErrorKind::IsADirectory));
            }
            (Node::Directory, Some(_)) => {
                return Err(fault(OP, from, io::ErrorKind::DirectoryNotEmpty));
            }
        }
        if let Node::File(inode) = &node {
            inode.lock().changed_ms = device.now_ms;
        }
        device.names.rename(from, to, node);
        Ok(())
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> Result<(), IoError> {
        const OP: &str = "link";
        let mut device = self.begin(OP, existing)?;
        device.check_free(OP, new)?;
        match device.find(OP, existing)? {
            Node::Directory => Err(fault(OP, existing, io::ErrorKind::PermissionDenied)),
            Node::File(inode) => {
                inode.lock().changed_ms = device.now_ms;
                device.names.add(new, Node::File(inode));
                Ok(())
            }
        }
    }

    fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        const OP: &str = "remove";
        let mut device = self.begin(OP, path)?;
        match device.find(OP, path)? {
            Node::Directory => Err(fault(OP, path, io::ErrorKind::IsADirectory)),
            Node::File(inode) => {
                inode.lock().changed_ms = device.now_ms;
                device.names.remove(path);
                Ok(())
            }
        }
    }

    fn remove_dir(&self, path: &Path) -> Result<(), IoError> {
        const OP: &str = "remove_dir";
        let mut device = self.begin(OP, path)?;
        device.find(OP, path)?;
        device.check_directory(OP, path)?;
        if device.names.children(path).next().is_some() {
            return Err(fault(OP, path, io::ErrorKind::DirectoryNotEmpty));
        }
        device.names.remove(path);
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<SimLock, LockError> {
        const OP: &str = "lock";
        let mut device = self.begin(OP, path)?;
        device.check_directory(OP, parent(path))?;
        if !device.locked.insert(path.to_owned()) {
            return Err(LockError::Held {
                path: path.to_owned(),
                holder_pid: None,
            });
        }
        let lock = SimLock {
            io: self.clone(),
            path: path.to_owned(),
        };
        if device.names.find(path).is_none() {
            let inode = Arc::new(Inode::new(Arc::clone(&self.space), 0));
            let written = inode.lock().write_at(0, b"lock");
            device.names.add(path, Node::File(inode));
            // The lock is given back by its drop, which takes the device.
            drop(device);
            written.map_err(|source| IoError::new(OP, path, source))?;
        }
        Ok(lock)
    }

    fn run_id(&self, _dirs: &[&Path]) -> Option<String> {
        Some(format!("boot-{}", self.device().boot_count))
    }

    fn lock_state(&self, path: &Path) -> Result<LockState, IoError> {
        let device = self.begin("lock state", path)?;
        Ok(if device.locked.contains(path) {
            LockState::Held { holder_pid: None }
        } else {
            LockState::Free
        })
    }

    fn space(&self, path: &Path) -> Result<Space, IoError> {
        const OP: &str = "statvfs";
        self.begin(OP, path)?.find(OP, path)?;
        Ok(self.space.space())
    }
}

impl Device {
    fn find(&self, op: &'static str, path: &Path) -> Result<Node, IoError> {
        self.names
            .find(path)
            .ok_or_else(|| fault(op, path, io::ErrorKind::NotFound))
    }

    fn check_directory(&self, op: &'static str, path: &Path) -> Result<(), IoError> {
        match self.find(op, path)? {
            Node::Directory => Ok(()),
            Node::File(_) => Err(fault(op, path, io::ErrorKind::NotADirectory)),
        }
    }

    /// Refuses a name that is taken, or whose directory is missing.
    fn check_free(&self, op: &'static str, path: &Path) -> Result<(), IoError> {
        self.check_directory(op, parent(path))?;
        match self.names.find(path) {
            None => Ok(()),
            Some(_) => Err(fault(op, path, io::ErrorKind::AlreadyExists)),
        }
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.io.device().locked.remove(&self.path);
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLock")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SimIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimIo")
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

fn fault(op: &'static str, path: &Path, kind: io::ErrorKind) -> IoError {
    IoError::new(op, path, kind.into())
}

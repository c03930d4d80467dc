//! The state of the file system: what programs see, and what a power cut would leave.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use fuser::Errno;
use mmap_core::Random;

use super::content::{Content, PAGE_LEN, Page};
use super::fate::{Damage, Fates};
use super::names::{Change, Edit, Ino, Journal, Names};
use super::rules::{Effect, Operation, Rule, Rules};

/// The root directory's number, as FUSE has it.
pub(super) const ROOT: Ino = 1;

/// What kind of device it is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Its size in bytes.
    pub capacity: u64,
    /// A sync takes a random time up to this, so that much happens while one runs.
    pub sync_time_max: Duration,
}

/// A volume in memory.
#[derive(Debug)]
pub struct Volume {
    settings: Settings,
    state: Mutex<State>,
}

/// What a power cut has left on the device.
#[derive(Clone, Debug)]
pub struct Image {
    entries: BTreeMap<Ino, Left>,
}

#[derive(Clone, Debug)]
enum Left {
    File(Content),
    Dir(Names),
}

#[derive(Debug)]
struct State {
    inodes: BTreeMap<Ino, Inode>,
    last_ino: Ino,
    journal: Journal,
    rules: Rules,
    random: Random,
    sync_count: u64,
    /// The power is off: nothing works any more.
    is_off: bool,
}

#[derive(Debug)]
struct Inode {
    body: Body,
    /// Its last name, for rules.
    path: String,
    /// Names that stand for it now.
    links: u32,
    /// Names that would stand for it after a power cut.
    durable_links: u32,
    /// References that the kernel holds.
    lookups: u64,
}

#[derive(Debug)]
enum Body {
    File(FileState),
    Dir { names: Names, durable: Names },
}

#[derive(Debug)]
struct FileState {
    current: Content,
    durable: Content,
    /// Pages that a failed sync has given up, as a kernel marks them clean then.
    lost: BTreeMap<u64, Page>,
    /// The last sync that has changed `durable`.
    synced: u64,
}

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) ino: Ino,
    pub(super) is_dir: bool,
    pub(super) len: u64,
    pub(super) page_count: u64,
    pub(super) links: u32,
    pub(super) modified: SystemTime,
}

/// Pages of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) total: u64,
    pub(super) free: u64,
}

impl Volume {
    /// An empty volume.
    pub fn new(settings: Settings, random: Random) -> Self {
        let root = Left::Dir(Names::new());
        let entries = BTreeMap::from([(ROOT, root)]);
        Self::of_image(&Image { entries }, settings, random)
    }

    /// The volume that is found when the power is back: all of it is durable.
    pub fn of_image(image: &Image, settings: Settings, random: Random) -> Self {
        let mut state = State {
            inodes: BTreeMap::new(),
            last_ino: image.entries.keys().copied().max().unwrap_or(ROOT),
            journal: Journal::default(),
            rules: Rules::default(),
            random,
            sync_count: 0,
            is_off: false,
        };
        state.adopt(image, ROOT, String::new());
        Self {
            settings,
            state: Mutex::new(state),
        }
    }

    /// Cuts the power: nothing works on this volume any more. Returns what is left on the device,
    /// with every unsynced change decided by `random`.
    pub fn cut(&self, random: Random) -> (Image, Damage) {
        let mut state = self.lock();
        state.is_off = true;
        let mut fates = Fates::new(random);
        let image = state.after_cut(&mut fates);
        (image, fates.damage)
    }

    /// Lets an operation fail.
    pub fn arm(&self, rule: Rule) {
        self.lock().rules.arm(rule);
    }

    /// Ends all rules.
    pub fn disarm(&self) {
        self.lock().rules.disarm();
    }

    /// How many operations have failed by a rule.
    pub fn hits(&self) -> u64 {
        self.lock().rules.hits
    }

    pub(super) fn lookup(&self, dir: Ino, name: &OsStr) -> Result<Attributes, Errno> {
        let mut state = self.live()?;
        let ino = *state.names(dir)?.get(name).ok_or(Errno::ENOENT)?;
        state.refer(ino)
    }

    pub(super) fn forget(&self, ino: Ino, count: u64) {
        let mut state = self.lock();
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(count);
        }
        state.reap(ino);
    }

    pub(super) fn attributes(&self, ino: Ino) -> Result<Attributes, Errno> {
        self.live()?.attributes(ino)
    }

    pub(super) fn set_len(&self, ino: Ino, len: u64) -> Result<Attributes, Errno> {
        let mut state = self.live()?;
        state.file(ino)?.current.set_len(len);
        state.attributes(ino)
    }

    pub(super) fn set_modified(&self, ino: Ino, time: SystemTime) -> Result<Attributes, Errno> {
        let mut state = self.live()?;
        if let Ok(file) = state.file(ino) {
            file.current.modified = time;
        }
        state.attributes(ino)
    }

    pub(super) fn create(&self, dir: Ino, name: &OsStr, is_dir: bool) -> Result<Attributes, Errno> {
        let mut state = self.live()?;
        let path = state.path_in(dir, name)?;
        state.strike(Operation::Create, &path)?;
        if state.names(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let body = if is_dir {
            Body::Dir {
                names: Names::new(),
                durable: Names::new(),
            }
        } else {
            Body::File(FileState::all_durable(Content::empty()))
        };
        state.last_ino += 1;
        let ino = state.last_ino;
        state.inodes.insert(ino, Inode::new(body, path));
        state.edit(vec![Edit::set(dir, name, ino)])?;
        state.refer(ino)
    }

    pub(super) fn link(&self, ino: Ino, dir: Ino, name: &OsStr) -> Result<Attributes, Errno> {
        let mut state = self.live()?;
        let path = state.path_in(dir, name)?;
        state.strike(Operation::Create, &path)?;
        if state.names(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        state.file(ino)?;
        state.edit(vec![Edit::set(dir, name, ino)])?;
        state.refer(ino)
    }

    pub(super) fn remove(&self, dir: Ino, name: &OsStr, is_dir: bool) -> Result<(), Errno> {
        let mut state = self.live()?;
        let ino = *state.names(dir)?.get(name).ok_or(Errno::ENOENT)?;
        match (&state.inode(ino)?.body, is_dir) {
            (Body::Dir { .. }, false) => return Err(Errno::EISDIR),
            (Body::File(_), true) => return Err(Errno::ENOTDIR),
            (Body::Dir { names, .. }, true) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        state.edit(vec![Edit::clear(dir, name)])
    }

    pub(super) fn rename(
        &self,
        (dir, name): (Ino, &OsStr),
        (new_dir, new_name): (Ino, &OsStr),
        may_replace: bool,
    ) -> Result<(), Errno> {
        let mut state = self.live()?;
        let ino = *state.names(dir)?.get(name).ok_or(Errno::ENOENT)?;
        let path = state.path_in(new_dir, new_name)?;
        state.strike(Operation::Rename, &path)?;
        let replaced = state.names(new_dir)?.get(new_name).copied();
        match replaced {
            Some(_) if !may_replace => return Err(Errno::EEXIST),
            // Two names of one file: rename(2) does nothing then.
            Some(replaced) if replaced == ino => return Ok(()),
            Some(replaced) => {
                if let Body::Dir { names, .. } = &state.inode(replaced)?.body
                    && !names.is_empty()
                {
                    return Err(Errno::ENOTEMPTY);
                }
            }
            None => {}
        }
        state.inode_mut(ino)?.path = path;
        let given = Edit::set(new_dir, new_name, ino);
        state.edit(vec![Edit::clear(dir, name), given])
    }

    pub(super) fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut state = self.live()?;
        state.strike_at(Operation::Read, ino)?;
        Ok(state.file(ino)?.current.read(offset, len))
    }

    /// Returns how many of the bytes were taken.
    pub(super) fn write(&self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let mut state = self.live()?;
        let bytes = match state.strike_at(Operation::Write, ino)? {
            Some(Effect::Short) if bytes.len() > 1 => &bytes[..bytes.len() / 2],
            _ => bytes,
        };
        self.check_space(&mut state, ino, offset, bytes.len() as u64)?;
        state.file(ino)?.current.write(offset, bytes);
        Ok(bytes.len())
    }

    pub(super) fn allocate(
        &self,
        ino: Ino,
        offset: u64,
        len: u64,
        keeps_len: bool,
    ) -> Result<(), Errno> {
        let mut state = self.live()?;
        state.strike_at(Operation::Allocate, ino)?;
        self.check_space(&mut state, ino, offset, len)?;
        let current = &mut state.file(ino)?.current;
        current.allocate(offset, len);
        if !keeps_len && current.len() < offset + len {
            current.set_len(offset + len);
        }
        Ok(())
    }

    /// What was written before the call is durable after it, and nothing else.
    pub(super) fn sync(&self, ino: Ino) -> Result<(), Errno> {
        let (staged, ordinal, pause) = {
            let mut state = self.live()?;
            if let Err(errno) = state.strike_at(Operation::Sync, ino) {
                let file = state.file(ino)?;
                file.lost.extend(file.current.unsynced(&file.durable));
                return Err(errno);
            }
            state.sync_count += 1;
            let ordinal = state.sync_count;
            let pause = self.pause(&mut state);
            (state.file(ino)?.current.clone(), ordinal, pause)
        };
        thread::sleep(pause);
        let mut state = self.live()?;
        let file = state.file(ino)?;
        // A sync that began later may have been faster.
        if file.synced < ordinal {
            file.synced = ordinal;
            file.durable.take_synced(&staged, &mut file.lost);
        }
        Ok(())
    }

    /// The names that the directory had before the call are durable after it.
    pub(super) fn sync_dir(&self, dir: Ino) -> Result<(), Errno> {
        let (ordinal, pause) = {
            let mut state = self.live()?;
            state.strike_at(Operation::SyncDir, dir)?;
            let pause = self.pause(&mut state);
            (state.journal.last_ordinal(), pause)
        };
        thread::sleep(pause);
        let mut state = self.live()?;
        for change in state.journal.take_synced(dir, ordinal) {
            state.make_durable(&change);
        }
        Ok(())
    }

    pub(super) fn list(&self, dir: Ino) -> Result<Vec<(Ino, bool, OsString)>, Errno> {
        let state = self.live()?;
        let is_dir = |ino: &Ino| {
            let inode = state.inodes.get(ino);
            inode.is_some_and(|inode| matches!(inode.body, Body::Dir { .. }))
        };
        let names = state.names(dir)?.iter();
        Ok(names
            .map(|(name, ino)| (*ino, is_dir(ino), name.clone()))
            .collect())
    }

    pub(super) fn space(&self) -> Space {
        let total = self.settings.capacity / PAGE_LEN as u64;
        let used = self.lock().used_pages();
        Space {
            total,
            free: total.saturating_sub(used),
        }
    }

    fn check_space(&self, state: &mut State, ino: Ino, offset: u64, len: u64) -> Result<(), Errno> {
        let wanted = state.file(ino)?.current.missing(offset, len);
        let total = self.settings.capacity / PAGE_LEN as u64;
        if wanted > 0 && state.used_pages() + wanted > total {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn pause(&self, state: &mut State) -> Duration {
        let most = self.settings.sync_time_max.as_micros() as u64;
        Duration::from_micros(state.random.below(most + 1))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is good after each single step; a panic elsewhere ends the run anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.lock();
        if state.is_off {
            Err(Errno::EIO)
        } else {
            Ok(state)
        }
    }
}

impl State {
    /// Takes over what an image holds under `ino`.
    fn adopt(&mut self, image: &Image, ino: Ino, path: String) {
        if let Some(known) = self.inodes.get_mut(&ino) {
            known.links += 1;
            known.durable_links += 1;
            return;
        }
        let body = match image.entries.get(&ino) {
            None => return,
            Some(Left::File(content)) => Body::File(FileState::all_durable(content.clone())),
            Some(Left::Dir(names)) => Body::Dir {
                names: names.clone(),
                durable: names.clone(),
            },
        };
        let mut inode = Inode::new(body, path.clone());
        (inode.links, inode.durable_links) = (1, 1);
        self.inodes.insert(ino, inode);
        if let Some(Left::Dir(names)) = image.entries.get(&ino) {
            for (name, child) in names {
                self.adopt(image, *child, format!("{path}/{}", name.to_string_lossy()));
            }
        }
    }

    fn after_cut(&self, fates: &mut Fates) -> Image {
        let mut dirs: BTreeMap<Ino, Names> = BTreeMap::new();
        for (ino, inode) in &self.inodes {
            if let Body::Dir { durable, .. } = &inode.body {
                dirs.insert(*ino, durable.clone());
            }
        }
        let changes = self.journal.changes();
        let kept = fates.names_kept(changes.len());
        for edit in changes[..kept].iter().flat_map(|change| &change.edits) {
            if let Some(names) = dirs.get_mut(&edit.dir) {
                match edit.ino {
                    Some(ino) => names.insert(edit.name.clone(), ino),
                    None => names.remove(&edit.name),
                };
            }
        }
        let mut entries = BTreeMap::new();
        self.keep(ROOT, &dirs, fates, &mut entries);
        Image { entries }
    }

    /// What is left under `ino`; what no name leads to is not.
    fn keep(
        &self,
        ino: Ino,
        dirs: &BTreeMap<Ino, Names>,
        fates: &mut Fates,
        entries: &mut BTreeMap<Ino, Left>,
    ) {
        let Some(inode) = self
            .inodes
            .get(&ino)
            .filter(|_| !entries.contains_key(&ino))
        else {
            return;
        };
        match &inode.body {
            Body::File(file) => {
                let content = file.current.after_cut(&file.durable, fates);
                entries.insert(ino, Left::File(content));
            }
            Body::Dir { .. } => {
                let names = dirs.get(&ino).cloned().unwrap_or_default();
                let children: Vec<_> = names.values().copied().collect();
                entries.insert(ino, Left::Dir(names));
                for child in children {
                    self.keep(child, dirs, fates, entries);
                }
            }
        }
    }

    /// Changes names now, and remembers that this is not durable.
    fn edit(&mut self, edits: Vec<Edit>) -> Result<(), Errno> {
        for edit in &edits {
            let Body::Dir { names, .. } = &mut self.inode_mut(edit.dir)?.body else {
                return Err(Errno::ENOTDIR);
            };
            let before = match edit.ino {
                Some(ino) => names.insert(edit.name.clone(), ino),
                None => names.remove(&edit.name),
            };
            self.count_link(edit.ino, before, |inode| &mut inode.links);
        }
        self.journal.add(edits);
        Ok(())
    }

    fn make_durable(&mut self, change: &Change) {
        for edit in &change.edits {
            let Ok(Body::Dir { durable, .. }) = self.inode_mut(edit.dir).map(|dir| &mut dir.body)
            else {
                continue;
            };
            let before = match edit.ino {
                Some(ino) => durable.insert(edit.name.clone(), ino),
                None => durable.remove(&edit.name),
            };
            self.count_link(edit.ino, before, |inode| &mut inode.durable_links);
            for ino in before.into_iter().chain(edit.ino) {
                self.reap(ino);
            }
        }
    }

    fn count_link(
        &mut self,
        more: Option<Ino>,
        less: Option<Ino>,
        counter: fn(&mut Inode) -> &mut u32,
    ) {
        if let Some(inode) = more.and_then(|ino| self.inodes.get_mut(&ino)) {
            *counter(inode) += 1;
        }
        if let Some(inode) = less.and_then(|ino| self.inodes.get_mut(&ino)) {
            let count = counter(inode);
            *count = count.saturating_sub(1);
        }
    }

    /// Forgets a file that nobody can reach, now or after a power cut.
    fn reap(&mut self, ino: Ino) {
        let is_gone = self.inodes.get(&ino).is_some_and(|inode| {
            inode.links == 0 && inode.durable_links == 0 && inode.lookups == 0
        });
        if is_gone && !self.journal.mentions(ino) {
            self.inodes.remove(&ino);
        }
    }

    fn used_pages(&self) -> u64 {
        let in_use = |inode: &&Inode| inode.links > 0 || inode.lookups > 0;
        let pages = |inode: &Inode| match &inode.body {
            Body::File(file) => file.current.page_count(),
            Body::Dir { .. } => 1,
        };
        self.inodes.values().filter(in_use).map(pages).sum()
    }

    fn inode(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.inodes.get(&ino).ok_or(Errno::ENOENT)
    }

    fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    fn file(&mut self, ino: Ino) -> Result<&mut FileState, Errno> {
        match &mut self.inode_mut(ino)?.body {
            Body::File(file) => Ok(file),
            Body::Dir { .. } => Err(Errno::EISDIR),
        }
    }

    fn names(&self, dir: Ino) -> Result<&Names, Errno> {
        match &self.inode(dir)?.body {
            Body::Dir { names, .. } => Ok(names),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn path_in(&self, dir: Ino, name: &OsStr) -> Result<String, Errno> {
        let dir = &self.inode(dir)?.path;
        Ok(format!("{dir}/{}", name.to_string_lossy()))
    }

    fn strike(&mut self, operation: Operation, path: &str) -> Result<Option<Effect>, Errno> {
        match self.rules.strike(operation, path) {
            Some(Effect::Fail(errno)) => Err(errno),
            effect => Ok(effect),
        }
    }

    fn strike_at(&mut self, operation: Operation, ino: Ino) -> Result<Option<Effect>, Errno> {
        let path = self.inode(ino)?.path.clone();
        self.strike(operation, &path)
    }

    /// Counts a reference of the kernel's, and says what it refers to.
    fn refer(&mut self, ino: Ino) -> Result<Attributes, Errno> {
        self.inode_mut(ino)?.lookups += 1;
        self.attributes(ino)
    }

    fn attributes(&self, ino: Ino) -> Result<Attributes, Errno> {
        let inode = self.inode(ino)?;
        Ok(match &inode.body {
            Body::File(file) => Attributes {
                ino,
                is_dir: false,
                len: file.current.len(),
                page_count: file.current.page_count(),
                links: inode.links,
                modified: file.current.modified,
            },
            Body::Dir { .. } => Attributes {
                ino,
                is_dir: true,
                len: PAGE_LEN as u64,
                page_count: 1,
                links: 2,
                modified: SystemTime::UNIX_EPOCH,
            },
        })
    }
}

impl Inode {
    fn new(body: Body, path: String) -> Self {
        Self {
            body,
            path,
            links: 0,
            durable_links: 0,
            lookups: 0,
        }
    }
}

impl FileState {
    fn all_durable(content: Content) -> Self {
        Self {
            durable: content.clone(),
            current: content,
            lost: BTreeMap::new(),
            synced: 0,
        }
    }
}

impl Image {
    /// Copies the files into a directory, for a person to look at.
    pub fn copy_to(&self, dir: &Path) -> Result<()> {
        self.copy(ROOT, dir)
    }

    fn copy(&self, ino: Ino, to: &Path) -> Result<()> {
        match self.entries.get(&ino) {
            None => Ok(()),
            Some(Left::File(content)) => {
                let bytes = content.read(0, content.len() as usize);
                fs::write(to, bytes).with_context(|| to.display().to_string())
            }
            Some(Left::Dir(names)) => {
                fs::create_dir_all(to).with_context(|| to.display().to_string())?;
                let copies = names
                    .iter()
                    .map(|(name, ino)| self.copy(*ino, &to.join(name)));
                copies.collect()
            }
        }
    }
}

//! Names of the simulated device: what processes see, and what the device would still know.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CrashStyle;
use super::content::Inode;
use super::random::Random;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Directory,
    File(Arc<Inode>),
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

/// All names, as they are now and as they were made durable.
///
/// Changes become durable in the order in which they were made, as in the journal of ext4 or XFS:
/// by `sync_dir` those of one directory, by a crash perhaps a first part of them.
#[derive(Debug, Default)]
pub(super) struct Namespace {
    now: Names,
    durable: Names,
    pending: Vec<Change>,
}

type Names = BTreeMap<PathBuf, Node>;

impl Namespace {
    pub(super) fn find(&self, path: &Path) -> Option<Node> {
        if is_root(path) {
            Some(Node::Directory)
        } else {
            self.now.get(path).cloned()
        }
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        matches!(self.find(path), Some(Node::Directory))
    }

    /// The entries right below `dir`, sorted.
    pub(super) fn children(&self, dir: &Path) -> impl Iterator<Item = (&Path, &Node)> {
        let below = self.now.iter().map(|(path, node)| (path.as_path(), node));
        below.filter(move |(path, _)| parent(path) == dir)
    }

    /// The files that have names, once for each name.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<Inode>> {
        self.now.values().filter_map(|node| match node {
            Node::Directory => None,
            Node::File(inode) => Some(inode),
        })
    }

    /// How many names stand for `inode`.
    pub(super) fn link_count(&self, inode: &Arc<Inode>) -> u64 {
        let is_it = |node: &&Node| matches!(node, Node::File(file) if Arc::ptr_eq(file, inode));
        self.now.values().filter(is_it).count() as u64
    }

    pub(super) fn add(&mut self, path: &Path, node: Node) {
        self.change(Change::Add(path.to_owned(), node));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(Change::Remove(path.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, node: Node) {
        self.change(Change::Rename(from.to_owned(), to.to_owned(), node));
    }

    /// Makes the changes of one directory durable.
    pub(super) fn sync(&mut self, dir: &Path) {
        for change in self.pending.extract_if(.., |change| change.touches(dir)) {
            change.apply(&mut self.durable);
        }
    }

    /// Makes a first part of the changes durable, as the kernel may at any time.
    pub(super) fn write_back(&mut self, random: &mut Random) {
        let count = random.up_to(self.pending.len());
        for change in self.pending.drain(..count) {
            change.apply(&mut self.durable);
        }
    }

    /// What is left after a crash; `survivor` gives the file that stands for one of before.
    pub(super) fn crash(
        &self,
        style: CrashStyle,
        random: &mut Random,
        survivor: impl FnMut(&Arc<Inode>) -> Arc<Inode>,
    ) -> Self {
        let mut survivors = Survivors {
            survivor,
            files: HashMap::new(),
        };
        if style == CrashStyle::KillProcess {
            return Self {
                now: survivors.names(&self.now),
                durable: survivors.names(&self.durable),
                pending: self
                    .pending
                    .iter()
                    .map(|change| survivors.change(change))
                    .collect(),
            };
        }
        let mut names = self.durable.clone();
        let count = random.up_to(self.pending.len());
        for (index, change) in self.pending.iter().enumerate() {
            let survives = match style {
                CrashStyle::Tear => index < count,
                CrashStyle::Scatter => random.coin(),
                _ => false,
            };
            if survives {
                change.clone().apply(&mut names);
            }
        }
        let reachable = |path: &Path| {
            let mut above = path.ancestors().skip(1);
            above.all(|dir| is_root(dir) || matches!(names.get(dir), Some(Node::Directory)))
        };
        let kept: Names = names
            .iter()
            .filter(|(path, _)| reachable(path))
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect();
        let now = survivors.names(&kept);
        Self {
            durable: now.clone(),
            now,
            pending: Vec::new(),
        }
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.now);
        self.pending.push(change);
    }
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) => parent(path) == dir,
            Self::Rename(from, to, _) => parent(from) == dir || parent(to) == dir,
        }
    }

    fn apply(self, names: &mut Names) {
        match self {
            Self::Add(path, node) => {
                names.insert(path, node);
            }
            Self::Remove(path) => {
                names.remove(&path);
            }
            Self::Rename(from, to, node) => {
                names.remove(&from);
                names.insert(to.clone(), node);
                let below: Vec<PathBuf> = names
                    .keys()
                    .filter(|path| path.starts_with(&from))
                    .cloned()
                    .collect();
                for path in below {
                    if let (Some(node), Ok(rest)) = (names.remove(&path), path.strip_prefix(&from))
                    {
                        names.insert(to.join(rest), node);
                    }
                }
            }
        }
    }
}

/// The files after a crash, one for each of before, however many names it has.
struct Survivors<F> {
    survivor: F,
    files: HashMap<*const Inode, Arc<Inode>>,
}

impl<F: FnMut(&Arc<Inode>) -> Arc<Inode>> Survivors<F> {
    fn names(&mut self, names: &Names) -> Names {
        names
            .iter()
            .map(|(path, node)| (path.clone(), self.node(node)))
            .collect()
    }

    fn node(&mut self, node: &Node) -> Node {
        match node {
            Node::Directory => Node::Directory,
            Node::File(inode) => {
                let file = self.files.entry(Arc::as_ptr(inode));
                Node::File(Arc::clone(file.or_insert_with(|| (self.survivor)(inode))))
            }
        }
    }

    fn change(&mut self, change: &Change) -> Change {
        match change {
            Change::Add(path, node) => Change::Add(path.clone(), self.node(node)),
            Change::Remove(path) => Change::Remove(path.clone()),
            Change::Rename(from, to, node) => {
                Change::Rename(from.clone(), to.clone(), self.node(node))
            }
        }
    }
}

/// The directory of a path; of a plain name the empty path, which is a root.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}

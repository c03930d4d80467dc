//! Names: the tree as it is, and the changes to it that no sync has made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

/// Number of a file or directory.
pub(super) type Ino = u64;

/// The names in one directory.
pub(super) type Names = BTreeMap<OsString, Ino>;

/// One name that was given or taken.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    pub(super) dir: Ino,
    pub(super) name: OsString,
    /// What it stands for now; `None`: nothing any more.
    pub(super) ino: Option<Ino>,
}

/// What one operation did to names, all or none of which survives.
#[derive(Clone, Debug)]
pub(super) struct Change {
    ordinal: u64,
    pub(super) edits: Vec<Edit>,
}

/// The changes that are not durable, in their order.
#[derive(Debug, Default)]
pub(super) struct Journal {
    changes: Vec<Change>,
    last_ordinal: u64,
}

impl Edit {
    pub(super) fn set(dir: Ino, name: &OsStr, ino: Ino) -> Self {
        Self {
            dir,
            name: name.to_owned(),
            ino: Some(ino),
        }
    }

    pub(super) fn clear(dir: Ino, name: &OsStr) -> Self {
        Self {
            dir,
            name: name.to_owned(),
            ino: None,
        }
    }
}

impl Change {
    fn touches(&self, dirs: &BTreeSet<Ino>) -> bool {
        self.edits.iter().any(|edit| dirs.contains(&edit.dir))
    }
}

impl Journal {
    pub(super) fn add(&mut self, edits: Vec<Edit>) {
        self.last_ordinal += 1;
        let ordinal = self.last_ordinal;
        self.changes.push(Change { ordinal, edits });
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn last_ordinal(&self) -> u64 {
        self.last_ordinal
    }

    pub(super) fn mentions(&self, ino: Ino) -> bool {
        let mut edits = self.changes.iter().flat_map(|change| &change.edits);
        edits.any(|edit| edit.ino == Some(ino) || edit.dir == ino)
    }

    /// Takes out what a sync of `dir` makes durable: every change of its names up to `ordinal`,
    /// and those before them in directories that take part in the same operations.
    pub(super) fn take_synced(&mut self, dir: Ino, ordinal: u64) -> Vec<Change> {
        let mut dirs = BTreeSet::from([dir]);
        let mut is_taken = BTreeSet::new();
        for change in self.changes.iter().rev() {
            if change.ordinal <= ordinal && change.touches(&dirs) {
                dirs.extend(change.edits.iter().map(|edit| edit.dir));
                is_taken.insert(change.ordinal);
            }
        }
        let taken = |change: &mut Change| is_taken.contains(&change.ordinal);
        self.changes.extract_if(.., taken).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_sync_takes_its_own_changes_and_what_they_rest_on() {
        let name = OsStr::new("x");
        let mut journal = Journal::default();
        journal.add(vec![Edit::set(1, name, 10)]);
        journal.add(vec![Edit::set(3, name, 30)]);
        journal.add(vec![Edit::clear(1, name), Edit::set(2, name, 10)]);
        let moved_at = journal.last_ordinal();
        journal.add(vec![Edit::set(2, OsStr::new("later"), 11)]);
        let taken = journal.take_synced(2, moved_at);
        let dirs: Vec<_> = taken.iter().map(|change| change.edits[0].dir).collect();
        assert_eq!(dirs, [1, 1], "the creation in 1 and the move to 2");
        assert!(journal.mentions(30) && journal.mentions(11) && !journal.mentions(10));
    }
}

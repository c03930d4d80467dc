//! Which operations fail, and how.

use fuser::Errno;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bytes asked for, by `read` or by a page fault.
    Read,
    /// Bytes given, by `write` or by the write-back of a mapping.
    Write,
    /// `fsync`, `fdatasync`, `msync`.
    Sync,
    /// The same of a directory.
    SyncDir,
    /// `fallocate`.
    Allocate,
    /// A new file or directory.
    Create,
    /// `rename`.
    Rename,
}

/// What happens instead.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// The operation is refused.
    Fail(Errno),
    /// Of a write, only the first half is taken.
    Short,
}

/// One kind of operation on some files, and what happens instead.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The operation.
    pub operation: Operation,
    /// A text that the file's path within the volume contains.
    pub path: &'static str,
    /// How many times it works before.
    pub spared: u64,
    /// How many times it does not; `u64::MAX` for ever.
    pub times: u64,
    /// What happens then.
    pub effect: Effect,
}

impl Rule {
    /// The operation on the files whose path contains `path` fails from now on.
    pub fn fail(operation: Operation, path: &'static str, errno: Errno) -> Self {
        Self {
            operation,
            path,
            spared: 0,
            times: u64::MAX,
            effect: Effect::Fail(errno),
        }
    }
}

/// The rules in force.
#[derive(Debug, Default)]
pub(super) struct Rules {
    armed: Vec<Rule>,
    pub(super) hits: u64,
}

impl Rules {
    pub(super) fn arm(&mut self, rule: Rule) {
        self.armed.push(rule);
    }

    pub(super) fn disarm(&mut self) {
        self.armed.clear();
    }

    /// What happens to this operation; `None`: it works.
    pub(super) fn strike(&mut self, operation: Operation, path: &str) -> Option<Effect> {
        let applies = |rule: &&mut Rule| {
            rule.operation == operation && rule.times > 0 && path.contains(rule.path)
        };
        let rule = self.armed.iter_mut().find(applies)?;
        if rule.spared > 0 {
            rule.spared -= 1;
            return None;
        }
        if rule.times != u64::MAX {
            rule.times -= 1;
        }
        self.hits += 1;
        Some(rule.effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_spares_strikes_and_ends() {
        let mut rules = Rules::default();
        rules.arm(Rule {
            spared: 1,
            times: 2,
            ..Rule::fail(Operation::Write, "commitlog/", Errno::EIO)
        });
        let mut strikes = |operation, path| rules.strike(operation, path).is_some();
        assert!(!strikes(Operation::Read, "/store/commitlog/0"));
        assert!(!strikes(Operation::Write, "/store/index/0"));
        let struck: Vec<_> = (0..4)
            .map(|_| strikes(Operation::Write, "/store/commitlog/0"))
            .collect();
        assert_eq!(struck, [false, true, true, false]);
        assert_eq!(rules.hits, 2);
    }
}

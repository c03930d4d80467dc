//! The table of armed failpoints, in builds that have them.

use std::io;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::process::{Signal, getpid, kill_process};

use super::NAMES;

/// The variable that arms failpoints of a child process: entries `name=action` separated by `;`,
/// where the action is `kill` or `error(kind)`, with `@n` behind it for the n-th hit only.
pub const ENVIRONMENT: &str = "FOLIOMQ_FAILPOINTS";

/// What an armed failpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ends the process at once with SIGKILL, as the kernel's memory killer would.
    Kill,
    /// Lets the operation fail.
    Error(io::ErrorKind),
}

/// Disarms a failpoint when it is dropped.
#[derive(Debug)]
#[must_use = "the failpoint is armed as long as this lives"]
pub struct FailGuard {
    id: u64,
}

#[derive(Debug)]
struct Armed {
    /// 0 for those of the environment, which are never disarmed.
    id: u64,
    name: String,
    action: Action,
    /// Which hit it acts on, from 1; `None`: each.
    nth: Option<u64>,
    hit_count: u64,
}

#[derive(Debug)]
struct Table {
    armed: Vec<Armed>,
    next_id: u64,
}

static TABLE: Mutex<Table> = Mutex::new(Table {
    armed: Vec::new(),
    next_id: 1,
});
static ENVIRONMENT_READ: Once = Once::new();

/// Arms a failpoint for the `nth` hit (from 1) from now on, or for each.
///
/// # Panics
/// If there is no failpoint of that name.
pub fn arm(name: &str, action: Action, nth: Option<u64>) -> FailGuard {
    check_name(name);
    let mut table = table();
    let id = table.next_id;
    table.next_id += 1;
    table.armed.push(Armed {
        id,
        name: name.to_owned(),
        action,
        nth,
        hit_count: 0,
    });
    FailGuard { id }
}

/// Passes a failpoint: the error to return, if one is to be returned. Called by
/// [`failpoint!`](crate::failpoint!).
///
/// # Panics
/// If the name is not listed, or the environment's entries are not understood.
pub fn hit(name: &str) -> Option<io::Error> {
    check_name(name);
    ENVIRONMENT_READ.call_once(arm_from_environment);
    let mut acting = None;
    for armed in table().armed.iter_mut().filter(|armed| armed.name == name) {
        armed.hit_count += 1;
        if armed.nth.is_none_or(|nth| nth == armed.hit_count) {
            acting = Some(armed.action);
        }
    }
    match acting? {
        Action::Error(kind) => Some(io::Error::new(kind, format!("failpoint {name}"))),
        Action::Kill => {
            // Sending a signal to oneself cannot fail; if it did, the test would notice.
            let _ = kill_process(getpid(), Signal::KILL);
            None
        }
    }
}

impl Drop for FailGuard {
    fn drop(&mut self) {
        table().armed.retain(|armed| armed.id != self.id);
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_name(name: &str) {
    assert!(
        NAMES.contains(&name),
        "failpoint {name} is not in mmap_core::failpoint::NAMES"
    );
}

fn arm_from_environment() {
    let Ok(entries) = std::env::var(ENVIRONMENT) else {
        return;
    };
    for entry in entries.split(';').filter(|entry| !entry.is_empty()) {
        match parse(entry) {
            Some(armed) => table().armed.push(armed),
            None => panic!("{ENVIRONMENT}: `{entry}` is not `name=kill|error(kind)[@n]`"),
        }
    }
}

fn parse(entry: &str) -> Option<Armed> {
    let (name, rest) = entry.trim().split_once('=')?;
    check_name(name);
    let (action, nth) = match rest.split_once('@') {
        Some((action, nth)) => (action, Some(nth.parse().ok().filter(|nth| *nth > 0)?)),
        None => (rest, None),
    };
    let action = match action {
        "kill" => Action::Kill,
        "error(other)" => Action::Error(io::ErrorKind::Other),
        "error(storage_full)" => Action::Error(io::ErrorKind::StorageFull),
        "error(out_of_memory)" => Action::Error(io::ErrorKind::OutOfMemory),
        "error(permission_denied)" => Action::Error(io::ErrorKind::PermissionDenied),
        "error(not_found)" => Action::Error(io::ErrorKind::NotFound),
        _ => return None,
    };
    Some(Armed {
        id: 0,
        name: name.to_owned(),
        action,
        nth,
        hit_count: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_environment() {
        let armed = parse("mmap_core.rename=kill@3").unwrap();
        assert_eq!(
            (armed.name.as_str(), armed.nth),
            ("mmap_core.rename", Some(3))
        );
        assert_eq!(armed.action, Action::Kill);
        let armed = parse(" mmap_core.write=error(storage_full)").unwrap();
        assert_eq!(armed.action, Action::Error(io::ErrorKind::StorageFull));
        assert_eq!(armed.nth, None);
        for bad in [
            "mmap_core.write",
            "mmap_core.write=",
            "mmap_core.write=kill@0",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse("mmap_core.write=error(tuesday)").is_none());
    }

    #[test]
    fn names_are_sorted_and_distinct() {
        assert!(NAMES.is_sorted_by(|left, right| left < right));
    }
}

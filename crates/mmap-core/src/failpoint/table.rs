//! The table of armed failpoints, in builds that have them.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};

use rustix::process::{Signal, getpid, kill_process};

use super::{ANY, CHANGE, CHANGES, MEMORY, NAMES, STORES};

/// The variable that arms failpoints of a child process: entries `[gate!]name[:part]=action[@n]`
/// separated by `;`.
///
/// The action is `kill` or `error(kind)`. With `@n` it strikes at the n-th hit only; with a part,
/// at operations on paths that contain it only; with a gate, hits count from when the failpoint
/// `gate` has been passed.
pub const ENVIRONMENT: &str = "FOLIOMQ_FAILPOINTS";

/// What an armed failpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ends the process at once with SIGKILL, as the kernel's memory killer would.
    Kill,
    /// Lets the operation fail.
    Error(io::ErrorKind),
    /// Lets the operation wait until the failpoint is disarmed, as for a device that does not answer.
    Hold,
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
    /// What the path of the operation must contain.
    part: Option<String>,
    /// The failpoint that must be passed first; `None` once it was.
    gate: Option<String>,
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
/// Rung when an entry was disarmed.
static DISARMED: Condvar = Condvar::new();
static ENVIRONMENT_READ: Once = Once::new();

/// Arms a failpoint, or one of the names for many, for the `nth` hit (from 1) from now on, or for each.
///
/// # Panics
/// If there is no failpoint of that name.
pub fn arm(name: &str, action: Action, nth: Option<u64>) -> FailGuard {
    check_wanted(name);
    let mut table = table();
    let id = table.next_id;
    table.next_id += 1;
    table.armed.push(Armed {
        id,
        name: name.to_owned(),
        part: None,
        gate: None,
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
pub fn hit(name: &str, path: Option<&Path>) -> Option<io::Error> {
    assert!(
        NAMES.contains(&name),
        "failpoint {name} is not in mmap_core::failpoint::NAMES"
    );
    ENVIRONMENT_READ.call_once(arm_from_environment);
    let mut acting = None;
    for armed in &mut table().armed {
        armed.gate.take_if(|gate| gate == name);
        if armed.is_hit_by(name, path) {
            armed.hit_count += 1;
            if armed.nth.is_none_or(|nth| nth == armed.hit_count) {
                acting = Some((armed.id, armed.action));
            }
        }
    }
    let (id, action) = acting?;
    match action {
        Action::Hold => {
            let is_armed = |table: &mut Table| table.armed.iter().any(|armed| armed.id == id);
            let disarmed = DISARMED.wait_while(table(), is_armed);
            drop(disarmed.unwrap_or_else(PoisonError::into_inner));
            None
        }
        Action::Error(kind) => Some(io::Error::new(kind, format!("failpoint {name}"))),
        Action::Kill => {
            let path = path.unwrap_or(Path::new("-")).display();
            // Where it died is a help to who reads it; that it dies is what matters.
            let _ = writeln!(io::stderr(), "failpoint {name} {path}: killed");
            // Sending a signal to oneself cannot fail; if it did, the test would notice.
            let _ = kill_process(getpid(), Signal::KILL);
            None
        }
    }
}

/// Whether an entry is armed that means this failpoint.
pub(crate) fn is_armed(name: &str) -> bool {
    let is_meant = |armed: &Armed| armed.means(name);
    table().armed.iter().any(is_meant)
}

impl Drop for FailGuard {
    fn drop(&mut self) {
        table().armed.retain(|armed| armed.id != self.id);
        DISARMED.notify_all();
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Armed {
    fn means(&self, name: &str) -> bool {
        match self.name.as_str() {
            ANY => !STORES.contains(&name),
            CHANGE => CHANGES.contains(&name),
            MEMORY => STORES.contains(&name),
            wanted => wanted == name,
        }
    }

    fn is_hit_by(&self, name: &str, path: Option<&Path>) -> bool {
        let is_meant = self.means(name) && (self.name != ANY || path.is_some());
        let in_path =
            |part: &String| path.is_some_and(|path| path.to_string_lossy().contains(part.as_str()));
        is_meant && self.gate.is_none() && self.part.as_ref().is_none_or(in_path)
    }
}

/// Checks a name that is to be armed.
fn check_wanted(name: &str) {
    assert!(
        NAMES.contains(&name) || [ANY, CHANGE, MEMORY].contains(&name),
        "failpoint {name} is not in mmap_core::failpoint::NAMES, nor `{ANY}`, `{CHANGE}`, `{MEMORY}`"
    );
}

fn arm_from_environment() {
    let Ok(entries) = std::env::var(ENVIRONMENT) else {
        return;
    };
    for entry in entries.split(';').filter(|entry| !entry.is_empty()) {
        match parse(entry) {
            Some(armed) => table().armed.push(armed),
            None => {
                panic!("{ENVIRONMENT}: `{entry}` is not `[gate!]name[:part]=kill|error(kind)[@n]`")
            }
        }
    }
}

fn parse(entry: &str) -> Option<Armed> {
    let (place, rest) = entry.trim().split_once('=')?;
    let (gate, place) = match place.split_once('!') {
        Some((gate, place)) => (Some(gate), place),
        None => (None, place),
    };
    let (name, part) = match place.split_once(':') {
        Some((name, part)) => (name, Some(part)),
        None => (place, None),
    };
    gate.iter()
        .chain([&name])
        .for_each(|name| check_wanted(name));
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
        part: part.map(str::to_owned),
        gate: gate.map(str::to_owned),
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
    fn entries_strike_by_kind_part_and_gate() {
        let all = parse("change=kill@17").unwrap();
        assert!(all.is_hit_by("mmap_core.rename", Some(Path::new("/s/a"))));
        assert!(!all.is_hit_by("mmap_core.read", Some(Path::new("/s/a"))));
        let any = parse("any=kill").unwrap();
        assert!(any.is_hit_by("mmap_core.read", Some(Path::new("/s/a"))));
        assert!(!any.is_hit_by("foliomq.serving", None));
        let config = parse("change:/config/=kill@2").unwrap();
        assert!(config.is_hit_by("mmap_core.write", Some(Path::new("/s/config/a"))));
        assert!(!config.is_hit_by("mmap_core.write", Some(Path::new("/s/index/a"))));
        assert!(!config.is_hit_by("foliomq.serving", None));
        let memory = parse("memory=kill@9").unwrap();
        assert!(memory.is_hit_by("mmap_core.append", None));
        assert!(!memory.is_hit_by("mmap_core.write", Some(Path::new("/s/a"))));
        let gated = parse("foliomq.stopping!change=kill@5").unwrap();
        assert_eq!(gated.gate.as_deref(), Some("foliomq.stopping"));
        assert!(!gated.is_hit_by("mmap_core.write", Some(Path::new("/s/a"))));
    }

    #[test]
    fn names_are_sorted_and_distinct() {
        assert!(NAMES.is_sorted_by(|left, right| left < right));
        let lists = CHANGES.iter().chain(STORES);
        assert!(lists.into_iter().all(|name| NAMES.contains(name)));
    }
}

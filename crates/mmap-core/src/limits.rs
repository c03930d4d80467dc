//! The limits of a process that stand in the way of mapping and locking memory, put into words.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::counters;
use crate::error::IoError;

/// Where the system says how many mappings a process may have.
const MAX_MAP_COUNT_PATH: &str = "/proc/sys/vm/max_map_count";

/// Where it says how much of this process's memory is locked, and what the process may.
const STATUS_PATH: &str = "/proc/self/status";

/// The bit of `CAP_IPC_LOCK`, whose holder may lock any amount.
const CAP_IPC_LOCK: u32 = 14;

/// Whether this process may lock `len` more bytes in memory, as far as can be told without doing
/// so.
///
/// # Errors
/// It may not; the error says what is allowed and what to do.
pub fn check_lockable(len: u64) -> Result<(), IoError> {
    let capabilities = status("CapEff:").and_then(|text| u64::from_str_radix(&text, 16).ok());
    if capabilities.is_some_and(|bits| bits & (1 << CAP_IPC_LOCK) != 0) {
        return Ok(());
    }
    let allowed = getrlimit(Resource::Memlock).current;
    if allowed.is_none_or(|allowed| locked_len().saturating_add(len) <= allowed) {
        return Ok(());
    }
    let source = explain_memlock(Errno::NOMEM, usize::try_from(len).unwrap_or(usize::MAX));
    Err(IoError::new("mlock", STATUS_PATH, source))
}

/// Adds to the error of a lock of `len` bytes what was asked for, what is allowed, and what to do.
pub(crate) fn explain_memlock(errno: Errno, len: usize) -> io::Error {
    let source = io::Error::from(errno);
    let limit = getrlimit(Resource::Memlock);
    let what = format!(
        "{source} ({len} bytes asked for, {} locked already; RLIMIT_MEMLOCK is {} and can be \
         raised to {}: raise it (ulimit -l takes KiB, a service has LimitMEMLOCK=), or give the \
         process CAP_IPC_LOCK, or lock nothing)",
        locked_len(),
        show(limit.current),
        show(limit.maximum),
    );
    io::Error::new(source.kind(), what)
}

/// Adds to "Cannot allocate memory" how much is mapped and what limits it.
pub(crate) fn explain_no_memory(source: &io::Error) -> io::Error {
    let max_map_count = fs::read_to_string(MAX_MAP_COUNT_PATH);
    let max_map_count = max_map_count.as_deref().map_or("unknown", str::trim);
    let what = format!(
        "{source} ({} bytes of files in {} mappings; the limits are RLIMIT_AS, {}, and \
         vm.max_map_count, {max_map_count} mappings: raise the one that is reached, or map less)",
        counters::mapped_bytes(),
        counters::mapped_files(),
        show(getrlimit(Resource::As).current),
    );
    io::Error::new(source.kind(), what)
}

/// Bytes of this process that are locked.
fn locked_len() -> u64 {
    let kibibytes = status("VmLck:").and_then(|text| text.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// The first word behind a name in what the system says of this process.
fn status(name: &str) -> Option<String> {
    let text = fs::read_to_string(STATUS_PATH).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

fn show(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |len| format!("{len} bytes"))
}

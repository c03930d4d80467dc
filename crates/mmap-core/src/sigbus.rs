//! SIGBUS: says which file it was, and ends the process.
//!
//! Touching a page of a mapping that the file no longer has, or that the device cannot read or
//! allocate, raises SIGBUS. The access cannot be given an answer (the reader holds a plain slice),
//! so that the process ends; what is left to do is to say why. [`install_sigbus_handler`] is for
//! the binary, which owns the process's signals, and writes one line to standard error:
//!
//! ```text
//! mmap-core: SIGBUS at offset 8192 of /store/commitlog/00000000000000000000: the page cannot be read or written (file cut by another program, device full or failing); aborting
//! ```
//!
//! The offset is that of the byte touched, in the file. Of a path longer than 128 bytes the end is
//! shown, after `...`. A SIGBUS at an address that no mapping of this crate covers is left to the
//! handler that was there before.
//!
//! The handler may not allocate nor lock. It reads a fixed table of atomics, in which each mapping
//! has a slot; a mapping beyond [`SLOT_COUNT`] has none, and its SIGBUS is left to the previous
//! handler, too. A slot is given back before its mapping is unmapped, and while an access through a mapping
//! faults, whoever made it keeps the mapping alive: what the handler finds is not being changed.
//!
//! # Safety
//! **U8** of docs/unsafe.md: installing the handler and what it does.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// How many mappings are known by name at a time. Untouched slots take no memory.
const SLOT_COUNT: usize = 8192;

/// How many bytes of a path are kept, from its end.
const NAME_LEN: usize = 128;

const WORD_LEN: usize = size_of::<u64>();

static SLOTS: [Slot; SLOT_COUNT] = [const { Slot::new() }; SLOT_COUNT];
static FREE_SLOTS: Mutex<FreeSlots> = Mutex::new(FreeSlots {
    used: 0,
    returned: Vec::new(),
});

/// What was to be done at SIGBUS before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping as the handler sees it. Written by who makes and drops the mapping; `len` is stored
/// last (Release) and cleared first, and read first (Acquire): 0 stands for a free slot.
struct Slot {
    len: AtomicUsize,
    start: AtomicUsize,
    file_offset: AtomicU64,
    name: [AtomicU64; NAME_LEN / WORD_LEN],
}

struct FreeSlots {
    /// Slots from here on were never used.
    used: usize,
    returned: Vec<usize>,
}

/// A mapping's place in the table; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    /// `None` when the table was full.
    slot: Option<usize>,
}

/// Installs the handler described at the [module](self), once for the process.
///
/// # Errors
/// Those of `sigaction`.
pub fn install_sigbus_handler() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    let previous = sigaction(None)?;
    if PREVIOUS.set(previous).is_err() {
        return Ok(());
    }
    // SAFETY: (U8) all fields of `sigaction` are integers or optional pointers: zeros are valid,
    // and stand for an empty signal mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the alternate stack, which std gives to each thread: the fault may be on a full one.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    sigaction(Some(&action)).map(drop)
}

impl Registration {
    /// Lets the handler know of a mapping of `len` (not 0) bytes at `start`.
    pub(crate) fn new(start: usize, len: usize, file_offset: u64, path: &Path) -> Self {
        let slot = FREE_SLOTS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(slot) = slot {
            SLOTS[slot].fill(start, len, file_offset, path);
        }
        Self { slot }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            SLOTS[slot].len.store(0, Ordering::Release);
            FREE_SLOTS
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .returned
                .push(slot);
        }
    }
}

impl FreeSlots {
    fn take(&mut self) -> Option<usize> {
        if let Some(slot) = self.returned.pop() {
            return Some(slot);
        }
        let slot = self.used;
        (slot < SLOT_COUNT).then(|| {
            self.used += 1;
            slot
        })
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            file_offset: AtomicU64::new(0),
            name: [const { AtomicU64::new(0) }; NAME_LEN / WORD_LEN],
        }
    }

    fn fill(&self, start: usize, len: usize, file_offset: u64, path: &Path) {
        let path = path.as_os_str().as_bytes();
        let end = &path[path.len().saturating_sub(NAME_LEN)..];
        let mut name = [0; NAME_LEN];
        name[..end.len()].copy_from_slice(end);
        if end.len() < path.len() {
            name[..3].copy_from_slice(b"...");
        }
        for (cell, word) in self.name.iter().zip(name.as_chunks::<WORD_LEN>().0) {
            cell.store(u64::from_be_bytes(*word), Ordering::Relaxed);
        }
        self.file_offset.store(file_offset, Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Release);
    }

    /// The file offset of `address`, if it lies in this mapping.
    fn offset_of(&self, address: usize) -> Option<u64> {
        let len = self.len.load(Ordering::Acquire);
        let position = address.checked_sub(self.start.load(Ordering::Relaxed))?;
        (position < len).then(|| self.file_offset.load(Ordering::Relaxed) + position as u64)
    }

    fn push_name(&self, line: &mut Line) {
        for cell in &self.name {
            let word = cell.load(Ordering::Relaxed).to_be_bytes();
            let len = word.iter().position(|byte| *byte == 0).unwrap_or(WORD_LEN);
            line.push(&word[..len]);
            if len < WORD_LEN {
                break;
            }
        }
    }
}

/// The handler. Only atomics, a line on the stack, and system calls that POSIX allows here.
extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: (U8) the kernel passes a valid `siginfo_t` to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: (U8) of SIGBUS, the address is set.
    let address = unsafe { info.si_addr() }.addr();
    let found = SLOTS
        .iter()
        .find_map(|slot| Some((slot, slot.offset_of(address)?)));
    let Some((slot, offset)) = found else {
        // Not ours: the access is repeated under the action that was there before.
        let _ = sigaction(PREVIOUS.get());
        return;
    };
    let mut line = Line::new();
    line.push(b"mmap-core: SIGBUS at offset ");
    line.push_number(offset);
    line.push(b" of ");
    slot.push_name(&mut line);
    line.push(
        b": the page cannot be read or written (file cut by another program, device full or \
          failing); aborting\n",
    );
    line.write_to_stderr();
    std::process::abort();
}

/// Sets what is to be done at SIGBUS, if anything, and returns what was.
fn sigaction(action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: (U8) as in `install_sigbus_handler`: zeros are valid.
    let mut previous: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: (U8) both pointers are null or valid for the call, and an action is either one that
    // the kernel gave us or has a handler of the signature that SA_SIGINFO asks for.
    let result = unsafe { libc::sigaction(libc::SIGBUS, action, &mut previous) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(previous)
    }
}

/// A line of text on the stack; what does not fit is left out.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; 512],
            len: 0,
        }
    }

    fn push(&mut self, text: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text[..len]);
        self.len += len;
    }

    fn push_number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[start..]);
    }

    fn write_to_stderr(&self) {
        // SAFETY: (U8) the range is within the line; `write` may be called in a handler. That the
        // line may not get through is no reason not to go on aborting.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(slot: &Slot) -> String {
        let mut line = Line::new();
        slot.push_name(&mut line);
        String::from_utf8(line.bytes[..line.len].to_vec()).unwrap()
    }

    #[test]
    fn a_slot_knows_its_range_and_name() {
        let slot = Slot::new();
        assert_eq!(slot.offset_of(0), None, "a free slot covers nothing");
        slot.fill(
            1000,
            10,
            70_000,
            Path::new("/store/commitlog/00000000000000000000"),
        );
        assert_eq!(slot.offset_of(999), None);
        assert_eq!(slot.offset_of(1000), Some(70_000));
        assert_eq!(slot.offset_of(1009), Some(70_009));
        assert_eq!(slot.offset_of(1010), None);
        assert_eq!(name(&slot), "/store/commitlog/00000000000000000000");
        slot.fill(1, 1, 0, Path::new("f"));
        assert_eq!(name(&slot), "f", "nothing is left of the longer name");
    }

    #[test]
    fn long_names_are_cut_at_the_front() {
        let slot = Slot::new();
        let exact = "x".repeat(NAME_LEN);
        slot.fill(1, 1, 0, Path::new(&exact));
        assert_eq!(name(&slot), exact);
        let long = format!("{exact}/00000000000000000000");
        slot.fill(1, 1, 0, Path::new(&long));
        let shown = name(&slot);
        assert_eq!(shown.len(), NAME_LEN);
        assert!(shown.starts_with("...xxx") && shown.ends_with("/00000000000000000000"));
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 4096, u64::MAX] {
            let mut line = Line::new();
            line.push_number(number);
            assert_eq!(line.bytes[..line.len], *number.to_string().as_bytes());
        }
    }

    #[test]
    fn slots_are_used_again_and_run_out() {
        let mut free = FreeSlots {
            used: SLOT_COUNT - 1,
            returned: Vec::new(),
        };
        assert_eq!(free.take(), Some(SLOT_COUNT - 1));
        assert_eq!(free.take(), None);
        free.returned.push(7);
        assert_eq!(free.take(), Some(7));
    }
}

//! Memory that is there when a measurement wants it.
//!
//! In a virtual machine with free page reporting, memory that was freed goes back to the host
//! within seconds, and touching it again takes 2 us a page: as long as a whole send. A machine that
//! has run for a while takes the pages of its log from those it wrote out earlier, which are there.

use std::path::Path;

use anyhow::Result;
use mmap_core::{Access, Io, IoFile, OsIo, RawMap};

/// How much is asked for at once: less than the kernel reads ahead.
const PIECE_LEN: usize = 4 << 20;

/// Touches `len` bytes and a quarter of that, and frees them at once, so that what the next program
/// is given is there.
///
/// The pages of a log come in pieces of 2 MiB, and the kernel keeps those apart from the small ones
/// that queues, index and everything else are given. So most of it are pages of a file in `dir`, all
/// of it a hole, which is read through a mapping: nothing of it comes from or goes to the device.
pub(super) fn bring_back(dir: &Path, len: usize) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("memory-").tempdir_in(dir)?;
    let map = OsIo
        .create(&dir.path().join("hole"), len as u64)?
        .map(0, len, Access::ReadOnly)?;
    for start in (0..len).step_by(PIECE_LEN) {
        map.populate_read(start..len.min(start + PIECE_LEN))?;
    }
    drop(map);
    dir.close()?;
    let mut memory: Vec<u8> = Vec::with_capacity(len / 4);
    memory.resize(len / 4, 1);
    std::hint::black_box(&memory);
    Ok(())
}

//! Which blocks of a sparse index file are known to be allocated.
//!
//! A file has its full length from the start, 420 MB by default, but no blocks. A page of it that
//! is written through the mapping when the disk is full raises SIGBUS, so blocks are allocated
//! before: in steps, on the first touch, because most files of most stores stay small. Slots are
//! touched all over their region, so that costs at most one call per step and file, some 1,600
//! calls in the life of a default file.
//!
//! File systems that copy on write (btrfs, and XFS with reflinks) may still need space for a block
//! that is allocated; docs/unsafe.md says what happens then.

use mmap_core::{IoError, IoFile};

/// Bytes allocated at once.
const STEP: usize = 256 * 1024;

/// One bit per step of a file. Allocating a step twice is harmless, so nothing is remembered
/// beyond the time that the file is open.
#[derive(Debug)]
pub(crate) struct Blocks {
    file_len: usize,
    allocated: Vec<u64>,
}

impl Blocks {
    pub(crate) fn new(file_len: usize) -> Self {
        let steps = file_len.div_ceil(STEP);
        Self {
            file_len,
            allocated: vec![0; steps.div_ceil(64)],
        }
    }

    /// Makes sure that `len` bytes at `position` have blocks.
    ///
    /// # Errors
    /// A full disk; what was allocated before stays so.
    #[inline]
    pub(crate) fn ensure<F: IoFile>(
        &mut self,
        file: &F,
        position: usize,
        len: usize,
    ) -> Result<(), IoError> {
        debug_assert!(len > 0 && position + len <= self.file_len);
        for step in position / STEP..=(position + len - 1) / STEP {
            let Some(word) = self.allocated.get_mut(step / 64) else {
                continue;
            };
            let bit = 1u64 << (step % 64);
            if *word & bit == 0 {
                let start = step * STEP;
                let step_len = STEP.min(self.file_len - start);
                file.allocate(start as u64, step_len as u64)?;
                *word |= bit;
            }
        }
        Ok(())
    }
}

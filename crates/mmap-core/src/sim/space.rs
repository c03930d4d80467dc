//! Space of the simulated device.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::Space;

/// Counts the bytes that files take, against a limit.
#[derive(Debug)]
pub(super) struct SpaceMeter {
    /// Set by a test at any time.
    limit: AtomicU64,
    /// Changed by every file that takes or gives blocks; the count itself is what is exchanged.
    used: AtomicU64,
}

impl SpaceMeter {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit: AtomicU64::new(limit),
            used: AtomicU64::new(0),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Takes all of `len` bytes, or none.
    pub(super) fn take(&self, len: usize) -> Result<(), io::Error> {
        let (len, limit) = (len as u64, self.limit());
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let more = used.checked_add(len)?;
                (len == 0 || more <= limit).then_some(more)
            });
        match taken {
            Ok(_) => Ok(()),
            Err(used) => {
                let what = format!("simulated device of {limit} bytes: {used} used, {len} wanted");
                Err(io::Error::new(io::ErrorKind::StorageFull, what))
            }
        }
    }

    /// Takes `len` bytes that are known to be there.
    pub(super) fn take_anyway(&self, len: usize) {
        self.used.fetch_add(len as u64, Ordering::Relaxed);
    }

    pub(super) fn give(&self, len: usize) {
        self.used.fetch_sub(len as u64, Ordering::Relaxed);
    }

    pub(super) fn space(&self) -> Space {
        let total = self.limit();
        let available = total.saturating_sub(self.used.load(Ordering::Relaxed));
        Space {
            total,
            free: available,
            available,
            id: 0,
        }
    }
}

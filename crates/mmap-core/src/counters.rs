//! How much is mapped in this process, as gauges for a metrics page.

use std::sync::atomic::{AtomicU64, Ordering};

/// Written by every mapping made and unmapped; read by anybody; orders nothing.
static MAPPED_BYTES: AtomicU64 = AtomicU64::new(0);
/// As [`MAPPED_BYTES`], counting mappings.
static MAPPED_FILES: AtomicU64 = AtomicU64::new(0);

/// Bytes of files mapped now, those waiting for the reaper included.
pub fn mapped_bytes() -> u64 {
    MAPPED_BYTES.load(Ordering::Relaxed)
}

/// File mappings that exist now, those waiting for the reaper included.
pub fn mapped_files() -> u64 {
    MAPPED_FILES.load(Ordering::Relaxed)
}

pub(crate) fn mapped(len: usize) {
    MAPPED_BYTES.fetch_add(len as u64, Ordering::Relaxed);
    MAPPED_FILES.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn unmapped(len: usize) {
    MAPPED_BYTES.fetch_sub(len as u64, Ordering::Relaxed);
    MAPPED_FILES.fetch_sub(1, Ordering::Relaxed);
}

//! Writing pages back without making them durable: `sync_file_range`.
//!
//! # Safety
//! **U6** of docs/unsafe.md: one call of libc that takes a descriptor and numbers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Has the kernel write the dirty pages of a range to the device, and waits until it has.
///
/// **Nothing is durable afterwards**: the device's cache is not flushed, and neither is what of the
/// metadata is needed to find the blocks. It keeps the number of dirty pages low, so that a later
/// sync has less to do. `len` 0 means to the end of the file.
///
/// # Errors
/// Those of `sync_file_range`; `InvalidInput` for a range that no file can have.
pub fn write_back(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let descriptor = file.as_fd().as_raw_fd();
    // SAFETY: (U6) the descriptor is borrowed for the call; the other arguments are numbers.
    let result = unsafe { libc::sync_file_range(descriptor, offset, len, flags) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

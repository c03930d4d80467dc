//! Warming up the pages of a new file before anything is written to it.

use std::ops::Range;
use std::thread;

use crate::append::Appender;
use crate::error::IoError;
use crate::io::IoFile;
use crate::map::{Advice, RawMap};

/// Bytes of a page in RocketMQ's warm-up, whatever the system's page size is
/// (`DefaultMappedFile.OS_PAGE_SIZE`).
const PAGE_LEN: usize = 4096;

/// The processor is given up after so many pages, as RocketMQ does.
const PAGES_PER_TURN: usize = 1000;

/// Zeros are written in pieces of this many bytes.
const ZEROS_LEN: usize = 256 * 1024;

/// What is done to the pages of a file that is not written yet.
///
/// None of them spares the writer its page faults for long: the kernel writes the pages back after
/// some seconds, and a page that is present but clean takes a fault of its own, per 4 KiB, at its
/// first store (15 times slower than a page that was never mapped, which is faulted in with its
/// neighbours). So each of them lets go of the mapping's entries in the end, and what is about to be
/// written is better faulted in just before, by [`RawMap::populate_write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// One zero byte is stored to each page, as RocketMQ does (`warmMapedFileEnable`), and the
    /// processor offered to others now and then.
    Touch {
        /// The pages are synced each time that so many were touched, and in the end
        /// (`flushLeastPagesWhenWarmMapedFile`, in sync mode). `None` or 0: not at all.
        sync_every: Option<u32>,
    },
    /// The kernel faults the pages in for writing (`MADV_POPULATE_WRITE`): the page cache has them,
    /// the device gets them in its time.
    Populate,
    /// Zeros are written and synced: the blocks are initialised, so that a later sync of what is
    /// written there needs no commit of the file system's journal. For stores that sync each
    /// message; 0.7 to 1.9 s per GiB.
    Zeros,
}

/// Warms up `range` of the file that `appender` writes, where nothing was written yet: the bytes
/// read as zeros before and after. Its blocks **must** be allocated.
///
/// # Errors
/// Those of writing, syncing and `madvise`. The pages before the failure are warm.
///
/// # Panics
/// If the range begins below the appender's position, or ends behind the mapping.
pub fn warm_up<F: IoFile>(
    file: &F,
    appender: &mut Appender<F::Map>,
    range: Range<usize>,
    how: WarmUp,
) -> Result<(), IoError> {
    let map_len = appender.region().len();
    assert!(
        appender.position() <= range.start && range.end <= map_len,
        "warm-up of {range:?} in a mapping of {map_len}"
    );
    match how {
        WarmUp::Touch { sync_every } => touch(appender, range.clone(), sync_every.unwrap_or(0))?,
        WarmUp::Populate => appender.region().map().populate_write(range.clone())?,
        WarmUp::Zeros => write_zeros(file, range.clone())?,
    }
    let map = appender.region().map();
    map.advise(Advice::DontNeed, range)
}

fn touch<M: RawMap>(
    appender: &mut Appender<M>,
    range: Range<usize>,
    sync_every: u32,
) -> Result<(), IoError> {
    let sync_len = sync_every as usize * PAGE_LEN;
    let mut synced = range.start;
    for (turn, position) in range.clone().step_by(PAGE_LEN).enumerate() {
        appender.touch(position);
        if turn % PAGES_PER_TURN == PAGES_PER_TURN - 1 {
            thread::yield_now();
        }
        let end = range.end.min(position + PAGE_LEN);
        if sync_len > 0 && (end.is_multiple_of(sync_len) || end == range.end) {
            let map = appender.region().map();
            map.sync_range(synced, end - synced)?;
            synced = end;
        }
    }
    Ok(())
}

fn write_zeros(file: &impl IoFile, range: Range<usize>) -> Result<(), IoError> {
    let zeros = vec![0; ZEROS_LEN.min(range.len())];
    for position in range.clone().step_by(ZEROS_LEN) {
        let len = ZEROS_LEN.min(range.end - position);
        file.write_all_at(&zeros[..len], position as u64)?;
    }
    file.sync_data()
}

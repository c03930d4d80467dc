//! Readers, a flusher, a preallocator and a trimmer beside the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mmap_core::OsIo;
use segment_queue::{
    AppendError, FlushPolicy, PreallocateOptions, Preallocator, SegmentQueue, SegmentQueueOptions,
};

const SEGMENT_LEN: u64 = 16 * 1024;
const RECORD_LEN: usize = 64;
const RECORD_COUNT: u64 = 40_000;

/// A record that says where it belongs in each of its eight words.
fn record(offset: u64) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(offset + index as u64).to_be_bytes());
    }
    bytes
}

/// Follows the writer; returns how many records were seen.
fn read(queue: &SegmentQueue, done: &AtomicBool) -> u64 {
    let mut offset = 0;
    let mut seen = 0;
    loop {
        let finished = done.load(Ordering::Acquire);
        match queue.slice_from(offset) {
            Some(slice) => {
                for bytes in slice.chunks_exact(RECORD_LEN) {
                    assert_eq!(bytes, record(offset));
                    offset += RECORD_LEN as u64;
                    seen += 1;
                }
            }
            None if offset < queue.min_offset() => offset = queue.min_offset(),
            None if finished && offset == queue.published() => return seen,
            None => thread::yield_now(),
        }
    }
}

#[test]
fn readers_see_whole_records_while_segments_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = SegmentQueueOptions::new(dir.path(), SEGMENT_LEN);
    options.allocate_step = 4096;
    options.mapped_len_max = Some(4 * SEGMENT_LEN);
    options.unmap_after = Some(Duration::from_millis(3));
    let (queue, mut writer) = SegmentQueue::open(OsIo, &options).unwrap();
    let ahead = PreallocateOptions {
        create_below: SEGMENT_LEN,
        window: 8192,
        ..PreallocateOptions::for_segment_len(SEGMENT_LEN)
    };
    let mut preallocator = Preallocator::new(Arc::clone(&queue), ahead);
    let done = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let readers = [(); 2].map(|()| scope.spawn(|| read(&queue, &done)));
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                preallocator.step().unwrap();
                queue.flush(FlushPolicy::LeastPages(4)).unwrap();
                let keep = 8 * SEGMENT_LEN;
                queue
                    .trim_to(queue.published().saturating_sub(keep))
                    .unwrap();
                queue.step_unmap(start.elapsed(), &[queue.min_offset()]);
                if start.elapsed().as_millis().is_multiple_of(8) {
                    queue.release();
                }
            }
        });
        for index in 0..RECORD_COUNT {
            let bytes = record(index * RECORD_LEN as u64);
            while let Err(error) = writer.append(&[&bytes[..5], &bytes[5..]]) {
                assert!(matches!(error, AppendError::NeedsRoll { .. }), "{error}");
                writer.roll().unwrap();
            }
            writer.publish();
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert_eq!(queue.published(), RECORD_COUNT * RECORD_LEN as u64);
    assert_eq!(queue.flush(FlushPolicy::All).unwrap(), queue.published());
}

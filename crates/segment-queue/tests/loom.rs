//! The writer, readers, and those who unmap and remove segments, in every order of their steps that
//! matters: `cargo xtask loom`. What runs here is the queue itself, on a simulated device whose
//! mapped bytes loom watches.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a model that does not hold panics")]

use std::sync::Arc;
use std::time::Duration;

use segment_queue::mmap_core::WatchedIo;
use segment_queue::mmap_core::sync::{model, thread};
use segment_queue::{
    FlushPolicy, PreallocateOptions, Preallocator, QueueError, SegmentQueue, SegmentQueueOptions,
    SegmentWriter,
};

const SEGMENT_LEN: u64 = 2;

type Queue = Arc<SegmentQueue<WatchedIo>>;
type Writer = SegmentWriter<WatchedIo>;

fn options() -> SegmentQueueOptions {
    SegmentQueueOptions::new("/log", SEGMENT_LEN)
}

/// A queue whose content is `letters`, written and published by two.
fn queue(options: &SegmentQueueOptions, letters: &[u8]) -> (Queue, Writer) {
    let (queue, mut writer) = SegmentQueue::open(WatchedIo::new(), options).unwrap();
    for part in letters.chunks(SEGMENT_LEN as usize) {
        append(&mut writer, part);
    }
    (queue, writer)
}

/// Appends what fits in a segment.
fn append(writer: &mut Writer, part: &[u8]) {
    if writer.remaining() == 0 {
        writer.roll().unwrap();
    }
    writer.append(&[part]).unwrap();
    writer.publish();
}

/// Reads from `offset` what its segment has of the content, which is `letters`.
fn read(queue: &Queue, offset: u64, letters: &[u8]) -> usize {
    let Some(slice) = queue.slice_from(offset) else {
        return 0;
    };
    let bytes = slice.read();
    assert_eq!(bytes, letters[offset as usize..][..bytes.len()]);
    bytes.len()
}

#[test]
fn a_reader_follows_the_writer_into_the_next_segment() {
    model(|| {
        let (queue, mut writer) = queue(&options(), b"a");
        let reader = thread::spawn(move || {
            let first = read(&queue, 0, b"abcd");
            assert!(first >= 1, "published before");
            read(&queue, first as u64, b"abcd");
        });
        append(&mut writer, b"b");
        append(&mut writer, b"c");
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_that_maps_for_itself_sees_what_another_thread_wrote() {
    model(|| {
        let (queue, mut writer) = queue(&options(), b"ab");
        let reader = thread::spawn(move || read(&queue, 0, b"abc"));
        append(&mut writer, b"c");
        writer.park();
        assert_eq!(reader.join().unwrap(), 2);
    });
}

#[test]
fn a_mapping_does_not_hide_what_is_published_later() {
    model(|| {
        let (queue, mut writer) = queue(&options(), b"a");
        writer.park();
        let reader = thread::spawn({
            let queue = Arc::clone(&queue);
            move || assert!(read(&queue, 0, b"a\0") >= 1)
        });
        writer.roll().unwrap();
        reader.join().unwrap();
        assert_eq!(read(&queue, 0, b"a\0"), 2);
    });
}

#[test]
fn a_segment_is_removed_beside_its_reader() {
    model(|| {
        let (queue, writer) = queue(&options(), b"abcd");
        queue.flush(FlushPolicy::All).unwrap();
        queue.release();
        let reader = thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                let slice = queue.try_slice(0, 2).unwrap();
                let is_gone = queue.min_offset() > 0;
                assert!(slice.is_some() || is_gone);
                drop(queue);
                assert!(slice.is_none_or(|slice| slice.read() == b"ab"));
            }
        });
        assert_eq!(queue.trim_to(2).unwrap().segment_count, 1);
        assert!(queue.try_slice(0, 2).unwrap().is_none());
        drop(writer);
        reader.join().unwrap();
        assert_eq!(queue.mapped_len(), SEGMENT_LEN, "the writer's");
    });
}

#[test]
fn readers_unmap_what_others_read_to_keep_the_budget() {
    model(|| {
        let options = SegmentQueueOptions {
            mapped_len_max: Some(SEGMENT_LEN),
            ..options()
        };
        let (queue, writer) = queue(&options, b"abcde");
        let reader = thread::spawn({
            let queue = Arc::clone(&queue);
            move || assert_eq!(read(&queue, 0, b"abcde"), 2)
        });
        assert_eq!(read(&queue, 2, b"abcde"), 2);
        reader.join().unwrap();
        queue.step_unmap(Duration::ZERO, &[]);
        assert_eq!(queue.mapped_len(), SEGMENT_LEN, "the writer's");
        drop(writer);
    });
}

#[test]
fn what_a_slice_holds_is_not_unpinned() {
    model(|| {
        let io = WatchedIo::new();
        let (_, mut writer) = SegmentQueue::open(io.clone(), &options()).unwrap();
        append(&mut writer, b"ab");
        writer.close().unwrap();
        let queue = SegmentQueue::open_read_only(io, &options()).unwrap();
        let reader = thread::spawn({
            let queue = Arc::clone(&queue);
            move || read(&queue, 0, b"ab")
        });
        let limited = queue.limit_to(1);
        let read = reader.join().unwrap();
        match limited {
            Ok(()) => assert!(read <= 2 && queue.mapped_len() <= SEGMENT_LEN),
            Err(error) => assert!(matches!(error, QueueError::Pinned { .. })),
        }
    });
}

/// Makes the next segment on another thread, and appends to it meanwhile.
fn check_next_segment(is_served: bool) {
    model(move || {
        let (queue, mut writer) = queue(&options(), b"ab");
        let options = PreallocateOptions {
            create_below: SEGMENT_LEN,
            count: 1,
            window: 0,
            warm_up: None,
        };
        let mut preallocator = Preallocator::new(Arc::clone(&queue), options);
        let served = is_served.then(|| queue.serve_ahead(|| {}));
        let preparing = thread::spawn(move || {
            preallocator.step().unwrap();
        });
        append(&mut writer, b"cd");
        preparing.join().unwrap();
        drop(served);
        assert_eq!(read(&queue, 2, b"abcd"), 2);
    });
}

#[test]
fn the_writer_gets_the_segment_that_another_thread_makes() {
    check_next_segment(true);
}

#[test]
fn no_segment_is_made_twice() {
    check_next_segment(false);
}

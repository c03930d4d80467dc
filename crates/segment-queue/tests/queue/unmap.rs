//! Segments that are not used are unmapped; whoever needs them gets them again.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mmap_core::{Io, OsIo, SimIo};
use segment_queue::{SegmentQueue, SegmentQueueOptions, SegmentWriter, Unmapped};

const SEGMENT_LEN: u64 = 8192;

/// A queue of `count` full segments, each of which holds its number, and an empty one, mapped for
/// its writer.
fn filled<I: Io>(
    io: &I,
    dir: &Path,
    count: u64,
    change: impl FnOnce(&mut SegmentQueueOptions),
) -> (Arc<SegmentQueue<I>>, SegmentWriter<I>) {
    let mut options = SegmentQueueOptions::new(dir, SEGMENT_LEN);
    options.allocate_step = 4096;
    change(&mut options);
    let (_, mut writer) = SegmentQueue::open(io.clone(), &options).unwrap();
    for index in 0..count {
        writer.roll().unwrap();
        writer.append(&[&[index as u8; 8]]).unwrap();
    }
    writer.roll().unwrap();
    writer.close().unwrap();
    let (queue, mut writer) = SegmentQueue::open(io.clone(), &options).unwrap();
    writer.resume(count * SEGMENT_LEN).unwrap();
    writer.append(&[b"tail"]).unwrap();
    writer.publish();
    (queue, writer)
}

fn read<I: Io>(queue: &SegmentQueue<I>, index: u64) {
    let slice = queue.slice(index * SEGMENT_LEN, 8).unwrap();
    assert_eq!(*slice, [index as u8; 8]);
}

/// Which segments are mapped.
fn mapped<I: Io>(queue: &SegmentQueue<I>) -> Vec<u64> {
    let segments = queue.segments();
    let mapped = segments.iter().filter(|segment| segment.is_mapped());
    let mapped: Vec<_> = mapped.map(|one| one.base() / SEGMENT_LEN).collect();
    assert_eq!(queue.mapped_len(), mapped.len() as u64 * SEGMENT_LEN);
    mapped
}

#[test]
fn the_least_recently_read_is_unmapped_when_the_budget_is_exceeded() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _writer) = filled(&OsIo, dir.path(), 6, |options| {
        options.mapped_len_max = Some(3 * SEGMENT_LEN);
    });
    assert_eq!(mapped(&queue), [6], "the writer's");
    read(&queue, 0);
    let held = queue.slice(SEGMENT_LEN, 8).unwrap();
    assert_eq!(mapped(&queue), [0, 1, 6]);
    read(&queue, 0);
    read(&queue, 4);
    assert_eq!(mapped(&queue), [0, 4, 6]);
    assert_eq!(*held, [1; 8], "a slice keeps its mapping");
    for index in [1, 2, 3, 0, 5, 4] {
        read(&queue, index);
        assert_eq!(mapped(&queue).len(), 3);
    }
    assert_eq!(mapped(&queue), [4, 5, 6]);
}

#[test]
fn what_is_not_read_for_a_time_is_unmapped_but_for_what_is_to_stay() {
    let dir = tempfile::tempdir().unwrap();
    let seconds = Duration::from_secs;
    let (queue, mut writer) = filled(&OsIo, dir.path(), 4, |options| {
        options.unmap_after = Some(seconds(60));
    });
    (0..4).for_each(|index| read(&queue, index));
    assert_eq!(
        queue.step_unmap(seconds(5_000), &[]),
        Unmapped::default(),
        "what was used before the first step is as old as it"
    );
    read(&queue, 2);
    queue.step_unmap(seconds(5_050), &[]);
    read(&queue, 1);
    let unmapped = queue.step_unmap(seconds(5_060), &[3 * SEGMENT_LEN + 17]);
    assert_eq!((unmapped.segment_count, unmapped.len), (2, 2 * SEGMENT_LEN));
    assert_eq!(mapped(&queue), [1, 3, 4]);
    queue.step_unmap(seconds(9_000), &[]);
    assert_eq!(mapped(&queue), [4], "the last one is the writer's");

    writer.roll().unwrap();
    assert_eq!(queue.step_unmap(seconds(9_059), &[]), Unmapped::default());
    assert_eq!(queue.step_unmap(seconds(9_060), &[]).segment_count, 1);
    assert_eq!(mapped(&queue), [5]);
    (0..4).for_each(|index| read(&queue, index));
    assert_eq!(&*queue.slice(4 * SEGMENT_LEN, 4).unwrap(), b"tail");
}

#[test]
fn a_budget_below_what_must_stay_unmaps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _writer) = filled(&OsIo, dir.path(), 3, |options| {
        options.mapped_len_max = Some(0);
    });
    read(&queue, 0);
    read(&queue, 1);
    assert_eq!(
        mapped(&queue),
        [1, 3],
        "what was just mapped serves its reader"
    );
    queue.step_unmap(Duration::ZERO, &[2 * SEGMENT_LEN]);
    assert_eq!(mapped(&queue), [3]);
    read(&queue, 2);
    read(&queue, 0);
    assert_eq!(mapped(&queue), [0, 2, 3], "kept by the last step");
}

#[test]
fn what_a_writer_leaves_behind_keeps_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, mut writer) = filled(&OsIo, dir.path(), 2, |options| {
        options.mapped_len_max = Some(3 * SEGMENT_LEN);
    });
    for _ in 0..5 {
        writer.roll().unwrap();
    }
    assert_eq!(mapped(&queue), [5, 6, 7]);
}

#[test]
fn what_is_unmapped_is_flushed_all_the_same() {
    let io = SimIo::new(3);
    let (queue, mut writer) = filled(&io, Path::new("/queue"), 1, |options| {
        options.mapped_len_max = Some(0);
    });
    writer.append(&[b" bytes"]).unwrap();
    writer.roll().unwrap();
    assert_eq!(queue.step_unmap(Duration::ZERO, &[]).segment_count, 1);
    queue.flush(segment_queue::FlushPolicy::All).unwrap();
    let io = io.crash(mmap_core::CrashStyle::LoseUnsynced);
    let options = SegmentQueueOptions::new("/queue", SEGMENT_LEN);
    let (queue, _) = SegmentQueue::open(io, &options).unwrap();
    assert_eq!(&*queue.slice(SEGMENT_LEN, 10).unwrap(), b"tail bytes");
}

#[test]
fn idle_mappings_give_way_when_address_space_is_used_up() {
    let io = SimIo::new(4);
    let (queue, mut writer) = filled(&io, Path::new("/queue"), 4, |_| {});
    read(&queue, 0);
    read(&queue, 1);
    io.fail_next("map", ErrorKind::OutOfMemory);
    read(&queue, 2);
    assert_eq!(mapped(&queue), [2, 4]);
    io.fail_next("map", ErrorKind::OutOfMemory);
    writer.roll().unwrap();
    assert_eq!(
        mapped(&queue),
        [4, 5],
        "the writer's, which it has just left, is its own yet"
    );

    queue.release();
    for nth in [1, 2] {
        io.fail_nth("map", nth, ErrorKind::OutOfMemory);
    }
    let refusal = queue.try_slice(0, 8).expect_err("it is tried twice");
    assert!(refusal.is_out_of_memory(), "{refusal}");
    read(&queue, 0);
}

#[test]
fn a_range_of_a_file_holds_what_the_slice_shows_and_keeps_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = filled(&OsIo, dir.path(), 3, |_| ());
    let bytes = |offset, len| {
        let range = queue.file_range(offset, len).unwrap()?;
        let mut bytes = Vec::new();
        range.read_to(&mut bytes).unwrap();
        Some(bytes)
    };
    assert_eq!(bytes(3 * SEGMENT_LEN, 4).unwrap(), b"tail", "the writer's");
    for index in [0, 1, 0] {
        assert_eq!(
            bytes(index * SEGMENT_LEN + 6, 4).unwrap(),
            [index as u8, index as u8, 0, 0]
        );
    }
    assert_eq!(bytes(SEGMENT_LEN - 1, 2), None, "across a border");
    assert_eq!(bytes(3 * SEGMENT_LEN, 5), None, "beyond what is published");
    read(&queue, 1);
    let held = queue.file_range(SEGMENT_LEN, 8).unwrap().unwrap();
    let again = queue.file_range(SEGMENT_LEN, 8).unwrap().unwrap();
    assert!(
        Arc::ptr_eq(held.file(), again.file()),
        "kept beside the mapping"
    );
    drop(writer);
    queue.flush(segment_queue::FlushPolicy::All).unwrap();
    queue.trim_to(2 * SEGMENT_LEN).unwrap();
    assert_eq!(bytes(SEGMENT_LEN, 8), None);
    assert_eq!(
        Arc::strong_count(held.file()),
        2,
        "the queue has let go of it"
    );
    let mut kept = Vec::new();
    held.read_to(&mut kept).unwrap();
    assert_eq!(kept, [1; 8]);
}

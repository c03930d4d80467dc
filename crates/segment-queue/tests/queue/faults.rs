//! Full and failing devices.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use mmap_core::SimIo;
use segment_queue::{
    AppendError, FlushPolicy, QueueError, SegmentQueue, SegmentQueueOptions, SegmentWriter,
};

const SEGMENT_LEN: u64 = 64 * 1024;

fn open(io: &SimIo) -> (Arc<SegmentQueue<SimIo>>, SegmentWriter<SimIo>) {
    let mut options = SegmentQueueOptions::new("/store/queue", SEGMENT_LEN);
    options.allocate_step = 4096;
    SegmentQueue::open(io.clone(), &options).unwrap()
}

fn append(writer: &mut SegmentWriter<SimIo>, byte: u8) -> Result<u64, AppendError> {
    let offset = writer.append(&[&[byte; 1000]])?;
    writer.publish();
    Ok(offset)
}

#[test]
fn a_full_disk_refuses_and_passes_by_itself() {
    let io = SimIo::new(1);
    let (queue, mut writer) = open(&io);
    writer.roll().unwrap();
    io.space_limit(10_000);
    let mut count = 0_u64;
    let refusal = loop {
        match append(&mut writer, 1) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    let AppendError::Queue(QueueError::Full {
        requested,
        used,
        available,
        total,
        is_quota: false,
        path,
    }) = refusal
    else {
        panic!("{refusal}");
    };
    assert_eq!(
        (requested, used, available, total),
        (4096, 8192, 1808, 10_000)
    );
    assert!(path.starts_with("/store/queue"));
    assert_eq!(count, 8);
    assert_eq!(writer.position(), 8000);
    assert_eq!(
        queue.slice_from(0).unwrap().len(),
        8000,
        "what is there can be read"
    );
    assert_eq!(queue.flush(FlushPolicy::All).unwrap(), 8000, "and synced");
    let parts = [IoSlice::new(&[2; 1000])];
    assert!(matches!(
        writer.write_through(&parts),
        Err(AppendError::Queue(QueueError::Full { .. }))
    ));

    io.space_limit(1 << 20);
    assert_eq!(append(&mut writer, 3).unwrap(), 8000);
    assert_eq!(writer.write_through(&parts).unwrap(), 9000);
    assert_eq!(&*queue.slice(8999, 2).unwrap(), &[3, 2]);
}

#[test]
fn a_roll_on_a_full_disk_leaves_no_file() {
    let io = SimIo::new(1);
    let (queue, mut writer) = open(&io);
    writer.roll().unwrap();
    append(&mut writer, 1).unwrap();
    io.space_limit(4096);
    assert!(matches!(writer.roll(), Err(QueueError::Full { .. })));
    assert_eq!((writer.position(), queue.segments().len()), (1000, 1));
    append(&mut writer, 2).unwrap();
    let (again, _) = open(&io);
    assert_eq!(again.segments().len(), 1);
    io.space_limit(8192);
    writer.roll().unwrap();
    assert_eq!(writer.position(), SEGMENT_LEN);
}

#[test]
fn a_disk_that_is_full_in_spite_of_its_promise_leaves_zeros() {
    let io = SimIo::new(1);
    let (queue, mut writer) = open(&io);
    writer.roll().unwrap();
    io.fail_next("write", ErrorKind::StorageFull);
    let parts = [IoSlice::new(&[2; 1000])];
    let refusal = writer.write_through(&parts).expect_err("full");
    assert!(matches!(
        refusal,
        AppendError::Queue(QueueError::Full { .. })
    ));
    assert!(!queue.is_poisoned());
    assert_eq!(writer.write_through(&parts).unwrap(), 0);
    io.fail_next("write", ErrorKind::StorageFull);
    let refusal = writer.write_behind(&parts).expect_err("full");
    assert!(matches!(
        refusal,
        AppendError::Queue(QueueError::Full { .. })
    ));
    assert_eq!(queue.published(), 1000, "nothing of it is shown");
    assert_eq!(writer.write_behind(&parts).unwrap(), 1000);
    assert_eq!((queue.published(), queue.flushed()), (2000, 1000));
}

/// After the failure nothing is written, nothing becomes durable, and what was is read.
#[track_caller]
fn check_poisoned(queue: &SegmentQueue<SimIo>, writer: &mut SegmentWriter<SimIo>, flushed: u64) {
    assert!(queue.is_poisoned());
    assert_eq!(queue.flushed(), flushed);
    let poisoned = |error: &QueueError| matches!(error, QueueError::Poisoned { .. });
    assert!(poisoned(
        &queue.flush(FlushPolicy::All).expect_err("poisoned")
    ));
    assert!(poisoned(&writer.roll().expect_err("poisoned")));
    match append(writer, 9) {
        Err(AppendError::Queue(error)) => assert!(poisoned(&error), "{error}"),
        other => panic!("{other:?}"),
    }
    match writer.write_through(&[IoSlice::new(&[9])]) {
        Err(AppendError::Queue(error)) => assert!(poisoned(&error), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(queue.flushed(), flushed);
    assert_eq!(
        queue.slice_from(0).map_or(0, |slice| slice.len() as u64),
        queue.published()
    );
}

#[test]
fn a_failed_sync_of_the_mapping_ends_writing() {
    let io = SimIo::new(1);
    let (queue, mut writer) = open(&io);
    writer.roll().unwrap();
    append(&mut writer, 1).unwrap();
    queue.flush(FlushPolicy::All).unwrap();
    append(&mut writer, 2).unwrap();
    io.fail_next("msync", ErrorKind::Other);
    assert!(matches!(
        queue.flush(FlushPolicy::All),
        Err(QueueError::Io(_))
    ));
    check_poisoned(&queue, &mut writer, 1000);
}

#[test]
fn a_failed_write_or_sync_of_a_group_ends_writing_and_shows_nothing() {
    for op in ["write", "sync_data"] {
        let io = SimIo::new(1);
        let (queue, mut writer) = open(&io);
        writer.roll().unwrap();
        let parts = [IoSlice::new(&[2; 1000])];
        writer.write_through(&parts).unwrap();
        io.fail_next(op, ErrorKind::Other);
        let refusal = writer.write_through(&parts).expect_err("failed");
        assert!(
            matches!(refusal, AppendError::Queue(QueueError::Io(_))),
            "{refusal}"
        );
        assert_eq!(queue.published(), 1000);
        check_poisoned(&queue, &mut writer, 1000);
    }
}

#[test]
fn a_failed_write_behind_ends_writing_and_shows_nothing() {
    let io = SimIo::new(1);
    let (queue, mut writer) = open(&io);
    writer.roll().unwrap();
    let parts = [IoSlice::new(&[2; 1000])];
    writer.write_behind(&parts).unwrap();
    queue.flush(FlushPolicy::All).unwrap();
    io.fail_next("write", ErrorKind::Other);
    let refusal = writer.write_behind(&parts).expect_err("failed");
    assert!(matches!(refusal, AppendError::Queue(QueueError::Io(_))));
    assert_eq!(queue.published(), 1000);
    check_poisoned(&queue, &mut writer, 1000);
}

#[test]
fn segments_are_flushed_one_after_the_other() {
    let io = SimIo::new(1);
    let (queue, mut writer) = open(&io);
    for byte in 0..3 {
        writer.roll().unwrap();
        append(&mut writer, byte).unwrap();
    }
    assert_eq!(queue.flushed(), 0);
    io.fail_nth("msync", 2, ErrorKind::Other);
    assert!(queue.flush(FlushPolicy::All).is_err());
    assert_eq!(queue.flushed(), SEGMENT_LEN, "the first segment was synced");
    assert!(queue.is_poisoned());
}

#[test]
fn what_the_kernel_failed_to_write_before_ends_writing_where_nobody_has_looked() {
    let io = SimIo::new(1);
    let (_, mut writer) = open(&io);
    writer.roll().unwrap();
    append(&mut writer, 1).unwrap();
    drop(writer);
    let (queue, mut writer) = open(&io);
    writer.resume(1000).unwrap();
    writer.mark_unflushed(0);
    writer.write_again_later(1000);
    io.fail_next("sync_data", ErrorKind::Other);
    queue
        .flush(FlushPolicy::All)
        .expect_err("told by the first sync");
    check_poisoned(&queue, &mut writer, 0);
}

#[test]
fn a_trim_that_fails_can_be_repeated() {
    let io = SimIo::new(1);
    let (queue, mut writer) = open(&io);
    for byte in 0..3 {
        writer.roll().unwrap();
        append(&mut writer, byte).unwrap();
    }
    assert_eq!(
        queue.trim_to(u64::MAX).unwrap().segment_count,
        0,
        "nothing is flushed yet"
    );
    queue.flush(FlushPolicy::All).unwrap();
    io.fail_nth("remove", 2, ErrorKind::PermissionDenied);
    assert!(queue.trim_to(2 * SEGMENT_LEN).is_err());
    assert_eq!(queue.min_offset(), SEGMENT_LEN);
    assert_eq!(&*queue.slice(SEGMENT_LEN, 1).unwrap(), &[1]);
    let trimmed = queue.trim_to(u64::MAX).unwrap();
    assert_eq!((trimmed.segment_count, trimmed.len), (1, SEGMENT_LEN));
    assert_eq!(
        queue.min_offset(),
        2 * SEGMENT_LEN,
        "the last segment stays"
    );
}

//! Segments as one address space: append, publish, slice.
#![allow(missing_docs, reason = "criterion's macros make items without docs")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use segment_queue::mmap_core::OsIo;
use segment_queue::{AppendError, SegmentQueue, SegmentQueueOptions, SegmentWriter};
use tempfile::TempDir;

const SEGMENT_LEN: u64 = 4 << 20;
const RECORD: [u8; 1024] = [b'x'; 1024];

struct Opened {
    queue: Arc<SegmentQueue>,
    writer: SegmentWriter,
    _dir: TempDir,
}

fn open() -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let options = SegmentQueueOptions::new(dir.path().join("queue"), SEGMENT_LEN);
    let (queue, mut writer) = SegmentQueue::open(OsIo, &options).unwrap();
    writer.roll().unwrap();
    Opened {
        queue,
        writer,
        _dir: dir,
    }
}

/// Fills one segment.
fn fill(opened: &mut Opened) {
    loop {
        match opened.writer.append(&[black_box(&RECORD)]) {
            Ok(_) => opened.writer.publish(),
            Err(AppendError::NeedsRoll { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn segment_queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment-queue");
    group.throughput(Throughput::Bytes(SEGMENT_LEN));
    group.bench_function("fill a segment of 4 MiB by 1 KiB", |bencher| {
        bencher.iter_batched_ref(open, fill, BatchSize::PerIteration);
    });
    let mut opened = open();
    fill(&mut opened);
    let end = opened.queue.published();
    let mut offset = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("slice of 1 KiB", |bencher| {
        bencher.iter(|| {
            offset = if offset + 2048 > end {
                0
            } else {
                offset + 1024
            };
            opened.queue.slice(offset, 1024).map(|slice| slice.len())
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    // Short: what is appended stays on the disk until the end.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = segment_queue
}
criterion_main!(benches);

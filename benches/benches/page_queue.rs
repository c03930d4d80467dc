//! The queue for embedders: push, read by number, pop.
#![allow(missing_docs, reason = "criterion's macros make items without docs")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use page_queue::mmap_core::OsIo;
use page_queue::{PageQueue, PageQueueOptions, WhenFull};

fn page_queue(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = PageQueueOptions::new(dir.path().join("queue"));
    options.size_max = Some(1 << 30);
    options.when_full = WhenFull::DropOldest;
    let (queue, _report) = PageQueue::open(OsIo, &options).unwrap();
    let item = [b'x'; 1024];
    let mut group = criterion.benchmark_group("page-queue");
    group.throughput(Throughput::Elements(1));
    let mut last = queue.push(&item).unwrap();
    group.bench_function("push 1 KiB", |bencher| {
        bencher.iter(|| last = queue.push(black_box(&item)).unwrap());
    });
    group.bench_function("get 1 KiB by number", |bencher| {
        bencher.iter(|| queue.get(black_box(last)).unwrap().len());
    });
    let mut reader = queue.reader("bench").unwrap();
    group.bench_function("push and pop 1 KiB", |bencher| {
        bencher.iter(|| {
            queue.push(black_box(&item)).unwrap();
            reader.pop().unwrap().map(|item| item.len())
        });
    });
    group.finish();
    drop(reader);
    queue.close().unwrap();
}

criterion_group! {
    name = benches;
    // Short: what is appended stays on the disk until the end.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = page_queue
}
criterion_main!(benches);

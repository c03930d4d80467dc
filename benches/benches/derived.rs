//! The queues' and the index's entries: put, read, query.
#![allow(missing_docs, reason = "criterion's macros make items without docs")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::Duration;

use consumequeue::{ConsumeQueueOptions, ConsumeQueueSet, Entry};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use indexfile::{IndexOptions, IndexService};
use mmap_core::OsIo;

fn queue(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("consumequeue");
    let policy = consumequeue::OpenPolicy::Clean;
    let options = ConsumeQueueOptions::DEFAULT;
    let (set, _report) = ConsumeQueueSet::open(OsIo, &root, options, policy).unwrap();
    let queue = set.find_or_create("BenchTopic", 3).unwrap();
    let mut group = criterion.benchmark_group("consumequeue");
    let mut count = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("put", |bencher| {
        bencher.iter(|| {
            let entry = Entry {
                physical_offset: count * 1024,
                size: 1024,
                tags_code: 7,
            };
            queue.put(black_box(count), entry).unwrap();
            count += 1;
        });
    });
    group.throughput(Throughput::Elements(32));
    let mut start = 0;
    group.bench_function("read 32", |bencher| {
        bencher.iter(|| {
            start = (start + 32) % (count - 32).max(1);
            let entries = queue.entries(start, 32).unwrap();
            entries.map_or(0, |entries| {
                entries.iter().map(|(_, entry)| entry.tags_code).sum()
            })
        });
    });
    group.finish();
    set.close().unwrap();
}

fn index(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("index");
    let policy = indexfile::OpenPolicy::Clean;
    let (index, _report) = IndexService::open(OsIo, &root, IndexOptions::DEFAULT, policy).unwrap();
    let mut group = criterion.benchmark_group("indexfile");
    let mut count = 0_u64;
    group.throughput(Throughput::Elements(1));
    group.bench_function("put", |bencher| {
        bencher.iter(|| {
            let key = format!("key-{count}");
            index
                .put("BenchTopic", &key, count * 1024, 1_700_000_000_000)
                .unwrap();
            count += 1;
        });
    });
    group.bench_function("query", |bencher| {
        let key = format!("key-{}", count - 1);
        bencher.iter(|| {
            index
                .query("BenchTopic", black_box(&key), 32, 0, i64::MAX)
                .unwrap()
                .len()
        });
    });
    group.finish();
    index.close().unwrap();
}

criterion_group! {
    name = benches;
    // Short: what is appended stays on the disk until the end.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = queue, index
}
criterion_main!(benches);

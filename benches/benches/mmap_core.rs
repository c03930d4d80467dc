//! Regions of mapped memory: appending, reading as slices, cells.
#![allow(missing_docs, reason = "criterion's macros make items without docs")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mmap_core::{Access, AppendRegion, CellRegion, Io, IoFile, OsIo, OsMap, RawMap};

const LEN: usize = 16 << 20;

fn map(dir: &tempfile::TempDir, name: &str) -> OsMap {
    let path = dir.path().join(name);
    let _none_was_there = OsIo.remove_file(&path);
    let file = OsIo.create(&path, LEN as u64).unwrap();
    file.allocate(0, LEN as u64).unwrap();
    let map = file.map(0, LEN, Access::ReadWrite).unwrap();
    map.populate_write(0..LEN).unwrap();
    map
}

fn append(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("mmap-core");
    for len in [20, 1024, 65_536] {
        let record = vec![b'x'; len];
        group.throughput(Throughput::Bytes(LEN as u64));
        group.bench_function(
            BenchmarkId::new("fill 16 MiB by records of", len),
            |bencher| {
                bencher.iter_batched_ref(
                    || AppendRegion::new(map(&dir, "append"), 0),
                    |(_, appender)| {
                        while appender.write(&[black_box(&record)]).is_some() {
                            appender.publish();
                        }
                    },
                    BatchSize::PerIteration,
                );
            },
        );
    }
    let (region, mut appender) = AppendRegion::new(map(&dir, "slices"), 0);
    appender.skip(LEN);
    appender.publish();
    group.throughput(Throughput::Elements(1));
    let mut position = 0;
    group.bench_function("slice of 1 KiB", |bencher| {
        bencher.iter(|| {
            position = (position + 1024) % (LEN - 1024);
            region.slice(position..position + 1024).unwrap().len()
        });
    });
    group.finish();
}

fn cells(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let cells = CellRegion::new(map(&dir, "cells"), 40);
    let mut group = criterion.benchmark_group("mmap-core");
    let mut position = 40;
    group.bench_function("cell, store and load", |bencher| {
        bencher.iter(|| {
            position = 40 + (position + 4) % (LEN - 80);
            cells.store_u32(position, black_box(7), Ordering::Release);
            cells.load_u32(position, Ordering::Acquire)
        });
    });
    group.bench_function("20 bytes in cells", |bencher| {
        bencher.iter(|| cells.write_words(40, black_box(&[1; 20])));
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
    targets = append, cells
}
criterion_main!(benches);

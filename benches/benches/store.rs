//! Put and get in process, without sync; dispatch runs beside on its thread.
#![allow(missing_docs, reason = "criterion's macros make items without docs")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use message::Message;
use store::{AllMessages, GetLimits, MessageStore, StoreOptions};

/// Messages of one batch read, as a pull's.
const READ_COUNT: usize = 32;

fn put(store: &MessageStore, body: &[u8]) {
    store
        .put(&Message {
            properties: b"TAGS\x01TagA\x02",
            ..Message::new("BenchTopic", 0, body)
        })
        .unwrap();
}

fn store(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.segment_len = 256 << 20;
    let (store, _report) = MessageStore::open(options).unwrap();
    let body = vec![b'x'; 1024];
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(1));
    group.bench_function("put 1 KiB", |bencher| {
        bencher.iter(|| put(&store, black_box(&body)))
    });
    while store.dispatch_behind_bytes() > 0 {
        std::thread::yield_now();
    }
    let end = store.max_offset("BenchTopic", 0).unwrap();
    let limits = GetLimits {
        count_max: READ_COUNT,
        bytes_max: 1 << 20,
    };
    let mut offset = 0;
    group.throughput(Throughput::Elements(READ_COUNT as u64));
    group.bench_function("get 32 of 1 KiB", |bencher| {
        bencher.iter(|| {
            let got = store
                .get("BenchTopic", 0, offset, &limits, &AllMessages)
                .unwrap();
            offset = if got.next_offset + READ_COUNT as i64 > end {
                0
            } else {
                got.next_offset
            };
            got.messages.byte_len()
        });
    });
    group.finish();
    store.close().unwrap();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = store
}
criterion_main!(benches);

//! Encoding, decoding and dispatch fields of one record.
#![allow(missing_docs, reason = "criterion's macros make items without docs")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use message::{Limits, Message, Parsed, PreparedRecord, RecordView, Stamp};

const PROPERTIES: &[u8] =
    b"KEYS\x01key-0000000001\x02UNIQ_KEY\x01FD000000000000000000000000000001\x02TAGS\x01TagA\x02";

fn message(body: &[u8]) -> Message<'_> {
    Message {
        properties: PROPERTIES,
        ..Message::new("BenchTopic", 0, body)
    }
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    let limits = Limits::default();
    for len in [128, 1024, 4096] {
        let body = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("prepare and stamp", len), |bencher| {
            bencher.iter(|| {
                let mut record = PreparedRecord::new(&message(black_box(&body)), &limits).unwrap();
                record.stamp(Stamp {
                    queue_offset: 1,
                    physical_offset: 2,
                    store_timestamp_ms: 3,
                });
                record.len()
            });
        });
        let bytes = PreparedRecord::new(&message(&body), &limits)
            .unwrap()
            .parts()
            .concat();
        group.bench_function(
            BenchmarkId::new("parse and dispatch fields", len),
            |bencher| {
                bencher.iter(|| {
                    let Ok(Parsed::Record(view)) = RecordView::parse(black_box(&bytes)) else {
                        return 0;
                    };
                    let fields = view.dispatch_fields();
                    fields.tags_code() + fields.index_keys().count() as i64
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, record);
criterion_main!(benches);

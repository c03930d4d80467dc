//! The log: an append without waiting for a sync.
#![allow(missing_docs, reason = "criterion's macros make items without docs")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use commitlog::message::{Message, RecordView};
use commitlog::mmap_core::OsIo;
use commitlog::{
    CallerError, CommitLog, CommitLogOptions, CrcCheck, DirQuarantine, Known, QueueCursor,
    RecoverFrom, SystemClock, Tail,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn commitlog(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = CommitLogOptions::new(dir.path().join("commitlog"));
    options.segment_len = 256 << 20;
    let opening = CommitLog::open(OsIo, options, Arc::new(SystemClock::new())).unwrap();
    let from = RecoverFrom {
        offset: opening.recovery_start(0).unwrap(),
        last_store_ms: 0,
        known: Known::NOTHING,
        crc: CrcCheck::Body,
        tail: Tail::Unknown,
    };
    let mut quarantine = DirQuarantine::new(OsIo, dir.path().join("quarantine"));
    let mut visit = |_: &RecordView<'_>| -> Result<(), CallerError> { Ok(()) };
    let (log, _report) = opening.recover(&from, &mut visit, &mut quarantine).unwrap();
    let services = log.start_services().unwrap();
    let queue = QueueCursor::new(0);
    let body = [b'x'; 1024];
    let mut group = criterion.benchmark_group("commitlog");
    group.throughput(Throughput::Elements(1));
    group.bench_function("prepare and append 1 KiB", |bencher| {
        bencher.iter(|| {
            let mut record = log
                .prepare(&Message {
                    properties: b"TAGS\x01TagA\x02",
                    ..Message::new("BenchTopic", 0, black_box(&body))
                })
                .unwrap();
            log.append(&mut record, &queue).unwrap().physical_offset
        });
    });
    group.finish();
    drop(services);
}

criterion_group! {
    name = benches;
    // Short: what is appended stays on the disk until the end.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = commitlog
}
criterion_main!(benches);

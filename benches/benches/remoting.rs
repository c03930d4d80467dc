//! Frames: cutting and parsing a request, writing an answer.
#![allow(missing_docs, reason = "criterion's macros make items without docs")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use remoting::header::{GetMaxOffsetRequestHeader, OffsetResponseHeader};
use remoting::{Command, CommandView, FrameStep, HeaderWriter, RequestCode, ResponseCode, Scratch};

fn remoting(criterion: &mut Criterion) {
    let request = Command::request(RequestCode::GET_MAX_OFFSET)
        .with_opaque(7)
        .with_header(&GetMaxOffsetRequestHeader {
            topic: "BenchTopic",
            queue_id: 3,
            committed: true,
        });
    let mut stream = Vec::new();
    request.encode(&mut stream).unwrap();
    let mut scratch = Scratch::default();
    let mut group = criterion.benchmark_group("remoting");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode a request", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            black_box(&request).encode(&mut out).unwrap();
            out.len()
        });
    });
    group.bench_function("cut and parse a request", |bencher| {
        bencher.iter(|| {
            let step = remoting::next_frame(black_box(&stream), remoting::FRAME_LEN_MAX).unwrap();
            let FrameStep::Frame(frame) = step else {
                return 0;
            };
            let view = CommandView::parse(&stream[..frame.len], &mut scratch).unwrap();
            let header: GetMaxOffsetRequestHeader<'_> = view.header().unwrap();
            header.queue_id
        });
    });
    let mut scratch = Scratch::default();
    let view = CommandView::parse(&stream, &mut scratch).unwrap();
    group.bench_function("write an answer", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            let mut writer =
                HeaderWriter::response(&mut out, black_box(&view), ResponseCode::SUCCESS, None);
            writer.header(&OffsetResponseHeader { offset: 42 });
            writer.finish(0).unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, remoting);
criterion_main!(benches);

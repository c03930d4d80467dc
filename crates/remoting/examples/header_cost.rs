//! What it costs to read a send request's header and to write its response's.
//!
//! `cargo run --release -p remoting --example header_cost`
#![allow(clippy::print_stdout, reason = "prints its results")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use remoting::header::{
    PullMessageRequestHeader, PullMessageResponseHeader, SendMessageRequestHeader,
    SendMessageRequestHeaderV2, SendMessageResponseHeader,
};
use remoting::{
    Command, CommandView, FieldSink, HeaderWriter, RequestCode, ResponseCode, Scratch,
    SerializeType, WriterHead,
};

/// Calls in one run: short enough that most runs are not interrupted on a busy machine.
const CALLS: u32 = 1_000;
/// Runs of which the median and the fastest are printed.
const RUNS: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    for serialize in [SerializeType::Json, SerializeType::RocketMq] {
        let send = encoded(serialize, send_request())?;
        let pull = encoded(serialize, pull_request())?;
        let mut scratch = Scratch::default();
        report("read send header", serialize, || {
            let view = CommandView::parse(black_box(&send), &mut scratch)?;
            black_box(SendMessageRequestHeader::from_view(&view)?);
            Ok(())
        })?;
        report("read pull header", serialize, || {
            let view = CommandView::parse(black_box(&pull), &mut scratch)?;
            black_box(view.header::<PullMessageRequestHeader<'_>>()?);
            Ok(())
        })?;
        let mut out = Vec::with_capacity(4096);
        report("write send response", serialize, || {
            out.clear();
            write_send_response(&mut out, serialize)
        })?;
        report("write pull response", serialize, || {
            out.clear();
            write_pull_response(&mut out, serialize)
        })?;
    }
    Ok(())
}

/// As the Java client sends a message with TAGS, KEYS and UNIQ_KEY.
fn send_request() -> Command {
    Command::request(RequestCode::SEND_MESSAGE_V2)
        .with_header(&SendMessageRequestHeaderV2 {
            producer_group: "please_rename_unique_group_name",
            topic: "TopicTest",
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id: 3,
            born_timestamp: 1_700_000_000_000,
            properties: Some(
                "KEYS\u{1}order-000000001\u{2}UNIQ_KEY\u{1}7F0000010E3A18B4AAC2\
                 8D2A6F3B0000\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}",
            ),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(false),
            broker_name: Some("broker-a"),
            ..Default::default()
        })
        .with_body(vec![b'x'; 1_024])
}

fn pull_request() -> Command {
    Command::request(RequestCode::PULL_MESSAGE).with_header(&PullMessageRequestHeader {
        consumer_group: "please_rename_unique_group_name",
        topic: "TopicTest",
        queue_id: 3,
        queue_offset: 123_456_789,
        max_msg_nums: 32,
        sys_flag: 3,
        commit_offset: 123_456_700,
        suspend_timeout_millis: 15_000,
        sub_version: 1_700_000_000_000,
        expression_type: Some("TAG"),
        ..Default::default()
    })
}

fn encoded(serialize: SerializeType, mut command: Command) -> Result<Vec<u8>, Box<dyn Error>> {
    command.serialize = serialize;
    let mut frame = Vec::new();
    command.encode(&mut frame)?;
    Ok(frame)
}

fn write_send_response(out: &mut Vec<u8>, serialize: SerializeType) -> Result<(), Box<dyn Error>> {
    let head = WriterHead::response(serialize, black_box(77), ResponseCode::SUCCESS, None);
    let mut writer = HeaderWriter::new(out, head);
    writer.header(&SendMessageResponseHeader {
        msg_id: "7F00000100002A9F0000000000A1B2C3",
        queue_id: black_box(3),
        queue_offset: black_box(123_456_789),
        transaction_id: Some("7F0000010E3A18B4AAC28D2A6F3B0000"),
        ..Default::default()
    });
    writer.put("MSG_REGION", "DefaultRegion".into());
    writer.put("TRACE_ON", true.into());
    black_box(writer.finish(0)?);
    Ok(())
}

fn write_pull_response(out: &mut Vec<u8>, serialize: SerializeType) -> Result<(), Box<dyn Error>> {
    let head = WriterHead::response(
        serialize,
        black_box(77),
        ResponseCode::SUCCESS,
        Some("FOUND"),
    );
    let mut writer = HeaderWriter::new(out, head);
    writer.header(&PullMessageResponseHeader {
        next_begin_offset: black_box(123_456_821),
        max_offset: black_box(123_999_999),
        topic_sys_flag: Some(0),
        group_sys_flag: Some(0),
        ..Default::default()
    });
    black_box(writer.finish(32 * 1_200)?);
    Ok(())
}

/// Prints the median and the fastest run, in nanoseconds per call.
fn report(
    what: &str,
    serialize: SerializeType,
    mut call: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut runs = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..CALLS {
            call()?;
        }
        runs.push(start.elapsed());
    }
    runs.sort();
    let each_ns =
        |run: Option<&Duration>| run.copied().unwrap_or_default().as_nanos() / u128::from(CALLS);
    let (median, fastest) = (each_ns(runs.get(RUNS / 2)), each_ns(runs.first()));
    println!("{what:20} {serialize:?}: median {median} ns, fastest {fastest} ns");
    Ok(())
}

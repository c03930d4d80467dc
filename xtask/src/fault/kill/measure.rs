//! `--measure`: how long a restart after SIGKILL takes, and what of it depends on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use client::Connection;
use message::{BatchMessage, encode_batch_message};
use remoting::header::SendMessageRequestHeaderV2;
use remoting::{Command, RequestCode, ResponseCode};

use super::life::{Life, Program, Start};

const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of each body.
const BODY_LEN: usize = 1024;
/// Messages of each batch, and batches under way.
const BATCH_COUNT: usize = 32;
const WINDOW: usize = 16;
/// How often each restart is repeated, without sends in between.
const REPEATS: usize = 3;

/// What is in the store when it is killed: bytes of bodies, and topics of four queues.
const STEPS: [(u64, usize); 6] = [
    (0, 1),
    (64 << 20, 1),
    (512 << 20, 4),
    (1_000 << 20, 4),
    (2_500 << 20, 4),
    (2_510 << 20, 500),
];

/// Fills one store with RocketMQ's sizes, kills its broker at each step, and prints how long it
/// took to be ready again.
pub fn run(binary: &Path, dir: &Path) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("fault-kill-")
        .tempdir_in(dir)?;
    let configuration = dir.path().join("broker.conf");
    let text = format!(
        "brokerName=measured\nlistenPort=0\nfoliomq.namesrvListen=127.0.0.1:0\n\
         storePathRootDir={}\n",
        dir.path().join("store").display()
    );
    std::fs::write(&configuration, text)?;
    let program = Program {
        binary: binary.to_owned(),
        configuration,
        sabotage: None,
    };
    let mut sent = 0;
    for (bytes, topics) in STEPS {
        let life = ready(&program)?;
        sent += fill(&life, bytes.saturating_sub(sent), topics)?;
        life.kill()?;
        println!("killed with {} MiB of bodies, {topics} topics:", sent >> 20);
        for _ in 0..REPEATS {
            let life = ready(&program)?;
            show(&life);
            life.kill()?;
        }
    }
    ready(&program)?.stop(None)?;
    let life = ready(&program)?;
    println!("stopped cleanly:");
    show(&life);
    life.stop(None)?;
    Ok(())
}

/// How long the start took, and which of its phases took how much.
fn show(life: &Life) {
    let ms = life.ready_after.as_secs_f64() * 1e3;
    println!("  ready after {ms:.1} ms; {}", life.recovery);
    let log = life.log();
    let phases = log
        .split_once("phases=\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    if let Some((phases, _)) = phases {
        println!("    {phases}");
    }
}

fn ready(program: &Program) -> Result<Life> {
    match program.start(None, None)? {
        Start::Ready(life) => Ok(life),
        Start::Killed(_) => bail!("killed, and nobody did it"),
    }
}

/// Sends so many bytes of bodies, at least one batch to each topic; what it sent.
fn fill(life: &Life, bytes: u64, topics: usize) -> Result<u64> {
    let mut connection = Connection::connect(&life.broker, PATIENCE)?;
    let body = vec![b'm'; BODY_LEN];
    let batch_len = (BATCH_COUNT * BODY_LEN) as u64;
    let batches = bytes.div_ceil(batch_len);
    let mut under_way = BTreeMap::new();
    let mut next = 0;
    let mut done = 0;
    while done < batches {
        while under_way.len() < WINDOW && next < batches {
            let topic = format!("M{}", next % topics as u64);
            let request = batch_request(&topic, (next / topics as u64 % 4) as i32, next, &body)?;
            under_way.insert(connection.send(request)?, next);
            next += 1;
        }
        let answer = connection
            .receive(Instant::now() + PATIENCE)?
            .context("no answer to a send")?;
        let code = answer.response_code();
        ensure!(
            code == ResponseCode::SUCCESS,
            "a send was refused: {code} {:?}",
            answer.remark
        );
        under_way.remove(&answer.opaque);
        done += 1;
    }
    Ok(batches * batch_len)
}

fn batch_request(topic: &str, queue: i32, number: u64, body: &[u8]) -> Result<Command> {
    let mut batch = Vec::new();
    for index in 0..BATCH_COUNT {
        let properties = format!("KEYS\u{1}k{number}-{index}\u{2}TAGS\u{1}measured\u{2}");
        let message = BatchMessage {
            flag: 0,
            body,
            properties: properties.as_bytes(),
        };
        encode_batch_message(&message, &mut batch)?;
    }
    let header = SendMessageRequestHeaderV2 {
        producer_group: "measured",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id: queue,
        born_timestamp: 1_700_000_000_000,
        properties: Some(""),
        batch: Some(true),
        ..Default::default()
    };
    Ok(Command::request(RequestCode::SEND_BATCH_MESSAGE)
        .with_header(&header)
        .with_body(batch))
}

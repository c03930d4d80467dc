//! Brokers to test against, and the few requests that most tests make.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command as Program, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::Connection;
use foliomq::config::Config;
use foliomq::node::Node;
use message::{Parsed, RecordView};
use remoting::body::KVTable;
use remoting::header::{
    PullMessageRequestHeader, PullMessageResponseHeader, SendMessageRequestHeaderV2,
    SendMessageResponseHeader, pull_flag,
};
use remoting::{Command, RequestCode, ResponseCode, json};

/// How long anything may take on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration of small files in `store`, with `extra` lines, on free ports.
pub(crate) fn configuration(store: &Path, extra: &str) -> String {
    format!(
        "brokerName=hostile\nlistenPort=0\nfoliomq.namesrvListen=127.0.0.1:0\n\
         storePathRootDir={}\nmappedFileSizeCommitLog=4194304\nmappedFileSizeConsumeQueue=20000\n\
         maxHashSlotNum=1000\nmaxIndexNum=4000\n{extra}\n",
        store.display()
    )
}

/// A broker in this process.
pub(crate) struct InProcess {
    runtime: tokio::runtime::Runtime,
    node: Option<Node>,
}

impl InProcess {
    pub(crate) fn start(store: &Path, extra: &str) -> Self {
        let mut config = Config::new("hostile");
        let text = configuration(store, extra);
        config.apply_file("test.conf".as_ref(), &text).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let node = runtime.block_on(Node::start(config)).unwrap();
        let node = Some(node);
        Self { runtime, node }
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> String {
        self.node().summary.broker_addresses[0].to_string()
    }

    pub(crate) fn name_server(&self) -> String {
        self.node().summary.namesrv_address.unwrap().to_string()
    }

    pub(crate) fn stop(mut self) {
        let node = self.node.take().unwrap();
        self.runtime.block_on(node.stop()).unwrap();
    }
}

/// The program, serving. Killed when dropped.
pub(crate) struct Served {
    child: Child,
    /// Where the broker listens.
    pub(crate) address: String,
    /// Where its name server listens.
    pub(crate) name_server: String,
    log: Arc<Mutex<String>>,
}

impl Served {
    /// Starts it with a [`configuration`] and waits until it is ready.
    pub(crate) fn start(store: &Path, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("broker.conf");
        std::fs::write(&file, configuration(store, extra)).unwrap();
        let mut child = program(&["serve", "-c", file.to_str().unwrap()])
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut stderr, shared) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                shared.lock().unwrap().push_str(&text);
            }
        });
        let mut found = [String::new(), String::new()];
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("it did not start: {}", log.lock().unwrap());
            };
            // The last line: it has written all of it before we close the pipe.
            if line.starts_with("  durability ") {
                break;
            }
            for (found, label) in found.iter_mut().zip(["  broker ", "  name server "]) {
                if let Some(rest) = line.strip_prefix(label) {
                    rest.split_whitespace().next().unwrap().clone_into(found);
                }
            }
        }
        let [address, name_server] = found;
        Self {
            child,
            address,
            name_server,
            log,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// It lives, serves, and no part of it has panicked.
    pub(crate) fn assert_well(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
        let mut connection = connect(&self.address);
        let answer = connection.call(Command::request(RequestCode::GET_BROKER_RUNTIME_INFO));
        assert_eq!(answer.unwrap().response_code(), ResponseCode::SUCCESS);
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }

    /// Anonymous memory in bytes, which is what a client can make it waste: `RssAnon`.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with these arguments, its output to be read.
pub(crate) fn program(arguments: &[&str]) -> Program {
    let mut program = Program::new(env!("CARGO_BIN_EXE_foliomq"));
    program
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    program
}

/// Runs the program, which must end by itself; how it ended, and what it logged.
pub(crate) fn run_to_end(arguments: &[&str]) -> (ExitStatus, String) {
    let mut child = program(arguments).spawn().unwrap();
    let ended = until("the program ends", || child.try_wait().unwrap());
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    (ended, log)
}

/// Asks again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) fn connect(address: &str) -> Connection {
    Connection::connect(address, PATIENCE).unwrap()
}

/// A send of `body`, which creates the topic with 4 queues.
pub(crate) fn send_request(topic: &str, queue_id: i32, body: &[u8]) -> Command {
    let header = SendMessageRequestHeaderV2 {
        producer_group: "producers",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id,
        born_timestamp: 1_700_000_000_000,
        properties: Some(""),
        ..Default::default()
    };
    Command::request(RequestCode::SEND_MESSAGE_V2)
        .with_header(&header)
        .with_body(body.to_vec())
}

/// Sends and returns the queue offset, or the refusal's code and remark.
/// What the broker tells of itself.
pub(crate) fn runtime_info(connection: &mut Connection) -> BTreeMap<String, String> {
    let answer = connection
        .call(Command::request(RequestCode::GET_BROKER_RUNTIME_INFO))
        .unwrap();
    let table: KVTable = json::decode(&answer.body).unwrap();
    table.table
}

pub(crate) fn send(
    connection: &mut Connection,
    topic: &str,
    queue_id: i32,
    body: &[u8],
) -> Result<i64, (ResponseCode, String)> {
    let answer = connection
        .call(send_request(topic, queue_id, body))
        .unwrap();
    queue_offset_of(&answer)
}

/// What the answer to a send says.
pub(crate) fn queue_offset_of(answer: &Command) -> Result<i64, (ResponseCode, String)> {
    if answer.response_code() != ResponseCode::SUCCESS {
        let remark = answer.remark.clone().unwrap_or_default();
        return Err((answer.response_code(), remark));
    }
    let header: SendMessageResponseHeader<'_> = answer.header().unwrap();
    Ok(header.queue_offset)
}

/// A pull of any tag that is not held, or held for so long.
pub(crate) fn pull_request(
    topic: &str,
    queue_id: i32,
    offset: i64,
    hold: Option<Duration>,
) -> Command {
    let suspend = hold.map_or(0, |_| pull_flag::SUSPEND);
    Command::request(RequestCode::PULL_MESSAGE).with_header(&PullMessageRequestHeader {
        consumer_group: "consumers",
        topic,
        queue_id,
        queue_offset: offset,
        max_msg_nums: 32,
        sys_flag: pull_flag::SUBSCRIPTION | suspend,
        suspend_timeout_millis: hold.map_or(0, |hold| hold.as_millis() as i64),
        subscription: Some("*"),
        ..Default::default()
    })
}

/// An answered pull.
pub(crate) struct Pulled {
    pub(crate) code: ResponseCode,
    pub(crate) header: PullMessageResponseHeader,
    /// Queue offset and body.
    pub(crate) messages: Vec<(i64, Vec<u8>)>,
}

impl Pulled {
    pub(crate) fn of(answer: &Command) -> Self {
        let mut messages = Vec::new();
        let mut rest = answer.body.as_slice();
        while !rest.is_empty() {
            let Ok(Parsed::Record(record)) = RecordView::parse(rest) else {
                panic!("not a record at {} bytes before the end", rest.len());
            };
            record.verify_body_crc().unwrap();
            messages.push((record.queue_offset(), record.body().to_vec()));
            rest = &rest[record.total_size()..];
        }
        Self {
            code: answer.response_code(),
            header: answer.header().unwrap(),
            messages,
        }
    }
}

pub(crate) fn pull(connection: &mut Connection, topic: &str, queue_id: i32, offset: i64) -> Pulled {
    let answer = connection.call(pull_request(topic, queue_id, offset, None));
    Pulled::of(&answer.unwrap())
}

/// Every message of a queue, from its beginning; queue offsets have no gap.
pub(crate) fn read_queue(connection: &mut Connection, topic: &str, queue_id: i32) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    loop {
        let pulled = pull(connection, topic, queue_id, bodies.len() as i64);
        if pulled.messages.is_empty() {
            assert_eq!(
                pulled.header.max_offset,
                bodies.len() as i64,
                "{}",
                pulled.code
            );
            return bodies;
        }
        for (offset, body) in pulled.messages {
            assert_eq!(offset, bodies.len() as i64, "offsets go up by one");
            bodies.push(body);
        }
    }
}

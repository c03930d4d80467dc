//! One slow client, one slow disk, one big message: the other connections of the same thread go on. And a
//! slow disk has nobody say more than it holds.
//!
//! All connections of these brokers share one thread. Failpoints are global to the process: the tests of
//! this binary run one after the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use foliomq::config::{Config, FlushDisk};
use foliomq::node::Node;
use message::Message;
use mmap_core::OsIo;
use mmap_core::failpoint::{Action, arm};
use remoting::header::{PullMessageRequestHeader, SendMessageRequestHeader, pull_flag};
use remoting::{Command, RequestCode, ResponseCode};
use store::{MessageStore, StoreOptions, SystemClock};
use tokio::runtime::Runtime;

/// How long an answer may take on a busy machine; a connection that stalls never gets one.
const PATIENCE: Duration = Duration::from_secs(20);
const BIG_LEN: usize = 4 * 1024 * 1024;
/// The disk of one test must not be that of another.
static ALONE: Mutex<()> = Mutex::new(());

struct Running {
    runtime: Runtime,
    node: Node,
}

fn run(store: &Path, change: impl FnOnce(&mut Config)) -> Running {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut config = Config::new("broker-a");
    config.network.listen_port = 0;
    config.network.namesrv_listen = "127.0.0.1:0".to_owned();
    config.network.limits.worker_threads = 1;
    config.store.root = Some(store.to_owned());
    config.store.commit_log_segment_len = 64 << 20;
    config.store.index_slot_count = 100;
    config.store.index_entry_count_max = 1000;
    change(&mut config);
    let node = runtime.block_on(Node::start(config)).unwrap();
    Running { runtime, node }
}

impl Running {
    /// Accepting is the business of this thread's runtime, which runs only in here.
    fn connect(&self) -> Client {
        let address = self.node.summary.broker_addresses[0];
        let connecting = self
            .runtime
            .spawn_blocking(move || Client::connect(address));
        self.runtime.block_on(async {
            let client = connecting.await.unwrap();
            // Each turn lets the accepting task run.
            let deadline = Instant::now() + PATIENCE;
            while !client.is_served() {
                assert!(Instant::now() < deadline, "not accepted");
                tokio::task::yield_now().await;
            }
            client
        })
    }

    fn stop(self) {
        self.runtime.block_on(self.node.stop()).unwrap();
    }
}

struct Client {
    socket: TcpStream,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        let mut client = Self { socket };
        client.post(&send("Topic", b"first"));
        client
    }

    /// Whether the answer to the first send is there.
    fn is_served(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let peeked = self.socket.peek(&mut [0]);
        self.socket.set_nonblocking(false).unwrap();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        match peeked {
            Ok(count) => count > 0,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    }

    fn post(&mut self, command: &Command) {
        self.socket.write_all(&frame(command)).unwrap();
    }

    fn receive(&mut self) -> Command {
        let mut frame = vec![0; 4];
        self.socket.read_exact(&mut frame).unwrap();
        let len = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
        frame.resize(4 + len, 0);
        self.socket.read_exact(&mut frame[4..]).unwrap();
        Command::decode(&frame).unwrap()
    }

    fn receive_success(&mut self) {
        let answer = self.receive();
        let code = answer.response_code();
        assert_eq!(code, ResponseCode::SUCCESS, "{:?}", answer.remark);
    }

    /// Sends messages, each after the answer to the one before.
    fn send_some(&mut self, body: &[u8]) {
        for _ in 0..50 {
            self.post(&send("Topic", body));
            self.receive_success();
        }
    }
}

fn frame(command: &Command) -> Vec<u8> {
    let mut frame = Vec::new();
    command.encode(&mut frame).unwrap();
    frame
}

fn send(topic: &str, body: &[u8]) -> Command {
    let header = SendMessageRequestHeader {
        producer_group: "producers",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 1,
        ..Default::default()
    };
    let request = Command::request(RequestCode::SEND_MESSAGE).with_header(&header);
    request.with_body(body.to_vec())
}

fn pull() -> Command {
    let header = PullMessageRequestHeader {
        consumer_group: "consumers",
        topic: "Topic",
        max_msg_nums: 32,
        sys_flag: pull_flag::SUBSCRIPTION,
        subscription: Some("*"),
        ..Default::default()
    };
    Command::request(RequestCode::PULL_MESSAGE).with_header(&header)
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn a_client_that_reads_nothing_stalls_nobody() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path(), |_| ());
    let mut producer = running.connect();
    producer.receive_success();
    producer.send_some(&[7; 8 * 1024]);
    let mut slow = running.connect();
    slow.receive_success();
    // Each answer has 256 KiB: together more than any socket takes, so that no more is read of it.
    slow.socket
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let request = frame(&pull());
    let refused = (0..200_000).find_map(|_| slow.socket.write_all(&request).err());
    let refused = refused.expect("it is read from without end").kind();
    assert!(matches!(
        refused,
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    producer.send_some(b"meanwhile");
    let mut other = running.connect();
    other.receive_success();
    other.send_some(b"meanwhile");
    drop((slow, other, producer));
    running.stop();
}

#[test]
fn a_device_that_does_not_answer_stalls_only_who_waits_for_it() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path(), |config| {
        config.store.flush_disk = FlushDisk::Sync;
        config.store.sync_flush_timeout = 3 * PATIENCE;
    });
    let mut producer = running.connect();
    producer.receive_success();
    let mut consumer = running.connect();
    consumer.receive_success();
    let held = arm("mmap_core.sync_data", Action::Hold, None);
    for _ in 0..100 {
        producer.post(&send("Topic", b"waits for the device"));
    }
    for _ in 0..100 {
        consumer.post(&pull());
        let answer = consumer.receive();
        // What is not durable is not shown.
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
        assert!(!contains(&answer.body, b"waits for the device"));
    }
    assert!(!producer.is_served(), "acknowledged before it was durable");
    drop(held);
    (0..100).for_each(|_| producer.receive_success());
    drop((producer, consumer));
    running.stop();
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn big_messages_stall_nobody() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path(), |config| {
        config.store.body_len_max = BIG_LEN;
    });
    let mut big = running.connect();
    big.receive_success();
    let mut small = running.connect();
    small.receive_success();
    let message = frame(&send("Topic", &vec![7; BIG_LEN]));
    let (beginning, rest) = message.split_at(message.len() / 2);
    // Half of a message is there.
    big.socket.write_all(beginning).unwrap();
    small.send_some(b"meanwhile");
    assert!(!big.is_served());
    big.socket.write_all(rest).unwrap();
    big.receive_success();
    // One follows the other.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                big.socket.write_all(&message).unwrap();
                big.receive_success();
            }
        });
        small.send_some(b"meanwhile");
    });
    drop((big, small));
    running.stop();
}

/// Who came second found no queue left to sync, and vouched for those that the first had not synced yet.
#[test]
fn nobody_vouches_for_what_another_thread_is_about_to_sync() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    let options = StoreOptions::new(dir.path());
    let (store, _) = MessageStore::open_with(OsIo, options, clock).unwrap();
    for queue_id in 0..4 {
        store.put(&message(queue_id)).unwrap();
    }
    while store.step_dispatch().unwrap() {}
    store.log().flush_now().unwrap();
    let held = arm("mmap_core.msync", Action::Hold, Some(1));
    let (done, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (store, done) = (&store, done.clone());
            scope.spawn(move || {
                store.step_flush_derived().unwrap();
                done.send(()).unwrap();
            });
        }
        let early = finished.recv_timeout(Duration::from_millis(300));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        drop(held);
    });
    assert_eq!(finished.try_iter().count(), 2);
    store.close().unwrap();
}

fn message(queue_id: i32) -> Message<'static> {
    Message::new("Topic", queue_id, b"body")
}

/// Sends of 512 KiB: two buffers of 4 MiB take fewer.
const MORE_THAN_FIT: usize = 20;

/// With the pool on, a send for which no buffer is free waits for the commit; or is refused at once and
/// says which setting bounds it, if that is wanted. Either goes on when the device does.
#[test]
fn without_a_free_buffer_sends_wait_or_are_refused_as_busy() {
    let _alone = alone();
    for is_fast_failing in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let running = run(dir.path(), |config| {
            config.store.stage = true;
            config.store.stage_buffer_count = 2;
            config.store.stage_fast_fail = is_fast_failing;
        });
        let mut producer = running.connect();
        producer.receive_success();
        let mut held = Some(arm("mmap_core.write", Action::Hold, None));
        let body = vec![7; 512 * 1024];
        let request = send("Topic", &body);
        if is_fast_failing {
            let mut answers = (0..MORE_THAN_FIT).map(|_| {
                producer.post(&request);
                producer.receive()
            });
            let refused = answers.find(|answer| answer.response_code() != ResponseCode::SUCCESS);
            let refused = refused.expect("more was taken than there is room for");
            assert_eq!(refused.response_code(), ResponseCode::SYSTEM_BUSY);
            let remark = refused.remark.unwrap();
            assert!(remark.contains("stage.buffer_count"), "{remark}");
        } else {
            let mut socket = producer.socket.try_clone().unwrap();
            let requests = frame(&request).repeat(MORE_THAN_FIT);
            let writing = std::thread::spawn(move || socket.write_all(&requests).unwrap());
            let soon = Some(Duration::from_millis(300));
            producer.socket.set_read_timeout(soon).unwrap();
            let mut waiting = MORE_THAN_FIT;
            while producer.socket.peek(&mut [0]).is_ok() {
                producer.receive_success();
                waiting -= 1;
            }
            assert!(waiting > 0, "more was taken than there is room for");
            producer.socket.set_read_timeout(Some(PATIENCE)).unwrap();
            drop(held.take());
            (0..waiting).for_each(|_| producer.receive_success());
            writing.join().unwrap();
        }
        drop(held);
        let deadline = Instant::now() + PATIENCE;
        while {
            producer.post(&send("Topic", b"goes on"));
            producer.receive().response_code() != ResponseCode::SUCCESS
        } {
            assert!(Instant::now() < deadline, "still refused");
        }
        producer.send_some(b"goes on");
        drop(producer);
        running.stop();
    }
}

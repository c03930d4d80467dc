//! A whole node in this process, talked to over its sockets.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use foliomq::config::Config;
use foliomq::node::Node;
use remoting::header::{
    PullMessageRequestHeader, PullMessageResponseHeader, SendMessageRequestHeader,
    SendMessageResponseHeader, pull_flag,
};
use remoting::{Command, RequestCode, ResponseCode};
use tokio::runtime::Runtime;

struct Running {
    runtime: Runtime,
    node: Node,
}

fn run(store: &Path, change: impl FnOnce(&mut Config)) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut config = Config::new("broker-a");
    config.network.listen_port = 0;
    config.network.namesrv_listen = "127.0.0.1:0".to_owned();
    config.store.root = Some(store.to_owned());
    config.store.commit_log_segment_len = 1 << 20;
    config.store.index_slot_count = 100;
    config.store.index_entry_count_max = 1000;
    change(&mut config);
    let node = runtime.block_on(Node::start(config)).unwrap();
    Running { runtime, node }
}

impl Running {
    fn connect(&self) -> Client {
        Client::connect(self.node.summary.broker_addresses[0])
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
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self { socket }
    }

    fn post(&mut self, command: &Command) {
        let mut frame = Vec::new();
        command.encode(&mut frame).unwrap();
        self.socket.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> Command {
        let mut frame = vec![0; 4];
        self.socket.read_exact(&mut frame).unwrap();
        let len = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
        frame.resize(4 + len, 0);
        self.socket.read_exact(&mut frame[4..]).unwrap();
        Command::decode(&frame).unwrap()
    }

    /// Sends a message to queue 0 of the topic; returns its queue offset.
    fn send(&mut self, topic: &str, body: &str) -> i64 {
        let header = SendMessageRequestHeader {
            producer_group: "producers",
            topic,
            default_topic: "TBW102",
            default_topic_queue_nums: 1,
            ..Default::default()
        };
        let request = Command::request(RequestCode::SEND_MESSAGE).with_header(&header);
        self.post(&request.with_body(body.as_bytes().to_vec()));
        let answer = self.receive();
        assert_eq!(
            answer.response_code(),
            ResponseCode::SUCCESS,
            "{:?}",
            answer.remark
        );
        let header: SendMessageResponseHeader<'_> = answer.header().unwrap();
        header.queue_offset
    }

    fn post_pull(&mut self, opaque: i32, topic: &str, offset: i64, suspend: Duration) {
        let header = PullMessageRequestHeader {
            consumer_group: "consumers",
            topic,
            queue_offset: offset,
            max_msg_nums: 32,
            sys_flag: pull_flag::SUSPEND | pull_flag::SUBSCRIPTION,
            suspend_timeout_millis: suspend.as_millis() as i64,
            subscription: Some("*"),
            ..Default::default()
        };
        let request = Command::request(RequestCode::PULL_MESSAGE).with_header(&header);
        self.post(&request.with_opaque(opaque));
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn held_pulls_are_woken_by_a_message_and_bounded_for_each_connection() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path(), |config| {
        config.network.limits.held_pulls_per_connection_max = 2;
    });
    let mut producer = running.connect();
    assert_eq!(producer.send("T", "first"), 0);
    let mut consumer = running.connect();
    consumer.post_pull(1, "T", 0, LONG);
    let answer = consumer.receive();
    assert_eq!(
        (answer.opaque, answer.response_code()),
        (1, ResponseCode::SUCCESS)
    );
    let header: PullMessageResponseHeader = answer.header().unwrap();
    assert_eq!((header.next_begin_offset, header.max_offset), (1, 1));

    for opaque in 2..=4 {
        consumer.post_pull(opaque, "T", 1, LONG);
    }
    let beyond = consumer.receive();
    assert_eq!(
        (beyond.opaque, beyond.response_code()),
        (4, ResponseCode::PULL_NOT_FOUND)
    );
    assert_eq!(running.node.broker.holds.count(), 2);
    assert_eq!(producer.send("T", "second"), 1);
    let mut answers = [consumer.receive(), consumer.receive()];
    answers.sort_by_key(|answer| answer.opaque);
    for (answer, opaque) in answers.iter().zip([2, 3]) {
        assert_eq!(
            (answer.opaque, answer.response_code()),
            (opaque, ResponseCode::SUCCESS)
        );
        assert!(answer.body.windows(6).any(|window| window == b"second"));
    }
    // Their places are free again.
    consumer.post_pull(5, "T", 2, Duration::from_millis(50));
    let expired = consumer.receive();
    assert_eq!(
        (expired.opaque, expired.response_code()),
        (5, ResponseCode::PULL_NOT_FOUND)
    );
    running.stop();
}

#[test]
fn a_node_that_stops_while_pulls_are_held_leaves_its_store_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path(), |_| ());
    let mut client = running.connect();
    client.send("T", "kept");
    client.post_pull(1, "T", 0, LONG);
    client.receive();
    client.post_pull(2, "T", 1, LONG);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while running.node.broker.holds.count() == 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    running.stop();

    let again = run(dir.path(), |_| ());
    let mut client = again.connect();
    client.post_pull(1, "T", 0, LONG);
    let answer = client.receive();
    assert!(answer.body.windows(4).any(|window| window == b"kept"));
    assert_eq!(client.send("T", "more"), 1);
    again.stop();
}

#[test]
fn a_staged_store_is_sent_to_and_pulled_from_and_reopened() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let node = run(dir.path(), |config| {
            config.store.stage = true;
            config.store.stage_buffer_count = 2;
        });
        let mut client = node.connect();
        let offset = client.send("TopicTest", &format!("message {round}"));
        assert_eq!(offset, round);
        // Held until the commit has brought it to the log.
        client.post_pull(7, "TopicTest", offset, Duration::from_secs(15));
        let answer = client.receive();
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
        drop(client);
        node.stop();
    }
}

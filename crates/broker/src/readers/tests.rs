//! A server of which some answers wait for a device that a test holds in its hands.

use std::io::{Read as _, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use remoting::{Command, CommandView, RequestCode};

use super::*;
use crate::config::Limits;
use crate::server::{Connection, Server, Service, Workers, bind};

const PATIENCE: Duration = Duration::from_secs(30);
const HELD_MAX: usize = 6;

/// Answers requests at once, or those that begin with "cold" by the readers.
struct Shelf {
    readers: Readers,
    device: Arc<Device>,
}

/// A slow device: a read ends when the test lets it.
#[derive(Default)]
struct Device {
    state: Mutex<Reads>,
    changed: Condvar,
}

#[derive(Default)]
struct Reads {
    /// Reads that wait for the device now, and the most there ever were.
    inside: usize,
    inside_max: usize,
    /// Reads that may end.
    allowed: usize,
}

impl Device {
    fn read(&self) {
        let mut reads = lock(&self.state);
        reads.inside += 1;
        reads.inside_max = reads.inside_max.max(reads.inside);
        self.changed.notify_all();
        while reads.allowed == 0 {
            reads = self.changed.wait(reads).unwrap();
        }
        reads.allowed -= 1;
        reads.inside -= 1;
        self.changed.notify_all();
    }

    fn allow(&self, count: usize) {
        lock(&self.state).allowed += count;
        self.changed.notify_all();
    }

    fn wait_for(&self, inside: usize) {
        let mut reads = lock(&self.state);
        let deadline = Instant::now() + PATIENCE;
        while reads.inside != inside {
            assert!(Instant::now() < deadline, "{} are inside", reads.inside);
            reads = self.changed.wait_timeout(reads, PATIENCE).unwrap().0;
        }
    }
}

impl Service for Shelf {
    fn handle(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Reply {
        let body = request.body().to_vec();
        if !body.starts_with(b"cold") {
            return exchange.body(&body);
        }
        let device = Arc::clone(&self.device);
        let outcome = self.readers.read(exchange, HELD_MAX, 1_000, move || {
            device.read();
            assert_ne!(body, b"cold and broken", "a panic that the test wants");
            Box::new(move |exchange| Ok(exchange.body(&body)))
        });
        settle(exchange, outcome)
    }

    fn closed(&self, _: &Arc<Connection>) {}
}

struct Running {
    _server: Server,
    _workers: Workers,
    shelf: Arc<Shelf>,
    _runtime: tokio::runtime::Runtime,
    address: std::net::SocketAddr,
}

fn run(thread_count: usize, waiting_max: usize, bytes_max: u64) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let budget = ColdReads {
        thread_count,
        waiting_max,
        bytes_max,
    };
    let shelf = Arc::new(Shelf {
        readers: Readers::start(&budget).unwrap(),
        device: Arc::default(),
    });
    let socket = bind("127.0.0.1:0".parse().unwrap(), 128).unwrap();
    let service = Arc::clone(&shelf) as Arc<dyn Service>;
    let guard = runtime.enter();
    let limits = Limits {
        outbound_high_water: 1 << 30,
        ..Limits::default()
    };
    let workers = Workers::start(1, || ()).unwrap();
    let server = Server::start("test", service, limits, vec![socket], &workers.places()).unwrap();
    drop(guard);
    Running {
        address: server.addresses()[0],
        _server: server,
        _workers: workers,
        shelf,
        _runtime: runtime,
    }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shelf.device.allow(1_000);
        self.shelf.readers.stop();
    }
}

fn ask(socket: &mut TcpStream, opaque: i32, body: &[u8]) {
    let command = Command::request(RequestCode::HEART_BEAT).with_opaque(opaque);
    let mut frame = Vec::new();
    command.with_body(body.to_vec()).encode(&mut frame).unwrap();
    socket.write_all(&frame).unwrap();
}

fn receive(socket: &mut TcpStream) -> Command {
    let mut frame = vec![0; 4];
    socket.read_exact(&mut frame).unwrap();
    let len = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.resize(4 + len, 0);
    socket.read_exact(&mut frame[4..]).unwrap();
    Command::decode(&frame).unwrap()
}

#[test]
fn a_cold_read_holds_up_neither_its_own_connection_nor_another() {
    let running = run(2, 100, 1_000_000);
    let device = &running.shelf.device;
    let (mut reader, mut other) = (running.connect(), running.connect());
    ask(&mut reader, 1, b"cold");
    device.wait_for(1);
    for (socket, opaque) in [(&mut reader, 2), (&mut other, 3)] {
        ask(socket, opaque, b"hot");
        let answer = receive(socket);
        assert_eq!(
            (answer.opaque, answer.body.as_slice()),
            (opaque, &b"hot"[..])
        );
    }
    device.allow(1);
    let answer = receive(&mut reader);
    assert_eq!((answer.opaque, answer.body.as_slice()), (1, &b"cold"[..]));
}

#[test]
fn a_client_that_sends_no_more_gets_what_is_being_read_for_it() {
    let running = run(1, 100, 1_000_000);
    let device = &running.shelf.device;
    let mut reader = running.connect();
    ask(&mut reader, 1, b"cold");
    ask(&mut reader, 2, b"hot");
    reader.shutdown(std::net::Shutdown::Write).unwrap();
    // Behind it, so that the end has been seen by the time that the read ends.
    assert_eq!(receive(&mut reader).opaque, 2);
    device.wait_for(1);
    let deadline = Instant::now() + Duration::from_millis(50);
    reader
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let early = reader.read(&mut [0]).unwrap_err();
    assert!(early.kind() == io::ErrorKind::WouldBlock && Instant::now() >= deadline);
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    device.allow(1);
    assert_eq!(receive(&mut reader).opaque, 1);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "and then it is closed");
}

#[test]
fn threads_and_waiting_reads_are_bounded_and_refusals_name_the_bound() {
    let running = run(2, 3, 1_000_000);
    let device = &running.shelf.device;
    let mut sockets: Vec<_> = (0..3).map(|_| running.connect()).collect();
    for (opaque, socket) in (0..5).zip((0..5).map(|number| number % 3)) {
        ask(&mut sockets[socket], opaque, b"cold");
        // So that two are taken out of the queue before it is full.
        device.wait_for(2.min(opaque as usize + 1));
    }
    let deadline = Instant::now() + PATIENCE;
    while running.shelf.readers.waiting_count() < 3 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    ask(&mut sockets[2], 9, b"cold");
    let refusal = receive(&mut sockets[2]);
    assert_eq!(
        (refusal.opaque, refusal.response_code()),
        (9, ResponseCode::FLOW_CONTROL)
    );
    let remark = refusal.remark.unwrap();
    assert!(
        remark.contains("3 reads") && remark.contains("foliomq.coldReadQueueMax"),
        "{remark}"
    );
    device.allow(5);
    for (socket, count) in sockets.iter_mut().zip([2, 2, 1]) {
        for _ in 0..count {
            assert_eq!(receive(socket).body, b"cold");
        }
    }
    assert_eq!(lock(&device.state).inside_max, 2);
}

#[test]
fn bytes_are_bounded_and_one_connection_holds_no_more_than_its_share() {
    // A read of 1,000 bytes always begins; a second one beside it would be too much.
    let running = run(4, 100, 1_999);
    let device = &running.shelf.device;
    let mut socket = running.connect();
    for opaque in 0..HELD_MAX as i32 + 1 {
        ask(&mut socket, opaque, b"cold");
    }
    let refusal = receive(&mut socket);
    assert_eq!(refusal.opaque, HELD_MAX as i32);
    assert_eq!(refusal.response_code(), ResponseCode::FLOW_CONTROL);
    let remark = refusal.remark.unwrap();
    assert!(remark.contains("maxHeldPullsPerConnection"), "{remark}");
    for opaque in 0..HELD_MAX as i32 {
        device.wait_for(1);
        device.allow(1);
        assert_eq!(receive(&mut socket).opaque, opaque, "one after the other");
    }
    assert_eq!(lock(&device.state).inside_max, 1);
}

#[test]
fn a_client_that_takes_no_answer_keeps_none_of_the_budget() {
    let running = run(1, 100, 1_000);
    let device = &running.shelf.device;
    device.allow(1_000);
    let mut slow = running.connect();
    socket2::SockRef::from(&slow)
        .set_recv_buffer_size(4_096)
        .unwrap();
    let mut body = vec![b'x'; 200_000];
    body[..4].copy_from_slice(b"cold");
    // Far more than the sockets' buffers take. It reads nothing of it.
    for opaque in 0..HELD_MAX as i32 {
        for piece in 0..8 {
            ask(&mut slow, opaque * 8 + piece, &body[..body.len() - 1]);
            let mut other = running.connect();
            ask(&mut other, 1, b"cold");
            assert_eq!(receive(&mut other).body, b"cold");
        }
    }
}

#[test]
fn a_read_that_panics_ends_neither_its_thread_nor_the_budget() {
    let running = run(1, 100, 1_000);
    running.shelf.device.allow(2);
    let mut socket = running.connect();
    ask(&mut socket, 1, b"cold and broken");
    ask(&mut socket, 2, b"cold");
    assert_eq!(receive(&mut socket).opaque, 2);
}

#[test]
fn what_waits_is_dropped_when_the_readers_stop() {
    let running = run(1, 100, 1_000_000);
    let device = Arc::clone(&running.shelf.device);
    let mut socket = running.connect();
    for opaque in 0..4 {
        ask(&mut socket, opaque, b"cold");
    }
    device.wait_for(1);
    running.shelf.readers.shared.stop();
    assert_eq!(running.shelf.readers.waiting_count(), 0);
    device.allow(1);
    assert_eq!(receive(&mut socket).opaque, 0, "what has begun is answered");
    ask(&mut socket, 7, b"hot");
    assert_eq!(receive(&mut socket).opaque, 7);
}

//! A server with a small service of its own, talked to over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll};

use remoting::{Command, CommandView, RequestCode, ResponseCode};

use super::*;

const BIG_LEN: usize = 1 << 20;

/// Says back what the request's body says to do.
struct Echo {
    big_count: AtomicUsize,
    closed: Mutex<mpsc::Sender<SocketAddr>>,
}

/// Ready at its second poll.
struct Second(bool);

impl Pending for Second {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
    fn answer(self: Box<Self>, exchange: &mut Exchange<'_>) -> Reply {
        exchange.refuse(ResponseCode::FLUSH_DISK_TIMEOUT, "later")
    }
}

struct Woken(ReplyTicket);

impl Resume for Woken {
    fn ticket(&self) -> ReplyTicket {
        self.0
    }
    fn resume(self: Box<Self>, exchange: &mut Exchange<'_>) -> Reply {
        exchange.body(b"woken")
    }
}

impl Service for Echo {
    fn handle(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Reply {
        match request.body() {
            b"later" => Reply::Later(Box::new(Second(false))),
            b"forget" => Reply::Done,
            b"big" => {
                self.big_count.fetch_add(1, Ordering::SeqCst);
                exchange.body(&vec![b'b'; BIG_LEN])
            }
            b"hold" => {
                let held = Box::new(Woken(exchange.ticket()));
                assert!(exchange.connection().resume(held).is_ok());
                Reply::Held
            }
            b"payload" => {
                let parts = [b"pay".to_vec(), b"load".to_vec()].map(Content::Owned);
                exchange.write_payloads(ResponseCode::SUCCESS, None, |_| (), parts, 7)
            }
            b"ask me" => {
                let connection = Arc::clone(exchange.connection());
                let ticket = exchange.ticket();
                tokio::spawn(async move {
                    let request = Command::request(RequestCode::GET_CONSUMER_RUNNING_INFO);
                    let asked = connection.ask(request);
                    let answer = asked.wait(Instant::now() + Duration::from_secs(10)).await;
                    assert_eq!(answer.unwrap().body, b"my answer");
                    assert!(connection.resume(Box::new(Woken(ticket))).is_ok());
                });
                Reply::Held
            }
            body => exchange.body(body),
        }
    }

    fn closed(&self, connection: &Arc<Connection>) {
        let _ = self.closed.lock().unwrap().send(connection.peer());
    }
}

struct Running {
    service: Arc<Echo>,
    server: Option<Server>,
    closed: mpsc::Receiver<SocketAddr>,
    runtime: tokio::runtime::Runtime,
    _workers: Workers,
}

fn limits() -> Limits {
    Limits {
        idle: Duration::from_secs(3600),
        ..Limits::default()
    }
}

fn run(limits: Limits) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (sender, closed) = mpsc::channel();
    let service = Arc::new(Echo {
        big_count: AtomicUsize::new(0),
        closed: Mutex::new(sender),
    });
    let socket = bind("127.0.0.1:0".parse().unwrap(), 128).unwrap();
    let guard = runtime.enter();
    let workers = Workers::start(2, || ()).unwrap();
    let serving = Arc::clone(&service) as Arc<dyn Service>;
    let server = Server::start("test", serving, limits, vec![socket], &workers.places()).unwrap();
    drop(guard);
    Running {
        service,
        server: Some(server),
        closed,
        runtime,
        _workers: workers,
    }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let address = self.server.as_ref().unwrap().addresses()[0];
        let socket = TcpStream::connect(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
    }

    fn wait_closed(&self, socket: &TcpStream) {
        let closed = self.closed.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(closed, socket.local_addr().unwrap());
    }
}

fn request(opaque: i32, body: &[u8]) -> Vec<u8> {
    let command = Command::request(RequestCode::HEART_BEAT).with_opaque(opaque);
    encode(&command.with_body(body.to_vec()))
}

fn encode(command: &Command) -> Vec<u8> {
    let mut frame = Vec::new();
    command.encode(&mut frame).unwrap();
    frame
}

fn receive(socket: &mut TcpStream) -> Command {
    let mut frame = vec![0; 4];
    socket.read_exact(&mut frame).unwrap();
    let len = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.resize(4 + len, 0);
    socket.read_exact(&mut frame[4..]).unwrap();
    Command::decode(&frame).unwrap()
}

fn is_closed(socket: &mut TcpStream) -> bool {
    matches!(socket.read(&mut [0; 64]), Ok(0) | Err(_))
}

#[test]
fn requests_are_answered_however_their_bytes_come() {
    let running = run(limits());
    let mut socket = running.connect();
    let mut stream = Vec::new();
    let bodies: [&[u8]; 5] = [b"", b"one", b"payload", b"later", b"forget"];
    for (opaque, body) in (1..).zip(bodies) {
        stream.extend(request(opaque, body));
    }
    for chunk_len in [1, 7, 100, stream.len()] {
        for chunk in stream.chunks(chunk_len) {
            socket.write_all(chunk).unwrap();
        }
        let mut answers: Vec<_> = (0..bodies.len()).map(|_| receive(&mut socket)).collect();
        answers.sort_by_key(|answer| answer.opaque);
        let opaques: Vec<_> = answers.iter().map(|answer| answer.opaque).collect();
        assert_eq!(opaques, [1, 2, 3, 4, 5]);
        assert_eq!(answers[1].body, b"one");
        assert_eq!(answers[2].body, b"payload");
        assert_eq!(answers[3].response_code(), ResponseCode::FLUSH_DISK_TIMEOUT);
        assert_eq!(
            answers[4].remark.as_deref(),
            Some("not set any response code")
        );
    }
}

#[test]
fn frames_longer_than_the_buffers_pass_whole() {
    let running = run(limits());
    let mut socket = running.connect();
    for len in [200_000, 300_000, 3_000_000] {
        let body: Vec<u8> = (0..len).map(|position: u32| (position / 7) as u8).collect();
        let mut stream = request(1, &body);
        stream.extend(request(2, b"behind it"));
        socket.write_all(&stream).unwrap();
        assert!(receive(&mut socket).body == body);
        assert_eq!(receive(&mut socket).body, b"behind it");
    }
}

#[test]
fn one_way_requests_are_never_answered() {
    let running = run(limits());
    let mut socket = running.connect();
    for body in [&b"x"[..], b"later", b"forget", b"payload", b"hold"] {
        let command = Command::oneway(RequestCode::HEART_BEAT).with_opaque(1);
        socket
            .write_all(&encode(&command.with_body(body.to_vec())))
            .unwrap();
    }
    socket.write_all(&request(2, b"hold")).unwrap();
    let answer = receive(&mut socket);
    assert_eq!((answer.opaque, answer.body.as_slice()), (2, &b"woken"[..]));
}

#[test]
fn clients_are_asked_and_their_answers_find_back() {
    let running = run(limits());
    let mut socket = running.connect();
    socket.write_all(&request(9, b"ask me")).unwrap();
    let asked = receive(&mut socket);
    assert!(!asked.is_response());
    let answer = Command::response(asked.opaque, ResponseCode::SUCCESS);
    socket
        .write_all(&encode(&answer.with_body(b"my answer".to_vec())))
        .unwrap();
    assert_eq!(receive(&mut socket).opaque, 9);
}

#[test]
fn what_is_not_the_protocol_closes_its_connection_only() {
    let running = run(limits());
    let mut bystander = running.connect();
    let mut bad_header = request(1, b"");
    bad_header[9] = b'!';
    for bad in [
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec(),
        vec![0, 0, 0, 3, 0, 0, 0, 0],
        vec![0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0],
        vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 10],
        bad_header,
    ] {
        let mut socket = running.connect();
        socket.write_all(&bad).unwrap();
        running.wait_closed(&socket);
        assert!(is_closed(&mut socket));
    }
    bystander.write_all(&request(1, b"unharmed")).unwrap();
    assert_eq!(receive(&mut bystander).body, b"unharmed");
}

#[test]
fn a_client_that_never_reads_is_closed_and_costs_bounded_memory() {
    let outbound_high_water = 1 << 20;
    let write_stall = Duration::from_millis(300);
    let running = run(Limits {
        outbound_high_water,
        write_stall,
        ..limits()
    });
    let mut socket = running.connect();
    socket
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let frame = request(1, &vec![0; 100_000]);
    // The server stops reading, so at some time nothing more can be written, and then it closes.
    while socket.write_all(&frame).is_ok() {}
    running.wait_closed(&socket);
}

#[test]
fn requests_that_came_together_wait_for_their_answers_to_be_taken() {
    const COUNT: usize = 100;
    let running = run(Limits {
        outbound_high_water: 4 * BIG_LEN,
        ..limits()
    });
    let mut socket = running.connect();
    let frames = (0..COUNT as i32).flat_map(|opaque| request(opaque, b"big"));
    socket.write_all(&frames.collect::<Vec<_>>()).unwrap();
    for received in 0..COUNT {
        let answer = receive(&mut socket);
        assert_eq!(
            (answer.opaque, answer.body.len()),
            (received as i32, BIG_LEN)
        );
        // The kernel's buffers of both sides hold some more.
        let handled = running.service.big_count.load(Ordering::SeqCst);
        assert!(
            handled <= received + 40,
            "{handled} are handled, {received} taken"
        );
    }
}

#[test]
fn idle_connections_are_closed() {
    let running = run(Limits {
        idle: Duration::from_millis(200),
        ..limits()
    });
    let mut socket = running.connect();
    running.wait_closed(&socket);
    assert!(is_closed(&mut socket));
}

#[test]
fn connections_beyond_the_limit_are_closed_as_they_come() {
    let running = run(Limits {
        connection_count_max: 2,
        ..limits()
    });
    let mut kept = [running.connect(), running.connect()];
    for socket in &mut kept {
        socket.write_all(&request(1, b"x")).unwrap();
        receive(socket);
    }
    let mut beyond = running.connect();
    assert!(is_closed(&mut beyond));
    drop(kept);
    running
        .closed
        .recv_timeout(Duration::from_secs(20))
        .unwrap();
    let mut socket = running.connect();
    socket.write_all(&request(1, b"x")).unwrap();
    receive(&mut socket);
}

#[test]
fn stopping_answers_what_is_in_hand() {
    let mut running = run(limits());
    let mut socket = running.connect();
    socket.write_all(&request(1, b"x")).unwrap();
    receive(&mut socket);
    let server = running.server.take().unwrap();
    running
        .runtime
        .block_on(server.stop(Instant::now() + Duration::from_secs(20)));
    running.wait_closed(&socket);
    assert!(is_closed(&mut socket));
}

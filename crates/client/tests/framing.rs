//! A connection against peers that break the protocol, answer late, or not at all. Sending and
//! consuming are tested with the broker.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use client::{Client, ClientError, ClientOptions, Connection};
use remoting::{Command, FRAME_LEN_MAX, FrameStep, RequestCode, ResponseCode, next_frame};

/// Long enough for a busy machine; reached only by tests that fail.
const LONG: Duration = Duration::from_secs(20);
/// For peers that do not answer.
const SHORT: Duration = Duration::from_millis(50);

/// A peer that serves one connection; joined when dropped, so that its panics are seen.
struct Peer {
    address: String,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn new(serve: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = thread::spawn(move || serve(listener.accept().unwrap().0));
        Self {
            address,
            thread: Some(thread),
        }
    }

    fn connect(&self, timeout: Duration) -> Connection {
        Connection::connect(&self.address, timeout).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let outcome = self.thread.take().unwrap().join();
        assert!(thread::panicking() || outcome.is_ok());
    }
}

fn read_command(stream: &mut TcpStream) -> Command {
    let mut frame = Vec::new();
    loop {
        match next_frame(&frame, FRAME_LEN_MAX).unwrap() {
            FrameStep::Frame(_) => return Command::decode(&frame).unwrap(),
            FrameStep::NeedMore(missing) => {
                let len = frame.len();
                frame.resize(len + missing, 0);
                stream.read_exact(&mut frame[len..]).unwrap();
            }
        }
    }
}

fn frame_of(command: &Command) -> Vec<u8> {
    let mut frame = Vec::new();
    command.encode(&mut frame).unwrap();
    frame
}

fn answer(opaque: i32, body: &[u8]) -> Vec<u8> {
    frame_of(&Command::response(opaque, ResponseCode::SUCCESS).with_body(body.to_vec()))
}

fn request() -> Command {
    Command::request(RequestCode::GET_MAX_OFFSET)
}

/// Waits until the client has closed the connection.
fn drain(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

#[test]
fn answers_find_their_requests() {
    let peer = Peer::new(|mut stream| {
        let opaques: Vec<_> = (0..3).map(|_| read_command(&mut stream).opaque).collect();
        for (opaque, body) in opaques.iter().zip(["first", "second", "third"]).rev() {
            stream.write_all(&answer(*opaque, body.as_bytes())).unwrap();
        }
    });
    let mut connection = peer.connect(LONG);
    let first = connection.send(request()).unwrap();
    let second = connection.send(request()).unwrap();
    assert_eq!(connection.call(request()).unwrap().body, b"third");
    let deadline = Instant::now() + LONG;
    let others: Vec<_> = (0..2)
        .map(|_| connection.receive(deadline).unwrap().unwrap())
        .collect();
    assert_eq!(
        (others[0].opaque, &others[0].body[..]),
        (second, &b"second"[..])
    );
    assert_eq!(
        (others[1].opaque, &others[1].body[..]),
        (first, &b"first"[..])
    );
}

#[test]
fn an_answer_in_pieces_is_put_together() {
    let body = vec![7; 300_000];
    let sent = body.clone();
    let peer = Peer::new(move |mut stream| {
        let frame = answer(read_command(&mut stream).opaque, &sent);
        let (front, rest) = frame.split_at(5);
        stream.write_all(front).unwrap();
        for piece in rest.chunks(70_001) {
            stream.write_all(piece).unwrap();
        }
    });
    assert_eq!(peer.connect(LONG).call(request()).unwrap().body, body);
}

#[test]
fn a_late_answer_does_not_disturb_the_next() {
    let peer = Peer::new(|mut stream| {
        let late = read_command(&mut stream).opaque;
        let next = read_command(&mut stream).opaque;
        stream.write_all(&answer(late, b"late")).unwrap();
        stream.write_all(&answer(next, b"next")).unwrap();
    });
    let mut connection = peer.connect(LONG);
    let late = connection.send(request()).unwrap();
    assert_eq!(connection.receive(Instant::now() + SHORT).unwrap(), None);
    assert_eq!(connection.call(request()).unwrap().body, b"next");
    let arrived = connection.receive(Instant::now() + LONG).unwrap().unwrap();
    assert_eq!(arrived.opaque, late);
}

#[test]
fn silence_times_out_and_names_the_request() {
    let peer = Peer::new(drain);
    let error = peer.connect(SHORT).call(request()).unwrap_err();
    let expected = format!(
        "{} did not answer GET_MAX_OFFSET (30) within 50ms",
        peer.address
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn requests_of_the_peer_are_answered_notices_are_not() {
    let peer = Peer::new(|mut stream| {
        let opaque = read_command(&mut stream).opaque;
        let notice = Command::oneway(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED);
        stream.write_all(&frame_of(&notice)).unwrap();
        let question = Command::request(RequestCode::GET_CONSUMER_RUNNING_INFO);
        stream
            .write_all(&frame_of(&question.with_opaque(opaque)))
            .unwrap();
        let refusal = read_command(&mut stream);
        assert_eq!(
            refusal.response_code(),
            ResponseCode::REQUEST_CODE_NOT_SUPPORTED
        );
        assert_eq!(refusal.opaque, opaque);
        stream.write_all(&answer(opaque, b"answer")).unwrap();
    });
    assert_eq!(peer.connect(LONG).call(request()).unwrap().body, b"answer");
}

#[test]
fn frames_that_lie_are_errors() {
    let header_of_nothing = [&[0, 0, 0, 4][..], &[0, 0, 0, 0]].concat();
    for (bytes, words) in [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "exceeds the limit",
        ),
        (vec![0, 0, 0, 2], "must be at least 4"),
        (vec![0, 0, 0, 8, 9, 0, 0, 0], "serialize type 9"),
        (vec![0, 0, 0, 8, 0, 0, 0, 99], "header of 99 bytes"),
        (header_of_nothing, "header"),
    ] {
        let peer = Peer::new(move |mut stream| {
            read_command(&mut stream);
            stream.write_all(&bytes).unwrap();
            drain(stream);
        });
        let error = peer.connect(LONG).call(request()).unwrap_err();
        assert!(matches!(error, ClientError::Frame { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains(&peer.address), "{error}");
    }
}

#[test]
fn a_connection_closed_inside_a_frame_is_an_error() {
    let peer = Peer::new(|mut stream| {
        let frame = answer(read_command(&mut stream).opaque, b"body");
        stream.write_all(&frame[..frame.len() - 1]).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    });
    let error = peer.connect(LONG).call(request()).unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
}

#[test]
fn nobody_listening_is_an_error_with_the_address() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let error = Connection::connect(&address, LONG).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("connect to {address}: ")),
        "{error}"
    );
}

#[test]
fn a_broken_connection_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        read_command(&mut first);
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        let refused = Command::response(
            read_command(&mut second).opaque,
            ResponseCode::NO_PERMISSION,
        );
        let refused = Command {
            remark: Some("not you".to_owned()),
            ..refused
        };
        second.write_all(&frame_of(&refused)).unwrap();
    });
    let mut client = Client::new(ClientOptions {
        timeout: LONG,
        ..ClientOptions::new("")
    });
    client.call(&address, request()).unwrap_err();
    let error = client.call_checked(&address, request()).unwrap_err();
    let expected = format!("{address} refused GET_MAX_OFFSET (30): NO_PERMISSION (16) not you");
    assert_eq!(error.to_string(), expected);
    thread.join().unwrap();
}

//! The echo server: answers each request with a minimal response, a pull with as many bytes as a
//! broker has for it, and does nothing else. What it reaches is what sockets and wake-ups alone allow
//! on the machine.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};
use rustix::event::epoll;

use super::frames::{Answer, AnswerReader, OPAQUE_BASE, PULL_MESSAGE};
use super::load::{be_u32, frame_len};

/// As many as the broker has.
const THREADS: usize = 2;
const READ_CHUNK: usize = 256 * 1024;
/// Messages of a pull.
const PULL_COUNT: u64 = 32;
/// Bytes of them, as a broker keeps the generator's sends of 1 KiB.
const PULLED_LEN: usize = PULL_COUNT as usize * 1215;
static PULLED: [u8; PULLED_LEN] = [b'x'; PULLED_LEN];

/// Serves until the process is killed.
pub(super) fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let loops: Vec<_> = (0..THREADS)
        .map(|_| epoll::create(epoll::CreateFlags::CLOEXEC))
        .collect::<Result<_, _>>()?;
    thread::scope(|scope| {
        let mut senders = Vec::new();
        for epoll in &loops {
            let (sender, receiver) = std::sync::mpsc::channel::<Connection>();
            senders.push(sender);
            scope.spawn(move || serve_loop(epoll, &receiver));
        }
        for (number, stream) in listener.incoming().enumerate() {
            let stream = stream?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64((number / THREADS) as u64);
            // An event may come before the connection does: the loop then looks again.
            epoll::add(
                &loops[number % THREADS],
                &stream,
                data,
                epoll::EventFlags::IN,
            )?;
            senders[number % THREADS].send(Connection::new(stream))?;
        }
        Ok(())
    })
}

fn serve_loop(epoll: &rustix::fd::OwnedFd, arriving: &std::sync::mpsc::Receiver<Connection>) {
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        if epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), None).is_err() {
            continue;
        }
        for connection in arriving.try_iter() {
            connections.push(Some(connection));
        }
        for event in &events {
            let index = event.data.u64() as usize;
            let Some(slot) = connections.get_mut(index) else {
                continue;
            };
            if let Some(connection) = slot
                && connection.answer().is_err()
            {
                *slot = None;
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    filled: usize,
    outbox: Vec<u8>,
    /// Positions in `outbox` behind which the messages of a pull are to go out.
    pulled_at: Vec<usize>,
    reader: AnswerReader,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let reader = AnswerReader::of_requests();
        Self {
            stream,
            inbox: vec![0; READ_CHUNK],
            filled: 0,
            outbox: Vec::new(),
            pulled_at: Vec::new(),
            reader,
        }
    }

    fn answer(&mut self) -> Result<()> {
        loop {
            let room = self.inbox.len() - self.filled;
            match self.stream.read(&mut self.inbox[self.filled..]) {
                Ok(0) => anyhow::bail!("closed"),
                Ok(len) => {
                    self.filled += len;
                    self.take_requests()?;
                    self.write()?;
                    if len < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_requests(&mut self) -> Result<()> {
        let mut at = 0;
        while let Some(len) = frame_len(&self.inbox[at..self.filled]) {
            let header_len = (be_u32(&self.inbox[at + 4..]) & 0x00ff_ffff) as usize;
            let header = self
                .inbox
                .get(at + 8..at + 8 + header_len)
                .context("header")?;
            let request = self.reader.read(header).context("not JSON")?;
            let body_len = if request.code == PULL_MESSAGE {
                PULLED_LEN
            } else {
                0
            };
            push_answer(&mut self.outbox, &request, body_len);
            if body_len > 0 {
                self.pulled_at.push(self.outbox.len());
            }
            at += len;
        }
        self.inbox.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.filled == self.inbox.len() {
            self.inbox.resize(self.inbox.len() * 2, 0);
        }
        Ok(())
    }

    /// Blocks where the socket is full: the generator always reads.
    fn write(&mut self) -> Result<()> {
        let mut pieces = Vec::with_capacity(2 * self.pulled_at.len() + 1);
        let mut from = 0;
        for end in self.pulled_at.drain(..) {
            pieces.push(IoSlice::new(&self.outbox[from..end]));
            pieces.push(IoSlice::new(&PULLED));
            from = end;
        }
        pieces.push(IoSlice::new(&self.outbox[from..]));
        let mut rest = &mut pieces[..];
        IoSlice::advance_slices(&mut rest, 0);
        while rest.iter().any(|piece| !piece.is_empty()) {
            match self.stream.write_vectored(rest) {
                Ok(len) => IoSlice::advance_slices(&mut rest, len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.clear();
        Ok(())
    }
}

/// 128 bytes on the wire, the size of a broker's answer to a send; of a pull more, and then
/// `body_len` bytes that follow.
fn push_answer(out: &mut Vec<u8>, request: &Answer, body_len: usize) {
    const LEN: usize = 128;
    const LEN_OF_PULL: usize = 256;
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(b"{\"code\":0,");
    let mut len = LEN;
    if let Some(offset) = request.next_offset {
        len = LEN_OF_PULL;
        out.extend_from_slice(b"\"extFields\":{\"nextBeginOffset\":\"");
        push_digits::<15>(out, offset + PULL_COUNT);
        out.extend_from_slice(b"\"},");
    }
    out.extend_from_slice(b"\"flag\":1,\"language\":\"RUST\",\"opaque\":");
    push_digits::<10>(out, u64::from(OPAQUE_BASE + request.slot));
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479");
    out.resize(start + len - 1, b' ');
    out.push(b'}');
    let frame_len = (len - 4 + body_len) as u32;
    out[start..start + 4].copy_from_slice(&frame_len.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&(len as u32 - 8).to_be_bytes());
}

fn push_digits<const COUNT: usize>(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; COUNT];
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

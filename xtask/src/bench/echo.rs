//! The echo server: answers each request with a minimal response and does nothing else. What it
//! reaches is what sockets and wake-ups alone allow on the machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};
use rustix::event::epoll;

use super::frames::{AnswerReader, OPAQUE_BASE};
use super::load::{be_u32, frame_len};

/// As many as the broker has.
const THREADS: usize = 2;
const READ_CHUNK: usize = 256 * 1024;

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
    reader: AnswerReader,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let reader = AnswerReader::default();
        Self {
            stream,
            inbox: vec![0; READ_CHUNK],
            filled: 0,
            outbox: Vec::new(),
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
            push_answer(&mut self.outbox, OPAQUE_BASE + request.slot);
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
        let mut rest = &self.outbox[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.clear();
        Ok(())
    }
}

/// 128 bytes on the wire, the size of a broker's answer to a send.
fn push_answer(out: &mut Vec<u8>, opaque: u32) {
    const LEN: usize = 128;
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(b"{\"code\":0,\"flag\":1,\"language\":\"RUST\",\"opaque\":");
    let mut digits = [0u8; 10];
    let mut rest = opaque;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479");
    out.resize(start + LEN - 1, b' ');
    out.push(b'}');
    out[start..start + 4].copy_from_slice(&(LEN as u32 - 4).to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&(LEN as u32 - 8).to_be_bytes());
}

//! The load generator: many connections with a window of outstanding requests each, on few
//! threads, reading and writing in batches per wake-up.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use std::{hint, thread};

use anyhow::{Context, Result, bail};
use benches::sum;
use hdrhistogram::Histogram;
use rustix::event::epoll;

use super::frames::{AnswerReader, Template};

/// Queues of a topic that a server creates by itself.
pub(super) const QUEUES: u8 = 4;
const READ_CHUNK: usize = 256 * 1024;
const CODE_SUCCESS: i32 = 0;

/// What one run sends or pulls.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) address: SocketAddr,
    pub(super) connections: usize,
    /// Requests outstanding on each connection.
    pub(super) window: usize,
    pub(super) kind: LoadKind,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    pub(super) threads: usize,
}

/// Sends, or pulls with a cursor for each request that is outstanding: those of one connection go
/// through queues of their own.
#[derive(Debug, Clone)]
pub(super) enum LoadKind {
    Send(Template),
    /// `ends` are the queues' maximum offsets: a cursor that reaches its queue's begins anew.
    Pull {
        template: Template,
        ends: Vec<u64>,
    },
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) messages: u64,
    pub(super) requests: u64,
    pub(super) elapsed: Duration,
    /// Of each request, in nanoseconds.
    pub(super) latency_ns: Histogram<u64>,
}

impl Outcome {
    pub(super) fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs a load; `at_start` and `at_end` bracket the measured part, on the caller's thread.
pub(super) fn run(
    load: &Load,
    mut at_start: impl FnMut(),
    mut at_end: impl FnMut(),
) -> Result<Outcome> {
    let threads = load.threads.min(load.connections);
    let begin = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let begin = &begin;
                let share = (thread..load.connections)
                    .step_by(threads)
                    .collect::<Vec<_>>();
                scope.spawn(move || {
                    let worker = Worker::connect(load, &share);
                    begin.wait();
                    worker?.run(load)
                })
            })
            .collect();
        begin.wait();
        thread::sleep(load.warm_up);
        at_start();
        thread::sleep(load.duration);
        at_end();
        let mut total: Option<Outcome> = None;
        for worker in workers {
            let part = worker
                .join()
                .map_err(|_| anyhow::anyhow!("a generator thread panicked"))??;
            total = Some(match total {
                None => part,
                Some(mut sum) => {
                    sum.messages += part.messages;
                    sum.requests += part.requests;
                    sum.elapsed = sum.elapsed.max(part.elapsed);
                    sum.latency_ns.add(&part.latency_ns)?;
                    sum
                }
            });
        }
        total.context("no connection")
    })
}

/// One thread's connections.
struct Worker {
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    sequence: u64,
}

impl Worker {
    fn connect(load: &Load, share: &[usize]) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(share.len());
        for (index, number) in share.iter().enumerate() {
            let connection = Connection::open(load, *number)?;
            let flags = epoll::EventFlags::IN;
            epoll::add(
                &epoll,
                &connection.stream,
                epoll::EventData::new_u64(index as u64),
                flags,
            )?;
            connections.push(connection);
        }
        // Keys must not repeat between runs and threads, or the index's chains grow.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let sequence = now.as_nanos() as u64 ^ ((share.first().copied().unwrap_or(0) as u64) << 56);
        Ok(Self {
            epoll,
            connections,
            sequence,
        })
    }

    fn run(mut self, load: &Load) -> Result<Outcome> {
        let start = Instant::now();
        let (measure_from, measure_to) =
            (start + load.warm_up, start + load.warm_up + load.duration);
        let mut tally = Tally::new()?;
        for index in 0..self.connections.len() {
            for slot in 0..load.window {
                self.connections[index].issue(load, slot as u32, &mut self.sequence, start);
            }
            self.flush(index)?;
        }
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let timeout = rustix::event::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            )?;
            let now = Instant::now();
            if now >= measure_to {
                return Ok(tally.into_outcome(load.duration));
            }
            tally.counting = now >= measure_from;
            for event in &events {
                let index = event.data.u64() as usize;
                self.connections[index].receive(load, &mut self.sequence, now, &mut tally)?;
                self.flush(index)?;
            }
        }
    }

    /// Writes what is queued; asks for a wake-up where the socket is full.
    fn flush(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let was_blocked = connection.blocked;
        connection.write()?;
        if connection.blocked != was_blocked {
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, connection.blocked);
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.stream, data, flags)?;
        }
        Ok(())
    }
}

/// Counts of the measured part.
struct Tally {
    counting: bool,
    messages: u64,
    requests: u64,
    latency_ns: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        let latency_ns = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
        Ok(Self {
            counting: false,
            messages: 0,
            requests: 0,
            latency_ns,
        })
    }

    fn count(&mut self, messages: u64, latency: Duration) {
        if self.counting {
            self.messages += messages;
            self.requests += 1;
            self.latency_ns.saturating_record(latency.as_nanos() as u64);
        }
    }

    fn into_outcome(self, elapsed: Duration) -> Outcome {
        let Self {
            messages,
            requests,
            latency_ns,
            ..
        } = self;
        Outcome {
            messages,
            requests,
            elapsed,
            latency_ns,
        }
    }
}

struct Connection {
    stream: TcpStream,
    outbox: Vec<u8>,
    written: usize,
    blocked: bool,
    inbox: Vec<u8>,
    filled: usize,
    issued_at: Vec<Instant>,
    /// Where the last send went.
    queue: u8,
    /// One for each slot.
    cursors: Vec<Cursor>,
    reader: AnswerReader,
}

/// Of pulls that follow each other.
struct Cursor {
    queue: u8,
    /// Where the outstanding pull began.
    offset: u64,
}

impl Connection {
    fn open(load: &Load, number: usize) -> Result<Self> {
        let stream = TcpStream::connect(load.address)
            .with_context(|| format!("connect to {}", load.address))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            outbox: Vec::new(),
            written: 0,
            blocked: false,
            inbox: vec![0; READ_CHUNK],
            filled: 0,
            issued_at: vec![Instant::now(); load.window],
            queue: (number % usize::from(QUEUES)) as u8,
            cursors: (number..number + load.window)
                .map(|number| Cursor {
                    queue: (number % usize::from(QUEUES)) as u8,
                    offset: 0,
                })
                .collect(),
            reader: AnswerReader::default(),
        })
    }

    fn issue(&mut self, load: &Load, slot: u32, sequence: &mut u64, now: Instant) {
        self.issued_at[slot as usize] = now;
        match &load.kind {
            LoadKind::Send(template) => {
                self.queue = (self.queue + 1) % QUEUES;
                template.push(&mut self.outbox, slot, self.queue, sequence);
            }
            LoadKind::Pull { template, .. } => {
                let Cursor { queue, offset } = self.cursors[slot as usize];
                template.push_pull(&mut self.outbox, slot, queue, offset);
            }
        }
    }

    fn receive(
        &mut self,
        load: &Load,
        sequence: &mut u64,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<()> {
        loop {
            if self.filled == self.inbox.len() {
                self.inbox.resize(self.inbox.len() * 2, 0);
            }
            let room = self.inbox.len() - self.filled;
            match self.stream.read(&mut self.inbox[self.filled..]) {
                Ok(0) => bail!("{} closed the connection", load.address),
                Ok(len) => {
                    self.filled += len;
                    self.take_answers(load, sequence, now, tally)?;
                    if len < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("read"),
            }
        }
    }

    fn take_answers(
        &mut self,
        load: &Load,
        sequence: &mut u64,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<()> {
        let mut at = 0;
        while let Some(len) = frame_len(&self.inbox[at..self.filled]) {
            let frame = at..at + len;
            let slot = self.take_answer(load, frame, now, tally)?;
            self.issue(load, slot, sequence, now);
            at += len;
        }
        // Often nothing is left; else at most a part of one answer.
        self.inbox.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    /// Counts one answer and returns the slot that is free again.
    fn take_answer(
        &mut self,
        load: &Load,
        frame: std::ops::Range<usize>,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<u32> {
        let frame = &self.inbox[frame];
        let header_len = (be_u32(&frame[4..]) & 0x00ff_ffff) as usize;
        let header = frame
            .get(8..8 + header_len)
            .context("a frame lies about its header")?;
        let answer = self
            .reader
            .read(header)
            .with_context(|| format!("not an answer: {}", String::from_utf8_lossy(header)))?;
        let slot = answer.slot as usize;
        let issued_at = self.issued_at.get(slot).context("an unknown opaque")?;
        let messages = match &load.kind {
            LoadKind::Send(template) if answer.code == CODE_SUCCESS => template.message_count(),
            LoadKind::Pull { ends, .. } if answer.code == CODE_SUCCESS => {
                // As a consumer, which leaves no byte unread.
                hint::black_box(sum(&frame[8 + header_len..]));
                let next = answer
                    .next_offset
                    .context("a pull without nextBeginOffset")?;
                let cursor = &mut self.cursors[slot];
                let pulled = next.saturating_sub(cursor.offset);
                let end = ends[usize::from(cursor.queue)];
                cursor.offset = if next + 32 > end { 0 } else { next };
                pulled
            }
            _ => bail!("refused: {}", String::from_utf8_lossy(header)),
        };
        tally.count(messages, now.duration_since(*issued_at));
        Ok(answer.slot)
    }

    fn write(&mut self) -> Result<()> {
        while self.written < self.outbox.len() {
            match self.stream.write(&self.outbox[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error).context("write"),
            }
        }
        self.outbox.clear();
        self.written = 0;
        self.blocked = false;
        Ok(())
    }
}

/// The length of the frame at the front, length word included, once all of it is there.
pub(super) fn frame_len(bytes: &[u8]) -> Option<usize> {
    let len = 4 + be_u32(bytes.get(..4)?) as usize;
    (bytes.len() >= len && len >= 8).then_some(len)
}

pub(super) fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Sends one request and waits for its answer.
pub(super) fn one_request(load: &Load) -> Result<()> {
    let mut connection = Connection::open(load, 0)?;
    connection.stream.set_nonblocking(false)?;
    connection
        .stream
        .set_read_timeout(Some(Duration::from_secs(5)))?;
    let now = Instant::now();
    connection.issue(load, 0, &mut 0, now);
    connection.write()?;
    loop {
        let len = connection
            .stream
            .read(&mut connection.inbox[connection.filled..])?;
        if len == 0 {
            bail!("{} closed the connection", load.address);
        }
        connection.filled += len;
        if let Some(len) = frame_len(&connection.inbox[..connection.filled]) {
            return connection
                .take_answer(load, 0..len, now, &mut Tally::new()?)
                .map(drop);
        }
    }
}

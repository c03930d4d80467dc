//! The task that owns a connection's socket.
//!
//! Each time it is woken it reads what is there into one buffer, handles every whole frame in
//! place, and sends all answers with one vectored write. Buffers belong to the thread and are lent
//! to the connection that is being served, so that an idle connection holds none.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use remoting::{CommandView, FrameStep, ResponseCode, Scratch};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::TcpStream;

use super::Shared;
use super::connection::{CloseReason, Connection, Letter};
use super::exchange::{Exchange, Pending, Reply, ReplyTicket};
use super::output::Output;

/// Bytes read at a time.
const INPUT_LEN: usize = 256 * 1024;
/// Reads after which the other connections of the thread get their turn.
const READ_COUNT_MAX: usize = 4;
/// Answers that may wait for the device before the connection is not read from any more.
const PENDING_COUNT_MAX: usize = 4096;
/// A frame longer than the input buffer is given its own, which grows by at most so much before
/// bytes have come to fill it: claiming a length costs nothing.
const GROWTH_MAX: usize = 1024 * 1024;
/// An output buffer that grew beyond this is not kept by the thread.
const KEPT_OUTPUT_LEN: usize = 1024 * 1024;

thread_local! {
    static KIT: Cell<Option<Box<Kit>>> = const { Cell::new(None) };
}

/// The buffers that a thread lends to the connection it serves.
struct Kit {
    input: Vec<u8>,
    output: Vec<u8>,
    scratch: Scratch,
}

impl Kit {
    fn borrow() -> Box<Self> {
        KIT.take().unwrap_or_else(|| {
            let input = vec![0; INPUT_LEN];
            Box::new(Self {
                input,
                output: Vec::new(),
                scratch: Scratch::default(),
            })
        })
    }

    fn give_back(mut self: Box<Self>) {
        if self.output.capacity() > KEPT_OUTPUT_LEN {
            self.output = Vec::new();
        }
        KIT.set(Some(self));
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(guard: Registered, socket: std::net::TcpStream) {
    let socket = match TcpStream::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(peer = %guard.peer(), %error, "connection closed: it cannot be watched");
            return;
        }
    };
    let mut task = Task {
        guard,
        socket,
        partial: Vec::new(),
        is_behind: false,
        output: Output::default(),
        letters: VecDeque::new(),
        pending: VecDeque::new(),
        state: State::Serving,
    };
    let reason = poll_fn(|cx| task.poll(cx)).await;
    let peer = task.guard.peer();
    match reason {
        CloseReason::Peer | CloseReason::Shutdown | CloseReason::Malformed => {}
        _ => tracing::info!(%peer, ?reason, "connection closed"),
    }
}

struct Task {
    guard: Registered,
    socket: TcpStream,
    /// The beginning of a frame whose rest has not come yet; behind frames that are not handled yet
    /// where `is_behind` says so.
    partial: Vec<u8>,
    /// As much waits to be sent as may: no event of the socket tells when the frames can be handled.
    is_behind: bool,
    output: Output,
    letters: VecDeque<Letter>,
    pending: VecDeque<(ReplyTicket, Box<dyn Pending>)>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    /// What is in hand is answered, nothing more is read.
    Draining,
    /// The same, because the peer sends no more. What is held until something happens is let go.
    Ended,
}

/// Takes the connection out of the server's books however the task ends, a panic included.
pub(super) struct Registered {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Registered {
    pub(super) fn new(shared: Arc<Shared>, connection: Arc<Connection>) -> Self {
        Self { shared, connection }
    }

    pub(super) fn peer(&self) -> std::net::SocketAddr {
        self.connection.peer()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        drop(self.connection.mailbox().close());
        self.shared.forget(&self.connection);
        self.shared.service.closed(&self.connection);
    }
}

impl Task {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut kit = Kit::borrow();
        if self.output.is_empty() {
            drop(self.output.swap_buffer(std::mem::take(&mut kit.output)));
        }
        let result = self.run(cx, &mut kit);
        if self.output.is_empty() {
            kit.output = self.output.swap_buffer(Vec::new());
        }
        kit.give_back();
        result
    }

    /// Goes round until nothing moves any more, or for a while.
    fn run(&mut self, cx: &mut Context<'_>, kit: &mut Kit) -> Poll<CloseReason> {
        for _ in 0..READ_COUNT_MAX {
            let mut moved = false;
            self.guard
                .connection
                .mailbox()
                .collect(cx, &mut self.letters);
            while let Some(letter) = self.letters.pop_front() {
                moved = true;
                if let Some(reason) = self.open(letter) {
                    return Poll::Ready(reason);
                }
            }
            moved |= self.answer_pending(cx);
            if self.may_read() {
                match self.poll_receive(cx, kit) {
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(reason)) => return Poll::Ready(reason),
                    Poll::Pending => {}
                }
            }
            let sent = match self.output.poll_send(&mut self.socket, cx) {
                Poll::Ready(Ok(count)) => count > 0,
                Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::Peer),
                Poll::Pending => false,
            };
            moved |= sent;
            if moved {
                self.guard
                    .connection
                    .mark_active(self.guard.shared.now_ms());
            }
            self.mark_stalled(sent);
            if let Some(reason) = self.is_through() {
                return Poll::Ready(reason);
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Why the connection is to be closed, if what was in hand is answered.
    fn is_through(&self) -> Option<CloseReason> {
        let is_answered = self.pending.is_empty() && self.output.is_empty();
        match self.state {
            State::Draining if is_answered => Some(CloseReason::Shutdown),
            State::Ended if is_answered && !self.guard.connection.is_reading() => {
                Some(CloseReason::Peer)
            }
            _ => None,
        }
    }

    fn may_read(&self) -> bool {
        self.state == State::Serving
            && self.output.len() < self.guard.shared.limits.outbound_high_water
            && self.pending.len() < PENDING_COUNT_MAX
    }

    /// The sweep closes a connection whose peer has not taken a byte for too long.
    fn mark_stalled(&self, sent: bool) {
        let connection = &self.guard.connection;
        if self.output.is_empty() {
            connection.mark_stalled(0);
        } else if sent || connection.stalled_ms(u64::MAX) == 0 {
            connection.mark_stalled(self.guard.shared.now_ms().max(1));
        }
    }

    fn open(&mut self, letter: Letter) -> Option<CloseReason> {
        match letter {
            Letter::Frame(frame) => self.output.bytes_mut().extend_from_slice(&frame),
            Letter::Resume(held) => {
                let ticket = held.ticket();
                let mut exchange = Exchange::new(&self.guard.connection, &mut self.output, ticket);
                let reply = held.resume(&mut exchange);
                self.keep(ticket, reply);
            }
            Letter::Drain => self.state = State::Draining,
            Letter::Close(reason) => return Some(reason),
        }
        None
    }

    fn keep(&mut self, ticket: ReplyTicket, reply: Reply) {
        match reply {
            Reply::Done | Reply::Held => {}
            Reply::Later(pending) => self.pending.push_back((ticket, pending)),
        }
    }

    fn answer_pending(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some((_, pending)) = self.pending.front_mut() {
            if pending.poll_ready(cx).is_pending() {
                break;
            }
            moved = true;
            if let Some((ticket, pending)) = self.pending.pop_front() {
                let mut exchange = Exchange::new(&self.guard.connection, &mut self.output, ticket);
                let reply = pending.answer(&mut exchange);
                self.keep(ticket, reply);
            }
        }
        moved
    }

    /// Reads once and handles what came.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        kit: &mut Kit,
    ) -> Poll<Result<(), CloseReason>> {
        if std::mem::take(&mut self.is_behind) {
            let received = std::mem::take(&mut self.partial);
            let handled = self.handle_frames(&received, &mut kit.scratch)?;
            self.hold(&received[handled..]);
            return Poll::Ready(Ok(()));
        }
        let held = self.partial.len();
        if held >= kit.input.len() / 2 {
            return self.poll_receive_long(cx, &mut kit.scratch);
        }
        let mut space = ReadBuf::new(&mut kit.input[held..]);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space)).map_err(closed)?;
        let count = space.filled().len();
        if count == 0 {
            self.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        kit.input[..held].copy_from_slice(&self.partial);
        self.partial.clear();
        let received = &kit.input[..held + count];
        let handled = self.handle_frames(received, &mut kit.scratch)?;
        self.hold(&received[handled..]);
        Poll::Ready(Ok(()))
    }

    /// As [`poll_receive`](Task::poll_receive), for a frame that needs a buffer of its own.
    fn poll_receive_long(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<Result<(), CloseReason>> {
        let missing = self.missing()?;
        self.partial.reserve(missing.clamp(1, GROWTH_MAX));
        let read = pin!(self.socket.read_buf(&mut self.partial));
        if ready!(read.poll(cx)).map_err(closed)? == 0 {
            self.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        if self.missing()? == 0 {
            let received = std::mem::take(&mut self.partial);
            let handled = self.handle_frames(&received, scratch)?;
            self.hold(&received[handled..]);
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes that the frame at the start of `partial` still lacks.
    fn missing(&self) -> Result<usize, CloseReason> {
        match remoting::next_frame(&self.partial, self.guard.shared.limits.frame_len_max) {
            Ok(FrameStep::NeedMore(missing)) => Ok(missing),
            Ok(FrameStep::Frame(_)) => Ok(0),
            Err(error) => Err(self.malformed(&error)),
        }
    }

    fn hold(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            // An idle connection keeps no buffer.
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
    }

    /// Handles the whole frames at the start of `received`, as long as answers may be added to those
    /// that wait; returns how many bytes they were.
    fn handle_frames(
        &mut self,
        received: &[u8],
        scratch: &mut Scratch,
    ) -> Result<usize, CloseReason> {
        let mut handled = 0;
        loop {
            let rest = &received[handled..];
            let limit = self.guard.shared.limits.frame_len_max;
            match remoting::next_frame(rest, limit).map_err(|error| self.malformed(&error))? {
                FrameStep::NeedMore(_) => return Ok(handled),
                FrameStep::Frame(_) if !self.may_read() => {
                    self.is_behind = true;
                    return Ok(handled);
                }
                FrameStep::Frame(frame) => {
                    self.handle_frame(&rest[..frame.len], scratch)?;
                    handled += frame.len;
                }
            }
        }
    }

    fn handle_frame(&mut self, frame: &[u8], scratch: &mut Scratch) -> Result<(), CloseReason> {
        let view = CommandView::parse(frame, scratch).map_err(|error| self.malformed(&error))?;
        let connection = &self.guard.connection;
        if view.is_response() {
            connection.answer(view.to_command());
            return Ok(());
        }
        let ticket = ReplyTicket::of(&view);
        let mut exchange = Exchange::new(connection, &mut self.output, ticket);
        let reply = self.guard.shared.service.handle(&mut exchange, &view);
        if matches!(reply, Reply::Done) && !exchange.is_answered() {
            // NettyRemotingAbstract: a response that nobody gave a code.
            let _ = exchange.refuse(ResponseCode::SYSTEM_ERROR, "not set any response code");
        }
        self.keep(ticket, reply);
        Ok(())
    }

    fn malformed(&self, error: &dyn std::fmt::Display) -> CloseReason {
        let peer = self.guard.connection.peer();
        tracing::warn!(%peer, %error, "connection closed: this is not the remoting protocol");
        CloseReason::Malformed
    }
}

fn closed(_: io::Error) -> CloseReason {
    CloseReason::Peer
}

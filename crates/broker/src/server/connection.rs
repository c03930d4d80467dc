//! One connection: the shared handle that others address it by, and the letters they send.
//!
//! The task that owns the socket is [`task`](super::task).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use remoting::Command;
use tokio::sync::oneshot;

use super::exchange::Resume;
use super::mailbox::{Mailbox, Refused};

/// What others may want of a connection's task.
pub(super) enum Letter {
    /// Send this frame as it is.
    Frame(Vec<u8>),
    /// Go on with a request that was held.
    Resume(Box<dyn Resume>),
    /// Read no more, answer what is in hand, then close.
    Drain,
    /// Close at once.
    Close(CloseReason),
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(frame) => write!(f, "Frame({} bytes)", frame.len()),
            Self::Resume(_) => f.write_str("Resume"),
            Self::Drain => f.write_str("Drain"),
            Self::Close(reason) => write!(f, "Close({reason:?})"),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it, or the network failed.
    Peer,
    /// What came was not a frame, or one longer than allowed.
    Malformed,
    /// Nothing was sent or received for the idle time.
    Idle,
    /// The peer took none of the bytes meant for it for the stall time.
    Stalled,
    /// Its client sent no heartbeat for the expiry time.
    Expired,
    /// The server shuts down.
    Shutdown,
}

/// The handle of a connection; the task that serves it holds another.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    peer: SocketAddr,
    mailbox: Mailbox<Letter>,
    /// Milliseconds of the server's clock at the last byte in either direction; written by the
    /// task, read by the sweep. No other data hangs on it.
    active_ms: AtomicU64,
    /// The same clock when the peer last took a byte while more were waiting; 0 = none waiting.
    stalled_since_ms: AtomicU64,
    next_opaque: AtomicI32,
    /// Requests that are held: changed by [`HeldSlot`] alone.
    held_count: AtomicUsize,
    /// Those of them that wait for bytes to be read, and not for something to happen.
    reading_count: AtomicUsize,
    /// Requests of ours that the client has not answered yet, by opaque.
    asked: Mutex<HashMap<i32, oneshot::Sender<Command>>>,
}

impl Connection {
    pub(super) fn new(id: u64, peer: SocketAddr, mailbox_capacity: usize, now_ms: u64) -> Self {
        Self {
            id,
            peer,
            mailbox: Mailbox::new(mailbox_capacity),
            active_ms: AtomicU64::new(now_ms),
            stalled_since_ms: AtomicU64::new(0),
            next_opaque: AtomicI32::new(1),
            held_count: AtomicUsize::new(0),
            reading_count: AtomicUsize::new(0),
            asked: Mutex::default(),
        }
    }

    /// Number of the connection, never used again in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sends a request that wants no answer. A client whose mailbox is full misses it: these are
    /// hints (its group changed) that it would find out by itself later.
    ///
    /// `request` is made by [`Command::oneway`].
    pub fn notify(&self, request: Command) {
        self.post_request(&request.with_opaque(self.opaque()));
    }

    /// Sends a request and returns what will hold the answer. Dropped without one when the
    /// connection closes.
    pub fn ask(&self, request: Command) -> Asked<'_> {
        let opaque = self.opaque();
        let (sender, answer) = oneshot::channel();
        self.asked().insert(opaque, sender);
        if !self.post_request(&request.with_opaque(opaque)) {
            self.asked().remove(&opaque);
        }
        Asked {
            connection: self,
            opaque,
            answer,
        }
    }

    /// Takes one of `limit` places for held requests; `None` when all are taken.
    #[must_use]
    pub fn hold(self: &Arc<Self>, limit: usize) -> Option<HeldSlot> {
        self.hold_for(limit, false)
    }

    /// As [`hold`](Self::hold), for a request that is answered as soon as something is read: even if
    /// the client has said meanwhile that it sends no more.
    #[must_use]
    pub fn hold_to_read(self: &Arc<Self>, limit: usize) -> Option<HeldSlot> {
        self.hold_for(limit, true)
    }

    fn hold_for(self: &Arc<Self>, limit: usize, is_reading: bool) -> Option<HeldSlot> {
        let slot = HeldSlot {
            connection: Arc::clone(self),
            is_reading,
        };
        if is_reading {
            self.reading_count.fetch_add(1, Ordering::Relaxed);
        }
        let taken = self.held_count.fetch_add(1, Ordering::Relaxed);
        // Dropping the slot gives a place back that was one too many.
        (taken < limit).then_some(slot)
    }

    /// Whether requests wait for bytes to be read.
    pub(super) fn is_reading(&self) -> bool {
        self.reading_count.load(Ordering::Relaxed) > 0
    }

    /// Wakes the task with a held request.
    ///
    /// # Errors
    /// The connection is closed or its mailbox is full; the request comes back.
    pub fn resume(&self, held: Box<dyn Resume>) -> Result<(), Box<dyn Resume>> {
        self.mailbox
            .post(Letter::Resume(held))
            .map_err(|refused| match refused {
                Refused::Full(Letter::Resume(held)) | Refused::Closed(Letter::Resume(held)) => held,
                Refused::Full(other) | Refused::Closed(other) => {
                    unreachable!("a mailbox returns the letter it was given, not {other:?}")
                }
            })
    }

    /// Has the connection closed.
    pub fn close(&self, reason: CloseReason) {
        // A full mailbox is being emptied; the sweep asks again.
        let _ = self.mailbox.post(Letter::Close(reason));
    }

    pub(super) fn mailbox(&self) -> &Mailbox<Letter> {
        &self.mailbox
    }

    pub(super) fn answer(&self, answer: Command) {
        if let Some(sender) = self.asked().remove(&answer.opaque) {
            // Whoever asked may have given up.
            let _ = sender.send(answer);
        }
    }

    pub(super) fn mark_active(&self, now_ms: u64) {
        self.active_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn mark_stalled(&self, since_ms: u64) {
        self.stalled_since_ms.store(since_ms, Ordering::Relaxed);
    }

    /// Milliseconds without a byte in either direction.
    pub(super) fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.active_ms.load(Ordering::Relaxed))
    }

    /// Milliseconds in which the peer took nothing of what is waiting for it.
    pub(super) fn stalled_ms(&self, now_ms: u64) -> u64 {
        match self.stalled_since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since => now_ms.saturating_sub(since),
        }
    }

    fn opaque(&self) -> i32 {
        self.next_opaque.fetch_add(1, Ordering::Relaxed)
    }

    fn post_request(&self, request: &Command) -> bool {
        let mut frame = Vec::new();
        match request.encode(&mut frame) {
            Ok(()) => self.mailbox.post(Letter::Frame(frame)).is_ok(),
            Err(error) => {
                tracing::warn!(peer = %self.peer, %error, "a request to a client was not sent");
                false
            }
        }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Command>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one held request of a connection, given back when it is dropped.
#[derive(Debug)]
pub struct HeldSlot {
    connection: Arc<Connection>,
    is_reading: bool,
}

impl HeldSlot {
    /// The connection that the request came from.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        self.connection.held_count.fetch_sub(1, Ordering::Relaxed);
        if self.is_reading {
            self.connection
                .reading_count
                .fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A request to a client that is not answered yet. Dropping it forgets the request.
#[derive(Debug)]
pub struct Asked<'a> {
    connection: &'a Connection,
    opaque: i32,
    answer: oneshot::Receiver<Command>,
}

impl Asked<'_> {
    /// The answer; `None` if none came until the deadline or the connection closed.
    pub async fn wait(mut self, deadline: Instant) -> Option<Command> {
        let answer = tokio::time::timeout_at(deadline.into(), &mut self.answer).await;
        answer.ok().and_then(Result::ok)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.connection.asked().remove(&self.opaque);
    }
}

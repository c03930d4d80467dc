//! Threads that read what is not in memory, so that those that serve the sockets never wait for a
//! disk, nor do other clients.
//!
//! Their budget is of their own: so many threads, so many reads that wait, and so many bytes that
//! were read for connections that have not picked them up.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use remoting::ResponseCode;

use crate::config::ColdReads;
use crate::processor::{Outcome, Refusal, settle};
use crate::server::{Exchange, HeldSlot, Reply, ReplyTicket, Resume};

/// What is done with what was read, by the connection's own task.
pub type Then = Box<dyn FnOnce(&mut Exchange<'_>) -> Outcome + Send>;

/// The threads, and the reads that wait for them.
#[derive(Debug)]
pub struct Readers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    budget: ColdReads,
    state: Mutex<State>,
    /// There is a read that may begin, or nothing more will come.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Read>,
    /// Reads that have begun, ever.
    begun: u64,
    /// Bytes of reads that have begun and whose answers are not picked up.
    bytes: u64,
    is_stopped: bool,
}

/// A read that waits for a thread.
struct Read {
    /// What it may come to.
    bytes: u64,
    slot: HeldSlot,
    ticket: ReplyTicket,
    read: Box<dyn FnOnce() -> Then + Send>,
}

/// What was read, on its way to the connection.
struct Answer {
    slot: HeldSlot,
    ticket: ReplyTicket,
    then: Then,
    bytes: InHand,
}

/// Bytes of the budget, given back when they are picked up, or when nobody is left to.
struct InHand {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Readers {
    /// Starts the threads; none, if the budget says so: then everything is read where it is asked
    /// for.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(budget: &ColdReads) -> io::Result<Self> {
        let readers = Self {
            shared: Arc::new(Shared {
                budget: budget.clone(),
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
            threads: Mutex::default(),
        };
        for number in 0..budget.thread_count {
            let shared = Arc::clone(&readers.shared);
            let thread = std::thread::Builder::new()
                .name(format!("cold-read-{number}"))
                .spawn(move || shared.run())?;
            lock(&readers.threads).push(thread);
        }
        Ok(readers)
    }

    /// Whether there are threads for what is not in memory.
    #[must_use]
    pub fn are_there(&self) -> bool {
        self.shared.budget.thread_count > 0
    }

    /// Reads that wait for a thread.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        lock(&self.shared.state).waiting.len()
    }

    /// Reads that a thread has begun since the start.
    #[must_use]
    pub fn begun_count(&self) -> u64 {
        lock(&self.shared.state).begun
    }

    /// Has `read` run by one of the threads, and what it returns by the connection's task.
    /// `bytes` is what it reads at most.
    ///
    /// # Errors
    /// As many wait as may, of all connections or of this one.
    pub fn read(
        &self,
        exchange: &Exchange<'_>,
        held_max: usize,
        bytes: u64,
        read: impl FnOnce() -> Then + Send + 'static,
    ) -> Outcome {
        let Some(slot) = exchange.connection().hold_to_read(held_max) else {
            return Err(busy(format!(
                "{held_max} requests of this connection are held already \
                 (foliomq.maxHeldPullsPerConnection)"
            )));
        };
        let most = self.shared.budget.waiting_max;
        let mut state = lock(&self.shared.state);
        if state.waiting.len() >= most {
            return Err(busy(format!(
                "{most} reads of what is not in memory wait already (foliomq.coldReadQueueMax)"
            )));
        }
        state.waiting.push_back(Read {
            bytes,
            slot,
            ticket: exchange.ticket(),
            read: Box::new(read),
        });
        drop(state);
        self.shared.changed.notify_one();
        Ok(Reply::Held)
    }

    /// Ends the threads; reads that wait are dropped.
    pub fn stop(&self) {
        self.shared.stop();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A panic has been printed.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // Not joined: the last to let go of the broker may be one of them.
        self.shared.stop();
    }
}

/// RocketMQ's clients come back after 20 ms.
fn busy(reason: String) -> Refusal {
    Refusal::new(
        ResponseCode::FLOW_CONTROL,
        format!("[FLOW_CONTROL] {reason}; try again"),
    )
}

impl Shared {
    fn run(self: &Arc<Self>) {
        while let Some((read, bytes)) = self.next() {
            let Read {
                slot, ticket, read, ..
            } = read;
            // One that panics is not answered, as one whose task panics; the thread lives on.
            let Ok(then) = catch_unwind(AssertUnwindSafe(read)) else {
                continue;
            };
            let connection = Arc::clone(slot.connection());
            let answer = Answer {
                slot,
                ticket,
                then,
                bytes,
            };
            // A connection that is closed needs no answer, and a mailbox takes all that is held.
            let _unanswered = connection.resume(Box::new(answer));
        }
    }

    /// The next read, as soon as its bytes are within the budget; one read always is.
    fn next(self: &Arc<Self>) -> Option<(Read, InHand)> {
        let mut state = lock(&self.state);
        loop {
            if state.is_stopped {
                return None;
            }
            let in_hand = state.bytes;
            let fits = |read: &Read| {
                in_hand == 0 || in_hand.saturating_add(read.bytes) <= self.budget.bytes_max
            };
            if state.waiting.front().is_some_and(fits)
                && let Some(read) = state.waiting.pop_front()
            {
                state.begun += 1;
                state.bytes += read.bytes;
                let bytes = InHand {
                    shared: Arc::clone(self),
                    bytes: read.bytes,
                };
                return Some((read, bytes));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        let dropped = {
            let mut state = lock(&self.state);
            state.is_stopped = true;
            std::mem::take(&mut state.waiting)
        };
        self.changed.notify_all();
        drop(dropped);
    }
}

impl Resume for Answer {
    fn ticket(&self) -> ReplyTicket {
        self.ticket
    }

    fn resume(self: Box<Self>, exchange: &mut Exchange<'_>) -> Reply {
        let Self {
            slot, then, bytes, ..
        } = *self;
        drop((slot, bytes));
        let outcome = then(exchange);
        settle(exchange, outcome)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        lock(&self.shared.state).bytes -= self.bytes;
        self.shared.changed.notify_all();
    }
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Read")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under the locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The mailbox of a connection: how other threads reach the task that owns the socket.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// A bounded queue of letters that wakes one task. Letters come out in the order they went in.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    state: Mutex<State<T>>,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    letters: VecDeque<T>,
    /// The task to wake; taken by the sender that wakes it.
    waker: Option<Waker>,
    open: bool,
}

/// Why a letter was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused<T> {
    /// As many letters as allowed are waiting.
    Full(T),
    /// The task is gone.
    Closed(T),
}

impl<T> Mailbox<T> {
    /// A mailbox for at most `capacity` waiting letters.
    #[must_use]
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            letters: VecDeque::new(),
            waker: None,
            open: true,
        };
        Self {
            state: Mutex::new(state),
            capacity,
        }
    }

    /// Puts a letter in and wakes the task.
    ///
    /// # Errors
    /// The mailbox is full or closed; the letter comes back.
    pub(super) fn post(&self, letter: T) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        if !state.open {
            return Err(Refused::Closed(letter));
        }
        if state.letters.len() >= self.capacity {
            return Err(Refused::Full(letter));
        }
        state.letters.push_back(letter);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Moves all waiting letters into `letters`. If there are none, the task of `cx` is woken by
    /// the next one.
    pub(super) fn collect(&self, cx: &Context<'_>, letters: &mut VecDeque<T>) {
        let mut state = self.lock();
        if !state.letters.is_empty() {
            letters.append(&mut state.letters);
            // An idle connection keeps no buffer.
            state.letters = VecDeque::new();
            return;
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker @ None => *waker = Some(cx.waker().clone()),
        }
    }

    /// Refuses further letters and returns the waiting ones.
    pub(super) fn close(&self) -> VecDeque<T> {
        let mut state = self.lock();
        state.open = false;
        state.waker = None;
        std::mem::take(&mut state.letters)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn letters_wake_once_and_come_out_in_order() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let mailbox = Mailbox::new(2);
        let mut letters = VecDeque::new();
        mailbox.collect(&cx, &mut letters);
        mailbox.post(1).unwrap();
        mailbox.post(2).unwrap();
        assert_eq!(mailbox.post(3), Err(Refused::Full(3)));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        mailbox.collect(&cx, &mut letters);
        assert_eq!(letters, [1, 2]);
        // Collecting letters does not arm the waker: the task looks again before it sleeps.
        mailbox.post(4).unwrap();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(mailbox.close(), [4]);
        assert_eq!(mailbox.post(5), Err(Refused::Closed(5)));
    }
}

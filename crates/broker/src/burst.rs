//! Bursts of sends: a thread that serves connections dispatches what it stored itself, before it
//! sleeps, and before anybody can ask it for the messages.

use std::cell::RefCell;

use store::{Burst, MessageStore};

/// Sends after which a burst ends, however much there is still to do.
const SEND_COUNT_MAX: usize = 256;

thread_local! {
    /// The burst of this thread, and how many sends are in it. Ends with the thread.
    static BURST: RefCell<Option<(Burst, usize)>> = const { RefCell::new(None) };
}

/// This thread is about to store something; it calls [`end`] before it sleeps.
pub(crate) fn join(store: &MessageStore) {
    BURST.with_borrow_mut(|burst| match burst {
        Some((_, count)) if *count < SEND_COUNT_MAX => *count += 1,
        // The old one ends when the new one has begun.
        _ => *burst = store.burst().map(|begun| (begun, 1)),
    });
}

/// Ends this thread's burst, if there is one.
pub(crate) fn end() {
    drop(BURST.take());
}

//! Bursts of sends: a thread that serves connections dispatches what it stored itself, before it
//! sleeps, and before anybody can ask it for the messages.

use std::cell::RefCell;

use store::{Burst, MessageStore};

/// Messages after which a burst ends, however much there is still to do.
const MESSAGE_COUNT_MAX: usize = 256;

thread_local! {
    /// The burst of this thread, and how many messages are in it. Ends with the thread.
    static BURST: RefCell<Option<(Burst, usize)>> = const { RefCell::new(None) };
}

/// This thread is about to store something; it calls [`end`] before it sleeps.
pub(crate) fn join(store: &MessageStore) {
    BURST.with_borrow_mut(|burst| match burst {
        Some((_, count)) if *count < MESSAGE_COUNT_MAX => *count += 1,
        // The old one ends when the new one has begun.
        _ => *burst = store.burst().map(|begun| (begun, 1)),
    });
}

/// What was about to be stored were so many messages.
pub(crate) fn stored_batch(count: usize) {
    BURST.with_borrow_mut(|burst| {
        if let Some((_, burst_count)) = burst {
            *burst_count += count.saturating_sub(1);
        }
    });
}

/// Ends this thread's burst, if there is one.
pub(crate) fn end() {
    drop(BURST.take());
}

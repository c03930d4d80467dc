//! Bursts: many puts by one thread, which dispatches them itself when it is through.
//!
//! To wake the dispatching thread for each message costs as much as to store it, and it takes a
//! processor from the thread that stores the next one.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use mmap_core::{Io, OsIo};

use crate::core::Core;

/// Steps of dispatch at the end of a burst; what is left then is for the dispatching thread.
const STEP_COUNT_MAX: usize = 8;

/// While there is one, puts do not wake the dispatching thread. Dropping it dispatches what is
/// visible, on this thread, or has it dispatched: so it must not be kept while its thread waits for
/// anything.
#[derive(Debug)]
pub struct Burst<I: Io = OsIo> {
    core: Arc<Core<I>>,
}

impl<I: Io> Burst<I> {
    pub(crate) fn begin(core: &Arc<Core<I>>) -> Self {
        core.log.hush();
        Self {
            core: Arc::clone(core),
        }
    }
}

impl<I: Io> Drop for Burst<I> {
    fn drop(&mut self) {
        self.core.log.unhush();
        for _ in 0..STEP_COUNT_MAX {
            // Whoever publishes and then finds that somebody else dispatches relies on him to look
            // once more behind the lock: here, or before the dispatching thread sleeps.
            fence(Ordering::SeqCst);
            if self.core.log.visible() <= self.core.dispatcher.next_offset() {
                return;
            }
            match self.core.try_step_dispatch() {
                Some(Ok(_)) => {}
                Some(Err(_noted)) => break,
                None => return,
            }
        }
        self.core.log.wake_waiters();
    }
}

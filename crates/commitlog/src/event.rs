//! An event count: waiting for a condition that others make true without a lock.
//!
//! The side that makes the condition true pays one fence and one load while nobody sleeps, and
//! one system call for each sleep that it ends: calls that come before a woken sleeper runs again
//! find the bell rung and make none. It is not a queue: every sleeper is woken and looks at its
//! condition again.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use mmap_core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use mmap_core::sync::{Condvar, Mutex};

#[cfg(all(test, loom))]
mod models;

/// Sleepers, and the bell that wakes them.
#[derive(Debug, Default)]
pub(crate) struct EventCount {
    // Set by a sleeper, under the bell, before it looks at its condition for the last time; taken
    // back, under the bell, by the call that wakes it. The SeqCst fences on both sides make sure
    // that either the sleeper sees the condition or `notify` sees the sleeper. May be left set by
    // a sleeper whose time was up, which costs one needless ring.
    has_sleepers: AtomicBool,
    // How many have taken it on to look for sleepers' conditions themselves, in a while.
    hushed: AtomicUsize,
    // Guards nothing but the moment between the last look and the sleep.
    bell: Mutex<()>,
    condvar: Condvar,
}

impl EventCount {
    /// Wakes whoever sleeps. What they wait for must have been made true before.
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.has_sleepers.load(Ordering::Relaxed) {
            // Taking the lock orders this call after a sleeper's last look, which happens
            // under the lock: it either saw the change or is in `wait_timeout` already. Whoever
            // notifies from here on may leave the ringing to this call: a woken sleeper sets the
            // flag and looks again before it goes back to sleep.
            let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
            self.has_sleepers.store(false, Ordering::Relaxed);
            drop(bell);
            self.condvar.notify_all();
        }
    }

    /// As [`notify`](Self::notify), unless somebody has hushed it.
    pub(crate) fn notify_unless_hushed(&self) {
        // Either this call sees that it is hushed no more, or who ended that sees the change.
        fence(Ordering::SeqCst);
        if self.hushed.load(Ordering::Relaxed) == 0 {
            self.notify();
        }
    }

    /// From now on, changes may go without a bell until [`unhush`](Self::unhush).
    pub(crate) fn hush(&self) {
        self.hushed.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends that. Changes made meanwhile are visible to the caller, who must act on them or
    /// [`notify`](Self::notify).
    pub(crate) fn unhush(&self) {
        self.hushed.fetch_sub(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn has_sleepers(&self) -> bool {
        self.has_sleepers.load(Ordering::SeqCst)
    }

    /// Sleeps until `ready` or until `timeout` has passed; says whether it is ready.
    pub(crate) fn wait(&self, timeout: Duration, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        // A timeout too far away for an Instant is no timeout.
        let deadline = Instant::now().checked_add(timeout);
        let mut bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.has_sleepers.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if ready() {
                return true;
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                return false;
            }
            bell = self
                .condvar
                .wait_timeout(bell, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(bell, _)| bell);
            // Before the flag is set: who leaves needs no further ring.
            if ready() {
                return true;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn sleepers_see_every_change() {
        let event = Arc::new(EventCount::default());
        let value = Arc::new(AtomicU64::new(0));
        let changes = 2_000;
        let waiters = [1, 3].map(|stride| {
            let (event, value) = (event.clone(), value.clone());
            std::thread::spawn(move || {
                let mut seen = 0;
                while seen + stride <= changes {
                    let more = event.wait(Duration::from_secs(30), || {
                        value.load(Ordering::Acquire) >= seen + stride
                    });
                    assert!(more, "a wake-up was lost after {seen}");
                    seen = value.load(Ordering::Acquire);
                }
            })
        });
        for change in 1..=changes {
            value.store(change, Ordering::Release);
            event.notify();
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
    }

    #[test]
    fn a_sleep_is_ended_by_one_ring() {
        let event = EventCount::default();
        assert!(!event.wait(Duration::from_millis(1), || false));
        assert!(event.has_sleepers.load(Ordering::Relaxed));
        event.notify();
        assert!(!event.has_sleepers.load(Ordering::Relaxed));
    }

    #[test]
    fn a_hushed_bell_is_rung_by_who_hushed_it() {
        let event = EventCount::default();
        assert!(!event.wait(Duration::from_millis(1), || false));
        event.hush();
        event.hush();
        event.unhush();
        event.notify_unless_hushed();
        assert!(event.has_sleepers.load(Ordering::Relaxed));
        event.unhush();
        event.notify_unless_hushed();
        assert!(!event.has_sleepers.load(Ordering::Relaxed));
    }

    #[test]
    fn the_timeout_ends_the_wait() {
        let event = EventCount::default();
        assert!(!event.wait(Duration::from_millis(1), || false));
        assert!(event.wait(Duration::ZERO, || true));
        assert!(!event.wait(Duration::ZERO, || false));
    }
}

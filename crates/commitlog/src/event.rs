//! An event count: waiting for a condition that others make true without a lock.
//!
//! The side that makes the condition true pays one fence and one load while nobody sleeps, and
//! a system call only when somebody does. It is not a queue: every sleeper is woken and looks
//! at its condition again.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sleepers, and the bell that wakes them.
#[derive(Debug, Default)]
pub(crate) struct EventCount {
    // Incremented by a sleeper before it looks at its condition for the last time. The SeqCst
    // fences on both sides make sure that either the sleeper sees the condition or `notify`
    // sees the sleeper.
    sleepers: AtomicU32,
    // Guards nothing but the moment between the last look and the sleep.
    bell: Mutex<()>,
    condvar: Condvar,
}

impl EventCount {
    /// Wakes whoever sleeps. What they wait for must have been made true before.
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            // Taking the lock orders this call after a sleeper's last look, which happens
            // under the lock: it either saw the change or is in `wait_timeout` already.
            drop(self.bell.lock().unwrap_or_else(PoisonError::into_inner));
            self.condvar.notify_all();
        }
    }

    /// Sleeps until `ready` or until `timeout` has passed; says whether it is ready.
    pub(crate) fn wait(&self, timeout: Duration, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        // A timeout too far away for an Instant is no timeout.
        let deadline = Instant::now().checked_add(timeout);
        let mut bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut is_ready = ready();
        while !is_ready {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                break;
            }
            bell = self
                .condvar
                .wait_timeout(bell, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(bell, _)| bell);
            is_ready = ready();
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        is_ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn a_sleeper_sees_every_change() {
        let event = Arc::new(EventCount::default());
        let value = Arc::new(AtomicU64::new(0));
        let changes = 2_000;
        let waiter = std::thread::spawn({
            let (event, value) = (event.clone(), value.clone());
            move || {
                let mut seen = 0;
                while seen < changes {
                    let more = event.wait(Duration::from_secs(30), || {
                        value.load(Ordering::Acquire) > seen
                    });
                    assert!(more, "a wake-up was lost after {seen}");
                    seen = value.load(Ordering::Acquire);
                }
            }
        });
        for change in 1..=changes {
            value.store(change, Ordering::Release);
            event.notify();
        }
        waiter.join().unwrap();
    }

    #[test]
    fn the_timeout_ends_the_wait() {
        let event = EventCount::default();
        assert!(!event.wait(Duration::from_millis(1), || false));
        assert!(event.wait(Duration::ZERO, || true));
        assert!(!event.wait(Duration::ZERO, || false));
    }
}

//! The event count in every order of the threads' steps that matters: `cargo xtask loom`. A wake-up
//! that is lost leaves a sleeper for good, which loom reports: no time passes in a model.

#![allow(clippy::unwrap_used, reason = "a model that does not hold panics")]

use std::time::Duration;

use mmap_core::sync::atomic::{AtomicUsize, Ordering};
use mmap_core::sync::{Arc, model, thread};

use super::EventCount;

/// What is waited for: that a number has got so far.
#[derive(Default)]
struct Counted {
    event: EventCount,
    count: AtomicUsize,
}

impl Counted {
    /// Relaxed on purpose: the event count itself must see to it that the change is seen.
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn wait_for(&self, count: usize) {
        assert!(self.event.wait(Duration::MAX, || self.count() >= count));
    }
}

fn spawn(counted: &Arc<Counted>, run: impl FnOnce(&Counted) + 'static) -> thread::JoinHandle<()> {
    let counted = Arc::clone(counted);
    thread::spawn(move || run(&counted))
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn no_change_is_slept_through() {
    model(|| {
        let counted = Arc::new(Counted::default());
        let sleeper = spawn(&counted, |counted| {
            counted.wait_for(1);
            counted.wait_for(2);
        });
        for _ in 0..2 {
            counted.add();
            counted.event.notify();
        }
        join([sleeper]);
    });
}

#[test]
fn all_who_sleep_are_woken() {
    model(|| {
        let counted = Arc::new(Counted::default());
        let sleepers = [(); 2].map(|()| spawn(&counted, |counted| counted.wait_for(1)));
        counted.add();
        counted.event.notify();
        join(sleepers);
    });
}

#[test]
fn a_ring_may_be_left_to_another() {
    model(|| {
        let counted = Arc::new(Counted::default());
        let change = |counted: &Counted| {
            counted.add();
            counted.event.notify();
        };
        let others = [
            spawn(&counted, |counted| counted.wait_for(2)),
            spawn(&counted, change),
        ];
        change(&counted);
        join(others);
    });
}

#[test]
fn who_hushes_the_bell_sees_what_was_not_rung_for() {
    model(|| {
        let counted = Arc::new(Counted::default());
        let others = [
            spawn(&counted, |counted| counted.wait_for(1)),
            spawn(&counted, |counted| {
                counted.add();
                counted.event.notify_unless_hushed();
            }),
        ];
        counted.event.hush();
        counted.event.unhush();
        if counted.count() > 0 {
            counted.event.notify();
        }
        join(others);
    });
}

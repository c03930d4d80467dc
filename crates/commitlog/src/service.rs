//! Background work as step functions, and the threads that run them.
//!
//! A service does one piece of work per step and says when it wants the next. A simulation calls
//! the steps itself, in any order and with any clock; in production [`LogServices`] gives each a
//! named thread and joins it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mmap_core::Io;

use crate::core::Core;
use crate::error::LogError;
use crate::event::EventCount;

/// When a service wants its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Now,
    /// After this long, or earlier if there is work.
    After(Duration),
    /// When there is work.
    OnWake,
}

/// The threads of one log: flush, preallocation, in sync mode the watcher of deadlines, in staged
/// mode the commit.
///
/// Dropping it stops and joins them. What was appended stays; [`CommitLog::close`] flushes it.
///
/// [`CommitLog::close`]: crate::CommitLog::close
pub struct LogServices<I: Io> {
    core: Arc<Core<I>>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    // Set once by `LogServices` (Release), read by the threads (Acquire). Publishes nothing else.
    is_set: AtomicBool,
    event: EventCount,
}

impl<I: Io> LogServices<I> {
    pub(crate) fn start(core: &Arc<Core<I>>) -> Result<Self, LogError> {
        let mut services = Self {
            core: core.clone(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        core.threads_started();
        services.spawn("log-flush", run_flush)?;
        services.spawn("log-prepare", run_prepare)?;
        if core.sync_timeout.is_some() {
            services.spawn("log-deadline", run_deadlines)?;
        }
        if core.stage.is_some() {
            services.spawn("log-commit", run_commit)?;
        }
        Ok(services)
    }

    /// Stops the threads and waits for their end: at most the duration of one sync.
    pub fn stop(self) {
        drop(self);
    }

    fn spawn(&mut self, name: &'static str, run: fn(&Arc<Core<I>>, &Stop)) -> Result<(), LogError> {
        let (core, stop) = (self.core.clone(), self.stop.clone());
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&core, &stop))
            .map_err(|source| LogError::Thread { name, source })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl<I: Io> fmt::Debug for LogServices<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogServices")
            .field("threads", &self.threads.len())
            .finish()
    }
}

impl<I: Io> Drop for LogServices<I> {
    fn drop(&mut self) {
        self.stop.is_set.store(true, Ordering::Release);
        self.stop.event.notify();
        self.core.work.notify();
        self.core.growth.notify();
        for thread in self.threads.drain(..) {
            // A panic of a service has been printed by the panic hook; its effect on the log is
            // a poisoned lock, which ends it for writers.
            let _ = thread.join();
        }
        self.core.threads_stopped();
    }
}

fn run_flush<I: Io>(core: &Arc<Core<I>>, stop: &Stop) {
    if core.sync_timeout.is_some() {
        run_on_work(core, stop, Core::step_flush);
        return;
    }
    let stopped = || stop.is_set.load(Ordering::Acquire);
    while !stopped() {
        let pause = match core.step_flush() {
            Next::Now => continue,
            Next::After(pause) => pause,
            Next::OnWake => Duration::MAX,
        };
        stop.event.wait(pause, stopped);
    }
}

fn run_commit<I: Io>(core: &Arc<Core<I>>, stop: &Stop) {
    run_on_work(core, stop, Core::step_commit);
}

/// Steps the owner of the segment writer, by time and when there is work.
fn run_on_work<I: Io>(core: &Core<I>, stop: &Stop, step: fn(&Core<I>) -> Next) {
    let stopped = || stop.is_set.load(Ordering::Acquire);
    while !stopped() {
        let pause = match step(core) {
            Next::Now => continue,
            Next::After(pause) => pause,
            Next::OnWake => Duration::MAX,
        };
        core.work
            .wait(pause, || stopped() || core.has_work.load(Ordering::Relaxed));
    }
}

fn run_prepare<I: Io>(core: &Arc<Core<I>>, stop: &Stop) {
    let stopped = || stop.is_set.load(Ordering::Acquire);
    // Ends with this thread, however that ends: appending then makes its files itself.
    let _serving = core.serve_prepare();
    while !stopped() {
        core.growth
            .wait(Duration::MAX, || stopped() || core.is_prepare_due());
        while !stopped() && core.step_prepare() == Next::Now {}
    }
}

/// RocketMQ's `FlushDiskWatcher`: wakes tickets at their deadlines, or at most a quarter of the
/// timeout later. Nobody rings for it.
fn run_deadlines<I: Io>(core: &Arc<Core<I>>, stop: &Stop) {
    let Some(timeout) = core.sync_timeout else {
        return;
    };
    let stopped = || stop.is_set.load(Ordering::Acquire);
    while !stopped() {
        let pause = match core.step_deadlines() {
            Next::After(pause) => pause.min(timeout / 4),
            _ => timeout / 4,
        };
        stop.event.wait(pause.max(DEADLINE_PAUSE_MIN), stopped);
    }
}

/// The watcher of deadlines pauses at least this long: 1 ms.
const DEADLINE_PAUSE_MIN: Duration = Duration::from_millis(1);

//! The store's threads: named, joined, each around a step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use commitlog::{FlushMode, LogServices};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mmap_core::Io;

use crate::core::Core;
use crate::error::OpenError;

/// How long dispatch sleeps at most while the log does not grow; an append wakes it at once.
const IDLE_WAIT: Duration = Duration::from_secs(60);
/// How long dispatch looks for more in async mode, after it has caught up, before it sleeps.
const LOOK_AGAIN: Duration = Duration::from_micros(20);
/// How often the disks are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long dispatch waits after it could not write a derived file (a full disk, say).
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Running threads. Dropping it stops and joins them.
#[derive(Debug)]
pub(crate) struct Services<I: Io> {
    core: Arc<Core<I>>,
    stop: Arc<AtomicBool>,
    /// Dropped to end the threads that flush and clean.
    flush_stop: Option<Sender<()>>,
    dispatch: Option<JoinHandle<()>>,
    flush: Option<JoinHandle<()>>,
    clean: Option<JoinHandle<()>>,
    _log: LogServices<I>,
}

impl<I: Io> Services<I> {
    pub(crate) fn start(core: &Arc<Core<I>>) -> Result<Self, OpenError> {
        let log = core.log.start_services()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (flush_stop, stopped) = bounded::<()>(0);
        let mut services = Self {
            core: Arc::clone(core),
            stop: Arc::clone(&stop),
            flush_stop: Some(flush_stop),
            dispatch: None,
            flush: None,
            clean: None,
            _log: log,
        };
        let dispatching = Arc::clone(core);
        services.dispatch = Some(spawn("store-dispatch", move || {
            run_dispatch(&dispatching, &stop)
        })?);
        let (cleaning, end) = (Arc::clone(core), stopped.clone());
        services.clean = Some(spawn("store-clean", move || run_clean(&cleaning, &end))?);
        let flushing = Arc::clone(core);
        let interval = core.options.derived_flush_interval;
        services.flush = Some(spawn("store-flush", move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                // What fails is logged and listed there, and tried again.
                let _noted = flushing.step_flush_derived();
            }
        })?);
        Ok(services)
    }
}

impl<I: Io> Drop for Services<I> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.flush_stop = None;
        self.core.log.wake_waiters();
        let threads = [self.dispatch.take(), self.flush.take(), self.clean.take()];
        for thread in threads.into_iter().flatten() {
            // A panic has been printed by the panic hook; the next opening dispatches again.
            let _panicked = thread.join();
        }
    }
}

fn spawn(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| OpenError::Thread { name, source })
}

fn run_dispatch<I: Io>(core: &Core<I>, stop: &AtomicBool) {
    let is_alone = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
    let looks_again = !is_alone && matches!(core.options.flush, FlushMode::Async { .. });
    let mut has_worked = false;
    while !stop.load(Ordering::Acquire) {
        match core.step_dispatch() {
            Ok(true) => has_worked = true,
            // Who stores one message after the other is spared the call that wakes this thread.
            Ok(false) if std::mem::take(&mut has_worked) && looks_again => {
                let end = Instant::now() + LOOK_AGAIN;
                while core.log.visible() <= core.dispatcher.next_offset() && Instant::now() < end {
                    std::hint::spin_loop();
                }
            }
            Ok(false) => {
                core.log
                    .wait_visible(core.dispatcher.next_offset(), IDLE_WAIT, stop);
            }
            Err(_noted) => {
                core.log.wait_visible(u64::MAX, RETRY_WAIT, stop);
            }
        }
    }
}

/// Looks at the disks each second, and cleans from time to time.
fn run_clean<I: Io>(core: &Core<I>, end: &Receiver<()>) {
    let goes_on = |pause| end.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
    let options = &core.options.clean;
    let mut due = core.clock.monotonic() + options.first_after;
    let mut was_asked = false;
    loop {
        core.step_watch();
        core.step_unmap();
        let now = core.clock.monotonic();
        let is_asked = core.cleaner.is_asked();
        if now >= due || (is_asked && !was_asked) {
            let _noted = core.step_clean(&mut |pause| goes_on(pause));
            due = core.clock.monotonic() + options.interval;
        }
        was_asked = is_asked;
        if !goes_on(WATCH_INTERVAL) {
            break;
        }
    }
}

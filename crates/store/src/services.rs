//! The store's threads: named, joined, each around a step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use commitlog::LogServices;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use mmap_core::Io;

use crate::error::OpenError;
use crate::store::Core;

/// How long dispatch sleeps at most while the log does not grow; an append wakes it at once.
const IDLE_WAIT: Duration = Duration::from_secs(60);
/// How long dispatch waits after it could not write a derived file (a full disk, say).
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Running threads. Dropping it stops and joins them.
#[derive(Debug)]
pub(crate) struct Services<I: Io> {
    core: Arc<Core<I>>,
    stop: Arc<AtomicBool>,
    /// Dropped to end the flush thread.
    flush_stop: Option<Sender<()>>,
    dispatch: Option<JoinHandle<()>>,
    flush: Option<JoinHandle<()>>,
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
            _log: log,
        };
        let dispatching = Arc::clone(core);
        services.dispatch = Some(spawn("store-dispatch", move || {
            run_dispatch(&dispatching, &stop)
        })?);
        let flushing = Arc::clone(core);
        let interval = core.options.derived_flush_interval;
        services.flush = Some(spawn("store-flush", move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = flushing.step_flush_derived() {
                    tracing::error!(%error, "cannot sync queues, index or checkpoint");
                }
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
        for thread in [self.dispatch.take(), self.flush.take()]
            .into_iter()
            .flatten()
        {
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
    let mut is_failing = false;
    while !stop.load(Ordering::Acquire) {
        match core.dispatcher.step(&core.log) {
            Ok(progress) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("dispatch goes on");
                }
                if !progress {
                    core.log
                        .wait_visible(core.dispatcher.next_offset(), IDLE_WAIT, stop);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "dispatch waits: readers do not see newer messages");
                }
                core.log.wait_visible(u64::MAX, RETRY_WAIT, stop);
            }
        }
    }
}

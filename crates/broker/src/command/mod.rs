//! What the program does: one module for each command.

pub mod consume;
pub mod namesrv;
pub mod send;
pub mod serve;
pub mod store;

use std::future::Future;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Stack of a thread that serves connections: handlers are flat.
const STACK_LEN: usize = 1024 * 1024;

/// Runs `work` on a runtime with so many threads.
fn block_on<T>(threads: usize, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_stack_size(STACK_LEN)
        .thread_name("serve")
        .enable_all()
        .build()
        .context("cannot start the network threads")?
        .block_on(work)
}

/// Being asked to end: SIGTERM, or Ctrl-C. Until this is made, they end the process as it stands.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("Ctrl-C")?,
        })
    }

    /// Resolves when the process was asked to end since [`listen`](Self::listen).
    async fn received(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

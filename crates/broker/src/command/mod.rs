//! What the program does: one module for each command.

pub mod consume;
pub mod namesrv;
pub mod send;
pub mod serve;
pub mod store;

use std::future::Future;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs `work`, and what it spawns, on this thread. Connections have threads of their own.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
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

//! What the program does: one module for each command.

pub mod consume;
pub mod namesrv;
pub mod send;
pub mod serve;

use std::future::Future;

use anyhow::{Context, Result};

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

/// Resolves when the process is asked to end: SIGTERM, or Ctrl-C.
async fn asked_to_end() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("Ctrl-C")?,
    }
    Ok(())
}

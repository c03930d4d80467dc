//! The threads that serve connections.
//!
//! Each has an event loop of its own, and a connection stays with the one it was given to: no
//! request is handed from thread to thread, and no thread wakes another for one.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// Stack of a thread that serves connections: handlers are flat.
const STACK_LEN: usize = 1024 * 1024;

/// Running threads. Dropping it ends them, and what they serve with them.
#[derive(Debug)]
pub struct Workers {
    places: Places,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    /// Dropped to end the loop.
    end: Option<oneshot::Sender<()>>,
    joined: Option<JoinHandle<()>>,
}

/// Where connections are served; a handle.
#[derive(Debug, Clone)]
pub struct Places(Arc<[Place]>);

#[derive(Debug)]
struct Place {
    runtime: Handle,
    /// Connections that are served there. Nothing else hangs on it.
    connection_count: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts so many threads, one at least. Each calls `before_sleep` when it has nothing to do.
    ///
    /// # Errors
    /// The system has no thread or no event queue for us.
    pub fn start(count: usize, before_sleep: fn()) -> io::Result<Self> {
        let mut places = Vec::new();
        let mut threads = Vec::new();
        for _ in 0..count.max(1) {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .on_thread_park(before_sleep)
                .build()?;
            places.push(Place {
                runtime: runtime.handle().clone(),
                connection_count: Arc::default(),
            });
            threads.push(Thread::start(runtime)?);
        }
        Ok(Self {
            places: Places(places.into()),
            threads,
        })
    }

    /// Where connections can be served.
    #[must_use]
    pub fn places(&self) -> Places {
        self.places.clone()
    }
}

impl Thread {
    fn start(runtime: Runtime) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let joined = std::thread::Builder::new()
            .name("serve".to_owned())
            .stack_size(STACK_LEN)
            .spawn(move || {
                let _dropped = runtime.block_on(ended);
            })?;
        Ok(Self {
            end: Some(end),
            joined: Some(joined),
        })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // All are told before the first is waited for.
        for thread in &mut self.threads {
            thread.end = None;
        }
        for thread in &mut self.threads {
            if let Some(joined) = thread.joined.take() {
                // A panic has been printed by the panic hook.
                let _panicked = joined.join();
            }
        }
    }
}

impl Places {
    /// Serves a connection on the thread that has the fewest.
    pub(super) fn serve(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let count = |place: &&Place| place.connection_count.load(Ordering::Relaxed);
        let Some(place) = self.0.iter().min_by_key(count) else {
            return;
        };
        let counted = Counted::new(&place.connection_count);
        place.runtime.spawn(async move {
            let _counted = counted;
            connection.await;
        });
    }
}

/// A connection in its thread's count, however it ends.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

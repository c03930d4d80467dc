//! The network side: accepts connections, cuts requests out of them, sends the answers.
//!
//! What requests mean is a [`Service`]'s business; the broker and the name server are two of them.
//! No timer stands on the path of a message: idle and stalled connections are found by a sweep.

mod connection;
mod exchange;
mod mailbox;
mod output;
mod task;
mod workers;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use self::task::Registered;
use crate::config::Limits;

pub use self::connection::{Asked, CloseReason, Connection, HeldSlot};
pub use self::exchange::{Exchange, Pending, Reply, ReplyTicket, Resume, Service};
pub use self::output::Content;
pub use self::workers::{Places, Workers};

/// Letters beside held requests that may wait for a connection's task.
const LETTERS_BESIDE_HELD: usize = 1024;
/// How long the accepting task rests after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server: one service on one or more addresses. Dropping it stops accepting.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks of a server have in common.
struct Shared {
    name: &'static str,
    service: Arc<dyn Service>,
    limits: Limits,
    started: Instant,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    next_id: AtomicU64,
}

impl Server {
    /// Starts to serve on `sockets`, each connection at one of `places`. Must be called within a
    /// tokio runtime, which accepts them.
    ///
    /// # Errors
    /// A socket cannot be handed to the runtime.
    pub fn start(
        name: &'static str,
        service: Arc<dyn Service>,
        limits: Limits,
        sockets: Vec<std::net::TcpListener>,
        places: &Places,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            service,
            limits,
            started: Instant::now(),
            connections: Mutex::default(),
            next_id: AtomicU64::new(1),
        });
        let mut addresses = Vec::with_capacity(sockets.len());
        let mut tasks = Vec::with_capacity(sockets.len() + 1);
        for socket in sockets {
            addresses.push(socket.local_addr()?);
            let listener = TcpListener::from_std(socket)?;
            let accepting = accept(Arc::clone(&shared), listener, places.clone());
            tasks.push(tokio::spawn(accepting));
        }
        tasks.push(tokio::spawn(sweep(Arc::clone(&shared))));
        Ok(Self {
            shared,
            addresses,
            tasks,
        })
    }

    /// The bound addresses, in the order of the sockets.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many connections there are.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shared.connections().len()
    }

    /// Stops accepting, lets each connection answer what is in hand, then closes it; whatever is
    /// left at the deadline is closed as it is.
    pub async fn stop(self, deadline: Instant) {
        for task in &self.tasks {
            task.abort();
        }
        for connection in self.shared.all() {
            let _ = connection.mailbox().post(connection::Letter::Drain);
        }
        while self.connection_count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for connection in self.shared.all() {
            connection.close(CloseReason::Shutdown);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        self.connections().values().cloned().collect()
    }

    /// Books a new connection; `None` when there are as many as allowed.
    fn admit(&self, peer: SocketAddr) -> Option<Arc<Connection>> {
        let capacity = self.limits.held_pulls_per_connection_max + LETTERS_BESIDE_HELD;
        let mut connections = self.connections();
        if connections.len() >= self.limits.connection_count_max {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(id, peer, capacity, self.now_ms()));
        connections.insert(id, Arc::clone(&connection));
        Some(connection)
    }

    fn forget(&self, connection: &Connection) {
        self.connections().remove(&connection.id());
    }
}

/// Binds a listening socket; `SO_REUSEADDR` so that a restart need not wait for old connections.
///
/// # Errors
/// The address is in use or not this machine's.
pub fn bind(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, places: Places) {
    // A condition that lasts is logged when it begins, not at each connection.
    let mut refusing = false;
    let mut failing = false;
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !failing {
                    tracing::warn!(server = shared.name, %error, "connections are not accepted");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        match shared.admit(peer) {
            Some(connection) => {
                refusing = false;
                start(&shared, connection, socket, &places);
            }
            None if refusing => {}
            None => {
                refusing = true;
                let limit = shared.limits.connection_count_max;
                tracing::warn!(
                    server = shared.name,
                    limit,
                    "connections beyond foliomq.maxConnections are closed as they come"
                );
            }
        }
    }
}

fn start(shared: &Arc<Shared>, connection: Arc<Connection>, socket: TcpStream, places: &Places) {
    let registered = Registered::new(Arc::clone(shared), connection);
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(peer = %registered.peer(), %error, "TCP_NODELAY was refused");
    }
    // From here on another thread's event queue watches it.
    match socket.into_std() {
        Ok(socket) => places.serve(task::serve(registered, socket)),
        Err(error) => {
            tracing::warn!(peer = %registered.peer(), %error, "connection closed: not taken over");
        }
    }
}

/// Closes connections that are idle or stalled.
async fn sweep(shared: Arc<Shared>) {
    let idle_ms = shared.limits.idle.as_millis() as u64;
    let stall_ms = shared.limits.write_stall.as_millis() as u64;
    let period = Duration::from_millis((idle_ms.min(stall_ms) / 4).clamp(10, 1_000));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = shared.now_ms();
        for connection in shared.all() {
            if connection.stalled_ms(now_ms) >= stall_ms {
                connection.close(CloseReason::Stalled);
            } else if connection.idle_ms(now_ms) >= idle_ms {
                connection.close(CloseReason::Idle);
            }
        }
    }
}

#[cfg(test)]
mod tests;

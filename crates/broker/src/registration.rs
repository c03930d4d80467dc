//! The broker's registration with name servers, ours or Java's: one task and one long-lived
//! connection for each.
//!
//! The whole topic table goes out at start, then every period; a changed topic at once, alone.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use remoting::{Command, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How long the farewell to a name server may take (`BrokerOuterAPI.unregisterBroker`).
const FAREWELL: Duration = Duration::from_secs(3);
/// How soon a name server that failed is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Longest answer that is read, in bytes.
const ANSWER_LEN_MAX: u32 = 16 * 1024 * 1024;

/// What a broker says to name servers.
pub trait Registrant: Send + Sync + 'static {
    /// The request 103 with all topics, or with the topics of these names.
    fn registration(&self, topics: Option<&BTreeSet<String>>) -> Command;

    /// The request 104.
    fn farewell(&self) -> Command;
}

/// The registrations of a broker.
#[derive(Debug)]
pub struct Registrations {
    changes: Arc<Changes>,
    stop: watch::Sender<bool>,
    first: Vec<watch::Receiver<bool>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Topics that changed, for each name server those that it has not been told of.
#[derive(Debug)]
pub struct Changes {
    untold: Vec<Untold>,
}

#[derive(Debug, Default)]
struct Untold {
    topics: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Changes {
    /// For so many name servers.
    #[must_use]
    pub fn new(server_count: usize) -> Arc<Self> {
        let untold = std::iter::repeat_with(Untold::default)
            .take(server_count)
            .collect();
        Arc::new(Self { untold })
    }

    /// Has the name servers told of a topic that was created or changed.
    pub fn topic_changed(&self, topic: &str) {
        for server in &self.untold {
            server.lock().insert(topic.to_owned());
            server.news.notify_one();
        }
    }
}

impl Untold {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registrations {
    /// Starts to register with `servers`; `changes` was made for as many. Must be called within a
    /// tokio runtime.
    pub fn start(
        registrant: Arc<dyn Registrant>,
        servers: &[String],
        changes: Arc<Changes>,
        period: Duration,
        timeout: Duration,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut first = Vec::new();
        let mut tasks = Vec::new();
        for (index, server) in servers.iter().enumerate() {
            let (done, registered) = watch::channel(false);
            let link = Link {
                server: server.clone(),
                registrant: Arc::clone(&registrant),
                changes: Arc::clone(&changes),
                index,
                timeout,
                socket: None,
                is_failing: false,
            };
            tasks.push(tokio::spawn(link.run(period, stopped.clone(), done)));
            first.push(registered);
        }
        Self {
            changes,
            stop,
            first,
            tasks,
        }
    }

    /// Waits until each name server has been tried once, for as long as `patience` at most.
    pub async fn first_round(&mut self, patience: Duration) {
        let all = async {
            for registered in &mut self.first {
                // An error means that the task is gone: then nothing comes.
                let _ = registered.wait_for(|done| *done).await;
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// Where topic changes are reported.
    #[must_use]
    pub fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Unregisters everywhere.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// The way to one name server.
struct Link {
    server: String,
    registrant: Arc<dyn Registrant>,
    changes: Arc<Changes>,
    index: usize,
    timeout: Duration,
    socket: Option<TcpStream>,
    is_failing: bool,
}

impl Link {
    async fn run(
        mut self,
        period: Duration,
        mut stop: watch::Receiver<bool>,
        first: watch::Sender<bool>,
    ) {
        let changes = Arc::clone(&self.changes);
        let Some(untold) = changes.untold.get(self.index) else {
            return;
        };
        let mut whole = true;
        loop {
            let topics = std::mem::take(&mut *untold.lock());
            let request = if whole || self.socket.is_none() {
                Some(self.registrant.registration(None))
            } else {
                (!topics.is_empty()).then(|| self.registrant.registration(Some(&topics)))
            };
            if let Some(request) = request {
                let outcome = self.register(request).await;
                self.report(outcome);
            }
            let _ = first.send(true);
            let pause = if self.is_failing {
                period.min(RETRY)
            } else {
                period
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = untold.news.notified() => whole = false,
                () = tokio::time::sleep(pause) => whole = true,
            }
        }
        let farewell = self.registrant.farewell();
        if self.socket.is_some()
            && let Err(error) = self.call(&farewell, FAREWELL).await
        {
            tracing::info!(namesrv = %self.server, %error, "not unregistered");
        }
    }

    /// A connection that was open may have been closed by the other side since; a new one begins
    /// with the whole table, because the name server forgot the broker when the old one closed.
    async fn register(&mut self, request: Command) -> io::Result<()> {
        let was_open = self.socket.is_some();
        match self.call(&request, self.timeout).await {
            Err(_) if was_open => {
                let whole = self.registrant.registration(None);
                self.call(&whole, self.timeout).await
            }
            outcome => outcome,
        }
    }

    /// One line when it begins to fail, one when it works again.
    fn report(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) if self.is_failing => {
                tracing::info!(namesrv = %self.server, "registered again");
                self.is_failing = false;
            }
            Err(error) if !self.is_failing => {
                tracing::warn!(namesrv = %self.server, %error, "not registered; tried again");
                self.is_failing = true;
            }
            Ok(()) | Err(_) => {}
        }
    }

    async fn call(&mut self, request: &Command, timeout: Duration) -> io::Result<()> {
        let mut frame = Vec::new();
        request.encode(&mut frame).map_err(io::Error::other)?;
        let mut socket = self.socket.take();
        let exchange = async {
            let mut socket = match socket.take() {
                Some(socket) => socket,
                None => connect(&self.server).await?,
            };
            socket.write_all(&frame).await?;
            let answer = receive(&mut socket).await?;
            Ok::<_, io::Error>((socket, answer))
        };
        let exchanged = tokio::time::timeout(timeout, exchange).await;
        let (socket, answer): (TcpStream, Command) = exchanged.map_err(io::Error::from)??;
        if answer.response_code() != ResponseCode::SUCCESS {
            let code = answer.response_code();
            let remark = answer.remark.unwrap_or_default();
            return Err(io::Error::other(format!("refused with {code}: {remark}")));
        }
        self.socket = Some(socket);
        Ok(())
    }
}

async fn connect(server: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(server).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Reads one response; requests that come meanwhile (905 of a name server) are passed over.
async fn receive(socket: &mut TcpStream) -> io::Result<Command> {
    loop {
        let len = socket.read_u32().await?;
        if len > ANSWER_LEN_MAX {
            let what = format!("an answer of {len} bytes, at most {ANSWER_LEN_MAX} are read");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut frame = len.to_be_bytes().to_vec();
        frame.resize(4 + len as usize, 0);
        socket.read_exact(&mut frame[4..]).await?;
        let command = Command::decode(&frame).map_err(io::Error::other)?;
        if command.is_response() {
            return Ok(command);
        }
    }
}

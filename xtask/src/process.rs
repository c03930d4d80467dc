//! Child processes that never outlive their use: killed on every way out, even xtask's own death.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The lowest port tried, and how many spans of four ports from there on.
const PORT_MIN: u16 = 12_000;
const PORT_SPANS: usize = 4_500;

/// A child that is killed when this is dropped.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    name: String,
}

/// A child whose output goes to a file.
#[derive(Debug)]
pub struct Server {
    process: Guarded,
    log: PathBuf,
}

impl Guarded {
    /// Starts a command made by [`command`].
    pub fn spawn(command: &mut Command, name: &str) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Asks the child to end (SIGTERM) and waits for it.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        // The child may have ended by itself: that is what the wait below finds.
        let _already_gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        self.wait(limit)
    }

    /// Kills the child (SIGKILL), as a power switch would.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("kill {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// Waits for the child's own end; kills it at the limit.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = poll(limit, || self.child.try_wait().ok().flatten());
        match ended {
            Some(status) => Ok(status),
            None => {
                self.kill()?;
                bail!("{} did not end within {limit:?}; killed", self.name)
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for already.
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

impl Server {
    /// Starts a server with its output in a file, and waits until it listens on all `addresses`.
    pub fn start(
        command: Command,
        name: &str,
        log: &Path,
        addresses: &[SocketAddr],
    ) -> Result<Self> {
        let mut server = Self::spawn(command, name, log)?;
        server.await_listening(addresses)?;
        Ok(server)
    }

    /// Starts a server with its output in a file, and waits for nothing.
    pub fn spawn(mut command: Command, name: &str, log: &Path) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .context("open log")?;
        command
            .stdout(output.try_clone().context("log")?)
            .stderr(output);
        command.stdin(std::process::Stdio::null());
        let process = Guarded::spawn(&mut command, name)?;
        Ok(Self {
            process,
            log: log.to_owned(),
        })
    }

    /// The process's id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process.child)
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Guarded {
        &mut self.process
    }

    fn await_listening(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        let limit = Duration::from_secs(60);
        let name = self.process.name.clone();
        let ready = poll(limit, || {
            if let Ok(Some(status)) = self.process.child.try_wait() {
                return Some(Err(status));
            }
            let timeout = Duration::from_secs(1);
            let up = |address| std::net::TcpStream::connect_timeout(address, timeout).is_ok();
            addresses.iter().all(up).then_some(Ok(()))
        });
        match ready {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => bail!("{name} ended at start: {status}\n{}", tail(&self.log)),
            None => bail!(
                "{name} does not listen after {limit:?}\n{}",
                tail(&self.log)
            ),
        }
    }
}

/// A command whose process dies with the thread that starts it, where the system can do that.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Looks at a condition until it holds; `None` at the limit.
pub fn poll<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// A loopback address whose port is free, together with the two ports below it and the one above.
///
/// A RocketMQ broker takes its port minus 2 (VIP) and plus 1 (replication) along. The ports lie
/// below the range that the kernel gives to outgoing connections; none is handed out twice.
pub fn free_address() -> Result<SocketAddr> {
    static TRIED: AtomicUsize = AtomicUsize::new(0);
    let first = std::process::id() as usize;
    for _ in 0..PORT_SPANS {
        let span = (first + TRIED.fetch_add(1, Ordering::Relaxed)) % PORT_SPANS;
        let port = PORT_MIN + 2 + 4 * span as u16;
        if (port - 2..=port + 1).all(|port| TcpListener::bind(loopback(port)).is_ok()) {
            return Ok(loopback(port));
        }
    }
    bail!("no four neighbouring ports are free from {PORT_MIN} on")
}

/// The last lines of a log, for an error message.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    // Java's logging library tells at length how it configures itself.
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.contains(" |-INFO in "))
        .collect();
    let shown = &lines[lines.len().saturating_sub(40)..];
    format!("--- end of {}\n{}\n---", log.display(), shown.join("\n"))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

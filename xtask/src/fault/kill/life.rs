//! One life of the real broker, from its start to its death.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Guarded, command};

/// A start that takes longer than this has failed: nobody is there to help.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// As long as a broker may take to end when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

/// What is started, and how.
#[derive(Clone, Debug)]
pub struct Program {
    /// The broker.
    pub binary: PathBuf,
    /// Its configuration file.
    pub configuration: PathBuf,
    /// A lie that it is told to plant.
    pub sabotage: Option<String>,
}

/// How a start went.
#[derive(Debug)]
pub enum Start {
    /// It is ready.
    Ready(Life),
    /// It was killed before, as was wanted; with the failpoint that did it.
    Killed(Option<String>),
}

/// A broker that is ready.
#[derive(Debug)]
pub struct Life {
    process: Guarded,
    output: Output,
    /// Where the broker listens.
    pub broker: String,
    /// Where its name server listens.
    pub name_server: String,
    /// What it says about its recovery.
    pub recovery: String,
    /// From its start to being ready.
    pub ready_after: Duration,
}

/// How a life ended.
#[derive(Debug)]
pub struct Death {
    /// Whether it was a SIGKILL: ours, or a failpoint's.
    pub killed: bool,
    /// The failpoint that killed it.
    pub failpoint: Option<String>,
}

#[derive(Debug)]
struct Output {
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
    threads: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts it and waits until it is ready; with `kill_after`, kills it at that time if it is
    /// not ready by then. `failpoints` as in `FOLIOMQ_FAILPOINTS`.
    pub fn start(&self, failpoints: Option<&str>, kill_after: Option<Duration>) -> Result<Start> {
        let begun = Instant::now();
        let mut command = command(&self.binary);
        command.arg("serve").arg("-c").arg(&self.configuration);
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(failpoints) = failpoints {
            command.env("FOLIOMQ_FAILPOINTS", failpoints);
        }
        if let Some(lie) = &self.sabotage {
            command.env("FOLIOMQ_SABOTAGE", lie);
        }
        let mut process = Guarded::spawn(&mut command, "foliomq")?;
        let output = Output::of(&mut process)?;
        let limit = kill_after.unwrap_or(READY_LIMIT);
        let mut found = [const { String::new() }; 3];
        let labels = ["  broker ", "  name server ", "  recovery "];
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            match output.lines.recv_timeout(left) {
                // The last line of what it says when it is ready.
                Ok(line) if line.starts_with("  durability ") => break,
                Ok(line) => {
                    for (found, label) in found.iter_mut().zip(labels) {
                        if let Some(rest) = line.strip_prefix(label) {
                            rest.trim().clone_into(found);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) if kill_after.is_some() => {
                    process.kill()?;
                    return Ok(Start::Killed(None));
                }
                Err(RecvTimeoutError::Timeout) => {
                    process.kill()?;
                    bail!("not ready after {limit:?}\n{}", output.finish())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = process.child().wait().context("wait for foliomq")?;
                    let log = output.finish();
                    ensure!(
                        failpoints.is_some() && status.signal() == Some(SIGKILL),
                        "it does not start: {status}\n{log}"
                    );
                    return Ok(Start::Killed(failpoint_in(&log)));
                }
            }
        }
        let [broker, name_server, recovery] = found;
        ensure!(!recovery.is_empty(), "it reports no recovery");
        let first = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
        Ok(Start::Ready(Life {
            process,
            output,
            broker: first(broker),
            name_server: first(name_server),
            recovery,
            ready_after: begun.elapsed(),
        }))
    }
}

impl Life {
    /// Whether it has ended by itself, or by a failpoint.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.child().try_wait(), Ok(None))
    }

    /// Whether its recovery has cut bytes off the log.
    pub fn has_cut(&self) -> bool {
        self.recovery.contains("cut off")
    }

    fn signal(&mut self, signal: Signal) {
        // The number of a process that has been waited for may be another's.
        if !self.has_ended() {
            let _just_ended = kill_process(Pid::from_child(self.process.child()), signal);
        }
    }

    /// SIGKILL, unless it is dead already.
    pub fn kill(mut self) -> Result<Death> {
        self.signal(Signal::KILL);
        self.end()
    }

    /// SIGTERM; after `limit`, if there is one and it still lives, SIGKILL.
    pub fn stop(mut self, limit: Option<Duration>) -> Result<Death> {
        self.signal(Signal::TERM);
        if let Some(limit) = limit {
            std::thread::sleep(limit);
            self.signal(Signal::KILL);
        }
        self.end()
    }

    /// Its end, whatever brought it about; an end by itself must be a clean one.
    fn end(mut self) -> Result<Death> {
        // Its output ends when it does.
        loop {
            match self.output.lines.recv_timeout(STOP_LIMIT) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.process.kill()?;
                    bail!("it does not end\n{}", self.output.finish());
                }
            }
        }
        let status: ExitStatus = self.process.child().wait().context("wait for foliomq")?;
        let log = self.output.finish();
        let killed = status.signal() == Some(SIGKILL);
        ensure!(killed || status.success(), "it ended: {status}\n{log}");
        ensure!(!log.contains("panicked"), "a part of it panicked\n{log}");
        let failed = log.lines().find(|line| line.contains(" ERROR "));
        ensure!(failed.is_none(), "it logged an error\n{log}");
        Ok(Death {
            killed,
            failpoint: failpoint_in(&log),
        })
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.output.text()
    }
}

impl Output {
    fn of(process: &mut Guarded) -> Result<Self> {
        let child = process.child();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, mut stderr) = stdout.zip(stderr).context("the pipes of a child")?;
        let (sender, lines) = mpsc::channel();
        let reading = std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines();
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more when the life was given up: read on, so that it can write.
                let _unheard = sender.send(line);
            }
        });
        let log = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&log);
        let logging = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
                let mut log = shared.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&text);
            }
        });
        Ok(Self {
            lines,
            log,
            threads: vec![reading, logging],
        })
    }

    fn text(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// The whole log of a process that has ended.
    fn finish(mut self) -> String {
        for thread in self.threads.drain(..) {
            // A thread that only copies does not panic.
            let _joined = thread.join();
        }
        self.text()
    }
}

/// The failpoint that a process said it was killed by: operation and path.
fn failpoint_in(log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| line.ends_with(": killed"))?;
    let place = line.strip_prefix("failpoint ")?.strip_suffix(": killed")?;
    Some(place.to_owned())
}

/// Which kind of file a failpoint's place names, with its operation: `rename config`.
pub fn place_kind(place: &str, store: &Path) -> String {
    let (name, path) = place.split_once(' ').unwrap_or((place, ""));
    let operation = name.rsplit('.').next().unwrap_or(name);
    let inside = Path::new(path).strip_prefix(store);
    let kind = match inside.map(|inside| inside.components().next()) {
        Ok(Some(first)) => first.as_os_str().to_string_lossy().into_owned(),
        Ok(None) => "the root".to_owned(),
        Err(_) => "-".to_owned(),
    };
    format!("{operation} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_kill_is_read_from_the_log() {
        let log = "INFO x\nfailpoint mmap_core.rename /s/config/topics.json.tmp: killed\n";
        let place = failpoint_in(log).unwrap_or_default();
        assert_eq!(place, "mmap_core.rename /s/config/topics.json.tmp");
        assert_eq!(place_kind(&place, Path::new("/s")), "rename config");
        assert_eq!(failpoint_in("INFO killed"), None);
    }
}

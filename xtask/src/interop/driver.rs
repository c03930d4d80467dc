//! Runs a driver program: a client in its own language that checks the server under test.
//!
//! A driver gets `--name-server HOST:PORT --broker HOST:PORT` and perhaps `--only TEXT`, and
//! prints one line a check: `PASS name (12 ms)`, `FAIL name: why`, `SKIP name: why`. A line
//! `@restart` or `@crash` asks for the broker to be stopped cleanly or killed, and started again,
//! `@stop` only to be stopped; the answer on the driver's standard input is `ok`. Other lines are its log.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cluster::Cluster;
use crate::process::{self, Guarded};
use crate::test::Options;

/// No driver takes longer than this.
const RUN_LIMIT: Duration = Duration::from_secs(420);

/// A driver program, not yet started.
#[derive(Debug)]
pub(super) struct Driver {
    name: &'static str,
    command: Command,
}

/// How many checks ended how.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

impl Driver {
    pub(super) fn new(name: &'static str, command: Command) -> Self {
        Self { name, command }
    }

    /// Runs the driver's checks against the cluster; fails when one of them did.
    pub(super) fn run(mut self, cluster: &mut Cluster, options: &Options) -> Result<()> {
        self.command
            .args(["--name-server", &cluster.name_server_address().to_string()]);
        self.command
            .args(["--broker", &cluster.broker_address().to_string()]);
        if let Some(text) = &options.only {
            self.command.args(["--only", text]);
        }
        let log = cluster
            .dir()
            .join(format!("{}.log", self.name.replace(' ', "-")));
        let errors = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .context("driver log")?;
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut process = Guarded::spawn(&mut self.command, self.name)?;
        let outcome = self.follow(
            &mut process,
            cluster,
            &mut File::options().append(true).open(&log)?,
        );
        if outcome.is_err() {
            println!("{}\n{}", process::tail(&log), cluster.log_tails());
        }
        outcome
    }

    fn follow(&self, process: &mut Guarded, cluster: &mut Cluster, log: &mut File) -> Result<()> {
        let deadline = Instant::now() + RUN_LIMIT;
        let lines = lines_of(process)?;
        let mut tally = Tally::default();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with('@') => {
                    obey(&line, cluster)?;
                    let answers = process.child().stdin.as_mut().context("driver's input")?;
                    writeln!(answers, "ok").context("answer the driver")?;
                }
                Ok(line) => tally.take(&line, log)?,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("not finished after {RUN_LIMIT:?}"),
            }
        }
        let status = process.wait(Duration::from_secs(10))?;
        println!(
            "   {}: {} checks passed, {} skipped",
            self.name, tally.passed, tally.skipped
        );
        if !tally.failed.is_empty() {
            bail!(
                "{} checks failed: {}",
                tally.failed.len(),
                tally.failed.join("; ")
            );
        }
        if !status.success() || tally.passed + tally.skipped == 0 {
            bail!(
                "the driver ended with {status} after {} checks",
                tally.passed
            );
        }
        Ok(())
    }
}

impl Tally {
    fn take(&mut self, line: &str, log: &mut File) -> Result<()> {
        let (verdict, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verdict {
            "PASS" => self.passed += 1,
            "SKIP" => self.skipped += 1,
            "FAIL" => self.failed.push(rest.to_owned()),
            _ => {
                writeln!(log, "{line}").context("driver log")?;
                return Ok(());
            }
        }
        println!("   {line}");
        Ok(())
    }
}

fn obey(order: &str, cluster: &mut Cluster) -> Result<()> {
    match order {
        "@restart" => cluster.restart_broker(),
        "@crash" => cluster.crash_broker(),
        "@stop" => cluster.stop_broker(),
        other => bail!("the driver asks for {other}, which nobody knows"),
    }
}

/// The lines that the driver prints, as they come.
fn lines_of(process: &mut Guarded) -> Result<Receiver<String>> {
    let output = process.child().stdout.take().context("driver's output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

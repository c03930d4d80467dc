//! One broker with its own name server, as a process on a directory that faults happen to.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use client::ClientOptions;

use crate::process::{self, Server};

/// How long the broker may take to end when asked.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What it prints when it serves.
const READY: &str = " is ready\n";

/// Files so small that they roll many times a minute, and nothing that is deleted by itself.
const SETTINGS: &[(&str, &str)] = &[
    ("brokerIP1", "127.0.0.1"),
    ("mappedFileSizeCommitLog", "262144"),
    ("mappedFileSizeConsumeQueue", "2000"),
    ("maxHashSlotNum", "100"),
    ("maxIndexNum", "300"),
    ("flushConsumerOffsetInterval", "100"),
    ("flushIntervalConsumeQueue", "50"),
    ("diskMaxUsedSpaceRatio", "99"),
    ("diskSpaceWarningLevelRatio", "99"),
    ("diskSpaceCleanForciblyRatio", "99"),
    ("cleanFileForciblyEnable", "false"),
];

/// A broker's binary, files and addresses, and its process while it runs.
#[derive(Debug)]
pub(super) struct Node {
    binary: PathBuf,
    /// Of its configuration and its log.
    dir: PathBuf,
    address: SocketAddr,
    name_server: SocketAddr,
    settings: BTreeMap<String, String>,
    environment: Vec<(&'static str, String)>,
    server: Option<Server>,
}

impl Node {
    /// A broker that does not run yet; it keeps its store in `store`, all else in `dir`.
    pub(super) fn new(binary: &Path, dir: &Path, store: &Path) -> Result<Self> {
        let settings = SETTINGS
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut node = Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            address: process::free_address()?,
            name_server: process::free_address()?,
            settings: settings.collect(),
            environment: Vec::new(),
            server: None,
        };
        node.set("storePathRootDir", &store.display().to_string());
        node.set("listenPort", &node.address.port().to_string());
        node.set("haListenPort", &(node.address.port() + 1).to_string());
        Ok(node)
    }

    /// Changes a setting for the next start.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    /// Gives its process a variable, from the next start on.
    pub(super) fn set_environment(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    /// Starts it and waits until it says that it is ready: then its topics are registered too.
    pub(super) fn start(&mut self) -> Result<()> {
        let said_before = self.said().len();
        self.launch()?;
        let ready = process::poll(START_LIMIT, || {
            let says_so = self
                .said()
                .get(said_before..)
                .is_some_and(|said| said.contains(READY));
            let ended = self.ended();
            (says_so || ended.is_some()).then_some(ended)
        });
        match ready {
            Some(None) => Ok(()),
            Some(Some(status)) => bail!("the broker ended at its start: {status}"),
            None => bail!("the broker is not ready after {START_LIMIT:?}"),
        }
    }

    /// All that it has said since the first start.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts it and waits for nothing.
    pub(super) fn launch(&mut self) -> Result<()> {
        self.server = Some(Server::spawn(self.command()?, "broker", &self.log())?);
        Ok(())
    }

    /// Kills it, as the loss of power does.
    pub(super) fn kill(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.process().kill(),
            None => Ok(()),
        }
    }

    /// Stops it as an operator would.
    pub(super) fn stop(&mut self) -> Result<ExitStatus> {
        match self.server.take() {
            Some(mut server) => server.process().stop(STOP_LIMIT),
            None => bail!("the broker does not run"),
        }
    }

    /// Lets `foliomq store verify` compare the files of the store, which must not be open, with
    /// each other.
    pub(super) fn verify(&self) -> Result<()> {
        let output = self.verifier().output().context("store verify")?;
        ensure!(
            output.status.success(),
            "store verify: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// The command of [`verify`](Self::verify).
    pub(super) fn verifier(&self) -> std::process::Command {
        let mut command = process::command(&self.binary);
        command.args(["store", "verify", "--quiet", "-c"]);
        command.arg(self.dir.join("broker.conf"));
        command
    }

    /// How its process ended; `None` while it runs.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let server = self.server.as_mut()?;
        server.process().child().try_wait().ok().flatten()
    }

    /// How its clients find it.
    pub(super) fn client_options(&self) -> ClientOptions {
        let mut options = ClientOptions::new(&self.name_server.to_string());
        options.timeout = Duration::from_secs(10);
        options
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The file that its output goes to.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    fn command(&self) -> Result<std::process::Command> {
        let conf = self.dir.join("broker.conf");
        let lines = self
            .settings
            .iter()
            .map(|(key, value)| format!("{key}={value}\n"));
        fs::write(&conf, lines.collect::<String>()).context("broker.conf")?;
        let mut command = process::command(&self.binary);
        command.arg("serve").arg("-c").arg(conf);
        command.args(["--namesrv-listen", &self.name_server.to_string()]);
        command.current_dir(&self.dir).env("HOME", &self.dir);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        Ok(command)
    }
}

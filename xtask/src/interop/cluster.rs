//! A name server and a broker as processes on loopback, ours or Java's, in a temporary directory.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::java;
use crate::process::{self, Server};
use crate::test::Implementation;
use crate::workspace;

/// The name of the broker under test, whoever implements it.
pub(super) const BROKER_NAME: &str = "broker-a";

/// How long a server may take to end when asked.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Settings that every broker under test runs with, in RocketMQ's names: files small enough that
/// they roll, and what is not supported yet refused by Java as it is by us.
const SETTINGS: &[(&str, &str)] = &[
    ("brokerClusterName", "DefaultCluster"),
    ("brokerName", BROKER_NAME),
    ("brokerId", "0"),
    ("brokerIP1", "127.0.0.1"),
    ("mappedFileSizeCommitLog", "16777216"),
    ("mappedFileSizeConsumeQueue", "20000"),
    ("maxHashSlotNum", "1000"),
    ("maxIndexNum", "4000"),
    ("diskMaxUsedSpaceRatio", "95"),
    ("rejectTransactionMessage", "true"),
    ("timerWheelEnable", "false"),
    ("enablePropertyFilter", "false"),
];

/// Settings that only make Java's broker lighter; we know some of them and use none.
const JAVA_SETTINGS: &[(&str, &str)] = &[
    ("brokerIP2", "127.0.0.1"),
    ("enableCompaction", "false"),
    ("warmMapedFileEnable", "false"),
    ("sendMessageThreadPoolNums", "4"),
    ("pullMessageThreadPoolNums", "4"),
    ("adminBrokerThreadPoolNums", "2"),
];

/// Who serves what.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name_server: Implementation,
    pub(super) broker: Implementation,
    /// Whether the name server is a process of its own, though both have one implementation.
    pub(super) apart: bool,
    /// Further settings of the broker; they win over the usual ones.
    pub(super) settings: Vec<(&'static str, String)>,
}

impl Plan {
    /// One process that serves both.
    pub(super) fn alone(implementation: Implementation) -> Self {
        Self {
            apart: false,
            ..Self::apart(implementation, implementation)
        }
    }

    /// The broker registers with a name server that is a process of its own.
    pub(super) fn apart(name_server: Implementation, broker: Implementation) -> Self {
        Self {
            name_server,
            broker,
            apart: true,
            settings: Vec::new(),
        }
    }

    /// The same with one setting changed.
    pub(super) fn with(mut self, key: &'static str, value: &str) -> Self {
        self.settings.push((key, value.to_owned()));
        self
    }
}

/// The running servers; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Cluster {
    plan: Plan,
    name_server_address: SocketAddr,
    broker_address: SocketAddr,
    /// `None` while it is down, or when the broker's process serves names too.
    name_server: Option<Server>,
    broker: Option<Server>,
    // Last, so that the servers are gone when their files are removed.
    dir: TempDir,
}

impl Cluster {
    /// Starts the servers and waits until they listen.
    pub(super) fn start(plan: Plan, keep: bool) -> Result<Self> {
        let mut dir = tempfile::Builder::new().prefix("interop-").tempdir()?;
        dir.disable_cleanup(keep);
        if keep {
            println!("   files: {}", dir.path().display());
        }
        let mut cluster = Self {
            plan,
            name_server_address: process::free_address()?,
            broker_address: process::free_address()?,
            name_server: None,
            broker: None,
            dir,
        };
        if !cluster.is_one_process() {
            cluster.name_server = Some(cluster.start_name_server()?);
        }
        cluster.broker = Some(cluster.start_broker()?);
        Ok(cluster)
    }

    pub(super) fn name_server_address(&self) -> SocketAddr {
        self.name_server_address
    }

    pub(super) fn broker_address(&self) -> SocketAddr {
        self.broker_address
    }

    /// The broker's store directory.
    pub(super) fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The directory of everything that the servers and drivers write.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops the broker as an operator would, and starts it again on the same store.
    pub(super) fn restart_broker(&mut self) -> Result<()> {
        self.stop_broker()?;
        self.broker = Some(self.start_broker()?);
        Ok(())
    }

    /// Stops the broker and starts the other implementation's on the same store.
    pub(super) fn switch_broker(&mut self, implementation: Implementation) -> Result<()> {
        self.stop_broker()?;
        self.plan.broker = implementation;
        self.broker = Some(self.start_broker()?);
        Ok(())
    }

    /// Kills the broker (SIGKILL), and starts it again on the same store.
    pub(super) fn crash_broker(&mut self) -> Result<()> {
        self.kill_broker()?;
        self.broker = Some(self.start_broker()?);
        Ok(())
    }

    /// Kills the broker (SIGKILL).
    pub(super) fn kill_broker(&mut self) -> Result<()> {
        match self.broker.take() {
            Some(mut broker) => broker.process().kill(),
            None => Ok(()),
        }
    }

    /// Stops the broker as an operator would.
    pub(super) fn stop_broker(&mut self) -> Result<()> {
        if let Some(mut broker) = self.broker.take() {
            broker.process().stop(STOP_LIMIT)?;
        }
        Ok(())
    }

    /// The ends of the servers' logs, for the report of a failure.
    pub(super) fn log_tails(&self) -> String {
        let logs = ["name-server.log", "broker.log"].map(|name| self.dir.path().join(name));
        logs.iter()
            .filter(|log| log.exists())
            .map(|log| process::tail(log))
            .collect()
    }

    /// The broker's configuration, as it was last started.
    pub(super) fn broker_conf(&self) -> PathBuf {
        self.dir.path().join("broker.conf")
    }

    fn is_one_process(&self) -> bool {
        !self.plan.apart
    }

    fn start_name_server(&self) -> Result<Server> {
        let command = match self.plan.name_server {
            Implementation::Ours => {
                let mut command = process::command(workspace::release_broker()?);
                command.args(["namesrv", "--listen", &self.name_server_address.to_string()]);
                command
            }
            Implementation::Java => {
                let mut command = self.java_command()?;
                command.arg("--namesrv").arg(self.write_name_server_conf()?);
                command
            }
        };
        self.start_server(command, "name-server", &[self.name_server_address])
    }

    fn start_broker(&self) -> Result<Server> {
        let conf = self.write_broker_conf()?;
        let mut command = match self.plan.broker {
            Implementation::Ours => process::command(workspace::release_broker()?),
            Implementation::Java => self.java_command()?,
        };
        let one_process = self.is_one_process();
        match self.plan.broker {
            Implementation::Ours => {
                command.arg("serve").arg("-c").arg(conf);
                if one_process {
                    command.args(["--namesrv-listen", &self.name_server_address.to_string()]);
                }
            }
            Implementation::Java => {
                if one_process {
                    command.arg("--namesrv").arg(self.write_name_server_conf()?);
                }
                command.arg("--broker").arg(conf);
            }
        }
        let mut addresses = vec![self.broker_address];
        addresses.extend(one_process.then_some(self.name_server_address));
        self.start_server(command, "broker", &addresses)
    }

    fn start_server(
        &self,
        mut command: Command,
        name: &str,
        addresses: &[SocketAddr],
    ) -> Result<Server> {
        // Name servers keep their key-value configuration in the home directory.
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path());
        let log = self.dir.path().join(format!("{name}.log"));
        Server::start(command, name, &log, addresses)
    }

    fn java_command(&self) -> Result<Command> {
        let mut command = java::command("foliomq.interop.JavaServer", "512m", self.dir.path())?;
        command.env("ROCKETMQ_HOME", self.dir.path());
        Ok(command)
    }

    fn write_name_server_conf(&self) -> Result<PathBuf> {
        let path = self.dir.path().join("namesrv.conf");
        let kv_config = self.dir.path().join("namesrv/kvConfig.json");
        let port = self.name_server_address.port();
        let text = format!(
            "listenPort={port}\nbindAddress=127.0.0.1\nkvConfigPath={}\n",
            kv_config.display()
        );
        fs::write(&path, text).context("namesrv.conf")?;
        Ok(path)
    }

    fn write_broker_conf(&self) -> Result<PathBuf> {
        let path = self.broker_conf();
        let java_only = match self.plan.broker {
            Implementation::Java => JAVA_SETTINGS,
            Implementation::Ours => &[],
        };
        let port = self.broker_address.port();
        let mut settings: BTreeMap<&str, String> = SETTINGS
            .iter()
            .chain(java_only)
            .map(|(key, value)| (*key, value.to_string()))
            .collect();
        settings.insert("listenPort", port.to_string());
        settings.insert("haListenPort", (port + 1).to_string());
        settings.insert("storePathRootDir", self.store_dir().display().to_string());
        let serves_names_itself = self.plan.broker == Implementation::Ours && self.is_one_process();
        if !serves_names_itself {
            settings.insert("namesrvAddr", self.name_server_address.to_string());
        }
        settings.extend(self.plan.settings.iter().cloned());
        let text: String = settings
            .iter()
            .map(|(key, value)| format!("{key}={value}\n"))
            .collect();
        fs::write(&path, text).context("broker.conf")?;
        Ok(path)
    }
}

//! The Java side: built once by Maven, run with a small heap.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use super::cluster::{Cluster, Plan};
use super::driver::Driver;
use crate::test::{Implementation, Options};
use crate::{process, workspace};

/// The Java client against the server under test.
pub(super) fn client_suite(options: &Options) -> Result<()> {
    let mut cluster = Cluster::start(Plan::alone(options.server), options.keep)?;
    let command = command("foliomq.interop.ClientDriver", "256m", cluster.dir())?;
    Driver::new("java client", command).run(&mut cluster, options)
}

/// RocketMQ's admin tools against the server under test.
pub(super) fn admin_suite(options: &Options) -> Result<()> {
    // Java's broker cannot delete a topic while its timer is off.
    let plan = Plan::alone(options.server).with("timerWheelEnable", "true");
    let mut cluster = Cluster::start(plan, options.keep)?;
    let command = command("foliomq.interop.AdminDriver", "256m", cluster.dir())?;
    Driver::new("java admin", command).run(&mut cluster, options)
}

/// Brokers registered with name servers that are not their own: ours with Java's, Java's with ours.
pub(super) fn name_server_suite(options: &Options) -> Result<()> {
    let pairs = match options.server {
        Implementation::Java => vec![(Implementation::Java, Implementation::Java)],
        Implementation::Ours => vec![
            (Implementation::Java, Implementation::Ours),
            (Implementation::Ours, Implementation::Java),
        ],
    };
    for (name_server, broker) in pairs {
        println!("   name server {name_server:?}, broker {broker:?}");
        let mut cluster = Cluster::start(Plan::apart(name_server, broker), options.keep)?;
        let command = command("foliomq.interop.NameServerDriver", "256m", cluster.dir())?;
        Driver::new("java name server", command).run(&mut cluster, options)?;
    }
    Ok(())
}

/// A command that runs a main class of the Maven project; its files go below `home`.
pub fn command(main_class: &str, heap: &str, home: &Path) -> Result<Command> {
    let class_path = class_path()?;
    let home = home.display();
    let mut command = process::command("java");
    command.args([
        "-Xms32m",
        &format!("-Xmx{heap}"),
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xshare:auto",
        "-XX:-UsePerfData",
        &format!("-Duser.home={home}"),
        &format!("-Drocketmq.home.dir={home}"),
        &format!("-Drocketmq.client.logRoot={home}/client-logs"),
        "-Drocketmq.client.logUseSlf4j=false",
        "-cp",
        &class_path,
        main_class,
    ]);
    Ok(command)
}

/// The version of the JVM that runs the programs.
pub fn version() -> Result<String> {
    // It is told on the standard error.
    let output = Command::new("java").arg("-version").output();
    let text = output.context("cannot start java")?.stderr;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().nth(1).unwrap_or_default().to_owned())
}

/// Builds the Maven project, once a run, and returns the class path of its programs.
pub fn class_path() -> Result<String> {
    static BUILT: OnceLock<String> = OnceLock::new();
    if let Some(class_path) = BUILT.get() {
        return Ok(class_path.clone());
    }
    let project = project_dir();
    let mut maven = Command::new("mvn");
    maven.current_dir(&project).args([
        "--batch-mode",
        "--quiet",
        "-Dstyle.color=never",
        "process-classes",
    ]);
    workspace::run(&mut maven)?;
    let dependencies =
        fs::read_to_string(project.join("target/classpath.txt")).context("Maven's class path")?;
    let built = format!(
        "{}:{}",
        project.join("target/classes").display(),
        dependencies.trim()
    );
    Ok(BUILT.get_or_init(|| built).clone())
}

fn project_dir() -> PathBuf {
    workspace::root().join("xtask/interop/java")
}

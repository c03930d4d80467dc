//! The clients that are not RocketMQ's own: rocketmq-client-go v2 and ali-ons for Node.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::cluster::{Cluster, Plan};
use super::driver::Driver;
use crate::test::Options;
use crate::{process, workspace};

/// rocketmq-client-go v2 against the server under test.
pub(super) fn go_suite(options: &Options) -> Result<()> {
    let driver = workspace::target_dir().join("interop/go-driver");
    let mut build = Command::new("go");
    build
        .current_dir(project_dir("go"))
        .args(["build", "-o"])
        .arg(&driver)
        .arg(".");
    workspace::run(&mut build)?;
    drive("go client", process::command(driver), options)
}

/// ali-ons against the server under test.
pub(super) fn node_suite(options: &Options) -> Result<()> {
    let project = project_dir("node");
    let mut install = Command::new("npm");
    install
        .current_dir(&project)
        .args(["ci", "--no-audit", "--no-fund", "--silent"]);
    workspace::run(&mut install)?;
    let mut command = process::command("node");
    command.arg(project.join("driver.js"));
    drive("node client", command, options)
}

fn drive(name: &'static str, command: Command, options: &Options) -> Result<()> {
    let mut cluster = Cluster::start(Plan::alone(options.server), options.keep)?;
    Driver::new(name, command).run(&mut cluster, options)
}

fn project_dir(name: &str) -> PathBuf {
    workspace::root().join("xtask/interop").join(name)
}

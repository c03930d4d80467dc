//! One directory, two implementations: what the broker under test wrote and serves, Java's store
//! opens and answers alike; what Java's store appends, the broker serves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::cluster::{Cluster, Plan};
use super::driver::Driver;
use super::java;
use crate::process::Guarded;
use crate::test::Options;

/// How many messages Java's store appends.
const APPENDED_COUNT: usize = 300;
/// How long Java's store may take over the directory.
const TOOL_LIMIT: Duration = Duration::from_secs(120);
/// How many differing lines a failure shows of each dump.
const SHOWN_COUNT: usize = 5;

/// Everything that a source answered about a store, one JSON line an answer.
struct Dump {
    name: &'static str,
    lines: BTreeSet<String>,
}

/// Writes, stops, lets Java open and append, reads again; then the same after a kill.
pub(super) fn suite(options: &Options) -> Result<()> {
    let mut cluster = Cluster::start(Plan::alone(options.server), options.keep)?;
    let served = serve(&mut cluster, options, &["--fill", "First"], "served")?;
    cluster.stop_broker()?;
    open(&cluster, 0, "opened by Java")?.compare(&served)?;

    let appended = open(&cluster, APPENDED_COUNT, "appended to by Java")?;
    let grown = appended.lines.len() - served.lines.intersection(&appended.lines).count();
    ensure!(
        grown >= APPENDED_COUNT,
        "only {grown} lines differ after {APPENDED_COUNT} appends"
    );
    cluster.restart_broker()?;
    serve(&mut cluster, options, &[], "reopened")?.compare(&appended)?;

    let served = serve(
        &mut cluster,
        options,
        &["--fill", "Second"],
        "served before the kill",
    )?;
    cluster.kill_broker()?;
    let recovered = open(&cluster, 0, "recovered by Java")?;
    // Java's store drops index entries when it recovers from a kill.
    recovered
        .without_queries()
        .compare(&served.without_queries())?;
    cluster.restart_broker()?;
    let reopened = serve(&mut cluster, options, &[], "reopened after Java's recovery")?;
    reopened
        .without_queries()
        .compare(&recovered.without_queries())
}

impl Dump {
    fn read(name: &'static str, file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("dump {name}"))?;
        let lines: BTreeSet<_> = text.lines().map(str::to_owned).collect();
        let count = |kind: &str| {
            let field = format!("\"kind\":\"{kind}\"");
            lines.iter().filter(|line| line.contains(&field)).count()
        };
        println!(
            "   {name}: {} queues, {} messages, {} searches, {} queries",
            count("queue"),
            count("message"),
            count("search"),
            count("query"),
        );
        ensure!(count("message") > 0, "dump {name} holds no message");
        Ok(Self { name, lines })
    }

    /// The answers that need no index of keys.
    fn without_queries(&self) -> Self {
        let is_query = |line: &&String| line.contains("\"kind\":\"query\"");
        Self {
            name: self.name,
            lines: self
                .lines
                .iter()
                .filter(|line| !is_query(line))
                .cloned()
                .collect(),
        }
    }

    fn compare(&self, other: &Self) -> Result<()> {
        let only = |one: &Self, another: &Self| -> String {
            let lines: Vec<_> = one.lines.difference(&another.lines).collect();
            let shown: String = lines
                .iter()
                .take(SHOWN_COUNT)
                .map(|line| format!("\n     {line}"))
                .collect();
            format!("{} lines only in `{}`:{shown}\n", lines.len(), one.name)
        };
        if self.lines != other.lines {
            bail!(
                "the dumps differ\n   {}   {}",
                only(self, other),
                only(other, self)
            );
        }
        Ok(())
    }
}

/// What the running broker serves, after it was filled with more.
fn serve(
    cluster: &mut Cluster,
    options: &Options,
    arguments: &[&str],
    name: &'static str,
) -> Result<Dump> {
    let file = dump_file(cluster, name);
    let mut command = java::command("foliomq.interop.StoreDriver", "512m", cluster.dir())?;
    command.args(arguments).arg("--dump").arg(&file);
    Driver::new("store", command).run(cluster, options)?;
    Dump::read(name, &file)
}

/// What Java's store answers on the directory, after it appended some messages itself.
fn open(cluster: &Cluster, append_count: usize, name: &'static str) -> Result<Dump> {
    let file = dump_file(cluster, name);
    let mut command = java::command("foliomq.interop.StoreTool", "512m", cluster.dir())?;
    command
        .arg("--conf")
        .arg(cluster.broker_conf())
        .arg("--dump")
        .arg(&file);
    command.args([
        "--topic",
        "FirstBatch",
        "--append",
        &append_count.to_string(),
    ]);
    let log = cluster.dir().join("store-tool.log");
    let output = fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .context("log")?;
    command
        .stdout(output.try_clone().context("log")?)
        .stderr(output);
    let status = Guarded::spawn(&mut command, "StoreTool")?.wait(TOOL_LIMIT)?;
    ensure!(
        status.success(),
        "StoreTool: {status}\n{}",
        crate::process::tail(&log)
    );
    Dump::read(name, &file)
}

fn dump_file(cluster: &Cluster, name: &str) -> PathBuf {
    cluster
        .dir()
        .join(format!("{}.jsonl", name.replace(' ', "-")))
}

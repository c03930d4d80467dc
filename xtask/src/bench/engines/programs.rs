//! The programs that measure: one process for each measurement of a native engine, and one JVM.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Work;
use crate::bench::report::Common;
use crate::bench::servers::measured::JAVA_FLAGS;
use crate::bench::store;
use crate::interop::java;
use crate::process::{self, Guarded};
use crate::workspace;

pub(super) const JAVA: &str = "java";
/// No engine: what the device does with one sync after the other.
pub(super) const FDATASYNC: &str = "fdatasync";
/// Milliseconds of puts before Java is measured, so that its code is compiled.
const WARM_UP_MILLIS: u64 = 6_000;
const MANIFEST: &str = "benches/engines/Cargo.toml";
const LOCK: &str = "benches/engines/Cargo.lock";
/// The crates of the other engines.
const CRATES: [&str; 4] = ["okaywal", "raft-engine", "commitlog", "redb"];

/// The programs, ready to measure.
#[derive(Debug)]
pub(super) struct Programs {
    native: PathBuf,
    /// Measures the device.
    embedded: PathBuf,
    dir: PathBuf,
    java: Option<Java>,
    /// Messages that are read.
    read: u64,
}

/// The JVM with Java's stores.
#[derive(Debug)]
struct Java {
    process: Guarded,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Programs {
    /// Builds the programs of native engines and of the device, and starts Java where it takes part.
    pub(super) fn start(dir: &Path, common: &Common, with_java: bool) -> Result<Self> {
        // A workspace of its own, which `cargo build` at the root does not see.
        let target_dir = workspace::target_dir();
        let mut build = workspace::cargo_command(&["build", "--release", "--quiet"]);
        build.args(["--locked", "--manifest-path", MANIFEST, "--target-dir"]);
        workspace::run(build.arg(&target_dir))?;
        let embedded = store::build(common)?;
        let java = match with_java {
            true => Some(Java::start(dir, common)?),
            false => None,
        };
        Ok(Self {
            native: target_dir.join("release/engines"),
            embedded,
            dir: dir.to_owned(),
            java,
            read: common.choose(300_000, 10_000),
        })
    }

    /// Measures an engine once.
    pub(super) fn measure(
        &mut self,
        engine: &str,
        work: Work,
        millis: u64,
        messages: u64,
    ) -> Result<Value> {
        if engine == JAVA {
            let java = self.java.as_mut().context("Java takes no part")?;
            return java.measure(&match work {
                Work::Put { threads } => format!("put {threads} {millis} {messages}"),
                Work::Sync { threads } => format!("sync {threads} {millis}"),
                Work::Read => format!("read {millis}"),
            });
        }
        let millis = millis.to_string();
        if engine == FDATASYNC {
            let mut command = Command::new(&self.embedded);
            command.arg("--dir").arg(&self.dir).arg("fdatasync");
            return figures(command.args(["--millis", &millis]));
        }
        let mut command = Command::new(&self.native);
        command.arg(engine).arg("--dir").arg(&self.dir);
        match work {
            Work::Put { threads } => command
                .args(["put", "--threads", &threads.to_string()])
                .args(["--messages", &messages.to_string()]),
            Work::Sync { threads } => command.args(["sync", "--threads", &threads.to_string()]),
            Work::Read => command.args(["read", "--messages", &self.read.to_string()]),
        };
        figures(command.args(["--millis", &millis]))
    }
}

/// The line that a program prints.
fn figures(command: &mut Command) -> Result<Value> {
    let line = workspace::output(command)?;
    serde_json::from_str(&line).context("figures")
}

/// The versions of the crates that are measured, as they are locked.
pub(super) fn versions() -> Result<String> {
    let path = workspace::root().join(LOCK);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let found = CRATES.map(|name| {
        let version = locked(&text, name);
        version.map(|version| format!("{name} {version}"))
    });
    let found: Option<Vec<_>> = found.into_iter().collect();
    Ok(found
        .with_context(|| format!("an engine is not in {LOCK}"))?
        .join(", "))
}

/// The version of a crate that comes from a registry: crates of this workspace have no source.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    lock.split("[[package]]").find_map(|package| {
        let value = |key: &str| {
            let line = |line: &'a str| line.strip_prefix(key)?.strip_prefix(" = ");
            Some(package.lines().find_map(line)?.trim_matches('"'))
        };
        let is_it = value("name") == Some(name) && value("source").is_some();
        is_it.then(|| value("version")).flatten()
    })
}

impl Java {
    fn start(dir: &Path, common: &Common) -> Result<Self> {
        let class_path = java::class_path()?;
        let mut command = process::command("java");
        command.args(JAVA_FLAGS);
        command.arg(format!("-Duser.home={}", dir.display()));
        command.args(["-cp", &class_path, "foliomq.interop.EngineBench"]);
        command.arg(dir.join("java"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Guarded::spawn(&mut command, JAVA)?;
        let input = process.child().stdin.take().context("no pipe")?;
        let output = process.child().stdout.take().context("no pipe")?;
        let mut java = Self {
            process,
            input,
            output: BufReader::new(output),
        };
        let millis = common.choose(WARM_UP_MILLIS, 200);
        java.ask(&format!("put 1 {millis} 4000000"))?;
        java.ask(&format!("sync 8 {}", millis / 4))?;
        java.ask(&format!("read {}", millis / 4))?;
        java.signal(Signal::STOP)?;
        Ok(java)
    }

    fn measure(&mut self, question: &str) -> Result<Value> {
        self.signal(Signal::CONT)?;
        let found = self.ask(question)?;
        self.signal(Signal::STOP)?;
        Ok(found)
    }

    fn ask(&mut self, question: &str) -> Result<Value> {
        writeln!(self.input, "{question}")?;
        let mut line = String::new();
        // RocketMQ's logging speaks there too.
        while !line.starts_with('{') {
            line.clear();
            self.output.read_line(&mut line)?;
            ensure!(!line.is_empty(), "the JVM ended at {question:?}");
        }
        serde_json::from_str(&line).with_context(|| format!("answer {line:?}"))
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(self.process.child()), signal).context("signal Java")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_its_locked_version() -> Result<()> {
        let lock = "[[package]]\nname = \"commitlog\"\nversion = \"0.1.0\"\n\n[[package]]\n\
            name = \"commitlog\"\nversion = \"0.2.0\"\nsource = \"registry\"\n";
        assert_eq!(locked(lock, "commitlog"), Some("0.2.0"));
        assert_eq!(locked(lock, "redb"), None);
        assert_eq!(versions()?.split(", ").count(), CRATES.len());
        Ok(())
    }
}

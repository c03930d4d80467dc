//! `foliomq serve`: the broker, with the embedded name server unless others are named.

use std::io::Write;

use anyhow::{Context, Result};
use mmap_core::{Access, Io, IoFile, OsIo};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{EndSignals, block_on};
use crate::config::{Config, Flags};
use crate::node::Node;

/// Longest configuration file that is read, in bytes.
const CONFIG_LEN_MAX: u64 = 1024 * 1024;

/// Serves until the process is asked to end.
///
/// # Errors
/// The configuration is wrong, or the node cannot start or stop.
pub fn run(flags: &Flags) -> Result<()> {
    let config = configure(flags)?;
    allow_open_files(config.network.limits.connection_count_max);
    block_on(async {
        let node = Node::start(config).await?;
        // Before anybody can know that it is ready, and ask it to stop.
        let asked_to_end = EndSignals::listen()?;
        mmap_core::failpoint!("foliomq.serving");
        // Whoever started it may have closed its end: no reason to stop serving.
        if let Err(error) = writeln!(std::io::stdout().lock(), "{}", node.summary) {
            tracing::warn!(%error, "nobody reads the standard output");
        }
        asked_to_end.received().await;
        tracing::info!("stopping");
        mmap_core::failpoint!("foliomq.stopping");
        node.stop().await?;
        tracing::info!("stopped cleanly");
        Ok(())
    })
}

/// Defaults, then the file, then the flags; keys without effect are named in a warning each.
fn configure(flags: &Flags) -> Result<Config> {
    let mut config = Config::new(&host_name());
    if let Some(path) = &flags.file {
        let bytes = OsIo
            .read(path, CONFIG_LEN_MAX)
            .context("the configuration file")?;
        let text = String::from_utf8(bytes)
            .with_context(|| format!("{}: not UTF-8 text", path.display()))?;
        let findings = config.apply_file(path, &text)?;
        let list = |keys: &std::collections::BTreeSet<String>| {
            keys.iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        if !findings.unused.is_empty() {
            tracing::warn!(
                keys = list(&findings.unused),
                "RocketMQ's keys that have no effect yet"
            );
        }
        if !findings.unknown.is_empty() {
            tracing::warn!(keys = list(&findings.unknown), "keys that nobody knows");
        }
    }
    config.apply_flags(flags)?;
    Ok(config)
}

/// Files that a broker has open beside its connections; a rough figure for the warning.
const FILES_BESIDE_CONNECTIONS: u64 = 1024;

/// Lets the process open as many files as the system allows it: shells begin with 1024, which a
/// connection each would use up. (A JVM does the same.)
fn allow_open_files(connection_count_max: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let wanted = connection_count_max as u64 + FILES_BESIDE_CONNECTIONS;
    if allowed.is_some_and(|allowed| allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "open files are limited (ulimit -n) below what foliomq.maxConnections allows"
        );
    }
}

/// The machine's name, which a broker takes that was given none.
fn host_name() -> String {
    let mut name = [0; 256];
    // Files of /proc say that they are empty: their length is known by reading them.
    let read = OsIo
        .open("/proc/sys/kernel/hostname".as_ref(), Access::ReadOnly)
        .and_then(|file| file.read_at(&mut name, 0));
    let name = name.get(..read.unwrap_or(0)).unwrap_or_default();
    match std::str::from_utf8(name).map(str::trim) {
        Ok(name) if !name.is_empty() => name.to_owned(),
        _ => "DEFAULT_BROKER".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_called_as_its_machine() {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(host_name(), name.trim());
    }
}

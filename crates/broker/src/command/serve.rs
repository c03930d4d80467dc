//! `foliomq serve`: the broker, with the embedded name server unless others are named.

use std::io::Write;

use anyhow::{Context, Result};
use mmap_core::{Io, OsIo};

use super::{asked_to_end, block_on};
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
    let threads = config.network.limits.worker_threads;
    block_on(threads, async {
        let node = Node::start(config).await?;
        writeln!(std::io::stdout().lock(), "{}", node.summary)?;
        asked_to_end().await?;
        tracing::info!("stopping");
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

/// The machine's name, which a broker takes that was given none.
fn host_name() -> String {
    let read = OsIo.read("/proc/sys/kernel/hostname".as_ref(), 4096);
    let name = read.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let name = name
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "DEFAULT_BROKER".to_owned())
}

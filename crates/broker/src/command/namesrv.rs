//! `foliomq namesrv`: the name server alone.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{EndSignals, block_on};
use crate::cli::NamesrvFlags;
use crate::node::NamesrvNode;

/// Serves until the process is asked to end.
///
/// # Errors
/// The address is taken, or the key-value configuration is unreadable.
pub fn run(flags: &NamesrvFlags) -> Result<()> {
    let dir = match &flags.kv_dir {
        Some(dir) => dir.clone(),
        // RocketMQ's place for it.
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set: give --kv-dir")?)
            .join("namesrv"),
    };
    block_on(async {
        let node = NamesrvNode::start(&flags.listen, &dir)?;
        let asked_to_end = EndSignals::listen()?;
        writeln!(
            std::io::stdout().lock(),
            "foliomq name server is ready on {}",
            node.address
        )?;
        asked_to_end.received().await;
        node.stop().await;
        Ok(())
    })
}

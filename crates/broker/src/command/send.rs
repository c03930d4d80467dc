//! `foliomq send`: a message for each argument.

use std::io::Write;

use anyhow::{Context, Result};
use client::{ClientOptions, Outgoing, Producer};

use crate::cli::SendFlags;

/// Sends the bodies in order; a line for each tells where it is.
///
/// # Errors
/// A message was refused, or nobody answers.
pub fn run(flags: &SendFlags) -> Result<()> {
    let mut producer = Producer::new(ClientOptions::new(&flags.namesrv), "foliomq_cli");
    let keys: Vec<&str> = flags
        .keys
        .as_deref()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .collect();
    let mut out = std::io::stdout().lock();
    for body in &flags.bodies {
        let message = Outgoing {
            body: body.as_bytes(),
            tag: flags.tag.as_deref(),
            keys: &keys,
            ..Default::default()
        };
        let receipt = producer
            .send(&flags.topic, &message)
            .with_context(|| format!("cannot send to {}", flags.topic))?;
        writeln!(
            out,
            "{} queue {} offset {} id {}",
            flags.topic, receipt.queue.id, receipt.queue_offset, receipt.unique_key
        )?;
    }
    Ok(())
}

//! `foliomq consume`: prints the messages of a topic, from the first on, as they come.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{ClientError, ClientOptions, PullConsumer, StartAt};

use crate::cli::ConsumeFlags;

/// How long one look waits for messages.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a topic may take to be known: name servers hear of it after the send that created it.
const ROUTE_PATIENCE: Duration = Duration::from_secs(3);
/// How often the name server is asked meanwhile.
const ROUTE_PAUSE: Duration = Duration::from_millis(50);

/// Prints bodies, one a line, until `--count` of them or the end of the process.
///
/// # Errors
/// The topic is not there, or nobody answers.
pub fn run(flags: &ConsumeFlags) -> Result<()> {
    // A group of its own: the command shows a topic, it does not take messages from anybody.
    let group = format!("foliomq_cli_{}", std::process::id());
    let options = ClientOptions::new(&flags.namesrv);
    let mut consumer = connect(&options, &group, &flags.topic)
        .with_context(|| format!("cannot read {}", flags.topic))?;
    let mut left = flags.count.unwrap_or(u64::MAX);
    while left > 0 {
        for message in consumer.poll(PATIENCE)? {
            let mut out = std::io::stdout().lock();
            let written = out
                .write_all(&message.body)
                .and_then(|()| out.write_all(b"\n"));
            match written.and_then(|()| out.flush()) {
                // Whoever read the output has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    Ok(())
}

fn connect(options: &ClientOptions, group: &str, topic: &str) -> Result<PullConsumer, ClientError> {
    let deadline = Instant::now() + ROUTE_PATIENCE;
    loop {
        match PullConsumer::new(options.clone(), group, topic, StartAt::Earliest) {
            Err(ClientError::NoQueue { .. }) if Instant::now() < deadline => {
                std::thread::sleep(ROUTE_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

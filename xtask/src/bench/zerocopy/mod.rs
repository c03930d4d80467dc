//! `cargo xtask bench zerocopy`: what it costs to move bytes from a file to a socket, from a file
//! to a file, and from a socket to a file, in each of the ways that the system offers.

mod send;
mod store;

use anyhow::Result;
use clap::Args;

use super::report::{Column, Common, Report};

const RATE: Column = Column::spread("MB/s");
const CPU: Column = Column::median("CPU s per GB");

const ABOUT: &str = "Bytes go over a loopback connection; the processor time is that of the one \
thread that sends (or receives), its part in the kernel included.";

/// What `cargo xtask bench zerocopy` takes.
#[derive(Debug, Args)]
pub struct ZeroCopyArguments {
    /// Length of the file in MiB; a sixteenth of it is sent in each run that finds it cached.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    #[command(flatten)]
    common: Common,
}

impl ZeroCopyArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// Runs the bench.
pub(super) fn run(arguments: &ZeroCopyArguments) -> Result<()> {
    let common = &arguments.common;
    let mut report = Report::new("zerocopy", "From files to sockets and back", common);
    report.text(ABOUT);
    let len = common.choose(arguments.mib, 4) << 20;
    send::measure(common, len, &mut report)?;
    store::measure(common, len, &mut report)?;
    report.finish(common)
}

//! `cargo xtask bench folklore`: what the field says of mapped memory, tried: that it suits large
//! files, that it suffers beside busy processors, what each piece of advice to the kernel does, and what
//! private mappings cost.
//! docs/mapped-memory.md has the verdicts.

mod advice;
mod busy;
mod private;
mod sizes;

use anyhow::Result;
use clap::Args;

use super::report::{Column, Common, Report};

const RATE: Column = Column::spread("MB/s");
const FAULTS: Column = Column::median("page faults per GiB");

/// What `cargo xtask bench folklore` takes.
#[derive(Debug, Args)]
pub struct FolkloreArguments {
    #[command(flatten)]
    common: Common,
}

impl FolkloreArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// Runs the bench.
pub(super) fn run(arguments: &FolkloreArguments) -> Result<()> {
    let common = &arguments.common;
    let mut report = Report::new("folklore", "Folklore of mapped memory", common);
    let dir = common.scratch()?;
    sizes::measure(common, dir.path(), &mut report)?;
    busy::measure(common, dir.path(), &mut report)?;
    advice::measure(common, dir.path(), &mut report)?;
    private::measure(common, dir.path(), &mut report)?;
    report.finish(common)
}

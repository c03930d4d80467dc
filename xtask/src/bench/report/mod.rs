//! Reports of the benches: tables of medians with their spread, plots, and a record of the machine,
//! as Markdown with SVG files beside it.
//!
//! A bench adds samples to [`Table`]s as it measures, draws [`Plot`]s of their columns, and hands
//! all of it to [`Report::finish`], which prints the text and writes the files where that is asked
//! for ([`Common`]).

mod machine;
mod plot;
mod svg;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

pub(super) use plot::Plot;
pub(super) use table::{Column, Table};

use crate::workspace;
use machine::Machine;

/// What every bench takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// How often each row is measured, the ways in turn; the medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One short round with little data: shows that everything works, measures nothing well.
    #[arg(long)]
    quick: bool,
    /// Where the files lie that are measured; the system's temporary directory by default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Runs only the rows whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Writes the report, NAME.md and its plots, to docs/benchmarks.
    #[arg(long)]
    save: bool,
    /// Writes the report into this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "save")]
    out: Option<PathBuf>,
    /// The name of the report's files, where it is not the bench's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Common {
    /// How often each row is measured.
    pub(super) fn rounds(&self) -> usize {
        self.choose(self.rounds.max(1), 1)
    }

    /// `quick` in a quick run, else `full`.
    pub(super) fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Whether this is a quick run.
    pub(super) fn is_quick(&self) -> bool {
        self.quick
    }

    /// Where the files lie that are measured.
    pub(super) fn base(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// A new directory for the files that are measured, removed when dropped.
    pub(super) fn scratch(&self) -> Result<tempfile::TempDir> {
        let base = self.base();
        tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&base)
            .with_context(|| format!("no directory can be made in {}", base.display()))
    }

    /// Whether a row was asked for.
    pub(super) fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|text| row.contains(text))
    }

    fn out(&self) -> Option<PathBuf> {
        let docs = || workspace::root().join("docs/benchmarks");
        self.out.clone().or_else(|| self.save.then(docs))
    }
}

/// What a bench has found.
#[derive(Debug)]
pub(super) struct Report {
    name: &'static str,
    title: &'static str,
    machine: Machine,
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Block {
    Text(String),
    Table(Table),
    Plot(Plot),
}

impl Report {
    /// A report whose files are named after `name`, made before anything is measured.
    pub(super) fn new(name: &'static str, title: &'static str, common: &Common) -> Self {
        Self {
            name,
            title,
            machine: Machine::look(&common.base()),
            blocks: Vec::new(),
        }
    }

    /// Adds a line to the record of the machine, such as the version of another program.
    pub(super) fn record(&mut self, what: &'static str, value: impl Into<String>) {
        self.machine.add(what, value);
    }

    /// Adds a paragraph of Markdown.
    pub(super) fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    /// Adds a table; one without rows is left out.
    pub(super) fn table(&mut self, table: Table) {
        if !table.is_empty() {
            self.blocks.push(Block::Table(table));
        }
    }

    /// Adds a plot; one without values is left out.
    pub(super) fn plot(&mut self, plot: Plot) {
        if !plot.is_empty() {
            self.blocks.push(Block::Plot(plot));
        }
    }

    /// Prints the report, and writes it where that was asked for.
    pub(super) fn finish(self, common: &Common) -> Result<()> {
        let name = common.name.as_deref().unwrap_or(self.name);
        print!("{}", self.markdown(name, false));
        if let Some(out) = common.out() {
            self.write(name, &out)
                .with_context(|| format!("write the report to {}", out.display()))?;
            eprintln!("written to {}", out.join(format!("{name}.md")).display());
        }
        Ok(())
    }

    fn write(&self, name: &str, out: &Path) -> Result<()> {
        fs::create_dir_all(out)?;
        for block in &self.blocks {
            if let Block::Plot(plot) = block {
                fs::write(out.join(plot.file_name(name)), plot.svg())?;
            }
        }
        fs::write(out.join(format!("{name}.md")), self.markdown(name, true))?;
        Ok(())
    }

    fn markdown(&self, name: &str, with_plots: bool) -> String {
        let mut text = format!("# {}\n\n`{}`\n\n", self.title, command_line());
        text += &format!("{}\n", self.machine);
        for block in &self.blocks {
            match block {
                Block::Text(paragraph) => text += &format!("{paragraph}\n\n"),
                Block::Table(table) => text += &format!("{table}\n"),
                Block::Plot(plot) if with_plots => {
                    text += &format!("![{}]({})\n\n", plot.title(), plot.file_name(name));
                }
                Block::Plot(_) => {}
            }
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }
}

/// How to run this again, without where the report goes.
fn command_line() -> String {
    let mut words = vec!["cargo xtask".to_owned()];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--save" => {}
            "--out" | "--name" => drop(arguments.next()),
            _ => words.push(argument),
        }
    }
    words.join(" ")
}

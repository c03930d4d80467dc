//! What the sources and the top level must not hold.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::Findings;
use crate::workspace;

/// A file longer than this should be split by concept: a warning.
const LINE_COUNT_WANTED: usize = 800;

/// What may stand at the top level beside dot-files.
const TOP_LEVEL: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "clippy.toml",
    "crates",
    "deny.toml",
    "docs",
    "rustfmt.toml",
    "xtask",
];

/// Marks of unfinished work, spelled so that this file does not hold them itself.
const MARKS: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("dbg", "!"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
];

/// Looks at every file that git knows or would add.
pub(super) fn check() -> Result<Findings> {
    let listed = workspace::output(Command::new("git").current_dir(workspace::root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut findings = check_top_level(&listed);
    for file in listed.lines().filter(|file| is_text(file)) {
        let path = workspace::root().join(file);
        // Listed, but deleted in the working tree.
        if let Ok(text) = fs::read_to_string(&path) {
            check_source(file, &text, &mut findings);
        }
    }
    check_dependency_notes(&mut findings)?;
    Ok(findings)
}

fn check_top_level(listed: &str) -> Findings {
    let mut names: Vec<_> = listed
        .lines()
        .filter_map(|file| file.split('/').next())
        .collect();
    names.sort_unstable();
    names.dedup();
    let foreign = |name: &&str| !name.starts_with('.') && !TOP_LEVEL.contains(name);
    names
        .into_iter()
        .filter(foreign)
        .map(|name| format!("{name}: not for the top level"))
        .collect()
}

fn check_source(file: &str, text: &str, findings: &mut Findings) {
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(mark) = MARKS.into_iter().find(|mark| line.contains(mark)) {
            findings.push(format!("{file}:{number}: {mark}"));
        }
    }
    let line_count = text.lines().count();
    if file.ends_with(".rs") && line_count > LINE_COUNT_WANTED {
        println!("tidy: warning: {file} has {line_count} lines (over {LINE_COUNT_WANTED})");
    }
}

/// Every dependency from a registry has its line in docs/dependencies.md.
fn check_dependency_notes(findings: &mut Findings) -> Result<()> {
    let manifest =
        fs::read_to_string(workspace::root().join("Cargo.toml")).context("Cargo.toml")?;
    let notes_path = workspace::root().join("docs/dependencies.md");
    let notes = fs::read_to_string(notes_path).context("docs/dependencies.md")?;
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    for line in section.lines().filter(|line| !line.contains("path =")) {
        let Some((name, _)) = line.split_once(" =") else {
            continue;
        };
        if !line.starts_with('#') && !notes.contains(&format!("`{name}`")) {
            findings.push(format!("docs/dependencies.md says nothing about `{name}`"));
        }
    }
    Ok(())
}

fn is_text(file: &str) -> bool {
    [".rs", ".toml", ".java", ".go", ".js", ".mjs", ".sh", ".yml"]
        .iter()
        .any(|ending| file.ends_with(ending))
}

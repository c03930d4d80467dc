//! The library crates as a stranger meets them: from a project outside the workspace.
//!
//! For each crate a scratch package depends on it alone, by path, and builds its example: the
//! files of its `examples/`, or else the first example of its crate docs. What the package brings
//! along is counted, and must hold no async runtime.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Findings, layers};
use crate::workspace;

/// The most crates that a library may bring into a project, itself included.
const CRATE_COUNT_MAX: [(&str, usize); 2] = [("mmap-core", 10), ("store", 45)];

/// What no library may bring along: the async edge, and JSON configuration, are the broker's.
const ASYNC_RUNTIMES: [&str; 6] = [
    "tokio",
    "async-std",
    "smol",
    "async-executor",
    "mio",
    "glommio",
];

/// Builds every library's example and looks at what came along.
pub(super) fn check() -> Result<Findings> {
    let scratch = Scratch::create()?;
    let mut findings = Findings::new();
    for name in layers::library_names() {
        let example_count = scratch.add(name)?;
        if example_count == 0 {
            findings.push(format!(
                "{name}: no example in examples/ nor in its crate docs"
            ));
            continue;
        }
        if let Err(error) = scratch.cargo(name, "build", &["--quiet", "--bins"]) {
            findings.push(format!(
                "{name}: its example does not build outside: {error:#}"
            ));
        }
        check_dependencies(name, &scratch.dependencies(name)?, &mut findings);
    }
    Ok(findings)
}

fn check_dependencies(name: &str, crates: &BTreeSet<String>, findings: &mut Findings) {
    println!("tidy: {name} brings {} crates", crates.len());
    for (_, most) in CRATE_COUNT_MAX
        .into_iter()
        .filter(|(limited, _)| *limited == name)
    {
        if crates.len() > most {
            let list = crates.iter().cloned().collect::<Vec<_>>().join(", ");
            findings.push(format!(
                "{name} brings {} crates, over {most}: {list}",
                crates.len()
            ));
        }
    }
    for runtime in ASYNC_RUNTIMES
        .into_iter()
        .filter(|runtime| crates.contains(*runtime))
    {
        findings.push(format!("{name} brings the async runtime {runtime}"));
    }
}

/// The scratch projects, removed when dropped; what they build lies in the workspace's target
/// directory, so that a second run is short.
struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn create() -> Result<Self> {
        Ok(Self {
            dir: tempfile::Builder::new().prefix("scratch-").tempdir()?,
        })
    }

    /// Makes the package for one library; returns how many examples it got.
    fn add(&self, name: &str) -> Result<usize> {
        let crate_dir = workspace::root().join("crates").join(name);
        let package = self.dir.path().join(name);
        let programs = package.join("src/bin");
        fs::create_dir_all(&programs).context("scratch project")?;
        let examples = examples_of(&crate_dir)?;
        for (index, example) in examples.iter().enumerate() {
            fs::write(programs.join(format!("example_{index}.rs")), example)?;
        }
        let for_examples = if examples.iter().any(|text| text.contains("tempfile::")) {
            "tempfile = \"3\"\n"
        } else {
            ""
        };
        let manifest = format!(
            "[package]\nname = \"scratch-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [dependencies]\n{name} = {{ path = {:?} }}\n{for_examples}\n[workspace]\n",
            crate_dir.display().to_string(),
        );
        fs::write(package.join("Cargo.toml"), manifest)?;
        // The versions that the workspace is tested with.
        fs::copy(
            workspace::root().join("Cargo.lock"),
            package.join("Cargo.lock"),
        )?;
        Ok(examples.len())
    }

    fn cargo(&self, name: &str, verb: &str, arguments: &[&str]) -> Result<String> {
        workspace::output(self.command(name, verb).args(arguments))
    }

    fn command(&self, name: &str, verb: &str) -> Command {
        let mut command = workspace::cargo_command(&[verb]);
        command.current_dir(self.dir.path().join(name));
        command.env("CARGO_TARGET_DIR", workspace::target_dir().join("scratch"));
        command
    }

    /// The names of the crates that the library brings into a project, itself included.
    fn dependencies(&self, name: &str) -> Result<BTreeSet<String>> {
        let arguments = [
            "--package",
            name,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ];
        let tree = self.cargo(name, "tree", &arguments)?;
        Ok(tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect())
    }
}

/// The texts of a crate's examples.
fn examples_of(crate_dir: &Path) -> Result<Vec<String>> {
    let mut files: Vec<PathBuf> = match fs::read_dir(crate_dir.join("examples")) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .collect(),
        Err(_) => Vec::new(),
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    if files.is_empty() {
        let docs = fs::read_to_string(crate_dir.join("src/lib.rs")).context("lib.rs")?;
        return Ok(documented_example(&docs).into_iter().collect());
    }
    files
        .iter()
        .map(|file| fs::read_to_string(file).context("example"))
        .collect()
}

/// The first code block of the crate docs, as rustdoc would compile it.
fn documented_example(source: &str) -> Option<String> {
    let docs = source.lines().filter_map(|line| line.strip_prefix("//!"));
    let mut docs = docs.map(|line| line.strip_prefix(' ').unwrap_or(line));
    loop {
        let fence = docs.find(|line| line.starts_with("```"))?;
        if matches!(fence.trim(), "```" | "```rust" | "```no_run") {
            break;
        }
        // Another language's block, to its end.
        docs.find(|line| line.trim() == "```")?;
    }
    let block: Vec<_> = docs
        .take_while(|line| line.trim() != "```")
        .map(|line| {
            line.strip_prefix("# ")
                .unwrap_or(if line == "#" { "" } else { line })
        })
        .collect();
    let code = block.join("\n");
    match code.as_str() {
        "" => None,
        whole if whole.contains("fn main(") => Some(code),
        // As rustdoc does with an example that ends in a typed `Ok`.
        fallible if fallible.trim_end().ends_with("(())") => Some(format!(
            "fn main() {{\nfn example() -> Result<(), impl std::fmt::Debug> {{\n{fallible}\n}}\n\
             example().unwrap()\n}}\n"
        )),
        _ => Some(format!("fn main() {{\n{code}\n}}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_wrapped_as_rustdoc_does() {
        let source =
            "//! Text\n//!\n//! ```\n//! # use a::B;\n//! B::new();\n//! ```\nfn code() {}\n";
        let program = documented_example(source).unwrap();
        assert_eq!(program, "fn main() {\nuse a::B;\nB::new();\n}\n");
    }

    #[test]
    fn an_example_that_may_fail_gets_a_result() {
        let source = "//! ```\n//! f()?;\n//! # Ok::<(), E>(())\n//! ```\n";
        let program = documented_example(source).unwrap();
        assert!(
            program.contains("Result<(), impl std::fmt::Debug>"),
            "{program}"
        );
        assert!(program.contains("f()?;\nOk::<(), E>(())"), "{program}");
    }

    #[test]
    fn a_diagram_is_no_example() {
        assert_eq!(
            documented_example("//! ```text\n//! a -> b\n//! ```\n"),
            None
        );
        assert_eq!(documented_example("//! No block.\n"), None);
    }
}

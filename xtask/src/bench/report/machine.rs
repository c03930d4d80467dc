//! What the figures were measured on.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::workspace;

/// The machine, as it was when a run began.
#[derive(Debug)]
pub(super) struct Machine {
    lines: Vec<(&'static str, String)>,
}

impl Machine {
    /// Looks at the machine, and at the file system of `dir`.
    pub(super) fn look(dir: &Path) -> Self {
        let mut machine = Self { lines: Vec::new() };
        machine.add("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
        machine.add("commit", commit());
        machine.add("compiler", compiler());
        machine.add("processor", processor());
        machine.add("memory", memory());
        machine.add("kernel", read("/proc/sys/kernel/osrelease"));
        machine.add("file system", file_system(dir).unwrap_or_default());
        machine.add("dirty limits", dirty_limits());
        machine.add(
            "huge pages",
            chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        );
        machine.add("load before", read("/proc/loadavg"));
        machine
    }

    /// Adds a line; one without a value is left out.
    pub(super) fn add(&mut self, what: &'static str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.lines.push((what, value));
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| machine | |\n|---|---|")?;
        for (what, value) in &self.lines {
            writeln!(f, "| {what} | {} |", value.replace('|', "\\|"))?;
        }
        Ok(())
    }
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

/// What a program prints; nothing if there is no such program.
fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.current_dir(workspace::root()).args(arguments);
    let output = workspace::output(&mut command).unwrap_or_default();
    output.trim().to_owned()
}

fn commit() -> String {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    match output("git", &["status", "--porcelain"]).is_empty() {
        true => commit,
        false => format!("{commit}, and changes that are not committed"),
    }
}

fn compiler() -> String {
    let version = output("rustc", &["--version"]);
    let profile = if cfg!(debug_assertions) {
        "debug build: the figures mean nothing"
    } else {
        "release build"
    };
    format!("{version}, {profile}")
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| {
        model.trim_start_matches([' ', '\t', ':'])
    });
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {count} usable")
}

fn memory() -> String {
    let text = read("/proc/meminfo");
    let kib = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let gib = |name| kib(name).unwrap_or_default() / f64::from(1 << 20);
    format!(
        "{:.1} GiB, {:.1} GiB available",
        gib("MemTotal:"),
        gib("MemAvailable:")
    )
}

/// Type, device, options and read-ahead of the file system that holds `dir`.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = read("/proc/self/mountinfo");
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        // The last of those mounted over one place is the one seen.
        .filter(|fields| fields.get(4).is_some_and(|place| dir.starts_with(place)))
        .max_by_key(|fields| fields[4].len())?;
    let (device, options) = (mount.get(2)?, mount.get(5)?);
    // Optional fields come in between, up to a dash.
    let behind = mount.iter().position(|field| *field == "-")?;
    let (kind, source) = (mount.get(behind + 1)?, mount.get(behind + 2)?);
    let of_kind = mount.get(behind + 3)?;
    let read_ahead = read(&format!("/sys/class/bdi/{device}/read_ahead_kb"));
    let read_ahead = match read_ahead.as_str() {
        "" => String::new(),
        kib => format!(", read-ahead {kib} KiB"),
    };
    Some(format!(
        "{kind} on {source} ({options}; {of_kind}){read_ahead}"
    ))
}

fn dirty_limits() -> String {
    let limit = |name: &str| {
        let bytes = read(&format!("/proc/sys/vm/{name}_bytes"));
        match bytes.as_str() {
            "0" | "" => format!("{} %", read(&format!("/proc/sys/vm/{name}_ratio"))),
            _ => format!("{bytes} B"),
        }
    };
    format!(
        "writers wait from {} of memory on, writing back begins at {}",
        limit("dirty"),
        limit("dirty_background")
    )
}

/// The word in brackets.
fn chosen(path: &str) -> String {
    let text = read(path);
    let word = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    word.map_or(String::new(), |(word, _)| word.to_owned())
}

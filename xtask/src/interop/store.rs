//! One directory, two implementations: what the broker under test wrote and serves, Java's store
//! opens and answers alike; what Java's store appends, the broker serves; what our broker recovers
//! from damage, Java's broker serves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use message::{Parsed, RecordView};

use super::cluster::{Cluster, Plan};
use super::driver::Driver;
use super::java;
use crate::process::Guarded;
use crate::test::{Implementation, Options};

/// How many messages Java's store appends.
const APPENDED_COUNT: usize = 300;
/// How long Java's store may take over the directory.
const TOOL_LIMIT: Duration = Duration::from_secs(120);
/// How far RocketMQ's recovery goes back behind the checkpoint's time.
const CHECKPOINT_MARGIN_MS: i64 = 3_000;
/// How many differing lines a failure shows of each dump.
const SHOWN_COUNT: usize = 5;

/// Everything that a source answered about a store, one JSON line an answer.
struct Dump {
    name: &'static str,
    lines: BTreeSet<String>,
}

/// Writes, stops, lets Java open and append, reads again; then the same after a kill, and after
/// damage that ours recovers from.
pub(super) fn suite(options: &Options) -> Result<()> {
    let mut cluster = Cluster::start(Plan::alone(options.server), options.keep)?;
    let served = serve(&mut cluster, options, &["--fill", "First"], "served")?;
    cluster.stop_broker()?;
    open(&cluster, 0, "opened by Java")?.compare(&served)?;

    let appended = open(&cluster, APPENDED_COUNT, "appended to by Java")?;
    let grown = appended.lines.len() - served.lines.intersection(&appended.lines).count();
    ensure!(
        grown >= APPENDED_COUNT,
        "only {grown} lines differ after {APPENDED_COUNT} appends"
    );
    cluster.restart_broker()?;
    serve(&mut cluster, options, &[], "reopened")?.compare(&appended)?;

    let served = serve(
        &mut cluster,
        options,
        &["--fill", "Second"],
        "served before the kill",
    )?;
    cluster.kill_broker()?;
    let recovered = open(&cluster, 0, "recovered by Java")?;
    // Java's store drops index entries when it recovers from a kill.
    recovered
        .without(&["query"])
        .compare(&served.without(&["query"]))?;
    cluster.restart_broker()?;
    let reopened = serve(&mut cluster, options, &[], "reopened after Java's recovery")?;
    reopened
        .without(&["query"])
        .compare(&recovered.without(&["query"]))?;
    if options.server == Implementation::Ours {
        damaged(&mut cluster, options, &reopened)?;
    }
    Ok(())
}

/// One record in the middle of the log is damaged while no broker runs: ours goes on without it,
/// and so does Java's broker on what ours has made of the store.
fn damaged(cluster: &mut Cluster, options: &Options, before: &Dump) -> Result<()> {
    cluster.kill_broker()?;
    let offset = damage_record(&cluster.store_dir())?;
    cluster.restart_broker()?;
    let recovered = serve(cluster, options, &[], "recovered from damage")?;
    let lost: Vec<_> = before
        .without(&["search", "query"])
        .lines
        .difference(&recovered.lines)
        .cloned()
        .collect();
    let place = format!("\"physicalOffset\":{offset},");
    ensure!(
        matches!(&lost[..], [one] if one.contains(&place)),
        "not the message at {offset} alone is lost, but {} lines differ",
        lost.len()
    );
    // A time search that hits the place of the lost message answers for its neighbour.
    cluster.switch_broker(Implementation::Java)?;
    serve(cluster, options, &[], "damaged, served by Java's broker")?
        .without(&["search"])
        .compare(&recovered.without(&["search"]))?;
    cluster.crash_broker()?;
    serve(cluster, options, &[], "killed, served by Java's broker")?
        .without(&["search", "query"])
        .compare(&recovered.without(&["search", "query"]))
}

/// Flips a bit in the body of a record that has a successor in its queue. Returns its offset in
/// the log.
fn damage_record(store: &Path) -> Result<u64> {
    let mut segments: Vec<_> = fs::read_dir(store.join("commitlog"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    segments.sort();
    for path in segments.iter().rev() {
        let mut bytes = fs::read(path)?;
        let Some(victim) = Victim::find(&bytes) else {
            continue;
        };
        // The body begins after 88 bytes.
        *bytes.get_mut(victim.position + 88).context("a body")? ^= 1;
        fs::write(path, bytes)?;
        // Without the first file the broker goes by the second, as after a Java broker: what was
        // stored up to the victim's successor is synced, and later segments may not be.
        fs::remove_file(store.join("foliomq/state")).context("foliomq/state")?;
        let checkpoint = fs::File::options()
            .write(true)
            .open(store.join("checkpoint"))?;
        let synced_ms = victim.next_stored_ms + CHECKPOINT_MARGIN_MS + 1;
        checkpoint.write_all_at(&[synced_ms.to_be_bytes(); 2].concat(), 0)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let base: u64 = name.context("a segment")?.parse()?;
        return Ok(base + victim.position as u64);
    }
    bail!("no record to damage")
}

/// The record that is damaged.
struct Victim {
    /// Where it begins in its segment.
    position: usize,
    /// When the record behind it was stored.
    next_stored_ms: i64,
}

impl Victim {
    /// The first record of a segment that is not the last of its queue there.
    fn find(segment: &[u8]) -> Option<Self> {
        let mut records = Vec::new();
        let mut position = 0;
        while let Ok(Parsed::Record(view)) = RecordView::parse(segment.get(position..)?) {
            let queue = (view.topic().to_owned(), view.queue_id());
            records.push((queue, position, view.store_timestamp_ms()));
            position += view.total_size();
        }
        let mut rest = &records[..];
        while let [(queue, position, _), behind @ ..] = rest {
            let next = behind.first()?;
            if queue.0.ends_with("Plain") && behind.iter().any(|(other, ..)| other == queue) {
                return Some(Self {
                    position: *position,
                    next_stored_ms: next.2,
                });
            }
            rest = behind;
        }
        None
    }
}

impl Dump {
    fn read(name: &'static str, file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("dump {name}"))?;
        let lines: BTreeSet<_> = text.lines().map(str::to_owned).collect();
        let count = |kind: &str| {
            let field = format!("\"kind\":\"{kind}\"");
            lines.iter().filter(|line| line.contains(&field)).count()
        };
        println!(
            "   {name}: {} queues, {} messages, {} searches, {} queries",
            count("queue"),
            count("message"),
            count("search"),
            count("query"),
        );
        ensure!(count("message") > 0, "dump {name} holds no message");
        Ok(Self { name, lines })
    }

    /// The answers but for those of some kinds.
    fn without(&self, kinds: &[&str]) -> Self {
        let fields: Vec<_> = kinds
            .iter()
            .map(|kind| format!("\"kind\":\"{kind}\""))
            .collect();
        let is_kept = |line: &&String| !fields.iter().any(|field| line.contains(field));
        Self {
            name: self.name,
            lines: self.lines.iter().filter(is_kept).cloned().collect(),
        }
    }

    fn compare(&self, other: &Self) -> Result<()> {
        let only = |one: &Self, another: &Self| -> String {
            let lines: Vec<_> = one.lines.difference(&another.lines).collect();
            let shown: String = lines
                .iter()
                .take(SHOWN_COUNT)
                .map(|line| format!("\n     {line}"))
                .collect();
            format!("{} lines only in `{}`:{shown}\n", lines.len(), one.name)
        };
        if self.lines != other.lines {
            bail!(
                "the dumps differ\n   {}   {}",
                only(self, other),
                only(other, self)
            );
        }
        Ok(())
    }
}

/// What the running broker serves, after it was filled with more.
fn serve(
    cluster: &mut Cluster,
    options: &Options,
    arguments: &[&str],
    name: &'static str,
) -> Result<Dump> {
    let file = dump_file(cluster, name);
    let mut command = java::command("foliomq.interop.StoreDriver", "512m", cluster.dir())?;
    command.args(arguments).arg("--dump").arg(&file);
    Driver::new("store", command).run(cluster, options)?;
    Dump::read(name, &file)
}

/// What Java's store answers on the directory, after it appended some messages itself.
fn open(cluster: &Cluster, append_count: usize, name: &'static str) -> Result<Dump> {
    let file = dump_file(cluster, name);
    let mut command = java::command("foliomq.interop.StoreTool", "512m", cluster.dir())?;
    command
        .arg("--conf")
        .arg(cluster.broker_conf())
        .arg("--dump")
        .arg(&file);
    command.args([
        "--topic",
        "FirstBatch",
        "--append",
        &append_count.to_string(),
    ]);
    let log = cluster.dir().join("store-tool.log");
    let output = fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .context("log")?;
    command
        .stdout(output.try_clone().context("log")?)
        .stderr(output);
    let status = Guarded::spawn(&mut command, "StoreTool")?.wait(TOOL_LIMIT)?;
    ensure!(
        status.success(),
        "StoreTool: {status}\n{}",
        crate::process::tail(&log)
    );
    Dump::read(name, &file)
}

fn dump_file(cluster: &Cluster, name: &str) -> PathBuf {
    cluster
        .dir()
        .join(format!("{}.jsonl", name.replace(' ', "-")))
}

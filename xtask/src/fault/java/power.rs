//! Both stores in `SYNC_FLUSH` on a disk that forgets, at a power cut, what was not synced.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mmap_core::Random;
use serde::{Deserialize, Serialize};

use super::scenario::puts;
use super::script::{Answer, Place, Shape, Step};
use super::verdict::{Expected, Verdict};
use super::{lines, ours, run_script};
use crate::fault::fusefs::{Disk, Errno, Operation, Rule, Settings, Volume};
use crate::fault::namespace::BootId;
use crate::process::{self, Guarded};

/// Power cuts that are tried until Java's store has lost something.
const CUT_COUNT_MAX: u64 = 8;
/// How long our store may take for its steps.
const STEPS_LIMIT: Duration = Duration::from_secs(60);

const DEVICE: Settings = Settings {
    capacity: 256 << 20,
    sync_time_max: Duration::ZERO,
};

/// What happens to a store.
struct Scenario {
    name: &'static str,
    /// For the table.
    what: &'static str,
    /// The operation that fails.
    rule: Option<Rule>,
}

fn scenarios() -> Vec<Scenario> {
    let mut rule = Rule::fail(Operation::Sync, "/commitlog/", Errno::EIO);
    rule.spared = 30;
    vec![
        Scenario {
            name: "power-cut",
            what: "80 messages are put, then the power is cut",
            rule: None,
        },
        Scenario {
            name: "failed-syncs",
            what: "80 messages are put, but the disk fails every sync of the log after a while; \
                   then the power is cut",
            rule: Some(rule),
        },
    ]
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    name: &'static str,
    what: &'static str,
    acknowledged: (usize, usize),
    java: Verdict,
    ours: Verdict,
}

impl Row {
    /// Why the run has failed, if it has.
    pub(super) fn fault(&self) -> Option<String> {
        if self.ours.is_loss() {
            return Some(format!("{}: ours {}", self.name, self.ours));
        }
        (!self.java.is_loss()).then(|| format!("{}: Java's loses nothing any more", self.name))
    }
}

/// How many of the scenarios are chosen.
pub(super) fn count(chosen: &dyn Fn(&str) -> bool) -> usize {
    let all = scenarios();
    all.iter().filter(|scenario| chosen(scenario.name)).count()
}

/// Runs the scenarios that are chosen.
pub(super) fn rows(work: &Path, chosen: &dyn Fn(&str) -> bool) -> Result<Vec<Row>> {
    let boot_id = BootId::replace(work, &mut Random::new(0))?;
    let mut rows = Vec::new();
    for scenario in scenarios() {
        if chosen(scenario.name) {
            rows.push(row(&work.join(scenario.name), &scenario, &boot_id)?);
        }
    }
    Ok(rows)
}

fn row(dir: &Path, scenario: &Scenario, boot_id: &BootId) -> Result<Row> {
    let Scenario { name, what, rule } = scenario;
    let rule = rule.as_ref();
    let mut cuts = 0;
    loop {
        cuts += 1;
        let mut random = Random::new(cuts);
        let dir = dir.join(cuts.to_string());
        let java = life(&dir.join("java"), random.fork(), rule, boot_id, &by_java)?;
        let ours = life(&dir.join("ours"), random.fork(), rule, boot_id, &by_ours)?;
        if java.1.is_loss() || ours.1.is_loss() || cuts == CUT_COUNT_MAX {
            return Ok(Row {
                name,
                what,
                acknowledged: (java.0, ours.0),
                java: java.1,
                ours: ours.1,
            });
        }
    }
}

/// Who takes the steps: a process that dies in the end.
type Steps<'a> = &'a dyn Fn(&Path, &Place, &[Step]) -> Result<Vec<Answer>>;

/// Writes, cuts the power, and looks what is left; returns how many messages were acknowledged.
fn life(
    dir: &Path,
    mut random: Random,
    rule: Option<&Rule>,
    boot_id: &BootId,
    steps: Steps<'_>,
) -> Result<(usize, Verdict)> {
    let disk = Disk::mount(Volume::new(DEVICE, random.fork()), &dir.join("disk"))?;
    let place = Place {
        name: "power".to_owned(),
        dir: dir.join("disk"),
        shape: Shape {
            is_sync: true,
            ..Shape::SMALL
        },
    };
    fs::write(place.conf(), place.shape.conf(&place.store()))?;
    let begun = [puts(0, 0..10), vec![Step::Close]].concat();
    let mut answers = steps(dir, &place, &begun)?;
    // The store that is there is durable with all its names; what comes now is in its own hands.
    sync_all(&place.dir)?;
    if let Some(rule) = rule {
        disk.volume().arm(rule.clone());
    }
    answers.extend(steps(dir, &place, &puts(0, 10..80))?);
    let (image, damage) = disk.volume().cut(random.fork());
    println!("     {}: {damage:?}", dir.display());
    disk.unmount()?;
    boot_id.renew(&mut random)?;

    let expected: Vec<_> = super::puts(&answers)
        .iter()
        .filter_map(Expected::of)
        .collect();
    let keys: BTreeSet<_> = expected.iter().flat_map(|one| &one.keys).cloned().collect();
    let mut questions = vec![Step::Dump];
    questions.extend(keys.into_iter().map(|key| Step::Find {
        topic: "Losses".to_owned(),
        key,
    }));
    let volume = Volume::of_image(&image, DEVICE, random.fork());
    let disk = Disk::mount(volume, &dir.join("disk"))?;
    let answers = steps(dir, &place, &questions)?;
    disk.unmount()?;
    // An unacknowledged message may be there or not.
    let verdict = Verdict::of(&expected, &answers).without_returned();
    Ok((expected.len(), verdict))
}

/// Syncs every file and directory.
fn sync_all(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(&path)?.sync_all().context("sync")?;
        }
    }
    File::open(dir)?.sync_all().context("sync of a directory")
}

fn by_java(dir: &Path, place: &Place, steps: &[Step]) -> Result<Vec<Answer>> {
    let text = lines(&[(place.clone(), steps.to_vec())]);
    let answers = run_script(dir, "script", &text)?;
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// Our store is in a process of its own: this one serves the disk.
fn by_ours(dir: &Path, place: &Place, steps: &[Step]) -> Result<Vec<Answer>> {
    let file = dir.join("steps.json");
    let task = Task {
        place: place.clone(),
        steps: steps.to_vec(),
        answers: dir.join("answers.json"),
    };
    fs::write(&file, serde_json::to_vec(&task)?)?;
    let mut command = process::command(std::env::current_exe().context("path of this program")?);
    command.args(["fault", "java", "--steps"]).arg(&file);
    let status = Guarded::spawn(&mut command, "our store")?.wait(STEPS_LIMIT)?;
    ensure!(status.success(), "our store: {status}");
    Ok(serde_json::from_slice(&fs::read(&task.answers)?)?)
}

/// What the process with our store is told.
#[derive(Debug, Deserialize, Serialize)]
struct Task {
    place: Place,
    steps: Vec<Step>,
    /// Where its answers go.
    answers: PathBuf,
}

/// That process.
pub(super) fn take_steps(file: &Path) -> Result<()> {
    let task: Task = serde_json::from_slice(&fs::read(file)?)?;
    let answers = ours::run(&task.place, &task.steps)?;
    fs::write(&task.answers, serde_json::to_vec(&answers)?).context("answers")
}

/// The table of these rows.
pub(super) fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!("| scenario | what happens | Java 5.3.3 | FolioMQ |\n|---|---|---|---|");
    for row in rows {
        let (by_java, by_ours) = row.acknowledged;
        println!(
            "| {} | {} | acknowledges {by_java}, {} | acknowledges {by_ours}, {} |",
            row.name, row.what, row.java, row.ours
        );
    }
    println!();
}

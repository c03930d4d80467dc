//! `cargo xtask fault java`: Java's store and ours, side by side.
//!
//! RocketMQ 5.3.3's own store, from its published artifacts, writes messages and is closed or
//! dies; its files are damaged, or not; then it and ours open copies of the same directory. What
//! each of them acknowledged, and what it serves in the end, gives a row of a table. In further
//! rows each writes on a disk that forgets what was not synced. The run fails if ours loses
//! anything, and if Java's does not lose what the table says it loses.

mod golden;
mod ours;
mod power;
mod scenario;
mod script;
mod verdict;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{fusefs, namespace, run_apart};
use crate::interop::java;
use crate::process::{Guarded, tail};
use crate::test::{CannotRun, Options, Suite};
use scenario::{Scenario, Target};
use script::{Answer, Place, Put, Shape, Step};
use verdict::{Expected, Verdict};

/// How long the Java program may take for a script.
const JAVA_LIMIT: Duration = Duration::from_secs(180);

/// What `cargo xtask fault java` takes.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// Runs only the scenarios whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Keeps the stores and prints where they are.
    #[arg(long)]
    keep: bool,
    /// Takes our store through a file of steps: what the suite starts as a process of its own.
    #[arg(long, hide = true, value_name = "FILE")]
    steps: Option<PathBuf>,
}

/// The suite of `cargo xtask test`.
pub fn suite() -> Suite {
    Suite {
        name: "java-losses",
        about: "RocketMQ's store and ours on the same damage: what each of them loses",
        budget: Duration::from_secs(100),
        needs: &["java", "mvn"],
        run: |options: &Options| {
            let mut arguments = vec!["java"];
            arguments.extend(options.only.iter().flat_map(|only| ["--only", only]));
            arguments.extend(options.keep.then_some("--keep"));
            run_apart(&arguments, SUITE_LIMIT)
        },
    }
}

/// A suite that takes this long hangs.
const SUITE_LIMIT: Duration = Duration::from_secs(400);

/// One line of the table.
struct Row {
    name: String,
    what: &'static str,
    verdicts: Verdicts,
    /// Why the run has failed, if it has.
    fault: Option<String>,
}

/// How a scenario came out.
struct Verdicts {
    java: Verdict,
    ours: Verdict,
    /// Java's store on what ours recovered and closed.
    handed_back: Verdict,
    /// The same once more, after it was killed on it.
    killed_on: Verdict,
}

impl Verdicts {
    /// Why the run has failed: what ours has lost, or made Java's lose.
    fn fault(&self, ours_loses: bool) -> Option<String> {
        let Self {
            java,
            ours,
            handed_back,
            killed_on,
        } = self;
        if ours_loses {
            Some(format!("ours {ours}, Java's {java}"))
        } else if !handed_back.is_at_least(ours) || !killed_on.is_at_least(&ours.without_keys()) {
            Some(format!(
                "Java's store on what ours recovered {handed_back}, then {killed_on}"
            ))
        } else {
            None
        }
    }
}

/// Runs the scenarios and prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.steps {
        return power::take_steps(file);
    }
    let missing = fusefs::missing();
    match &missing {
        Some(why) => println!("!! {why}: the rows with power cuts are left out"),
        None => namespace::enter()?,
    }
    let work = tempfile::Builder::new().prefix("foliomq-java-").tempdir()?;
    let chosen = |name: &str| {
        arguments
            .only
            .as_ref()
            .is_none_or(|only| name.contains(only))
    };
    let scenarios: Vec<_> = scenario::all()
        .into_iter()
        .filter(|one| chosen(one.name))
        .collect();
    let mut rows = losses(work.path(), &scenarios)?;
    let variants: Vec<_> = golden::VARIANTS
        .into_iter()
        .filter(|(name, _)| chosen(name))
        .collect();
    rows.extend(damages(work.path(), &variants)?);
    let power_rows = match &missing {
        Some(_) => Vec::new(),
        None => power::rows(work.path(), &chosen)?,
    };
    if arguments.keep {
        println!("   kept: {}", work.keep().display());
    }
    print(&rows);
    power::print(&power_rows);
    let faults: Vec<_> = rows
        .iter()
        .filter_map(|row| Some(format!("{}: {}", row.name, row.fault.as_ref()?)))
        .chain(power_rows.iter().filter_map(power::Row::fault))
        .collect();
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    close(
        rows.len() + power_rows.len(),
        missing,
        power::count(&chosen),
    )
}

/// Says how many rows there are, and how many are left out because of what is missing.
fn close(compared: usize, missing: Option<String>, power_count: usize) -> Result<()> {
    match missing {
        Some(why) if power_count > 0 => {
            println!("{compared} rows compared, {power_count} with power cuts SKIPPED: {why}");
            if compared == 0 {
                return Err(CannotRun(why).into());
            }
        }
        _ => {
            ensure!(compared > 0, "no scenario has such a name");
            println!("{compared} rows compared, 0 skipped");
        }
    }
    Ok(())
}

/// The scenarios that begin with a store which Java's writes.
fn losses(work: &Path, scenarios: &[Scenario]) -> Result<Vec<Row>> {
    let mut jobs = Vec::new();
    for scenario in scenarios {
        let place = place(work, scenario.name, "java", scenario.shape())?;
        jobs.push((place, scenario.write.clone()));
    }
    let written = run_java(work, "write", &jobs)?;
    let mut runs = Vec::new();
    for (scenario, (java, _)) in scenarios.iter().zip(jobs) {
        let puts: Vec<Put> = puts(&written[&java.name]);
        let target = Target {
            place: &java,
            puts: &puts,
        };
        let gone = (scenario.damage)(&target).with_context(|| scenario.name.to_owned())?;
        let kept = puts
            .iter()
            .filter(|put| !gone.contains(&put.offset))
            .filter_map(Expected::of);
        let ours = place(work, scenario.name, "ours", scenario.shape())?;
        copy(&java.store(), &ours.store())?;
        runs.push(Run {
            java,
            ours,
            expected: kept.collect(),
            parts: scenario.then.clone(),
            questions: Vec::new(),
        });
    }
    let verdicts = judge(work, runs)?;
    let rows = scenarios.iter().zip(verdicts).map(|(scenario, verdicts)| {
        let is_outdated = scenario.java_loses && !verdicts.java.is_loss();
        Row {
            name: scenario.name.to_owned(),
            what: scenario.what,
            fault: verdicts
                .fault(verdicts.ours.is_loss())
                .or_else(|| is_outdated.then(|| "Java's loses nothing any more".to_owned())),
            verdicts,
        }
    });
    Ok(rows.collect())
}

/// The damaged copies of a store that a Java broker left when it was killed under load.
fn damages(work: &Path, variants: &[(&'static str, &'static str)]) -> Result<Vec<Row>> {
    let expected = golden::expected()?;
    let mut runs = Vec::new();
    for (name, _) in variants {
        let java = place(work, name, "java", Shape::GOLDEN)?;
        let ours = place(work, name, "ours", Shape::GOLDEN)?;
        golden::prepare(&java, name)?;
        golden::prepare(&ours, name)?;
        runs.push(Run {
            java,
            ours,
            expected: expected
                .iter()
                .filter(|message| !golden::is_gone(name, message.offset))
                .cloned()
                .collect(),
            parts: vec![vec![]],
            questions: Vec::new(),
        });
    }
    let verdicts = judge(work, runs)?;
    let rows = variants
        .iter()
        .zip(verdicts)
        .map(|((name, what), verdicts)| {
            let is_worse = !verdicts.ours.is_at_least(&verdicts.java);
            Row {
                name: format!("killed/{name}"),
                what,
                fault: verdicts.fault(is_worse),
                verdicts,
            }
        });
    Ok(rows.collect())
}

/// A damaged store in two copies, and what both are told.
struct Run {
    java: Place,
    ours: Place,
    expected: Vec<Expected>,
    parts: Vec<Vec<Step>>,
    /// What is asked in the end.
    questions: Vec<Step>,
}

/// Takes both copies of each store through its parts, then lets Java's open the one that ours
/// recovered.
fn judge(work: &Path, mut runs: Vec<Run>) -> Result<Vec<Verdicts>> {
    for run in &mut runs {
        let mut questions = vec![Step::Dump];
        questions.extend(lookups(run));
        let last = run.parts.last_mut().context("a scenario has parts")?;
        last.extend(questions.clone());
        run.questions = questions;
    }
    let mut sides: Vec<_> = runs
        .iter()
        .map(|run| (Side::new(run), Side::new(run)))
        .collect();
    let part_count = runs.iter().map(|run| run.parts.len()).max().unwrap_or(0);
    for part in 0..part_count {
        let jobs: Vec<_> = runs
            .iter()
            .filter_map(|run| Some((run.java.clone(), run.parts.get(part)?.clone())))
            .collect();
        let mut by_java = run_java(work, &format!("part-{part}"), &jobs)?;
        for (run, (java, ours)) in runs.iter().zip(&mut sides) {
            if let Some(steps) = run.parts.get(part) {
                let mut steps = steps.clone();
                if part + 1 == run.parts.len() {
                    steps.push(Step::Close);
                }
                java.take(by_java.remove(&run.java.name).unwrap_or_default());
                ours.take(ours::run(&run.ours, &steps).with_context(|| run.ours.name.clone())?);
            }
        }
    }
    let recovered: Vec<_> = runs
        .iter()
        .map(|run| (run.ours.clone(), run.questions.clone()))
        .collect();
    let mut handed_back = run_java(work, "handed-back", &recovered)?;
    let mut killed_on = run_java(work, "killed-on", &recovered)?;
    let verdicts = runs.iter().zip(&sides).map(|(run, (java, ours))| {
        let on_ours = |answers: &mut HashMap<String, Vec<Answer>>| {
            let answers = answers.remove(&run.ours.name).unwrap_or_default();
            Verdict::of(&ours.expected, &answers)
        };
        Verdicts {
            java: Verdict::of(&java.expected, &java.answers),
            ours: Verdict::of(&ours.expected, &ours.answers),
            handed_back: on_ours(&mut handed_back),
            killed_on: on_ours(&mut killed_on).without_keys(),
        }
    });
    Ok(verdicts.collect())
}

/// What one implementation has acknowledged, and what it answered last.
struct Side {
    expected: Vec<Expected>,
    answers: Vec<Answer>,
}

impl Side {
    fn new(run: &Run) -> Self {
        Self {
            expected: run.expected.clone(),
            answers: Vec::new(),
        }
    }

    fn take(&mut self, answers: Vec<Answer>) {
        let acknowledged = puts(&answers);
        self.expected
            .extend(acknowledged.iter().filter_map(Expected::of));
        self.answers = answers;
    }
}

/// A look-up of each key that has a message.
fn lookups(run: &Run) -> Vec<Step> {
    let written = run.expected.iter().flat_map(|message| {
        let keys = message.keys.iter();
        keys.map(|key| (message.topic.clone(), key.clone()))
    });
    let put = run.parts.iter().flatten().filter_map(|step| match step {
        Step::Put { topic, key, .. } => Some((topic.clone(), key.clone())),
        _ => None,
    });
    let mut keys: Vec<_> = written.chain(put).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|(topic, key)| Step::Find { topic, key })
        .collect()
}

fn puts(answers: &[Answer]) -> Vec<Put> {
    let puts = answers.iter().filter_map(|answer| match answer {
        Answer::Put(put) => Some(put.clone()),
        _ => None,
    });
    puts.collect()
}

fn place(work: &Path, name: &str, side: &str, shape: Shape) -> Result<Place> {
    let dir = work.join(name).join(side);
    fs::create_dir_all(&dir)?;
    let place = Place {
        name: name.to_owned(),
        dir,
        shape,
    };
    fs::write(place.conf(), shape.conf(&place.store()))?;
    Ok(place)
}

/// Runs a script on all the stores in one process, which then dies; the answers by store.
fn run_java(
    work: &Path,
    round: &str,
    jobs: &[(Place, Vec<Step>)],
) -> Result<HashMap<String, Vec<Answer>>> {
    let mut by_store: HashMap<String, Vec<Answer>> = jobs
        .iter()
        .map(|(place, _)| (place.name.clone(), Vec::new()))
        .collect();
    for (store, answer) in run_script(work, round, &lines(jobs))? {
        by_store.entry(store).or_default().push(answer);
    }
    Ok(by_store)
}

/// Runs the Java program; its files lie in `work`.
fn run_script(work: &Path, round: &str, text: &str) -> Result<Vec<(String, Answer)>> {
    let file = |ending: &str| work.join(format!("{round}.{ending}"));
    let (script, answers, log) = (file("script"), file("answers"), file("log"));
    fs::write(&script, text)?;
    let mut command = java::command("foliomq.interop.StoreScript", "700m", work)?;
    let output = fs::File::create(&log)?;
    command
        .arg(&script)
        .arg(&answers)
        .stdout(output.try_clone()?)
        .stderr(output);
    let status = Guarded::spawn(&mut command, "StoreScript")?.wait(JAVA_LIMIT)?;
    if !status.success() {
        bail!("StoreScript: {status}\n{}", tail(&log));
    }
    script::read(&answers)
}

/// The script. Stores that pause do so together, before the others are opened.
fn lines(jobs: &[(Place, Vec<Step>)]) -> String {
    let mut text = String::new();
    let pauses = |steps: &[Step]| steps.iter().filter(|step| **step == Step::Pause).count();
    let most = jobs
        .iter()
        .map(|(_, steps)| pauses(steps))
        .max()
        .unwrap_or(0);
    for round in 0..=most {
        for (place, steps) in jobs {
            // The last part of each falls into the last round.
            let Some(part) = (round + pauses(steps)).checked_sub(most) else {
                continue;
            };
            if part == 0 {
                text += &format!("open {} {}\n", place.name, place.conf().display());
            }
            let steps = steps.split(|step| *step == Step::Pause).nth(part);
            for step in steps.unwrap_or_default() {
                text += &script::line(step, place);
                text.push('\n');
            }
        }
        if round < most {
            text += &format!("pause {}\n", script::PAUSE.as_millis());
        }
    }
    text
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The table, as docs/durability.md has it.
fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\n| scenario | what happens | Java 5.3.3 | FolioMQ | Java on what FolioMQ recovered |"
    );
    println!("|---|---|---|---|---|");
    for Row {
        name,
        what,
        verdicts,
        ..
    } in rows
    {
        let Verdicts {
            java,
            ours,
            handed_back,
            ..
        } = verdicts;
        println!("| {name} | {what} | {java} | {ours} | {handed_back} |");
    }
    println!();
}

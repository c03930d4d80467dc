//! Running many seeds: on some threads, with the seed of what fails, and with planted lies.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use mmap_core::Random;
use mmap_core::sabotage::{self, Lie};

/// A seed that runs longer than this hangs.
const SEED_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a long run says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Which seeds to run.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Runs this seed only, what a failure prints, and tells every step.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    pub seed: Option<u64>,
    /// How many seeds are run.
    #[arg(long, default_value_t = 1_000)]
    pub seeds: u64,
    /// The first of them; one that the clock gives when it is left out.
    #[arg(long)]
    pub first: Option<u64>,
    /// On how many threads.
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Plants a lie (`all`: each that the suite can know of, one after the other) and succeeds
    /// only if the suite fails.
    #[arg(long, value_name = "NAME|all")]
    pub sabotage: Option<String>,
}

/// A suite that runs by seeds.
pub struct Seeded {
    /// Its name.
    pub name: &'static str,
    /// What a seed does; an error or a panic is a failure.
    pub run: fn(u64) -> Result<()>,
    /// The lies that it must catch.
    pub reach: &'static [Lie],
}

/// A seed that failed.
#[derive(Debug)]
struct Failed {
    seed: u64,
    why: String,
    /// How many seeds had passed before it.
    passed: u64,
}

impl Seeded {
    /// Runs it as the command line says.
    pub fn run_arguments(&self, arguments: &Arguments) -> Result<()> {
        record_panics();
        TELLS.store(arguments.seed.is_some(), Ordering::Relaxed);
        match &arguments.sabotage {
            None => self.run_seeds(arguments),
            Some(name) if name == "all" => self.sabotage(arguments, self.reach),
            Some(name) => self.sabotage(arguments, &[name.parse()?]),
        }
    }

    fn run_seeds(&self, arguments: &Arguments) -> Result<()> {
        let started = Instant::now();
        let (first, count) = range(arguments);
        println!("{}: {count} seeds from {first}", self.name);
        if let Some(failed) = self.first_failure(first, count, arguments.jobs)? {
            bail!(
                "{}\nrun it again: cargo xtask fault {} --seed {}",
                failed.why,
                self.name,
                failed.seed
            );
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{}: {count} seeds passed in {seconds:.1} s, {:.0} a second",
            self.name,
            count as f64 / seconds
        );
        Ok(())
    }

    /// Runs the seeds once for each lie; an error if one is not caught, or if they fail without a
    /// lie: then they would catch nothing.
    fn sabotage(&self, arguments: &Arguments, lies: &[Lie]) -> Result<()> {
        let (first, count) = range(arguments);
        if let Some(failed) = self.first_failure(first, count, arguments.jobs)? {
            bail!(
                "the suite fails without a lie, by seed {}: {}",
                failed.seed,
                failed.why
            );
        }
        println!("{count} seeds from {first} pass without a lie");
        let mut missed = Vec::new();
        for &lie in lies {
            let _planted = sabotage::plant(lie);
            match self.first_failure(first, count, arguments.jobs)? {
                Some(failed) => println!(
                    "{lie}: caught after {} seeds (seed {}): {}",
                    failed.passed,
                    failed.seed,
                    failed.why.lines().next().unwrap_or_default()
                ),
                None => {
                    println!("{lie}: NOT CAUGHT by {count} seeds from {first}");
                    missed.push(lie.name());
                }
            }
        }
        if missed.is_empty() {
            return Ok(());
        }
        bail!("{} does not notice {}", self.name, missed.join(", "))
    }

    /// Runs seeds until one fails; the one that failed. An error if one hangs.
    fn first_failure(&self, first: u64, count: u64, jobs: usize) -> Result<Option<Failed>> {
        let next = AtomicU64::new(0);
        let passed = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let running = Mutex::new(BTreeMap::new());
        let (sender, failures) = channel();
        let started = Instant::now();
        let hung = std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                let (sender, next, passed, stop) = (sender.clone(), &next, &passed, &stop);
                let running = &running;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            break;
                        }
                        let seed = first.wrapping_add(index);
                        lock(running).insert(seed, Instant::now());
                        let outcome = catch(|| (self.run)(seed));
                        lock(running).remove(&seed);
                        match outcome {
                            Ok(()) => passed.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                stop.store(true, Ordering::Relaxed);
                                // Nobody listens any more if another one has failed.
                                let _ = sender.send((seed, format!("{error:#}")));
                                break;
                            }
                        };
                    }
                });
            }
            drop(sender);
            watch(&failures, &running, &passed, count, started)
        });
        let passed = passed.into_inner();
        Ok(hung.map(|(seed, why)| Failed { seed, why, passed }))
    }
}

/// Waits for the first failure or the end; ends the process if a seed hangs, because its thread
/// cannot be.
fn watch(
    failures: &std::sync::mpsc::Receiver<(u64, String)>,
    running: &Mutex<BTreeMap<u64, Instant>>,
    passed: &AtomicU64,
    count: u64,
    started: Instant,
) -> Option<(u64, String)> {
    let mut reported = Instant::now();
    loop {
        match failures.recv_timeout(Duration::from_millis(500)) {
            Ok(failed) => return Some(failed),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let hung = lock(running)
            .iter()
            .find(|(_, since)| since.elapsed() > SEED_TIME_MAX)
            .map(|(seed, _)| *seed);
        if let Some(seed) = hung {
            eprintln!("error: seed {seed} hangs");
            std::process::exit(1);
        }
        if reported.elapsed() > REPORT_INTERVAL {
            reported = Instant::now();
            let passed = passed.load(Ordering::Relaxed);
            let rate = passed as f64 / started.elapsed().as_secs_f64();
            println!("{passed} of {count} seeds passed, {rate:.0} a second");
        }
    }
}

fn range(arguments: &Arguments) -> (u64, u64) {
    match arguments.seed {
        Some(seed) => (seed, 1),
        None => (
            arguments.first.unwrap_or_else(Random::fresh_seed),
            arguments.seeds,
        ),
    }
}

/// Whether steps are told.
static TELLS: AtomicBool = AtomicBool::new(false);

/// Prints a step of the one seed that is run.
pub fn tell(step: impl FnOnce() -> String) {
    if TELLS.load(Ordering::Relaxed) {
        println!("  {}", step());
    }
}

thread_local! {
    /// Where and why this thread has panicked last.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the text of a panic for [`catch`], instead of printing it.
fn record_panics() {
    std::panic::set_hook(Box::new(|info| {
        let trace = std::backtrace::Backtrace::capture();
        PANIC.with_borrow_mut(|text| *text = Some(format!("{info}\n{trace}")));
    }));
}

/// A panic as an error.
fn catch(run: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(panicked(&*payload)))
}

fn panicked(payload: &(dyn Any + Send)) -> anyhow::Error {
    if let Some(text) = PANIC.take() {
        return anyhow!("panic: {text}");
    }
    let text = payload.downcast_ref::<&str>().copied();
    anyhow!("panic: {}", text.unwrap_or("without a text"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

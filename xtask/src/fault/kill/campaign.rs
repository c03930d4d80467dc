//! A run: store after store, until the broker was killed often enough.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mmap_core::Random;

use super::Mode;
use super::fate::Fate;
use super::store::{Figures, Store};

/// Lives of one store: its history is checked from the beginning at the end of each.
const LIVES_PER_STORE: u64 = 40;

/// The modes of one store after the other.
const MODES: [Mode; 3] = [Mode::Async, Mode::Sync, Mode::Staged];

/// What is to be done.
#[derive(Debug)]
pub struct Campaign {
    /// The broker.
    pub binary: PathBuf,
    /// Where the stores lie.
    pub dir: PathBuf,
    /// Where the choices come from.
    pub seed: u64,
    /// How often it is killed.
    pub kills: u64,
    /// When a send is acknowledged; by turns, unless it is given.
    pub mode: Option<Mode>,
    /// Kills before file operations instead of at random times.
    pub failpoints: bool,
    /// No new life begins after this time.
    pub time_max: Duration,
    /// A lie that the broker is told to plant.
    pub sabotage: Option<String>,
    /// Leaves the store of a failure.
    pub keep: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Totals {
    stores: u64,
    figures: Figures,
    elapsed: Duration,
}

impl Campaign {
    /// Runs it.
    pub fn run(&self) -> Result<Totals> {
        let begun = Instant::now();
        let mut random = Random::new(self.seed);
        let mut totals = Totals::default();
        while totals.kills() < self.kills && begun.elapsed() < self.time_max {
            let turn = (totals.stores % MODES.len() as u64) as usize;
            let mode = self.mode.unwrap_or(MODES[turn]);
            let store = Store::new(
                &self.binary,
                &self.dir,
                mode,
                self.sabotage.clone(),
                random.fork(),
            )?;
            let figures = self.run_store(store, &mut random, begun, totals.kills(), mode)?;
            totals.add(figures);
            totals.elapsed = begun.elapsed();
            println!(
                "{} kills, {} messages, {:.1} s",
                totals.kills(),
                totals.figures.messages,
                totals.elapsed.as_secs_f64()
            );
        }
        Ok(totals)
    }

    fn run_store(
        &self,
        mut store: Store,
        random: &mut Random,
        begun: Instant,
        killed: u64,
        mode: Mode,
    ) -> Result<Figures> {
        let mut history = Vec::new();
        let mut run = |store: &mut Store| {
            for _ in 0..LIVES_PER_STORE {
                if killed + store.figures.kill_count() >= self.kills
                    || begun.elapsed() >= self.time_max
                {
                    break;
                }
                let fate = if self.failpoints {
                    Fate::at_failpoint(random)
                } else {
                    Fate::at_random_time(random)
                };
                history.push(fate.clone());
                store.live(&fate)?;
            }
            store.finish()
        };
        match run(&mut store) {
            Ok(()) => Ok(std::mem::take(&mut store.figures)),
            Err(error) => {
                let last = &history[history.len().saturating_sub(4)..];
                let what = format!("{mode:?}, life {}, the last fates: {last:?}", history.len());
                let kept = match self.keep {
                    true => format!("; left in {}", store.keep().display()),
                    false => String::new(),
                };
                Err(error).context(format!("{what}{kept}"))
            }
        }
    }
}

impl Figures {
    /// How often it was killed.
    pub fn kill_count(&self) -> u64 {
        self.kills.values().sum()
    }
}

impl Totals {
    pub fn kills(&self) -> u64 {
        self.figures.kill_count()
    }

    fn add(&mut self, figures: Figures) {
        let Figures {
            kills,
            stops,
            cuts,
            starts,
            messages,
            lost,
        } = figures;
        self.stores += 1;
        for (kind, count) in kills {
            *self.figures.kills.entry(kind).or_default() += count;
        }
        self.figures.stops += stops;
        self.figures.cuts += cuts;
        self.figures.starts.extend(starts);
        self.figures.messages += messages;
        self.figures.lost += lost;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut starts = self.figures.starts.clone();
        starts.sort_unstable();
        let at = |share: usize| {
            let index = starts.len().saturating_sub(1) * share / 100;
            starts.get(index).map_or(0.0, Duration::as_secs_f64) * 1e3
        };
        writeln!(
            f,
            "{} kills and {} clean stops of {} stores in {:.0} s; {} messages, none lost but {} \
             that were staged",
            self.kills(),
            self.figures.stops,
            self.stores,
            self.elapsed.as_secs_f64(),
            self.figures.messages,
            self.figures.lost,
        )?;
        writeln!(
            f,
            "{} starts, {} cut bytes off the log; ready after {:.1} ms (median), {:.1} ms (99 %), \
             {:.1} ms (longest)",
            starts.len(),
            self.figures.cuts,
            at(50),
            at(99),
            at(100)
        )?;
        let mut by_phase: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (kind, count) in &self.figures.kills {
            let (phase, place) = kind.split_once(", ").unwrap_or((kind, "any time"));
            let of_phase = by_phase.entry(phase).or_default();
            of_phase.push(format!("{place} {count}"));
        }
        for (phase, places) in by_phase {
            writeln!(f, "  killed {phase}: {}", places.join(", "))?;
        }
        Ok(())
    }
}

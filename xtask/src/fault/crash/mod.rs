//! `cargo xtask fault crash`: a store on a simulated machine that dies at any point.
//!
//! A seed is some lives of a store. Each is operations in an order that nobody planned ([`life`]),
//! ended by the death of the process or of the machine, between two operations or in the middle of
//! one; then recovery, which may die too; then a comparison of everything with what was promised
//! ([`check`]).

mod check;
mod life;
mod model;
mod setup;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use message::{Message, PreparedRecord, Stamp};
use mmap_core::sabotage::Lie;
use mmap_core::{Access, CrashStyle, Io, IoFile, Random, SimIo};
use store::{MessageStore, OpenError, OpenReport};

use super::seeds::{Arguments, Seeded, tell};
use crate::test::Suite;
use life::{Left, Life};
use model::Model;
use setup::{Setup, Ticks};

/// Operations of a seed, at least.
const OPERATION_COUNT_MIN: u64 = 200;
/// Recovery is made to die at most so often in a row.
const RECOVERY_DEATHS_MAX: u64 = 4;

const SUITE: Seeded = Seeded {
    name: "crash",
    run: run_seed,
    reach: &[
        Lie::AckBeforeSync,
        Lie::SkipSync,
        Lie::SkipDirSync,
        Lie::WatermarkAfterFailedSync,
        Lie::VisibleBeforeFlushed,
        Lie::CheckpointTooEarly,
        Lie::TailNotZeroed,
        Lie::SkipQuarantine,
        Lie::CrcUnchecked,
        Lie::IndexNotRebuilt,
    ],
};

/// Runs what the command line asks for.
pub fn run(arguments: &Arguments) -> Result<()> {
    SUITE.run_arguments(arguments)
}

/// The short form for CI.
pub fn suite() -> Suite {
    Suite {
        name: "fault-crash",
        about: "a store on a simulated machine that dies at any point, with fixed and fresh seeds",
        budget: Duration::from_secs(60),
        needs: &[],
        run: |_| {
            [40_000, Random::fresh_seed()]
                .into_iter()
                .try_for_each(|first| {
                    SUITE.run_arguments(&Arguments {
                        seed: None,
                        seeds: 200,
                        first: Some(first),
                        jobs: 2,
                        sabotage: None,
                    })
                })
        },
    }
}

/// The machine, from one death to the next.
struct Machine {
    setup: Setup,
    random: Random,
    clock: Arc<Ticks>,
    io: SimIo,
    model: Model,
    /// A fault has hit the opening of the store, which may have gone on without a part of it.
    is_faulty: bool,
}

fn run_seed(seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let mut machine = Machine {
        setup: Setup::new(&mut random),
        random,
        clock: Arc::default(),
        io: SimIo::new(seed),
        model: Model::default(),
        is_faulty: false,
    };
    let (mut operations, mut lives) = (0, 0);
    let mut store = machine.open().context("the first opening")?;
    while operations < OPERATION_COUNT_MIN || lives < 2 {
        lives += 1;
        let (left, count) = machine
            .live(store)
            .with_context(|| format!("life {lives}, after {operations} operations"))?;
        operations += count;
        store = machine
            .rise(left)
            .with_context(|| format!("after life {lives} ({left:?}), {operations} operations"))?;
    }
    Ok(())
}

impl Machine {
    fn open(&self) -> Result<MessageStore<SimIo>, OpenError> {
        self.open_reported().map(|(store, _)| store)
    }

    fn open_reported(&self) -> Result<(MessageStore<SimIo>, OpenReport), OpenError> {
        let clock: Arc<dyn store::Clock> = Arc::clone(&self.clock) as _;
        MessageStore::open_with(self.io.clone(), self.setup.options.clone(), clock)
    }

    /// Operations until the end of the process or the machine; how it came, and how many.
    fn live(&mut self, store: MessageStore<SimIo>) -> Result<(Left, u64)> {
        let length = self.random.between(20, 140);
        let style = self.style();
        if self.random.once_in(2) {
            self.io.crash_at(self.random.between(1, 1_500), style);
        }
        let io = self.io.clone();
        let mut life = Life::new(
            &self.setup,
            &io,
            &self.clock,
            store,
            &mut self.random,
            &mut self.model,
        );
        life.is_faulty = self.is_faulty;
        let mut count = 0;
        let mut left = Left::Open;
        // How many messages a kill leaves: those that were in the files before the last operation.
        let mut in_files = 0;
        while count < length && left == Left::Open {
            in_files = life.in_files();
            left = life
                .step()
                .with_context(|| format!("operation {count} of this life"))?;
            count += 1;
        }
        if left != Left::Dead {
            in_files = life.in_files();
        }
        let end = life.store.log().max_offset();
        let is_faulty = life.is_faulty;
        drop(life);
        self.io.clear_faults();
        let style = match left {
            Left::Closed => {
                self.io.cancel_crash();
                self.io.space_limit(u64::MAX / 4);
                for message in &mut self.model.issued {
                    message.is_durable = true;
                }
                return Ok((left, count));
            }
            Left::Dead => {
                self.io = io.wreck().context("a dead machine leaves a wreck")?;
                style
            }
            Left::Open => {
                let style = self.style();
                self.io.cancel_crash();
                self.io = self.io.crash(style);
                style
            }
        };
        self.io.space_limit(u64::MAX / 4);
        tell(|| format!("{style:?} ({left:?}); the log ended at {end}"));
        self.promise(style, in_files);
        if left == Left::Open && style == CrashStyle::KillProcess && !is_faulty {
            self.leave_half_a_record(end)?;
        }
        Ok((left, count))
    }

    /// What the death leaves untouched must be there afterwards: of a killed process everything
    /// that it had in the page cache.
    fn promise(&mut self, style: CrashStyle, in_files: usize) {
        if style == CrashStyle::KillProcess {
            for message in self.model.issued.iter_mut().take(in_files) {
                message.survives_kill = true;
            }
        } else {
            for message in &mut self.model.issued {
                message.survives_kill = false;
            }
        }
    }

    /// A kill as well where the disk has failed: what is in the cache then is not what the device
    /// has, and a power loss may follow.
    fn style(&mut self) -> CrashStyle {
        self.random.pick(&[
            CrashStyle::Tear,
            CrashStyle::LoseUnsynced,
            CrashStyle::KillProcess,
        ])
    }

    /// A process that is killed while it copies a record into the mapped log leaves a first part of
    /// it, without its first bytes, which come last.
    fn leave_half_a_record(&mut self, end: u64) -> Result<()> {
        let segment_len = self.setup.options.segment_len;
        let dir = self.setup.options.root.join("commitlog");
        let path = dir.join(format!("{:020}", end - end % segment_len));
        let is_mapped = !self.setup.is_sync() && !self.setup.is_staged();
        if !is_mapped || self.io.metadata(&path)?.is_none() {
            return Ok(());
        }
        let body_len = self.random.below(800) as usize;
        let body = self.random.bytes(body_len);
        let message = Message {
            properties: b"KEYS\x01half\x02TAGS\x01TagA\x02",
            ..Message::new("Topic0", 0, &body)
        };
        let mut record = PreparedRecord::new(&message, &self.setup.options.limits)?;
        record.stamp(Stamp {
            queue_offset: 0,
            physical_offset: end.cast_signed(),
            store_timestamp_ms: i64::MAX / 2,
        });
        let mut bytes = record.parts().concat();
        bytes[..8].fill(0);
        let left = segment_len - end % segment_len;
        let len = (self.random.below(bytes.len() as u64 + 1) as usize).min(left as usize);
        tell(|| format!("half a record: {len} of {} bytes", bytes.len()));
        let file = self.io.open(&path, Access::ReadWrite)?;
        file.write_all_at(&bytes[..len], end % segment_len)?;
        Ok(())
    }

    /// Opens the store again, with deaths and faults on the way, and checks it.
    fn rise(&mut self, left: Left) -> Result<MessageStore<SimIo>> {
        self.clock.leap(self.random.below(3_000));
        let wall_step = self.random.below(10_000).cast_signed() - 5_000;
        self.clock.set_wall(wall_step);
        let mut deaths = 0;
        let (store, report) = loop {
            let dies = deaths < RECOVERY_DEATHS_MAX && self.random.once_in(2);
            let fails = !dies && self.setup.has_errors && self.random.once_in(3);
            let style = self.style();
            if dies {
                self.io.crash_at(self.random.between(1, 120), style);
            } else if fails {
                let nth = self.random.between(1, 80);
                self.io.fail_nth("*", nth, std::io::ErrorKind::Other);
            }
            let opened = self.open_reported();
            if let Some(wreck) = self.io.wreck() {
                drop(opened);
                tell(|| format!("{style:?} in recovery"));
                deaths += 1;
                self.io = wreck;
                self.promise(style, 0);
                continue;
            }
            self.io.cancel_crash();
            self.io.clear_faults();
            match opened {
                Ok(opened) => {
                    self.is_faulty = fails;
                    break opened;
                }
                Err(error) if fails => {
                    let style = self.style();
                    tell(|| format!("recovery failed ({error:#}); {style:?}"));
                    self.io = self.io.crash(style);
                    self.promise(style, 0);
                }
                Err(error) => bail!("no start after {deaths} deaths in recovery: {error:#}"),
            }
        };
        tell(|| report.to_string());
        if left == Left::Closed && deaths == 0 {
            ensure!(report.log.cut.is_none(), "a closed log was cut");
        }
        ensure!(
            report.log.cut.is_none() || !report.quarantined.is_empty(),
            "what was cut off the log was not kept aside"
        );
        // What a killed process left is synced by the services.
        let may_be_later = report.is_power_kept && !self.setup.is_sync();
        check::recovered(&store, &mut self.model, may_be_later)
            .with_context(|| format!("{deaths} deaths in recovery; {report}"))?;
        if self.random.once_in(2) {
            return Ok(store);
        }
        drop(store);
        if self.is_faulty {
            // What a failed sync has put in doubt is built again, once.
            drop(self.open().context("the opening after a failure")?);
            self.is_faulty = false;
        }
        let before = check::files(&self.io)?;
        let store = self.open().context("the second opening")?;
        let after = check::files(&self.io)?;
        check::same_files(&before, &after, &self.model)?;
        check::recovered(&store, &mut self.model, !self.setup.is_sync())
            .context("after the second opening")?;
        Ok(store)
    }
}

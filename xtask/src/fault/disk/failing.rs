//! A disk on which single operations fail.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use mmap_core::Random;

use super::{Flush, Outcome, PATIENCE, Place, RESUME_LIMIT, Scenario, Trial};
use crate::fault::fusefs::{self, Disk, Effect, Errno, Operation, Rule, Settings, Volume};
use crate::fault::reader::Found;

/// Messages that are sent before the fault.
const FIRST_COUNT: u64 = 300;
/// Messages by which the broker has to come further where a fault must not stop it.
const MORE_COUNT: u64 = 300;

/// How long a failure that is final is watched for sends that work again.
const FINAL_TIME: Duration = Duration::from_secs(2);
/// What a refusal says after a failure that is final.
const FINAL_REASON: &str = "until it is opened again";
/// Where a failure may be final or not: how long it takes until a flush has met it too, at most.
const FLUSH_TIME: Duration = Duration::from_millis(600);

const DEVICE: Settings = Settings {
    capacity: 1 << 30,
    sync_time_max: Duration::from_millis(2),
};

/// What the broker has to make of a fault while clients are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Sends are refused until the store is opened again, reads go on.
    Refuses,
    /// Sends are refused as long as the fault lasts, reads go on.
    RefusesMeanwhile,
    /// Sends are refused, for good or meanwhile; reads go on.
    RefusesSomehow,
    /// Sends are refused for good; or, where a file without a record has met the fault, nobody
    /// notices: another one is made in its place.
    RefusesOrGoesOn,
    /// Sends are acknowledged as if nothing had happened; consumers have caught up when the fault
    /// is over.
    GoesOn,
    /// Sends are acknowledged; consumers get what comes then after the next start only.
    StoresOn,
}

/// One fault.
struct Fault {
    name: &'static str,
    rule: Rule,
    expect: Expect,
    flushes: &'static [Flush],
    is_short: bool,
}

fn faults() -> Vec<Fault> {
    use Expect::{GoesOn, Refuses, RefusesMeanwhile, RefusesOrGoesOn, RefusesSomehow, StoresOn};
    use Operation::{Allocate, Create, Rename, Sync, SyncDir, Write};
    let fault = |name, operation, path, errno, expect| Fault {
        name,
        rule: Rule::fail(operation, path, errno),
        expect,
        flushes: &Flush::BOTH,
        is_short: false,
    };
    let short = |fault: Fault| Fault {
        is_short: true,
        ..fault
    };
    let log = "/commitlog/";
    let (io, full, quota) = (Errno::EIO, Errno::ENOSPC, Errno::EDQUOT);
    vec![
        short(fault("log-sync", Sync, log, io, Refuses)),
        Fault {
            rule: Rule {
                times: 1,
                ..Rule::fail(Sync, log, io)
            },
            ..fault("log-sync-once", Sync, log, io, RefusesOrGoesOn)
        },
        short(fault("log-write", Write, log, io, Refuses)),
        short(fault(
            "log-allocate-full",
            Allocate,
            log,
            full,
            RefusesMeanwhile,
        )),
        fault("log-allocate-quota", Allocate, log, quota, RefusesMeanwhile),
        fault("log-allocate-io", Allocate, log, io, RefusesSomehow),
        fault("log-create-full", Create, log, full, RefusesMeanwhile),
        fault("log-create-io", Create, log, io, RefusesSomehow),
        fault("log-sync-dir", SyncDir, "/commitlog", io, RefusesSomehow),
        Fault {
            rule: Rule {
                effect: Effect::Short,
                times: 20,
                ..Rule::fail(Write, log, io)
            },
            // Only there the log is written by calls; a mapping's pages come whole.
            flushes: &[Flush::Sync],
            ..short(fault("log-write-short", Write, log, io, GoesOn))
        },
        fault("queue-sync", Sync, "/consumequeue/", io, StoresOn),
        fault(
            "queue-allocate-full",
            Allocate,
            "/consumequeue/",
            full,
            GoesOn,
        ),
        fault("queue-create-full", Create, "/consumequeue/", full, GoesOn),
        fault("index-sync", Sync, "/index/", io, GoesOn),
        fault("index-create-full", Create, "/index/", full, GoesOn),
        fault("checkpoint-sync", Sync, "/checkpoint", io, GoesOn),
        fault("config-rename", Rename, "/config/", io, GoesOn),
        fault("config-sync", Sync, "/config/", io, GoesOn),
        fault("config-write-full", Write, "/config/", full, GoesOn),
    ]
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for fault in faults() {
        for &flush in fault.flushes {
            let (rule, expect) = (fault.rule.clone(), fault.expect);
            all.push(Scenario {
                name: format!("{}-{}", fault.name, flush.short_name()),
                is_short: fault.is_short,
                run: Box::new(move |place| with_disk(place, flush, &rule, expect)),
            });
        }
    }
    all.push(Scenario {
        name: "log-read-cold".to_owned(),
        is_short: true,
        run: Box::new(read_cold),
    });
    all.push(Scenario {
        name: "log-read-verify".to_owned(),
        is_short: true,
        run: Box::new(read_verify),
    });
    all.push(Scenario {
        name: "log-read-recovery".to_owned(),
        is_short: true,
        run: Box::new(read_recovery),
    });
    all
}

fn with_disk(place: &Place<'_>, flush: Flush, rule: &Rule, expect: Expect) -> Result<Outcome> {
    let Some(mut bench) = Bench::set_up(place, flush)? else {
        return Ok(skipped());
    };
    bench.trial.begin_work(Duration::from_millis(1));
    bench
        .trial
        .await_tally("first messages", PATIENCE, |tally| {
            tally.acked() > FIRST_COUNT
        })?;
    bench.volume()?.arm(rule.clone());
    bench.await_hit()?;
    let seen = match expect {
        Expect::Refuses => bench.refuses(Some(true))?,
        Expect::RefusesMeanwhile => bench.refuses(Some(false))?,
        Expect::RefusesSomehow => bench.refuses(None)?,
        Expect::RefusesOrGoesOn => {
            let refused = |tally: &super::Tally| tally.refused() > 0;
            match bench.trial.await_tally("refusals", FINAL_TIME, refused) {
                Ok(_) => bench.refuses(Some(true))?,
                Err(_) => bench.goes_on(true)?,
            }
        }
        Expect::GoesOn => bench.goes_on(true)?,
        Expect::StoresOn => bench.goes_on(false)?,
    };
    bench.trial.end_work()?;
    bench.trial.check_alive()?;
    if bench.trial.history.has_refusals() {
        let path = bench.trial.place.dir.join("disk").display().to_string();
        bench.trial.check_refusals(&[&path])?;
    }
    // What a consumer was given after the failure, and what is acknowledged, must be on the
    // device; in async mode only a killed process is promised that.
    bench.end(flush == Flush::Sync)?;
    bench.trial.check_kept()?;
    bench.tear_down()?;
    Ok(Outcome::Passed(seen))
}

/// A record that cannot be read: its reader is told where, everybody else goes on.
fn read_cold(place: &Place<'_>) -> Result<Outcome> {
    let Some(mut bench) = Bench::with_messages(place)? else {
        return Ok(skipped());
    };
    let rule = Rule::fail(
        Operation::Read,
        "/commitlog/00000000000000000000",
        Errno::EIO,
    );
    bench.volume()?.arm(rule);
    let options = bench.trial.node.client_options();
    let error = match Found::read(&options, place.seed) {
        Ok(_) => bail!("messages were served that cannot be read"),
        Err(error) => format!("{error:#}"),
    };
    bench.trial.check_alive()?;
    bench.trial.begin_work(Duration::from_millis(1));
    bench
        .trial
        .await_tally("sends go on", PATIENCE, |tally| tally.acked() > MORE_COUNT)?;
    bench.trial.end_work()?;
    bench.trial.check_alive()?;
    bench.volume()?.disarm();
    bench.trial.await_served()?;
    bench.trial.check_kept()?;
    bench.tear_down()?;
    names_place(&error)?;
    Ok(Outcome::Passed(
        "the reader is told file and offset".to_owned(),
    ))
}

/// A log that `foliomq store verify` cannot read: it says where, and ends by its own will.
fn read_verify(place: &Place<'_>) -> Result<Outcome> {
    let Some(mut bench) = Bench::with_messages(place)? else {
        return Ok(skipped());
    };
    bench.trial.stop()?;
    bench.trial.node.verify()?;
    bench.remount()?;
    let rule = Rule::fail(Operation::Read, "/commitlog/", Errno::EIO);
    bench.volume()?.arm(rule);
    let output = bench.trial.node.verifier().output()?;
    // 2: it could not be done (docs/tools.md).
    ensure!(
        output.status.code() == Some(2),
        "store verify: {}",
        output.status
    );
    let said = [output.stdout, output.stderr].concat();
    names_place(&String::from_utf8_lossy(&said))?;
    bench.volume()?.disarm();
    bench.trial.node.start()?;
    bench.trial.check_kept()?;
    bench.tear_down()?;
    Ok(Outcome::Passed("verify names file and offset".to_owned()))
}

/// A log that cannot be read at the start: the broker says where and ends, by its own will.
fn read_recovery(place: &Place<'_>) -> Result<Outcome> {
    let Some(mut bench) = Bench::with_messages(place)? else {
        return Ok(skipped());
    };
    bench.trial.node.kill()?;
    bench.remount()?;
    let rule = Rule::fail(Operation::Read, "/commitlog/", Errno::EIO);
    bench.volume()?.arm(rule);
    bench.trial.node.launch()?;
    let ended = crate::process::poll(PATIENCE, || bench.trial.node.ended());
    let Some(status) = ended else {
        bail!("the broker serves a log that it cannot read");
    };
    ensure!(status.code().is_some(), "the broker was ended by {status}");
    let said = bench.trial.node.said();
    let last = said.lines().last().unwrap_or_default().to_owned();
    names_place(&last)?;
    bench.volume()?.disarm();
    bench.trial.node.start()?;
    bench.trial.check_kept()?;
    bench.tear_down()?;
    Ok(Outcome::Passed(
        "the broker names file and offset".to_owned(),
    ))
}

fn names_place(text: &str) -> Result<()> {
    let names_both = text.contains("/commitlog/0") && text.contains("offset");
    ensure!(names_both, "no file and offset in \"{text}\"");
    Ok(())
}

fn skipped() -> Outcome {
    Outcome::Skipped(fusefs::missing().unwrap_or_default())
}

/// A broker on a disk that can be told to fail.
struct Bench<'a> {
    trial: Trial<'a>,
    disk: Option<Disk>,
    random: Random,
}

impl<'a> Bench<'a> {
    /// `None` without FUSE.
    fn set_up(place: &'a Place<'a>, flush: Flush) -> Result<Option<Self>> {
        if fusefs::missing().is_some() {
            return Ok(None);
        }
        let mut random = Random::new(place.seed);
        let path = place.dir.join("disk");
        let disk = Disk::mount(Volume::new(DEVICE, random.fork()), &path)?;
        let mut trial = Trial::new(place, &path, flush)?;
        trial.node.start()?;
        Ok(Some(Self {
            trial,
            disk: Some(disk),
            random,
        }))
    }

    /// A broker that was started on a disk with some messages, and has read none of them yet.
    fn with_messages(place: &'a Place<'a>) -> Result<Option<Self>> {
        let Some(mut bench) = Self::set_up(place, Flush::Async)? else {
            return Ok(None);
        };
        bench.trial.begin_work(Duration::ZERO);
        bench
            .trial
            .await_tally("messages", PATIENCE, |tally| tally.acked() > 2_000)?;
        bench.trial.end_work()?;
        bench.trial.await_served()?;
        bench.trial.check_kept()?;
        bench.trial.stop()?;
        bench.remount()?;
        bench.trial.node.start()?;
        Ok(Some(bench))
    }

    fn volume(&self) -> Result<&Volume> {
        match &self.disk {
            Some(disk) => Ok(disk.volume()),
            None => bail!("the disk is not mounted"),
        }
    }

    fn await_hit(&mut self) -> Result<()> {
        let hit = crate::process::poll(PATIENCE, || {
            let hits = self.disk.as_ref().map_or(0, |disk| disk.volume().hits());
            (hits > 0).then_some(())
        });
        ensure!(
            hit.is_some(),
            "nothing has met the fault within {PATIENCE:?}"
        );
        Ok(())
    }

    /// Sends must be refused, reads must go on; afterwards sends work again (`Some(false)`), do
    /// not (`Some(true)`), or either.
    fn refuses(&mut self, for_good: Option<bool>) -> Result<String> {
        let refused = self.trial.tally()?.refused();
        self.trial
            .await_tally("refusals", PATIENCE, |tally| tally.refused() > refused + 20)?;
        self.await_reason(for_good)?;
        let acked = self.trial.tally()?.acked();
        // After a failed sync that is all up to the last flushed offset.
        let count = self.trial.found()?.messages.len() as u64;
        self.trial
            .await_tally("consumers go on", PATIENCE, |tally| tally.seen() >= count)?;
        self.volume()?.disarm();
        let limit = match for_good {
            Some(false) => RESUME_LIMIT,
            _ => FINAL_TIME,
        };
        let resumed = self.trial.await_resumption(limit);
        match (resumed, for_good) {
            (Ok(after), Some(false) | None) => {
                self.trial.await_consumer()?;
                Ok(format!(
                    "refused, resumed after {:.1} s",
                    after.as_secs_f64()
                ))
            }
            (Err(_), Some(true) | None) => {
                self.trial.check_alive()?;
                let more = self.trial.tally()?.acked() - acked;
                ensure!(
                    more == 0,
                    "{more} messages were acknowledged after the failure"
                );
                Ok("refused for good, reads go on".to_owned())
            }
            (Ok(after), Some(true)) => {
                bail!("sends are acknowledged again {after:?} after a failure that is final")
            }
            (Err(error), Some(false)) => Err(error),
        }
    }

    /// Waits until it is known whether the failure is final. The making of a new file may meet the
    /// fault first, which is no such failure; what may be read ends earlier once a flush has met it.
    fn await_reason(&mut self, for_good: Option<bool>) -> Result<()> {
        let is_final = |tally: &super::Tally| tally.last_refusal().contains(FINAL_REASON);
        match for_good {
            Some(true) => drop(
                self.trial
                    .await_tally("a final refusal", PATIENCE, is_final)?,
            ),
            Some(false) => {}
            None => {
                self.trial.check_alive()?;
                let _either_way = self.trial.await_tally("a reason", FLUSH_TIME, is_final);
            }
        }
        Ok(())
    }

    fn goes_on(&mut self, to_consumers: bool) -> Result<String> {
        let acked = self.trial.tally()?.acked();
        let more = |tally: &super::Tally| tally.acked() > acked + MORE_COUNT;
        self.trial.await_tally("sends go on", PATIENCE, more)?;
        self.volume()?.disarm();
        if !to_consumers {
            return Ok("sends go on, their reads after the next start".to_owned());
        }
        self.trial.await_consumer()?;
        Ok("sends and reads go on".to_owned())
    }

    /// Ends the broker without asking it, with or without the machine, and starts it again.
    fn end(&mut self, cuts_power: bool) -> Result<()> {
        if cuts_power {
            let Some(disk) = self.disk.take() else {
                bail!("the disk is not mounted");
            };
            let (image, _) = disk.volume().cut(self.random.fork());
            self.trial.node.kill()?;
            let path = disk.path().to_owned();
            disk.unmount()?;
            self.trial.place.boot_id.renew(&mut self.random)?;
            let volume = Volume::of_image(&image, DEVICE, self.random.fork());
            self.disk = Some(Disk::mount(volume, &path)?);
        } else {
            self.trial.node.kill()?;
        }
        self.trial.node.start()
    }

    /// Empties the kernel's cache of the disk; the broker must not run.
    fn remount(&mut self) -> Result<()> {
        if let Some(disk) = self.disk.take() {
            self.disk = Some(disk.remount()?);
        }
        Ok(())
    }

    fn tear_down(mut self) -> Result<()> {
        self.trial.stop()?;
        match self.disk.take() {
            Some(disk) => disk.unmount(),
            None => Ok(()),
        }
    }
}

//! The machine dies at random points, again and again, on a simulated device.
//!
//! Each seed runs several lives of one store. After each death: what was acknowledged as durable
//! is there, byte for byte; the log is a prefix of what was appended; and opening it once more
//! changes nothing. `SEED=n cargo test -p commitlog crash` replays one seed.

use std::ops::Range;

use commitlog::{FlushMode, LogWarmUp, PutTicket, QueueCursor};
use mmap_core::{CrashStyle, Random, SimIo, WarmUp};

use crate::common::{
    Opened, Record, STAGED, TestClock, from_start, message, options, try_open, visible_records,
};

const SEEDS: u64 = 150;
const LIVES: usize = 4;

fn mostly_below(random: &mut Random, usual: u64, sometimes: u64) -> u64 {
    let end = if random.below(6) == 0 {
        sometimes
    } else {
        usual
    };
    random.below(end)
}

fn style(random: &mut Random) -> CrashStyle {
    match random.below(5) {
        0 => CrashStyle::KillProcess,
        1 => CrashStyle::LoseUnsynced,
        _ => CrashStyle::Tear,
    }
}

/// A record that was appended, and how many are durable when its ticket resolves.
struct Issued {
    record: Record,
    ticket: PutTicket,
}

fn live(
    opened: Opened<SimIo>,
    io: &SimIo,
    is_sync: bool,
    random: &mut Random,
) -> (Vec<Record>, usize, u64) {
    let Opened { log, records, .. } = opened;
    let recovered_count = records.len();
    let mut issued: Vec<Issued> = Vec::new();
    let queue = QueueCursor::new(recovered_count as i64);
    // How many records are known to be durable; what recovery returned is.
    let mut durable_count = recovered_count;
    for _ in 0..random.below(80) {
        match random.below(10) {
            0..6 => {
                let len = mostly_below(random, 700, 6_000) as usize;
                let body: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
                let name_len = mostly_below(random, 40, 1_500) as usize;
                let properties = format!("KEYS\x01{}\x02", "k".repeat(name_len + 1)).into_bytes();
                let message = message(0, &body, &properties);
                let appended = log
                    .append(&mut log.prepare(&message).unwrap(), &queue)
                    .unwrap();
                let record = Record {
                    offset: appended.physical_offset,
                    queue_id: 0,
                    queue_offset: appended.queue_offset,
                    store_ms: appended.store_timestamp_ms,
                    body,
                    properties,
                };
                issued.push(Issued {
                    record,
                    ticket: appended.ticket,
                });
            }
            6 => {
                log.step_flush();
            }
            7 => {
                log.step_prepare();
                log.step_commit();
            }
            8 if !is_sync => {
                log.flush_now().unwrap();
                durable_count = recovered_count + issued.len();
            }
            _ => io.writeback(),
        }
        if is_sync {
            let resolved = issued.iter().take_while(|issued| {
                issued
                    .ticket
                    .try_ready()
                    .is_some_and(|outcome| outcome.is_ok())
            });
            durable_count = recovered_count + resolved.count();
            assert_eq!(
                visible_records(&log).len(),
                durable_count,
                "seen before it is durable"
            );
        }
    }
    let mut all = records;
    all.extend(issued.into_iter().map(|issued| issued.record));
    (all, durable_count, log.segments().published())
}

fn run(seed: u64, flush: FlushMode) {
    let mut random = Random::new(seed);
    let mut io = SimIo::new(seed);
    let is_sync = matches!(flush, FlushMode::Sync { .. });
    let mut options = options(flush);
    options.warm_up = match random.below(4) {
        0 => LogWarmUp::None,
        1 => LogWarmUp::Window,
        2 => LogWarmUp::Whole(WarmUp::Touch {
            sync_every: is_sync.then_some(2),
        }),
        _ => LogWarmUp::Whole(WarmUp::Zeros),
    };
    let reopen =
        |io: &SimIo| try_open(io, options.clone(), TestClock::new(), &from_start()).unwrap();
    let mut opened = reopen(&io);
    for life in 0..LIVES {
        let (issued, durable_count, written) = live(opened, &io, is_sync, &mut random);
        let style = style(&mut random);
        io = io.crash(style);
        let after = reopen(&io);
        let context = format!("SEED={seed} life {life} {style:?} {flush:?}");
        let found = &after.records;
        assert!(
            found.len() >= durable_count,
            "{context}: {} < {durable_count}",
            found.len()
        );
        assert!(found.len() <= issued.len(), "{context}");
        if let Some(index) = found
            .iter()
            .zip(&issued)
            .position(|(found, issued)| found != issued)
        {
            let (found, issued) = (&found[index], &issued[index]);
            panic!(
                "{context}: record {index}: {}
{}",
                found.summary(),
                issued.summary()
            );
        }
        if style == CrashStyle::KillProcess && !is_sync {
            // What is staged lies in the memory of the process.
            let kept = issued.iter().filter(|record| record.offset < written);
            assert_eq!(found.len(), kept.count(), "{context}: lost by a kill");
        }
        // Once more, and after a death during recovery's own last steps: no change.
        let (found, end) = (after.records, after.report.end);
        drop(after.log);
        for io in [io.clone(), io.crash(CrashStyle::LoseUnsynced)] {
            let again = reopen(&io);
            assert!(
                again.records == found,
                "{context}: the second opening differs"
            );
            assert_eq!(
                (again.report.end, &again.report.cut),
                (end, &None),
                "{context}"
            );
        }
        opened = reopen(&io);
    }
}

fn seeds() -> Range<u64> {
    match std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_sync_mode() {
    seeds().for_each(|seed| run(seed, FlushMode::sync_default()));
}

#[test]
fn a_staged_log_is_a_prefix_of_what_was_appended() {
    seeds().for_each(|seed| run(seed, STAGED));
}

#[test]
fn an_async_log_is_a_prefix_of_what_was_appended() {
    seeds().for_each(|seed| run(seed, FlushMode::async_default()));
}

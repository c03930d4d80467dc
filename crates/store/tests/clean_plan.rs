//! The rules of cleaning as a table: time x size x use of the disk x hour x forced x manual, each
//! against what RocketMQ's `CleanCommitLogService` does; and what holds in every case.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use mmap_core::{Io, IoFile, SimIo};
use store::{
    CleanFacts, CleanOptions, CleanPlan, DerivedKind, DiskUse, Gone, Kept, LogFile, Pressure,
    StoreOptions, Trigger, Verdict, plan, plan_clean,
};

const HOUR_MS: i64 = 3_600_000;
const NOW_MS: i64 = 1_700_000_000_000;
const LEN: u64 = 1000;

/// A log whose files were written so many hours ago, on a disk used by so many percent.
fn facts(ages: &[i64], used_percent: u64, hour: u8) -> CleanFacts {
    let files = ages.iter().enumerate().map(|(position, age)| LogFile {
        path: PathBuf::from(format!("{:020}", position as u64 * LEN)),
        base: position as u64 * LEN,
        len: LEN,
        modified_ms: NOW_MS - age * HOUR_MS,
    });
    let disk = DiskUse {
        used: used_percent * 1000,
        limit: 100_000,
    };
    CleanFacts {
        now_ms: NOW_MS,
        local_hour: hour,
        log: files.collect(),
        settled: u64::MAX,
        log_disk: Some(disk),
        queue_disk: Some(disk),
        shared_disk: true,
        manual: false,
    }
}

fn removed(plan: &CleanPlan) -> usize {
    plan.removed().count()
}

struct Row {
    name: &'static str,
    ages: &'static [i64],
    used_percent: u64,
    hour: u8,
    manual: bool,
    change: fn(&mut CleanOptions),
    removed: usize,
}

const OLD: &[i64] = &[100, 90, 80, 73, 1];
const YOUNG: &[i64] = &[50, 40, 30, 20, 10];
/// Copied without its times, or written by a clock that was set back.
const MIXED: &[i64] = &[100, 10, 100, 100, 1];
const MANY: &[i64] = &[100; 30];

fn row(name: &'static str, ages: &'static [i64], removed: usize) -> Row {
    Row {
        name,
        ages,
        used_percent: 10,
        hour: 12,
        manual: false,
        change: |_| (),
        removed,
    }
}

#[test]
fn the_rules_as_a_table() {
    let rows = [
        row("another hour", OLD, 0),
        Row {
            hour: 4,
            ..row("the hour", OLD, 4)
        },
        Row {
            hour: 5,
            ..row("the hour after it", OLD, 0)
        },
        Row {
            hour: 5,
            change: |options| options.delete_when = store::DeleteWhen::parse("04;05").unwrap(),
            ..row("one of two hours", OLD, 4)
        },
        Row {
            hour: 4,
            ..row("nothing is old enough", YOUNG, 0)
        },
        Row {
            hour: 4,
            ..row("only a prefix", MIXED, 1)
        },
        Row {
            hour: 4,
            ..row("a batch", MANY, 10)
        },
        Row {
            hour: 4,
            change: |options| options.batch_max = 3,
            ..row("a batch of 3", MANY, 3)
        },
        Row {
            hour: 4,
            change: |options| options.batch_max = 0,
            ..row("a batch of 0 is one", MANY, 1)
        },
        Row {
            hour: 4,
            change: |options| options.reserved = std::time::Duration::from_secs(85 * 3600),
            ..row("kept for longer", OLD, 2)
        },
        Row {
            hour: 4,
            ..row("the last one stays", &[100], 0)
        },
        Row {
            hour: 4,
            ..row("no files", &[], 0)
        },
        Row {
            manual: true,
            ..row("by hand", OLD, 4)
        },
        Row {
            manual: true,
            ..row("by hand, nothing is old enough", YOUNG, 0)
        },
        Row {
            used_percent: 75,
            ..row("at the mark", OLD, 0)
        },
        Row {
            used_percent: 76,
            ..row("above the mark", OLD, 4)
        },
        Row {
            used_percent: 76,
            ..row("above the mark, nothing is old enough", YOUNG, 0)
        },
        Row {
            used_percent: 60,
            change: |options| options.max_used_percent = 50,
            ..row("a lower mark", OLD, 4)
        },
        Row {
            used_percent: 8,
            change: |options| options.max_used_percent = 1,
            ..row("no mark is below 10", OLD, 0)
        },
        Row {
            used_percent: 40,
            change: |options| options.forced_percent = 30,
            ..row("the forced mark below the other one", YOUNG, 4)
        },
        Row {
            used_percent: 85,
            ..row("at the forced mark", YOUNG, 0)
        },
        Row {
            used_percent: 86,
            ..row("one file relieves the disk", YOUNG, 1)
        },
        Row {
            used_percent: 88,
            ..row("three files relieve the disk", YOUNG, 3)
        },
        Row {
            used_percent: 99,
            ..row("all but the last one", YOUNG, 4)
        },
        Row {
            used_percent: 88,
            ..row("old ones go whatever the relief", MANY, 10)
        },
        Row {
            used_percent: 99,
            change: |options| options.forced_enabled = false,
            ..row("never before their time", YOUNG, 0)
        },
        Row {
            used_percent: 99,
            change: |options| options.forced_enabled = false,
            ..row("old ones then", OLD, 4)
        },
        Row {
            change: |options| options.log_len_max = Some(2 * LEN),
            ..row("too long a log", YOUNG, 3)
        },
        Row {
            change: |options| options.log_len_max = Some(5 * LEN),
            ..row("just not too long", OLD, 0)
        },
        Row {
            change: |options| options.log_len_max = Some(0),
            ..row("no log at all is not possible", YOUNG, 4)
        },
    ];
    for row in rows {
        let mut options = CleanOptions::DEFAULT;
        (row.change)(&mut options);
        let mut facts = facts(row.ages, row.used_percent, row.hour);
        facts.manual = row.manual;
        let plan = plan(&facts, &options);
        assert_eq!(removed(&plan), row.removed, "{}: {plan}", row.name);
        check(&facts, &options, &plan);
    }
}

/// What holds for every plan.
fn check(facts: &CleanFacts, options: &CleanOptions, plan: &CleanPlan) {
    let verdicts: Vec<_> = plan
        .log
        .iter()
        .map(|file| file.verdict.is_removed())
        .collect();
    assert_eq!(verdicts.len(), facts.log.len(), "every file has a verdict");
    assert!(verdicts.is_sorted_by(|a, b| a >= b), "a prefix: {plan}");
    assert_ne!(verdicts.last(), Some(&true), "never the last: {plan}");
    assert!(removed(plan) <= options.batch_max.max(1));
    let kept = plan.kept().next().map_or(0, |planned| planned.file.base);
    assert_eq!(plan.log_min, kept, "{plan}");
    if plan.triggers.is_empty() {
        assert_eq!(removed(plan), 0, "{plan}");
    }
    for planned in plan.removed() {
        assert!(planned.file.end() <= facts.settled);
        match planned.verdict {
            Verdict::Goes(Gone::Forced { .. }) => assert!(options.forced_enabled && plan.forced),
            Verdict::Goes(Gone::Expired { age_ms }) => {
                assert!(age_ms >= options.reserved.as_millis() as i64);
            }
            _ => assert!(options.log_len_max.is_some()),
        }
    }
}

/// RocketMQ's `isTimeToDelete`, `isSpaceToDelete` and `deleteExpiredFileByTime`, written as they
/// are there; but for the relief, of which Java knows nothing.
fn removed_by_java(facts: &CleanFacts, options: &CleanOptions, used_percent: u8) -> usize {
    let (warning, force, ratio) = (
        options.full_percent(),
        options.forced_percent(),
        options.max_used_percent(),
    );
    let is_time_up = options.delete_when.contains(facts.local_hour);
    let at_once = used_percent > warning || used_percent > force;
    let is_space = at_once || used_percent > ratio;
    if !(is_time_up || is_space || facts.manual) {
        return 0;
    }
    let at_once = at_once && options.forced_enabled;
    let mut deleted = 0;
    for file in facts.log.iter().take(facts.log.len().saturating_sub(1)) {
        let live_until = file.modified_ms + options.reserved.as_millis() as i64;
        if facts.now_ms < live_until && !at_once {
            break;
        }
        deleted += 1;
        if deleted >= options.batch_max {
            break;
        }
    }
    deleted
}

#[test]
fn every_combination_agrees_with_java() {
    let mut count = 0;
    for ages in [OLD, YOUNG, MIXED, MANY, &[100], &[]] {
        for used_percent in [0, 10, 74, 75, 76, 84, 85, 86, 89, 90, 91, 99, 100] {
            for hour in [3, 4, 5] {
                for (manual, forced, batch_max) in [false, true].into_iter().flat_map(|manual| {
                    [false, true].into_iter().flat_map(move |forced| {
                        [0, 1, 3, 10].map(|batch_max| (manual, forced, batch_max))
                    })
                }) {
                    let options = CleanOptions {
                        forced_enabled: forced,
                        batch_max,
                        ..CleanOptions::DEFAULT
                    };
                    let mut facts = facts(ages, used_percent, hour);
                    facts.manual = manual;
                    // A disk so large that no file relieves it.
                    let disk = DiskUse {
                        used: used_percent << 40,
                        limit: 100 << 40,
                    };
                    (facts.log_disk, facts.queue_disk) = (Some(disk), Some(disk));
                    let plan = plan(&facts, &options);
                    check(&facts, &options, &plan);
                    let java = removed_by_java(&facts, &options, disk.percent());
                    assert_eq!(
                        removed(&plan),
                        java,
                        "{ages:?} {used_percent} % {hour} h manual {manual} forced {forced} \
                         batch {batch_max}: {plan}"
                    );
                    let is_full = used_percent > 90;
                    assert_eq!(plan.pressure == Pressure::Full, is_full, "{plan}");
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 6 * 13 * 3 * 16);
}

#[test]
fn what_is_not_settled_stays() {
    let mut facts = facts(OLD, 10, 4);
    facts.settled = 2500;
    let plan = plan(&facts, &CleanOptions::DEFAULT);
    assert_eq!(removed(&plan), 2);
    assert_eq!(plan.log[2].verdict, Verdict::Stays(Kept::Unsettled));
    assert_eq!(plan.log[3].verdict, Verdict::Stays(Kept::Behind));
}

#[test]
fn the_fuller_disk_counts_and_an_unknown_one_is_full_enough() {
    let mut facts = facts(OLD, 10, 12);
    facts.queue_disk = Some(DiskUse {
        used: 95,
        limit: 100,
    });
    facts.shared_disk = false;
    let full = plan(&facts, &CleanOptions::DEFAULT);
    assert_eq!((full.pressure, full.forced), (Pressure::Full, true));
    // What goes from the log's disk does not relieve the queues'.
    assert_eq!(removed(&full), 4);
    facts.queue_disk = None;
    let unknown = plan(&facts, &CleanOptions::DEFAULT);
    assert_eq!(unknown.triggers, [Trigger::SpaceUnknown]);
    assert_eq!((removed(&unknown), unknown.forced), (4, false));
}

#[test]
fn a_plan_says_why() {
    let text = plan(&facts(OLD, 76, 4), &CleanOptions::DEFAULT).to_string();
    for part in [
        "disk of the log: 76000 of 100000 bytes used, 76 %",
        "files go now: it is 04 o'clock (deleteWhen)",
        "files go now: the disk is used by 76 %, above 75 %",
        "00000000000000000000 (1000 bytes) goes: written 100 hours ago (fileReservedTime)",
        "00000000000000004000 (1000 bytes) stays: the last file always does",
        "4 files go, 4000 bytes; the log begins at 4000 then",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let text = plan(&facts(YOUNG, 10, 12), &CleanOptions::DEFAULT).to_string();
    assert!(text.contains("nothing goes now"), "{text}");
    assert!(
        text.contains("stays: not old enough before 2023-11-15T20:13:20Z"),
        "{text}"
    );
}

/// A file with the eight bytes of a log offset at a place.
fn file_with(io: &SimIo, path: &str, len: u64, position: u64, last_offset: i64) {
    let path = Path::new(path);
    io.create_dir_all(path.parent().unwrap()).unwrap();
    let file = io.create(path, len).unwrap();
    file.write_all_at(&last_offset.to_be_bytes(), position)
        .unwrap();
}

#[test]
fn a_directory_is_planned_with_what_is_derived_and_not_changed() {
    let io = SimIo::new(1);
    for base in 0..5 {
        file_with(
            &io,
            &format!("/s/commitlog/{:020}", base * 1000),
            1000,
            0,
            0,
        );
    }
    // Entries of messages at 900, 1900, 2900; index files that end at 1500 and 2500.
    for base in 0..3 {
        let path = format!("/s/consumequeue/T/0/{:020}", base * 40);
        file_with(&io, &path, 40, 20, base * 1000 + 900);
    }
    let batch = "/s/batchconsumequeue/B/3";
    file_with(&io, &format!("{batch}/{:020}", 0), 92, 46, 10);
    file_with(&io, &format!("{batch}/{:020}", 92), 92, 46, 4000);
    file_with(&io, "/s/index/20230101000000000", 100, 24, 1500);
    file_with(&io, "/s/index/20230101000000001", 100, 24, 2500);
    let mut options = StoreOptions::new("/s");
    options.clean.log_len_max = Some(3000);
    let mut modified = std::collections::BTreeMap::new();
    for entry in io.list(Path::new("/s/commitlog")).unwrap() {
        modified.insert(entry.name, entry.len);
    }
    let operations = io.operation_count();
    // The simulated files are as old as the simulated clock, which begins in 1970.
    let plan = plan_clean(&io, &options, 1_000_000, false).unwrap();
    assert!(io.operation_count() > operations);
    assert_eq!((removed(&plan), plan.log_min), (2, 2000), "{plan}");
    let derived: Vec<_> = plan
        .derived
        .iter()
        .map(|file| (file.kind, file.last_offset))
        .collect();
    assert_eq!(
        derived,
        [
            (DerivedKind::ConsumeQueue, 900),
            (DerivedKind::ConsumeQueue, 1900),
            (DerivedKind::BatchConsumeQueue, 10),
            (DerivedKind::Index, 1500),
        ]
    );
    assert_eq!(plan.freed_bytes(), 2 * 1000 + 2 * 40 + 92 + 100);
    for entry in io.list(Path::new("/s/commitlog")).unwrap() {
        assert_eq!(modified.remove(&entry.name), Some(entry.len));
    }
    assert!(modified.is_empty());
    // A store that is not there yet.
    let nothing = plan_clean(&io, &StoreOptions::new("/none"), 0, true).unwrap();
    assert_eq!((nothing.log.len(), nothing.log_min), (0, 0));
}

//! Damage that does not take the good records behind it along.

use std::io::ErrorKind;

use commitlog::{
    AppendError, FlushMode, HOLE_TOPIC, Invalid, Known, LogError, QueueCursor, RecoverFrom,
    is_filler,
};
use message::layout::STORE_TIMESTAMP_POSITION_V4;
use message::{Parsed, RecordView};
use mmap_core::{Access, Io, IoFile, SimIo};

use crate::common::{
    Opened, Record, SEGMENT_LEN, START_MS, TestClock, from_start, message, open, options,
    record_len, segment_path, try_open,
};

const ASYNC: FlushMode = FlushMode::async_default();
const BODY: &[u8] = &[5; 1_000];
const COUNT: u64 = 40;

fn len() -> u64 {
    record_len(BODY, b"")
}

fn per_segment() -> u64 {
    SEGMENT_LEN / len()
}

/// Where the record of this number lies.
fn place(number: u64) -> u64 {
    number / per_segment() * SEGMENT_LEN + number % per_segment() * len()
}

/// A closed log of [`COUNT`] equal records.
fn log() -> SimIo {
    let io = SimIo::new(2);
    let Opened { log, .. } = open(&io, ASYNC);
    let queue = QueueCursor::new(0);
    for _ in 0..COUNT {
        let mut record = log.prepare(&message(0, BODY, b"")).unwrap();
        log.append(&mut record, &queue).unwrap();
    }
    log.close().unwrap();
    io
}

fn damage(io: &SimIo, offset: u64, bytes: &[u8]) {
    let path = segment_path(&options(ASYNC).dir, offset - offset % SEGMENT_LEN);
    let file = io.open(&path, Access::ReadWrite).unwrap();
    file.write_all_at(bytes, offset % SEGMENT_LEN).unwrap();
    file.sync_all().unwrap();
}

fn recover(io: &SimIo, known: Known) -> Opened<SimIo> {
    let from = RecoverFrom {
        known,
        ..from_start()
    };
    try_open(io, options(ASYNC), TestClock::new(), &from).unwrap()
}

fn kept_power() -> Known {
    Known {
        is_power_kept: true,
        ..Known::NOTHING
    }
}

/// The records, without the fillers, as numbers.
fn numbers(records: &[Record]) -> Vec<u64> {
    let messages = records.iter().filter(|record| record.queue_offset > 0);
    messages.map(|record| record.queue_offset as u64).collect()
}

/// All but the first record, whose queue offset fillers have too, and those given.
fn all_but(lost: &[u64]) -> Vec<u64> {
    (1..COUNT).filter(|number| !lost.contains(number)).collect()
}

#[test]
fn a_damaged_record_is_a_hole_and_the_good_ones_behind_it_stay() {
    // In a body, in the header, over two records, the last and the first of a segment.
    let cases: [(u64, &[u8], &[u64]); 6] = [
        (place(3) + 500, b"x", &[3]),
        (place(3), b"\xff\xff\xff\xff\xff", &[3]),
        (place(5) - 100, &[7; 200], &[4, 5]),
        (place(per_segment() - 1) + 200, b"y", &[per_segment() - 1]),
        (place(per_segment()) + 4, b"z", &[per_segment()]),
        (place(7) + 28, &[9; 8], &[7]),
    ];
    for (offset, bytes, lost) in cases {
        for known in [kept_power(), Known::CLEAN] {
            let io = log();
            damage(&io, offset, bytes);
            let opened = recover(&io, known);
            assert_eq!(numbers(&opened.records), all_but(lost), "at {offset}");
            let [hole] = &opened.report.holes[..] else {
                panic!("{:?}", opened.report)
            };
            assert_eq!(hole.offset, place(lost[0]));
            assert_eq!(hole.len, lost.len() as u64 * len());
            assert_eq!((opened.kept.len(), &opened.report.cut), (1, &None));
            let end = opened.report.end;
            drop(opened);
            // Filled, so that those who know nothing walk over it, and the second time too.
            for known in [Known::NOTHING, kept_power()] {
                let again = recover(&io, known);
                assert_eq!(numbers(&again.records), all_but(lost));
                assert_eq!((again.report.end, again.report.holes.len()), (end, 0));
                assert_eq!(again.report.cut, None);
            }
        }
    }
}

#[test]
fn what_fills_a_hole_is_known_by_its_topic() {
    let io = log();
    damage(&io, place(3) + 500, b"x");
    let opened = recover(&io, kept_power());
    let slice = opened.log.record_at(place(3)).unwrap();
    let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
        panic!("no record")
    };
    assert!(is_filler(&view));
    assert_eq!(
        (view.topic(), view.total_size() as u64),
        (HOLE_TOPIC, len())
    );
    assert_eq!(view.store_timestamp_ms(), START_MS);
}

#[test]
fn a_damaged_end_of_a_segment_loses_nothing() {
    let io = log();
    damage(&io, per_segment() * len() + 4, b"\0");
    let opened = recover(&io, kept_power());
    assert_eq!(numbers(&opened.records), all_but(&[]));
    assert_eq!(opened.report.holes[0].end(), SEGMENT_LEN);
    drop(opened);
    assert_eq!(recover(&io, Known::NOTHING).report.holes, []);
}

#[test]
fn a_short_end_of_a_segment_takes_nothing_of_the_next_one_along() {
    let io = SimIo::new(2);
    let Opened { log, .. } = open(&io, ASYNC);
    let queue = QueueCursor::new(0);
    // Twenty bytes are left of the first segment.
    let bodies = [SEGMENT_LEN - record_len(b"", b"") - 20, 10, 10];
    for body in bodies {
        let body = vec![1; body as usize];
        let mut record = log.prepare(&message(0, &body, b"")).unwrap();
        log.append(&mut record, &queue).unwrap();
    }
    log.close().unwrap();
    damage(&io, SEGMENT_LEN - 16, b"\0");
    let opened = recover(&io, kept_power());
    assert_eq!(opened.records.len(), bodies.len());
    assert_eq!(opened.report.holes[0].end(), SEGMENT_LEN);
}

#[test]
fn a_whole_segment_may_be_missing() {
    let io = log();
    io.remove_file(&segment_path(&options(ASYNC).dir, SEGMENT_LEN))
        .unwrap();
    let lost: Vec<u64> = (per_segment()..2 * per_segment()).collect();
    let opened = recover(&io, kept_power());
    assert_eq!(numbers(&opened.records), all_but(&lost));
    assert_eq!(opened.report.holes[0].len, SEGMENT_LEN);
    assert_eq!(
        numbers(&recover(&io, Known::NOTHING).records),
        all_but(&lost)
    );
}

#[test]
fn above_what_is_known_to_be_synced_the_log_ends_at_the_first_damage() {
    let flushed = |number| Known {
        flushed: place(number),
        ..Known::NOTHING
    };
    for (known, lost) in [
        (Known::NOTHING, 3..COUNT),
        (flushed(3), 3..COUNT),
        // The damaged record was synced, and it was the last one.
        (flushed(4), 3..4),
        (flushed(10), 3..4),
    ] {
        let io = log();
        damage(&io, place(3) + 500, b"x");
        let opened = recover(&io, known);
        let lost: Vec<u64> = lost.collect();
        assert_eq!(numbers(&opened.records), all_but(&lost), "{known:?}");
        assert_eq!(opened.report.cut.is_some(), lost.len() > 1);
    }
}

#[test]
fn a_checkpoint_vouches_for_what_was_stored_before_it() {
    for (before_ms, lost) in [(START_MS, COUNT - 3), (START_MS + 1, 1)] {
        let io = log();
        damage(&io, place(3) + 500, b"x");
        let known = Known {
            flushed_before_ms: before_ms,
            ..Known::NOTHING
        };
        let opened = recover(&io, known);
        assert_eq!(numbers(&opened.records).len() as u64, COUNT - 1 - lost);
    }
}

#[test]
fn the_end_of_what_was_synced_is_kept_when_nothing_of_it_is_left() {
    let io = log();
    let end = place(COUNT - 1) + len();
    damage(&io, place(COUNT - 1), &vec![0; len() as usize]);
    let known = Known {
        flushed: end,
        ..Known::NOTHING
    };
    let opened = recover(&io, known);
    assert_eq!(
        (opened.report.end, opened.report.holes[0].len),
        (end, len())
    );
    // Without that knowledge nothing tells that there was a record.
    let io = log();
    damage(&io, place(COUNT - 1), &vec![0; len() as usize]);
    assert_eq!(recover(&io, kept_power()).report.end, place(COUNT - 1));
}

#[test]
fn stale_records_behind_the_end_are_no_records() {
    let stale_time = place(20) + STORE_TIMESTAMP_POSITION_V4 as u64;
    // Everything from the twentieth on is older than what is before.
    let io = log();
    for number in 20..COUNT {
        let time = place(number) + STORE_TIMESTAMP_POSITION_V4 as u64;
        damage(&io, time, &(START_MS - 1_000).to_be_bytes());
    }
    let opened = recover(&io, kept_power());
    assert_eq!(opened.report.end, place(20));
    assert!(matches!(
        opened.report.cut.unwrap().reason,
        Invalid::StoreTime { .. }
    ));
    // After a clean stop a step back of the clock is believed, unless the checkpoint names the
    // last record before it.
    for (last_store_ms, end) in [
        (None, place(COUNT - 1) + len()),
        (Some(START_MS), place(20)),
    ] {
        let io = log();
        damage(&io, stale_time, &(START_MS - 1_000).to_be_bytes());
        let known = Known {
            last_store_ms,
            ..Known::CLEAN
        };
        let opened = recover(&io, known);
        if last_store_ms.is_none() {
            assert_eq!((opened.report.end, opened.report.time_steps_back), (end, 1));
        } else {
            // The one stale record is passed over: those behind it are as new as before.
            assert_eq!(numbers(&opened.records), all_but(&[20]));
        }
    }
}

#[test]
fn what_was_written_over_synced_records_is_not_taken_for_them() {
    // Somebody has cut the log at the fifth record and written one: the rest is stale, and below
    // what was known to be synced before.
    let io = log();
    let time = place(5) + STORE_TIMESTAMP_POSITION_V4 as u64;
    damage(&io, time, &(START_MS + 1).to_be_bytes());
    let known = |flushed_last_ms| Known {
        flushed: place(COUNT - 1) + len(),
        flushed_last_ms,
        ..Known::NOTHING
    };
    assert_eq!(recover(&io, known(Some(START_MS))).report.end, place(6));
    let io = log();
    damage(&io, time, &(START_MS + 1).to_be_bytes());
    assert_eq!(recover(&io, known(None)).records.len() as u64, COUNT);
}

#[test]
fn a_queue_does_not_run_backwards() {
    let io = log();
    // The tenth message says that it is the fourth of its queue.
    damage(&io, place(10) + 20, &4_i64.to_be_bytes());
    let reason = recover(&io, Known::NOTHING).report.cut.unwrap().reason;
    let found = Invalid::QueueOffset {
        found: 4,
        previous: 9,
    };
    assert_eq!(reason, found);
}

#[test]
fn without_room_to_keep_aside_the_log_is_only_read() {
    for behind in [false, true] {
        let io = log();
        let known = if behind {
            damage(&io, place(30) + 500, b"x");
            Known::NOTHING
        } else {
            damage(&io, place(30) + 500, b"x");
            kept_power()
        };
        let before = io.operation_count();
        // As quarantine is the first to write, the first allocation of space is its own.
        io.fail_next("write", ErrorKind::StorageFull);
        let opened = recover(&io, known);
        assert!(io.operation_count() > before);
        assert!(opened.report.read_only.is_some());
        assert_eq!(opened.kept, [] as [std::path::PathBuf; 0]);
        let mut record = opened.log.prepare(&message(0, BODY, b"")).unwrap();
        let refused = opened.log.append(&mut record, &QueueCursor::new(0));
        assert!(
            matches!(refused, Err(AppendError::Failed(_))),
            "{refused:?}"
        );
        assert!(opened.log.record_at(place(29)).is_ok());
        drop(opened);
        // Once there is room it is recovered.
        let opened = recover(&io, known);
        assert_eq!(
            (opened.report.read_only, opened.kept.is_empty()),
            (None, false)
        );
    }
}

#[test]
fn a_hole_may_be_refused_before_anything_is_changed() {
    struct Strict;
    impl commitlog::Visitor for Strict {
        fn record(&mut self, _: &RecordView<'_>) -> Result<(), commitlog::CallerError> {
            Ok(())
        }
        fn hole(&mut self, _: &commitlog::Hole) -> Result<(), commitlog::CallerError> {
            Err("damage".into())
        }
    }
    let io = log();
    damage(&io, place(3) + 500, b"x");
    let path = segment_path(&options(ASYNC).dir, 0);
    let before = io.read(&path, SEGMENT_LEN).unwrap();
    let from = RecoverFrom {
        known: kept_power(),
        ..from_start()
    };
    let opening = commitlog::CommitLog::open(io.clone(), options(ASYNC), TestClock::new()).unwrap();
    let mut quarantine = commitlog::DirQuarantine::new(io.clone(), "/store/quarantine");
    let refused = opening.recover(&from, &mut Strict, &mut quarantine);
    assert!(matches!(refused, Err(LogError::Visit { .. })));
    assert_eq!(io.read(&path, SEGMENT_LEN).unwrap(), before);
}

//! Where a log ends, what is cut off, and where the scan starts.

use std::path::PathBuf;

use commitlog::{
    CallerError, CommitLog, CrcCheck, DirQuarantine, FlushMode, Invalid, Known, LogError, Piece,
    Quarantine, QueueCursor, RecoverFrom, Tail, recovery_start,
};
use message::layout::{PHYSICAL_OFFSET_POSITION, STORE_TIMESTAMP_POSITION_V4};
use message::{RecordError, RecordView};
use mmap_core::{Access, CrashStyle, Io, IoFile, SimIo};

use crate::common::{
    Opened, SEGMENT_LEN, START_MS, TestClock, from_start, message, open, options, record_len,
    segment_path, try_open,
};

const ASYNC: FlushMode = FlushMode::async_default();
const BODY: &[u8] = &[5; 1_000];

fn len() -> u64 {
    record_len(BODY, b"")
}

/// A closed log of `count` equal records.
fn log_of(io: &SimIo, count: usize) {
    let Opened { log, .. } = open(io, ASYNC);
    let queue = QueueCursor::new(0);
    for _ in 0..count {
        log.append(&mut log.prepare(&message(0, BODY, b"")).unwrap(), &queue)
            .unwrap();
    }
    log.close().unwrap();
}

fn path(base: u64) -> PathBuf {
    segment_path(&options(ASYNC).dir, base)
}

/// Writes over a file as a fault would.
fn damage(io: &SimIo, offset: u64, bytes: &[u8]) {
    let file = io
        .open(&path(offset - offset % SEGMENT_LEN), Access::ReadWrite)
        .unwrap();
    file.write_all_at(bytes, offset % SEGMENT_LEN).unwrap();
    file.sync_all().unwrap();
}

fn content(io: &SimIo, base: u64) -> Vec<u8> {
    io.read(&path(base), SEGMENT_LEN).unwrap()
}

/// Opens a log of ten records with some damage: where it ends, and why.
#[track_caller]
fn check_cut(offset: u64, bytes: &[u8], end: u64, reason: &Invalid) {
    let io = SimIo::new(2);
    log_of(&io, 10);
    damage(&io, offset, bytes);
    let before = content(&io, 0);
    let opened = open(&io, ASYNC);
    let cut = opened.report.cut.expect("a cut");
    assert_eq!((cut.offset, &cut.reason), (end, reason));
    assert_eq!(opened.records.len() as u64, end / len());
    assert_eq!(opened.log.max_offset(), end);
    // What was cut off is kept, byte for byte, with a note.
    let cut_bytes = &before[end as usize..(cut.offset + cut.len) as usize];
    assert_eq!(io.read(&opened.kept[0], SEGMENT_LEN).unwrap(), cut_bytes);
    let note = io
        .read(&opened.kept[0].with_extension("note"), 4096)
        .unwrap();
    let note = String::from_utf8(note).unwrap();
    assert!(note.contains(&format!("offset: {end}\n")), "{note}");
    assert!(note.contains(&format!("reason: {reason}\n")), "{note}");
    // And gone from the file.
    drop(opened.log);
    assert!(
        content(&io, 0)[end as usize..]
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(open(&io, ASYNC).report.cut, None);
}

#[test]
fn the_log_ends_at_the_first_bytes_that_are_not_its_next_record() {
    let last = 9 * len();
    let third = 3 * len();
    // Garbage behind the last record, as a Java broker's truncation leaves it.
    let garbage = [0xAB; 100];
    check_cut(
        10 * len(),
        &garbage,
        10 * len(),
        &Invalid::Record(RecordError::Magic(0xABAB_ABAB)),
    );
    // A hole, and something behind it.
    check_cut(12 * len(), b"x", 10 * len(), &Invalid::Unwritten);
    // A size that reaches beyond the segment.
    let found: u32 = 1 << 20;
    let left = SEGMENT_LEN - last;
    check_cut(
        last,
        &found.to_be_bytes(),
        last,
        &Invalid::Size { found, left },
    );
    // A record of another place.
    let elsewhere = (third + SEGMENT_LEN) as i64;
    check_cut(
        third + PHYSICAL_OFFSET_POSITION as u64,
        &elsewhere.to_be_bytes(),
        third,
        &Invalid::PhysicalOffset { found: elsewhere },
    );
    // A record stored before its predecessor.
    check_cut(
        third + STORE_TIMESTAMP_POSITION_V4 as u64,
        &(START_MS - 1).to_be_bytes(),
        third,
        &Invalid::StoreTime {
            found_ms: START_MS - 1,
            previous_ms: START_MS,
        },
    );
}

#[test]
fn one_flipped_bit_of_a_body_is_found() {
    let io = SimIo::new(2);
    log_of(&io, 10);
    io.flip_bit(&path(0), 4 * len() + 500, 3).unwrap();
    let opened = open(&io, ASYNC);
    let reason = opened.report.cut.unwrap().reason;
    assert!(
        matches!(reason, Invalid::Record(RecordError::BodyCrc { .. })),
        "{reason:?}"
    );
    assert_eq!(opened.records.len(), 4);
}

#[test]
fn a_missing_sector_of_the_properties_is_found_above_the_flushed_offset() {
    let properties = format!("KEYS\x01{}\x02", "k".repeat(3_000)).into_bytes();
    let opened_after_loss = |flushed| {
        let io = SimIo::new(2);
        let Opened { log, .. } = open(&io, ASYNC);
        let mut record = log.prepare(&message(0, b"x", &properties)).unwrap();
        log.append(&mut record, &QueueCursor::new(0)).unwrap();
        log.close().unwrap();
        damage(&io, 1_024, &[0; 512]);
        let known = Known {
            flushed,
            ..Known::NOTHING
        };
        let from = RecoverFrom {
            known,
            ..from_start()
        };
        try_open(&io, options(ASYNC), TestClock::new(), &from).unwrap()
    };
    let opened = opened_after_loss(0);
    assert_eq!(
        opened.report.cut.unwrap().reason,
        Invalid::Torn { offset: 1_024 }
    );
    let end = record_len(b"x", &properties);
    assert_eq!(opened_after_loss(end).records.len(), 1);
}

#[test]
fn properties_that_end_in_zeros_are_found_above_the_flushed_offset() {
    let properties = b"KEYS\x01key\x02TAGS\x01a-rather-long-tag\x02";
    let end = record_len(b"x", properties);
    let io = SimIo::new(2);
    let Opened { log, .. } = open(&io, ASYNC);
    let mut record = log.prepare(&message(0, b"x", properties)).unwrap();
    log.append(&mut record, &QueueCursor::new(0)).unwrap();
    log.close().unwrap();
    damage(&io, end - 5, &[0; 5]);
    let reason = open(&io, ASYNC).report.cut.unwrap().reason;
    assert_eq!(reason, Invalid::Torn { offset: end - 5 });
}

#[test]
fn a_clock_that_was_set_back_costs_nothing_below_the_flushed_offset() {
    let io = SimIo::new(2);
    log_of(&io, 10);
    let time = 3 * len() + STORE_TIMESTAMP_POSITION_V4 as u64;
    damage(&io, time, &(START_MS - 1_000).to_be_bytes());
    let from = RecoverFrom {
        known: Known::CLEAN,
        ..from_start()
    };
    let opened = try_open(&io, options(ASYNC), TestClock::new(), &from).unwrap();
    assert_eq!(
        (opened.records.len(), opened.report.time_steps_back),
        (10, 1)
    );
    assert_eq!(opened.report.cut, None);
}

#[test]
fn damage_in_the_middle_takes_later_segments_into_quarantine() {
    let io = SimIo::new(2);
    log_of(&io, 40);
    let per_segment = SEGMENT_LEN / len();
    damage(&io, 3 * len(), b"gone");
    let later: Vec<Vec<u8>> = (1..3)
        .map(|index| content(&io, index * SEGMENT_LEN))
        .collect();
    let opened = open(&io, ASYNC);
    assert_eq!(opened.records.len(), 3);
    assert_eq!(opened.kept.len(), 3, "{:?}", opened.kept);
    for (kept, before) in opened.kept[1..].iter().zip(&later) {
        let kept = io.read(kept, SEGMENT_LEN).unwrap();
        assert!(kept.len() as u64 > (per_segment - 5) * len());
        assert_eq!(kept[..], before[..kept.len()]);
        assert!(before[kept.len()..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(opened.log.segments().segments().len(), 1);
}

#[test]
fn the_scan_starts_where_it_is_told_and_trusts_what_is_before() {
    let io = SimIo::new(2);
    log_of(&io, 40);
    damage(&io, 3 * len(), b"gone");
    let per_segment = SEGMENT_LEN / len();
    let from = RecoverFrom {
        offset: SEGMENT_LEN,
        ..from_start()
    };
    let opened = try_open(&io, options(ASYNC), TestClock::new(), &from).unwrap();
    assert_eq!(opened.records.len() as u64, 40 - per_segment);
    assert_eq!(opened.report.records, 40 - per_segment);
    assert_eq!((opened.report.files, opened.report.cut), (2, None));
    assert_eq!(opened.report.bytes_scanned, opened.report.end - SEGMENT_LEN);
    drop(opened.log);

    let from = RecoverFrom {
        offset: 100 * SEGMENT_LEN,
        ..from_start()
    };
    let refused = try_open(&io, options(ASYNC), TestClock::new(), &from);
    assert!(matches!(
        refused.err(),
        Some(LogError::RecoveryStart { .. })
    ));
}

/// Found by `fault crash`: the blank record was taken out, though it was known to be synced. The next
/// opening took its zeros for damage and put it back, the one after that took it out again.
#[test]
fn the_log_goes_on_behind_a_blank_record_without_successor() {
    let io = SimIo::new(2);
    let per_segment = (SEGMENT_LEN / len()) as usize;
    log_of(&io, per_segment + 1);
    io.remove_file(&path(SEGMENT_LEN)).unwrap();
    let before = content(&io, 0);
    for flushed in [0, SEGMENT_LEN, 0] {
        let from = RecoverFrom {
            known: Known {
                flushed,
                ..Known::NOTHING
            },
            ..from_start()
        };
        let opened = try_open(&io, options(ASYNC), TestClock::new(), &from).unwrap();
        assert_eq!(
            (opened.report.end, opened.records.len()),
            (SEGMENT_LEN, per_segment)
        );
        assert_eq!((opened.report.holes, opened.report.cut), (Vec::new(), None));
        assert!(content(&io, 0) == before, "an opening changed the segment");
    }
    let opened = open(&io, ASYNC);
    let queue = QueueCursor::new(0);
    let mut small = opened.log.prepare(&message(0, b"small", b"")).unwrap();
    let appended = opened.log.append(&mut small, &queue).unwrap();
    assert_eq!(appended.physical_offset, SEGMENT_LEN);
    opened.log.close().unwrap();
    assert_eq!(open(&io, ASYNC).records.len(), per_segment + 1);
}

/// Found by `fault crash`: where nothing told yet that the machine has run on, what a failed sync had
/// lost was taken for synced, and the next power cut took it.
#[test]
fn what_a_failed_sync_has_lost_is_written_again() {
    let io = SimIo::new(2);
    let Opened { log, .. } = open(&io, ASYNC);
    let queue = QueueCursor::new(0);
    for _ in 0..3 {
        log.append(&mut log.prepare(&message(0, BODY, b"")).unwrap(), &queue)
            .unwrap();
    }
    io.fail_next("msync", std::io::ErrorKind::Other);
    log.flush_now().unwrap_err();
    let io = io.crash(CrashStyle::KillProcess);
    let opened = open(&io, ASYNC);
    assert_eq!((opened.records.len(), opened.log.flushed()), (3, 3 * len()));
    drop(opened);
    let io = io.crash(CrashStyle::LoseUnsynced);
    assert_eq!(open(&io, ASYNC).records.len(), 3);
}

#[test]
fn a_clean_stop_needs_no_look_behind_the_end() {
    let io = SimIo::new(2);
    log_of(&io, 10);
    let from = RecoverFrom {
        offset: 0,
        last_store_ms: 0,
        known: Known::CLEAN,
        crc: CrcCheck::Omit,
        tail: Tail::Zero,
    };
    let before = io.operation_count();
    let opened = try_open(&io, options(ASYNC), TestClock::new(), &from).unwrap();
    assert_eq!(opened.records.len(), 10);
    let count = io.operation_count() - before;
    assert!(count < 8, "{count} operations");
}

/// Gives up at its `calls`th call.
struct Unwilling {
    calls: usize,
}

impl Unwilling {
    fn call(&mut self) -> Result<(), CallerError> {
        self.calls = self.calls.checked_sub(1).ok_or("no room")?;
        Ok(())
    }
}

impl Quarantine for Unwilling {
    fn begin(&mut self, _piece: &Piece<'_>) -> Result<(), CallerError> {
        self.call()
    }

    fn write(&mut self, _bytes: &[u8]) -> Result<(), CallerError> {
        self.call()
    }

    fn finish(&mut self) -> Result<(), CallerError> {
        self.call()
    }
}

#[test]
fn nothing_changes_when_it_cannot_be_kept_aside() {
    let io = SimIo::new(2);
    log_of(&io, 40);
    damage(&io, 3 * len(), b"gone");
    let before: Vec<Vec<u8>> = (0..3)
        .map(|index| content(&io, index * SEGMENT_LEN))
        .collect();
    for calls in 0..9 {
        let opening = CommitLog::open(io.clone(), options(ASYNC), TestClock::new()).unwrap();
        let mut quarantine = Unwilling { calls };
        let mut visit = |_: &RecordView<'_>| -> Result<(), CallerError> { Ok(()) };
        let refused = opening.recover(&from_start(), &mut visit, &mut quarantine);
        assert!(
            matches!(refused, Err(LogError::Quarantine { .. })),
            "{calls}"
        );
        for (index, before) in before.iter().enumerate() {
            assert_eq!(&content(&io, index as u64 * SEGMENT_LEN), before, "{calls}");
        }
    }
    // The same for a visitor that refuses a record.
    let opening = CommitLog::open(io.clone(), options(ASYNC), TestClock::new()).unwrap();
    let mut quarantine = DirQuarantine::new(io.clone(), "/store/quarantine");
    let mut visit = |_: &RecordView<'_>| -> Result<(), CallerError> { Err("no".into()) };
    let refused = opening.recover(&from_start(), &mut visit, &mut quarantine);
    assert!(matches!(refused, Err(LogError::Visit { offset: 0, .. })));
    assert!(quarantine.kept().is_empty());
}

#[test]
fn recovery_starts_at_the_last_segment_that_the_checkpoint_covers() {
    let clock = TestClock::new();
    let io = SimIo::new(2);
    let Opened { log, .. } = try_open(&io, options(ASYNC), clock.clone(), &from_start()).unwrap();
    let queue = QueueCursor::new(0);
    for _ in 0..40 {
        log.append(&mut log.prepare(&message(0, BODY, b"")).unwrap(), &queue)
            .unwrap();
        clock.pass(std::time::Duration::from_millis(1));
    }
    let second_ms = log.first_store_timestamp(SEGMENT_LEN).unwrap().unwrap();
    assert_eq!(log.first_store_timestamp(0).unwrap(), Some(START_MS));
    assert_eq!(second_ms, START_MS + (SEGMENT_LEN / len()) as i64);
    let start = |checkpoint_ms| recovery_start(log.segments(), checkpoint_ms).unwrap();
    assert_eq!(start(0), 0);
    assert_eq!(start(second_ms - 1), 0);
    assert_eq!(start(second_ms), SEGMENT_LEN);
    assert_eq!(start(i64::MAX), 2 * SEGMENT_LEN);
}

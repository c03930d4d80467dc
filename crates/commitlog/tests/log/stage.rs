//! The staged path: what is seen when, how much may wait, and what the end of the process takes.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use commitlog::{AppendError, CommitLog, FlushMode, LogError, Next, QueueCursor, StageOptions};
use mmap_core::{CrashStyle, Io, SimIo};
use proptest::prelude::*;

use crate::common::{
    Opened, Record, SEGMENT_LEN, STAGED, TestClock, from_start, message, open, options, record_len,
    segment_path, try_open, visible_records,
};

const TICK: Duration = Duration::from_millis(200);

/// RocketMQ's intervals, on small buffers.
fn staged(change: impl FnOnce(&mut StageOptions)) -> FlushMode {
    let mut mode = FlushMode::staged_default();
    if let FlushMode::Staged { stage, .. } = &mut mode {
        stage.buffer_count = 2;
        stage.buffer_len = 4096;
        change(stage);
    }
    mode
}

fn open_at(
    io: &SimIo,
    flush: FlushMode,
    clock: &Arc<TestClock>,
    wait: Duration,
) -> CommitLog<SimIo> {
    let mut options = options(flush);
    options.segment_len = 16 * SEGMENT_LEN;
    options.allocate_step = options.segment_len;
    options.append_wait = wait;
    try_open(io, options, clock.clone(), &from_start())
        .unwrap()
        .log
}

fn append(log: &CommitLog<SimIo>, queue: &QueueCursor, len: usize) -> Result<u64, AppendError> {
    let body = vec![7; len];
    let mut record = log.prepare(&message(0, &body, b"")).unwrap();
    let appended = log.append(&mut record, queue)?;
    Ok(appended.physical_offset + u64::from(appended.len))
}

/// The first append finds no segment and asks for one.
fn open_with_a_segment(io: &SimIo, flush: FlushMode, clock: &Arc<TestClock>) -> CommitLog<SimIo> {
    let log = open_at(io, flush, clock, Duration::ZERO);
    let refused = append(&log, &QueueCursor::new(0), 1);
    assert!(matches!(refused, Err(AppendError::Busy { .. })));
    log.step_commit();
    log
}

#[test]
fn what_is_staged_is_seen_when_it_is_committed_and_durable_when_it_is_flushed() {
    let (io, clock) = (SimIo::new(1), TestClock::new());
    let log = open_with_a_segment(&io, staged(|_| ()), &clock);
    let queue = QueueCursor::new(0);
    let end = append(&log, &queue, 100).unwrap();
    assert_eq!(
        (log.max_offset(), log.visible(), log.flushed()),
        (end, 0, 0)
    );
    assert!(log.record_at(0).is_err() && log.readable_from(0).is_none());
    assert!(matches!(log.step_commit(), Next::After(_)));
    assert_eq!(log.visible(), 0, "too little, and too early");

    clock.pass(TICK);
    assert_eq!(log.step_commit(), Next::After(TICK));
    assert_eq!((log.visible(), log.flushed()), (end, 0));
    assert_eq!(visible_records(&log).len(), 1);
    clock.pass(Duration::from_secs(10));
    log.step_flush();
    assert_eq!(log.flushed(), end);
}

#[test]
fn pages_are_committed_at_once_and_less_at_the_thorough_interval() {
    let (io, clock) = (SimIo::new(1), TestClock::new());
    let flush = staged(|stage| {
        stage.buffer_count = 8;
        stage.thorough_interval = Duration::from_secs(1);
    });
    let log = open_with_a_segment(&io, flush, &clock);
    let queue = QueueCursor::new(0);
    let mut end = append(&log, &queue, 3 * 4096).unwrap();
    clock.pass(TICK);
    log.step_commit();
    assert_eq!(log.visible(), 0, "three pages wait for a fourth");
    end = end.max(append(&log, &queue, 4096).unwrap());
    log.step_commit();
    assert_eq!(log.visible(), end, "without a tick");

    end = append(&log, &queue, 1).unwrap();
    for _ in 0..3 {
        clock.pass(TICK);
        log.step_commit();
        assert!(log.visible() < end);
    }
    clock.pass(TICK);
    log.step_commit();
    assert_eq!(log.visible(), end);
}

#[test]
fn no_more_is_staged_than_there_are_buffers() {
    for is_fast_failing in [false, true] {
        let (io, clock) = (SimIo::new(1), TestClock::new());
        let flush = staged(|stage| stage.is_fast_failing = is_fast_failing);
        let log = open_with_a_segment(&io, flush, &clock);
        let queue = QueueCursor::new(0);
        let body_len = 1000;
        let fit = 2 * 4096 / record_len(&vec![0; body_len], b"");
        for _ in 0..fit {
            append(&log, &queue, body_len).unwrap();
        }
        let pool = log.stage_pool().unwrap();
        assert_eq!((pool.available(), pool.buffer_count()), (0, 2));
        let refused = append(&log, &queue, body_len);
        assert!(
            matches!(
                refused,
                Err(AppendError::Busy {
                    limit: 8192,
                    option: "stage.buffer_count",
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(queue.next(), fit as i64, "the refused append took nothing");
        // The refusal has asked for the commit, whatever the time.
        log.step_commit();
        assert_eq!(pool.available(), 2);
        append(&log, &queue, body_len).unwrap();
        // What is larger than all buffers together waits until it is alone.
        assert!(append(&log, &queue, 5 * 4096).is_err());
        log.step_commit();
        let end = append(&log, &queue, 5 * 4096).unwrap();
        log.flush_now().unwrap();
        assert_eq!((log.visible(), log.flushed()), (end, end));
        assert_eq!(visible_records(&log).len() as i64, queue.next());
    }
}

#[test]
fn only_who_fails_fast_does_not_wait_for_a_buffer() {
    for is_fast_failing in [false, true] {
        let io = SimIo::new(1);
        let flush = staged(|stage| stage.is_fast_failing = is_fast_failing);
        // Nobody has started threads: an append that may wait commits by itself.
        let log = open_at(&io, flush, &TestClock::new(), Duration::from_secs(30));
        let queue = QueueCursor::new(0);
        let refused = (0..20).find_map(|_| append(&log, &queue, 1000).err());
        match refused {
            None => assert!(!is_fast_failing && log.visible() > 0),
            Some(AppendError::Busy { .. }) => assert!(is_fast_failing),
            Some(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_first_failed_write_ends_the_log() {
    let io = SimIo::new(3);
    let Opened { log, .. } = open(&io, STAGED);
    let queue = QueueCursor::new(0);
    append(&log, &queue, 10).unwrap();
    log.flush_now().unwrap();
    append(&log, &queue, 10).unwrap();
    io.fail_next("write", ErrorKind::Other);
    assert_eq!(log.step_commit(), Next::OnWake);
    assert!(log.failure().is_some());
    assert!(matches!(
        append(&log, &queue, 10),
        Err(AppendError::Failed(_))
    ));
    assert_eq!(log.step_commit(), Next::OnWake);
    assert!(matches!(log.flush_now(), Err(LogError::Failed(_))));
    assert!(log.close().is_err());
    assert_eq!(visible_records(&log).len(), 1);
}

#[test]
fn a_disk_that_is_full_in_spite_of_its_promise_is_tried_again() {
    let (io, clock) = (SimIo::new(3), TestClock::new());
    let log = open_with_a_segment(&io, staged(|_| ()), &clock);
    let queue = QueueCursor::new(0);
    let end = append(&log, &queue, 10).unwrap();
    io.fail_next("write", ErrorKind::StorageFull);
    clock.pass(TICK);
    assert!(matches!(log.step_commit(), Next::After(_)));
    for _ in 0..2 {
        let refused = append(&log, &queue, 10);
        assert!(
            matches!(refused, Err(AppendError::Full { .. })),
            "{refused:?}"
        );
    }
    assert_eq!((log.max_offset(), log.visible()), (end, 0));
    assert!(log.failure().is_none());
    // Without a tick: what was left is tried again.
    log.step_commit();
    assert_eq!(log.visible(), end);
    append(&log, &queue, 10).unwrap();
    log.close().unwrap();
    let reopened = open_at(&io, staged(|_| ()), &clock, Duration::ZERO);
    assert_eq!(visible_records(&reopened).len(), 2);
}

/// The process dies in the middle of any operation: what was committed is there, of what was staged
/// a first part at most, and nothing that is half of a record.
#[test]
fn a_kill_in_the_middle_of_a_commit_leaves_whole_records() {
    let mut cut_count = 0;
    for seed in 0..400_u64 {
        let io = SimIo::new(seed);
        let Opened { log, .. } = open(&io, STAGED);
        let queue = QueueCursor::new(0);
        let mut issued = Vec::new();
        let mut committed = 0;
        io.crash_at(1 + seed % 29, CrashStyle::KillProcess);
        for index in 0..60 {
            let body = vec![index as u8 + 1; (index * 97 + seed as usize * 31) % 700];
            let properties = format!("KEYS\x01{index}\x02");
            let properties = if index % 3 == 0 { "" } else { &properties }.as_bytes();
            let mut record = log.prepare(&message(0, &body, properties)).unwrap();
            let appended = log.append(&mut record, &queue).unwrap();
            issued.push(Record {
                offset: appended.physical_offset,
                queue_id: 0,
                queue_offset: appended.queue_offset,
                store_ms: appended.store_timestamp_ms,
                body,
                properties: properties.to_vec(),
            });
            if index % 5 == 4 {
                log.step_commit();
            }
            if io.is_wrecked() {
                break;
            }
            committed = log.visible();
        }
        let Some(wreck) = io.wreck() else {
            continue;
        };
        let after = open(&wreck, STAGED);
        cut_count += usize::from(after.report.cut.is_some());
        let found = &after.records;
        assert!(
            issued.starts_with(found),
            "seed {seed}: other records than were put"
        );
        let kept = issued.iter().filter(|record| record.offset < committed);
        assert!(
            found.len() >= kept.count(),
            "seed {seed}: committed and lost"
        );
        let again = open(&wreck, STAGED);
        assert_eq!(
            (&again.records, again.report.cut),
            (found, None),
            "seed {seed}"
        );
    }
    assert!(cut_count > 10, "{cut_count}");
}

fn files(io: &SimIo) -> Vec<Vec<u8>> {
    let dir = std::path::Path::new("/store/commitlog");
    let bases = (0..).map(|index| segment_path(dir, index * SEGMENT_LEN));
    bases
        .map_while(|path| io.read(&path, SEGMENT_LEN).ok())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However the commits fall, the files are those of the mapped path, byte for byte.
    #[test]
    fn the_files_are_those_of_the_mapped_path(
        puts in prop::collection::vec((0..6_000_usize, any::<bool>()), 1..60),
    ) {
        let (staged, mapped) = (SimIo::new(1), SimIo::new(2));
        let logs = [
            open(&staged, STAGED).log,
            open(&mapped, FlushMode::async_default()).log,
        ];
        let queues = [QueueCursor::new(0), QueueCursor::new(0)];
        for (index, (len, is_committed)) in puts.into_iter().enumerate() {
            let body = vec![index as u8; len];
            for (log, queue) in logs.iter().zip(&queues) {
                let properties = format!("KEYS\x01{index}\x02").into_bytes();
                let mut record = log.prepare(&message(0, &body, &properties)).unwrap();
                log.append(&mut record, queue).unwrap();
            }
            if is_committed {
                logs[0].step_commit();
                prop_assert_eq!(logs[0].visible(), logs[1].visible());
            }
        }
        for log in &logs {
            log.close().unwrap();
        }
        let (staged, mapped) = (files(&staged), files(&mapped));
        prop_assert!(!staged.is_empty());
        prop_assert!(staged == mapped, "the files differ");
    }
}

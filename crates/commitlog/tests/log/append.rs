//! The rules of appending: sizes, rolling, batches, stamps, tickets.

use std::sync::atomic::Ordering;
use std::time::Duration;

use commitlog::{AppendError, FlushError, FlushMode, Misplaced, Next, QueueCursor, ReadError};
use message::layout::MAGIC_BLANK;
use message::{CrcProperty, Parsed, RecordView, SysFlag};
use mmap_core::SimIo;

use crate::common::{
    Opened, SEGMENT_LEN, STAGED, START_MS, TestClock, from_start, message, open, options,
    record_len, try_open, visible_records,
};

const MODES: [FlushMode; 3] = [
    FlushMode::async_default(),
    FlushMode::sync_default(),
    STAGED,
];

#[test]
fn records_follow_each_other_and_roll_behind_a_blank_record() {
    for mode in MODES {
        let Opened { log, .. } = open(&SimIo::new(1), mode);
        let queue = QueueCursor::new(7);
        // Exactly 8 bytes are left behind the second one: it still fits.
        let body = vec![b'x'; (SEGMENT_LEN / 2 - 4 - record_len(&[], b"")) as usize];
        let len = record_len(&body, b"");
        let mut offsets = Vec::new();
        for expected in 7..10 {
            let appended = log
                .append(&mut log.prepare(&message(0, &body, b"")).unwrap(), &queue)
                .unwrap();
            assert_eq!(
                (appended.queue_offset, u64::from(appended.len)),
                (expected, len)
            );
            offsets.push(appended.physical_offset);
        }
        assert_eq!(offsets, [0, len, SEGMENT_LEN], "{mode:?}");
        assert_eq!(log.flush_now().unwrap(), SEGMENT_LEN + len);
        assert_eq!(log.visible(), SEGMENT_LEN + len);
        let blank = log.slice(2 * len, 8).unwrap();
        assert_eq!(blank[..4], 8_u32.to_be_bytes());
        assert_eq!(blank[4..], MAGIC_BLANK.to_be_bytes());
        assert!(
            log.slice(2 * len, 9).is_none(),
            "no slice crosses a segment"
        );
        assert_eq!(visible_records(&log).len(), 3);
        log.close().unwrap();
    }
}

#[test]
fn a_record_that_fits_no_segment_is_refused_and_spends_nothing() {
    for mode in MODES {
        let Opened { log, .. } = open(&SimIo::new(1), mode);
        let queue = QueueCursor::new(0);
        // With the 8 bytes of the blank record behind it, one byte too many.
        let body = vec![0; (SEGMENT_LEN - 7 - record_len(&[], b"")) as usize];
        let refused = log.append(&mut log.prepare(&message(0, &body, b"")).unwrap(), &queue);
        assert!(
            matches!(refused, Err(AppendError::TooLarge { .. })),
            "{refused:?}"
        );
        assert_eq!((queue.next(), log.max_offset()), (0, 0));
        assert_eq!(log.segments().segments().len(), 0);

        let largest = &body[1..];
        log.append(&mut log.prepare(&message(0, largest, b"")).unwrap(), &queue)
            .unwrap();
        assert_eq!((queue.next(), log.max_offset()), (1, SEGMENT_LEN - 8));
    }
}

#[test]
fn a_batch_is_in_one_segment_or_not_at_all() {
    for mode in MODES {
        let Opened { log, .. } = open(&SimIo::new(1), mode);
        let queue = QueueCursor::new(100);
        let body = vec![1; 3000];
        let len = record_len(&body, b"");
        let prepare = || log.prepare(&message(0, &body, b"")).unwrap();
        let mut batch: Vec<_> = (0..3).map(|_| prepare()).collect();
        assert!(matches!(
            log.append_batch(&mut [], &queue),
            Err(AppendError::EmptyBatch)
        ));

        let first = log.append_batch(&mut batch, &queue).unwrap();
        assert_eq!(
            (first.physical_offset, first.queue_offset, first.count),
            (0, 100, 3)
        );
        // Three more do not fit into what is left, though two would.
        let second = log.append_batch(&mut batch, &queue).unwrap();
        assert_eq!(
            (second.physical_offset, second.queue_offset),
            (SEGMENT_LEN, 103)
        );
        assert_eq!(second.len, 3 * len);

        let mut too_large: Vec<_> = (0..6).map(|_| prepare()).collect();
        let refused = log.append_batch(&mut too_large, &queue);
        assert!(matches!(refused, Err(AppendError::TooLarge { .. })));
        assert_eq!(queue.next(), 106);

        log.flush_now().unwrap();
        let offsets: Vec<i64> = visible_records(&log)
            .iter()
            .map(|record| record.queue_offset)
            .collect();
        assert_eq!(offsets, [100, 101, 102, 103, 104, 105]);
    }
}

#[test]
fn store_times_do_not_follow_a_clock_that_is_set_back() {
    let clock = TestClock::new();
    let io = SimIo::new(1);
    let options = options(FlushMode::async_default());
    let opened = try_open(&io, options.clone(), clock.clone(), &from_start()).unwrap();
    let queue = QueueCursor::new(0);
    let append = |log: &commitlog::CommitLog<SimIo>| {
        let mut record = log.prepare(&message(0, b"x", b"")).unwrap();
        log.append(&mut record, &queue).unwrap().store_timestamp_ms
    };
    assert_eq!(append(&opened.log), START_MS);
    clock.wall_ms.store(START_MS - 5_000, Ordering::Relaxed);
    assert_eq!(append(&opened.log), START_MS);
    clock.wall_ms.store(START_MS + 1, Ordering::Relaxed);
    assert_eq!(append(&opened.log), START_MS + 1);
    opened.log.close().unwrap();

    // Nor after a restart.
    clock.wall_ms.store(START_MS - 5_000, Ordering::Relaxed);
    let opened = try_open(&io, options, clock, &from_start()).unwrap();
    assert_eq!(append(&opened.log), START_MS + 1);
}

#[test]
fn records_can_carry_a_crc_of_all_their_bytes() {
    let mut options = options(FlushMode::async_default());
    options.limits.crc_property = CrcProperty::Append;
    let io = SimIo::new(1);
    let Opened { log, .. } = try_open(&io, options, TestClock::new(), &from_start()).unwrap();
    let mut record = log.prepare(&message(0, b"body", b"KEYS\x01k\x02")).unwrap();
    let appended = log.append(&mut record, &QueueCursor::new(5)).unwrap();
    let slice = log.record_at(appended.physical_offset).unwrap();
    let Parsed::Record(view) = RecordView::parse(&slice).unwrap() else {
        panic!("no record")
    };
    view.verify_crc_property().unwrap();
    assert_eq!(view.properties().find("KEYS"), Some("k"));
}

#[test]
fn prepared_and_rolled_back_messages_take_no_queue_offset() {
    const ROLLBACK: SysFlag = SysFlag(0xC);
    let Opened { log, .. } = open(&SimIo::new(1), FlushMode::async_default());
    let queue = QueueCursor::new(3);
    let mut half = message(0, b"x", b"");
    half.sys_flag = ROLLBACK;
    let appended = log
        .append(&mut log.prepare(&half).unwrap(), &queue)
        .unwrap();
    assert_eq!((appended.queue_offset, queue.next()), (0, 3));
}

#[test]
fn in_sync_mode_nothing_is_seen_before_it_is_synced() {
    let Opened { log, .. } = open(&SimIo::new(1), FlushMode::sync_default());
    let queue = QueueCursor::new(0);
    let append = || {
        log.append(&mut log.prepare(&message(0, b"x", b"")).unwrap(), &queue)
            .unwrap()
    };
    let (first, second) = (append(), append());
    assert!(first.ticket.try_ready().is_none());
    assert_eq!(log.visible(), 0);
    assert!(log.record_at(0).is_err());

    // One step syncs both.
    assert_eq!(log.step_flush(), Next::OnWake);
    assert!(first.ticket.try_ready().unwrap().is_ok());
    let end = second.physical_offset + u64::from(second.len);
    assert_eq!(second.ticket.wait().unwrap().flushed, end);
    assert_eq!(log.visible(), end);
    assert_eq!(visible_records(&log).len(), 2);
}

#[test]
fn a_ticket_times_out_and_its_record_stays() {
    let clock = TestClock::new();
    let io = SimIo::new(1);
    let sync = options(FlushMode::Sync {
        timeout: Duration::from_secs(5),
    });
    let Opened { log, .. } = try_open(&io, sync, clock.clone(), &from_start()).unwrap();
    let mut record = log.prepare(&message(0, b"x", b"")).unwrap();
    let appended = log.append(&mut record, &QueueCursor::new(0)).unwrap();
    clock.pass(Duration::from_millis(4_999));
    assert!(appended.ticket.try_ready().is_none());
    clock.pass(Duration::from_millis(1));
    assert!(matches!(
        appended.ticket.wait(),
        Err(FlushError::Timeout { flushed: 0, .. })
    ));
    log.step_flush();
    assert_eq!(visible_records(&log).len(), 1);
}

#[test]
fn waiting_bytes_are_bounded() {
    let mut options = options(FlushMode::sync_default());
    options.pending_len_max = 1_000;
    options.append_wait = Duration::ZERO;
    let io = SimIo::new(1);
    let Opened { log, .. } = try_open(&io, options, TestClock::new(), &from_start()).unwrap();
    let queue = QueueCursor::new(0);
    let append =
        |body: &[u8]| log.append(&mut log.prepare(&message(0, body, b"")).unwrap(), &queue);
    // The first segment has to be made, which an append that must not wait does not wait for.
    assert!(matches!(append(b"x"), Err(AppendError::Busy { .. })));
    log.step_flush();
    append(&[0; 600]).unwrap();
    let refused = append(&[0; 600]);
    assert!(
        matches!(refused, Err(AppendError::Busy { limit: 1_000, .. })),
        "{refused:?}"
    );
    assert_eq!(queue.next(), 1);
    log.step_flush();
    // One that is larger than the bound alone gets in when nothing waits.
    append(&[0; 2_000]).unwrap();
    assert_eq!(queue.next(), 2);
}

#[test]
fn a_timed_flush_follows_rocketmqs_rules() {
    let clock = TestClock::new();
    let io = SimIo::new(1);
    let mut options = options(FlushMode::async_default());
    options.segment_len = 4 * SEGMENT_LEN;
    let Opened { log, .. } = try_open(&io, options, clock.clone(), &from_start()).unwrap();
    let queue = QueueCursor::new(0);
    let append = |len: usize| {
        let body = vec![0; len];
        log.append(&mut log.prepare(&message(0, &body, b"")).unwrap(), &queue)
            .unwrap();
    };
    append(100);
    assert_eq!(log.step_flush(), Next::After(Duration::from_millis(500)));
    // Less than four pages: left for the thorough flush.
    clock.pass(Duration::from_millis(500));
    assert_eq!(log.step_flush(), Next::After(Duration::from_millis(500)));
    assert_eq!(log.flushed(), 0);
    append(4 * 4096);
    clock.pass(Duration::from_millis(500));
    log.step_flush();
    let flushed = log.flushed();
    assert_eq!(flushed, log.max_offset());
    append(100);
    clock.pass(Duration::from_secs(8));
    log.step_flush();
    assert_eq!(log.flushed(), flushed);
    clock.pass(Duration::from_secs(2));
    log.step_flush();
    assert_eq!(log.flushed(), log.max_offset());
}

#[test]
fn reading_checks_that_a_record_starts_there() {
    let Opened { log, .. } = open(&SimIo::new(1), FlushMode::async_default());
    let queue = QueueCursor::new(0);
    let body = vec![0; 9_000];
    for _ in 0..2 {
        log.append(&mut log.prepare(&message(0, &body, b"")).unwrap(), &queue)
            .unwrap();
    }
    let len = record_len(&body, b"");
    assert_eq!(log.record_at(0).unwrap().len() as u64, len);
    assert!(matches!(
        log.record_at(1),
        Err(ReadError::NotARecord { offset: 1, .. })
    ));
    assert!(matches!(
        log.record_at(len),
        Err(ReadError::Misplaced {
            found: Misplaced::Blank,
            ..
        })
    ));
    assert!(matches!(
        log.record_at(1 << 40),
        Err(ReadError::OutOfRange { min: 0, .. })
    ));
}

#[test]
fn trimming_removes_whole_segments_and_leaves_slices() {
    let Opened { log, .. } = open(&SimIo::new(1), FlushMode::async_default());
    let queue = QueueCursor::new(0);
    let body = vec![3; 9_000];
    for _ in 0..4 {
        log.append(&mut log.prepare(&message(0, &body, b"")).unwrap(), &queue)
            .unwrap();
    }
    let held = log.record_at(0).unwrap();
    assert_eq!(log.trim_to(2 * SEGMENT_LEN).unwrap().segment_count, 0);
    log.flush_now().unwrap();
    assert_eq!(log.trim_to(2 * SEGMENT_LEN + 1).unwrap().segment_count, 2);
    assert_eq!(log.min_offset(), 2 * SEGMENT_LEN);
    assert!(matches!(
        log.record_at(0),
        Err(ReadError::OutOfRange { .. })
    ));
    assert!(RecordView::parse(&held).is_ok());
    assert_eq!(visible_records(&log).len(), 2);
}

#[test]
fn a_closed_log_takes_nothing_and_still_reads() {
    for mode in MODES {
        let Opened { log, .. } = open(&SimIo::new(1), mode);
        let queue = QueueCursor::new(0);
        let mut record = log.prepare(&message(0, b"x", b"")).unwrap();
        let appended = log.append(&mut record, &queue).unwrap();
        let end = log.close().unwrap();
        assert_eq!(end, u64::from(appended.len));
        assert!(appended.ticket.wait().is_ok(), "close flushes what waits");
        assert!(matches!(
            log.append(&mut record, &queue),
            Err(AppendError::Closed)
        ));
        assert_eq!(queue.next(), 1);
        assert_eq!(log.close().unwrap(), end);
        assert_eq!(visible_records(&log).len(), 1);
    }
}

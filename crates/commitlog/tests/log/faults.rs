//! Failing and full devices.

use std::io::ErrorKind;

use commitlog::{AppendError, FlushError, FlushMode, LogError, QueueCursor};
use mmap_core::SimIo;

use crate::common::{Opened, STAGED, message, open, visible_records};

#[test]
fn the_first_failed_sync_ends_a_sync_log() {
    for operation in ["sync_data", "write"] {
        let io = SimIo::new(3);
        let Opened { log, .. } = open(&io, FlushMode::sync_default());
        let queue = QueueCursor::new(0);
        let append = || log.append(&mut log.prepare(&message(0, b"x", b"")).unwrap(), &queue);
        let kept = append().unwrap();
        log.step_flush();
        assert!(kept.ticket.wait().is_ok());

        let lost = append().unwrap();
        io.fail_next(operation, ErrorKind::Other);
        log.step_flush();
        let outcome = lost.ticket.wait();
        assert!(
            matches!(outcome, Err(FlushError::Failed(_))),
            "{operation}: {outcome:?}"
        );
        assert!(matches!(append(), Err(AppendError::Failed(_))));
        assert_eq!(queue.next(), 2, "the refused append took nothing");
        assert!(log.failure().is_some());

        // A later sync would succeed, and prove nothing: it is not tried.
        log.step_flush();
        assert!(matches!(log.flush_now(), Err(LogError::Failed(_))));
        assert!(log.close().is_err());
        assert_eq!(
            visible_records(&log).len(),
            1,
            "reads go on up to the last flushed offset"
        );
    }
}

#[test]
fn the_first_failed_sync_ends_an_async_log() {
    let io = SimIo::new(3);
    let Opened { log, .. } = open(&io, FlushMode::async_default());
    let queue = QueueCursor::new(0);
    let append = || log.append(&mut log.prepare(&message(0, b"x", b"")).unwrap(), &queue);
    append().unwrap();
    log.flush_now().unwrap();
    append().unwrap();
    assert_eq!(visible_records(&log).len(), 2);

    io.fail_next("msync", ErrorKind::Other);
    assert!(matches!(log.flush_now(), Err(LogError::Failed(_))));
    assert!(matches!(append(), Err(AppendError::Failed(_))));
    assert_eq!(queue.next(), 2);
    // The kernel may have dropped the pages of the second one.
    assert_eq!(visible_records(&log).len(), 1);
}

#[test]
fn a_full_disk_refuses_and_writing_resumes_by_itself() {
    for mode in [
        FlushMode::async_default(),
        FlushMode::sync_default(),
        STAGED,
    ] {
        let io = SimIo::new(5);
        let Opened { log, .. } = open(&io, mode);
        let queue = QueueCursor::new(0);
        let body = [1; 1_500];
        let append = || log.append(&mut log.prepare(&message(0, &body, b"")).unwrap(), &queue);
        io.space_limit(3 * 16 * 1024);
        let mut taken = 0;
        let refused = loop {
            match append() {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(refused, AppendError::Full { .. }),
            "{mode:?}: {refused:?}"
        );
        assert_eq!(queue.next(), taken);
        let end = log.max_offset();
        // Refused again and again, and what is there can be read and flushed.
        for _ in 0..3 {
            assert!(matches!(append(), Err(AppendError::Full { .. })));
        }
        assert_eq!(log.max_offset(), end);
        log.flush_now().unwrap();
        assert_eq!(visible_records(&log).len() as i64, taken);

        io.space_limit(1 << 20);
        assert_eq!(append().unwrap().queue_offset, taken);
        log.close().unwrap();
        let reopened = open(&io, mode);
        assert_eq!(reopened.records.len() as i64, taken + 1);
        assert_eq!(reopened.report.cut, None);
    }
}

/// Whatever operation fails first: nothing acknowledged is missing, and the log can be opened.
#[test]
fn any_operation_may_fail() {
    for mode in [
        FlushMode::async_default(),
        FlushMode::sync_default(),
        STAGED,
    ] {
        for nth in 1..60 {
            let io = SimIo::new(nth);
            let Opened { log, .. } = open(&io, mode);
            io.fail_nth("*", nth, ErrorKind::Other);
            let queue = QueueCursor::new(0);
            let body = [7; 2_000];
            let mut flushed = Vec::new();
            for _ in 0..20 {
                let before = queue.next();
                match log.append(&mut log.prepare(&message(0, &body, b"")).unwrap(), &queue) {
                    Ok(appended) => {
                        assert_eq!(appended.queue_offset, before);
                        log.step_prepare();
                        if log.flush_now().is_ok() {
                            flushed.push(appended.queue_offset);
                        }
                    }
                    Err(_) => assert_eq!(queue.next(), before),
                }
            }
            drop(log);
            io.clear_faults();
            let reopened = open(&io.crash(mmap_core::CrashStyle::LoseUnsynced), mode);
            let found: Vec<i64> = reopened
                .records
                .iter()
                .map(|record| record.queue_offset)
                .collect();
            assert!(
                found.starts_with(&flushed),
                "{mode:?} {nth}: {flushed:?} {found:?}"
            );
            assert!(found.iter().copied().eq(0..found.len() as i64));
        }
    }
}

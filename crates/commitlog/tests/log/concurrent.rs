//! Many threads on one log, on the real disk, with the service threads.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use commitlog::{
    CommitLog, CommitLogOptions, FlushMode, LogWarmUp, QueueCursor, StageOptions, SystemClock,
};
use message::{Parsed, RecordView};
use mmap_core::{OsIo, SimIo, WarmUp};

use crate::common::{Record, SEGMENT_LEN, from_start, message, open, try_open};

const THREADS: usize = 4;
const APPENDS: usize = 300;

const ASYNC: FlushMode = FlushMode::Async {
    interval: Duration::from_millis(5),
    least_pages: 0,
    thorough_interval: Duration::from_millis(5),
};

#[test]
fn appenders_and_a_follower_async() {
    appenders_and_a_follower(ASYNC, LogWarmUp::Window);
}

#[test]
fn appenders_and_a_follower_sync() {
    appenders_and_a_follower(FlushMode::sync_default(), LogWarmUp::Window);
}

#[test]
fn appenders_and_a_follower_while_files_are_warmed_up() {
    let touch = WarmUp::Touch {
        sync_every: Some(4),
    };
    appenders_and_a_follower(ASYNC, LogWarmUp::Whole(touch));
    appenders_and_a_follower(ASYNC, LogWarmUp::Whole(WarmUp::Populate));
    appenders_and_a_follower(ASYNC, LogWarmUp::None);
    appenders_and_a_follower(FlushMode::sync_default(), LogWarmUp::Whole(touch));
    appenders_and_a_follower(FlushMode::sync_default(), LogWarmUp::Whole(WarmUp::Zeros));
}

#[test]
fn appenders_and_a_follower_staged() {
    let stage = StageOptions {
        buffer_count: 2,
        buffer_len: 4096,
        interval: Duration::from_millis(1),
        ..StageOptions::DEFAULT
    };
    appenders_and_a_follower(
        FlushMode::Staged {
            stage,
            interval: Duration::from_millis(5),
            least_pages: 0,
            thorough_interval: Duration::from_millis(5),
        },
        LogWarmUp::Window,
    );
}

fn appenders_and_a_follower(flush: FlushMode, warm_up: LogWarmUp) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = CommitLogOptions::new(dir.path().join("commitlog"));
    options.segment_len = 64 * 1024;
    options.allocate_step = 8 * 1024;
    options.pending_len_max = 8 * 1024;
    options.flush = flush;
    options.warm_up = warm_up;
    let clock = Arc::new(SystemClock::new());
    let log = try_open(&OsIo, options.clone(), clock.clone(), &from_start())
        .unwrap()
        .log;
    let services = log.start_services().unwrap();
    let queues: [QueueCursor; 3] = Default::default();
    let stop = AtomicBool::new(false);

    let seen = std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(&log, &stop));
        let appenders: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (log, queues) = (&log, &queues);
                scope.spawn(move || append_some(log, queues, thread))
            })
            .collect();
        for appender in appenders {
            appender.join().unwrap();
        }
        // What is staged can be seen once it is committed.
        log.flush_now().unwrap();
        stop.store(true, Ordering::Release);
        log.wake_waiters();
        follower.join().unwrap()
    });
    assert_eq!(seen.len(), THREADS * APPENDS);
    let mut next: HashMap<i32, i64> = HashMap::new();
    for record in &seen {
        let next = next.entry(record.queue_id).or_default();
        assert_eq!(
            record.queue_offset, *next,
            "queue offsets ascend with physical offsets"
        );
        *next += 1;
    }
    assert!(
        seen.windows(2)
            .all(|pair| pair[0].store_ms <= pair[1].store_ms)
    );

    services.stop();
    log.close().unwrap();
    let reopened = try_open(&OsIo, options, clock, &from_start()).unwrap();
    assert_eq!(reopened.records, seen);
    assert_eq!(reopened.report.cut, None);
}

fn append_some(log: &CommitLog, queues: &[QueueCursor; 3], thread: usize) {
    for index in 0..APPENDS {
        let queue_id = (index + thread) % queues.len();
        let body = vec![thread as u8; 200 + (index * 37) % 900];
        let mut record = log.prepare(&message(queue_id as i32, &body, b"")).unwrap();
        let appended = log.append(&mut record, &queues[queue_id]).unwrap();
        let end = appended.physical_offset + u64::from(appended.len);
        let outcome = if index % 2 == 0 {
            appended.ticket.wait()
        } else {
            block_on(appended.ticket)
        };
        outcome.unwrap();
        if end <= log.visible() {
            assert!(log.record_at(appended.physical_offset).is_ok());
        }
    }
}

/// Walks behind the appenders as dispatch does.
fn follow(log: &CommitLog, stop: &AtomicBool) -> Vec<Record> {
    let segment_len = log.options().segment_len;
    let mut records = Vec::new();
    let mut offset = 0;
    loop {
        let visible = log.wait_visible(offset, Duration::from_secs(30), stop);
        if visible <= offset {
            assert!(
                stop.load(Ordering::Acquire),
                "nothing became visible for 30 s"
            );
            return records;
        }
        let slice = log.readable_from(offset).unwrap();
        let mut position = 0;
        while position < slice.len() {
            match RecordView::parse(&slice[position..]).unwrap() {
                Parsed::Record(view) => {
                    assert_eq!(view.physical_offset() as u64, offset + position as u64);
                    records.push(Record::of(&view));
                    position += view.total_size();
                }
                Parsed::Blank { .. } => {
                    position = (segment_len - offset % segment_len) as usize;
                }
            }
        }
        offset += position as u64;
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park_timeout(Duration::from_secs(30)),
        }
    }
}

/// Who has hushed the log may wait for a segment; what others have stored does not wait with it.
#[test]
fn a_roll_wakes_waiters_though_the_log_is_hushed() {
    let log = open(&SimIo::new(1), ASYNC).log;
    let queue = QueueCursor::new(0);
    let stop = AtomicBool::new(false);
    let (sender, woken) = channel();
    log.hush();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Ordering::Acquire) {
                seen = log.wait_visible(seen, Duration::from_secs(30), &stop);
                if sender.send(seen).is_err() {
                    break;
                }
            }
        });
        // Now and then the waiter still looks around when the first record comes.
        for _ in 0..200 {
            let end_before_roll = loop {
                let end = log.max_offset();
                let mut record = log.prepare(&message(0, &[1; 5_000], b"")).unwrap();
                let appended = log.append(&mut record, &queue).unwrap();
                if appended.physical_offset / SEGMENT_LEN > end / SEGMENT_LEN {
                    break end;
                }
            };
            while woken
                .recv_timeout(Duration::from_secs(20))
                .expect("nobody was woken")
                < end_before_roll
            {}
        }
        stop.store(true, Ordering::Release);
        log.wake_waiters();
        drop(woken);
    });
}

//! Readers of one queue: each with a position of its own, in threads of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mmap_core::OsIo;
use page_queue::{Durability, PageQueue, PageQueueError, PageQueueOptions};

fn options(dir: &tempfile::TempDir, durability: Durability) -> PageQueueOptions {
    PageQueueOptions {
        page_len: 16 * 1024,
        index_page_items: 256,
        allocate_step: 4096,
        mapped_len_max: Some(64 * 1024),
        unmap_after: Some(Duration::from_millis(2)),
        durability,
        ..PageQueueOptions::new(dir.path().join("queue"))
    }
}

#[test]
fn a_reader_goes_on_where_it_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir, Durability::EachPush);
    let (queue, _) = PageQueue::open(OsIo, &options).unwrap();
    for number in 0..10 {
        queue.push(&[number]).unwrap();
    }
    let mut first = queue.reader("first").unwrap();
    let mut second = queue.reader("second").unwrap();
    assert!(matches!(
        queue.reader("first"),
        Err(PageQueueError::ReaderInUse { .. })
    ));
    assert!(queue.remove_reader("first").is_err());
    for _ in 0..6 {
        first.pop().unwrap();
    }
    assert_eq!(first.waiting_count(), 4);
    first.commit_to(4).unwrap();
    assert!(first.commit_to(11).is_err());
    second.pop().unwrap();
    second.commit().unwrap();
    assert_eq!(queue.trim_read().unwrap(), 1);
    drop((first, second, queue));

    let (queue, _) = PageQueue::open(OsIo, &options).unwrap();
    let mut first = queue.reader("first").unwrap();
    assert_eq!(*first.pop().unwrap().unwrap(), [4]);
    assert_eq!((first.position(), first.committed()), (5, 4));
    drop(first);
    assert_eq!(queue.reader("first").unwrap().position(), 4);
    assert!(queue.remove_reader("second").unwrap());
    assert!(!queue.remove_reader("second").unwrap());
    assert_eq!(queue.readers(), [("first".to_owned(), 4)]);
    assert_eq!(queue.reader("new").unwrap().position(), queue.first());
    for name in ["", ".", "..", "a/b", "a.tmp", "ä", &"x".repeat(101)] {
        let refusal = queue.reader(name).expect_err("refused");
        assert!(
            matches!(refusal, PageQueueError::ReaderName { .. }),
            "{name}"
        );
    }
}

/// Two pushers, two readers, and one who does what is due.
fn check_threads(durability: Durability, count: u64) {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir, durability);
    let (queue, _) = PageQueue::open(OsIo, &options).unwrap();
    let readers = ["one", "two"].map(|name| queue.reader(name).unwrap());
    let (queue, done) = (&queue, AtomicBool::new(false));
    let start = Instant::now();
    thread::scope(|scope| {
        let pushers = [0_u64, 1].map(|pusher| {
            scope.spawn(move || {
                for index in 0..count / 2 {
                    let mut item = [pusher, index].map(u64::to_be_bytes).concat();
                    item.resize(16 + index as usize * 31 % 900, 7);
                    queue.push(&item).unwrap();
                }
            })
        });
        let readers = readers.map(|mut reader| {
            scope.spawn(move || {
                let mut next = [0, 0];
                while next != [count / 2, count / 2] {
                    assert!(start.elapsed() < Duration::from_secs(120), "{next:?}");
                    let Some(item) = reader.pop().unwrap() else {
                        thread::yield_now();
                        continue;
                    };
                    // Each pusher's items come in its order.
                    let field =
                        |at: usize| u64::from_be_bytes(item[at..at + 8].try_into().unwrap());
                    let pusher = field(0) as usize;
                    assert_eq!(field(8), next[pusher]);
                    next[pusher] += 1;
                    if item.number() % 50 == 0 {
                        reader.commit().unwrap();
                    }
                }
                assert_eq!(reader.missed_count(), 0);
                reader.commit().unwrap();
            })
        });
        let housekeeper = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                queue.step(start.elapsed()).unwrap();
                queue.trim_read().unwrap();
                thread::yield_now();
            }
        });
        for worker in pushers.into_iter().chain(readers) {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Release);
        housekeeper.join().unwrap();
    });
    assert_eq!(queue.end(), count);
    queue.trim_read().unwrap();
    assert!(queue.is_empty());
    queue.close().unwrap();
}

#[test]
fn threads_push_and_read_at_once() {
    check_threads(Durability::Interval(Duration::from_millis(5)), 20_000);
}

#[test]
fn threads_push_durably_and_read_at_once() {
    check_threads(Durability::EachPush, 300);
}

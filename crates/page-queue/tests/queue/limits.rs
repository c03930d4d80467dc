//! Sizes: of items, of pages, of the queue, of what is mapped.

use std::time::Duration;

use mmap_core::OsIo;
use page_queue::{Durability, PageQueue, PageQueueError, PageQueueOptions, WhenFull};

fn options(dir: &tempfile::TempDir) -> PageQueueOptions {
    PageQueueOptions {
        page_len: 4096,
        index_page_items: 16,
        allocate_step: 4096,
        durability: Durability::OnFlush,
        ..PageQueueOptions::new(dir.path().join("queue"))
    }
}

fn open(options: &PageQueueOptions) -> PageQueue {
    PageQueue::open(OsIo, options).unwrap().0
}

#[test]
fn items_fill_pages_to_the_last_byte_and_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir);
    let queue = open(&options);
    // A full page, a page of two, an empty item at its end, one that starts the next page.
    let lens = [4096, 4000, 96, 0, 1, 4096, 0];
    for (number, len) in lens.into_iter().enumerate() {
        let number = number as u64;
        assert_eq!(queue.push(&vec![number as u8; len]).unwrap(), number);
    }
    assert!(matches!(
        queue.push(&[0; 4097]),
        Err(PageQueueError::TooLarge {
            len: 4097,
            page_len: 4096
        })
    ));
    drop(queue);
    let (queue, report) = PageQueue::open(OsIo, &options).unwrap();
    assert_eq!(
        (report.end, report.checked_count, report.cut_len),
        (7, 7, 0)
    );
    for (number, len) in lens.into_iter().enumerate() {
        let item = queue.get(number as u64).unwrap();
        assert!(*item == vec![number as u8; len][..]);
    }
}

#[test]
fn a_queue_at_its_limit_refuses_until_something_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir);
    options.size_max = Some(10 * (100 + 32));
    let queue = open(&options);
    for number in 0..10 {
        assert_eq!(queue.push(&[number; 100]).unwrap(), u64::from(number));
    }
    let refusal = queue.push(b"").expect_err("full");
    assert!(refusal.is_full());
    assert!(
        matches!(
            refusal,
            PageQueueError::Full {
                len: 0,
                size: 1320,
                size_max: 1320
            }
        ),
        "{refusal}"
    );
    assert_eq!(queue.trim_to(1).unwrap(), 1);
    assert_eq!(queue.push(&[10; 100]).unwrap(), 10);
    assert!(queue.push(b"x").is_err());
}

#[test]
fn a_queue_at_its_limit_drops_the_oldest_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir);
    options.size_max = Some(20_000);
    options.when_full = WhenFull::DropOldest;
    let queue = open(&options);
    let mut reader = queue.reader("slow").unwrap();
    assert!(reader.pop().unwrap().is_none());
    for number in 0..200_u64 {
        queue.push(&[number as u8; 1000]).unwrap();
    }
    assert!(queue.size() <= 20_000);
    assert!(queue.len() >= 14, "{} items", queue.len());
    let first = queue.first();
    assert_eq!(reader.pop().unwrap().unwrap().number(), first);
    assert_eq!(reader.missed_count(), first);
    let pages = mmap_core::Io::list(&OsIo, &options.dir.join("items")).unwrap();
    assert!(pages.len() <= 7, "{} pages", pages.len());
    assert!(matches!(
        queue.push(&[0; 4097]),
        Err(PageQueueError::TooLarge { .. })
    ));
    drop((reader, queue));
    let queue = open(&options);
    assert_eq!(queue.end(), 200);
    assert_eq!(*queue.get(199).unwrap(), [199; 1000]);
}

#[test]
fn a_limit_below_a_page_leaves_room_for_one_item_at_every_place() {
    for when_full in [WhenFull::Reject, WhenFull::DropOldest] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(&dir);
        options.size_max = Some(1000 + 32);
        options.when_full = when_full;
        let queue = open(&options);
        for number in 0..50_u64 {
            // The free end of a page is no part of an empty queue.
            assert_eq!(queue.push(&[number as u8; 1000]).unwrap(), number);
            assert_eq!(queue.size(), 1032);
            match when_full {
                WhenFull::Reject => {
                    assert!(queue.push(b"").is_err_and(|error| error.is_full()));
                    assert_eq!(queue.trim_to(number + 1).unwrap(), 1);
                    assert_eq!(queue.size(), 0);
                }
                WhenFull::DropOldest => assert_eq!(queue.first(), number),
            }
        }
        let refusal = queue.push(&[0; 1001]).expect_err("never fits");
        assert!(
            matches!(refusal, PageQueueError::Full { len: 1001, .. }),
            "{refusal}"
        );
    }
}

#[test]
fn items_that_are_held_outlive_their_page() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir);
    let queue = open(&options);
    for number in 0..20 {
        queue.push(&[number; 1000]).unwrap();
    }
    let held = queue.get(3).unwrap();
    assert_eq!(queue.trim_to(20).unwrap(), 20);
    assert!(queue.is_empty());
    let pages = mmap_core::Io::list(&OsIo, &options.dir.join("items")).unwrap();
    assert_eq!(pages.len(), 1, "the last one stays");
    assert_eq!(*held, [3; 1000]);
    assert_eq!(held.into_bytes().len(), 1000);
    queue.close().unwrap();
    drop(queue);
    let queue = open(&options);
    assert_eq!((queue.first(), queue.end()), (20, 20));
    assert_eq!(queue.push(b"next").unwrap(), 20);
}

#[test]
fn the_middle_is_not_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir);
    options.mapped_len_max = Some(3 * 4096);
    options.unmap_after = Some(Duration::from_secs(10));
    let queue = open(&options);
    for number in 0..200 {
        queue.push(&[number; 1000]).unwrap();
    }
    // Of each kind of page.
    let most = 2 * 3 * 4096;
    for number in 0..200 {
        assert_eq!(*queue.get(u64::from(number)).unwrap(), [number; 1000]);
        assert!(queue.mapped_len() <= most + 4096, "the budget and the tail");
    }
    let mut reader = queue.reader("reader").unwrap();
    reader.pop().unwrap();
    reader.seek(100);
    assert_eq!(*reader.peek().unwrap().unwrap(), [100; 1000]);
    queue.step(Duration::from_secs(5)).unwrap();
    let step = queue.step(Duration::from_secs(100)).unwrap();
    assert!(step.unmapped_count > 0);
    // The reader's page of each kind, and the last one, with the one prepared behind it.
    assert!(
        queue.mapped_len() <= 3 * (4096 + 16 * 32),
        "{}",
        queue.mapped_len()
    );
}

#[test]
fn a_queue_is_opened_with_what_it_was_made_with() {
    let dir = tempfile::tempdir().unwrap();
    let made = options(&dir);
    open(&made).push(b"x").unwrap();
    for (field, change) in [
        (
            "page_len",
            PageQueueOptions {
                page_len: 8192,
                ..made.clone()
            },
        ),
        (
            "index_page_items",
            PageQueueOptions {
                index_page_items: 8,
                ..made.clone()
            },
        ),
    ] {
        let refusal = PageQueue::open(OsIo, &change).expect_err("refused");
        assert!(
            matches!(&refusal, PageQueueError::OtherSizes { field: named, .. } if *named == field),
            "{refusal}"
        );
    }
    for change in [
        PageQueueOptions {
            page_len: 0,
            ..made.clone()
        },
        PageQueueOptions {
            page_len: 1 << 32,
            ..made.clone()
        },
        PageQueueOptions {
            index_page_items: 0,
            ..made.clone()
        },
        PageQueueOptions {
            allocate_step: 0,
            ..made.clone()
        },
        PageQueueOptions {
            first_number: u64::MAX,
            ..made.clone()
        },
    ] {
        let refusal = PageQueue::open(OsIo, &change).expect_err("refused");
        assert!(
            matches!(refusal, PageQueueError::Options { .. }),
            "{refusal}"
        );
    }
    assert_eq!(open(&made).end(), 1);
}

//! A billion items: by arithmetic, over files that are mostly holes. The bytes are written as the
//! crate's documentation says, by hand.

use std::path::Path;
use std::time::Instant;

use crc32fast::hash;
use mmap_core::{Io, IoFile, OsIo};
use page_queue::{PageQueue, PageQueueError, PageQueueOptions};
use segment_queue::segment_name;

const BILLION: u64 = 1_000_000_000;
const ITEM_LEN: u64 = 1024;
const PAGE_LEN: u64 = 1 << 31;
const INDEX_PAGE_ITEMS: u64 = 1 << 26;

#[test]
fn numbers_go_on_over_a_billion() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = PageQueueOptions::new(dir.path().join("queue"));
    options.first_number = BILLION - 3;
    options.index_page_items = 1000;
    options.page_len = 4096;
    let (queue, report) = PageQueue::open(OsIo, &options).unwrap();
    assert_eq!((report.first, report.end), (BILLION - 3, BILLION - 3));
    for number in BILLION - 3..BILLION + 5 {
        assert_eq!(queue.push(&number.to_be_bytes()).unwrap(), number);
    }
    assert!(matches!(
        queue.get(BILLION - 4),
        Err(PageQueueError::OutOfRange { .. })
    ));
    drop(queue);
    // Only a new queue begins where the option says.
    options.first_number = 0;
    let (queue, report) = PageQueue::open(OsIo, &options).unwrap();
    assert_eq!((report.first, report.end), (BILLION - 3, BILLION + 5));
    let mut reader = queue.reader("reader").unwrap();
    for number in BILLION - 3..BILLION + 5 {
        assert_eq!(*reader.pop().unwrap().unwrap(), number.to_be_bytes());
    }
}

fn create_pages(dir: &Path, page_len: u64, end: u64) {
    OsIo.create_dir_all(dir).unwrap();
    for index in 0..end.div_ceil(page_len) {
        let path = dir.join(segment_name(index * page_len));
        OsIo.create(&path, page_len).unwrap();
    }
}

fn write(dir: &Path, page_len: u64, offset: u64, bytes: &[u8]) {
    let path = dir.join(segment_name(offset - offset % page_len));
    let file = OsIo.open(&path, mmap_core::Access::ReadWrite).unwrap();
    file.write_all_at(bytes, offset % page_len).unwrap();
}

fn item(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(ITEM_LEN as usize / 8)
}

/// Writes an item and its index entry in their places.
fn write_item(dir: &Path, number: u64) {
    let (offset, item) = (number * ITEM_LEN, item(number));
    write(&dir.join("items"), PAGE_LEN, offset, &item);
    let mut entry = offset.to_be_bytes().to_vec();
    entry.extend((number as i64).to_be_bytes());
    entry.extend((ITEM_LEN as u32).to_be_bytes());
    entry.extend(hash(&item).to_be_bytes());
    entry.extend(0x464D_5049_u32.to_be_bytes());
    let crc = hash(&[&number.to_be_bytes(), &entry[..]].concat());
    entry.extend(crc.to_be_bytes());
    write(
        &dir.join("index"),
        INDEX_PAGE_ITEMS * 32,
        number * 32,
        &entry,
    );
}

fn write_state(dir: &Path) {
    let mut state = 0x464D_5051_u32.to_be_bytes().to_vec();
    state.extend(1_u32.to_be_bytes());
    for field in [
        PAGE_LEN,
        INDEX_PAGE_ITEMS,
        0,
        BILLION,
        BILLION * ITEM_LEN,
        BILLION - 1,
    ] {
        state.extend(field.to_be_bytes());
    }
    state.extend(1_u32.to_be_bytes());
    state.extend(hash(&state).to_be_bytes());
    let file = OsIo.create(&dir.join("state"), 0).unwrap();
    file.write_all_at(&state, 0).unwrap();
}

#[test]
fn a_terabyte_of_a_billion_items_opens_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    create_pages(&dir.join("items"), PAGE_LEN, BILLION * ITEM_LEN);
    create_pages(&dir.join("index"), INDEX_PAGE_ITEMS * 32, BILLION * 32);
    let numbers = [0, 1, 123_456_789, 500_000_000, BILLION - 1];
    numbers.iter().for_each(|number| write_item(dir, *number));
    write_state(dir);
    let mut options = PageQueueOptions::new(dir);
    options.page_len = PAGE_LEN;
    options.index_page_items = INDEX_PAGE_ITEMS;
    options.mapped_len_max = Some(4 * PAGE_LEN);

    let start = Instant::now();
    let (queue, report) = PageQueue::open(OsIo, &options).unwrap();
    println!("a billion items opened in {:?}", start.elapsed());
    assert_eq!(
        (report.first, report.end, report.checked_count),
        (0, BILLION, 0)
    );
    for number in numbers {
        let found = queue.get(number).unwrap();
        assert!(*found == item(number)[..]);
        assert_eq!(found.time_ms(), number as i64);
    }
    assert!(matches!(
        queue.get(777_777_777),
        Err(PageQueueError::Damaged { .. })
    ));
    // The middle of all is asked first.
    let middle = BILLION / 2;
    assert!(
        queue.find_time(middle as i64).is_err(),
        "its neighbours are holes"
    );
    assert_eq!(queue.push(&item(BILLION)).unwrap(), BILLION);
    assert!(*queue.get(BILLION).unwrap() == item(BILLION)[..]);
    assert!(queue.mapped_len() <= 10 * PAGE_LEN);
    assert_eq!(queue.trim_to(BILLION - 1).unwrap(), BILLION - 1);
    assert_eq!(queue.size(), 2 * (ITEM_LEN + 32));
    queue.close().unwrap();
}

//! Bits that change on the device are reported; they take no other item along and never panic.

use std::path::{Path, PathBuf};

use mmap_core::{CrashStyle, Io, SimIo};
use page_queue::{Durability, PageQueue, PageQueueError, PageQueueOptions};

const ITEM_LEN: usize = 100;
const COUNT: u64 = 12;

fn options() -> PageQueueOptions {
    PageQueueOptions {
        page_len: 1000,
        index_page_items: 100,
        durability: Durability::OnFlush,
        ..PageQueueOptions::new("/queue")
    }
}

/// A queue of twelve items, closed or not.
fn filled(is_closed: bool) -> SimIo {
    let io = SimIo::new(9);
    let (queue, _) = PageQueue::open(io.clone(), &options()).unwrap();
    for number in 0..COUNT {
        queue
            .push_at(&[number as u8; ITEM_LEN], number as i64)
            .unwrap();
    }
    let mut reader = queue.reader("reader").unwrap();
    for _ in 0..2 {
        reader.pop().unwrap();
        reader.commit().unwrap();
    }
    if is_closed {
        queue.close().unwrap();
    }
    drop((queue, reader));
    io
}

fn page(kind: &str, index: u64, page_len: u64) -> PathBuf {
    Path::new("/queue")
        .join(kind)
        .join(segment_queue::segment_name(index * page_len))
}

/// The numbers that cannot be read.
fn damaged(queue: &PageQueue<SimIo>) -> Vec<u64> {
    (queue.first()..queue.end())
        .filter(|&number| match queue.get(number) {
            Ok(item) => {
                assert_eq!(*item, [number as u8; ITEM_LEN]);
                false
            }
            Err(PageQueueError::Damaged { number: named, .. }) => named == number,
            Err(error) => panic!("{error}"),
        })
        .collect()
}

#[test]
fn a_changed_bit_of_a_closed_queue_damages_its_item_only() {
    for bit in (0..COUNT * 32 * 8).step_by(5) {
        let io = filled(true);
        let path = page("index", 0, 3200);
        io.flip_bit(&path, bit / 8, (bit % 8) as u32).unwrap();
        let (queue, report) = PageQueue::open(io, &options()).unwrap();
        assert_eq!((report.end, report.cut_len), (COUNT, 0));
        assert_eq!(damaged(&queue), [bit / 8 / 32]);
        assert!(
            queue.find_time(5).is_ok_and(|number| number == 5)
                || matches!(queue.find_time(5), Err(PageQueueError::Damaged { .. }))
        );
        queue.trim_to(7).unwrap();
        assert_eq!(queue.push(&[COUNT as u8; ITEM_LEN]).unwrap(), COUNT);
    }
    for number in 0..COUNT {
        let io = filled(true);
        let path = page("items", number / 10, 1000);
        io.flip_bit(&path, number % 10 * 100 + 99, 3).unwrap();
        let (queue, _) = PageQueue::open(io, &options()).unwrap();
        assert_eq!(damaged(&queue), [number]);
        let mut reader = queue.reader("reader").unwrap();
        reader.seek(number);
        assert!(reader.pop().is_err());
        assert_eq!(reader.position(), number, "it stays in front of it");
        reader.seek(number + 1);
        assert!(reader.pop().is_ok());
    }
}

#[test]
fn the_end_of_a_queue_that_was_not_closed_is_the_first_item_that_is_not_whole() {
    for number in 0..COUNT {
        let io = filled(false);
        let path = page("items", number / 10, 1000);
        io.flip_bit(&path, number % 10 * 100, 0).unwrap();
        // What the mark covers is not cut.
        let (queue, report) = PageQueue::open(io.clone(), &options()).unwrap();
        assert_eq!((report.end, report.checked_count), (number, number));
        assert!(report.cut_len > 0);
        assert!(damaged(&queue).is_empty());
        assert_eq!(queue.reader("reader").unwrap().committed(), number.min(2));
        assert_eq!(report.readers_set_back.len(), usize::from(number < 2));
        assert_eq!(queue.push(&[number as u8; ITEM_LEN]).unwrap(), number);
        drop(queue);
        let (queue, report) = PageQueue::open(io, &options()).unwrap();
        assert_eq!((report.end, report.cut_len), (number + 1, 0));
        assert!(damaged(&queue).is_empty());
    }
}

#[test]
fn a_reader_set_back_does_not_skip_what_takes_the_place_of_lost_items() {
    let io = SimIo::new(9);
    let (queue, _) = PageQueue::open(io.clone(), &options()).unwrap();
    let mut reader = queue.reader("reader").unwrap();
    for number in 0..6 {
        queue.push(&[number; 10]).unwrap();
        reader.pop().unwrap();
    }
    reader.commit().unwrap();
    // Too little for a mark.
    queue.flush().unwrap();
    drop((queue, reader));
    io.flip_bit(&page("items", 0, 1000), 30, 1).unwrap();
    let each = PageQueueOptions {
        durability: Durability::EachPush,
        ..options()
    };
    let (queue, report) = PageQueue::open(io.clone(), &each).unwrap();
    assert_eq!(report.end, 3);
    assert_eq!(report.readers_set_back, ["reader"]);
    for number in 3..9 {
        queue.push(&[100 + number; 10]).unwrap();
    }
    let io = io.crash(CrashStyle::LoseUnsynced);
    let (queue, report) = PageQueue::open(io, &options()).unwrap();
    assert_eq!(report.end, 9);
    let mut reader = queue.reader("reader").unwrap();
    assert_eq!(*reader.pop().unwrap().unwrap(), [103; 10]);
}

#[test]
fn what_was_marked_is_not_cut() {
    let io = SimIo::new(9);
    let (queue, _) = PageQueue::open(io.clone(), &options()).unwrap();
    for number in 0..COUNT {
        queue.push(&[number as u8; ITEM_LEN]).unwrap();
        queue.flush().unwrap();
    }
    drop(queue);
    io.flip_bit(&page("items", 0, 1000), 250, 1).unwrap();
    let (queue, report) = PageQueue::open(io, &options()).unwrap();
    assert_eq!(report.end, COUNT);
    assert!(report.checked_count < 4, "{report:?}");
    assert_eq!(damaged(&queue), [2]);
}

#[test]
fn a_damaged_state_is_named_and_can_do_without() {
    let io = filled(true);
    let state = Path::new("/queue/state");
    io.flip_bit(state, 40, 2).unwrap();
    let refusal = PageQueue::open(io.clone(), &options()).expect_err("refused");
    assert!(refusal.to_string().contains("/queue/state"), "{refusal}");
    io.remove_file(state).unwrap();
    let (queue, report) = PageQueue::open(io.clone(), &options()).unwrap();
    assert_eq!(
        (report.first, report.end, report.checked_count),
        (0, COUNT, COUNT)
    );
    // Trimmed, and without a state again: what the pages tell.
    queue.trim_to(COUNT).unwrap();
    queue.close().unwrap();
    drop(queue);
    io.remove_file(state).unwrap();
    let (_, report) = PageQueue::open(io, &options()).unwrap();
    assert_eq!((report.first, report.end), (10, COUNT));
}

#[test]
fn a_reader_with_one_damaged_slot_falls_back_and_with_two_is_named() {
    let io = filled(true);
    let path = Path::new("/queue/readers/reader");
    // The position after its making is synced; the two commits went to the other slot.
    io.flip_bit(path, 4096 + 20, 0).unwrap();
    let (queue, _) = PageQueue::open(io.clone(), &options()).unwrap();
    assert_eq!(queue.readers(), [("reader".to_owned(), 0)]);
    drop(queue);
    io.flip_bit(path, 20, 0).unwrap();
    let refusal = PageQueue::open(io.clone(), &options()).expect_err("refused");
    assert!(refusal.to_string().contains("readers/reader"), "{refusal}");
    io.remove_file(path).unwrap();
    assert!(PageQueue::open(io, &options()).is_ok());
}

#[test]
fn missing_pages_are_named() {
    for (kind, page_len) in [("items", 1000), ("index", 3200)] {
        let io = filled(true);
        for index in 0..2 {
            let _ = io.remove_file(&page(kind, index, page_len));
        }
        let refusal = PageQueue::open(io, &options()).expect_err("refused");
        assert!(
            matches!(refusal, PageQueueError::MissingPages { .. }),
            "{refusal}"
        );
    }
}

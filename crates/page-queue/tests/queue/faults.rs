//! Each operation of the file system fails once: nothing that was acknowledged is lost, and what
//! passes by itself passes.

use std::io::ErrorKind;
use std::time::Duration;

use mmap_core::{CrashStyle, SimIo};
use page_queue::{Durability, PageQueue, PageQueueError, PageQueueOptions};

fn options(durability: Durability) -> PageQueueOptions {
    PageQueueOptions {
        page_len: 2_000,
        index_page_items: 10,
        allocate_step: 4096,
        durability,
        ..PageQueueOptions::new("/queue")
    }
}

fn item(salt: u64) -> Vec<u8> {
    vec![salt as u8 | 1; 150 + salt as usize * 13 % 400]
}

/// Some work, of which anything may fail; returns what was acknowledged, by number.
fn work(io: &SimIo, options: &PageQueueOptions) -> Vec<(u64, Vec<u8>)> {
    let mut acknowledged = Vec::new();
    let Ok((queue, _)) = PageQueue::open(io.clone(), options) else {
        return acknowledged;
    };
    let mut reader = queue.reader("reader").ok();
    for salt in 0..30 {
        let item = item(salt);
        if let Ok(number) = queue.push_at(&item, 5) {
            assert!(acknowledged.last().is_none_or(|(last, _)| *last < number));
            acknowledged.push((number, item));
        }
        if let Some(reader) = &mut reader {
            let _ = reader.pop();
            if salt % 4 == 0 {
                let _ = reader.commit();
            }
        }
        if salt % 7 == 0 {
            let _ = queue.flush();
            let _ = queue.trim_read();
            let _ = queue.step(Duration::from_secs(salt));
        }
    }
    let _ = queue.close();
    acknowledged
}

#[test]
fn any_operation_may_fail() {
    for durability in [Durability::EachPush, Durability::OnFlush] {
        let options = options(durability);
        let io = SimIo::new(1);
        assert_eq!(work(&io, &options).len(), 30);
        let count = io.operation_count();
        for kind in [
            ErrorKind::Other,
            ErrorKind::StorageFull,
            ErrorKind::OutOfMemory,
        ] {
            for nth in 1..=count {
                let io = SimIo::new(nth);
                io.fail_nth("*", nth, kind);
                let acknowledged = work(&io, &options);
                io.clear_faults();
                // A power cut takes what was not synced, which only synced pushes forbid.
                let io = match durability {
                    Durability::EachPush => io.crash(CrashStyle::LoseUnsynced),
                    _ => io.crash(CrashStyle::KillProcess),
                };
                let (queue, _) = PageQueue::open(io.clone(), &options).unwrap();
                for (number, item) in acknowledged {
                    if number >= queue.first() {
                        let found = queue.get(number).unwrap();
                        assert!(*found == item[..], "{kind} at {nth}: item {number} differs");
                    }
                }
                queue.push(b"works again").unwrap();
                queue.close().unwrap();
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_and_passes() {
    let io = SimIo::new(1);
    let options = options(Durability::OnFlush);
    let (queue, _) = PageQueue::open(io.clone(), &options).unwrap();
    io.space_limit(40_000);
    let mut count = 0;
    let refusal = loop {
        match queue.push(&item(count)) {
            Ok(number) => assert_eq!(number, count),
            Err(error) => break error,
        }
        count += 1;
        assert!(count < 1_000);
    };
    assert!(refusal.is_full(), "{refusal}");
    assert!(matches!(refusal, PageQueueError::Pages(_)));
    assert!(queue.push(&item(count)).is_err_and(|error| error.is_full()));
    assert_eq!(queue.end(), count);
    // Trimming makes room: the state is small, and pages come back.
    io.space_limit(44_096);
    queue.trim_to(count / 2).unwrap();
    assert_eq!(queue.push(&item(count)).unwrap(), count);
    for number in count / 2..=count {
        assert!(*queue.get(number).unwrap() == item(number)[..]);
    }
}

#[test]
fn a_failed_sync_ends_writing_and_not_reading() {
    let io = SimIo::new(1);
    let options = options(Durability::EachPush);
    let (queue, _) = PageQueue::open(io.clone(), &options).unwrap();
    queue.push(b"good").unwrap();
    io.fail_next("msync", ErrorKind::Other);
    assert!(queue.push(b"unknown").is_err());
    assert!(queue.push(b"refused").is_err());
    assert_eq!(queue.end(), 1, "what is not synced is not shown");
    assert_eq!(&*queue.get(0).unwrap(), b"good");
    drop(queue);
    let io = io.crash(CrashStyle::LoseUnsynced);
    let (queue, report) = PageQueue::open(io, &options).unwrap();
    assert_eq!(report.end, 1);
    assert_eq!(queue.push(b"next").unwrap(), 1);
}

//! Messages on their way out: the same bytes whichever way they go, from the page cache or not.

use std::fs::File;
use std::path::Path;

use remoting::{Command, ResponseCode};

use crate::support::{InProcess, Pulled, connect, pull_request, send, until};

const TOPIC: &str = "Read";
const QUEUES: i32 = 2;

/// Fills queues whose messages alternate in the log and lie in several segments of 64 KiB.
fn fill(store: &Path, extra: &str) -> Vec<Vec<Vec<u8>>> {
    let broker = InProcess::start(store, extra);
    let mut connection = connect(&broker.address());
    let mut bodies = vec![Vec::new(); QUEUES as usize];
    for number in 0..400_u32 {
        // Two of one queue and one of the other, so that some are neighbours.
        let queue_id = i32::from(number % 3 == 0);
        let body = vec![number as u8; 500 + (number as usize * 37) % 900];
        let offset = send(&mut connection, TOPIC, queue_id, &body).unwrap();
        let of_queue = &mut bodies[queue_id as usize];
        assert_eq!(offset, of_queue.len() as i64);
        of_queue.push(body);
    }
    broker.stop();
    bodies
}

/// The answers to pulls of everything, one after the other, as they came.
fn pull_all(broker: &InProcess) -> Vec<Command> {
    let mut connection = connect(&broker.address());
    let mut answers = Vec::new();
    for queue_id in 0..QUEUES {
        let mut offset = 0;
        loop {
            let request = pull_request(TOPIC, queue_id, offset, None);
            let answer = connection.call(request).unwrap();
            let pulled = Pulled::of(&answer);
            if pulled.code != ResponseCode::SUCCESS {
                break;
            }
            offset = pulled.header.next_begin_offset;
            answers.push(answer);
        }
    }
    answers
}

/// Drops a store's files from the page cache; `false` where the file system has no other place for
/// them.
fn evict(dir: &Path) -> bool {
    let mut all = true;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all &= evict(&path);
            continue;
        }
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        all &= !is_cached(&file);
    }
    all
}

/// Whether the first page of a file is in the page cache (`RWF_NOWAIT` reads nothing else).
fn is_cached(file: &File) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut byte = [0];
    let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
    let read = preadv2(file, &mut buffers, 0, ReadWriteFlags::NOWAIT);
    read != Err(rustix::io::Errno::AGAIN)
}

const EXTRA: &str = "mappedFileSizeCommitLog=65536";

#[test]
fn all_ways_bring_the_same_bytes_hot_and_cold() {
    let dir = tempfile::tempdir().unwrap();
    let bodies = fill(dir.path(), EXTRA);
    let mut seen: Option<Vec<Command>> = None;
    let ways = [
        "foliomq.transfer=auto",
        "foliomq.transfer=copy",
        "foliomq.transfer=sendfile",
        "foliomq.transfer=map",
        "foliomq.transfer=gather",
        "transferMsgByHeap=true",
        "foliomq.transfer=sendfile\nfoliomq.coldReadThreads=0",
    ];
    for way in ways {
        let is_cold = evict(&dir.path().join("commitlog"));
        let broker = InProcess::start(dir.path(), &format!("{EXTRA}\n{way}"));
        let cold = pull_all(&broker);
        let aside = broker.node().broker.readers.begun_count();
        if !is_cold {
            eprintln!("SKIPPED: cold reads: this file system's files are in memory only");
        } else if !way.contains("Threads=0") {
            assert!(aside > 0, "{way}: nothing was read aside");
        }
        let hot = pull_all(&broker);
        broker.stop();
        let bytes = |answers: &[Command]| -> Vec<u8> {
            let bodies = answers.iter().map(|answer| answer.body.as_slice());
            bodies.collect::<Vec<_>>().concat()
        };
        assert!(bytes(&cold) == bytes(&hot), "{way}");
        if let Some(first) = &seen {
            assert!(bytes(first) == bytes(&hot), "{way}");
        }
        let messages: Vec<_> = hot
            .iter()
            .flat_map(|answer| Pulled::of(answer).messages)
            .map(|(_, body)| body)
            .collect();
        assert!(messages == bodies.concat(), "{way}");
        seen.get_or_insert(hot);
    }
}

#[test]
fn what_is_in_memory_is_not_read_aside() {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(dir.path(), EXTRA);
    let mut connection = connect(&broker.address());
    for number in 0..100 {
        send(&mut connection, TOPIC, 0, &[number; 900]).unwrap();
    }
    until("everything is dispatched", || {
        let store = &broker.node().broker.store;
        (store.max_offset(TOPIC, 0) == Some(100)).then_some(())
    });
    assert!(!pull_all(&broker).is_empty());
    assert_eq!(broker.node().broker.readers.begun_count(), 0);
    broker.stop();
}

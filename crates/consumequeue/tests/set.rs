//! The set of all queues: names, a bounded number of open files, deletion, readers beside a writer.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use consumequeue::{
    ConsumeQueueError, ConsumeQueueOptions, ConsumeQueueSet, Entry, FlushPolicy, OpenPolicy,
    PutOutcome,
};
use mmap_core::{Io, IoFile, OsIo, SimIo};

fn entry(place: i64) -> Entry {
    Entry {
        physical_offset: place * 100,
        size: 100,
        tags_code: place,
    }
}

fn options(hot_queue_count_max: usize) -> ConsumeQueueOptions {
    ConsumeQueueOptions {
        hot_queue_count_max,
        ..ConsumeQueueOptions::with_file_len(200)
    }
}

fn open<I: Io>(io: &I, root: &Path, hot: usize) -> ConsumeQueueSet<I> {
    ConsumeQueueSet::open(io.clone(), root, options(hot), OpenPolicy::Clean)
        .unwrap()
        .0
}

#[test]
fn any_topic_name_of_rocketmq_is_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let topics = ["T", "%RETRY%group", "%LMQ%a|b", "%DLQ%g-1_2"];
    let set = open(&OsIo, root.path(), 8);
    for (place, topic) in (0..).zip(topics) {
        set.find_or_create(topic, 7)
            .unwrap()
            .put(0, entry(place))
            .unwrap();
    }
    set.close().unwrap();

    // What is no queue is left alone and reported.
    OsIo.create(&root.path().join("stray"), 1).unwrap();
    for name in ["x", "-1", "07"] {
        OsIo.create_dir_all(&root.path().join("T").join(name))
            .unwrap();
    }
    let (set, report) =
        ConsumeQueueSet::open(OsIo, root.path(), options(8), OpenPolicy::Clean).unwrap();
    assert_eq!(
        (report.topic_count, report.queue_count, report.ignored.len()),
        (4, 4, 4)
    );
    for (place, topic) in (0..).zip(topics) {
        assert_eq!(
            set.find(topic, 7).unwrap().entry(0).unwrap(),
            Some(entry(place))
        );
    }
    assert!(set.find("T", 0).is_none() && set.find("U", 7).is_none());
    assert_eq!(set.max_physical_end(), Some(400));
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let set = open(&SimIo::new(1), Path::new("/cq"), 8);
    for topic in ["", ".", "..", "a/b", "/a", "a\0b", &"x".repeat(256)] {
        let refused = set.find_or_create(topic, 0);
        assert!(
            matches!(refused, Err(ConsumeQueueError::Name { .. })),
            "{topic:?}"
        );
    }
    assert!(matches!(
        set.find_or_create("T", -1),
        Err(ConsumeQueueError::Name { .. })
    ));
}

#[test]
fn files_of_another_length_are_refused_and_left() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("T/0");
    OsIo.create_dir_all(&dir).unwrap();
    OsIo.create(&dir.join("00000000000000000000"), 400).unwrap();
    for policy in [OpenPolicy::Clean, OpenPolicy::Unclean] {
        let refused = ConsumeQueueSet::open(OsIo, root.path(), options(8), policy);
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("T/0/00000000000000000000") && text.contains("400"),
            "{text}"
        );
    }
    assert_eq!(OsIo.list(&dir).unwrap().len(), 1);
}

#[test]
fn few_queues_have_files_open_and_all_work() {
    let io = SimIo::new(2);
    let root = Path::new("/cq");
    let set = open(&io, root, 4);
    for round in 0..25 {
        for queue_id in 0..20 {
            let queue = set.find_or_create("T", queue_id).unwrap();
            let message = entry(round * 20 + i64::from(queue_id));
            assert_eq!(queue.put(round, message).unwrap(), PutOutcome::Appended);
        }
        assert!(set.hot_queue_count() <= 4, "{}", set.hot_queue_count());
        if round % 7 == 0 {
            assert!(set.flush(FlushPolicy::All).unwrap());
        }
    }
    assert!(set.flush(FlushPolicy::All).unwrap());
    let io = io.crash(mmap_core::CrashStyle::LoseUnsynced);
    let set = open(&io, root, 4);
    for queue_id in 0..20 {
        let queue = set.find("T", queue_id).unwrap();
        assert_eq!((queue.min_index(), queue.max_index()), (0, 25));
        let first = i64::from(queue_id);
        assert_eq!(queue.entry(24).unwrap(), Some(entry(24 * 20 + first)));
        assert!(set.hot_queue_count() <= 4);
    }
}

#[test]
fn puts_to_a_closed_queue_seldom_open_it() {
    let root = tempfile::tempdir().unwrap();
    let set = ConsumeQueueSet::open(
        OsIo,
        root.path(),
        ConsumeQueueOptions {
            hot_queue_count_max: 1,
            ..ConsumeQueueOptions::DEFAULT
        },
        OpenPolicy::Clean,
    )
    .unwrap()
    .0;
    let queues = [0, 1].map(|id| set.find_or_create("T", id).unwrap());
    let is_open = |queue: usize| queues[queue].entries_in_memory(0, 1).is_ok();
    queues[0].put(0, entry(0)).unwrap();
    queues[1].put(0, entry(0)).unwrap();
    assert!(!is_open(0) && is_open(1), "there is room for one");
    let mut opened = 0;
    for index in 1..100 {
        // The other one is in use.
        assert!(is_open(1) || is_open(0));
        queues[0].put(index, entry(index)).unwrap();
        if is_open(0) {
            opened += 1;
            queues[1].entries(0, 1).unwrap();
        }
    }
    assert!((1..=10).contains(&opened), "{opened} times");
    assert!(set.flush(FlushPolicy::All).unwrap());
    let found = queues[0].entries(0, 100).unwrap().unwrap();
    let expected = (0..100).map(|index| (index, entry(index)));
    assert!(found.iter().eq(expected));
}

#[test]
fn a_deleted_topic_leaves_nothing_but_what_is_read() {
    let root = tempfile::tempdir().unwrap();
    let set = open(&OsIo, root.path(), 8);
    let queue = set.find_or_create("T", 0).unwrap();
    for index in 0..25 {
        queue.put(index, entry(index)).unwrap();
    }
    set.find_or_create("T", 1).unwrap();
    let held = queue.entries(3, 4).unwrap().unwrap();
    assert_eq!(set.delete_topic("T").unwrap(), 2);
    assert!(set.find("T", 0).is_none());
    assert!(OsIo.list(root.path()).unwrap().is_empty());
    assert_eq!(held.iter().last(), Some((6, entry(6))));
    assert!(queue.entries(3, 4).unwrap().is_none());
    assert!(matches!(
        queue.put(25, entry(25)),
        Err(ConsumeQueueError::Deleted { .. })
    ));
    assert!(set.flush(FlushPolicy::All).unwrap());

    // A topic of that name begins anew.
    let queue = set.find_or_create("T", 0).unwrap();
    assert_eq!(queue.put(0, entry(30)).unwrap(), PutOutcome::Appended);
    assert_eq!(set.delete_topic("U").unwrap(), 0);
}

#[test]
fn readers_follow_a_writer_while_files_open_and_close() {
    const COUNT: i64 = 600;
    let root = tempfile::tempdir().unwrap();
    let set = open(&OsIo, root.path(), 1);
    let queues: Vec<_> = (0..3)
        .map(|id| set.find_or_create("T", id).unwrap())
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for queue in &queues {
            scope.spawn(|| {
                let mut index = 0;
                while index < COUNT {
                    let Some(entries) = queue.entries(index, 32).unwrap() else {
                        thread::yield_now();
                        continue;
                    };
                    for (at, found) in &entries {
                        assert_eq!((at, found), (index, entry(index)));
                        index += 1;
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                set.flush(FlushPolicy::LeastPages(2)).unwrap();
                thread::yield_now();
            }
        });
        for index in 0..COUNT {
            for queue in &queues {
                assert_eq!(
                    queue.put(index, entry(index)).unwrap(),
                    PutOutcome::Appended
                );
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(set.flush(FlushPolicy::All).unwrap());
}

/// 100,000 queues of one message: `cargo test --release -p consumequeue --test set -- --ignored
/// --nocapture` prints what they take to make, to open, and to hold.
#[test]
#[ignore = "takes minutes and 1.6 GB of disk; prints figures"]
fn a_hundred_thousand_queues() {
    const COUNT: i64 = 100_000;
    let root = tempfile::tempdir().unwrap();
    let options = ConsumeQueueOptions::DEFAULT;
    let open = |policy| {
        let (before, start) = (resident_kib(), Instant::now());
        let opened = ConsumeQueueSet::open(OsIo, root.path(), options.clone(), policy).unwrap();
        println!(
            "open {policy:?}: {:?}, {} KiB more",
            start.elapsed(),
            resident_kib() - before
        );
        opened.0
    };
    let set = open(OpenPolicy::Clean);
    let start = Instant::now();
    for place in 0..COUNT {
        let topic = format!("topic-{}", place / 10);
        let queue = set.find_or_create(&topic, (place % 10) as i32).unwrap();
        queue.put(0, entry(place)).unwrap();
    }
    println!(
        "make: {:?}, resident {} KiB",
        start.elapsed(),
        resident_kib()
    );
    println!(
        "descriptors: {}",
        OsIo.list(Path::new("/proc/self/fd")).unwrap().len()
    );
    let start = Instant::now();
    set.flush(FlushPolicy::All).unwrap();
    println!("flush: {:?}", start.elapsed());
    drop(set);
    for policy in [OpenPolicy::Clean, OpenPolicy::Unclean] {
        let set = open(policy);
        let start = Instant::now();
        set.recover(0, 100 * COUNT as u64).unwrap();
        println!(
            "recover: {:?}, resident {} KiB",
            start.elapsed(),
            resident_kib()
        );
        assert_eq!(set.queues().len() as i64, COUNT);
    }
}

fn resident_kib() -> i64 {
    let file = OsIo
        .open(Path::new("/proc/self/status"), mmap_core::Access::ReadOnly)
        .unwrap();
    let mut buf = vec![0; 16 * 1024];
    let len = file.read_at(&mut buf, 0).unwrap();
    let text = String::from_utf8_lossy(&buf[..len]).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

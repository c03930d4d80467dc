//! Segments made ahead of the writer.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use mmap_core::{CrashStyle, Io, OsIo, RawMap, SimIo, WarmUp};
use segment_queue::{
    AppendError, FlushPolicy, PreallocateOptions, PreallocateStep, Preallocator, QueueError,
    SegmentQueue, SegmentQueueOptions, SegmentWriter, segment_name,
};

const SEGMENT_LEN: u64 = 64 * 1024;

/// Longer than any of these tests takes when it goes well.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene<I: Io = OsIo> {
    dir: tempfile::TempDir,
    io: I,
    queue: Arc<SegmentQueue<I>>,
    writer: SegmentWriter<I>,
    preallocator: Preallocator<I>,
}

impl Scene {
    fn new() -> Self {
        Self::on(OsIo, |_| {}, |_| {})
    }
}

impl<I: Io> Scene<I> {
    fn on(
        io: I,
        change: impl FnOnce(&mut SegmentQueueOptions),
        change_ahead: impl FnOnce(&mut PreallocateOptions),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = SegmentQueueOptions::new(dir.path(), SEGMENT_LEN);
        options.allocate_step = 4096;
        options.prepare_wait = PATIENCE;
        change(&mut options);
        let (queue, writer) = SegmentQueue::open(io.clone(), &options).unwrap();
        let mut ahead = PreallocateOptions {
            count: 2,
            create_below: 20_000,
            window: 32 * 1024,
            warm_up: None,
        };
        change_ahead(&mut ahead);
        let preallocator = Preallocator::new(Arc::clone(&queue), ahead);
        Self {
            dir,
            io,
            queue,
            writer,
            preallocator,
        }
    }

    fn append(&mut self, len: usize) {
        self.writer.append(&[&vec![1; len]]).unwrap();
        self.writer.publish();
    }

    #[track_caller]
    fn step(&mut self, created: Option<u64>, populated_len: u64) {
        let expected = PreallocateStep {
            created,
            populated_len,
            warmed_len: 0,
        };
        assert_eq!(self.preallocator.step().unwrap(), expected);
    }

    fn names(&self) -> Vec<String> {
        names(&self.io, self.dir.path())
    }
}

/// The names of the first `count` segments.
fn first_names(count: u64) -> Vec<String> {
    (0..count)
        .map(|index| segment_name(index * SEGMENT_LEN))
        .collect()
}

fn names<I: Io>(io: &I, dir: &Path) -> Vec<String> {
    let entries = io.list(dir).unwrap();
    entries
        .iter()
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_window_goes_ahead_of_the_writer_into_the_next_segment() {
    let mut scene = Scene::new();
    scene.step(None, 0);
    scene.writer.roll().unwrap();
    scene.step(None, 32 * 1024);
    scene.step(None, 0);
    scene.append(1000);
    scene.step(None, 0); // not worth a call yet
    scene.append(40_000);
    scene.step(None, SEGMENT_LEN - 41_000); // nothing is behind the end yet
    scene.append(10_000);
    scene.step(Some(SEGMENT_LEN), 51_000 + 32 * 1024 - SEGMENT_LEN);
    assert_eq!(
        scene.queue.published(),
        51_000,
        "a prepared segment is no part of the queue"
    );
    assert_eq!(scene.queue.segments().len(), 1);

    scene.writer.roll().unwrap();
    assert_eq!(scene.queue.segments().len(), 2);
    scene.append(10);
    assert_eq!(&*scene.queue.slice(SEGMENT_LEN, 10).unwrap(), &[1; 10]);
    assert_eq!(
        scene.queue.flush(FlushPolicy::All).unwrap(),
        SEGMENT_LEN + 10
    );
}

#[test]
fn a_clean_stop_deletes_what_was_not_used() {
    let mut scene = Scene::new();
    scene.writer.roll().unwrap();
    scene.append(60_000);
    scene.step(
        Some(SEGMENT_LEN),
        SEGMENT_LEN - 60_000 + 60_000 + 32 * 1024 - SEGMENT_LEN,
    );
    assert_eq!(scene.names(), [segment_name(0), segment_name(SEGMENT_LEN)]);
    let Scene {
        dir,
        queue,
        writer,
        mut preallocator,
        ..
    } = scene;
    writer.close().unwrap();
    assert_eq!(names(&OsIo, dir.path()), [segment_name(0)]);
    assert_eq!(preallocator.step().unwrap().created, None);
    assert_eq!(names(&OsIo, dir.path()), [segment_name(0)]);
    assert_eq!(queue.flushed(), 60_000);
}

#[test]
fn a_prepared_segment_found_after_a_crash_is_an_empty_one() {
    let mut scene = Scene::new();
    scene.writer.roll().unwrap();
    scene.append(60_000);
    assert_eq!(
        scene.preallocator.step().unwrap().created,
        Some(SEGMENT_LEN)
    );
    let options = SegmentQueueOptions::new(scene.dir.path(), SEGMENT_LEN);
    drop((scene.writer, scene.preallocator));
    let (queue, mut writer) = SegmentQueue::open(OsIo, &options).unwrap();
    assert_eq!(queue.published(), 2 * SEGMENT_LEN);
    assert_eq!(writer.truncate(60_000).unwrap().removed_count, 1);
    writer.roll().unwrap();
    assert_eq!(writer.position(), SEGMENT_LEN);
}

#[test]
fn when_the_preallocator_fails_the_writer_helps_itself() {
    let mut scene = Scene::new();
    scene.writer.roll().unwrap();
    scene.append(60_000);
    let in_the_way = scene.dir.path().join(segment_name(SEGMENT_LEN));
    OsIo.create(&in_the_way, 1).unwrap();
    assert!(matches!(scene.preallocator.step(), Err(QueueError::Io(_))));
    assert!(scene.writer.roll().is_err());
    assert_eq!(
        (scene.queue.published(), scene.writer.position()),
        (60_000, 60_000)
    );
    OsIo.remove_file(&in_the_way).unwrap();
    scene.writer.roll().unwrap();
    assert_eq!(scene.writer.position(), SEGMENT_LEN);
    scene.step(None, 32 * 1024);
}

/// A segment of which some bytes are left, and two that are ready.
fn two_ahead<I: Io>(scene: &mut Scene<I>) {
    scene.writer.roll().unwrap();
    scene.append(60_000);
    let first = scene.preallocator.step().unwrap();
    let second = scene.preallocator.step().unwrap();
    let created = [first.created, second.created];
    assert_eq!(created, [Some(SEGMENT_LEN), Some(2 * SEGMENT_LEN)]);
}

#[test]
fn the_next_but_one_follows_when_half_as_much_is_left() {
    let mut scene = Scene::new();
    scene.writer.roll().unwrap();
    scene.append(50_000);
    let created = |scene: &mut Scene| scene.preallocator.step().unwrap().created;
    assert_eq!(created(&mut scene), Some(SEGMENT_LEN));
    assert_eq!(created(&mut scene), None);
    scene.append(5_537);
    assert_eq!(created(&mut scene), Some(2 * SEGMENT_LEN));
    scene.append(9_000);
    assert_eq!(created(&mut scene), None, "two are the most");
    assert_eq!(scene.names(), first_names(3));
    for index in 1..3 {
        scene.writer.roll().unwrap();
        assert_eq!(scene.writer.position(), index * SEGMENT_LEN);
        assert_eq!(scene.names(), first_names(3), "the writer made no file");
    }
}

#[test]
fn a_clean_stop_deletes_all_that_were_ready_and_a_crash_leaves_them_empty() {
    let mut scene = Scene::on(SimIo::new(5), |_| {}, |_| {});
    two_ahead(&mut scene);
    scene.queue.flush(FlushPolicy::All).unwrap();
    let io = scene.io.crash(CrashStyle::LoseUnsynced);
    assert_eq!(names(&io, scene.dir.path()), first_names(3));
    let options = SegmentQueueOptions::new(scene.dir.path(), SEGMENT_LEN);
    for (end, removed_count) in [(60_000, 2), (SEGMENT_LEN, 1)] {
        // Java leaves such files too.
        let (_, mut writer) = SegmentQueue::open(io.clone(), &options).unwrap();
        assert_eq!(writer.truncate(end).unwrap().removed_count, removed_count);
        let first = end.next_multiple_of(SEGMENT_LEN);
        let base = if end == first {
            first + SEGMENT_LEN
        } else {
            first
        };
        writer.roll().unwrap();
        assert_eq!(writer.position(), base);
        while names(&io, scene.dir.path()).len() < 3 {
            writer.roll().unwrap();
        }
    }

    // Whenever the power fails while they are deleted, what is left has no gap.
    for stop_at in 1..6 {
        let mut scene = Scene::on(SimIo::new(6), |_| {}, |_| {});
        two_ahead(&mut scene);
        scene.io.fail_from("*", stop_at, ErrorKind::Other);
        let _ = scene.writer.close();
        let io = scene.io.crash(CrashStyle::LoseUnsynced);
        let found = names(&io, scene.dir.path());
        assert_eq!(found, first_names(found.len() as u64));
    }
    let mut scene = Scene::on(SimIo::new(6), |_| {}, |_| {});
    two_ahead(&mut scene);
    scene.writer.close().unwrap();
    assert_eq!(names(&scene.io, scene.dir.path()), first_names(1));
}

#[test]
fn a_prepared_segment_that_cannot_be_deleted_is_deleted_by_the_next_attempt() {
    let mut scene = Scene::on(SimIo::new(7), |_| {}, |_| {});
    two_ahead(&mut scene);
    // The name goes, but nobody knows whether for good.
    scene.io.fail_nth("sync_dir", 2, ErrorKind::Other);
    assert!(scene.writer.truncate(60_000).is_err());
    assert_eq!(scene.names(), first_names(1));
    scene.writer.truncate(60_000).unwrap();
    for _ in 0..2 {
        scene.writer.roll().unwrap();
    }
    assert_eq!(scene.names(), first_names(3));
}

/// Steps the preallocator each time that it is rung for; the steps are what it returns.
fn serve<I: Io>(
    mut preallocator: Preallocator<I>,
    rings: Receiver<()>,
) -> thread::JoinHandle<Vec<PreallocateStep>> {
    thread::spawn(move || {
        let mut steps = Vec::new();
        for () in rings {
            steps.extend(preallocator.step());
        }
        steps
    })
}

#[test]
fn a_served_writer_asks_for_its_segments_and_makes_none() {
    let scene = Scene::new();
    let Scene {
        dir,
        queue,
        mut writer,
        preallocator,
        ..
    } = scene;
    let (ring, rings) = channel();
    let serving = queue.serve_ahead(move || ring.send(()).unwrap());
    let thread = serve(preallocator, rings);
    for _ in 0..3 {
        writer.roll().unwrap();
        writer.append(&[&[1; 100]]).unwrap();
    }
    drop(serving);
    let created: Vec<_> = thread
        .join()
        .unwrap()
        .iter()
        .map(|step| step.created)
        .collect();
    let expected: Vec<_> = (0..3).map(|index| Some(index * SEGMENT_LEN)).collect();
    assert_eq!(created, expected);
    assert_eq!(names(&OsIo, dir.path()), first_names(3));
    writer.roll().unwrap();
    assert_eq!(
        writer.position(),
        3 * SEGMENT_LEN,
        "nobody serves: it made one"
    );
}

#[test]
fn a_late_segment_is_an_error_that_changes_nothing_and_is_asked_for_first() {
    let wait = Duration::from_millis(30);
    let mut scene = Scene::on(OsIo, |options| options.prepare_wait = wait, |_| {});
    scene.writer.roll().unwrap();
    scene.append(10_000);
    scene.step(None, 32 * 1024);
    let serving = scene.queue.serve_ahead(|| {});
    let began = Instant::now();
    let refusal = scene.writer.roll().unwrap_err();
    assert!(began.elapsed() >= wait);
    let QueueError::Late { path, waited } = &refusal else {
        panic!("{refusal}");
    };
    assert_eq!(
        (path, *waited),
        (&scene.dir.path().join(segment_name(SEGMENT_LEN)), wait)
    );
    assert!(!scene.queue.is_poisoned());
    scene.append(10);
    assert_eq!(scene.queue.published(), 10_010);

    // Far from the end, but wanted.
    let step = scene.preallocator.step().unwrap();
    assert_eq!(step.created, Some(SEGMENT_LEN));
    scene.writer.roll().unwrap();
    assert_eq!(scene.writer.position(), SEGMENT_LEN);
    drop(serving);
}

#[test]
fn a_writer_whose_preallocator_fails_or_ends_helps_itself() {
    let scene = Scene::on(SimIo::new(8), |_| {}, |_| {});
    let Scene {
        io,
        queue,
        mut writer,
        preallocator,
        ..
    } = scene;
    let (ring, rings) = channel();
    let serving = queue.serve_ahead(move || ring.send(()).unwrap());
    let thread = serve(preallocator, rings);
    io.fail_next("create", ErrorKind::StorageFull);
    writer.roll().unwrap();
    assert_eq!(writer.position(), 0);
    // Both fail: the writer's own error is the answer, and it passes by itself.
    io.fail_nth("create", 1, ErrorKind::StorageFull);
    io.fail_nth("create", 2, ErrorKind::StorageFull);
    let refusal = writer.append(&[&[1; SEGMENT_LEN as usize]]).map(drop);
    refusal.unwrap();
    let refusal = writer.roll().unwrap_err();
    assert!(refusal.is_full(), "{refusal}");
    assert!(!queue.is_poisoned());
    writer.roll().unwrap();
    assert_eq!(writer.position(), SEGMENT_LEN);

    drop(serving);
    assert!(!thread.join().unwrap().is_empty());
    // The thread that serves ends while the writer waits.
    let (asked, asks) = channel();
    let serving = queue.serve_ahead(move || asked.send(()).unwrap());
    thread::scope(|scope| {
        scope.spawn(move || {
            asks.recv_timeout(PATIENCE).unwrap();
            drop(serving);
        });
        writer.roll().unwrap();
    });
    assert_eq!(writer.position(), 2 * SEGMENT_LEN);
}

#[test]
fn whole_segments_are_warmed_up_and_read_as_zeros() {
    let ways = [
        WarmUp::Touch { sync_every: None },
        WarmUp::Touch {
            sync_every: Some(3),
        },
        WarmUp::Populate,
        WarmUp::Zeros,
    ];
    for how in ways {
        let mut scene = Scene::on(OsIo, |_| {}, |ahead| ahead.warm_up = Some(how));
        two_ahead(&mut scene);
        let mut warmed_len = 0;
        loop {
            let step = scene.preallocator.step().unwrap();
            warmed_len += step.warmed_len;
            if step.is_idle() {
                break;
            }
        }
        assert!(warmed_len >= SEGMENT_LEN, "{how:?}: {warmed_len}");
        let path = scene.dir.path().join(segment_name(2 * SEGMENT_LEN));
        let blocks = std::fs::metadata(path).unwrap().blocks();
        assert!(blocks * 512 >= SEGMENT_LEN, "{how:?}: {blocks}");
        for index in 1..3 {
            scene.writer.roll().unwrap();
            let mut found = vec![1; SEGMENT_LEN as usize];
            let all = SEGMENT_LEN as usize - 10;
            assert_eq!(
                scene.writer.append(&[b"0123456789"]).unwrap(),
                index * SEGMENT_LEN
            );
            scene.writer.publish();
            let slice = scene.queue.slice(index * SEGMENT_LEN, 10).unwrap();
            assert_eq!(&*slice, b"0123456789");
            let map = slice.region().map();
            assert_eq!(
                map.resident(0..map.len()).unwrap().resident,
                map.len() / 4096,
                "{how:?}"
            );
            scene.writer.append(&[&vec![0; all]]).unwrap();
            scene.writer.publish();
            scene
                .queue
                .read_exact_at(index * SEGMENT_LEN, &mut found)
                .unwrap();
            assert_eq!(found[..10], *b"0123456789");
        }
    }
}

/// A queue whose next segment is due, and is to be filled with zeros.
fn about_to_warm_up() -> Scene<SimIo> {
    let mut scene = Scene::on(
        SimIo::new(9),
        |_| {},
        |ahead| {
            ahead.warm_up = Some(WarmUp::Zeros);
            ahead.window = 0;
        },
    );
    scene.writer.roll().unwrap();
    scene.append(50_000);
    scene
}

#[test]
fn a_warm_up_that_fails_leaves_the_segment_usable() {
    let mut scene = about_to_warm_up();
    scene.io.fail_next("write", ErrorKind::StorageFull);
    assert!(scene.preallocator.step().is_err());
    assert_eq!(scene.names(), first_names(2));
    let step = scene.preallocator.step().unwrap();
    assert_eq!(
        (step.created, step.warmed_len),
        (None, SEGMENT_LEN),
        "tried again"
    );
    scene.writer.roll().unwrap();
    assert_eq!(scene.writer.position(), SEGMENT_LEN);
    let refusal = scene.writer.append(&[&vec![0; 1 + SEGMENT_LEN as usize]]);
    assert!(matches!(refusal, Err(AppendError::TooLarge { .. })));
}

#[test]
fn a_panic_in_the_preparation_is_a_failure_like_others() {
    let mut scene = about_to_warm_up();
    // Of the warm-up: the segment stays, and is warmed up later.
    scene.io.panic_next("write");
    let panicked = scene.preallocator.step();
    assert!(
        matches!(panicked, Err(QueueError::PreparePanicked { .. })),
        "{panicked:?}"
    );
    assert_eq!(scene.names(), first_names(2));
    assert_eq!(scene.preallocator.step().unwrap().warmed_len, SEGMENT_LEN);
    scene.writer.roll().unwrap();
    assert_eq!(scene.names(), first_names(2), "the segment was not lost");
    assert_eq!(scene.writer.position(), SEGMENT_LEN);

    // Of the creation: no file is left, and the next attempt succeeds.
    scene.append(50_000);
    scene.io.panic_next("allocate");
    assert!(scene.preallocator.step().is_err());
    assert_eq!(scene.names(), first_names(2));
    assert_eq!(
        scene.preallocator.step().unwrap().created,
        Some(2 * SEGMENT_LEN)
    );
    // Of the writer's own creation: nothing has changed, and it can be tried again.
    scene.writer.roll().unwrap();
    scene.io.panic_next("map");
    assert!(scene.writer.roll().is_err());
    scene.writer.roll().unwrap();
    assert_eq!(scene.writer.position(), 3 * SEGMENT_LEN);
    scene.append(1);
}

#[test]
fn the_tail_is_kept_in_memory_and_what_is_left_behind_is_not() {
    let locked = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        let word = line.unwrap().split_whitespace().next().unwrap();
        word.parse::<u64>().unwrap() * 1024
    };
    let mut scene = Scene::on(OsIo, |options| options.lock_tail = true, |_| {});
    let before = locked();
    for _ in 0..3 {
        scene.writer.roll().unwrap();
        scene.append(100);
        assert_eq!(scene.queue.lock_failure(), None);
        // Other tests of this process lock nothing.
        assert_eq!(locked(), before + SEGMENT_LEN);
    }
    scene.writer.close().unwrap();
    assert_eq!(locked(), before);
}

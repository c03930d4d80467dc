//! Segments made ahead of the writer.

use std::path::Path;
use std::sync::Arc;

use mmap_core::{Io, OsIo};
use segment_queue::{
    FlushPolicy, PreallocateOptions, PreallocateStep, Preallocator, QueueError, SegmentQueue,
    SegmentQueueOptions, SegmentWriter, segment_name,
};

const SEGMENT_LEN: u64 = 64 * 1024;

struct Scene {
    dir: tempfile::TempDir,
    queue: Arc<SegmentQueue>,
    writer: SegmentWriter,
    preallocator: Preallocator,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = SegmentQueueOptions::new(dir.path(), SEGMENT_LEN);
        options.allocate_step = 4096;
        let (queue, writer) = SegmentQueue::open(OsIo, &options).unwrap();
        let options = PreallocateOptions {
            create_below: 20_000,
            window: 32 * 1024,
        };
        let preallocator = Preallocator::new(Arc::clone(&queue), options);
        Self {
            dir,
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
        };
        assert_eq!(self.preallocator.step().unwrap(), expected);
    }

    fn names(&self) -> Vec<String> {
        names(self.dir.path())
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = OsIo.list(dir).unwrap();
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
    } = scene;
    writer.close().unwrap();
    assert_eq!(names(dir.path()), [segment_name(0)]);
    assert_eq!(preallocator.step().unwrap().created, None);
    assert_eq!(names(dir.path()), [segment_name(0)]);
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

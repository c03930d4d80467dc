//! Directories that are not as they should be, and files that others meddle with.

use std::path::{Path, PathBuf};

use mmap_core::{Io, IoFile, OsIo};
use segment_queue::{
    AppendError, DamagePolicy, Layout, QueueError, SegmentQueue, SegmentQueueOptions, segment_name,
};

const SEGMENT_LEN: u64 = 4096;

/// A directory of files with the given names and lengths.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(files: &[(u64, u64)]) -> Self {
        let this = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for &(index, len) in files {
            this.add(&segment_name(index * SEGMENT_LEN), len);
        }
        this
    }

    fn add(&self, name: &str, len: u64) -> PathBuf {
        let path = self.dir.path().join(name);
        let file = OsIo.create(&path, len).unwrap();
        file.write_all_at(&vec![7; len as usize], 0).unwrap();
        path
    }

    fn options(&self, damage: DamagePolicy) -> SegmentQueueOptions {
        let mut options = SegmentQueueOptions::new(self.dir.path(), SEGMENT_LEN);
        options.damage = damage;
        options
    }

    fn path(&self, index: u64) -> PathBuf {
        self.dir.path().join(segment_name(index * SEGMENT_LEN))
    }

    fn state(&self) -> Vec<(String, u64)> {
        let entries = OsIo.list(self.dir.path()).unwrap();
        let state = entries
            .iter()
            .map(|entry| (entry.name.to_string_lossy().into(), entry.len));
        state.collect()
    }

    /// Opens with this policy, expecting the refusal, which must not have changed anything.
    #[track_caller]
    fn refused(&self, damage: DamagePolicy) -> QueueError {
        let before = self.state();
        let refusal = SegmentQueue::open(OsIo, &self.options(damage)).expect_err("refused");
        assert_eq!(self.state(), before);
        refusal
    }

    /// Opens with this policy; returns the queue's range in segments.
    #[track_caller]
    fn opened(&self, damage: DamagePolicy) -> (u64, u64) {
        let (queue, _) = SegmentQueue::open(OsIo, &self.options(damage)).unwrap();
        (
            queue.min_offset() / SEGMENT_LEN,
            queue.published() / SEGMENT_LEN,
        )
    }
}

fn path_in(error: &QueueError, path: &Path) {
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
}

#[test]
fn a_missing_directory_is_an_empty_queue_and_stays_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = SegmentQueueOptions::new(dir.path().join("a/b"), SEGMENT_LEN);
    options.base_when_empty = 3 * SEGMENT_LEN + 20;
    let (queue, mut writer) = SegmentQueue::open(OsIo, &options).unwrap();
    assert_eq!(
        (queue.min_offset(), queue.published()),
        (3 * SEGMENT_LEN, 3 * SEGMENT_LEN)
    );
    assert!(OsIo.metadata(&options.dir).unwrap().is_none());
    assert!(matches!(
        writer.append(&[b"x"]),
        Err(AppendError::NeedsRoll {
            len: 1,
            remaining: 0
        })
    ));
    writer.roll().unwrap();
    assert_eq!(writer.append(&[b"x"]).unwrap(), 3 * SEGMENT_LEN);
}

#[test]
fn foreign_files_are_refused_and_directories_ignored() {
    let files = Files::new(&[(0, SEGMENT_LEN)]);
    OsIo.create_dir_all(&files.dir.path().join("sub")).unwrap();
    assert_eq!(files.opened(DamagePolicy::Refuse), (0, 1));
    let foreign = files.add("notes.txt", 3);
    let refusal = files.refused(DamagePolicy::ExtendWithZeros);
    assert!(matches!(refusal, QueueError::ForeignFile { .. }));
    path_in(&refusal, &foreign);
}

#[test]
fn another_segment_length_is_refused() {
    let shorter = Files::new(&[(0, 1000), (1, 1000)]);
    let refusal = shorter.refused(DamagePolicy::ExtendWithZeros);
    assert!(matches!(refusal, QueueError::SegmentLen { len: 1000, .. }));
    path_in(&refusal, &shorter.path(0));

    let longer = Files::new(&[(0, SEGMENT_LEN), (1, 2 * SEGMENT_LEN)]);
    let refusal = longer.refused(DamagePolicy::ExtendWithZeros);
    assert!(matches!(refusal, QueueError::SegmentLen { len: 8192, .. }));
    path_in(&refusal, &longer.path(1));

    let misaligned = Files::new(&[(0, SEGMENT_LEN)]);
    let path = misaligned.add(&segment_name(5000), SEGMENT_LEN);
    let refusal = misaligned.refused(DamagePolicy::ExtendWithZeros);
    assert!(matches!(refusal, QueueError::Misaligned { .. }));
    path_in(&refusal, &path);
}

#[test]
fn an_empty_last_file_is_removed_as_java_does() {
    let files = Files::new(&[(4, SEGMENT_LEN), (5, 0)]);
    assert!(matches!(
        files.refused(DamagePolicy::Refuse),
        QueueError::Damaged { len: 0, .. }
    ));
    assert_eq!(files.opened(DamagePolicy::RemoveEmptyLast), (4, 5));
    assert_eq!(files.state().len(), 1);

    let only = Files::new(&[(5, 0)]);
    assert_eq!(only.opened(DamagePolicy::RemoveEmptyLast), (0, 0));
}

#[test]
fn short_files_are_extended_only_when_asked_for() {
    let files = Files::new(&[(0, SEGMENT_LEN), (1, 100), (2, SEGMENT_LEN), (3, 0)]);
    for policy in [DamagePolicy::Refuse, DamagePolicy::RemoveEmptyLast] {
        let refusal = files.refused(policy);
        assert!(matches!(refusal, QueueError::Damaged { len: 100, .. }));
        path_in(&refusal, &files.path(1));
    }
    let options = files.options(DamagePolicy::ExtendWithZeros);
    let damaged = Layout::scan(&OsIo, &options).unwrap().damaged;
    assert_eq!(damaged.len(), 2);
    assert_eq!((damaged[0].len, damaged[1].len), (Some(100), Some(0)));

    let (queue, _) = SegmentQueue::open(OsIo, &options).unwrap();
    assert_eq!(queue.published(), 4 * SEGMENT_LEN);
    let mut bytes = vec![1; 2 * SEGMENT_LEN as usize];
    queue.read_exact_at(SEGMENT_LEN, &mut bytes).unwrap();
    assert!(
        bytes[..100].iter().all(|&byte| byte == 7),
        "the content is kept"
    );
    assert!(bytes[100..4096].iter().all(|&byte| byte == 0));
    assert!(bytes[4096..].iter().all(|&byte| byte == 7));
}

#[test]
fn gaps_are_filled_only_when_asked_for_and_small() {
    let files = Files::new(&[(1, SEGMENT_LEN), (4, SEGMENT_LEN)]);
    for policy in [DamagePolicy::Refuse, DamagePolicy::RemoveEmptyLast] {
        let refusal = files.refused(policy);
        assert!(matches!(refusal, QueueError::Gap { .. }));
        path_in(&refusal, &files.path(2));
        path_in(&refusal, &files.path(4));
    }
    assert_eq!(files.opened(DamagePolicy::ExtendWithZeros), (1, 5));
    assert_eq!(files.state().len(), 4);

    let wide = Files::new(&[(1, SEGMENT_LEN), (1 << 40, SEGMENT_LEN)]);
    assert!(matches!(
        wide.refused(DamagePolicy::ExtendWithZeros),
        QueueError::Gap { .. }
    ));
}

#[test]
fn a_read_only_queue_changes_nothing_and_leaves_out_what_is_being_created() {
    let files = Files::new(&[(0, SEGMENT_LEN), (1, SEGMENT_LEN), (2, 0)]);
    let before = files.state();
    let queue =
        SegmentQueue::open_read_only(OsIo, &files.options(DamagePolicy::ExtendWithZeros)).unwrap();
    assert_eq!(queue.published(), 2 * SEGMENT_LEN);
    queue.limit_to(5000).unwrap();
    assert!(matches!(
        queue.limit_to(9000),
        Err(QueueError::OutOfRange { .. })
    ));
    assert_eq!(queue.slice_from(4096).unwrap().len(), 904);
    assert!(queue.slice(4096, 905).is_none());
    assert_eq!(files.state(), before);
}

#[test]
fn a_segment_removed_by_another_process_is_not_appended_to() {
    let files = Files::new(&[(0, SEGMENT_LEN)]);
    let options = files.options(DamagePolicy::Refuse);
    let (queue, mut writer) = SegmentQueue::open(OsIo, &options).unwrap();
    writer.truncate(100).unwrap();
    OsIo.remove_file(&files.path(0)).unwrap();
    // Even if there is another file of that name by now.
    files.add(&segment_name(0), SEGMENT_LEN);
    let refusal = writer.append(&[b"lost"]).expect_err("refused");
    assert!(matches!(
        refusal,
        AppendError::Queue(QueueError::Unlinked { .. })
    ));
    assert_eq!(writer.position(), 100);
    assert_eq!(
        &*queue.slice(0, 100).unwrap(),
        &[7; 100],
        "what is mapped can be read"
    );
}

#[test]
fn a_segment_removed_while_nothing_of_it_is_open_is_reported() {
    let files = Files::new(&[(0, SEGMENT_LEN)]);
    let (queue, mut writer) =
        SegmentQueue::open(OsIo, &files.options(DamagePolicy::Refuse)).unwrap();
    writer.resume(100).unwrap();
    OsIo.remove_file(&files.path(0)).unwrap();
    assert!(queue.slice(0, 10).is_none());
    assert!(matches!(
        queue.try_slice(0, 10),
        Err(QueueError::Unlinked { .. })
    ));
    let refusal = writer.append(&[b"lost"]).expect_err("refused");
    assert!(matches!(
        refusal,
        AppendError::Queue(QueueError::Unlinked { .. })
    ));
}

#[test]
fn data_is_found_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let options = SegmentQueueOptions::new(dir.path(), SEGMENT_LEN);
    for index in 0..4 {
        let path = dir.path().join(segment_name(index * SEGMENT_LEN));
        let file = OsIo.create(&path, SEGMENT_LEN).unwrap();
        if index == 2 {
            file.write_all_at(&[1], 100).unwrap();
        }
    }
    let (queue, _writer) = SegmentQueue::open(OsIo, &options).unwrap();
    assert_eq!(queue.seek_data(17).unwrap(), Some(2 * SEGMENT_LEN));
    assert_eq!(queue.seek_data(3 * SEGMENT_LEN).unwrap(), None);
    assert_eq!(queue.seek_data(4 * SEGMENT_LEN).unwrap(), None, "the end");
    assert!(matches!(
        queue.seek_data(4 * SEGMENT_LEN + 1),
        Err(QueueError::OutOfRange { .. })
    ));
}

#[test]
fn held_bytes_are_not_cut() {
    let files = Files::new(&[(0, SEGMENT_LEN), (1, SEGMENT_LEN)]);
    let (queue, mut writer) =
        SegmentQueue::open(OsIo, &files.options(DamagePolicy::Refuse)).unwrap();
    let held = queue.slice(SEGMENT_LEN, 10).unwrap();
    assert!(matches!(
        writer.truncate(SEGMENT_LEN + 5),
        Err(QueueError::Pinned { .. })
    ));
    assert_eq!(&*held, &[7; 10]);
    drop(held);
    let truncation = writer.truncate(SEGMENT_LEN + 5).unwrap();
    assert_eq!((truncation.zeroed_len, truncation.removed_count), (4091, 0));
    let truncation = writer.truncate(SEGMENT_LEN + 5).unwrap();
    assert_eq!(truncation.zeroed_len, 0, "zeros are not written over zeros");
}

#[test]
fn truncating_removes_later_segments_and_keeps_an_empty_one_at_the_end() {
    let files = Files::new(&[(0, SEGMENT_LEN), (1, SEGMENT_LEN), (2, SEGMENT_LEN)]);
    let (queue, mut writer) =
        SegmentQueue::open(OsIo, &files.options(DamagePolicy::Refuse)).unwrap();
    assert!(matches!(
        writer.truncate(3 * SEGMENT_LEN + 1),
        Err(QueueError::OutOfRange { .. })
    ));
    assert_eq!(writer.truncate(SEGMENT_LEN).unwrap().removed_count, 1);
    assert_eq!(files.state().len(), 2);
    assert_eq!(queue.published(), SEGMENT_LEN);
    assert_eq!(writer.remaining(), SEGMENT_LEN);
    let bytes = OsIo.read(&files.path(1), SEGMENT_LEN).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
}

#[test]
fn deleting_leaves_no_directory_and_valid_slices() {
    let files = Files::new(&[(0, SEGMENT_LEN)]);
    let (queue, writer) = SegmentQueue::open(OsIo, &files.options(DamagePolicy::Refuse)).unwrap();
    let held = queue.slice(0, 10).unwrap();
    writer.delete().unwrap();
    assert!(OsIo.metadata(files.dir.path()).unwrap().is_none());
    assert!(queue.slice(0, 10).is_none());
    assert_eq!(&*held, &[7; 10]);
}

#[test]
fn a_store_of_many_sparse_segments_opens_without_mapping_them() {
    let files = Files::new(&[]);
    let segment_len = 1 << 30;
    for index in 0..1000 {
        let path = files.dir.path().join(segment_name(index * segment_len));
        OsIo.create(&path, segment_len).unwrap();
    }
    let options = SegmentQueueOptions::new(files.dir.path(), segment_len);
    let (queue, mut writer) = SegmentQueue::open(OsIo, &options).unwrap();
    assert_eq!(queue.published(), 1000 << 30);
    writer.resume((1000 << 30) - 1000).unwrap();
    assert!(queue.segments().iter().all(|segment| !segment.is_mapped()));
    assert_eq!(&*queue.slice((500 << 30) + 7, 3).unwrap(), &[0; 3]);
    writer.append(&[b"tail"]).unwrap();
    let mapped = queue
        .segments()
        .iter()
        .filter(|segment| segment.is_mapped())
        .count();
    assert_eq!(mapped, 2);
    queue.release();
    let mapped = queue
        .segments()
        .iter()
        .filter(|segment| segment.is_mapped())
        .count();
    assert_eq!(mapped, 1, "the writer's segment stays mapped");
}

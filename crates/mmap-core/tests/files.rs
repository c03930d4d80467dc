//! `OsIo` on real files.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]
#![allow(
    unsafe_code,
    reason = "slices at one's own risk are part of what is tested"
)]
#![allow(clippy::print_stderr, reason = "skips are loud")]

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

use mmap_core::{
    Access, Advice, AppendRegion, FileKind, Io, IoError, IoFile, OsFile, OsIo, RawMap, Residency,
};

const GIB: u64 = 1 << 30;

#[test]
fn create_makes_a_sparse_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = OsIo.create(&path, 5 * GIB).unwrap();
    assert_eq!(file.len().unwrap(), 5 * GIB);
    assert_eq!(file.path(), path);
    assert_eq!(blocks(&path), 0, "no block is allocated");
    let error = OsIo.create(&path, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.path(), path);
    assert_eq!(
        OsIo.metadata(&path).unwrap().unwrap().len,
        5 * GIB,
        "left as it was"
    );
}

#[test]
fn pages_are_written_back_where_files_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 8192).unwrap();
    file.write_all_at(b"dirty", 4000).unwrap();
    mmap_core::write_back(&file, 4096, 0).unwrap();
    let error = mmap_core::write_back(&file, u64::MAX, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(mmap_core::write_back(&socket, 0, 0).is_err(), "no file");
}

#[test]
fn create_that_fails_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let error = OsIo.create(&path, u64::MAX).unwrap_err();
    assert_eq!(error.op(), "create");
    assert_eq!(OsIo.metadata(&path).unwrap(), None);
    let error = OsIo.create(&dir.path().join("no/f"), 1).unwrap_err();
    assert!(error.is_not_found());
}

#[test]
fn maps_beyond_two_gigabytes_at_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 6 * GIB).unwrap();
    for offset in [0, 1, 4095, 3 * GIB + 123, 6 * GIB - 5000] {
        let map = file.map(offset, 5000, Access::ReadWrite).unwrap();
        let (region, mut appender) = AppendRegion::new(map, 0);
        appender.write(&[&offset.to_be_bytes()]).unwrap();
        appender.publish();
        assert_eq!(region.bytes(0..8), Some(&offset.to_be_bytes()[..]));
        let mut buf = [0; 8];
        file.read_exact_at(&mut buf, offset).unwrap();
        assert_eq!(buf, offset.to_be_bytes());
        region.map().sync_range(3, 4000).unwrap();
    }
    let whole = file.map(0, 6 * GIB as usize, Access::ReadOnly).unwrap();
    let region = AppendRegion::read_only(whole, 6 * GIB as usize);
    let far = 3 * GIB as usize + 123;
    assert_eq!(
        region.bytes(far..far + 8),
        Some(&(3 * GIB + 123).to_be_bytes()[..])
    );
}

#[test]
fn maps_only_what_the_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 100).unwrap();
    for (offset, len) in [(0, 0), (0, 101), (100, 1), (u64::MAX, 2), (1, usize::MAX)] {
        let error = file.map(offset, len, Access::ReadOnly).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{offset} {len}");
        assert_eq!(error.offset(), Some(offset));
    }
    let read_only = OsIo.open(file.path(), Access::ReadOnly).unwrap();
    let error = read_only.map(0, 100, Access::ReadWrite).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn reads_and_writes_at_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 10).unwrap();
    file.write_all_at(b"abc", 2).unwrap();
    let mut buf = [9; 16];
    assert_eq!(file.read_at(&mut buf, 1).unwrap(), 9);
    assert_eq!(buf[..9], *b"\0abc\0\0\0\0\0");
    assert_eq!(file.read_at(&mut buf, 10).unwrap(), 0);
    let error = file.read_exact_at(&mut buf, 1).unwrap_err();
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::UnexpectedEof, Some(1))
    );
    file.set_len(4).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    file.sync_data().unwrap();
    file.sync_all().unwrap();
}

#[test]
fn writes_many_parts_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 0).unwrap();
    let parts: Vec<Vec<u8>> = (0..1000_usize)
        .map(|index| vec![index as u8; index % 7])
        .collect();
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    file.write_parts_at(&slices, 5).unwrap();
    file.write_parts_at(&[], 9999).unwrap();
    file.write_parts_at(&[IoSlice::new(&[]), IoSlice::new(&[])], 9999)
        .unwrap();
    let expected = parts.concat();
    let mut content = vec![0; expected.len()];
    file.read_exact_at(&mut content, 5).unwrap();
    assert_eq!(content, expected);
    assert_eq!(file.len().unwrap(), 5 + expected.len() as u64);
}

#[test]
fn allocate_keeps_length_and_content() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 1 << 20).unwrap();
    file.write_all_at(b"kept", 70_000).unwrap();
    file.allocate(65_536, 131_072).unwrap();
    assert!(blocks(file.path()) * 512 >= 131_072);
    assert_eq!(file.len().unwrap(), 1 << 20);
    let mut buf = [0; 4];
    file.read_exact_at(&mut buf, 70_000).unwrap();
    assert_eq!(&buf, b"kept");
}

/// On a tmpfs, which refuses more than its size at once, where ext4 would fill the device first.
#[test]
fn allocate_says_that_the_device_is_full() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        assert!(std::env::var_os("CI").is_none(), "/dev/shm is needed");
        eprintln!("SKIPPED: no /dev/shm to ask too much of");
        return;
    };
    let space = OsIo.space(dir.path()).unwrap();
    assert!(space.available <= space.total && space.total > 0);
    let file = OsIo.create(&dir.path().join("f"), 2 * space.total).unwrap();
    let error = file.allocate(0, 2 * space.total).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(error.offset(), Some(0));
}

#[test]
fn link_count_follows_the_names() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("f"), dir.path().join("g"));
    let file = OsIo.create(&path, 1).unwrap();
    assert_eq!(file.link_count().unwrap(), 1);
    OsIo.hard_link(&path, &other).unwrap();
    assert_eq!(file.link_count().unwrap(), 2);
    assert_eq!(OsIo.metadata(&path).unwrap().unwrap().link_count, 2);
    OsIo.remove_file(&path).unwrap();
    OsIo.rename(&other, &path).unwrap();
    assert_eq!(file.link_count().unwrap(), 1);
    OsIo.remove_file(&path).unwrap();
    assert_eq!(file.link_count().unwrap(), 0);
    assert!(OsIo.remove_file(&path).unwrap_err().is_not_found());
}

#[test]
fn directories_are_listed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("a/b/c");
    OsIo.create_dir_all(&nested).unwrap();
    OsIo.create_dir_all(&nested).unwrap();
    OsIo.create(&nested.join("00000000000000000010"), 10)
        .unwrap();
    OsIo.create(&nested.join("00000000000000000000"), 20)
        .unwrap();
    OsIo.create_dir_all(&nested.join("sub")).unwrap();
    std::os::unix::fs::symlink("nowhere", nested.join("dangling")).unwrap();
    let entries = OsIo.list(&nested).unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|e| (e.name.to_str().unwrap(), e.kind))
        .collect();
    assert_eq!(
        found,
        [
            ("00000000000000000000", FileKind::File),
            ("00000000000000000010", FileKind::File),
            ("dangling", FileKind::Other),
            ("sub", FileKind::Directory),
        ]
    );
    assert_eq!(entries[0].len, 20);
    OsIo.sync_dir(&nested).unwrap();
    assert!(
        OsIo.list(&dir.path().join("none"))
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(
        OsIo.remove_dir(&nested).unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
    OsIo.remove_dir(&nested.join("sub")).unwrap();
    let in_the_way = OsIo
        .create_dir_all(&nested.join("00000000000000000000/x"))
        .unwrap_err();
    assert_eq!(in_the_way.path(), nested.join("00000000000000000000"));
}

#[test]
fn read_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 0).unwrap();
    file.write_all_at(b"0123456789", 0).unwrap();
    assert_eq!(OsIo.read(file.path(), 10).unwrap(), b"0123456789");
    let error: IoError = OsIo.read(file.path(), 9).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    assert!(
        error.to_string().contains("10 bytes long, at most 9"),
        "{error}"
    );
}

#[test]
fn data_is_found_behind_holes_and_allocated_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 8 << 20).unwrap();
    assert_eq!(file.seek_data(0).unwrap(), None, "a hole");
    file.allocate(0, 4 << 20).unwrap();
    file.write_all_at(b"written", (1 << 20) + 5000).unwrap();
    let map = file.map(3 << 20, 4096, Access::ReadWrite).unwrap();
    let (_region, mut appender) = AppendRegion::new(map, 0);
    appender.write(&[b"mapped"]).unwrap();
    appender.publish();

    // Nothing of it is synced. Blocks around what was written may count as data as well.
    let written = (1 << 20) + 5000;
    let first = file.seek_data(0).unwrap().unwrap();
    assert!(first <= written, "{first}");
    assert_eq!(file.seek_data(written + 3).unwrap(), Some(written + 3));
    let second = file.seek_data(2 << 20).unwrap().unwrap();
    assert!(second <= 3 << 20, "{second}");
    assert_eq!(file.seek_data(7 << 20).unwrap(), None);
    assert_eq!(file.seek_data(8 << 20).unwrap(), None, "the end");
    assert_eq!(file.seek_data(u64::MAX >> 1).unwrap(), None);
}

#[test]
fn populate_makes_pages_resident_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 1 << 20).unwrap();
    file.allocate(0, 1 << 20).unwrap();
    file.write_all_at(b"kept", 5000).unwrap();
    let map = file.map(100, (1 << 20) - 100, Access::ReadWrite).unwrap();
    map.populate_write(0..map.len()).unwrap();
    map.populate_read(5..6).unwrap();
    let residency = map.resident(0..map.len()).unwrap();
    assert_eq!(
        residency,
        Residency {
            pages: 256,
            resident: 256
        }
    );
    assert_eq!(
        map.resident(3990..4000).unwrap().pages,
        2,
        "bytes 4090..4100 of the file"
    );
    assert_eq!(map.resident(10..10).unwrap().pages, 1);
    for advice in [
        Advice::Random,
        Advice::Sequential,
        Advice::WillNeed,
        Advice::DontNeed,
        Advice::HugePage,
        Advice::Normal,
    ] {
        if let Err(error) = map.advise(advice, 100..9000) {
            // Kernels without huge pages for files refuse that one.
            assert_eq!(advice, Advice::HugePage, "{error}");
        }
    }
    map.lock(50..9000).unwrap();
    map.unlock(50..9000).unwrap();
    let region = AppendRegion::read_only(map, 5000);
    assert_eq!(region.bytes(4900..4904), Some(&b"kept"[..]));
}

#[test]
fn ranges_outside_a_mapping_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 8192).unwrap();
    let map = file.map(0, 4096, Access::ReadWrite).unwrap();
    let outside = 1..4097;
    assert!(map.sync_range(1, 4096).is_err());
    assert!(map.sync_range(usize::MAX, 2).is_err());
    assert!(map.advise(Advice::DontNeed, outside.clone()).is_err());
    assert!(map.advise(Advice::Normal, outside.clone()).is_err());
    assert!(map.populate_read(outside.clone()).is_err());
    assert!(map.lock(outside.clone()).is_err());
    assert!(map.unlock(outside.clone()).is_err());
    assert!(map.resident(outside).is_err());
}

#[test]
fn populate_read_of_a_cut_file_is_an_error_not_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let file: OsFile = OsIo.create(&dir.path().join("f"), 16_384).unwrap();
    let map = file.map(0, 16_384, Access::ReadOnly).unwrap();
    file.set_len(4096).unwrap();
    assert!(map.populate_read(8192..16_384).is_err());
    map.populate_read(0..4096).unwrap();
}

#[test]
fn private_changes_never_reach_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = OsIo.create(&path, 3 * GIB).unwrap();
    let far = 2 * GIB + 12_345;
    file.write_all_at(b"as it was", far).unwrap();
    let file = OsIo.open(&path, Access::ReadOnly).unwrap();
    let (mut one, other) = (
        file.map_private(far - 100, 9000).unwrap(),
        file.map_private(far - 100, 9000).unwrap(),
    );
    let shared = file.map_read_only(far - 100, 9000).unwrap();
    one.write_at(100, b"otherwise").unwrap();
    one.write_at(8991, b"to the end").unwrap_err();
    one.write_at(8990, b"to the end").unwrap();
    let mut found = [0; 9];
    one.read_at(100, &mut found).unwrap();
    assert_eq!(&found, b"otherwise");
    // SAFETY: nobody writes the file.
    let slice = unsafe { one.bytes(8990..9000) };
    assert_eq!(slice, Some(&b"to the end"[..]));

    let refusal = one.advise(Advice::DontNeed, 0..9000).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::InvalidInput);
    assert!(refusal.to_string().contains("would lose its changes"));
    one.advise(Advice::Random, 0..9000).unwrap();
    one.read_at(100, &mut found).unwrap();
    assert_eq!(&found, b"otherwise");

    let read_by = [
        other.read_at(100, &mut found).map(|()| found),
        shared.read_at(100, &mut found).map(|()| found),
        file.read_exact_at(&mut found, far).map(|()| found),
    ];
    for read in read_by {
        assert_eq!(&read.unwrap(), b"as it was");
    }
    drop(one);
    rustix::fs::sync();
    file.read_exact_at(&mut found, far).unwrap();
    assert_eq!(&found, b"as it was");
}

#[test]
fn a_read_only_mapping_shows_what_others_write_and_copies_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 10_000).unwrap();
    let map = file.map_read_only(3, 9000).unwrap();
    assert_eq!(map.len(), 9000);
    file.write_all_at(b"later", 5003).unwrap();
    let mut found = [0; 5];
    map.read_at(5000, &mut found).unwrap();
    assert_eq!(&found, b"later");
    map.populate_read(0..9000).unwrap();
    map.advise(Advice::DontNeed, 0..9000).unwrap();
    // SAFETY: nobody writes the file any more.
    assert_eq!(unsafe { map.bytes(5000..5005) }, Some(&b"later"[..]));
    // SAFETY: nobody writes the file any more.
    assert_eq!(unsafe { map.bytes(9000..9001) }, None);
    assert!(map.read_at(8996, &mut found).is_err());
    assert!(map.read_at(usize::MAX, &mut found).is_err());
    assert!(file.map_private(9999, 2).is_err());
}

#[test]
fn who_sets_the_time_of_modification_does_not_set_that_of_the_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = OsIo.create(&path, 10).unwrap();
    let before = OsIo.metadata(&path).unwrap().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        file.write_all_at(b"other", 0).unwrap();
        let writable = std::fs::File::options().write(true).open(&path).unwrap();
        writable.set_modified(before.modified).unwrap();
        let after = OsIo.metadata(&path).unwrap().unwrap();
        assert_eq!(after.modified, before.modified);
        if after.changed > before.changed {
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

/// Blocks of 512 bytes that a file takes.
fn blocks(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap())
}

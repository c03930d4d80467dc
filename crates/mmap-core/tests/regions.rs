//! The two kinds of region, on real files.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

mod common;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

use common::{append_op, cell_op, check_append, check_cells, check_concurrent_readers};
use mmap_core::{Access, AppendRegion, CellRegion, Io, IoFile, MapParts, OsIo, OsMap};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn append_region_is_a_growing_vector(
        file_offset in prop_oneof![Just(0_u64), Just(4096), 1_u64..9000],
        (len, published) in (1_usize..9000).prop_flat_map(|len| (Just(len), 0..=len)),
        ops in prop::collection::vec(append_op(), 0..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        check_append(&OsIo, &dir.path().join("f"), file_offset, len, published, &ops);
    }

    #[test]
    fn cell_region_is_big_endian_bytes(
        file_offset in (0_u64..1024).prop_map(|words| words * 8),
        ops in prop::collection::vec(cell_op(), 0..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        check_cells(&OsIo, &dir.path().join("f"), file_offset, &ops);
    }
}

#[test]
fn readers_see_whole_records_only() {
    let dir = tempfile::tempdir().unwrap();
    check_concurrent_readers(&OsIo, &dir.path().join("f"), 20_000);
}

#[test]
fn a_slice_outlives_region_file_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let (region, mut appender) = AppendRegion::new(new_map(&path, 64), 0);
    appender.write(&[b"abc"]).unwrap();
    appender.publish();
    let slice = region.slice(0..3).unwrap();
    OsIo.remove_file(&path).unwrap();
    drop((region, appender));
    assert_eq!(&*slice.clone(), b"abc");
    assert_eq!(slice.range(), 0..3);
    assert_eq!(&*slice.into_slice(1..2), b"b");
}

#[test]
fn parts_keep_their_mapping_alive() {
    let dir = tempfile::tempdir().unwrap();
    let (region, mut appender) = AppendRegion::new(new_map(&dir.path().join("f"), 64), 0);
    appender.write(&[b"0123456789"]).unwrap();
    appender.publish();
    let slice = region.slice(2..10).unwrap();
    let mut parts = MapParts::of(&slice, 4);
    for range in [0..2, 2..3, 4..4, 5..6, 1..2] {
        parts.push(&slice, range);
    }
    // The first two follow each other.
    let found: Vec<&[u8]> = parts.iter().collect();
    assert_eq!(found, [&b"234"[..], b"7", b"3"]);
    assert_eq!((parts.count(), parts.byte_len()), (3, 5));
    assert_eq!((parts.get(1), parts.get(3)), (Some(&b"7"[..]), None));
    let owned: Vec<Vec<u8>> = parts.slices().map(|slice| slice.to_vec()).collect();
    assert_eq!(owned, found);
    drop((slice, appender));
    assert!(region.is_shared(), "the parts hold it");

    let (other, _appender) = AppendRegion::new(new_map(&dir.path().join("g"), 64), 0);
    assert!(!parts.is_of(&other.slice(0..0).unwrap()));
    drop(parts);
    assert!(!region.is_shared());
}

#[test]
fn what_is_read_from_a_socket_lands_in_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let (region, mut appender) = AppendRegion::new(new_map(&dir.path().join("f"), 8), 0);
    let (mut there, here) = std::os::unix::net::UnixStream::pair().unwrap();
    there.write_all(b"0123456789").unwrap();
    drop(there);
    assert_eq!(appender.read_from(&here, 3).unwrap(), 3);
    assert_eq!(region.bytes(0..3), None, "read, not yet visible");
    appender.publish();
    assert_eq!(region.bytes(0..3), Some(&b"012"[..]));
    assert_eq!(appender.read_from(&here, 100).unwrap(), 5, "what fits");
    assert_eq!(appender.read_from(&here, 100).unwrap(), 0, "nothing fits");
    appender.publish();
    assert_eq!(region.bytes(3..8), Some(&b"34567"[..]));

    let (_region, mut appender) = AppendRegion::new(new_map(&dir.path().join("g"), 8), 0);
    assert_eq!(appender.read_from(&here, 100).unwrap(), 2, "what is left");
    assert_eq!(appender.read_from(&here, 100).unwrap(), 0, "the end");
    assert_eq!(appender.position(), 2);
}

#[test]
fn a_full_region_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (region, mut appender) = AppendRegion::new(new_map(&dir.path().join("f"), 10), 0);
    assert_eq!(appender.write(&[b"12345", b"6789ab"]), None);
    assert_eq!(
        appender.position(),
        0,
        "nothing of what does not fit is written"
    );
    assert_eq!(appender.write(&[b"12345", b"6789a"]), Some(0..10));
    assert_eq!(appender.write(&[b"x"]), None);
    assert_eq!(appender.write(&[]), Some(10..10));
    appender.publish();
    assert_eq!(region.bytes(0..10), Some(&b"123456789a"[..]));
    assert_eq!(region.bytes(10..10), Some(&b""[..]));
    assert_eq!(region.bytes(10..11), None);
    assert_eq!(region.bytes(usize::MAX..usize::MAX), None);
    #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
    {
        assert_eq!(region.bytes(5..4), None);
        assert!(region.slice(5..4).is_none());
    }
}

#[test]
fn bytes_written_around_the_map_are_skipped_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 100).unwrap();
    let (region, mut appender) = AppendRegion::new(file.map(0, 100, Access::ReadWrite).unwrap(), 0);
    file.write_all_at(b"gathered", 0).unwrap();
    appender.skip(8);
    appender.publish();
    assert_eq!(region.bytes(0..8), Some(&b"gathered"[..]));
}

#[test]
#[should_panic(expected = "writable")]
fn no_appender_on_a_read_only_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 10).unwrap();
    AppendRegion::new(file.map(0, 10, Access::ReadOnly).unwrap(), 0);
}

#[test]
#[should_panic(expected = "published 11")]
fn no_more_is_published_than_there_is() {
    let dir = tempfile::tempdir().unwrap();
    AppendRegion::new(new_map(&dir.path().join("f"), 10), 11);
}

#[test]
fn cells_that_do_not_exist_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cells = CellRegion::new(new_map(&dir.path().join("f"), 40), 32);
    let refused: [&(dyn Fn() + std::panic::RefUnwindSafe); 9] = [
        &|| _ = cells.load_u64(32, Ordering::Relaxed),
        &|| _ = cells.load_u64(4, Ordering::Relaxed),
        &|| _ = cells.load_u64(usize::MAX - 7, Ordering::Relaxed),
        &|| _ = cells.load_u32(28, Ordering::Relaxed),
        &|| _ = cells.load_u32(34, Ordering::Relaxed),
        &|| _ = cells.load_u32(40, Ordering::Relaxed),
        &|| _ = cells.load_u32(usize::MAX - 3, Ordering::Relaxed),
        &|| cells.write_words(36, &[0; 8]),
        &|| cells.copy_out(36, &mut [0; 3]),
    ];
    for (index, access) in refused.iter().enumerate() {
        assert!(std::panic::catch_unwind(access).is_err(), "access {index}");
    }
    assert_eq!(cells.load_u32(36, Ordering::Relaxed), 0);
}

#[test]
fn cells_of_a_read_only_mapping_are_only_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 40).unwrap();
    file.write_all_at(&7_u64.to_be_bytes(), 8).unwrap();
    let cells = CellRegion::new(file.map(0, 40, Access::ReadOnly).unwrap(), 32);
    assert_eq!(cells.load_u64(8, Ordering::Acquire), 7);
    let store = std::panic::AssertUnwindSafe(|| cells.store_u64(8, 1, Ordering::Relaxed));
    assert!(std::panic::catch_unwind(store).is_err());
}

#[test]
#[should_panic(expected = "not aligned")]
fn no_cells_at_an_odd_offset() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsIo.create(&dir.path().join("f"), 100).unwrap();
    CellRegion::new(file.map(4, 40, Access::ReadWrite).unwrap(), 0);
}

fn new_map(path: &Path, len: usize) -> OsMap {
    OsIo.create(path, len as u64)
        .unwrap()
        .map(0, len, Access::ReadWrite)
        .unwrap()
}

//! The simulated device: regions on it, and what it forgets. Also run under Miri:
//! `cargo xtask miri`.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

mod common;

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::atomic::Ordering;

use common::{append_op, cell_op, check_append, check_cells, check_concurrent_readers, pattern};
use mmap_core::{
    Access, AppendRegion, CellRegion, CrashStyle, FileKind, Io, IoFile, LockError, RawMap, SimIo,
    WarmUp, warm_up,
};
use proptest::prelude::*;

const DIR: &str = "/store";

fn cases() -> ProptestConfig {
    let cases = if cfg!(miri) { 4 } else { 64 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn new_device(seed: u64) -> SimIo {
    let io = SimIo::new(seed);
    io.create_dir_all(Path::new(DIR)).unwrap();
    io
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn sim_append_region_is_a_growing_vector(
        file_offset in prop_oneof![Just(0_u64), Just(4096), 1_u64..9000],
        (len, published) in (1_usize..9000).prop_flat_map(|len| (Just(len), 0..=len)),
        ops in prop::collection::vec(append_op(), 0..20),
    ) {
        let path = Path::new("/store/f");
        check_append(&new_device(1), path, file_offset, len, published, &ops);
    }

    #[test]
    fn sim_cell_region_is_big_endian_bytes(
        file_offset in (0_u64..1024).prop_map(|words| words * 8),
        ops in prop::collection::vec(cell_op(), 0..20),
    ) {
        check_cells(&new_device(1), Path::new("/store/f"), file_offset, &ops);
    }

    /// Whatever the style: what was synced is there, and every sector holds old or new bytes.
    #[test]
    fn sim_crash_keeps_what_was_synced(
        seed in any::<u64>(),
        synced in 0_usize..20_000,
        later in prop::collection::vec((0_usize..20_000, 1_usize..5000), 0..6),
        write_back in any::<bool>(),
    ) {
        let io = new_device(seed);
        let path = Path::new("/store/f");
        let file = io.create(path, 20_000).unwrap();
        file.write_all_at(&pattern(synced, 3), 0).unwrap();
        file.sync_data().unwrap();
        io.sync_dir(Path::new(DIR)).unwrap();
        let mut old = vec![0; 20_000];
        file.read_exact_at(&mut old, 0).unwrap();
        for (index, (start, len)) in later.iter().enumerate() {
            let len = (*len).min(20_000 - start);
            file.write_all_at(&pattern(len, index + 100), *start as u64).unwrap();
            if write_back {
                io.writeback();
            }
        }
        let mut new = vec![0; 20_000];
        file.read_exact_at(&mut new, 0).unwrap();

        prop_assert_eq!(io.crash(CrashStyle::KillProcess).read(path, 99_999).unwrap(), new.clone());
        if !write_back {
            let lost = io.crash(CrashStyle::LoseUnsynced).read(path, 99_999).unwrap();
            prop_assert_eq!(lost, old.clone());
            let torn = io.crash(CrashStyle::Tear).read(path, 99_999).unwrap();
            for (sector, bytes) in torn.chunks(512).enumerate() {
                let range = sector * 512..sector * 512 + bytes.len();
                prop_assert!(bytes == &old[range.clone()] || bytes == &new[range]);
            }
        }
    }
}

#[test]
fn sim_readers_see_whole_records_only() {
    let count = if cfg!(miri) { 60 } else { 2000 };
    check_concurrent_readers(&new_device(1), Path::new("/store/f"), count);
}

#[test]
fn sim_sync_beside_an_appender_is_no_race() {
    let io = new_device(1);
    let file = io.create(Path::new("/store/f"), 9000).unwrap();
    let (region, mut appender) =
        AppendRegion::new(file.map(0, 9000, Access::ReadWrite).unwrap(), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                file.sync_data().unwrap();
                region.map().sync_range(0, region.published()).unwrap();
            }
        });
        for _ in 0..100 {
            appender.write(&[b"some bytes"]).unwrap();
            appender.publish();
        }
    });
    let cells_file = io.create(Path::new("/store/g"), 64).unwrap();
    let cells = CellRegion::new(cells_file.map(0, 64, Access::ReadWrite).unwrap(), 32);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|_| cells_file.sync_data().unwrap()));
        scope.spawn(|| (0..20).for_each(|_| cells.write_words(32, b"12345678")));
        for value in 0..20 {
            cells.store_u64(8, value, Ordering::Release);
        }
    });
    assert_eq!(cells.load_u64(8, Ordering::Acquire), 19);
}

/// The last holder of a mapping, on whichever thread, gives it back, and nobody before.
#[test]
fn sim_mappings_are_retired_by_whoever_is_last() {
    let io = new_device(8);
    let file = io.create(&Path::new(DIR).join("f"), 8192).unwrap();
    let map = file.map(0, 8192, Access::ReadWrite).unwrap();
    let (region, mut appender) = AppendRegion::new(map, 0);
    std::thread::scope(|scope| {
        for start in [0, 1000, 2000] {
            let region = region.clone();
            scope.spawn(move || {
                let slice = loop {
                    match region.slice(start..start + 1000) {
                        Some(slice) => break slice,
                        None => std::thread::yield_now(),
                    }
                };
                drop(region);
                assert_eq!(*slice, pattern(3000, 0)[start..start + 1000]);
            });
        }
        drop(region);
        for part in pattern(3000, 0).chunks(500) {
            appender.write(&[part]).unwrap();
            appender.publish();
        }
        drop(appender);
    });
    // A file that is mapped cannot change its length on this device.
    file.set_len(4096).unwrap();
}

#[test]
fn sim_warm_up_changes_nothing_that_is_there() {
    let io = new_device(9);
    let file = io.create(&Path::new(DIR).join("f"), 20_000).unwrap();
    let ways = [
        WarmUp::Touch {
            sync_every: Some(2),
        },
        WarmUp::Zeros,
        WarmUp::Populate,
    ];
    for how in ways {
        let map = file.map(0, 20_000, Access::ReadWrite).unwrap();
        let (region, mut appender) = AppendRegion::new(map, 0);
        appender.write(&[b"there"]).unwrap();
        appender.publish();
        let slice = region.slice(0..5).unwrap();
        warm_up(&file, &mut appender, 4096..20_000, how).unwrap();
        assert_eq!(&*slice, b"there");
        appender.skip(20_000 - 5);
        appender.publish();
        assert!(
            region
                .bytes(5..20_000)
                .unwrap()
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

#[test]
fn sim_names_are_durable_after_sync_dir_only() {
    let io = new_device(5);
    let (path, renamed) = (Path::new("/store/f"), Path::new("/store/g"));
    io.create(path, 10).unwrap().sync_all().unwrap();
    let gone = io.crash(CrashStyle::LoseUnsynced);
    assert_eq!(gone.metadata(path).unwrap(), None);
    io.sync_dir(Path::new(DIR)).unwrap();
    io.rename(path, renamed).unwrap();
    let back = io.crash(CrashStyle::LoseUnsynced);
    assert_eq!(back.metadata(path).unwrap().unwrap().len, 10);
    assert_eq!(back.metadata(renamed).unwrap(), None);
    for seed in 0..20 {
        let io = new_device(seed);
        io.create(path, 0).unwrap();
        io.sync_dir(Path::new(DIR)).unwrap();
        io.rename(path, renamed).unwrap();
        let torn = io.crash(CrashStyle::Tear);
        let count = torn.list(Path::new(DIR)).unwrap().len();
        assert_eq!(count, 1, "a rename happens or not, seed {seed}");
    }
}

#[test]
fn sim_directories_are_durable_with_their_names() {
    let (dir, file) = (Path::new("/store/sub"), Path::new("/store/sub/f"));
    let io = new_device(6);
    io.fail_next("sync_dir", ErrorKind::Other);
    io.create_dir_all(dir).unwrap_err();
    assert_eq!(
        io.metadata(dir).unwrap(),
        None,
        "a retry would not sync its name"
    );
    io.create_dir_all(dir).unwrap();
    assert!(
        io.crash(CrashStyle::LoseUnsynced)
            .metadata(dir)
            .unwrap()
            .is_some()
    );

    // One whose name is not durable takes its files along.
    let moved = Path::new("/store/moved");
    io.rename(dir, moved).unwrap();
    io.create(&moved.join("f"), 1).unwrap();
    io.sync_dir(moved).unwrap();
    let back = io.crash(CrashStyle::LoseUnsynced);
    assert!(back.metadata(dir).unwrap().is_some());
    assert_eq!(back.metadata(file).unwrap(), None);
    assert_eq!(back.metadata(&moved.join("f")).unwrap(), None);
}

#[test]
fn sim_failed_sync_loses_its_pages() {
    let io = new_device(5);
    let path = Path::new("/store/f");
    let file = io.create(path, 5).unwrap();
    file.sync_all().unwrap();
    io.sync_dir(Path::new(DIR)).unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    io.fail_nth("sync_data", 1, ErrorKind::Other);
    let error = file.sync_data().unwrap_err();
    assert_eq!(
        (error.op(), error.path(), error.kind()),
        ("sync_data", path, ErrorKind::Other)
    );
    file.sync_data().unwrap();
    assert_eq!(io.read(path, 9).unwrap(), b"bytes", "still in memory");
    assert_eq!(
        io.crash(CrashStyle::LoseUnsynced).read(path, 9).unwrap(),
        [0; 5]
    );
}

#[test]
fn sim_space_is_an_error_for_files_and_a_signal_for_mappings() {
    let io = new_device(5);
    io.space_limit(3 * 4096);
    let file = io.create(Path::new("/store/f"), 100_000).unwrap();
    file.allocate(0, 8192).unwrap();
    assert_eq!(io.space(Path::new(DIR)).unwrap().available, 4096);
    let error = file.allocate(8192, 8192).unwrap_err();
    assert!(error.is_full());
    assert!(file.write_all_at(&[1; 8192], 8192).unwrap_err().is_full());
    let (_, mut appender) = AppendRegion::new(file.map(0, 100_000, Access::ReadWrite).unwrap(), 0);
    appender.write(&[&[7; 12_288]]).unwrap();
    let beyond = std::panic::AssertUnwindSafe(|| appender.write(&[b"x"]));
    let panic = std::panic::catch_unwind(beyond).unwrap_err();
    assert!(
        panic
            .downcast_ref::<String>()
            .unwrap()
            .starts_with("SIGBUS at position 12288")
    );
    io.space_limit(1 << 20);
    file.allocate(12_288, 4096).unwrap();
}

#[test]
fn sim_faults_strike_by_name_and_number() {
    let io = new_device(5);
    let file = io.create(Path::new("/store/f"), 10).unwrap();
    io.fail_nth("write", 2, ErrorKind::StorageFull);
    file.write_all_at(b"a", 0).unwrap();
    assert!(file.write_all_at(b"b", 0).unwrap_err().is_full());
    file.write_parts_at(&[IoSlice::new(b"c"), IoSlice::new(b"d")], 0)
        .unwrap();
    let before = io.operation_count();
    io.fail_from("*", 2, ErrorKind::BrokenPipe);
    file.sync_data().unwrap();
    file.sync_data().unwrap_err();
    io.metadata(Path::new(DIR)).unwrap_err();
    assert_eq!(io.operation_count(), before + 3);
    io.clear_faults();
    assert_eq!(io.read(Path::new("/store/f"), 10).unwrap()[..2], *b"cd");
}

#[test]
fn sim_data_is_found_behind_zeros() {
    let io = new_device(5);
    io.create_dir_all("/d".as_ref()).unwrap();
    let file = io.create("/d/f".as_ref(), 20_000).unwrap();
    assert_eq!(file.seek_data(0).unwrap(), None);
    file.write_all_at(&[1], 9_000).unwrap();
    assert_eq!(file.seek_data(100).unwrap(), Some(8_192), "its page");
    assert_eq!(file.seek_data(8_999).unwrap(), Some(8_999));
    assert_eq!(file.seek_data(9_001).unwrap(), None);
    assert_eq!(file.seek_data(30_000).unwrap(), None);
}

#[test]
fn sim_bits_flip_on_the_device() {
    let io = new_device(5);
    let path = Path::new("/store/f");
    let file = io.create(path, 3).unwrap();
    file.sync_all().unwrap();
    io.sync_dir(Path::new(DIR)).unwrap();
    io.flip_bit(path, 2, 7).unwrap();
    assert_eq!(io.read(path, 9).unwrap(), [0, 0, 0x80]);
    assert_eq!(
        io.crash(CrashStyle::LoseUnsynced).read(path, 9).unwrap(),
        [0, 0, 0x80]
    );
    assert!(io.flip_bit(path, 3, 0).is_err());
    assert!(
        io.flip_bit(Path::new("/none"), 0, 0)
            .unwrap_err()
            .is_not_found()
    );
}

#[test]
fn sim_behaves_as_the_system_does() {
    let io = new_device(5);
    let path = Path::new("/store/f");
    let file = io.create(path, 10).unwrap();
    assert_eq!(
        io.create(path, 1).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert!(io.create(Path::new("/no/f"), 1).unwrap_err().is_not_found());
    for (offset, len) in [(0, 0), (0, 11), (10, 1), (u64::MAX, 2), (1, usize::MAX)] {
        let error = file.map(offset, len, Access::ReadOnly).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{offset} {len}");
    }
    let mut buf = [9; 16];
    assert_eq!(file.read_at(&mut buf, 8).unwrap(), 2);
    assert_eq!(
        file.read_exact_at(&mut buf, 8).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
    let read_only = io.open(path, Access::ReadOnly).unwrap();
    let denied = read_only.write_all_at(b"x", 99).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    assert!(read_only.map(0, 1, Access::ReadWrite).is_err());
    assert_eq!(file.len().unwrap(), 10);
    file.write_all_at(b"grown", 12).unwrap();
    assert_eq!(file.len().unwrap(), 17);
    let map = file.map(0, 17, Access::ReadOnly).unwrap();
    assert_eq!(file.set_len(1).unwrap_err().kind(), ErrorKind::ResourceBusy);
    drop(map);
    file.set_len(1).unwrap();

    io.hard_link(path, Path::new("/store/g")).unwrap();
    assert_eq!(file.link_count().unwrap(), 2);
    io.remove_file(path).unwrap();
    assert_eq!(file.link_count().unwrap(), 1);
    assert!(io.open(path, Access::ReadOnly).unwrap_err().is_not_found());
    let entries = io.list(Path::new("/")).unwrap();
    assert_eq!(entries[0].kind, FileKind::Directory);
    assert_eq!(
        io.remove_dir(Path::new(DIR)).unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
    io.rename(Path::new(DIR), Path::new("/moved")).unwrap();
    assert_eq!(io.read(Path::new("/moved/g"), 9).unwrap().len(), 1);

    let lock = io.lock(Path::new("/moved/lock")).unwrap();
    assert!(matches!(
        io.lock(Path::new("/moved/lock")),
        Err(LockError::Held { .. })
    ));
    drop(lock);
    io.lock(Path::new("/moved/lock")).unwrap();
    assert_eq!(io.read(Path::new("/moved/lock"), 9).unwrap(), b"lock");
}

//! Publishing and retiring in every order of the threads' steps that matters: `cargo xtask loom`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a model that does not hold panics")]

use std::path::Path;

use mmap_core::sync::{model, thread};
use mmap_core::{Access, AppendRegion, Appender, Io, IoFile, WatchedFile, WatchedIo, WatchedMap};

const LEN: usize = 4;

fn file() -> WatchedFile {
    WatchedIo::new()
        .create(Path::new("/f"), LEN as u64)
        .unwrap()
}

fn region() -> (AppendRegion<WatchedMap>, Appender<WatchedMap>) {
    AppendRegion::new(file().map(0, LEN, Access::ReadWrite).unwrap(), 0)
}

/// Reads what is published, which must be the first bytes of `written`.
fn read_published(region: &AppendRegion<WatchedMap>, written: &[u8]) -> usize {
    let published = region.published();
    let slice = region.slice(0..published).unwrap();
    assert_eq!(slice.read(), written[..published]);
    published
}

#[test]
fn readers_see_what_is_published_and_nothing_else() {
    model(|| {
        let (region, mut appender) = region();
        let reader = thread::spawn(move || {
            let seen = read_published(&region, b"abc");
            assert!(region.slice(0..LEN).is_none());
            assert!(read_published(&region, b"abc") >= seen, "moved back");
        });
        appender.write(&[b"a", b"b"]).unwrap();
        appender.publish();
        appender.write_head_last(&[b"c"]).unwrap();
        appender.publish();
        reader.join().unwrap();
    });
}

#[test]
fn a_slice_stands_beside_what_is_written_behind_it() {
    model(|| {
        let (region, mut appender) = region();
        appender.write(&[b"ab"]).unwrap();
        appender.publish();
        let reader = thread::spawn(move || {
            let slice = region.slice(0..2).unwrap();
            assert_eq!(slice.read(), b"ab");
            let part = slice.slice(1..2).unwrap();
            drop((region, slice));
            assert_eq!(part.read(), b"b");
        });
        appender.write(&[b"cd"]).unwrap();
        appender.publish();
        assert!(appender.write(&[b"e"]).is_none());
        reader.join().unwrap();
    });
}

#[test]
fn a_mapping_ends_with_its_last_holder() {
    model(|| {
        let (region, mut appender) = region();
        appender.write(&[b"abc"]).unwrap();
        appender.publish();
        let slice = region.slice(0..3).unwrap();
        let holders = [
            thread::spawn(move || assert_eq!(slice.read(), b"abc")),
            thread::spawn(move || {
                let slice = region.slice(1..3).unwrap();
                drop(region);
                assert_eq!(slice.read(), b"bc");
            }),
        ];
        appender.write(&[b"d"]).unwrap();
        drop(appender);
        for holder in holders {
            holder.join().unwrap();
        }
    });
}

#[test]
fn the_only_holder_knows_that_it_is() {
    model(|| {
        let file = file();
        let map = file.map(0, LEN, Access::ReadWrite).unwrap();
        let (region, appender) = AppendRegion::new(map, 0);
        let slice = region.slice(0..0).unwrap();
        let others = thread::spawn(move || {
            drop(appender);
            drop(slice.clone());
            drop(slice);
        });
        if region.is_shared() {
            others.join().unwrap();
            assert!(!region.is_shared());
        }
        drop(region);
        // The device refuses that while the file is mapped.
        file.set_len(0).unwrap();
    });
}

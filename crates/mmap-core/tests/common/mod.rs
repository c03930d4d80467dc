//! What the region tests do on any device: they run on real files and on the simulated one.

use std::path::Path;

use mmap_core::{Access, AppendRegion, CellRegion, Io, IoFile, MapSlice};
use proptest::prelude::*;
use std::sync::atomic::Ordering;

/// One act on an append region.
#[derive(Clone, Debug)]
pub(crate) enum AppendOp {
    /// Parts to copy, as lengths; their bytes follow from how much was written before.
    Write(Vec<usize>),
    Skip(usize),
    Publish,
    Slice(usize, usize),
}

pub(crate) fn append_op() -> impl Strategy<Value = AppendOp> {
    prop_oneof![
        4 => prop::collection::vec(0_usize..700, 0..5).prop_map(AppendOp::Write),
        1 => (0_usize..300).prop_map(AppendOp::Skip),
        3 => Just(AppendOp::Publish),
        4 => (0_usize..9000, 0_usize..900).prop_map(|(start, len)| AppendOp::Slice(start, len)),
    ]
}

/// Runs acts against a region of `len` bytes at `file_offset` of a new file, and against a vector.
pub(crate) fn check_append<I: Io>(
    io: &I,
    path: &Path,
    file_offset: u64,
    len: usize,
    published: usize,
    ops: &[AppendOp],
) {
    let file = io.create(path, file_offset + len as u64 + 17).unwrap();
    let before = pattern(published, 77);
    file.write_all_at(&before, file_offset).unwrap();
    let map = file.map(file_offset, len, Access::ReadWrite).unwrap();
    let (region, mut appender) = AppendRegion::new(map, published);

    let mut model = vec![0; len];
    model[..published].copy_from_slice(&before);
    let (mut position, mut visible) = (published, published);
    let mut held: Vec<(MapSlice<I::Map>, Vec<u8>)> = Vec::new();
    for op in ops {
        match op {
            AppendOp::Write(lens) => {
                let total = lens.iter().sum::<usize>();
                let bytes = pattern(total, position);
                let parts = split(&bytes, lens);
                let range = appender.write(&parts);
                assert_eq!(
                    range,
                    (total <= len - position).then_some(position..position + total)
                );
                if range.is_some() {
                    model[position..position + total].copy_from_slice(&bytes);
                    position += total;
                }
            }
            AppendOp::Skip(skipped) => {
                let skipped = (*skipped).min(appender.remaining());
                appender.skip(skipped);
                position += skipped;
            }
            AppendOp::Publish => {
                appender.publish();
                visible = position;
            }
            AppendOp::Slice(start, slice_len) => {
                let range = *start..*start + *slice_len;
                let expected = (range.end <= visible).then(|| model[range.clone()].to_vec());
                assert_eq!(region.bytes(range.clone()).map(<[u8]>::to_vec), expected);
                let slice = region.slice(range);
                assert_eq!(slice.as_deref(), expected.as_deref());
                held.extend(slice.zip(expected));
            }
        }
        assert_eq!(appender.position(), position);
        assert_eq!(appender.remaining(), len - position);
        assert_eq!(region.published(), visible);
    }
    drop((region, appender));
    for (slice, expected) in &held {
        assert_eq!(&**slice, expected);
        let half = expected.len() / 2;
        assert_eq!(
            slice.slice(half..expected.len()).unwrap()[..],
            expected[half..]
        );
    }
    // The mapping is shared with the file: pread sees all of it, published or not.
    let mut content = vec![0; len];
    file.read_exact_at(&mut content, file_offset).unwrap();
    assert_eq!(content, model);
    io.remove_file(path).unwrap();
}

/// One act on a cell region of [`CELLS_LEN`] bytes, the first [`WIDE_LEN`] of them wide.
#[derive(Clone, Debug)]
pub(crate) enum CellOp {
    Narrow(usize, u32),
    Wide(usize, u64),
    Words(usize, Vec<u8>),
}

pub(crate) const CELLS_LEN: usize = 400;
pub(crate) const WIDE_LEN: usize = 32;

pub(crate) fn cell_op() -> impl Strategy<Value = CellOp> {
    let narrow = WIDE_LEN / 4..CELLS_LEN / 4;
    prop_oneof![
        (narrow.clone(), any::<u32>()).prop_map(|(index, value)| CellOp::Narrow(index * 4, value)),
        (0..WIDE_LEN / 8, any::<u64>()).prop_map(|(index, value)| CellOp::Wide(index * 8, value)),
        (narrow, prop::collection::vec(any::<[u8; 4]>(), 0..9)).prop_map(|(index, words)| {
            let fits = (CELLS_LEN / 4 - index).min(words.len());
            CellOp::Words(index * 4, words[..fits].concat())
        }),
    ]
}

/// Runs acts against a cell region and against a vector of big-endian bytes.
pub(crate) fn check_cells<I: Io>(io: &I, path: &Path, file_offset: u64, ops: &[CellOp]) {
    let file = io.create(path, file_offset + CELLS_LEN as u64).unwrap();
    let map = file.map(file_offset, CELLS_LEN, Access::ReadWrite).unwrap();
    let cells = CellRegion::new(map, WIDE_LEN);
    let mut model = vec![0; CELLS_LEN];
    for op in ops {
        match op {
            CellOp::Narrow(position, value) => {
                cells.store_u32(*position, *value, Ordering::Release);
                model[*position..*position + 4].copy_from_slice(&value.to_be_bytes());
                assert_eq!(cells.load_u32(*position, Ordering::Acquire), *value);
            }
            CellOp::Wide(position, value) => {
                cells.store_u64(*position, *value, Ordering::Release);
                model[*position..*position + 8].copy_from_slice(&value.to_be_bytes());
                assert_eq!(cells.load_u64(*position, Ordering::Acquire), *value);
            }
            CellOp::Words(position, bytes) => {
                cells.write_words(*position, bytes);
                model[*position..*position + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
    let mut narrow = vec![0; CELLS_LEN - WIDE_LEN];
    cells.copy_out(WIDE_LEN, &mut narrow);
    assert_eq!(narrow, model[WIDE_LEN..]);
    let mut content = vec![0; CELLS_LEN];
    file.read_exact_at(&mut content, file_offset).unwrap();
    assert_eq!(content, model);
    io.remove_file(path).unwrap();
}

/// Readers follow an appender on another thread; whatever is published is complete.
pub(crate) fn check_concurrent_readers<I: Io>(io: &I, path: &Path, record_count: usize) {
    const RECORD_LEN: usize = 24;
    let len = record_count * RECORD_LEN;
    let file = io.create(path, len as u64).unwrap();
    let map = file.map(0, len, Access::ReadWrite).unwrap();
    let (region, mut appender) = AppendRegion::new(map, 0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let region = &region;
            scope.spawn(move || {
                let mut seen = 0;
                while seen < len {
                    let published = region.published();
                    assert_eq!(
                        published % RECORD_LEN,
                        0,
                        "published in the middle of a record"
                    );
                    assert!(published >= seen, "published moved back");
                    if published == seen {
                        std::thread::yield_now();
                        continue;
                    }
                    let slice = region.slice(seen..published).unwrap();
                    for (index, record) in slice.chunks(RECORD_LEN).enumerate() {
                        let number = (seen / RECORD_LEN + index) as u64;
                        assert_eq!(record[..8], number.to_be_bytes());
                        assert_eq!(record[16..], number.to_be_bytes());
                    }
                    seen = published;
                }
            });
        }
        for number in 0..record_count as u64 {
            let number = number.to_be_bytes();
            appender.write(&[&number, b"--------", &number]).unwrap();
            if number[7] % 3 == 0 {
                appender.publish();
            }
        }
        appender.publish();
    });
    io.remove_file(path).unwrap();
}

pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|index| ((index + seed) * 131 + seed / 7 + 1) as u8)
        .collect()
}

pub(crate) fn split<'a>(bytes: &'a [u8], lens: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut parts = Vec::new();
    for len in lens {
        let (part, after) = rest.split_at(*len);
        parts.push(part);
        rest = after;
    }
    parts
}

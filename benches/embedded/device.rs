//! What the machine gives without a store: the rates that the others are compared with.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mmap_core::{Access, AppendRegion, Io, IoFile, OsIo};

use benches::sample::{Laps, Sample, Usage};

const FILE_LEN: u64 = 64 << 20;
const PIECE_LEN: usize = 1 << 20;
const SEGMENT_LEN: u64 = 1 << 30;
/// Bytes of the records that the store writes for the messages of the benches.
const RECORD_LEN: usize = 1238;

/// 1 KiB written and synced, into blocks that were written before.
pub(crate) fn fdatasync(dir: &Path, millis: u64) -> Result<Sample> {
    let file = OsIo.create(&dir.join("file"), FILE_LEN)?;
    let zeros = vec![0; PIECE_LEN];
    for offset in (0..FILE_LEN).step_by(PIECE_LEN) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    let bytes = [b'x'; benches::BODY_LEN];
    let before = Usage::now()?;
    let start = Instant::now();
    let end = start + Duration::from_millis(millis);
    let mut laps = Laps::start()?;
    let mut offset = 0;
    loop {
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        offset = (offset + bytes.len() as u64) % FILE_LEN;
        if laps.lap() >= end {
            break;
        }
    }
    let count = laps.latency_ns.len();
    Ok(Sample {
        count,
        bytes: count * bytes.len() as u64,
        elapsed: start.elapsed(),
        callers: None,
        latency_ns: laps.latency_ns,
        usage: Usage::now()?.since(before),
        sum: None,
    })
}

/// A file written in large pieces, and synced at its end.
pub(crate) fn write(dir: &Path, bytes: u64) -> Result<Sample> {
    let file = OsIo.create(&dir.join("file"), bytes)?;
    file.allocate(0, bytes)?;
    let piece = vec![b'x'; PIECE_LEN];
    let before = Usage::now()?;
    let start = Instant::now();
    let mut laps = Laps::start()?;
    let count = bytes / PIECE_LEN as u64;
    for index in 0..count {
        file.write_all_at(&piece, index * PIECE_LEN as u64)?;
        laps.lap();
    }
    file.sync_data()?;
    Ok(Sample {
        count,
        bytes: count * PIECE_LEN as u64,
        elapsed: start.elapsed(),
        callers: None,
        latency_ns: laps.latency_ns,
        usage: Usage::now()?.since(before),
        sum: None,
    })
}

/// Records copied into mapped segments whose blocks are allocated, and published; nothing else.
pub(crate) fn copy(dir: &Path, messages: u64) -> Result<Sample> {
    let record = vec![b'x'; RECORD_LEN];
    let mut segment = 0;
    let mut next_segment = || -> Result<_> {
        let file = OsIo.create(&dir.join(format!("{segment:020}")), SEGMENT_LEN)?;
        file.allocate(0, SEGMENT_LEN)?;
        segment += SEGMENT_LEN;
        let map = file.map(0, SEGMENT_LEN as usize, Access::ReadWrite)?;
        Ok(AppendRegion::new(map, 0))
    };
    let (mut region, mut appender) = next_segment()?;
    let before = Usage::now()?;
    let start = Instant::now();
    let mut laps = Laps::start()?;
    for _ in 0..messages {
        if appender.remaining() < RECORD_LEN {
            (region, appender) = next_segment()?;
        }
        appender.write(&[&record]).context("no room")?;
        appender.publish();
        laps.lap();
    }
    let elapsed = start.elapsed();
    drop(region);
    Ok(Sample {
        count: messages,
        bytes: messages * RECORD_LEN as u64,
        elapsed,
        callers: None,
        latency_ns: laps.latency_ns,
        usage: Usage::now()?.since(before),
        sum: None,
    })
}

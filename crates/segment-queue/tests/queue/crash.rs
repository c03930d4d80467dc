//! The machine stops between any two file operations: what was flushed is there, in files that
//! open without repair, and what was cut does not come back.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use mmap_core::{CrashStyle, Io, SimIo, WarmUp};
use proptest::prelude::*;
use segment_queue::{
    AppendError, DamagePolicy, FlushPolicy, NameSync, PreallocateOptions, Preallocator,
    SegmentQueue, SegmentQueueOptions, SegmentWriter,
};

const DIR: &str = "/store/queue";
/// Some pages and a bit.
const SEGMENT_LEN: u64 = 10_000;

#[derive(Debug, Clone)]
enum Op {
    Append(u16),
    WriteThrough(u16),
    WriteBehind(u16),
    Flush,
    /// To this share of the bytes held, in 1/256.
    TrimTo(u8),
    /// A step of the preallocator.
    Prepare,
    Park,
    /// The kernel writes something by itself.
    Writeback,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1..4_000_u16).prop_map(Op::Append),
        4 => (1..4_000_u16).prop_map(Op::WriteThrough),
        4 => (1..4_000_u16).prop_map(Op::WriteBehind),
        3 => Just(Op::Flush),
        1 => any::<u8>().prop_map(Op::TrimTo),
        3 => Just(Op::Prepare),
        1 => Just(Op::Park),
        2 => Just(Op::Writeback),
    ]
}

fn warm_up() -> impl Strategy<Value = Option<WarmUp>> {
    prop_oneof![
        Just(None),
        Just(Some(WarmUp::Touch {
            sync_every: Some(2)
        })),
        Just(Some(WarmUp::Populate)),
        Just(Some(WarmUp::Zeros)),
    ]
}

fn style() -> impl Strategy<Value = CrashStyle> {
    prop_oneof![
        Just(CrashStyle::KillProcess),
        Just(CrashStyle::LoseUnsynced),
        Just(CrashStyle::Tear),
    ]
}

/// A process that uses a queue, and what it remembers having written.
struct Process {
    io: SimIo,
    queue: Arc<SegmentQueue<SimIo>>,
    writer: SegmentWriter<SimIo>,
    preallocator: Preallocator<SimIo>,
    /// Everything from offset 0 on, trimmed or not.
    bytes: Vec<u8>,
}

impl Process {
    /// Opens a queue that holds `bytes`, of which the last ones may not be durable.
    fn start(
        io: &SimIo,
        (name_sync, warm_up): (NameSync, Option<WarmUp>),
        bytes: Vec<u8>,
        flushed: u64,
    ) -> Self {
        let (queue, mut writer) = open(io, name_sync);
        if queue.published() > 0 {
            writer.truncate(bytes.len() as u64).unwrap();
            writer.mark_unflushed(flushed);
        }
        let options = PreallocateOptions {
            count: 2,
            create_below: 6_000,
            window: 6_000,
            warm_up,
        };
        let preallocator = Preallocator::new(Arc::clone(&queue), options);
        Self {
            io: io.clone(),
            queue,
            writer,
            preallocator,
            bytes,
        }
    }

    fn new_bytes(&self, len: u16) -> Vec<u8> {
        let start = self.bytes.len();
        (start..start + usize::from(len))
            .map(|index| (index % 251) as u8 + 1)
            .collect()
    }

    /// Applies `write`, rolling if it asks for it.
    fn write(
        &mut self,
        len: u16,
        write: fn(&mut SegmentWriter<SimIo>, &[u8]) -> Result<u64, AppendError>,
    ) -> Result<(), AppendError> {
        let mut bytes = self.new_bytes(len);
        let mut outcome = write(&mut self.writer, &bytes);
        if let Err(AppendError::NeedsRoll { .. }) = outcome {
            let end = self.writer.position() + self.writer.remaining();
            self.writer.roll()?;
            self.bytes.resize(end as usize, 0);
            bytes = self.new_bytes(len);
            outcome = write(&mut self.writer, &bytes);
        }
        assert_eq!(outcome?, self.bytes.len() as u64);
        self.bytes.extend_from_slice(&bytes);
        self.writer.publish();
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), AppendError> {
        match *op {
            Op::Append(len) => self.write(len, |writer, bytes| writer.append(&[bytes]))?,
            Op::WriteThrough(len) => {
                self.write(len, |writer, bytes| {
                    writer.write_through(&[IoSlice::new(bytes)])
                })?;
            }
            Op::WriteBehind(len) => {
                self.write(len, |writer, bytes| {
                    writer.write_behind(&[IoSlice::new(bytes)])
                })?;
            }
            Op::Flush => drop(self.queue.flush(FlushPolicy::All)?),
            Op::TrimTo(of_256) => {
                let (min, end) = (self.queue.min_offset(), self.queue.published());
                self.queue
                    .trim_to(min + (end - min) * u64::from(of_256) / 256)?;
            }
            Op::Prepare => drop(self.preallocator.step()?),
            Op::Park => self.writer.park(),
            Op::Writeback => self.io.writeback(),
        }
        Ok(())
    }

    /// Works until the end, or until something fails.
    fn run(&mut self, ops: &[Op]) {
        for op in ops {
            if self.apply(op).is_err() {
                break;
            }
        }
    }
}

fn open(io: &SimIo, name_sync: NameSync) -> (Arc<SegmentQueue<SimIo>>, SegmentWriter<SimIo>) {
    let mut options = SegmentQueueOptions::new(DIR, SEGMENT_LEN);
    options.allocate_step = 4096;
    options.name_sync = name_sync;
    if name_sync == NameSync::WithFlush {
        options.damage = DamagePolicy::ExtendWithZeros;
    }
    SegmentQueue::open(io.clone(), &options).unwrap()
}

/// The bytes from the queue's first to `end` are these.
fn check_bytes(queue: &SegmentQueue<SimIo>, bytes: &[u8], end: u64) {
    let min = queue.min_offset();
    if min >= end {
        return;
    }
    let mut found = vec![0; (end - min) as usize];
    queue.read_exact_at(min, &mut found).unwrap();
    assert!(
        found == bytes[min as usize..end as usize],
        "bytes below {end} differ"
    );
}

/// There are only zeros from `end` on.
fn check_zeros(queue: &SegmentQueue<SimIo>, end: u64) {
    let mut found = vec![0; (queue.published() - end) as usize];
    queue.read_exact_at(end, &mut found).unwrap();
    assert!(
        found.iter().all(|&byte| byte == 0),
        "bytes behind {end} came back"
    );
}

/// Two lives and three crashes, the first two in the middle of something.
fn check(seed: u64, how: (NameSync, Option<WarmUp>), lives: &[(Vec<Op>, u64, CrashStyle); 2]) {
    let (name_sync, _) = how;
    let mut io = SimIo::new(seed);
    io.create_dir_all(Path::new(DIR).parent().unwrap()).unwrap();
    let (mut bytes, mut flushed) = (Vec::new(), 0);
    for (ops, fail_from, style) in lives {
        let mut process = Process::start(&io, how, bytes, flushed);
        io.fail_from("*", *fail_from, ErrorKind::Other);
        process.run(ops);
        let claimed = process.queue.flushed();
        let (min, published) = (process.queue.min_offset(), process.queue.published());
        io = io.crash(*style);

        let (queue, _) = open(&io, name_sync);
        // A killed process loses nothing, unless a sync has failed: then the kernel counts pages
        // as clean that never reached the device, and no later sync brings them there.
        let is_all_kept = *style == CrashStyle::KillProcess && !process.queue.is_poisoned();
        let kept = if is_all_kept { published } else { claimed };
        assert!(
            queue.min_offset() <= min && queue.published() >= kept,
            "segments are gone"
        );
        check_bytes(&queue, &process.bytes, kept);
        bytes = process.bytes;
        bytes.truncate(kept as usize);
        flushed = claimed.min(kept);
    }
    let end = bytes.len() as u64;
    let process = Process::start(&io, how, bytes, flushed);
    process.queue.flush(FlushPolicy::All).unwrap();
    let (queue, _) = open(&io.crash(CrashStyle::LoseUnsynced), name_sync);
    check_bytes(&queue, &process.bytes, end);
    check_zeros(&queue, end.max(queue.min_offset()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_was_flushed_survives(
        seed in any::<u64>(),
        name_sync in prop_oneof![Just(NameSync::AtCreation), Just(NameSync::WithFlush)],
        warm_up in warm_up(),
        first in (prop::collection::vec(op(), 1..40), 1..200_u64, style()),
        second in (prop::collection::vec(op(), 1..40), 1..200_u64, style()),
    ) {
        check(seed, (name_sync, warm_up), &[first, second]);
    }
}

#[test]
fn a_directory_is_durable_before_anything_in_it_is_flushed() {
    let io = SimIo::new(1);
    let (queue, mut writer) = open(&io, NameSync::AtCreation);
    writer.roll().unwrap();
    writer.append(&[b"first"]).unwrap();
    writer.publish();
    queue.flush(FlushPolicy::All).unwrap();
    let io = io.crash(CrashStyle::LoseUnsynced);
    assert_eq!(io.list(Path::new(DIR)).unwrap().len(), 1);
    let (queue, _) = open(&io, NameSync::AtCreation);
    assert_eq!(&*queue.slice(0, 5).unwrap(), b"first");
}

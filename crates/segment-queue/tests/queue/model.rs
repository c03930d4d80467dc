//! Any sequence of operations leaves what a plain vector of bytes would hold.

use std::ffi::OsString;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use mmap_core::{Io, OsIo, SimIo};
use proptest::prelude::*;
use segment_queue::{
    AppendError, FlushPolicy, SegmentQueue, SegmentQueueOptions, SegmentWriter, segment_name,
};

/// Neither a multiple of a page nor of a sector, as those of consume queues.
const SEGMENT_LEN: u64 = 5_000;

#[derive(Debug, Clone)]
enum Op {
    Append(u16),
    Publish,
    WriteThrough(u16),
    WriteBehind(u16),
    FillToEnd,
    Roll,
    Flush,
    /// To this share of the bytes held, in 1/256.
    TrimTo(u8),
    Park,
    /// Reopens, and truncates to this share of the bytes held, in 1/256 (255: all of it).
    Reopen(u8),
    /// As `Reopen` without a cut, by `resume`.
    Resume,
    Reset(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..=SEGMENT_LEN as u16 + 1).prop_map(Op::Append),
        8 => (0..300_u16).prop_map(Op::Append),
        4 => Just(Op::Publish),
        4 => (0..2_000_u16).prop_map(Op::WriteThrough),
        4 => (0..2_000_u16).prop_map(Op::WriteBehind),
        2 => Just(Op::FillToEnd),
        2 => Just(Op::Roll),
        3 => Just(Op::Flush),
        2 => any::<u8>().prop_map(Op::TrimTo),
        1 => Just(Op::Park),
        2 => any::<u8>().prop_map(Op::Reopen),
        1 => Just(Op::Resume),
        1 => (0..20_000_u16).prop_map(Op::Reset),
    ]
}

/// The queue and what it should hold.
struct Pair<I: Io> {
    io: I,
    options: SegmentQueueOptions,
    queue: Arc<SegmentQueue<I>>,
    writer: SegmentWriter<I>,
    /// Content from offset `base` on, written or not published yet.
    bytes: Vec<u8>,
    base: u64,
    published: u64,
    /// Differs from byte to byte and from write to write.
    next_byte: u8,
}

impl<I: Io> Pair<I> {
    fn new(io: I, options: SegmentQueueOptions) -> Self {
        let (queue, writer) = SegmentQueue::open(io.clone(), &options).unwrap();
        Self {
            io,
            options,
            queue,
            writer,
            bytes: Vec::new(),
            base: 0,
            published: 0,
            next_byte: 1,
        }
    }

    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn new_bytes(&mut self, len: u16) -> Vec<u8> {
        let next = &mut self.next_byte;
        (0..len)
            .map(|_| {
                *next = next.wrapping_mul(5).wrapping_add(3) | 1;
                *next
            })
            .collect()
    }

    fn share(&self, of_256: u8) -> u64 {
        let (min, end) = (self.queue.min_offset(), self.queue.published());
        if of_256 == 255 {
            end
        } else {
            min + (end - min) * u64::from(of_256) / 256
        }
    }

    /// Applies `write`, rolling once if it asks for it.
    fn write(
        &mut self,
        bytes: &[u8],
        write: fn(&mut SegmentWriter<I>, &[u8]) -> Result<u64, AppendError>,
    ) -> bool {
        let mut offset = write(&mut self.writer, bytes);
        if let Err(AppendError::NeedsRoll { remaining, .. }) = offset {
            assert!(remaining < bytes.len() as u64 || remaining == 0);
            self.roll();
            offset = write(&mut self.writer, bytes);
        }
        match offset {
            Ok(offset) => {
                assert_eq!(offset, self.end());
                self.bytes.extend_from_slice(bytes);
                true
            }
            Err(AppendError::TooLarge { len, segment_len }) => {
                assert!(len > segment_len);
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// What a roll leaves unwritten reads as zeros, a whole segment if need be.
    fn roll(&mut self) {
        let end = self.writer.position() + self.writer.remaining();
        self.writer.roll().unwrap();
        self.bytes.resize((end - self.base) as usize, 0);
        self.published = end;
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append(len) => {
                let bytes = self.new_bytes(len);
                self.write(&bytes, |writer, bytes| {
                    let (first, second) = bytes.split_at(bytes.len() / 3);
                    writer.append(&[first, second])
                });
            }
            Op::Publish => {
                self.writer.publish();
                self.published = self.end();
            }
            Op::WriteThrough(len) => {
                let bytes = self.new_bytes(len);
                self.write(&bytes, |writer, bytes| {
                    let (first, second) = bytes.split_at(bytes.len() / 2);
                    writer.write_through(&[IoSlice::new(first), IoSlice::new(second)])
                });
                self.published = self.end();
                assert_eq!(self.queue.flushed(), self.end());
            }
            Op::WriteBehind(len) => {
                let bytes = self.new_bytes(len);
                self.write(&bytes, |writer, bytes| {
                    let (first, second) = bytes.split_at(bytes.len() / 2);
                    writer.write_behind(&[IoSlice::new(first), IoSlice::new(second)])
                });
                self.published = self.end();
            }
            Op::FillToEnd => {
                if self.write(b"blank", |writer, bytes| writer.fill_to_end(bytes)) {
                    let end = self.end().next_multiple_of(SEGMENT_LEN) - self.base;
                    self.bytes.resize(end as usize, 0);
                }
            }
            Op::Roll => self.roll(),
            Op::Flush => {
                let flushed = self.queue.flush(FlushPolicy::All).unwrap();
                assert_eq!(flushed, self.published.max(flushed));
            }
            Op::TrimTo(of_256) => {
                let (offset, min) = (self.share(of_256), self.queue.min_offset());
                let held = self.queue.slice_from(min);
                let copy = held.as_deref().map(<[u8]>::to_vec);
                let trimmed = self.queue.trim_to(offset).unwrap();
                assert!(self.queue.min_offset() <= offset);
                assert_eq!(self.queue.min_offset(), min + trimmed.len);
                assert_eq!(
                    held.as_deref(),
                    copy.as_deref(),
                    "slices outlive their segment"
                );
            }
            Op::Park => {
                self.writer.park();
                self.published = self.end();
                assert!(
                    self.queue
                        .segments()
                        .iter()
                        .all(|segment| !segment.is_mapped())
                );
            }
            Op::Reopen(of_256) => self.reopen(of_256),
            Op::Resume => {
                self.writer.publish();
                self.published = self.end();
                self.open_again();
                self.writer.resume(self.published).unwrap();
            }
            Op::Reset(base) => {
                self.writer.reset(u64::from(base)).unwrap();
                self.base = u64::from(base) - u64::from(base) % SEGMENT_LEN;
                self.bytes.clear();
                self.published = self.base;
                // An empty queue starts where its options say, as nothing on disk does.
                self.options.base_when_empty = self.base;
            }
        }
        self.check();
    }

    fn open_again(&mut self) {
        (self.queue, self.writer) = SegmentQueue::open(self.io.clone(), &self.options).unwrap();
    }

    fn reopen(&mut self, of_256: u8) {
        let end = self.share(of_256);
        self.open_again();
        self.writer.truncate(end).unwrap();
        self.bytes.truncate((end - self.base) as usize);
        self.published = end;
        let rest = self
            .queue
            .segments()
            .last()
            .map_or(0, |last| last.end() - end);
        if let Some(segment) = self.queue.find(end) {
            let file = self.io.read(&segment.path(), SEGMENT_LEN).unwrap();
            assert!(
                file[(SEGMENT_LEN - rest) as usize..]
                    .iter()
                    .all(|&byte| byte == 0)
            );
        }
    }

    fn check(&self) {
        let (min, published) = (self.queue.min_offset(), self.queue.published());
        assert_eq!(published, self.published);
        assert_eq!(self.writer.position(), self.end());
        assert!(self.queue.flushed() <= published);
        let expected = &self.bytes[(min - self.base) as usize..(published - self.base) as usize];
        let mut read = vec![0; expected.len()];
        self.queue.read_exact_at(min, &mut read).unwrap();
        assert!(read == expected, "read differs");
        self.check_slices(min, expected);
        assert!(self.queue.slice(published, 1).is_none());
        assert!(self.queue.slice_from(published).is_none());
        assert!(self.queue.read_exact_at(published, &mut [0]).is_err());
        assert!(min == 0 || self.queue.slice(min - 1, 1).is_none());
    }

    fn check_slices(&self, min: u64, expected: &[u8]) {
        let mut offset = min;
        let mut rest = expected;
        while !rest.is_empty() {
            let slice = self.queue.slice_from(offset).unwrap();
            let (here, behind) = rest.split_at(slice.len());
            assert!(*slice == *here, "slice differs");
            assert!(behind.is_empty() || (offset + slice.len() as u64).is_multiple_of(SEGMENT_LEN));
            assert!(behind.is_empty() || self.queue.slice(offset, slice.len() + 1).is_none());
            offset += slice.len() as u64;
            rest = behind;
        }
    }
}

/// Applies the operations, and looks at the directory at the end.
fn check<I: Io>(io: I, dir: &Path, ops: &[Op]) {
    let mut options = SegmentQueueOptions::new(dir, SEGMENT_LEN);
    options.allocate_step = 4096;
    // Readers map and unmap all the time.
    options.mapped_len_max = Some(2 * SEGMENT_LEN);
    let mut pair = Pair::new(io, options);
    for op in ops {
        pair.apply(op);
    }
    let segments = pair.queue.segments();
    let names: Vec<OsString> = segments
        .iter()
        .map(|segment| segment_name(segment.base()).into())
        .collect();
    let entries = pair.io.list(dir).unwrap_or_default();
    let found: Vec<OsString> = entries.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, found);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_holds_what_was_written(ops in prop::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        check(OsIo, &dir.path().join("queue"), &ops);
    }

    #[test]
    fn a_queue_on_a_simulated_device_holds_what_was_written(
        ops in prop::collection::vec(op(), 1..60),
    ) {
        check(SimIo::new(1), Path::new("/store/queue"), &ops);
    }
}

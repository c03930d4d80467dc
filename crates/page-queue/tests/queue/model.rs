//! Any sequence of operations leaves what a plain list of items would hold.

use std::path::Path;
use std::time::Duration;

use mmap_core::{Io, OsIo, SimIo};
use page_queue::{Durability, PageQueue, PageQueueError, PageQueueOptions, Reader, WhenFull};
use proptest::prelude::*;

const PAGE_LEN: u64 = 1000;
const READER_NAMES: [&str; 2] = ["a", "b.2"];

#[derive(Debug, Clone)]
enum Op {
    Push(u16),
    /// Of 256 shares of what is held.
    TrimTo(u8),
    TrimRead,
    Pop(usize),
    Peek(usize),
    Seek(usize, u8),
    Commit(usize),
    Flush,
    Step,
    Close,
    /// Opens again without closing.
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let reader = 0..READER_NAMES.len();
    prop_oneof![
        12 => (0..200_u16).prop_map(Op::Push),
        4 => (0..=PAGE_LEN as u16 + 1).prop_map(Op::Push),
        1 => any::<u8>().prop_map(Op::TrimTo),
        2 => Just(Op::TrimRead),
        6 => reader.clone().prop_map(Op::Pop),
        2 => reader.clone().prop_map(Op::Peek),
        1 => (reader.clone(), any::<u8>()).prop_map(|(reader, share)| Op::Seek(reader, share)),
        3 => reader.prop_map(Op::Commit),
        2 => Just(Op::Flush),
        2 => Just(Op::Step),
        1 => Just(Op::Close),
        1 => Just(Op::Reopen),
    ]
}

/// What should be there.
#[derive(Default)]
struct Model {
    first: u64,
    /// From number 0 on, trimmed or not, with their times.
    items: Vec<(i64, Vec<u8>)>,
    positions: [u64; 2],
    committed: [u64; 2],
    missed: [u64; 2],
}

struct Pair<I: Io> {
    io: I,
    options: PageQueueOptions,
    queue: PageQueue<I>,
    readers: [Reader<I>; 2],
    model: Model,
    now_ms: i64,
}

fn readers<I: Io>(queue: &PageQueue<I>) -> [Reader<I>; 2] {
    READER_NAMES.map(|name| queue.reader(name).unwrap())
}

impl<I: Io> Pair<I> {
    fn new(io: I, options: PageQueueOptions) -> Self {
        let (queue, report) = PageQueue::open(io.clone(), &options).unwrap();
        assert_eq!((report.first, report.end, report.was_closed), (0, 0, false));
        Self {
            readers: readers(&queue),
            io,
            options,
            queue,
            model: Model::default(),
            now_ms: 1_000,
        }
    }

    fn end(&self) -> u64 {
        self.model.items.len() as u64
    }

    fn share(&self, of_256: u8) -> u64 {
        let first = self.model.first;
        first + (self.end() - first) * u64::from(of_256) / 255
    }

    fn push(&mut self, len: u16) {
        let end = self.end();
        let item: Vec<u8> = (0..len).map(|at| (u64::from(at) * 7 + end) as u8).collect();
        // Time stands still, goes on and runs backwards.
        self.now_ms += [0, 5, 3, -4][end as usize % 4];
        let size = self.queue.size();
        match self.queue.push_at(&item, self.now_ms) {
            Ok(number) => {
                assert_eq!(number, end);
                let last = self.model.items.last().map_or(i64::MIN, |last| last.0);
                self.model.items.push((self.now_ms.max(last), item));
                assert!(self.queue.size() <= self.options.size_max.unwrap_or(u64::MAX));
            }
            Err(PageQueueError::TooLarge { len, page_len }) => assert!(len > page_len),
            Err(PageQueueError::Full { size_max, .. }) => {
                assert!(size + PAGE_LEN + u64::from(len) + 32 > size_max);
                assert_eq!(self.queue.size(), size);
                // One that can fit finds room in an empty queue.
                let is_possible = u64::from(len) + 32 <= size_max;
                assert!(!is_possible || self.end() > self.model.first);
                assert!(!is_possible || self.options.when_full == WhenFull::Reject);
            }
            Err(error) => panic!("{error}"),
        }
        let first = self.queue.first();
        if first != self.model.first {
            assert!(self.options.when_full == WhenFull::DropOldest);
            assert!(first > self.model.first && first <= end);
            let needed = size + PAGE_LEN + u64::from(len) + 32;
            assert!(
                self.options
                    .size_max
                    .is_some_and(|size_max| needed > size_max)
            );
            self.model.first = first;
        }
    }

    fn trim_to(&mut self, number: u64) -> u64 {
        let count = number.saturating_sub(self.model.first);
        self.model.first = self.model.first.max(number);
        count
    }

    fn read(&mut self, reader: usize, is_pop: bool) {
        let position = &mut self.model.positions[reader];
        self.model.missed[reader] += self.model.first.saturating_sub(*position);
        *position = self.model.first.max(*position);
        let expected = self.model.items.get(*position as usize);
        let one = &mut self.readers[reader];
        let item = if is_pop { one.pop() } else { one.peek() }.unwrap();
        assert_eq!(
            item.as_ref().map(|item| item.number()),
            expected.map(|_| *position)
        );
        assert_eq!(item.as_deref(), expected.map(|(_, bytes)| &bytes[..]));
        *position += u64::from(is_pop && item.is_some());
        assert_eq!(one.position(), *position);
        assert_eq!(one.missed_count(), self.model.missed[reader]);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Push(len) => self.push(len),
            Op::TrimTo(share) => {
                let number = self.share(share);
                let count = self.queue.trim_to(number).unwrap();
                assert_eq!(count, self.trim_to(number));
                assert!(self.queue.trim_to(self.end() + 1).is_err());
            }
            Op::TrimRead => {
                let least = self.model.committed.into_iter().min().unwrap();
                let count = self.queue.trim_read().unwrap();
                assert_eq!(count, self.trim_to(least));
            }
            Op::Pop(reader) => self.read(reader, true),
            Op::Peek(reader) => self.read(reader, false),
            Op::Seek(reader, share) => {
                self.model.positions[reader] = self.share(share);
                self.readers[reader].seek(self.share(share));
            }
            Op::Commit(reader) => {
                self.readers[reader].commit().unwrap();
                self.model.committed[reader] = self.model.positions[reader];
            }
            Op::Flush => assert_eq!(self.queue.flush().unwrap(), self.end()),
            Op::Step => drop(self.queue.step(Duration::from_millis(7)).unwrap()),
            Op::Close => {
                self.queue.close().unwrap();
                assert!(matches!(self.queue.push(b"x"), Err(PageQueueError::Closed)));
                assert!(matches!(self.queue.trim_to(0), Err(PageQueueError::Closed)));
                self.check();
                self.reopen(true);
            }
            Op::Reopen => self.reopen(false),
        }
    }

    fn reopen(&mut self, was_closed: bool) {
        let refusal = PageQueue::open(self.io.clone(), &self.options);
        assert!(matches!(refusal, Err(PageQueueError::Locked(_))));
        // Replaced by those of a queue elsewhere, so that the lock falls.
        let mut elsewhere = self.options.clone();
        elsewhere.dir.set_extension("elsewhere");
        let (other, _) = PageQueue::open(self.io.clone(), &elsewhere).unwrap();
        self.readers = readers(&other);
        self.queue = other;
        let (queue, report) = PageQueue::open(self.io.clone(), &self.options).unwrap();
        assert_eq!(report.end, self.end());
        assert_eq!(report.was_closed, was_closed);
        assert_eq!(
            report.cut_len, 0,
            "a killed process leaves nothing half done"
        );
        if was_closed {
            assert_eq!((report.checked_count, report.first), (0, self.model.first));
        }
        // A trim that freed no page is remembered by a flush.
        assert!(report.first <= self.model.first);
        self.model.first = report.first;
        self.readers = readers(&queue);
        self.queue = queue;
        self.model.positions = self.model.committed;
        self.model.missed = [0, 0];
    }

    fn check(&self) {
        let (first, end) = (self.model.first, self.end());
        assert_eq!((self.queue.first(), self.queue.end()), (first, end));
        for number in first..end {
            let (time_ms, bytes) = &self.model.items[number as usize];
            let item = self.queue.get(number).unwrap();
            assert_eq!((item.number(), item.time_ms()), (number, *time_ms));
            assert!(*item == bytes[..], "item {number} differs");
        }
        for number in [first.wrapping_sub(1), end, u64::MAX] {
            let refusal = self.queue.get(number).map(drop);
            assert!(matches!(refusal, Err(PageQueueError::OutOfRange { .. })));
        }
        for time_ms in [i64::MIN, 1_000, self.now_ms - 3, self.now_ms, i64::MAX] {
            let held = &self.model.items[first as usize..];
            let expected = first + held.partition_point(|item| item.0 < time_ms) as u64;
            assert_eq!(self.queue.find_time(time_ms).unwrap(), expected);
        }
        let committed = self.queue.readers();
        assert!(
            committed
                .iter()
                .map(|(_, number)| *number)
                .eq(self.model.committed)
        );
    }
}

fn check<I: Io>(io: I, dir: &Path, mut options: PageQueueOptions, ops: &[Op]) {
    options.dir = dir.to_owned();
    let mut pair = Pair::new(io, options);
    for op in ops {
        pair.apply(op);
        pair.check();
    }
}

fn options() -> impl Strategy<Value = PageQueueOptions> {
    let size_max = prop_oneof![Just(None), (40..5_000_u64).prop_map(Some)];
    let when_full = prop_oneof![Just(WhenFull::Reject), Just(WhenFull::DropOldest)];
    let durability = prop_oneof![
        Just(Durability::OnFlush),
        Just(Durability::EachPush),
        Just(Durability::Interval(Duration::from_millis(1)))
    ];
    (size_max, when_full, durability, 1..9_u64).prop_map(
        |(size_max, when_full, durability, index_page_items)| PageQueueOptions {
            page_len: PAGE_LEN,
            index_page_items,
            size_max,
            when_full,
            durability,
            mapped_len_max: Some(2 * PAGE_LEN),
            ..PageQueueOptions::new("")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_holds_what_was_pushed(options in options(), ops in prop::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        check(OsIo, &dir.path().join("queue"), options, &ops);
    }

    #[test]
    fn a_queue_on_a_simulated_device_holds_what_was_pushed(
        options in options(),
        ops in prop::collection::vec(op(), 1..100),
    ) {
        check(SimIo::new(1), Path::new("/store/queue"), options, &ops);
    }
}

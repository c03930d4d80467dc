//! Random operations against a list of records.

use commitlog::{CommitLog, FlushMode, QueueCursor, RecoverFrom, Tail};
use message::PreparedRecord;
use mmap_core::{CrashStyle, SimIo};
use proptest::prelude::*;

use crate::common::{
    Opened, Record, SEGMENT_LEN, STAGED, START_MS, TestClock, from_start, message, options,
    record_len, try_open, visible_records,
};

#[derive(Clone, Debug)]
enum Operation {
    Put {
        queue_id: usize,
        len: usize,
    },
    Batch {
        queue_id: usize,
        lens: Vec<usize>,
    },
    Flush,
    Prepare,
    Commit,
    /// Close, and open by what a clean stop knows.
    Restart,
    /// The process ends without a word, and is started again.
    Kill,
}

fn operation() -> impl Strategy<Value = Operation> {
    let len = prop_oneof![8 => 0..2_000_usize, 1 => 2_000..16_400_usize];
    prop_oneof![
        8 => (0..3_usize, len).prop_map(|(queue_id, len)| Operation::Put { queue_id, len }),
        2 => (0..3_usize, prop::collection::vec(0..4_000_usize, 1..6))
            .prop_map(|(queue_id, lens)| Operation::Batch { queue_id, lens }),
        2 => Just(Operation::Flush),
        1 => Just(Operation::Prepare),
        2 => Just(Operation::Commit),
        1 => Just(Operation::Restart),
        1 => Just(Operation::Kill),
    ]
}

#[derive(Default)]
struct Model {
    records: Vec<Record>,
    queues: [QueueCursor; 3],
    next_queue_offset: [i64; 3],
    end: u64,
}

impl Model {
    /// Where records of these bodies go; `None` if they fit nowhere.
    fn place(&mut self, queue_id: usize, bodies: &[Vec<u8>]) -> Option<u64> {
        let total: u64 = bodies.iter().map(|body| record_len(body, PROPERTIES)).sum();
        if total + 8 > SEGMENT_LEN {
            return None;
        }
        let left = SEGMENT_LEN - self.end % SEGMENT_LEN;
        if total + 8 > left {
            self.end += left;
        }
        let start = self.end;
        for body in bodies {
            self.records.push(Record {
                offset: self.end,
                queue_id: queue_id as i32,
                queue_offset: self.next_queue_offset[queue_id],
                store_ms: START_MS,
                body: body.clone(),
                properties: PROPERTIES.to_vec(),
            });
            self.next_queue_offset[queue_id] += 1;
            self.end += record_len(body, PROPERTIES);
        }
        Some(start)
    }

    fn put(&mut self, log: &CommitLog<SimIo>, queue_id: usize, lens: &[usize]) {
        let seed = self.records.len();
        let bodies: Vec<Vec<u8>> = lens
            .iter()
            .enumerate()
            .map(|(index, len)| vec![(seed + index) as u8; *len])
            .collect();
        let mut prepared: Vec<PreparedRecord<'_>> = bodies
            .iter()
            .map(|body| {
                log.prepare(&message(queue_id as i32, body, PROPERTIES))
                    .unwrap()
            })
            .collect();
        let queue = &self.queues[queue_id];
        let offset = match &mut prepared[..] {
            [record] => log
                .append(record, queue)
                .map(|appended| appended.physical_offset),
            batch => log
                .append_batch(batch, queue)
                .map(|appended| appended.physical_offset),
        };
        assert_eq!(offset.ok(), self.place(queue_id, &bodies));
        assert_eq!(
            self.queues[queue_id].next(),
            self.next_queue_offset[queue_id]
        );
    }
}

const PROPERTIES: &[u8] = b"KEYS\x01key\x02";

fn check(flush: FlushMode, operations: &[Operation]) {
    let mut io = SimIo::new(11);
    let reopen = |io: &SimIo, from: &RecoverFrom| {
        try_open(io, options(flush), TestClock::new(), from).unwrap()
    };
    let mut log = reopen(&io, &from_start()).log;
    let mut model = Model::default();
    for operation in operations {
        match operation {
            Operation::Put { queue_id, len } => model.put(&log, *queue_id, &[*len]),
            Operation::Batch { queue_id, lens } => model.put(&log, *queue_id, lens),
            Operation::Flush => assert_eq!(log.flush_now().unwrap(), model.end),
            Operation::Prepare => {
                log.step_prepare();
            }
            Operation::Commit => {
                log.step_commit();
            }
            Operation::Restart | Operation::Kill => {
                let mut from = from_start();
                if matches!(operation, Operation::Restart) {
                    from.known.flushed = log.close().unwrap();
                    from.tail = Tail::Zero;
                } else {
                    // What waits for the group commit has not been acknowledged; the model is
                    // about everything that was taken.
                    log.flush_now().unwrap();
                    io = io.crash(CrashStyle::KillProcess);
                }
                drop(log);
                let Opened {
                    log: reopened,
                    report,
                    records,
                    ..
                } = reopen(&io, &from);
                assert_eq!(records, model.records);
                assert_eq!((report.end, &report.cut), (model.end, &None));
                log = reopened;
            }
        }
        assert_eq!(log.max_offset(), model.end);
        let is_staged = matches!(flush, FlushMode::Staged { .. });
        if matches!(flush, FlushMode::Async { .. })
            || (is_staged && matches!(operation, Operation::Commit))
        {
            assert_eq!(log.visible(), model.end);
        }
        assert!(log.flushed() <= log.visible() && log.visible() <= model.end);
    }
    log.flush_now().unwrap();
    assert_eq!(visible_records(&log), model.records);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn an_async_log_is_a_list_of_records(operations in prop::collection::vec(operation(), 1..60)) {
        check(FlushMode::async_default(), &operations);
    }

    #[test]
    fn a_staged_log_is_a_list_of_records(operations in prop::collection::vec(operation(), 1..60)) {
        check(STAGED, &operations);
    }

    #[test]
    fn a_sync_log_is_a_list_of_records(operations in prop::collection::vec(operation(), 1..60)) {
        check(FlushMode::sync_default(), &operations);
    }
}

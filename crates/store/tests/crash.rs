//! A store on a simulated device whose power fails, or whose process is killed: what was acknowledged
//! as durable, or was in the files of a killed process, is there afterwards, byte for byte, and
//! everything else agrees with it.
//!
//! The seed is printed; `FOLIOMQ_SEED=n cargo test -p store --test crash` runs one again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod small;

use std::sync::Arc;

use message::{Message, Parsed, RecordView};
use mmap_core::{CrashStyle, Random, SimIo};
use small::Ticks;
use store::{
    Clock, FlushMode, GetLimits, GetStatus, KeyQuery, MessageStore, OpenReport, PutTicket,
    StageOptions, StoreOptions, TagFilter,
};

/// What was put, in the order of the log.
struct Issued {
    topic: String,
    queue_id: i32,
    queue_offset: i64,
    physical_offset: u64,
    key: String,
    body: Vec<u8>,
    durable: bool,
}

/// How a store is opened.
#[derive(Clone, Copy)]
struct How {
    flush: FlushMode,
    /// With extended consume queues.
    is_extended: bool,
}

fn options(how: How) -> StoreOptions {
    let mut options = small::options();
    options.queue_file_len = 20 * 32;
    options.flush = how.flush;
    options.writes_extensions = how.is_extended;
    options.extension_file_len = 20 * 25 + 4;
    options
}

fn open(io: &SimIo, how: How, clock: &Arc<dyn Clock>) -> (MessageStore<SimIo>, OpenReport) {
    let opened = MessageStore::open_with(io.clone(), options(how), Arc::clone(clock));
    opened.unwrap_or_else(|error| panic!("no start: {error}"))
}

fn put(store: &MessageStore<SimIo>, random: &mut Random, number: usize) -> (Issued, PutTicket) {
    let topic = format!("Topic{}", random.below(3));
    let queue_id = random.below(2) as i32;
    let body: Vec<u8> = (0..random.below(700))
        .map(|_| random.below(256) as u8)
        .collect();
    let key = format!("key-{number}");
    let properties = format!("KEYS\u{1}{key}\u{2}TAGS\u{1}TagA\u{2}");
    let appended = store
        .put(&Message {
            properties: properties.as_bytes(),
            ..Message::new(&topic, queue_id, &body)
        })
        .unwrap();
    let issued = Issued {
        topic,
        queue_id,
        queue_offset: appended.queue_offset,
        physical_offset: appended.physical_offset,
        key,
        body,
        durable: false,
    };
    (issued, appended.ticket)
}

/// The end between two operations of the store, or in the middle of one of the device's.
fn crash(io: &SimIo, style: CrashStyle) -> SimIo {
    io.wreck().unwrap_or_else(|| {
        io.cancel_crash();
        io.crash(style)
    })
}

/// Puts, flushes and dispatches at random, until the power fails or the process is killed; then
/// checks.
fn run(seed: u64, flush: FlushMode) {
    let mut random = Random::new(seed);
    let how = How {
        flush,
        is_extended: seed.is_multiple_of(2),
    };
    let clock: Arc<dyn Clock> = Arc::new(Ticks::default());
    let mut io = SimIo::new(seed);
    let mut issued: Vec<Issued> = Vec::new();
    for _round in 0..3 {
        let store = open(&io, how, &clock).0;
        let styles = [
            CrashStyle::KillProcess,
            CrashStyle::LoseUnsynced,
            CrashStyle::Tear,
        ];
        let style = styles[random.below(3) as usize];
        if random.below(2) == 0 {
            io.crash_at(1 + random.below(400), style);
        }
        let mut waiting: Vec<(usize, PutTicket)> = Vec::new();
        // Everything below was in the files, and was synced, before the last operation.
        let (mut committed, mut flushed) = (0, 0);
        for _ in 0..100 {
            match random.below(11) {
                0..6 => {
                    let (message, ticket) = put(&store, &mut random, issued.len());
                    waiting.push((issued.len(), ticket));
                    issued.push(message);
                }
                6 => drop(store.log().step_flush()),
                7 => drop(store.step_dispatch().unwrap()),
                8 => store.step_flush_derived().unwrap(),
                9 => drop(store.log().step_commit()),
                _ => io.writeback(),
            }
            if io.is_wrecked() {
                break;
            }
            waiting.retain(|(index, ticket)| match ticket.try_ready() {
                Some(outcome) => {
                    let flushed = outcome.unwrap().flushed;
                    issued[*index].durable |= flushed > issued[*index].physical_offset;
                    false
                }
                None => true,
            });
            (committed, flushed) = (store.log().visible(), store.log().flushed());
        }
        let kept_to = match style {
            CrashStyle::KillProcess => committed,
            _ => flushed,
        };
        for message in issued
            .iter_mut()
            .filter(|message| message.physical_offset < kept_to)
        {
            message.durable = true;
        }
        io = crash(&io, style);
        drop(store);
        let store = open(&io, how, &clock).0;
        issued.truncate(survivors(&store, &issued));
        check_derived(&store, &issued);
        drop(store);
        // What was in doubt is decided now.
        issued.iter_mut().for_each(|message| message.durable = true);
        let (again, report) = open(&io, how, &clock);
        assert_eq!(report.rebuilt_queues, [], "{report}");
        assert_eq!(
            (&report.log.cut, &report.log.holes),
            (&None, &Vec::new()),
            "{report}"
        );
        assert_eq!(
            survivors(&again, &issued),
            issued.len(),
            "a second opening changes nothing"
        );
        again.close().unwrap();
    }
}

/// How many messages are in the log: a prefix of those issued, with every durable one.
fn survivors(store: &MessageStore<SimIo>, issued: &[Issued]) -> usize {
    let end = store.log().max_offset();
    let count = issued.partition_point(|message| message.physical_offset < end);
    for message in &issued[..count] {
        let slice = store
            .look_up(message.physical_offset)
            .expect("a record in the middle");
        let Ok(Parsed::Record(view)) = RecordView::parse(&slice) else {
            panic!("a record")
        };
        view.verify_body_crc().unwrap();
        assert_eq!(
            (view.topic(), view.body()),
            (message.topic.as_str(), &message.body[..])
        );
    }
    for lost in &issued[count..] {
        assert!(
            !lost.durable,
            "acknowledged and lost: {} at {}",
            lost.key, lost.physical_offset
        );
    }
    count
}

/// Queues and log agree one to one, and every key is found.
fn check_derived(store: &MessageStore<SimIo>, issued: &[Issued]) {
    let mut ends = std::collections::HashMap::new();
    for message in issued {
        ends.insert(
            (message.topic.as_str(), message.queue_id),
            message.queue_offset + 1,
        );
        let limits = GetLimits {
            count_max: 1,
            bytes_max: 1 << 20,
        };
        let Issued {
            topic,
            queue_id,
            queue_offset,
            key,
            ..
        } = message;
        let got = store
            .get(
                topic,
                *queue_id,
                *queue_offset,
                &limits,
                &TagFilter::new(["TagA"]),
            )
            .unwrap();
        assert_eq!(
            got.status,
            GetStatus::Found,
            "{topic}-{queue_id} at {queue_offset}"
        );
        let view = got.messages.records().next().unwrap();
        assert_eq!(view.physical_offset() as u64, message.physical_offset);
        let answer = store
            .query(&KeyQuery {
                topic,
                key,
                count_max: 8,
                begin_ms: 0,
                end_ms: i64::MAX,
            })
            .unwrap();
        assert_eq!(answer.messages.count(), 1, "{key}");
    }
    for ((topic, queue_id), end) in ends {
        assert_eq!(
            store.max_offset(topic, queue_id),
            Some(end),
            "{topic}-{queue_id}"
        );
    }
}

fn seeds(count: u64) -> Vec<u64> {
    if let Ok(text) = std::env::var("FOLIOMQ_SEED") {
        return vec![text.parse().expect("FOLIOMQ_SEED is a number")];
    }
    let fresh = Random::fresh_seed();
    (1..=count)
        .chain((0..count).map(|index| fresh.wrapping_add(index)))
        .collect()
}

fn run_all(flush: FlushMode) {
    for seed in seeds(if cfg!(debug_assertions) { 20 } else { 200 }) {
        let outcome = std::panic::catch_unwind(|| run(seed, flush));
        if outcome.is_err() {
            panic!("failed: FOLIOMQ_SEED={seed}");
        }
    }
}

#[test]
fn sync_flush_loses_nothing_that_was_acknowledged() {
    run_all(FlushMode::sync_default());
}

#[test]
fn async_flush_loses_nothing_that_was_flushed() {
    run_all(FlushMode::async_default());
}

#[test]
fn staged_records_are_lost_only_before_they_are_committed() {
    let mut flush = FlushMode::staged_default();
    if let FlushMode::Staged { stage, .. } = &mut flush {
        *stage = StageOptions {
            buffer_count: 2,
            buffer_len: 4096,
            ..StageOptions::DEFAULT
        };
    }
    run_all(flush);
}

/// Of what nobody could read yet the killed process leaves nothing, and its queue offsets are given
/// again.
#[test]
fn a_kill_takes_what_was_staged_and_no_reader_has_seen() {
    let how = How {
        flush: FlushMode::staged_default(),
        is_extended: false,
    };
    let clock: Arc<dyn Clock> = Arc::new(Ticks::default());
    let io = SimIo::new(1);
    let store = open(&io, how, &clock).0;
    let mut random = Random::new(7);
    let mut put_some = |store: &MessageStore<SimIo>, numbers: std::ops::Range<usize>| {
        let put_one = |number| put(store, &mut random, number).0;
        numbers.map(put_one).collect::<Vec<_>>()
    };
    let mut issued = put_some(&store, 0..20);
    store.log().flush_now().unwrap();
    while store.step_dispatch().unwrap() {}
    let committed = store.log().visible();
    let staged = put_some(&store, 20..28);
    assert_eq!(store.log().visible(), committed);
    assert!(store.log().max_offset() > committed);
    while store.step_dispatch().unwrap() {}
    for message in &staged {
        assert!(store.look_up(message.physical_offset).is_none());
        let max = store.max_offset(&message.topic, message.queue_id);
        assert!(max.unwrap_or(0) <= message.queue_offset, "not in its queue");
    }

    let killed = io.crash(CrashStyle::KillProcess);
    drop(store);
    let (store, report) = open(&killed, how, &clock);
    assert_eq!((report.log.cut, report.log.end), (None, committed));
    issued.iter_mut().for_each(|message| message.durable = true);
    assert_eq!(survivors(&store, &issued), issued.len());
    check_derived(&store, &issued);
    let again = put_some(&store, 20..28);
    assert_eq!(again[0].physical_offset, committed);
    for message in again {
        let of_queue =
            |other: &&Issued| (&other.topic, other.queue_id) == (&message.topic, message.queue_id);
        let last = issued.iter().rfind(of_queue);
        let next = last.map_or(0, |last| last.queue_offset + 1);
        assert_eq!(message.queue_offset, next);
        issued.push(message);
    }
}

//! A device that is full, or fails: what a store then says and does. Nothing is acknowledged that is
//! not kept, nothing is half written, reading goes on, and what can pass does pass by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod small;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use message::Message;
use mmap_core::{CrashStyle, SimIo};
use small::Ticks;
use store::{
    AllMessages, AppendError, Clock, DispatchError, FlushMode, GetLimits, GetStatus, KeyQuery,
    MessageStore, PutError, PutTicket, StoreOptions, SystemClock, health,
};

const SYNC: FlushMode = FlushMode::Sync {
    timeout: Duration::from_secs(20),
};
const ASYNC: FlushMode = FlushMode::Async {
    interval: Duration::from_millis(1),
    least_pages: 0,
    thorough_interval: Duration::from_millis(1),
};

fn options(flush: FlushMode) -> StoreOptions {
    let mut options = small::options();
    options.flush = flush;
    // The simulated device has a limit of its own.
    options.clean.full_percent = 90;
    options
}

fn open(io: &SimIo, flush: FlushMode) -> Result<MessageStore<SimIo>, store::OpenError> {
    let clock: Arc<dyn Clock> = Arc::new(Ticks::default());
    MessageStore::open_with(io.clone(), options(flush), clock).map(|(store, _)| store)
}

/// The body of message `number`: 600 bytes that only it has.
fn body(number: usize) -> Vec<u8> {
    number.to_be_bytes().repeat(75)
}

/// What was answered to a put that was not refused.
#[derive(Debug)]
struct Stored {
    number: usize,
    queue_offset: i64,
    end: u64,
    ticket: Option<PutTicket>,
    is_durable: bool,
}

fn put(store: &MessageStore<SimIo>, number: usize) -> Result<Stored, PutError> {
    let (body, properties) = (body(number), format!("KEYS\u{1}key-{number}\u{2}"));
    let appended = store.put(&Message {
        properties: properties.as_bytes(),
        ..Message::new("Topic", 0, &body)
    })?;
    Ok(Stored {
        number,
        queue_offset: appended.queue_offset,
        end: appended.physical_offset + u64::from(appended.len),
        ticket: Some(appended.ticket),
        is_durable: false,
    })
}

fn read(store: &MessageStore<SimIo>, offset: i64) -> Option<Vec<u8>> {
    let limits = GetLimits {
        count_max: 1,
        bytes_max: 1 << 20,
    };
    let got = store
        .get("Topic", 0, offset, &limits, &AllMessages)
        .unwrap();
    let body = got.messages.records().next().map(|record| {
        record.verify_body_crc().unwrap();
        record.body().to_vec()
    });
    assert_eq!(body.is_some(), got.status == GetStatus::Found);
    body
}

fn key_count(store: &MessageStore<SimIo>, number: usize) -> Result<usize, store::ReadError> {
    let key = format!("key-{number}");
    let found = store.query(&KeyQuery {
        topic: "Topic",
        key: &key,
        count_max: 10,
        begin_ms: 0,
        end_ms: i64::MAX,
    })?;
    Ok(found.messages.records().count())
}

fn dispatch_all(store: &MessageStore<SimIo>) {
    while store.step_dispatch().unwrap() {}
}

fn names(store: &MessageStore<SimIo>) -> Vec<&'static str> {
    let troubles = store.health().troubles;
    troubles.into_iter().map(|trouble| trouble.name).collect()
}

/// Fills the device until a put is refused; returns what was stored, and the refusal.
fn fill(store: &MessageStore<SimIo>) -> (Vec<Stored>, PutError) {
    let mut stored = Vec::new();
    loop {
        match put(store, stored.len()) {
            Ok(message) => stored.push(message),
            Err(error) => return (stored, error),
        }
        let _next = store.log().step_flush();
        // The queue may have no space either.
        let _noted = store.step_dispatch();
    }
}

fn is_full(error: &PutError) -> bool {
    let text = health::chain(error);
    matches!(error, PutError::Append(AppendError::Full { .. }))
        && ["/store/commitlog", "bytes of the disk are used", "no space"]
            .iter()
            .all(|part| text.contains(part))
}

#[test]
fn a_full_device_refuses_puts_and_passes_by_itself() {
    for flush in [ASYNC, SYNC] {
        // Whatever operation it is that finds no space.
        for limit in (100_000..130_000).step_by(1_024) {
            let io = SimIo::new(limit);
            let store = open(&io, flush).unwrap();
            io.space_limit(limit);
            let (mut stored, refusal) = fill(&store);
            assert!(is_full(&refusal), "{refusal:?}");
            assert!(is_full(&put(&store, 1000).unwrap_err()));
            assert!(names(&store).contains(&health::NO_SPACE));
            let refused = store.health().refusal.unwrap();
            assert!(refused.contains("no space"), "{refused}");
            // Consumers go on with what has entries.
            for offset in 0..store.max_offset("Topic", 0).unwrap_or(0) {
                assert_eq!(read(&store, offset), Some(body(offset as usize)));
            }
            io.space_limit(1 << 30);
            dispatch_all(&store);
            for number in stored.len()..stored.len() + 40 {
                stored.push(put(&store, number).unwrap());
                assert_eq!(
                    stored[number].queue_offset, number as i64,
                    "no offset is used up"
                );
            }
            assert_eq!(names(&store), Vec::<&str>::new());
            assert_eq!(store.health().refusal, None);
            store.log().flush_now().unwrap();
            dispatch_all(&store);
            for message in &stored {
                assert_eq!(
                    read(&store, message.queue_offset),
                    Some(body(message.number))
                );
            }
            store.close().unwrap();
            let store = open(&io.crash(CrashStyle::LoseUnsynced), flush).unwrap();
            for message in &stored {
                assert_eq!(
                    read(&store, message.queue_offset),
                    Some(body(message.number))
                );
            }
        }
    }
}

/// Queue and index find no space while the log has some: puts go on, readers wait.
#[test]
fn a_device_without_space_for_entries_is_listed_and_passes_by_itself() {
    for flush in [ASYNC, SYNC] {
        let io = SimIo::new(1);
        let store = open(&io, flush).unwrap();
        put(&store, 0).unwrap();
        io.space_limit(0);
        let mut count = 1;
        while let Ok(_stored) = put(&store, count) {
            let _next = store.log().step_flush();
            count += 1;
        }
        assert!(count > 5, "the log had blocks");
        let error = store.step_dispatch().unwrap_err();
        assert!(health::chain(&error).contains("no space") || error.to_string().contains("full"));
        assert!(
            names(&store).contains(&health::DISPATCH),
            "{:?}",
            names(&store)
        );
        assert_eq!(store.max_offset("Topic", 0).unwrap_or(0), 0);
        io.space_limit(1 << 30);
        store.log().flush_now().unwrap();
        dispatch_all(&store);
        for number in 0..count {
            assert_eq!(read(&store, number as i64), Some(body(number)));
        }
        put(&store, count).unwrap();
        assert_eq!(names(&store), Vec::<&str>::new());
    }
}

#[test]
fn a_full_device_is_told_within_a_second_and_used_again_within_ten() {
    for flush in [ASYNC, SYNC] {
        let io = SimIo::new(1);
        let clock = Arc::new(SystemClock::new());
        let (store, _) = MessageStore::open_with(io.clone(), options(flush), clock).unwrap();
        store.start_services().unwrap();
        put(&store, 0).unwrap().ticket.unwrap().wait().unwrap();
        io.space_limit(0);
        let mut number = 1;
        let refusal = loop {
            let begun = Instant::now();
            match put(&store, number) {
                Ok(stored) => {
                    stored.ticket.unwrap().wait().unwrap();
                    number += 1;
                }
                Err(refusal) => {
                    assert!(begun.elapsed() < Duration::from_secs(1));
                    break refusal;
                }
            }
        };
        assert!(
            is_full(&refusal) || matches!(refusal, PutError::DiskFull { .. }),
            "{refusal}"
        );
        let begun = Instant::now();
        io.space_limit(1 << 30);
        loop {
            match put(&store, number) {
                Ok(stored) => {
                    stored.ticket.unwrap().wait().unwrap();
                    break;
                }
                Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        while !store.health().troubles.is_empty() || store.dispatch_behind_bytes() > 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{:?}",
                store.health()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
        for number in 0..=number {
            assert_eq!(read(&store, number as i64), Some(body(number)));
        }
        store.close().unwrap();
    }
}

#[test]
fn above_the_watermark_puts_are_refused_and_reading_goes_on() {
    let io = SimIo::new(1);
    let store = open(&io, ASYNC).unwrap();
    put(&store, 0).unwrap();
    dispatch_all(&store);
    store.step_watch();
    assert_eq!(store.health().refusal, None);
    // The log's first segment is allocated whole; 90 % are a little above it.
    let used = store.health().log_disk.unwrap().used;
    io.space_limit(used * 100 / 95);
    store.step_watch();
    let refusal = put(&store, 1).unwrap_err();
    let PutError::DiskFull {
        path,
        used_percent: 95..=96,
        limit_percent: 90,
        ..
    } = &refusal
    else {
        panic!("{refusal:?}");
    };
    assert_eq!(path.to_str(), Some("/store/commitlog"));
    let text = refusal.to_string();
    assert!(text.contains(&format!("{used} of ")) && text.contains("diskSpaceWarningLevelRatio"));
    assert_eq!(names(&store), [health::DISK_FULL]);
    assert_eq!(store.health().refusal, Some(text));
    assert_eq!(read(&store, 0), Some(body(0)));
    io.space_limit(used * 2);
    store.step_watch();
    put(&store, 1).unwrap();
    assert_eq!(names(&store), Vec::<&str>::new());
}

/// Puts, flushes, dispatches, syncs and cleans, on a device that may fail. What fails must say so.
fn work(store: &MessageStore<SimIo>) -> Vec<Stored> {
    let mut stored: Vec<Stored> = Vec::new();
    let mut had_failed_at = None;
    for number in 0..60 {
        let outcome = put(store, number);
        if let Some(flushed) = had_failed_at {
            assert!(matches!(
                outcome,
                Err(PutError::Append(AppendError::Failed(_)))
            ));
            assert_eq!(
                store.log().flushed(),
                flushed,
                "nothing counts as synced any more"
            );
            assert!(store.log().visible() <= flushed);
        }
        stored.extend(outcome);
        if number % 3 == 0 {
            let _next = store.log().step_flush();
        }
        if number % 5 == 0 {
            let _next = store.log().step_prepare();
        }
        if number % 4 == 0 && store.step_dispatch().is_err() {
            assert!(names(store).contains(&health::DISPATCH));
        }
        if number % 7 == 0 && store.step_flush_derived().is_err() {
            assert!(!names(store).is_empty());
        }
        if number % 20 == 19 && store.step_clean(&mut |_| true).is_err() {
            assert!(names(store).contains(&health::CLEANING));
        }
        store.step_watch();
        if store.log().failure().is_some() {
            had_failed_at.get_or_insert(store.log().flushed());
            assert!(names(store).contains(&health::LOG_FAILED));
            assert!(
                store
                    .health()
                    .refusal
                    .unwrap()
                    .contains("takes no more records")
            );
        }
        for message in &mut stored {
            if let Some(ticket) = &message.ticket
                && let Some(outcome) = ticket.try_ready()
            {
                let is_synced = outcome.is_ok_and(|durable| durable.flushed >= message.end);
                message.is_durable |= is_synced;
            }
        }
    }
    let flushed = store.log().flushed();
    for message in &mut stored {
        message.is_durable |= message.end <= flushed;
    }
    stored
}

/// One operation fails, or all from one on: whichever it is, what was acknowledged as durable is
/// there after the next start, which needs nobody's help.
fn fails_at_each_operation(
    flush: FlushMode,
    inject: impl Fn(&SimIo, u64),
    style: CrashStyle,
    stride: usize,
) {
    // How many operations there are.
    let io = SimIo::new(1);
    let stored = work(&open(&io, flush).unwrap());
    assert!(stored.len() == 60 && stored.iter().any(|message| message.is_durable));
    let count = io.operation_count();
    let mut failed = 0;
    for nth in (1..=count).step_by(stride) {
        let io = SimIo::new(nth);
        inject(&io, nth);
        let stored = match open(&io, flush) {
            Ok(store) => {
                let stored = work(&store);
                failed += u64::from(store.log().failure().is_some());
                stored
            }
            Err(_) => Vec::new(),
        };
        let io = io.crash(style);
        let store = open(&io, flush).unwrap_or_else(|error| panic!("at {nth}: {error}"));
        dispatch_all(&store);
        let min = store.min_offset("Topic", 0).unwrap_or(0);
        for message in stored.iter().filter(|message| message.is_durable) {
            if message.queue_offset < min {
                continue;
            }
            let found = read(&store, message.queue_offset);
            assert_eq!(
                found,
                Some(body(message.number)),
                "at {nth}: {}",
                message.number
            );
            let count = key_count(&store, message.number).unwrap();
            assert_eq!(count, 1, "at {nth}: key of {}", message.number);
        }
        // And it serves again.
        put(&store, 1000).unwrap();
        store.close().unwrap();
    }
    assert!(failed > 0, "some of them were syncs of the log");
}

#[test]
fn one_failed_operation_of_any_kind_loses_nothing() {
    for flush in [ASYNC, SYNC] {
        for (style, stride) in [(CrashStyle::LoseUnsynced, 1), (CrashStyle::Tear, 3)] {
            let inject = |io: &SimIo, nth| io.fail_nth("*", nth, ErrorKind::Other);
            fails_at_each_operation(flush, inject, style, stride);
        }
    }
}

#[test]
fn one_operation_without_space_loses_nothing() {
    for flush in [ASYNC, SYNC] {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let inject = |io: &SimIo, nth| io.fail_nth("*", nth, kind);
            fails_at_each_operation(flush, inject, CrashStyle::LoseUnsynced, 3);
        }
    }
}

#[test]
fn a_device_that_is_gone_for_good_loses_nothing() {
    for flush in [ASYNC, SYNC] {
        let inject = |io: &SimIo, nth| io.fail_from("*", nth, ErrorKind::Other);
        fails_at_each_operation(flush, inject, CrashStyle::Tear, 3);
    }
}

/// A failed sync of what is derived ends neither the log nor the reading; it is listed once.
#[test]
fn a_failed_sync_of_derived_files_is_listed_and_stops_no_put() {
    for (op, nth, name) in [
        ("msync", 1, health::QUEUE_SYNC),
        ("sync_data", 1, health::INDEX_SYNC),
        ("msync", 2, health::CHECKPOINT_SYNC),
    ] {
        let io = SimIo::new(1);
        let store = open(&io, SYNC).unwrap();
        put(&store, 0).unwrap();
        store.log().flush_now().unwrap();
        dispatch_all(&store);
        io.fail_nth(op, nth, ErrorKind::Other);
        assert!(store.step_flush_derived().is_err(), "{name}");
        assert_eq!(names(&store), [name]);
        let since = store.health().troubles[0].clone();
        let _again = store.step_flush_derived();
        if name == health::CHECKPOINT_SYNC {
            // A hint of where to begin, written whole each time.
            assert_eq!(names(&store), Vec::<&str>::new());
        } else {
            assert_eq!(store.health().troubles[0], since, "listed once");
        }
        assert_eq!(store.health().refusal, None);
        let stored = put(&store, 1).unwrap();
        store.log().flush_now().unwrap();
        assert!(stored.ticket.unwrap().try_ready().unwrap().is_ok());
        assert_eq!(read(&store, 0), Some(body(0)));
        let new = key_count(&store, 1);
        match name {
            // Its entry is not built; its key is not said to be nowhere.
            health::QUEUE_SYNC => assert!(store.step_dispatch().is_err()),
            health::INDEX_SYNC => {
                dispatch_all(&store);
                assert_eq!(read(&store, 1), Some(body(1)));
                assert!(new.is_err());
            }
            _ => dispatch_all(&store),
        }
        // The next start has both.
        let store = open(&io.crash(CrashStyle::LoseUnsynced), SYNC).unwrap();
        for number in 0..2 {
            assert_eq!(read(&store, number as i64), Some(body(number)));
            assert_eq!(key_count(&store, number).unwrap(), 1);
        }
    }
}

/// Found by a broker on a failing disk: consumers were led past messages that were acknowledged and
/// not synced when a sync failed, and never saw them when the next opening had found them whole.
#[test]
fn after_a_failed_sync_readers_wait_before_what_was_not_synced() {
    let io = SimIo::new(1);
    let store = open(&io, ASYNC).unwrap();
    (0..5).for_each(|number| drop(put(&store, number).unwrap()));
    store.log().flush_now().unwrap();
    (5..9).for_each(|number| drop(put(&store, number).unwrap()));
    dispatch_all(&store);
    let limits = GetLimits {
        count_max: 32,
        bytes_max: 1 << 20,
    };
    let get = |store: &MessageStore<SimIo>, offset| {
        let got = store.get("Topic", 0, offset, &limits, &AllMessages);
        let got = got.unwrap();
        (got.status, got.next_offset, got.messages.records().count())
    };
    assert_eq!(get(&store, 3), (GetStatus::Found, 9, 6));
    io.fail_next("msync", ErrorKind::Other);
    store.log().flush_now().unwrap_err();
    assert_eq!(get(&store, 3), (GetStatus::Found, 5, 2));
    assert_eq!(store.max_offset("Topic", 0), Some(5));
    for offset in [5, 6, 9] {
        let waits = (GetStatus::OffsetOverflowOne, offset, 0);
        assert_eq!(get(&store, offset), waits);
    }
    drop(store);
    let store = open(&io.crash(CrashStyle::KillProcess), ASYNC).unwrap();
    dispatch_all(&store);
    assert_eq!(get(&store, 5), (GetStatus::Found, 9, 4));
}

#[test]
fn what_the_device_cannot_read_is_an_error_with_its_place() {
    let io = SimIo::new(1);
    let store = open(&io, ASYNC).unwrap();
    (0..5).for_each(|number| drop(put(&store, number).unwrap()));
    dispatch_all(&store);
    store.close().unwrap();
    drop(store);
    let store = open(&io, ASYNC).unwrap();
    // The first one is for the entries.
    io.fail_from("populate_read", 2, ErrorKind::Other);
    let limits = GetLimits {
        count_max: 1,
        bytes_max: 1 << 20,
    };
    let read = store.get("Topic", 0, 2, &limits, &AllMessages);
    let text = health::chain(&read.unwrap_err());
    assert!(text.contains("/store/commitlog/0000"), "{text}");
    key_count(&store, 2).unwrap_err();
    // What was appended since is in memory.
    put(&store, 5).unwrap();
    dispatch_all(&store);
    assert_eq!(read_body(&store, 5), body(5));
    io.clear_faults();
    assert_eq!(read_body(&store, 2), body(2));
    assert_eq!(key_count(&store, 2).unwrap(), 1);
}

fn read_body(store: &MessageStore<SimIo>, offset: i64) -> Vec<u8> {
    read(store, offset).unwrap()
}

/// A block that the device does not give: an error with file and place, the messages before and
/// behind it, and no signal.
#[test]
fn an_unreadable_block_is_an_error_and_takes_no_others_along() {
    let io = SimIo::new(1);
    let store = open(&io, ASYNC).unwrap();
    for number in 0..10 {
        put(&store, number).unwrap();
    }
    dispatch_all(&store);
    store.close().unwrap();
    drop(store);
    // What this process has not written itself is asked for before it is touched.
    let store = open(&io, ASYNC).unwrap();
    let limits = GetLimits {
        count_max: 8,
        bytes_max: 1 << 20,
    };
    let get = |offset| store.get("Topic", 0, offset, &limits, &AllMessages);
    // The entries, then record by record.
    io.fail_nth("populate_read", 1, ErrorKind::Other);
    let text = health::chain(&get(0).unwrap_err());
    let path = "/store/consumequeue/Topic/0/";
    assert!(
        text.contains(path) && text.contains("at offset 0"),
        "{text}"
    );
    // What is read along is no reason to fail; a message behind others ends the answer.
    io.fail_nth("populate_read", 2, ErrorKind::Other);
    assert_eq!(get(0).unwrap().next_offset, 8);
    io.fail_from("populate_read", 4, ErrorKind::Other);
    io.fail_nth("populate_read", 2, ErrorKind::Other);
    let got = get(0).unwrap();
    io.clear_faults();
    assert_eq!((got.messages.records().count(), got.next_offset), (1, 1));
    io.fail_from("populate_read", 2, ErrorKind::Other);
    let text = health::chain(&get(2).unwrap_err());
    io.clear_faults();
    assert!(
        text.contains("/store/commitlog/00000000000000000000"),
        "{text}"
    );
    let got = get(4).unwrap();
    assert_eq!((got.messages.records().count(), got.next_offset), (6, 10));

    io.fail_next("populate_read", ErrorKind::Other);
    assert!(store.record_at(0).is_err());
    assert!(store.record_at(0).unwrap().is_some());
    io.fail_next("populate_read", ErrorKind::Other);
    assert!(key_count(&store, 3).is_err());
    assert_eq!(key_count(&store, 3).unwrap(), 1);
    // The entry, then the record.
    io.fail_nth("populate_read", 2, ErrorKind::Other);
    assert!(store.store_time_at("Topic", 0, 3).is_err());
    assert!(store.store_time_at("Topic", 0, 3).unwrap().is_some());
    io.fail_next("populate_read", ErrorKind::Other);
    let time = 1_700_000_000_000;
    assert!(
        store
            .offset_by_time("Topic", 0, time, store::Boundary::Lower)
            .is_err()
    );
    assert_eq!(
        store
            .offset_by_time("Topic", 0, time, store::Boundary::Lower)
            .unwrap(),
        0
    );
}

#[test]
fn who_waits_for_a_queue_is_told_of_what_stands_in_it_though_another_has_no_room() {
    let io = SimIo::new(1);
    let store = open(&io, ASYNC).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    store.listen(Arc::new(move |arrival| {
        let place = (arrival.queue_id, arrival.next_offset);
        tell.lock().unwrap().push(place);
    }));
    let put = |queue_id| {
        let message = Message::new("Topic", queue_id, b"body");
        store.put(&message).unwrap();
    };
    // A queue whose file is full, another, and both in turn.
    (0..small::ENTRIES_PER_FILE).for_each(|_| put(0));
    put(1);
    dispatch_all(&store);
    told.lock().unwrap().clear();
    io.fail_from("create", 1, ErrorKind::StorageFull);
    [1, 0, 1, 1].into_iter().for_each(put);
    let refusal = loop {
        match store.step_dispatch() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(refusal.to_string().contains("Topic"), "{refusal}");
    let len = store.entry("Topic", 1, 1).unwrap().unwrap().size;
    let behind = store.dispatch_behind_bytes();
    assert_eq!(behind, 3 * u64::from(len.unsigned_abs()), "one is done");
    let visible = store.max_offset("Topic", 1).unwrap();
    assert!(
        told.lock().unwrap().contains(&(1, visible)),
        "{visible} are visible, told of are {:?}",
        told.lock().unwrap()
    );
    io.clear_faults();
    dispatch_all(&store);
    let end = small::ENTRIES_PER_FILE as i64 + 1;
    assert!(told.lock().unwrap().contains(&(0, end)));
    assert!(told.lock().unwrap().contains(&(1, 4)));
}

#[test]
fn who_waits_for_a_queue_is_told_of_what_stands_in_it_though_its_keys_have_no_room() {
    let io = SimIo::new(1);
    let store = open(&io, ASYNC).unwrap();
    let told = Arc::new(AtomicI64::new(0));
    let tell = Arc::clone(&told);
    store.listen(Arc::new(move |arrival| {
        tell.fetch_max(arrival.next_offset, Ordering::Relaxed);
    }));
    // The third file of the queue ends behind 48 messages, the first one of the index before.
    (0..34).for_each(|number| drop(put(&store, number).unwrap()));
    dispatch_all(&store);
    (34..46).for_each(|number| drop(put(&store, number).unwrap()));
    io.fail_from("create", 1, ErrorKind::StorageFull);
    let refusal = loop {
        match store.step_dispatch() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, DispatchError::Index(_)), "{refusal}");
    let visible = store.max_offset("Topic", 0).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), visible);
    io.clear_faults();
    dispatch_all(&store);
    assert_eq!(told.load(Ordering::Relaxed), 46);
}

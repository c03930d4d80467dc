//! SIGKILL under load: what was acknowledged is there afterwards, byte for byte.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::Connection;

use crate::support::{Served, connect, queue_offset_of, read_queue, send_request, until};

const PRODUCER_COUNT: i32 = 4;
/// Requests that each producer has on the way.
const WINDOW: usize = 16;
/// Acknowledgements after which the broker is killed.
const ENOUGH: usize = 1_500;

/// What one producer was promised: queue offset to the number of the message there.
type Promised = BTreeMap<i64, u64>;

#[test]
fn async_flush_survives_being_killed() {
    survives("flushDiskType=ASYNC_FLUSH");
}

#[test]
fn sync_flush_survives_being_killed() {
    survives("flushDiskType=SYNC_FLUSH");
}

/// Two deaths on one store, the second during the life after the first.
fn survives(flush: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut promised = vec![Promised::new(); PRODUCER_COUNT as usize];
    for life in 0..2 {
        let mut broker = Served::start(dir.path(), flush);
        check(&broker, &promised);
        broker.assert_well();
        produce_and_kill(broker, &mut promised, life);
    }
    let mut broker = Served::start(dir.path(), flush);
    check(&broker, &promised);
    broker.assert_well();
}

/// All producers at once, until the broker dies in the middle of it.
fn produce_and_kill(broker: Served, promised: &mut [Promised], life: u64) {
    let acknowledged = AtomicUsize::new(0);
    let address = broker.address.clone();
    std::thread::scope(|scope| {
        for (producer, promised) in promised.iter_mut().enumerate() {
            let (acknowledged, address) = (&acknowledged, &address);
            scope.spawn(move || {
                let mut connection = connect(address);
                let first = life << 32;
                produce(
                    &mut connection,
                    producer as i32,
                    first,
                    promised,
                    acknowledged,
                );
            });
        }
        until("enough is acknowledged", || {
            (acknowledged.load(Ordering::Relaxed) >= ENOUGH).then_some(())
        });
        broker.kill();
    });
}

/// Sends with a window until the connection breaks, and notes each acknowledgement.
fn produce(
    connection: &mut Connection,
    producer: i32,
    first: u64,
    promised: &mut Promised,
    acknowledged: &AtomicUsize,
) {
    let mut on_the_way = BTreeMap::new();
    let mut numbers = first..;
    loop {
        while on_the_way.len() < WINDOW {
            let number = numbers.next().unwrap();
            let request = send_request("Killed", producer, &body(producer, number));
            let Ok(opaque) = connection.send(request) else {
                return;
            };
            on_the_way.insert(opaque, number);
        }
        let Ok(Some(answer)) = connection.receive(Instant::now() + Duration::from_secs(20)) else {
            return;
        };
        let number = on_the_way.remove(&answer.opaque).unwrap();
        let offset = queue_offset_of(&answer).unwrap();
        assert_eq!(
            promised.insert(offset, number),
            None,
            "an offset given twice"
        );
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes that only this message has, of very different lengths.
fn body(producer: i32, number: u64) -> Vec<u8> {
    let seed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (producer as u64) << 17;
    let len = 16 + (seed >> 40) as usize % 3_000;
    let mut body: Vec<u8> = (0..len as u64)
        .map(|index| (seed.wrapping_add(index * index) >> 8) as u8)
        .collect();
    body[..8].copy_from_slice(&number.to_be_bytes());
    body
}

fn check(broker: &Served, promised: &[Promised]) {
    let mut connection = connect(&broker.address);
    for (producer, promised) in promised.iter().enumerate() {
        if promised.is_empty() {
            continue;
        }
        let bodies = read_queue(&mut connection, "Killed", producer as i32);
        for (offset, number) in promised {
            let stored = bodies.get(*offset as usize);
            let lost = || {
                panic!(
                    "offset {offset} of {producer} is lost: {} left",
                    bodies.len()
                )
            };
            let expected = body(producer as i32, *number);
            assert!(
                *stored.unwrap_or_else(lost) == expected,
                "{producer}/{offset}"
            );
        }
    }
}

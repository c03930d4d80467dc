//! Searches by time against a plain look at every message.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::sync::Arc;

use consumequeue::{Boundary, ConsumeQueue, ConsumeQueueOptions, Entry, OpenPolicy};
use mmap_core::SimIo;
use proptest::prelude::*;

const SIZE: i32 = 10;
const PER_FILE: i64 = 4;

/// A queue whose message at place n begins at `base + n * SIZE`, from index `first` on.
fn queue(first: i64, count: usize) -> Arc<ConsumeQueue<SimIo>> {
    let options = ConsumeQueueOptions::with_file_len(PER_FILE as u64 * 20);
    let dir = std::path::Path::new("/cq/T/0");
    let queue = ConsumeQueue::open(SimIo::new(1), dir, options, OpenPolicy::Clean).unwrap();
    for place in 0..count as i64 {
        let entry = Entry {
            physical_offset: place * i64::from(SIZE),
            size: SIZE,
            tags_code: 0,
        };
        queue.put(first + place, entry).unwrap();
    }
    queue
}

fn search(
    queue: &ConsumeQueue<SimIo>,
    times: &[i64],
    log_min: i64,
    time: i64,
    boundary: Boundary,
) -> i64 {
    let store_time = |entry: &Entry| {
        let place = entry.physical_offset / i64::from(SIZE);
        (entry.physical_offset >= log_min).then(|| times[place as usize])
    };
    queue.index_by_time(time, boundary, &store_time).unwrap()
}

/// What the boundaries promise, for times that do not run backwards: the live messages are those
/// from `min` on.
fn reference(times: &[i64], first: i64, min: i64, time: i64, boundary: Boundary) -> i64 {
    let live = (first..).zip(times).filter(|(index, _)| *index >= min);
    let max = first + times.len() as i64;
    match boundary {
        Boundary::Lower => {
            let found = { live }.find(|(_, stored)| **stored >= time);
            found.map_or(max, |(index, _)| index)
        }
        Boundary::Upper => {
            let found = live.filter(|(_, stored)| **stored <= time).last();
            found.map_or(min, |(index, _)| index)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_answers_are_those_of_a_plain_look(
        first in prop_oneof![Just(0i64), 0..40i64],
        steps in prop::collection::vec(0..4i64, 1..40),
        gone in 0..40usize,
    ) {
        let times: Vec<i64> = steps
            .iter()
            .scan(1000, |time, step| { *time += step; Some(*time) })
            .collect();
        let queue = queue(first, times.len());
        let gone = gone.min(times.len() - 1);
        let log_min = gone as i64 * i64::from(SIZE);
        queue.trim(log_min as u64).unwrap();
        let min = first + gone as i64;
        prop_assert_eq!(queue.min_index(), min);
        for time in 998..times.last().unwrap() + 3 {
            for boundary in [Boundary::Lower, Boundary::Upper] {
                let found = search(&queue, &times, log_min, time, boundary);
                let expected = reference(&times, first, min, time, boundary);
                prop_assert_eq!(found, expected, "{:?} {} of {:?}", boundary, time, &times);
            }
        }
    }

    /// Times that run backwards (the clock was set) give some answer within the queue.
    #[test]
    fn any_times_give_an_answer_within_the_queue(
        times in prop::collection::vec(0..20i64, 1..30),
        time in -1..22i64,
    ) {
        let queue = queue(0, times.len());
        for boundary in [Boundary::Lower, Boundary::Upper] {
            let found = search(&queue, &times, 0, time, boundary);
            prop_assert!((0..=times.len() as i64).contains(&found));
        }
    }
}

#[test]
fn edges_are_those_of_the_java_queue() {
    let times = [100, 200, 200, 200, 300, 300, 400, 500, 600];
    let queue = queue(0, times.len());
    let check = |time, lower, upper| {
        assert_eq!(
            search(&queue, &times, 0, time, Boundary::Lower),
            lower,
            "lower {time}"
        );
        assert_eq!(
            search(&queue, &times, 0, time, Boundary::Upper),
            upper,
            "upper {time}"
        );
    };
    check(0, 0, 0);
    check(100, 0, 0);
    check(150, 1, 0);
    check(200, 1, 3);
    check(250, 4, 3);
    check(300, 4, 5);
    check(600, 8, 8);
    check(601, 9, 8);
}

#[test]
fn queues_without_messages_answer_with_their_minimum() {
    let empty = queue(0, 0);
    assert_eq!(search(&empty, &[], 0, 5, Boundary::Lower), 0);
    let times = [1, 2, 3, 4, 5, 6];
    let expired = queue(3, times.len());
    let log_min = times.len() as i64 * i64::from(SIZE);
    expired.trim(log_min as u64).unwrap();
    assert_eq!(search(&expired, &times, log_min, 2, Boundary::Lower), 9);
    assert_eq!(search(&expired, &times, log_min, 2, Boundary::Upper), 9);
}

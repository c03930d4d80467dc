//! The first message and what comes after it, on a broker in this process.

use std::time::Instant;

use client::{ClientOptions, Outgoing, Producer, PullConsumer, StartAt};
use remoting::ResponseCode;

use crate::support::{
    InProcess, PATIENCE, Pulled, connect, pull, pull_request, read_queue, send, until,
};

#[test]
fn messages_are_sent_alone_and_in_batches_and_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(dir.path(), "");
    let options = ClientOptions::new(&broker.name_server());
    let mut producer = Producer::new(options.clone(), "producers");
    let one = Outgoing {
        body: b"alone",
        tag: Some("A"),
        ..Outgoing::default()
    };
    let receipt = producer.send("Greetings", &one).unwrap();
    assert_eq!(receipt.queue_offset, 0);
    let three: Vec<_> = [&b"one"[..], b"two", b"three"]
        .iter()
        .map(|body| Outgoing { body, ..one })
        .collect();
    producer.send_batch("Greetings", &three).unwrap();
    assert_eq!(consume(&options, 4), ["alone", "one", "three", "two"]);
    broker.stop();

    let broker = InProcess::start(dir.path(), "");
    let options = ClientOptions::new(&broker.name_server());
    // Nothing was committed, so the group begins anew.
    assert_eq!(consume(&options, 4), ["alone", "one", "three", "two"]);
    broker.stop();
}

/// The bodies of so many messages, sorted.
fn consume(options: &ClientOptions, count: usize) -> Vec<String> {
    // The name server hears of a topic a moment after the send that created it.
    let mut consumer = until("the topic has a route", || {
        PullConsumer::new(options.clone(), "readers", "Greetings", StartAt::Earliest).ok()
    });
    let mut bodies = Vec::new();
    until("all messages came", || {
        for received in consumer.poll(PATIENCE).unwrap() {
            bodies.push(String::from_utf8(received.body).unwrap());
        }
        (bodies.len() >= count).then_some(())
    });
    bodies.sort();
    bodies
}

#[test]
fn a_held_pull_is_woken_by_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(dir.path(), "");
    let mut producer = connect(&broker.address());
    let mut consumer = connect(&broker.address());
    send(&mut producer, "Held", 1, b"first").unwrap();
    until("the first is there", || {
        (pull(&mut consumer, "Held", 1, 0).messages.len() == 1).then_some(())
    });
    let request = pull_request("Held", 1, 1, Some(PATIENCE * 4));
    consumer.send(request).unwrap();
    until("the pull is held", || {
        (broker.node().broker.holds.count() == 1).then_some(())
    });
    send(&mut producer, "Held", 1, b"second").unwrap();
    let answer = consumer.receive(Instant::now() + PATIENCE).unwrap();
    let pulled = Pulled::of(&answer.expect("woken, long before its deadline"));
    assert_eq!(pulled.code, ResponseCode::SUCCESS);
    assert_eq!(pulled.messages, [(1, b"second".to_vec())]);
    assert_eq!(broker.node().broker.holds.count(), 0);
    broker.stop();
}

#[test]
fn a_pull_that_is_held_when_its_client_dies_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(dir.path(), "");
    let mut producer = connect(&broker.address());
    send(&mut producer, "Left", 0, b"x").unwrap();
    until("the message is dispatched", || {
        (read_queue(&mut producer, "Left", 0).len() == 1).then_some(())
    });
    let mut consumer = connect(&broker.address());
    for _ in 0..100 {
        let request = pull_request("Left", 0, 1, Some(PATIENCE * 4));
        consumer.send(request).unwrap();
    }
    until("they are held", || {
        (broker.node().broker.holds.count() == 100).then_some(())
    });
    drop(consumer);
    until("they are gone", || {
        // A message wakes whatever is still there.
        send(&mut producer, "Left", 0, b"y").unwrap();
        (broker.node().broker.holds.count() == 0).then_some(())
    });
    broker.stop();
}

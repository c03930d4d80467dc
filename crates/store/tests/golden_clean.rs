//! The store that a Java broker wrote and closed, opened by ours: every answer equals Java's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod golden;

use answers::open;
use golden::GoldenSet;
use store::{LastExit, MessageStore};

/// Every answer that the manifest, the records and the served messages of a set hold.
fn check(store: &MessageStore, set: &GoldenSet) {
    let manifest = set.manifest();
    let log = store.log();
    assert_eq!(
        Some(log.min_offset()),
        manifest["commitLogMinOffset"].as_u64()
    );
    assert_eq!(
        Some(log.max_offset()),
        manifest["commitLogMaxOffset"].as_u64()
    );
    answers::check_records(store, &answers::records(set));
    answers::check_served(store, &set.served());
    answers::check_queues(store, &manifest);
    answers::check_queries(store, &manifest);
}
#[test]
fn every_answer_equals_javas() {
    let set = GoldenSet::unpack("clean");
    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Clean);
    assert!(report.log.cut.is_none(), "{report}");
    check(&store, &set);
    store.close().unwrap();
    drop(store);

    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Clean);
    check(&store, &set);
}

#[test]
fn every_answer_equals_javas_after_a_crash_of_ours() {
    let set = GoldenSet::unpack("clean");
    drop(open(&set));
    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Unclean);
    check(&store, &set);
}

#[test]
fn derived_files_are_built_again_from_the_log() {
    let set = GoldenSet::unpack("clean");
    set.remove("consumequeue");
    set.remove("index");
    set.remove("checkpoint");
    set.write("abort", b"1");
    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Unclean);
    check(&store, &set);
}

//! The store of a Java broker that was killed under load, opened by ours: everything that Java
//! recovered is served, and the keys that Java lost are found, too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod golden;

use answers::open;
use golden::GoldenSet;
use store::LastExit;

#[test]
fn every_record_is_served_and_found_by_its_keys() {
    let set = GoldenSet::unpack("killed");
    let manifest = set.manifest();
    let end = manifest["commitLogMaxOffset"].as_u64().unwrap();
    let records = answers::records(&set);
    assert_eq!(records.len(), 2995);

    let (store, report) = open(&set);
    assert_eq!(report.last_exit, LastExit::Unclean);
    assert_eq!(store.log().max_offset(), end, "{report}");
    answers::check_records(&store, &records);
    answers::check_served(&store, &set.served());
    answers::check_queues(&store, &manifest);
    store.close().unwrap();
    drop(store);
    answers::check_reopening(&set, &records, end);
}

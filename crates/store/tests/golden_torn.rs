//! The damages of `golden/torn`, opened by ours: at least every message that Java recovered is
//! served with every byte, and no undamaged record before the damage is lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod golden;

use answers::{Record, open};
use golden::GoldenSet;

/// Opens a damaged store; returns the records that are kept after checking all of them.
fn recover(set: &GoldenSet, variant: &str) -> Vec<Record> {
    let all = answers::records(set);
    let (store, _) = open(set);
    let end = store.log().max_offset();
    let kept: Vec<Record> = all
        .into_iter()
        .filter(|record| answers::holds(&store, record))
        .collect();
    answers::check_records(&store, &kept);
    if let Some(served) = golden::torn_after_served(variant) {
        answers::check_served(&store, &served);
    }
    let expected = &golden::torn_manifest(variant)["expected_after_recovery"];
    if let Some(java_count) = expected["messages"].as_u64() {
        assert!(
            kept.len() as u64 >= java_count,
            "{} records kept, {java_count} by Java",
            kept.len()
        );
    }
    store.close().unwrap();
    drop(store);
    answers::check_reopening(set, &kept, end);
    kept
}

fn recover_variant(variant: &str) -> Vec<Record> {
    recover(&GoldenSet::torn(variant), variant)
}

const RECORD_COUNT: usize = 2995;
/// When the last of them was stored.
const LAST_STORED_MS: i64 = 1_795_400_146_121;
/// The record that `bitflip_mid_lastfile` damages.
const DAMAGED_OFFSET: u64 = 10_801_602;

#[test]
fn as_it_was_killed() {
    assert_eq!(recover_variant("asis").len(), RECORD_COUNT);
}

#[test]
fn without_a_checkpoint() {
    assert_eq!(recover_variant("checkpoint_deleted").len(), RECORD_COUNT);
}

#[test]
fn without_queues_index_and_checkpoint() {
    let kept = recover_variant("cq_and_checkpoint_deleted");
    assert_eq!(kept.len(), RECORD_COUNT);
}

#[test]
fn without_an_index() {
    assert_eq!(recover_variant("index_deleted").len(), RECORD_COUNT);
}

#[test]
fn with_garbage_behind_the_last_record() {
    assert_eq!(recover_variant("garbage_after").len(), RECORD_COUNT);
}

#[test]
fn with_an_empty_last_file() {
    assert_eq!(recover_variant("lastfile_empty").len(), RECORD_COUNT);
}

#[test]
fn with_a_flipped_bit_in_the_last_record() {
    assert_eq!(recover_variant("bitflip_last").len(), RECORD_COUNT - 1);
}

#[test]
fn with_a_last_record_of_zeros() {
    assert_eq!(recover_variant("tail_zero_body").len(), RECORD_COUNT - 1);
}

/// The damage lies above what the checkpoint vouches for, and nothing says that the power did not
/// fail: the log ends there, as with Java.
#[test]
fn with_a_flipped_bit_among_records_that_may_be_unsynced() {
    recover_variant("bitflip_mid_lastfile");
}

/// The same damage where the checkpoint vouches for the bytes: it costs the one record.
#[test]
fn with_a_flipped_bit_among_synced_records() {
    let set = GoldenSet::torn("bitflip_mid_lastfile");
    let later_ms = LAST_STORED_MS + 10_000;
    let mut checkpoint = vec![0; 4096];
    for (slot, time_ms) in checkpoint.chunks_exact_mut(8).zip([later_ms; 3]) {
        slot.copy_from_slice(&time_ms.to_be_bytes());
    }
    set.write("checkpoint", &checkpoint);
    let kept = recover(&set, "bitflip_mid_lastfile");
    assert_eq!(kept.len(), RECORD_COUNT - 1);
    assert!(kept.iter().all(|record| record.offset != DAMAGED_OFFSET));
}

/// Java does not start on this one.
#[test]
fn with_a_file_that_was_cut_short() {
    let set = GoldenSet::torn("lastfile_truncated");
    let cut = 10_485_760 + 300_000;
    let whole = answers::records(&set)
        .into_iter()
        .filter(|record| record.end <= cut)
        .count();
    assert_eq!(recover(&set, "lastfile_truncated").len(), whole);
}

//! Taking messages out of stores that a Java broker wrote: by queue, key, time and place in the
//! log, and past damage.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod golden;

use std::ops::ControlFlow;

use golden::GoldenSet;
use message::RecordView;
use mmap_core::OsIo;
use serde_json::Value;
use store::offline::{self, ExportRange, ExportReport, ExportSource, OfflineError};
use store::{NoProgress, StoreOptions};

/// Log offset and queue offset of each message of a range.
fn export(set: &GoldenSet, range: &ExportRange<'_>) -> (Vec<(i64, i64)>, ExportReport) {
    let mut found = Vec::new();
    let mut take = |view: &RecordView<'_>, queue_offset| {
        found.push((view.physical_offset(), queue_offset));
        Ok(ControlFlow::Continue(()))
    };
    let options = StoreOptions::new(set.store_dir());
    let report = offline::export(&OsIo, &options, range, &mut take, &NoProgress).unwrap();
    (found, report)
}

/// The same of the records that a set's description has.
fn described(set: &GoldenSet, is_wanted: impl Fn(&Value) -> bool) -> Vec<(i64, i64)> {
    let number = |record: &Value, name: &str| record[name].as_i64().unwrap();
    set.records()
        .iter()
        .filter(|record| is_wanted(record))
        .map(|record| (number(record, "offset"), number(record, "queueOffset")))
        .collect()
}

fn by_queue(mut places: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    places.sort_unstable();
    places
}

#[test]
fn everything_is_the_log_in_its_order() {
    for name in ["clean", "killed", "special"] {
        let set = GoldenSet::unpack(name);
        let (found, report) = export(&set, &ExportRange::default());
        assert_eq!(found, described(&set, |_| true), "{name}");
        assert_eq!(report.source, ExportSource::Log);
    }
}

#[test]
fn a_topic_comes_from_its_queues() {
    let set = GoldenSet::unpack("clean");
    let range = ExportRange {
        topic: Some("GoldA"),
        ..ExportRange::default()
    };
    let expected = described(&set, |record| record["topic"] == "GoldA");
    let (found, report) = export(&set, &range);
    assert_eq!(report.source, ExportSource::Queues);
    assert_eq!(by_queue(found), expected);
    let scan_log = true;
    let (found, report) = export(&set, &ExportRange { scan_log, ..range });
    assert_eq!(report.source, ExportSource::Log);
    assert_eq!(found, expected);

    let queue = ExportRange {
        queue_id: Some(2),
        from_queue_offset: Some(3),
        until_queue_offset: Some(5),
        ..range
    };
    let expected = described(&set, |record| {
        let offset = record["queueOffset"].as_i64().unwrap();
        record["topic"] == "GoldA" && record["queueId"] == 2 && (3..=5).contains(&offset)
    });
    assert_eq!(expected.len(), 3);
    assert_eq!(export(&set, &queue).0, expected);
}

#[test]
fn light_queues_and_batches_are_queues_too() {
    let set = GoldenSet::unpack("special");
    let of = |topic| ExportRange {
        topic: Some(topic),
        ..ExportRange::default()
    };
    let (found, report) = export(&set, &of("%LMQ%one"));
    assert_eq!(report.missing_count, 0);
    let offsets: Vec<i64> = found
        .iter()
        .map(|(_, queue_offset)| *queue_offset)
        .collect();
    assert_eq!(offsets, (0..20).collect::<Vec<_>>());
    let (found, _) = export(&set, &of("GoldBcq"));
    let expected = described(&set, |record| record["topic"] == "GoldBcq");
    assert_eq!(by_queue(found), expected);
}

#[test]
fn a_time_range_is_the_same_whatever_is_read() {
    let set = GoldenSet::unpack("killed");
    let records = set.records();
    let time = |place: usize| records[place]["storeTimestamp"].as_i64().unwrap();
    let (from_ms, until_ms) = (time(1_000), time(2_000));
    let in_range = |record: &Value| {
        let stored = record["storeTimestamp"].as_i64().unwrap();
        (from_ms..=until_ms).contains(&stored)
    };
    let range = ExportRange {
        from_ms: Some(from_ms),
        until_ms: Some(until_ms),
        ..ExportRange::default()
    };
    assert_eq!(export(&set, &range).0, described(&set, in_range));
    let of_topic = ExportRange {
        topic: Some("GoldA"),
        ..range
    };
    let expected = described(&set, |record| {
        record["topic"] == "GoldA" && in_range(record)
    });
    assert!(expected.len() > 500);
    assert_eq!(by_queue(export(&set, &of_topic).0), expected);
}

#[test]
fn a_range_of_the_log() {
    let set = GoldenSet::unpack("clean");
    let records = set.records();
    let offset = |place: usize| records[place]["offset"].as_u64().unwrap();
    let range = ExportRange {
        from_log_offset: Some(offset(100) + 1),
        until_log_offset: Some(offset(200)),
        ..ExportRange::default()
    };
    let (found, _) = export(&set, &range);
    assert_eq!(found.len(), 100);
    assert_eq!(found[0].0.cast_unsigned(), offset(101));
}

#[test]
fn a_key_comes_from_the_index() {
    let set = GoldenSet::unpack("killed");
    for query in set.manifest()["queryByKey"].as_array().unwrap() {
        let topic = query["topic"].as_str().unwrap();
        let range = ExportRange {
            topic: Some(topic),
            key: query["key"].as_str(),
            ..ExportRange::default()
        };
        let (found, report) = export(&set, &range);
        assert_eq!(report.source, ExportSource::Index);
        // Java was asked for the newest 64 at most, and within a time range.
        for hit in query["hits"].as_array().unwrap() {
            let offset = hit["commitLogOffset"].as_i64().unwrap();
            let is_found = found.iter().any(|(found, _)| *found == offset);
            // The last ones were dispatched by the broker's next start only.
            assert!(is_found || offset >= 11_106_998, "{query}");
        }
    }
}

#[test]
fn damage_costs_what_it_hits() {
    let set = GoldenSet::torn("bitflip_mid_lastfile");
    let (found, report) = export(&set, &ExportRange::default());
    assert_eq!(found.len(), 2_994);
    assert!(report.damaged_len > 0);
    let range = ExportRange {
        topic: Some("GoldA"),
        ..ExportRange::default()
    };
    assert!(export(&set, &range).1.missing_count <= 1);
}

#[test]
fn whoever_has_had_enough_says_so() {
    let set = GoldenSet::unpack("clean");
    let options = StoreOptions::new(set.store_dir());
    let mut count = 0;
    let mut take = |_: &RecordView<'_>, _| {
        count += 1;
        Ok(if count == 7 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    };
    let range = ExportRange::default();
    offline::export(&OsIo, &options, &range, &mut take, &NoProgress).unwrap();
    assert_eq!(count, 7);
    let mut refuse = |_: &RecordView<'_>, _| Err(std::io::ErrorKind::BrokenPipe.into());
    let refused = offline::export(&OsIo, &options, &range, &mut refuse, &NoProgress);
    assert!(matches!(refused, Err(OfflineError::Consumer(_))));
}

//! What must be true of a damaged store.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Result, ensure};
use message::layout::PHYSICAL_OFFSET_POSITION;
use mmap_core::OsIo;
use store::offline::{Finding, VerifyOptions};
use store::{
    AllMessages, GetLimits, GetStatus, KeyQuery, MessageStore, NoProgress, OpenReport, StoreOptions,
};

use super::baseline::{Baseline, Record};
use super::damage::Damage;

/// How a store answers.
pub(super) enum Verdict {
    /// Everything that the damage does not touch is there.
    Whole,
    /// The log has everything, and a queue or the index does not lead to it.
    Hidden(String),
}

/// What `verify` says of a store that is not open.
pub(super) fn verify(options: &StoreOptions) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut sink = |finding: &Finding| findings.push(finding.clone());
    let verify = VerifyOptions::default();
    store::offline::verify(&OsIo, options, &verify, &mut sink, &NoProgress)?;
    Ok(findings)
}

/// Compares what an open store answers with what it held. An error if the log has lost something.
pub(super) fn compare(
    store: &MessageStore,
    baseline: &Baseline,
    damage: &Damage,
) -> Result<Verdict> {
    let mut hidden = None;
    let batch_topics: HashSet<&str> = { baseline.files.keys() }
        .filter_map(|path| path.strip_prefix("batchconsumequeue").ok())
        .filter_map(|path| path.components().next()?.as_os_str().to_str())
        .collect();
    for record in &baseline.records {
        if damage.touches(record) || is_behind_the_end(baseline, damage, record) {
            continue;
        }
        let slice = store.look_up(record.offset);
        ensure!(
            slice.is_some_and(|slice| *slice == record.bytes),
            "the record at {} of the log is lost",
            record.offset
        );
        let has_place = record.has_place && !batch_topics.contains(record.topic.as_str());
        if has_place && !is_served(store, record)? {
            let Record {
                topic,
                queue_id,
                queue_offset,
                ..
            } = record;
            hidden.get_or_insert(format!("{topic}-{queue_id} does not serve {queue_offset}"));
        }
        for key in &record.keys {
            if !is_found(store, record, key)? {
                hidden.get_or_insert(format!("{} does not find {key}", record.topic));
            }
        }
    }
    Ok(hidden.map_or(Verdict::Whole, Verdict::Hidden))
}

/// In a store of which nothing tells that it was synced, the log ends at the first damage.
fn is_behind_the_end(baseline: &Baseline, damage: &Damage, record: &Record) -> bool {
    let range = damage.log_range();
    !baseline.is_vouched && range.is_some_and(|range| record.offset >= range.start)
}

fn is_served(store: &MessageStore, record: &Record) -> Result<bool> {
    let limits = GetLimits {
        count_max: 1,
        bytes_max: 1 << 24,
    };
    let (topic, queue_id) = (record.topic.as_str(), record.queue_id);
    let got = store.get(topic, queue_id, record.queue_offset, &limits, &AllMessages)?;
    let first = got.messages.records().next();
    Ok(got.status == GetStatus::Found && first.is_some_and(|view| view.bytes() == record.bytes))
}

fn is_found(store: &MessageStore, record: &Record, key: &str) -> Result<bool> {
    let answer = store.query(&KeyQuery {
        topic: &record.topic,
        key,
        count_max: 64,
        begin_ms: record.store_ms,
        end_ms: record.store_ms,
    })?;
    let mut found = answer.messages.records();
    Ok(found.any(|view| view.physical_offset().cast_unsigned() == record.offset))
}

/// Whatever was taken out of the log is kept.
pub(super) fn quarantine(report: &OpenReport, damage: &Damage, root: &Path) -> Result<()> {
    let is_changed = report.has_damage() || report.log.cut.is_some();
    if is_changed && damage.log_range().is_some() {
        let dir = root.join("foliomq/quarantine");
        let is_kept = std::fs::read_dir(dir).is_ok_and(|mut files| files.next().is_some());
        ensure!(is_kept, "what was taken out of the log is not kept");
    }
    Ok(())
}

/// Damage to what a checksum covers, or to where a record says it belongs, is named by somebody.
pub(super) fn told(
    baseline: &Baseline,
    damage: &Damage,
    report: &OpenReport,
    findings: &[Finding],
) -> Result<()> {
    let Some(range) = damage.log_range() else {
        return Ok(());
    };
    let touched = { baseline.records.iter() }.filter(|record| damage.touches(record));
    let mut covered = touched.filter(|record| {
        let body = record.offset + record.body_range.start as u64
            ..record.offset + record.body_range.end as u64;
        let place = record.offset + PHYSICAL_OFFSET_POSITION as u64;
        let place = place..place + 8;
        [body, place]
            .iter()
            .any(|covered| covered.start < range.end && range.start < covered.end)
    });
    let Some(record) = covered.next() else {
        return Ok(());
    };
    let is_named = findings.iter().any(|finding| damage.is_near(&finding.path));
    ensure!(
        is_named || report.has_damage() || report.log.cut.is_some(),
        "nobody names the damage to the record at {}",
        record.offset
    );
    Ok(())
}

//! `foliomq store verify`.

use std::io::{BufWriter, Write};

use anyhow::Result;
use mmap_core::{LockState, OsIo};
use serde_json::{Value, json};
use store::LastExit;
use store::offline::{self, Finding, Severity, Totals, VerifyOptions, VerifyReport};

use super::{CLEAN, DIFFERENT, FAILED, config_check, json, options, time_text, write_line};
use crate::cli::store::{Output, VerifyFlags};
use crate::progress::Bar;

/// Prints each difference as it is found, then what was compared.
pub(super) fn run(flags: &VerifyFlags) -> Result<u8> {
    let options = options(&flags.store)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let bar = Bar::new();
    let mut print = |finding: &Finding| {
        let is_wanted = !flags.quiet || finding.severity > Severity::Info;
        if is_wanted && written.is_ok() {
            written = match flags.store.output {
                Output::Text => writeln!(out, "{finding}"),
                Output::Json => write_line(&mut out, &json::finding(finding)),
            };
        }
    };
    let verify = VerifyOptions::default();
    let report = offline::verify(&OsIo, &options, &verify, &mut print, &bar)?;
    let mut totals = report.totals;
    let mut further = config_check::check(&OsIo, &options, &report);
    if let Some(path) = &flags.store.config {
        further.extend(config_check::sizes(path, &options, &report.shape));
    }
    for finding in further {
        totals.add(&finding);
        print(&finding);
    }
    bar.clear();
    written?;
    match flags.store.output {
        Output::Text => writeln!(out, "{}", summary_text(&report, &totals))?,
        Output::Json => write_line(&mut out, &summary(&report, &totals))?,
    }
    out.flush()?;
    Ok(match totals {
        totals if totals.unreadable > 0 => FAILED,
        totals if totals.is_clean() => CLEAN,
        _ => DIFFERENT,
    })
}

fn summary(report: &VerifyReport, totals: &Totals) -> Value {
    let (is_in_use, holder) = match report.lock {
        LockState::Free => (false, None),
        LockState::Held { holder_pid } => (true, holder_pid),
    };
    let queues: Vec<Value> = report
        .queues
        .iter()
        .map(|queue| {
            json!({
                "topic": queue.topic,
                "queueId": queue.queue_id,
                "kind": queue.kind.name(),
                "minOffset": queue.min,
                "maxOffset": queue.max,
                "records": queue.record_count,
                "hasFiles": queue.has_files,
            })
        })
        .collect();
    json!({
        "type": "summary",
        "totals": json::totals(totals),
        "shape": json::shape(&report.shape),
        "closed": report.last_exit == LastExit::Clean,
        "inUse": is_in_use,
        "holderPid": holder,
        "comparedUntil": report.compared_until_ms,
        "log": {
            "minOffset": report.log.min,
            "endOffset": report.log.end,
            "files": report.log.file_count,
            "records": report.log.record_count,
            "firstStoreTimestamp": report.log.first_store_ms,
            "lastStoreTimestamp": report.log.last_store_ms,
            "damagedBytes": report.log.damaged_len,
        },
        "index": {
            "files": report.index_file_count,
            "entries": report.index_entry_count,
            "keys": report.key_count,
        },
        "queues": queues,
    })
}

fn summary_text(report: &VerifyReport, totals: &Totals) -> String {
    let log = &report.log;
    let on_disk = report.queues.iter().filter(|queue| queue.has_files).count();
    let mut text = format!(
        "compared {} records in {} files of the log (offsets {} to {}), {on_disk} queues, {} \
         entries and {} keys in {} index files",
        log.record_count,
        log.file_count,
        log.min,
        log.end,
        report.index_entry_count,
        report.key_count,
        report.index_file_count,
    );
    if let Some(until_ms) = report.compared_until_ms {
        text += &format!("; the store is in use: up to {}", time_text(until_ms));
    }
    text += &format!(
        "\n{} errors, {} warnings, {} infos",
        totals.errors, totals.warnings, totals.infos
    );
    if totals.unreadable > 0 {
        text += &format!(
            "; {} of the errors are files that cannot be read",
            totals.unreadable
        );
    }
    text
}

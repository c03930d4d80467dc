//! `foliomq store rebuild`.

use std::io::Write;

use anyhow::Result;
use mmap_core::OsIo;
use serde_json::json;
use store::offline::{self, RebuildSelection};

use super::{CLEAN, config_check, options, write_line};
use crate::cli::store::{Output, RebuildFlags};
use crate::progress::Bar;

/// Builds derived files anew, and prints what came of it.
pub(super) fn run(flags: &RebuildFlags) -> Result<u8> {
    let options = options(&flags.store)?;
    let selection = RebuildSelection {
        queues: !flags.index,
        index: !flags.queues && flags.topic.is_none(),
        topic: flags.topic.clone(),
        batch_topics: config_check::batch_topics(&OsIo, &options),
    };
    let bar = Bar::new();
    let report = offline::rebuild(&OsIo, &options, &selection, &bar)?;
    bar.clear();
    let mut out = std::io::stdout().lock();
    match flags.store.output {
        Output::Json => write_line(
            &mut out,
            &json!({
                "records": report.record_count,
                "queues": report.queue_count,
                "entries": report.entry_count,
                "lostMessages": report.lost_count,
                "misplacedRecords": report.misplaced_count,
                "keys": report.key_count,
                "damagedBytes": report.damaged_len,
            }),
        )?,
        Output::Text => {
            writeln!(
                out,
                "read {} records; built {} queues of {} entries, and indexed {} keys",
                report.record_count, report.queue_count, report.entry_count, report.key_count
            )?;
            if report.damaged_len > 0 || report.lost_count > 0 || report.misplaced_count > 0 {
                writeln!(
                    out,
                    "{} bytes of the log are no record; {} messages are lost, {} records have no \
                     place in their queue",
                    report.damaged_len, report.lost_count, report.misplaced_count
                )?;
            }
        }
    }
    Ok(CLEAN)
}

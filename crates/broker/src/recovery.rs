//! Telling in the log what opening the store found and did.

use std::time::Duration;

use store::{LastExit, OpenReport};

/// One line for what opening the store did, and one for each thing that somebody should know.
pub(crate) fn tell(report: &OpenReport) {
    let millis = |elapsed: Duration| elapsed.as_secs_f64() * 1e3;
    let phases = report.phases.iter().map(|phase| {
        format!(
            "{}: files={} bytes={} records={} cut={} lost={} rebuilt={} ms={:.1}",
            phase.name,
            phase.files,
            phase.bytes,
            phase.records,
            phase.cut,
            phase.lost,
            phase.rebuilt,
            millis(phase.elapsed)
        )
    });
    let phases: Vec<_> = phases.collect();
    tracing::info!(
        clean = report.last_exit == LastExit::Clean,
        power_kept = report.is_power_kept,
        log_end = report.log.end,
        phases = phases.join("; "),
        ms = millis(report.elapsed),
        "the store is open"
    );
    for path in &report.damaged_segments {
        let path = path.display();
        tracing::warn!(%path, "a segment was shorter than the others or missing");
    }
    for missing in &report.missing {
        tracing::warn!(
            topic = missing.topic,
            queue_id = missing.queue_id,
            first = missing.first,
            count = missing.count,
            "messages are lost to damage"
        );
    }
    if let Some(cut) = &report.log.cut {
        let (offset, len, reason) = (cut.offset, cut.len, &cut.reason);
        tracing::warn!(offset, len, %reason, "the log ends here; what stood behind is cut off");
    }
    for queue in &report.rebuilt_queues {
        tracing::warn!(%queue, "a consume queue was built again");
    }
    for path in &report.quarantined {
        let path = path.display();
        tracing::warn!(%path, "what was taken out of the log is kept");
    }
    if let Some(reason) = &report.log.read_only {
        tracing::error!(%reason, "the store is read only: no room to keep aside what must go");
    }
}

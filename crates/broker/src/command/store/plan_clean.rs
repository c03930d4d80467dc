//! `foliomq store plan-clean`.

use std::io::Write;

use anyhow::Result;
use mmap_core::OsIo;
use serde_json::{Value, json};
use store::{CleanPlan, StoreOptions, offline, plan_clean};

use super::{CLEAN, json, options, write_line};
use crate::cli::store::{Output, PlanCleanFlags};

/// Prints what cleaning would remove, and why.
pub(super) fn run(flags: &PlanCleanFlags) -> Result<u8> {
    let options = options(&flags.store)?;
    let shape = offline::Shape::detect(&OsIo, &options)?;
    let options: StoreOptions = shape.apply_to(&options);
    let now_ms = flags.at.unwrap_or_else(crate::clock::now_ms);
    let plan = plan_clean(&OsIo, &options, now_ms, flags.manual)?;
    let mut out = std::io::stdout().lock();
    match flags.store.output {
        Output::Text => writeln!(out, "{plan}")?,
        Output::Json => write_line(&mut out, &plan_json(&plan, now_ms))?,
    }
    Ok(CLEAN)
}

fn plan_json(plan: &CleanPlan, now_ms: i64) -> Value {
    let log: Vec<Value> = plan
        .log
        .iter()
        .map(|planned| {
            json!({
                "path": json::path(&planned.file.path),
                "offset": planned.file.base,
                "len": planned.file.len,
                "modified": planned.file.modified_ms,
                "removed": planned.verdict.is_removed(),
                "why": planned.verdict.to_string(),
            })
        })
        .collect();
    let derived: Vec<Value> = plan
        .derived
        .iter()
        .map(|file| {
            json!({
                "path": json::path(&file.path),
                "len": file.len,
                "kind": format!("{:?}", file.kind),
                "lastLogOffset": file.last_offset,
            })
        })
        .collect();
    json!({
        "at": now_ms,
        "triggers": plan.triggers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "forced": plan.forced,
        "freedBytes": plan.freed_bytes(),
        "minOffsetAfterwards": plan.log_min,
        "log": log,
        "derived": derived,
    })
}

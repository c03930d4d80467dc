//! `foliomq store inspect`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mmap_core::{Io, LockState, OsIo};
use serde_json::{Value, json};
use store::offline::{
    self, IndexChainEntry, IndexFileView, QueueEntryView, RecordBytes, Shape, StoreDirs,
};
use store::{ABORT_FILE, IndexLayout, LOCK_FILE, StoreOptions};

use super::{CLEAN, json, options, time_text, write_line};
use crate::cli::store::{InspectCommand, InspectFlags, Output, StoreFlags};

/// Longest table that is read, in bytes.
const TABLE_LEN_MAX: u64 = 512 * 1024 * 1024;
/// Most memory that a table may take while it is read, in bytes.
const TABLE_MEMORY_LEN_MAX: usize = 4 << 30;

/// Prints what stands at a place.
pub(super) fn run(flags: &InspectFlags) -> Result<u8> {
    match (&flags.what, &flags.record) {
        (None, Some(place)) => record(place, &flags.store)?,
        (Some(InspectCommand::Record { place, store }), _) => record(place, store)?,
        (Some(what), _) => other(what)?,
        (None, None) => bail!("what? FILE@POSITION, OFFSET, or a command: see --help"),
    }
    Ok(CLEAN)
}

fn other(what: &InspectCommand) -> Result<()> {
    match what {
        InspectCommand::Record { place, store } => record(place, store),
        InspectCommand::Queue {
            topic,
            queue,
            index,
            count,
            store,
        } => queue_entries((topic, *queue, *index), *count, store),
        InspectCommand::Index {
            file,
            slot,
            entry,
            key,
            topic,
            store,
        } => {
            let wanted = match (slot, entry, key, topic) {
                (Some(slot), ..) => Wanted::Slot(*slot),
                (_, Some(ordinal), ..) => Wanted::Entry(*ordinal),
                (_, _, Some(key), Some(topic)) => Wanted::Key(topic, key),
                _ => Wanted::Header,
            };
            index(file.as_deref(), &wanted, store)
        }
        InspectCommand::Checkpoint { store } => checkpoint(store),
        InspectCommand::Config { name, store } => config(name, store),
        InspectCommand::Store { store } => whole(store),
    }
}

fn record(place: &str, flags: &StoreFlags) -> Result<()> {
    let found = match place.rsplit_once('@') {
        Some((path, position)) => {
            let position = number(position)?;
            offline::record_in_file(&OsIo, Path::new(path), position)?
        }
        None => offline::record_at(&OsIo, &options(flags)?, number(place)?)?,
    };
    let value = json::record_bytes(&found);
    print(flags, &value, || record_text(&found, &value))
}

fn record_text(found: &RecordBytes, value: &Value) -> String {
    let place = format!("{}@{}", found.path.display(), found.position);
    let field = |name: &str| &value["record"][name];
    match value["what"].as_str() {
        Some("record") => {
            let time = |name: &str| time_text(field(name).as_i64().unwrap_or(0));
            let mut text = format!(
                "{place}: a record of {} bytes, version {}\n",
                field("size"),
                field("version")
            );
            for (label, value) in [
                ("topic", field("topic").to_string()),
                ("queue", field("queueId").to_string()),
                ("queue offset", field("queueOffset").to_string()),
                ("log offset", field("logOffset").to_string()),
                ("message id", field("offsetMsgId").to_string()),
                ("stored", time("storeTimestamp")),
                ("stored by", field("storeHost").to_string()),
                ("born", time("bornTimestamp")),
                ("born at", field("bornHost").to_string()),
                ("flag", field("flag").to_string()),
                ("system flag", field("sysFlag").to_string()),
                ("reconsumed", field("reconsumeTimes").to_string()),
                ("body CRC right", field("bodyCrcOk").to_string()),
                ("CRC property right", or_none(field("crcPropertyOk"))),
                ("properties", field("properties").to_string()),
                ("body bytes", field("bodyLen").to_string()),
                ("body", body_text(&value["record"])),
            ] {
                text += &format!("  {label:19}{value}\n");
            }
            text
        }
        Some("blank") => format!("{place}: padding of {} bytes\n", value["size"]),
        _ => format!(
            "{place}: no record: {}\n  {}\n",
            value["reason"].as_str().unwrap_or_default(),
            value["bytes"].as_str().unwrap_or_default()
        ),
    }
}

fn or_none(value: &Value) -> String {
    if value.is_null() {
        "there is none".to_owned()
    } else {
        value.to_string()
    }
}

/// The beginning of a body.
fn body_text(record: &Value) -> String {
    const SHOWN_LEN: usize = 200;
    let (prefix, body) = match (record["body"].as_str(), record["bodyBase64"].as_str()) {
        (Some(text), _) => ("", text),
        (_, Some(base64)) => ("base64 ", base64),
        _ => return String::new(),
    };
    let shown: String = body.chars().take(SHOWN_LEN).collect();
    let more = if shown.len() < body.len() { " ..." } else { "" };
    format!("{prefix}{shown:?}{more}")
}

fn queue_entries(
    (topic, queue_id, first): (&str, i32, i64),
    count: u64,
    flags: &StoreFlags,
) -> Result<()> {
    let options = options(flags)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let last = first.saturating_add_unsigned(count);
    for index in first..last {
        let view = offline::queue_entry(&OsIo, &options, topic, queue_id, index)?;
        match flags.output {
            Output::Json => write_line(&mut out, &entry_json(topic, queue_id, &view))?,
            Output::Text => writeln!(out, "{}", entry_text(topic, queue_id, &view))?,
        }
    }
    out.flush()?;
    Ok(())
}

fn entry_json(topic: &str, queue_id: i32, view: &QueueEntryView) -> Value {
    match view {
        QueueEntryView::Simple {
            place: (path, position),
            index,
            entry,
            unit,
        } => json!({
            "kind": "SimpleCQ",
            "topic": topic,
            "queueId": queue_id,
            "queueOffset": index,
            "path": json::path(path),
            "position": position,
            "logOffset": entry.physical_offset,
            "size": entry.size,
            "tagsCode": entry.tags_code,
            "filler": entry.is_filler(),
            "extensionOffset": entry.extension_offset(),
            "extension": unit.as_ref().map(|unit| json!({
                "path": json::path(&unit.place.0),
                "position": unit.place.1,
                "tagsCode": unit.tags_code,
                "storeTimestamp": unit.store_ms,
                "bitmapLen": unit.bitmap_len,
            })),
        }),
        QueueEntryView::Batch {
            place: (path, position),
            ordinal,
            entry,
        } => json!({
            "kind": "BatchCQ",
            "topic": topic,
            "queueId": queue_id,
            "queueOffset": entry.base,
            "batchSize": entry.count,
            "ordinal": ordinal,
            "path": json::path(path),
            "position": position,
            "logOffset": entry.physical_offset,
            "size": entry.size,
            "tagsCode": entry.tags_code,
            "storeTimestamp": entry.store_timestamp_ms,
        }),
    }
}

fn entry_text(topic: &str, queue_id: i32, view: &QueueEntryView) -> String {
    match view {
        QueueEntryView::Simple {
            place: (path, position),
            index,
            entry,
            unit,
        } => {
            let mut text = format!(
                "{topic}/{queue_id} [{index}] {}@{position}: ",
                path.display()
            );
            text += &match (entry.is_filler(), entry.size > 0) {
                (true, _) => "a filler, no message".to_owned(),
                (_, false) => "not in use".to_owned(),
                _ => format!(
                    "log offset {}, {} bytes, tags code {}",
                    entry.physical_offset, entry.size, entry.tags_code
                ),
            };
            match (unit, entry.extension_offset()) {
                (Some(unit), Some(at)) => {
                    text += &format!(
                        "; unit at {at}: tags code {}, stored {}, bitmap of {} bytes",
                        unit.tags_code,
                        time_text(unit.store_ms),
                        unit.bitmap_len
                    );
                }
                (None, Some(at)) => text += &format!("; no unit at {at}"),
                _ => {}
            }
            text
        }
        QueueEntryView::Batch {
            place: (path, position),
            ordinal,
            entry,
        } => format!(
            "{topic}/{queue_id} [{}] {}@{position}: batch entry {ordinal} of {} messages, log \
             offset {}, {} bytes, tags code {}, stored {}",
            entry.base,
            path.display(),
            entry.count,
            entry.physical_offset,
            entry.size,
            entry.tags_code,
            time_text(entry.store_timestamp_ms)
        ),
    }
}

/// What of an index file is shown.
enum Wanted<'a> {
    Header,
    Slot(u32),
    Entry(u32),
    Key(&'a str, &'a str),
}

fn index(file: Option<&Path>, wanted: &Wanted<'_>, flags: &StoreFlags) -> Result<()> {
    let options = options(flags)?;
    let shape = Shape::detect(&OsIo, &options)?;
    let layout = IndexLayout {
        slot_count: shape.index_slot_count,
        entry_count_max: shape.index_entry_count_max,
    };
    let mut files = offline::index_files(&OsIo, &options)?;
    if let Some(file) = file {
        files.retain(|view| view.path == *file || view.path.file_name() == file.file_name());
        if files.is_empty() {
            bail!("{}: no index file of this store", file.display());
        }
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for view in &files {
        let found: Vec<IndexChainEntry> = match wanted {
            Wanted::Header => Vec::new(),
            Wanted::Entry(ordinal) => {
                vec![offline::index_entry(&OsIo, &view.path, layout, *ordinal)?]
            }
            Wanted::Slot(slot) => slot_chain(&view.path, layout, *slot)?,
            Wanted::Key(topic, key) => offline::index_chain(&OsIo, &view.path, layout, topic, key)?,
        };
        match flags.output {
            Output::Json => write_line(&mut out, &index_json(view, wanted, &found))?,
            Output::Text => write!(out, "{}", index_text(view, wanted, &found))?,
        }
    }
    out.flush()?;
    Ok(())
}

/// All entries of a slot, newest first.
fn slot_chain(path: &Path, layout: IndexLayout, slot: u32) -> Result<Vec<IndexChainEntry>> {
    let newest = offline::index_slot(&OsIo, path, layout, slot)?;
    let mut chain = Vec::new();
    let mut ordinal = u32::try_from(newest).unwrap_or(0);
    while (1..layout.entry_count_max).contains(&ordinal) {
        let found = offline::index_entry(&OsIo, path, layout, ordinal)?;
        let previous = u32::try_from(found.entry.previous).unwrap_or(0);
        chain.push(found);
        // An entry continues an older one; anything else is damage, and would be a loop.
        if previous >= ordinal {
            break;
        }
        ordinal = previous;
    }
    Ok(chain)
}

fn index_json(view: &IndexFileView, wanted: &Wanted<'_>, found: &[IndexChainEntry]) -> Value {
    let header = &view.header;
    let mut value = json!({
        "path": json::path(&view.path),
        "len": view.len,
        "beginTimestamp": header.begin_timestamp_ms,
        "endTimestamp": header.end_timestamp_ms,
        "beginLogOffset": header.begin_physical_offset,
        "endLogOffset": header.end_physical_offset,
        "usedSlots": header.used_slot_count,
        "nextEntry": header.next_entry,
    });
    if let (false, Value::Object(fields)) = (matches!(wanted, Wanted::Header), &mut value) {
        let entries: Vec<Value> = found
            .iter()
            .map(|found| {
                json!({
                    "ordinal": found.ordinal,
                    "position": found.position,
                    "keyHash": found.entry.key_hash,
                    "logOffset": found.entry.physical_offset,
                    "secondsSinceBegin": found.entry.seconds_since_begin,
                    "previous": found.entry.previous,
                })
            })
            .collect();
        fields.insert("entries".to_owned(), json!(entries));
    }
    value
}

fn index_text(view: &IndexFileView, wanted: &Wanted<'_>, found: &[IndexChainEntry]) -> String {
    let header = &view.header;
    if matches!(wanted, Wanted::Header) {
        return format!(
            "{}: entries 1 to {} in {} slots, log offsets {} to {}, stored {} to {}\n",
            view.path.display(),
            header.next_entry - 1,
            header.used_slot_count,
            header.begin_physical_offset,
            header.end_physical_offset,
            time_text(header.begin_timestamp_ms),
            time_text(header.end_timestamp_ms),
        );
    }
    found
        .iter()
        .map(|found| {
            format!(
                "{}@{}: entry {}, hash {}, log offset {}, {} s after the first, goes on at {}\n",
                found.path.display(),
                found.position,
                found.ordinal,
                found.entry.key_hash,
                found.entry.physical_offset,
                found.entry.seconds_since_begin,
                found.entry.previous,
            )
        })
        .collect()
}

fn checkpoint(flags: &StoreFlags) -> Result<()> {
    let (path, fields) = offline::checkpoint(&OsIo, &options(flags)?)?;
    let value = json!({
        "path": json::path(&path),
        "physicMsgTimestamp": fields.physic_ms,
        "logicsMsgTimestamp": fields.logics_ms,
        "indexMsgTimestamp": fields.index_ms,
        "masterFlushedOffset": fields.master_flushed_offset,
        "confirmPhyOffset": fields.confirm_offset,
    });
    print(flags, &value, || {
        format!(
            "{}\n  log up to          {}\n  queues up to       {}\n  index files up to  {}\n  \
             masterFlushedOffset {}, confirmPhyOffset {}\n",
            path.display(),
            time_text(fields.physic_ms),
            time_text(fields.logics_ms),
            time_text(fields.index_ms),
            fields.master_flushed_offset,
            fields.confirm_offset
        )
    })
}

/// A table, with its integer names in quotes, so that any JSON parser reads it.
fn config(name: &str, flags: &StoreFlags) -> Result<()> {
    let path = StoreDirs::new(&options(flags)?).config.join(name);
    let bytes = OsIo.read(&path, TABLE_LEN_MAX)?;
    let limits = remoting::json::Limits {
        memory_len: TABLE_MEMORY_LEN_MAX,
        ..remoting::json::Limits::default()
    };
    let value = remoting::json::read(&bytes, limits)
        .with_context(|| format!("{}: no table", path.display()))?;
    print(flags, &value, || {
        // A tree of JSON can always be written.
        let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
        text.push('\n');
        text
    })
}

/// What there is, without reading messages.
fn whole(flags: &StoreFlags) -> Result<()> {
    let options = options(flags)?;
    let dirs = StoreDirs::new(&options);
    let shape = Shape::detect(&OsIo, &options)?;
    let lock = OsIo.lock_state(&dirs.root.join(LOCK_FILE))?;
    let closed = OsIo.metadata(&dirs.root.join(ABORT_FILE))?.is_none();
    let queues = offline::queues(&OsIo, &options)?;
    let value = json!({
        "root": json::path(&dirs.root),
        "shape": json::shape(&shape),
        "inUse": lock != LockState::Free,
        "closed": closed,
        "queues": queues.iter().map(|queue| json!({
            "topic": queue.topic,
            "queueId": queue.queue_id,
            "kind": queue.kind.name(),
        })).collect::<Vec<_>>(),
        "logFiles": names(&dirs.log)?,
        "indexFiles": names(&dirs.index)?,
        "tables": names(&dirs.config)?,
        "own": own_files(&options)?,
        "state": state(&options)?,
    });
    print(flags, &value, || {
        let list = |name: &str| {
            let names = value[name].as_array().map_or(&[][..], Vec::as_slice);
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            names.join(" ")
        };
        let mut text = format!(
            "{}: {}, {}\n",
            dirs.root.display(),
            if closed { "closed" } else { "not closed" },
            match lock {
                LockState::Free => "not in use".to_owned(),
                LockState::Held { holder_pid: None } => "in use".to_owned(),
                LockState::Held {
                    holder_pid: Some(pid),
                } => format!("in use by process {pid}"),
            }
        );
        text += &format!("  sizes        {}\n", value["shape"]);
        text += &format!("  log          {}\n", list("logFiles"));
        text += &format!("  index        {}\n", list("indexFiles"));
        text += &format!("  tables       {}\n", list("tables"));
        text += &format!("  our own      {}\n", list("own"));
        text += &format!("  state        {}\n", value["state"]);
        for queue in &queues {
            let (topic, id, kind) = (&queue.topic, queue.queue_id, queue.kind.name());
            text += &format!("  queue        {topic}/{id} {kind}\n");
        }
        text
    })
}

/// What the store remembers of itself.
fn state(options: &StoreOptions) -> Result<Value> {
    let Some(state) = offline::own_state(&OsIo, options)? else {
        return Ok(Value::Null);
    };
    Ok(json!({
        "runId": state.run_id,
        "mappedFileSizeCommitLog": state.segment_len,
        "flushedOffset": state.flushed,
        "derivedOffset": state.derived,
        "anchorOffset": state.anchor.map(|(offset, _, _)| offset),
        "anchorStoreTimestamp": state.anchor.map(|(_, _, store_ms)| store_ms),
        "valid": state.is_anchored,
    }))
}

fn names(dir: &Path) -> Result<Vec<String>> {
    match OsIo.list(dir) {
        Ok(entries) => Ok(entries
            .into_iter()
            .map(|entry| entry.name.to_string_lossy().into_owned())
            .collect()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn own_files(options: &StoreOptions) -> Result<Vec<String>> {
    let own = StoreDirs::new(options).own;
    let mut files = names(&own)?;
    let quarantine: PathBuf = own.join("quarantine");
    let kept = names(&quarantine)?;
    files.extend(kept.into_iter().map(|name| format!("quarantine/{name}")));
    Ok(files)
}

fn print(flags: &StoreFlags, value: &Value, text: impl FnOnce() -> String) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match flags.output {
        Output::Json => write_line(&mut out, value)?,
        Output::Text => out.write_all(text().as_bytes())?,
    }
    Ok(())
}

fn number(text: &str) -> Result<u64> {
    text.parse()
        .with_context(|| format!("{text:?}: a number of bytes is needed"))
}

//! The store of a Java broker that was killed under load, with the damages of its recipes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;

use super::script::Place;
use super::verdict::Expected;
use crate::workspace;

/// The variants, each with what is damaged.
pub(super) const VARIANTS: [(&str, &str); 11] = [
    ("asis", "nothing"),
    ("checkpoint_deleted", "no checkpoint"),
    (
        "cq_and_checkpoint_deleted",
        "no queues, index and checkpoint",
    ),
    ("index_deleted", "no index"),
    ("garbage_after", "random bytes behind the last record"),
    ("lastfile_empty", "the file prepared for the log is empty"),
    ("bitflip_last", "a bit in the last record"),
    (
        "tail_zero_body",
        "the last record is zeros from its body on",
    ),
    (
        BITFLIP_MID,
        "a bit in a record of the last file, which nothing says was synced",
    ),
    (
        BITFLIP_SYNCED,
        "the same bit, and a checkpoint that says it was synced",
    ),
    ("lastfile_truncated", "the last file is cut short"),
];

const BITFLIP_MID: &str = "bitflip_mid_lastfile";
const BITFLIP_SYNCED: &str = "bitflip_mid_synced";

/// More messages than this under one key are not counted: a query answers no more.
const MATCHES_MAX: usize = 32;

/// Unpacks the store and damages it.
pub(super) fn prepare(place: &Place, variant: &str) -> Result<()> {
    let archive = data_dir().join("killed.tar.gz");
    let unpacked = tempfile::tempdir_in(&place.dir)?;
    tar::Archive::new(GzDecoder::new(File::open(&archive)?)).unpack(unpacked.path())?;
    fs::rename(unpacked.path().join("killed/store"), place.store())?;
    let recipe = match variant {
        BITFLIP_SYNCED => BITFLIP_MID,
        other => other,
    };
    let recipe = fs::read(data_dir().join("torn").join(recipe).join("recipe.json"))?;
    let recipe: Value = serde_json::from_slice(&recipe)?;
    for operation in recipe["ops"].as_array().context("a recipe's operations")? {
        damage(&place.store(), operation).with_context(|| format!("{operation}"))?;
    }
    if variant == BITFLIP_SYNCED {
        vouch(&place.store())?;
    }
    Ok(())
}

/// One operation of a recipe: `write` at a position, `truncate` to a size, `delete`.
fn damage(store: &Path, operation: &Value) -> Result<()> {
    let path = store.join(operation["file"].as_str().context("file")?);
    let writable = || File::options().write(true).open(&path);
    match operation["op"].as_str() {
        Some("write") => {
            let bytes = unhex(operation["hex"].as_str().context("hex")?)?;
            writable()?.write_all_at(&bytes, operation["at"].as_u64().context("at")?)?;
        }
        Some("truncate") => writable()?.set_len(operation["size"].as_u64().context("size")?)?,
        Some("delete") if path.is_dir() => fs::remove_dir_all(&path)?,
        Some("delete") => fs::remove_file(&path)?,
        other => bail!("unknown operation {other:?}"),
    }
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

/// A checkpoint that is newer than every record: all of the log was synced.
fn vouch(store: &Path) -> Result<()> {
    const LATER_MS: i64 = 1_795_400_160_000;
    let file = File::options().write(true).open(store.join("checkpoint"))?;
    file.write_all_at(&[LATER_MS.to_be_bytes(); 3].concat(), 0)?;
    Ok(())
}

/// Whether the damage itself takes the record that begins at `offset`.
pub(super) fn is_gone(variant: &str, offset: i64) -> bool {
    match variant {
        "bitflip_last" | "tail_zero_body" => offset == 11_109_164,
        BITFLIP_MID | BITFLIP_SYNCED => offset == 10_801_602,
        // The record that the cut goes through begins here.
        "lastfile_truncated" => offset >= 10_783_363,
        _ => false,
    }
}

/// Every message of the undamaged store.
pub(super) fn expected() -> Result<Vec<Expected>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Record {
        offset: i64,
        topic: String,
        queue_id: i32,
        queue_offset: i64,
        #[serde(rename = "bodyCRC")]
        body_crc: u32,
        properties: String,
    }
    let archive = data_dir().join("killed.tar.gz");
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(archive)?));
    let mut entries = archive.entries()?.filter_map(Result::ok);
    let records = entries
        .find(|entry| {
            entry
                .path()
                .is_ok_and(|path| path.ends_with("records.jsonl"))
        })
        .context("records.jsonl")?;
    let records: Vec<Record> = serde_json::Deserializer::from_reader(records)
        .into_iter()
        .collect::<Result<_, _>>()?;
    let mut messages: Vec<Expected> = records
        .into_iter()
        .map(|record| Expected {
            keys: keys(&record.properties),
            topic: record.topic,
            queue_id: record.queue_id,
            queue_offset: record.queue_offset,
            offset: record.offset,
            body_crc: record.body_crc,
        })
        .collect();
    let mut matches: HashMap<(String, String), usize> = HashMap::new();
    for message in &messages {
        for key in &message.keys {
            *matches
                .entry((message.topic.clone(), key.clone()))
                .or_default() += 1;
        }
    }
    for Expected { topic, keys, .. } in &mut messages {
        keys.retain(|key| matches[&(topic.clone(), key.clone())] <= MATCHES_MAX);
    }
    Ok(messages)
}

/// What RocketMQ indexes of a record: the unique key, and KEYS word by word.
fn keys(properties: &str) -> Vec<String> {
    let value = |name: &str| {
        let mut pairs = properties.split('\u{2}');
        let found = pairs.rfind(|pair| pair.split('\u{1}').next() == Some(name))?;
        found.split_once('\u{1}').map(|(_, value)| value)
    };
    let unique = value("UNIQ_KEY").into_iter();
    let listed = value("KEYS").unwrap_or_default().split(' ');
    let mut keys: Vec<_> = unique
        .chain(listed)
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn data_dir() -> PathBuf {
    workspace::root().join("crates/store/tests/golden")
}

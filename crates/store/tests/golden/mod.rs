//! Unpacks the stores that a Java broker wrote (PROVENANCE.md) into temporary directories.
//!
//! A test file takes this in with `mod golden;`. Every call unpacks a copy of its own, so a test
//! may change what it likes; the copy is removed when the [`GoldenSet`] is dropped.

#![allow(dead_code, reason = "each test file uses the part it needs")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "unpacks and damages test data on the real disk, beside the store under test"
)]
#![expect(clippy::expect_used, reason = "broken test data fails the test")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

/// One unpacked copy of a set.
#[derive(Debug)]
pub(crate) struct GoldenSet {
    dir: TempDir,
    name: String,
}

/// The sets, by their archive's name.
pub(crate) const SETS: [&str; 3] = ["clean", "killed", "special"];

/// The damages under `torn/`, each applied to a copy of `killed`.
pub(crate) const TORN_VARIANTS: [&str; 10] = [
    "asis",
    "bitflip_last",
    "bitflip_mid_lastfile",
    "checkpoint_deleted",
    "cq_and_checkpoint_deleted",
    "garbage_after",
    "index_deleted",
    "lastfile_empty",
    "lastfile_truncated",
    "tail_zero_body",
];

impl GoldenSet {
    /// A fresh copy of one of [`SETS`].
    pub(crate) fn unpack(name: &str) -> Self {
        let archive = data_dir().join(format!("{name}.tar.gz"));
        let dir = tempfile::Builder::new()
            .prefix("golden-")
            .tempdir()
            .expect("temporary dir");
        tar::Archive::new(GzDecoder::new(open(&archive)))
            .unpack(dir.path())
            .unwrap_or_else(|error| panic!("unpack {}: {error}", archive.display()));
        Self {
            dir,
            name: name.to_owned(),
        }
    }

    /// A fresh copy of `killed` with the damage of one of [`TORN_VARIANTS`].
    pub(crate) fn torn(variant: &str) -> Self {
        let recipe = torn_json(variant, "recipe.json");
        let set = Self::unpack(recipe["base"].as_str().expect("recipe: base"));
        for operation in recipe["ops"].as_array().expect("recipe: ops") {
            set.damage(operation);
        }
        set
    }

    /// The store directory.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.file("store")
    }

    /// The Java configuration the set was written with.
    pub(crate) fn broker_conf(&self) -> PathBuf {
        self.file("broker.conf")
    }

    /// Removes a file or directory of the store.
    pub(crate) fn remove(&self, name: &str) {
        let path = self.store_dir().join(name);
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.unwrap_or_else(|error| panic!("remove {}: {error}", path.display()));
    }

    /// Writes a file of the store.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.store_dir().join(name), bytes).expect("write a file");
    }

    /// The value of a key of `broker.conf`.
    pub(crate) fn setting(&self, key: &str) -> Option<String> {
        let conf = fs::read_to_string(self.broker_conf()).expect("broker.conf");
        conf.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.to_owned())
    }

    /// What Java answers: offsets of the log and the queues, searches, queries.
    pub(crate) fn manifest(&self) -> Value {
        json(open(&self.file("manifest.json")))
    }

    /// One value a message, as its producer knew it.
    pub(crate) fn sent(&self) -> Vec<Value> {
        json_lines(open(&self.file("manifest.jsonl")))
    }

    /// One value a message, as the Java broker serves it.
    pub(crate) fn served(&self) -> Vec<Value> {
        json_lines(open(&self.file("served.jsonl")))
    }

    /// One value a raw record of the commit log.
    pub(crate) fn records(&self) -> Vec<Value> {
        json_lines(open(&self.file("records.jsonl")))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(&self.name).join(name)
    }

    /// One operation of a recipe: `write` at a position, `truncate` to a size, `delete`.
    fn damage(&self, operation: &Value) {
        let path = self
            .store_dir()
            .join(operation["file"].as_str().expect("recipe: file"));
        let done = match operation["op"].as_str() {
            Some("write") => {
                let position = operation["at"].as_u64().expect("recipe: at");
                let bytes = unhex(operation["hex"].as_str().expect("recipe: hex"));
                writable(&path).write_all_at(&bytes, position)
            }
            Some("truncate") => {
                writable(&path).set_len(operation["size"].as_u64().expect("recipe: size"))
            }
            Some("delete") if path.is_dir() => fs::remove_dir_all(&path),
            Some("delete") => fs::remove_file(&path),
            other => panic!("recipe: unknown operation {other:?}"),
        };
        done.unwrap_or_else(|error| panic!("{operation} on {}: {error}", path.display()));
    }
}

/// What a restarted Java broker made of the damage; with `expected_after_recovery`.
pub(crate) fn torn_manifest(variant: &str) -> Value {
    torn_json(variant, "manifest.json")
}

/// What Java answered after recovery; none where it refused to start.
pub(crate) fn torn_after_manifest(variant: &str) -> Option<Value> {
    torn_gzip(variant, "after_manifest.json.gz").map(json)
}

/// One value a message, as Java served it after recovery; none where it refused to start.
pub(crate) fn torn_after_served(variant: &str) -> Option<Vec<Value>> {
    torn_gzip(variant, "after_served.jsonl.gz").map(json_lines)
}

fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/golden")
}

fn torn_json(variant: &str, name: &str) -> Value {
    json(open(&data_dir().join("torn").join(variant).join(name)))
}

fn torn_gzip(variant: &str, name: &str) -> Option<GzDecoder<File>> {
    let path = data_dir().join("torn").join(variant).join(name);
    path.exists().then(|| GzDecoder::new(open(&path)))
}

fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

fn writable(path: &Path) -> File {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

fn json(reader: impl Read) -> Value {
    serde_json::from_reader(BufReader::new(reader)).expect("golden JSON")
}

fn json_lines(reader: impl Read) -> Vec<Value> {
    BufReader::new(reader)
        .lines()
        .map(|line| serde_json::from_str(&line.expect("golden line")).expect("golden JSON line"))
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("recipe: hex digits"))
        .collect()
}

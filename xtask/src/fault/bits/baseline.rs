//! The stores that are damaged, and what they hold.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use flate2::read::GzDecoder;
use message::{Message, RecordView, Transaction};
use mmap_core::OsIo;
use store::offline::Shape;
use store::{FlushMode, MessageStore, StoreOptions};

use crate::workspace;

/// Bytes that are written together, and left out if they are all zero: files stay sparse.
const BLOCK_LEN: usize = 4096;
/// Messages in a store of our own.
const OWN_MESSAGE_COUNT: usize = 400;

/// A store before anything happens to it.
pub(super) struct Baseline {
    /// Its name in messages.
    pub(super) name: &'static str,
    /// Whether what it holds is known to have been synced: then damage is told from a lost tail.
    pub(super) is_vouched: bool,
    /// Its files, by their path in the store.
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
    /// What its log holds, in order, once it has been opened without damage.
    pub(super) records: Vec<Record>,
    shape: Shape,
    is_java: bool,
}

/// A record of the log.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) topic: String,
    pub(super) queue_id: i32,
    pub(super) queue_offset: i64,
    pub(super) store_ms: i64,
    /// Whether its queue serves it.
    pub(super) has_place: bool,
    pub(super) keys: Vec<String>,
    pub(super) body_range: std::ops::Range<usize>,
}

impl Record {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// All of them, made once.
pub(super) fn baselines() -> Result<&'static [Baseline]> {
    static MADE: OnceLock<Result<Vec<Baseline>, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    match made {
        Ok(made) => Ok(made),
        Err(error) => Err(anyhow!("{error}")),
    }
}

fn make() -> Result<Vec<Baseline>> {
    let mut made = Vec::new();
    for (name, is_vouched) in [("clean", true), ("special", true), ("killed", false)] {
        let dir = tempfile::Builder::new().prefix("bits-").tempdir()?;
        let archive = workspace::root().join(format!("crates/store/tests/golden/{name}.tar.gz"));
        let archive = fs::File::open(&archive).with_context(|| archive.display().to_string())?;
        tar::Archive::new(GzDecoder::new(archive)).unpack(dir.path())?;
        let root = dir.path().join(name).join("store");
        made.push(Baseline::of(name, is_vouched, true, &root)?);
    }
    for (name, is_closed) in [("closed", true), ("left open", false)] {
        let dir = tempfile::Builder::new().prefix("bits-").tempdir()?;
        write_own(dir.path(), is_closed)?;
        made.push(Baseline::of(name, true, false, dir.path())?);
    }
    Ok(made)
}

impl Baseline {
    fn of(name: &'static str, is_vouched: bool, is_java: bool, root: &Path) -> Result<Self> {
        let shape = Shape::detect(&OsIo, &StoreOptions::new(root))?;
        let mut baseline = Self {
            name,
            is_vouched,
            files: read_files(root)?,
            records: Vec::new(),
            shape,
            is_java,
        };
        let (store, _) = MessageStore::open(baseline.options(root))?;
        let mut records = Vec::new();
        let mut visit = |view: &RecordView<'_>| -> Result<(), store::CallerError> {
            records.push(record_of(view));
            Ok(())
        };
        store.log().walk(store.log().min_offset(), &mut visit)?;
        store.close()?;
        baseline.records = records;
        Ok(baseline)
    }

    /// How it is opened.
    pub(super) fn options(&self, root: &Path) -> StoreOptions {
        let mut options = self.shape.apply_to(&StoreOptions::new(root));
        options.dispatches_light_queues = self.name == "special";
        options.writes_extensions = self.is_java && self.name == "killed";
        options
    }

    /// Bytes of a segment of the log.
    pub(super) fn segment_len(&self) -> u64 {
        self.shape.segment_len
    }

    /// Writes its files below `root`.
    pub(super) fn lay_out(&self, root: &Path) -> Result<()> {
        for (path, bytes) in &self.files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().context("a path")?)?;
            let file = fs::File::create(&path)?;
            file.set_len(bytes.len() as u64)?;
            for (index, block) in bytes.chunks(BLOCK_LEN).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, (index * BLOCK_LEN) as u64)?;
                }
            }
        }
        Ok(())
    }
}

fn record_of(view: &RecordView<'_>) -> Record {
    let fields = view.dispatch_fields();
    let transaction = view.sys_flag().transaction();
    let keys = fields.index_keys().map(str::to_owned).collect();
    let start = view.body().as_ptr() as usize - view.bytes().as_ptr() as usize;
    Record {
        offset: view.physical_offset().cast_unsigned(),
        bytes: view.bytes().to_vec(),
        topic: view.topic().to_owned(),
        queue_id: view.queue_id(),
        queue_offset: view.queue_offset(),
        store_ms: view.store_timestamp_ms(),
        has_place: transaction.takes_queue_offset() && !view.sys_flag().is_inner_batch(),
        keys: if transaction == Transaction::Rollback {
            Vec::new()
        } else {
            keys
        },
        body_range: start..start + view.body().len(),
    }
}

fn read_files(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root)?.to_owned();
                files.insert(name, fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

/// A small store of our own in which everything rolls.
fn write_own(root: &Path, is_closed: bool) -> Result<()> {
    let mut options = StoreOptions::new(root);
    options.segment_len = 64 * 1024;
    options.queue_file_len = 20 * 50;
    options.flush = FlushMode::async_default();
    if let Some(index) = &mut options.index {
        index.slot_count = 100;
        index.entry_count_max = 300;
    }
    let (store, _) = MessageStore::open(options)?;
    for number in 0..OWN_MESSAGE_COUNT {
        let properties =
            format!("UNIQ_KEY\u{1}ID{number:030}\u{2}KEYS\u{1}key{number}\u{2}TAGS\u{1}T\u{2}");
        store.put(&Message {
            properties: properties.as_bytes(),
            ..Message::new(
                ["Orders", "Payments", "Refunds"][number % 3],
                (number / 3 % 2) as i32,
                &vec![number as u8; 100 + number % 13 * 100],
            )
        })?;
    }
    store.log().flush_now()?;
    while store.dispatch_behind_bytes() > 0 {
        std::thread::yield_now();
    }
    store.step_flush_derived()?;
    if is_closed {
        store.close()?;
    }
    Ok(())
}

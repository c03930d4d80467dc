//! Writing consume queues, their extensions and batch queues, all anew.
//!
//! Nobody reads them meanwhile, so that entries are gathered and written in pieces, and every
//! file is synced once at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use consumequeue::{ENTRY_LEN, Entry};
use message::layout::RECORD_LEN_MIN;
use message::names::topic;
use mmap_core::{Access, Io, IoError, IoFile};
use segment_queue::segment_name;

use super::super::facts::RecordFacts;
use super::super::files::{StoreDirs, list_or_nothing};
use super::super::inspect::UNIT_LEN_MIN;
use super::super::queue_files::queue_dirs;
use super::super::shape::Shape;
use super::{OfflineError, RebuildReport, RebuildSelection};
use crate::options::StoreOptions;
use crate::progress::{Progress, Step};
use crate::queue_marks::MarksFile;
use crate::redispatch::QueueKey;
use consumequeue::BatchEntry;

/// Bytes that are gathered for one directory.
const GATHERED_LEN_MAX: usize = 32 << 10;
/// Bytes that are gathered for all of them.
const GATHERED_TOTAL_MAX: usize = 64 << 20;
/// What every extension unit leaves free at the end of its file (RocketMQ 5.3.3
/// `ConsumeQueueExt.END_BLANK_DATA_LENGTH`).
const UNIT_END_LEN: u64 = 4;
/// Stands in place of a unit's length where an extension file ends.
const UNIT_END_MARK: i16 = -1;

/// All queues under construction.
pub(super) struct QueueBuilder<I: Io> {
    io: I,
    aside: PathBuf,
    shape: Shape,
    batch_topics: BTreeSet<String>,
    has_light_queues: bool,
    has_extensions: bool,
    /// Where the log ended when a queue was deleted.
    deleted: BTreeMap<QueueKey, u64>,
    by_topic: HashMap<String, HashMap<i32, Queue>>,
    gathered: usize,
    entry_count: u64,
    lost_count: u64,
    misplaced_count: u64,
}

/// One queue under construction.
struct Queue {
    entries: Writer,
    /// Of batch queues there is none.
    extension: Option<Writer>,
    is_batch: bool,
    /// Queue offset of the next entry; `None` before the first.
    next: Option<i64>,
    /// Log offset behind the last record.
    log_end: u64,
    /// A message that says to be the first, where there are others: whether it has a unit.
    first: Option<(RecordFacts, bool)>,
}

impl<I: Io> QueueBuilder<I> {
    pub(super) fn new(
        io: &I,
        options: &StoreOptions,
        dirs: &StoreDirs,
        shape: &Shape,
        selection: &RebuildSelection,
        aside: &Path,
    ) -> Result<Self, OfflineError> {
        let mut batch_topics = selection.batch_topics.clone();
        let on_disk = queue_dirs(io, &dirs.batch_queues)?;
        batch_topics.extend(on_disk.into_iter().map(|queue| queue.topic));
        // Where the configuration does not say so, the files tell what was switched on.
        let has_light = list_or_nothing(io, &dirs.queues)?
            .iter()
            .filter_map(|entry| entry.name.to_str())
            .any(|name| name.starts_with(topic::LMQ_PREFIX));
        let has_extensions = !list_or_nothing(io, &dirs.extensions)?.is_empty();
        Ok(Self {
            io: io.clone(),
            aside: aside.to_owned(),
            shape: shape.clone(),
            batch_topics,
            has_light_queues: has_light || options.dispatches_light_queues,
            has_extensions: has_extensions || options.writes_extensions,
            deleted: MarksFile::of_queues(io, &dirs.own).read().deleted,
            by_topic: HashMap::new(),
            gathered: 0,
            entry_count: 0,
            lost_count: 0,
            misplaced_count: 0,
        })
    }

    /// Whether light queues are built.
    pub(super) fn has_light_queues(&self) -> bool {
        self.has_light_queues
    }

    /// Puts a record's entry into its own queue.
    pub(super) fn put(
        &mut self,
        topic: &str,
        queue_id: i32,
        facts: RecordFacts,
        in_batch: RecordFacts,
        is_batch: bool,
    ) -> Result<(), OfflineError> {
        if self.is_deleted(topic, queue_id, facts.offset) {
            return Ok(());
        }
        if is_batch && !self.batch_topics.contains(topic) {
            if self.by_topic.contains_key(topic) {
                // A topic has queues of one kind.
                self.misplaced_count += 1;
                return Ok(());
            }
            self.batch_topics.insert(topic.to_owned());
        }
        if self.batch_topics.contains(topic) {
            return self.put_batch(topic, queue_id, &in_batch);
        }
        self.put_simple(topic, queue_id, &facts, self.has_extensions)
    }

    /// Puts a record's entry into a light queue: without a unit, as RocketMQ does.
    pub(super) fn put_light(
        &mut self,
        name: &str,
        queue_id: i32,
        facts: RecordFacts,
    ) -> Result<(), OfflineError> {
        if self.is_deleted(name, queue_id, facts.offset) {
            return Ok(());
        }
        self.put_simple(name, queue_id, &facts, false)
    }

    /// Whether the queue was deleted after the record was appended.
    fn is_deleted(&self, topic: &str, queue_id: i32, offset: u64) -> bool {
        if self.deleted.is_empty() {
            return false;
        }
        let log_end = self.deleted.get(&(topic.to_owned(), queue_id));
        log_end.is_some_and(|log_end| offset < *log_end)
    }

    /// Writes what is left and makes everything durable.
    pub(super) fn finish(
        mut self,
        report: &mut RebuildReport,
        progress: &dyn Progress,
    ) -> Result<(), OfflineError> {
        let total = self.by_topic.values().map(HashMap::len).sum::<usize>() as u64;
        let mut dirs = BTreeSet::new();
        let queues = self.by_topic.values_mut().flat_map(HashMap::values_mut);
        for (done, queue) in (1..).zip(queues) {
            for writer in std::iter::once(&mut queue.entries).chain(&mut queue.extension) {
                writer.write_out(&self.io)?;
                writer.sync(&self.io, &mut dirs)?;
            }
            let phase = "consume queues";
            progress.at(Step { phase, done, total });
        }
        // The names, from the bottom up.
        let above: BTreeSet<PathBuf> = dirs
            .iter()
            .flat_map(|dir| {
                dir.ancestors()
                    .take_while(|above| above.starts_with(&self.aside))
            })
            .map(Path::to_owned)
            .collect();
        for dir in above.iter().rev() {
            if self.io.metadata(dir)?.is_some() {
                self.io.sync_dir(dir)?;
            }
        }
        report.queue_count = total;
        report.entry_count = self.entry_count;
        report.lost_count = self.lost_count;
        report.misplaced_count = self.misplaced_count;
        Ok(())
    }

    fn put_simple(
        &mut self,
        topic: &str,
        queue_id: i32,
        facts: &RecordFacts,
        has_unit: bool,
    ) -> Result<(), OfflineError> {
        if self.leaves_first(topic, queue_id, facts, has_unit) {
            return Ok(());
        }
        if let Some((first, has_unit)) = self.take_first(topic, queue_id, facts) {
            self.begin_anew(topic, queue_id)?;
            self.put_simple(topic, queue_id, &first, has_unit)?;
        }
        let file_len = self.shape.queue_file_len;
        let per_file = (file_len / ENTRY_LEN as u64).cast_signed().max(1);
        let queue = self.queue(topic, queue_id, false);
        let mut lost_count = 0;
        match queue.next {
            Some(next) if facts.index > next => {
                let missing = facts.index - next;
                if !could_be_missing(queue, facts, missing) {
                    self.misplaced_count += 1;
                    return Ok(());
                }
                lost_count = missing;
            }
            Some(next) if facts.index < next => {
                self.misplaced_count += 1;
                return Ok(());
            }
            Some(_) => {}
            None => {
                // RocketMQ fills the file from its start.
                let fillers = facts.index.max(0) % per_file;
                let start = facts.index.max(0) - fillers;
                queue
                    .entries
                    .start_at(start.unsigned_abs() * ENTRY_LEN as u64);
                for _ in 0..fillers {
                    queue.entries.push(&Entry::FILLER.encode());
                }
            }
        }
        let extension_len = self.shape.extension_file_len;
        let io = self.io.clone();
        let queue = self.queue(topic, queue_id, false);
        let tags_code = match &mut queue.extension {
            Some(extension) if has_unit => extension.push_unit(&io, facts, extension_len)?,
            _ => facts.tags_code,
        };
        let entry = Entry {
            physical_offset: facts.offset.cast_signed(),
            size: i32::try_from(facts.size).unwrap_or(i32::MAX),
            tags_code,
        };
        // The places of lost messages have the entry of the next one.
        for _ in 0..=lost_count {
            queue.entries.push(&entry.encode());
            if queue.entries.gathered.len() >= GATHERED_LEN_MAX {
                queue.entries.write_out(&io)?;
            }
        }
        queue.next = Some(facts.index.max(0) + 1);
        queue.log_end = facts.offset + facts.size;
        self.lost_count += lost_count.unsigned_abs();
        self.entry_count += 1;
        self.account((lost_count.unsigned_abs() as usize + 2) * ENTRY_LEN)
    }

    fn put_batch(
        &mut self,
        topic: &str,
        queue_id: i32,
        facts: &RecordFacts,
    ) -> Result<(), OfflineError> {
        // So that there is a queue, and of this kind.
        self.queue(topic, queue_id, true);
        if self.leaves_first(topic, queue_id, facts, false) {
            return Ok(());
        }
        if let Some((first, _)) = self.take_first(topic, queue_id, facts) {
            self.begin_anew(topic, queue_id)?;
            self.put_batch(topic, queue_id, &first)?;
        }
        let queue = self.queue(topic, queue_id, true);
        let entry = BatchEntry {
            physical_offset: facts.offset.cast_signed(),
            size: i32::try_from(facts.size).unwrap_or(i32::MAX),
            tags_code: facts.tags_code,
            store_timestamp_ms: facts.store_ms,
            base: facts.index,
            count: i16::try_from(facts.count).unwrap_or(i16::MAX),
        };
        let bytes = entry.encode();
        queue.entries.push(&bytes);
        queue.next = Some(facts.index + facts.count);
        queue.log_end = facts.offset + facts.size;
        self.entry_count += 1;
        self.account(bytes.len())
    }

    /// The queue, begun if it is new.
    fn queue(&mut self, topic: &str, queue_id: i32, is_batch: bool) -> &mut Queue {
        let Self {
            by_topic,
            aside,
            shape,
            has_extensions,
            ..
        } = self;
        if !by_topic.contains_key(topic) {
            by_topic.insert(topic.to_owned(), HashMap::new());
        }
        let queues = by_topic.entry(topic.to_owned()).or_default();
        queues.entry(queue_id).or_insert_with(|| {
            let dir_of = |part: &str| aside.join(part).join(topic).join(queue_id.to_string());
            let (part, file_len) = match is_batch {
                true => ("batchconsumequeue", shape.batch_queue_file_len),
                false => ("consumequeue", shape.queue_file_len),
            };
            let extension = (*has_extensions && !is_batch)
                .then(|| Writer::new(dir_of("consumequeue_ext"), shape.extension_file_len));
            Queue {
                entries: Writer::new(dir_of(part), file_len),
                extension,
                is_batch,
                next: None,
                log_end: 0,
                first: None,
            }
        })
    }

    /// Leaves a message that says to be its queue's first, where there are others, until the next one
    /// tells: either the topic was deleted and created again, or the record is damaged: no CRC covers a
    /// queue offset.
    fn leaves_first(
        &mut self,
        topic: &str,
        queue_id: i32,
        facts: &RecordFacts,
        has_unit: bool,
    ) -> bool {
        let queue = self.queue(topic, queue_id, false);
        let is_left = facts.index == 0 && queue.next.is_some_and(|next| next > 0);
        if is_left {
            queue.first = Some((*facts, has_unit));
            self.misplaced_count += 1;
        }
        is_left
    }

    /// The message that was left, if this one follows it and none of the others has come in between.
    fn take_first(
        &mut self,
        topic: &str,
        queue_id: i32,
        facts: &RecordFacts,
    ) -> Option<(RecordFacts, bool)> {
        let queue = self.queue(topic, queue_id, false);
        let log_end = queue.log_end;
        let follows = |(first, _): &mut (RecordFacts, bool)| {
            facts.index == first.index + first.count && first.offset >= log_end
        };
        let first = queue.first.take_if(follows)?;
        self.misplaced_count -= 1;
        Some(first)
    }

    /// Its topic was deleted and created again.
    fn begin_anew(&mut self, topic: &str, queue_id: i32) -> Result<(), OfflineError> {
        let queue = self.queue(topic, queue_id, false);
        let is_batch = queue.is_batch;
        let mut dirs = vec![queue.entries.dir.clone()];
        dirs.extend(queue.extension.as_ref().map(|writer| writer.dir.clone()));
        if let Some(queues) = self.by_topic.get_mut(topic) {
            queues.remove(&queue_id);
        }
        for dir in dirs {
            super::swap::remove_all(&self.io, &dir)?;
        }
        self.queue(topic, queue_id, is_batch);
        Ok(())
    }

    /// Counts what was gathered; writes everything out when it is much.
    fn account(&mut self, len: usize) -> Result<(), OfflineError> {
        self.gathered += len;
        if self.gathered < GATHERED_TOTAL_MAX {
            return Ok(());
        }
        self.gathered = 0;
        for queue in self.by_topic.values_mut().flat_map(HashMap::values_mut) {
            queue.entries.write_out(&self.io)?;
            if let Some(extension) = &mut queue.extension {
                extension.write_out(&self.io)?;
            }
        }
        Ok(())
    }
}

/// Whether so many messages of a queue can have been between two records: more than would have
/// had room there are damage in the record.
fn could_be_missing(queue: &Queue, facts: &RecordFacts, count: i64) -> bool {
    let room = facts.offset.saturating_sub(queue.log_end) / RECORD_LEN_MIN as u64;
    count.unsigned_abs() <= room
}

/// Files of one length, written one behind the other.
struct Writer {
    dir: PathBuf,
    file_len: u64,
    /// Offset of the first gathered byte.
    offset: u64,
    gathered: Vec<u8>,
    /// Bases of the files made.
    files: Vec<u64>,
}

impl Writer {
    fn new(dir: PathBuf, file_len: u64) -> Self {
        Self {
            dir,
            file_len: file_len.max(1),
            offset: 0,
            gathered: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Begins at an offset; nothing has been pushed yet.
    fn start_at(&mut self, offset: u64) {
        self.offset = offset;
    }

    fn push(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
    }

    /// Offset of the next byte.
    fn end(&self) -> u64 {
        self.offset + self.gathered.len() as u64
    }

    /// Adds a unit; returns its address.
    fn push_unit<I: Io>(
        &mut self,
        io: &I,
        facts: &RecordFacts,
        file_len: u64,
    ) -> Result<i64, IoError> {
        let left = file_len - self.end() % file_len;
        if left < UNIT_LEN_MIN as u64 + UNIT_END_LEN {
            self.push(&UNIT_END_MARK.to_be_bytes());
            self.write_out(io)?;
            self.offset = self.end() - self.end() % file_len + file_len;
        }
        let at = self.end();
        self.push(&(UNIT_LEN_MIN as i16).to_be_bytes());
        self.push(&facts.tags_code.to_be_bytes());
        self.push(&facts.store_ms.to_be_bytes());
        self.push(&0_i16.to_be_bytes());
        if self.gathered.len() >= GATHERED_LEN_MAX {
            self.write_out(io)?;
        }
        Ok(at.cast_signed().wrapping_add(i64::MIN))
    }

    /// Writes what was gathered.
    fn write_out<I: Io>(&mut self, io: &I) -> Result<(), IoError> {
        let gathered = std::mem::take(&mut self.gathered);
        let mut rest = gathered.as_slice();
        while !rest.is_empty() {
            let position = self.offset % self.file_len;
            let base = self.offset - position;
            let room = usize::try_from(self.file_len - position).unwrap_or(usize::MAX);
            let (part, behind) = rest.split_at(rest.len().min(room));
            let path = self.dir.join(segment_name(base));
            let file = if self.files.contains(&base) {
                io.open(&path, Access::ReadWrite)?
            } else {
                if self.files.is_empty() {
                    io.create_dir_all(&self.dir)?;
                }
                self.files.push(base);
                io.create(&path, self.file_len)?
            };
            file.write_all_at(part, position)?;
            self.offset += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    fn sync<I: Io>(&self, io: &I, dirs: &mut BTreeSet<PathBuf>) -> Result<(), IoError> {
        for base in &self.files {
            let path = self.dir.join(segment_name(*base));
            io.open(&path, Access::ReadWrite)?.sync_all()?;
        }
        if !self.files.is_empty() {
            dirs.insert(self.dir.clone());
        }
        Ok(())
    }
}

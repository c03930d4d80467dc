//! Extension units: what an entry refers to when 8 bytes of tags code are not enough.
//!
//! The files are those of RocketMQ 5.3.3 (`ConsumeQueueExt`), in
//! `consumequeue_ext/<topic>/<queue id>/`: units of different lengths, one behind the other. All
//! integers are big-endian.
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | i16 | length of the unit: 20 and the bitmap |
//! | 2 | i64 | tags code |
//! | 10 | i64 | store time of the message, ms |
//! | 18 | i16 | length of the bitmap |
//! | 20 | bytes | bitmap: which SQL92 filters the message may pass |
//!
//! A unit leaves at least 4 bytes free in its file. The first that does not fit puts an end mark,
//! the i16 -1, at its place and begins the next file; the rest of the file is undefined. Behind the
//! last unit of all there are zeros. The entry's tags code is the unit's address: its offset plus
//! the least i64.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mmap_core::{Access, FileKind, Io, IoError, IoFile};
use segment_queue::{
    DamagePolicy, FlushPolicy, Layout, MISSING_COUNT_MAX, NameSync, QueueError, SegmentQueue,
    SegmentQueueOptions, SegmentWriter, Trimmed, segment_name,
};

use crate::entry::Entry;
use crate::error::ConsumeQueueError;
use crate::hot::{Shared, lock};
use crate::options::ExtensionOptions;
use crate::queue::remove_segments;

/// Length of a unit without a bitmap.
pub const UNIT_LEN_MIN: usize = 20;
/// What every unit leaves free at the end of its file (RocketMQ 5.3.3
/// `ConsumeQueueExt.END_BLANK_DATA_LENGTH`).
const END_LEN: u64 = 4;
/// Stands in place of a unit's length where a file ends.
const END_MARK: i16 = -1;
/// Bytes read at a time when a file's units are counted.
const SCAN_LEN: usize = 64 * 1024;
/// An end that nobody has looked for yet.
const UNKNOWN: u64 = u64::MAX;

/// What stands at an entry's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionUnit {
    /// The tags code that the entry stands for.
    pub tags_code: i64,
    /// When the message was stored, ms.
    pub store_time_ms: i64,
    /// Bytes of the bitmap behind these fields.
    pub bitmap_len: u16,
}

impl ExtensionUnit {
    /// Bytes of the unit on disk.
    pub fn len(&self) -> u64 {
        UNIT_LEN_MIN as u64 + u64::from(self.bitmap_len)
    }

    /// Never: a unit has fields.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bytes on disk of a unit without a bitmap.
    pub fn encode(tags_code: i64, store_time_ms: i64) -> [u8; UNIT_LEN_MIN] {
        let mut bytes = [0; UNIT_LEN_MIN];
        bytes[0..2].copy_from_slice(&(UNIT_LEN_MIN as i16).to_be_bytes());
        bytes[2..10].copy_from_slice(&tags_code.to_be_bytes());
        bytes[10..18].copy_from_slice(&store_time_ms.to_be_bytes());
        bytes
    }

    /// Reads a unit's fields; `None` when its lengths do not agree, or the tags code is itself an
    /// address.
    pub fn decode(bytes: &[u8; UNIT_LEN_MIN]) -> Option<Self> {
        let [l0, l1, tags @ .., _, _, _, _, _, _, _, _, b0, b1] = *bytes;
        let len = i16::from_be_bytes([l0, l1]);
        let bitmap_len = i16::from_be_bytes([b0, b1]);
        let mut time = [0; 8];
        time.copy_from_slice(&bytes[10..18]);
        let unit = Self {
            tags_code: i64::from_be_bytes(tags),
            store_time_ms: i64::from_be_bytes(time),
            bitmap_len: u16::try_from(bitmap_len).ok()?,
        };
        let is_sound = i64::from(len) == unit.len().cast_signed()
            && !Entry::is_extension_address(unit.tags_code);
        is_sound.then_some(unit)
    }
}

/// The extension files of one queue: opened when they are needed, closed with the queue's.
///
/// Locks: `writer`, then `last_read`; both within the queue's.
#[derive(Debug)]
pub(crate) struct Extension<I: Io> {
    dir: PathBuf,
    /// Behind the last unit; [`UNKNOWN`] until somebody writes. Written under `writer`.
    end: AtomicU64,
    /// Units below are durable.
    flushed: AtomicU64,
    /// What was there when the process began is durable.
    old_is_synced: AtomicBool,
    writer: Mutex<Option<Box<SegmentWriter<I>>>>,
    /// The file that a unit was last read from.
    last_read: Mutex<LastRead<I>>,
}

impl<I: Io> Extension<I> {
    /// That of the queue in `queue_dir`: the same two names under the extensions' root.
    pub(crate) fn of_queue(
        shared: &Shared<I>,
        options: &ExtensionOptions,
        queue_dir: &Path,
    ) -> Self {
        let names = queue_dir.components().rev().take(2).collect::<Vec<_>>();
        let dir = { names.iter().rev() }.fold(options.root.clone(), |dir, name| dir.join(name));
        Self {
            dir,
            end: AtomicU64::new(UNKNOWN),
            flushed: AtomicU64::new(0),
            old_is_synced: AtomicBool::new(!shared.is_unclean),
            writer: Mutex::new(None),
            last_read: Mutex::new(None),
        }
    }

    /// The unit at `offset`; `None` where none is. Whatever happened to other files does not matter.
    ///
    /// # Errors
    /// Those of opening and reading the file.
    pub(crate) fn unit(
        &self,
        shared: &Shared<I>,
        options: &ExtensionOptions,
        offset: u64,
    ) -> Result<Option<ExtensionUnit>, ConsumeQueueError> {
        let position = offset % options.file_len;
        let file = match self.file_for_reading(shared, offset - position) {
            Err(error) if error.is_not_found() => return Ok(None),
            opened => opened?,
        };
        let mut bytes = [0; UNIT_LEN_MIN];
        if file.read_at(&mut bytes, position)? < bytes.len() {
            return Ok(None);
        }
        let room = options.file_len - position;
        Ok(ExtensionUnit::decode(&bytes).filter(|unit| unit.len() <= room))
    }

    /// The file whose first offset is `base`: the last one used, or opened now.
    fn file_for_reading(&self, shared: &Shared<I>, base: u64) -> Result<Arc<I::File>, IoError> {
        let mut last = lock(&self.last_read);
        if let Some((of, file)) = &*last
            && *of == base
        {
            return Ok(Arc::clone(file));
        }
        let path = self.dir.join(segment_name(base));
        let file = Arc::new(shared.io.open(&path, Access::ReadOnly)?);
        *last = Some((base, Arc::clone(&file)));
        Ok(file)
    }

    /// Puts a unit behind the last one and shows it to readers; returns its offset. `referenced`
    /// is asked once for the last unit that an entry refers to.
    ///
    /// # Errors
    /// Nothing was put then.
    pub(crate) fn append(
        &self,
        shared: &Shared<I>,
        options: &ExtensionOptions,
        unit: &[u8],
        referenced: impl FnOnce() -> Result<Referenced, ConsumeQueueError>,
    ) -> Result<u64, ConsumeQueueError> {
        let mut writer = lock(&self.writer);
        let appended = self
            .open_writer(shared, options, &mut writer, referenced)
            .and_then(|writer| self.append_to(shared, writer, unit));
        match appended {
            Ok(offset) => self
                .end
                .store(offset + unit.len() as u64, Ordering::Release),
            // Whatever got half of the way is written over by the next.
            Err(_) => self.close_both(&mut writer),
        }
        appended
    }

    fn append_to(
        &self,
        shared: &Shared<I>,
        writer: &mut SegmentWriter<I>,
        unit: &[u8],
    ) -> Result<u64, ConsumeQueueError> {
        if writer.remaining() < unit.len() as u64 + END_LEN {
            if writer.remaining() >= END_LEN {
                writer.fill_to_end(&END_MARK.to_be_bytes())?;
            }
            if writer.queue().segments().is_empty() {
                shared.create_dirs(&self.dir)?;
            }
            writer.roll()?;
        }
        let offset = writer.append(&[unit])?;
        writer.publish();
        Ok(offset)
    }

    fn open_writer<'a>(
        &self,
        shared: &Shared<I>,
        options: &ExtensionOptions,
        writer: &'a mut Option<Box<SegmentWriter<I>>>,
        referenced: impl FnOnce() -> Result<Referenced, ConsumeQueueError>,
    ) -> Result<&'a mut SegmentWriter<I>, ConsumeQueueError> {
        let opened = match writer.take() {
            Some(opened) => opened,
            None => {
                let segments = segments(shared, options, &self.dir);
                let (queue, mut opened) = SegmentQueue::open(shared.io.clone(), &segments)?;
                self.find_end(shared, options, &queue, &mut opened, referenced)?;
                opened.mark_unflushed(self.flushed.load(Ordering::Acquire));
                Box::new(opened)
            }
        };
        Ok(writer.insert(opened))
    }

    /// Sets the writer behind the last unit: the one that an entry refers to, as RocketMQ does
    /// after a crash (`truncateByMaxAddress`), or where that is not known, the last that is there.
    fn find_end(
        &self,
        shared: &Shared<I>,
        options: &ExtensionOptions,
        queue: &Arc<SegmentQueue<I>>,
        writer: &mut SegmentWriter<I>,
        referenced: impl FnOnce() -> Result<Referenced, ConsumeQueueError>,
    ) -> Result<(), ConsumeQueueError> {
        let known = self.end.load(Ordering::Acquire);
        if known != UNKNOWN {
            writer.resume(known)?;
            return Ok(());
        }
        let scanned = scan_end(queue)?;
        let (min, max) = (queue.min_offset(), queue.published());
        let end = match referenced()? {
            Referenced::Last(offset) => match self.unit(shared, options, offset)? {
                Some(unit) => offset + unit.len(),
                None => scanned.max(offset.saturating_add(UNIT_LEN_MIN as u64)),
            },
            Referenced::Earlier(offset) => {
                let len = self
                    .unit(shared, options, offset)?
                    .map_or(UNIT_LEN_MIN as u64, |unit| unit.len());
                scanned.max(offset.saturating_add(len))
            }
            Referenced::Nothing => scanned,
        };
        if end > max {
            return self.begin_behind(shared, writer, end);
        }
        let end = end.max(min);
        if shared.is_unclean || end < scanned {
            writer.truncate(end)?;
            self.flushed.store(min, Ordering::Release);
        } else {
            writer.resume(end)?;
            self.flushed.store(end, Ordering::Release);
        }
        self.end.store(end, Ordering::Release);
        Ok(())
    }

    /// An entry refers to a unit in a file that a crash has taken: its address must not be given
    /// to another message, so that new units begin in the file after it. An address so far away
    /// that no crash explains it is damage, and not honoured.
    fn begin_behind(
        &self,
        shared: &Shared<I>,
        writer: &mut SegmentWriter<I>,
        end: u64,
    ) -> Result<(), ConsumeQueueError> {
        let queue = Arc::clone(writer.queue());
        let missing_len = (end - queue.published()).div_ceil(queue.segment_len());
        shared.create_dirs(&self.dir)?;
        for _ in 0..(missing_len + 1).min(MISSING_COUNT_MAX) {
            writer.roll()?;
        }
        self.flushed.store(queue.min_offset(), Ordering::Release);
        self.end.store(queue.published(), Ordering::Release);
        Ok(())
    }

    /// Makes durable what was put before the call.
    ///
    /// # Errors
    /// The sync failed: nothing is known about the units on the device.
    pub(crate) fn flush(&self, shared: &Shared<I>) -> Result<(), ConsumeQueueError> {
        if !self.old_is_synced.load(Ordering::Acquire) {
            self.sync_old(shared)?;
        }
        let end = self.end.load(Ordering::Acquire);
        if end == UNKNOWN || self.flushed.load(Ordering::Acquire) >= end {
            return Ok(());
        }
        let open = {
            let writer = lock(&self.writer);
            writer.as_ref().map(|writer| Arc::clone(writer.queue()))
        };
        match open {
            Some(queue) => {
                queue.flush(FlushPolicy::All)?;
                shared.sync_dirs()?;
            }
            None => {
                shared.sync_dirs()?;
                let from = self.flushed.load(Ordering::Acquire);
                sync_closed(shared, &self.dir, from..end, self.file_len(shared))?;
            }
        }
        self.flushed.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    /// Syncs what a process that was killed has left in the page cache: its entries are about to be
    /// synced too.
    fn sync_old(&self, shared: &Shared<I>) -> Result<(), ConsumeQueueError> {
        match shared.io.list(&self.dir) {
            Err(error) if error.is_not_found() => {}
            listed => {
                for file in { listed? }
                    .iter()
                    .filter(|entry| entry.kind == FileKind::File)
                {
                    let path = self.dir.join(&file.name);
                    shared.io.open(&path, Access::ReadWrite)?.sync_data()?;
                }
                for dir in self.dir.ancestors().take(4) {
                    shared.add_unsynced_dir(dir);
                }
                shared.sync_dirs()?;
            }
        }
        self.old_is_synced.store(true, Ordering::Release);
        Ok(())
    }

    fn file_len(&self, shared: &Shared<I>) -> u64 {
        let options = shared.options.extensions.as_ref();
        options.map_or(1, |options| options.file_len)
    }

    /// Lets go of the files; they are opened again when needed.
    pub(crate) fn close_files(&self) {
        self.close_both(&mut lock(&self.writer));
    }

    fn close_both(&self, writer: &mut Option<Box<SegmentWriter<I>>>) {
        *writer = None;
        lock(&self.last_read).take();
    }

    /// Removes the files whose units all lie below `offset`, never the last one.
    ///
    /// # Errors
    /// Those of removing them.
    pub(crate) fn trim(
        &self,
        shared: &Shared<I>,
        options: &ExtensionOptions,
        offset: u64,
    ) -> Result<Trimmed, ConsumeQueueError> {
        let mut writer = lock(&self.writer);
        if let Some(writer) = &*writer {
            return Ok(writer.queue().trim_to(offset)?);
        }
        // Everything that was written before is durable: who wrote since has a writer or flushed.
        self.close_both(&mut writer);
        let flushed = self.flushed.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Acquire);
        if end != UNKNOWN && flushed < end {
            return Ok(Trimmed::default());
        }
        let segments = segments(shared, options, &self.dir);
        let (queue, _writer) = SegmentQueue::open(shared.io.clone(), &segments)?;
        Ok(queue.trim_to(offset)?)
    }

    /// Removes all units and files, whatever state they are in.
    ///
    /// # Errors
    /// Those of removing them.
    pub(crate) fn clear(&self, shared: &Shared<I>) -> Result<(), ConsumeQueueError> {
        let mut writer = lock(&self.writer);
        self.close_both(&mut writer);
        remove_segments(&shared.io, &self.dir)?;
        self.end.store(UNKNOWN, Ordering::Release);
        self.flushed.store(0, Ordering::Release);
        Ok(())
    }

    /// Removes all of it, and the directories that are empty then.
    ///
    /// # Errors
    /// Those of removing them.
    pub(crate) fn delete(&self, shared: &Shared<I>) -> Result<(), ConsumeQueueError> {
        self.clear(shared)?;
        for dir in self.dir.ancestors().take(2) {
            match shared.io.remove_dir(dir) {
                Err(error) if error.is_not_found() => {}
                // The topic's other queues are still there.
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => break,
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Refuses files of another length: another configuration wrote them.
    ///
    /// # Errors
    /// [`QueueError::SegmentLen`], [`QueueError::Misaligned`]; those of listing the directory.
    pub(crate) fn check_files(
        &self,
        shared: &Shared<I>,
        options: &ExtensionOptions,
    ) -> Result<(), ConsumeQueueError> {
        match Layout::scan(&shared.io, &segments(shared, options, &self.dir)) {
            // Units that cannot be put are done without.
            Ok(_) | Err(QueueError::ForeignFile { .. } | QueueError::Gap { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// First offset of a file, and the file.
type LastRead<I> = Option<(u64, Arc<<I as Io>::File>)>;

/// The last unit of a queue that one of its entries refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Referenced {
    /// The last entry of all refers to it.
    Last(u64),
    /// An entry does, and those behind it have their tags codes in themselves.
    Earlier(u64),
    /// None that was looked at does.
    Nothing,
}

fn segments<I: Io>(
    shared: &Shared<I>,
    options: &ExtensionOptions,
    dir: &Path,
) -> SegmentQueueOptions {
    SegmentQueueOptions {
        allocate_step: shared.options.allocate_step,
        damage: DamagePolicy::ExtendWithZeros,
        name_sync: NameSync::WithFlush,
        advice: mmap_core::Advice::Random,
        budget: shared.options.budget.clone(),
        ..SegmentQueueOptions::new(dir, options.file_len)
    }
}

/// Behind the last unit of the last file.
fn scan_end<I: Io>(queue: &SegmentQueue<I>) -> Result<u64, ConsumeQueueError> {
    let Some(last) = queue.segments().last().cloned() else {
        return Ok(queue.min_offset());
    };
    let mut buf = vec![0; SCAN_LEN.min(usize::try_from(last.len()).unwrap_or(SCAN_LEN))];
    let (mut window, mut window_len) = (last.base(), 0);
    let mut offset = last.base();
    while offset + UNIT_LEN_MIN as u64 <= last.end() {
        if offset + UNIT_LEN_MIN as u64 > window + window_len {
            window = offset;
            window_len = (last.end() - window).min(buf.len() as u64);
            let part = buf.get_mut(..window_len as usize).unwrap_or_default();
            queue.read_exact_at(window, part)?;
        }
        let position = (offset - window) as usize;
        let bytes = buf.get(position..).and_then(|rest| rest.first_chunk());
        match bytes.and_then(ExtensionUnit::decode) {
            Some(unit) if offset + unit.len() <= last.end() => offset += unit.len(),
            _ if bytes.is_some_and(|bytes| bytes[..2] == END_MARK.to_be_bytes()) => {
                return Ok(last.end());
            }
            _ => break,
        }
    }
    Ok(offset)
}

/// Syncs files that are not open: few puts go to them, so whatever is due is due now.
pub(crate) fn sync_closed<I: Io>(
    shared: &Shared<I>,
    dir: &Path,
    range: std::ops::Range<u64>,
    file_len: u64,
) -> Result<(), ConsumeQueueError> {
    let mut offset = range.start;
    while offset < range.end {
        let base = offset - offset % file_len;
        match shared
            .io
            .open(&dir.join(segment_name(base)), Access::ReadWrite)
        {
            Ok(file) => file.sync_data()?,
            // Trimmed or deleted meanwhile: nothing to keep.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        offset = base + file_len;
    }
    match shared.io.sync_dir(dir) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

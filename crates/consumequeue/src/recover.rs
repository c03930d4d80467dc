//! Finding where a queue begins and ends, from its files alone.
//!
//! Neither end is stored anywhere (RocketMQ 5.3.3 `ConsumeQueue.recover` scans as well). Files are
//! read and not mapped, and not through a `SegmentQueue`: of 100,000 queues most are not needed
//! any further.

use std::path::Path;

use mmap_core::{Access, Io, IoFile};
use segment_queue::{DamagePolicy, Layout, SegmentQueue, segment_name};

use crate::entry::{ENTRY_LEN, Entry};
use crate::error::ConsumeQueueError;
use crate::options::{ConsumeQueueOptions, OpenPolicy, index_to_offset, offset_to_index};

/// Files that are read after a crash (RocketMQ 5.3.3 `ConsumeQueue.recover`: from `n - 3`).
const UNCLEAN_FILE_COUNT: usize = 3;
/// The first read of a file: enough for most queues where there are many.
const FIRST_READ_LEN: usize = 204 * ENTRY_LEN;
/// The following reads.
const READ_LEN: usize = 13_107 * ENTRY_LEN;
/// How far behind the end remains of a lost write are looked for after a crash.
const PROBE_LEN: usize = 16 * 1024;
/// Entries behind the end that are kept as evidence, from either side.
const BEHIND_COUNT: usize = 4;

/// Why a queue may hold less than was put to it: behind its end is something else than zeros. A
/// crash leaves that, and so does an earlier truncation by RocketMQ; but it may also be what damage
/// in the middle has cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// No crash and no truncation explains it: the store was closed, or files are missing between
    /// others.
    pub is_damage: bool,
    /// Some of the entries behind the end that a message may have. Only the log can tell whether
    /// there is one; if there is, the queue has lost it.
    pub behind: Vec<(i64, Entry)>,
}

/// The ends of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Index of the first place in the first file.
    pub(crate) base_index: i64,
    /// Index of the first message.
    pub(crate) min_index: i64,
    /// Index behind the last entry.
    pub(crate) max_index: i64,
    /// Commit-log offset of the first message; `i64::MAX` if there is none.
    pub(crate) min_physical: i64,
    /// Commit-log offset behind the last message; -1 if there is none.
    pub(crate) max_physical_end: i64,
    /// Index below which entries are known to be durable.
    pub(crate) flushed_index: i64,
}

impl Bounds {
    /// Those of a queue without files.
    pub(crate) const EMPTY: Self = Self {
        base_index: 0,
        min_index: 0,
        max_index: 0,
        min_physical: i64::MAX,
        max_physical_end: -1,
        flushed_index: 0,
    };

    /// Finds the ends of the queue in `dir`, and cuts off what lies behind its end.
    pub(crate) fn find<I: Io>(
        io: &I,
        options: &ConsumeQueueOptions,
        dir: &Path,
        policy: OpenPolicy,
    ) -> Result<(Self, Option<Doubt>), ConsumeQueueError> {
        let bases = segment_bases(io, options, dir, policy)?;
        let Some(&first_base) = bases.first() else {
            return Ok((Self::EMPTY, None));
        };
        let scanner = Scanner {
            io,
            options,
            dir,
            policy,
        };
        let tail = scanner.find_tail(&bases)?;
        let mut doubt = None;
        if tail.untidy {
            doubt = Some(Doubt {
                is_damage: policy == OpenPolicy::Clean,
                behind: scanner.entries_behind(&bases, &tail)?,
            });
            let (_queue, mut writer) =
                SegmentQueue::open(io.clone(), &options.segments(dir, DamagePolicy::Refuse))?;
            writer.truncate(index_to_offset(tail.next_index))?;
        }
        let first = scanner.first_message(&bases, &tail)?;
        let bounds = Self {
            base_index: offset_to_index(first_base),
            min_index: first.map_or(tail.next_index, |(index, _)| index),
            max_index: tail.next_index,
            min_physical: first.map_or(i64::MAX, |(_, entry)| entry.physical_offset),
            max_physical_end: tail.physical_end,
            flushed_index: match policy {
                OpenPolicy::Clean => tail.next_index,
                // A process that was killed may have left all of it in the page cache.
                OpenPolicy::Unclean => offset_to_index(first_base),
            },
        };
        Ok((bounds, doubt))
    }
}

/// First offsets of the queue's files, made whole as the policy says.
fn segment_bases<I: Io>(
    io: &I,
    options: &ConsumeQueueOptions,
    dir: &Path,
    policy: OpenPolicy,
) -> Result<Vec<u64>, ConsumeQueueError> {
    let damage = match policy {
        OpenPolicy::Clean => DamagePolicy::RemoveEmptyLast,
        OpenPolicy::Unclean => DamagePolicy::ExtendWithZeros,
    };
    let segments = options.segments(dir, damage);
    let layout = Layout::scan(io, &segments)?;
    if layout.damaged.is_empty() {
        return Ok(layout.bases);
    }
    // Opening repairs, or says what is wrong.
    SegmentQueue::open(io.clone(), &segments)?;
    Ok(Layout::scan(io, &segments)?.bases)
}

/// Where the entries end.
#[derive(Debug)]
struct Tail {
    /// Index behind the last entry.
    next_index: i64,
    /// Commit-log offset behind the last message that was seen, or -1.
    physical_end: i64,
    /// Something that is not zero lies behind the end, or a file does.
    untidy: bool,
    /// Index of the first entry that was looked at, and the first message seen from there.
    scanned_from: i64,
    first_seen: Option<(i64, Entry)>,
    /// The last message that was seen.
    last_seen: Option<Entry>,
}

struct Scanner<'a, I: Io> {
    io: &'a I,
    options: &'a ConsumeQueueOptions,
    dir: &'a Path,
    policy: OpenPolicy,
}

impl<I: Io> Scanner<'_, I> {
    /// Reads the last files; more of them if those hold no message.
    fn find_tail(&self, bases: &[u64]) -> Result<Tail, ConsumeQueueError> {
        let file_count = match self.policy {
            OpenPolicy::Clean => 1,
            OpenPolicy::Unclean => UNCLEAN_FILE_COUNT,
        };
        let mut start = bases.len().saturating_sub(file_count);
        loop {
            let tail = self.scan(bases.get(start..).unwrap_or_default())?;
            // Files behind the end go; what the next opening would read is read now.
            let end = index_to_offset(tail.next_index);
            let kept_count = bases.partition_point(|base| *base <= end);
            let wanted = kept_count.saturating_sub(file_count).min(start);
            if start == 0 || (tail.physical_end >= 0 && wanted == start) {
                return Ok(tail);
            }
            start = wanted.min(start - 1);
        }
    }

    /// Reads files in order, up to the first place that is not in use.
    fn scan(&self, bases: &[u64]) -> Result<Tail, ConsumeQueueError> {
        let from = offset_to_index(bases.first().copied().unwrap_or(0));
        let mut tail = Tail {
            next_index: from,
            physical_end: -1,
            untidy: false,
            scanned_from: from,
            first_seen: None,
            last_seen: None,
        };
        for (position, &base) in bases.iter().enumerate() {
            let file = self
                .io
                .open(&self.dir.join(segment_name(base)), Access::ReadOnly)?;
            if !self.scan_file(&file, &mut tail)? {
                let is_last = position + 1 == bases.len();
                tail.untidy |= !is_last;
                break;
            }
        }
        Ok(tail)
    }

    /// Takes in the entries of a file; returns whether all of its places are in use.
    fn scan_file(&self, file: &I::File, tail: &mut Tail) -> Result<bool, ConsumeQueueError> {
        let file_len = self.options.file_len;
        let mut buf = vec![0; FIRST_READ_LEN];
        let mut position = 0;
        while position < file_len {
            self.read_next(file, position, &mut buf)?;
            let (entries, _) = buf.as_chunks::<ENTRY_LEN>();
            for bytes in entries {
                if !tail.accept(Entry::decode(bytes)) {
                    tail.untidy |= *bytes != [0; ENTRY_LEN];
                    let end = index_to_offset(tail.next_index) % file_len;
                    tail.untidy |= self.is_untidy_behind(file, end)?;
                    return Ok(false);
                }
            }
            position += buf.len() as u64;
            buf.resize(READ_LEN, 0);
        }
        Ok(true)
    }

    /// Whether a write before the crash left something near behind the end. Other pages of it may
    /// not have arrived.
    fn is_untidy_behind(&self, file: &I::File, end: u64) -> Result<bool, ConsumeQueueError> {
        if self.policy == OpenPolicy::Clean {
            return Ok(false);
        }
        let mut probe = [0; PROBE_LEN];
        let len = (self.options.file_len - end).min(PROBE_LEN as u64);
        let probe = probe
            .get_mut(..usize::try_from(len).unwrap_or(0))
            .unwrap_or_default();
        file.read_exact_at(probe, end)?;
        Ok(probe.iter().any(|byte| *byte != 0))
    }

    /// Entries behind the end that look like a message's: the first and the last few of those that
    /// are near, and the first of the last file.
    fn entries_behind(
        &self,
        bases: &[u64],
        tail: &Tail,
    ) -> Result<Vec<(i64, Entry)>, ConsumeQueueError> {
        let end = index_to_offset(tail.next_index);
        let near = end - end % self.options.file_len;
        let mut behind = Vec::new();
        for base in [Some(near), bases.last().copied()].into_iter().flatten() {
            let start = end.max(base);
            if !bases.contains(&base) || start >= base + self.options.file_len {
                continue;
            }
            let file = self
                .io
                .open(&self.dir.join(segment_name(base)), Access::ReadOnly)?;
            let mut buf = vec![0; PROBE_LEN / ENTRY_LEN * ENTRY_LEN];
            self.read_next(&file, start - base, &mut buf)?;
            let (entries, _) = buf.as_chunks();
            let mut found: Vec<(i64, Entry)> = (offset_to_index(start)..)
                .zip(entries.iter().map(Entry::decode))
                .filter(|(_, entry)| entry.is_used() && !entry.is_filler())
                .collect();
            if found.len() > 2 * BEHIND_COUNT {
                found.drain(BEHIND_COUNT..found.len() - BEHIND_COUNT);
            }
            behind.append(&mut found);
        }
        Ok(behind)
    }

    /// The first entry of the queue that is a message. Fillers may stand before it.
    fn first_message(
        &self,
        bases: &[u64],
        tail: &Tail,
    ) -> Result<Option<(i64, Entry)>, ConsumeQueueError> {
        for &base in bases {
            if offset_to_index(base) >= tail.scanned_from {
                break;
            }
            let file = self
                .io
                .open(&self.dir.join(segment_name(base)), Access::ReadOnly)?;
            // The very first nearly always; and a file that others follow is full.
            let mut buf = vec![0; ENTRY_LEN];
            let mut position = 0;
            while position < self.options.file_len {
                self.read_next(&file, position, &mut buf)?;
                let first = offset_to_index(base + position);
                let (entries, _) = buf.as_chunks();
                let indexed = (first..).zip(entries.iter().map(Entry::decode));
                if let Some(found) = { indexed }.find(|(_, entry)| !entry.is_filler()) {
                    return Ok(Some(found));
                }
                position += buf.len() as u64;
                buf.resize(READ_LEN, 0);
            }
        }
        Ok(tail.first_seen)
    }

    /// Fills `buf` from `position`, shortened to what is left of the file.
    fn read_next(
        &self,
        file: &I::File,
        position: u64,
        buf: &mut Vec<u8>,
    ) -> Result<(), ConsumeQueueError> {
        let left = usize::try_from(self.options.file_len - position).unwrap_or(usize::MAX);
        buf.truncate(left);
        Ok(file.read_exact_at(buf, position)?)
    }
}

impl Tail {
    /// Takes in the next entry, unless the place is not in use or holds what an earlier life of
    /// the queue left: messages of a queue lie in the log in the queue's order. The places of lost
    /// messages stand for a neighbour ([`ConsumeQueue::pass_over`](crate::ConsumeQueue)).
    fn accept(&mut self, entry: Entry) -> bool {
        if !entry.is_used() {
            return false;
        }
        if !entry.is_filler() {
            if entry.physical_offset < self.physical_end && self.last_seen != Some(entry) {
                return false;
            }
            self.last_seen = Some(entry);
            self.physical_end = entry.physical_end();
            self.first_seen = self.first_seen.or(Some((self.next_index, entry)));
        }
        self.next_index += 1;
        true
    }
}

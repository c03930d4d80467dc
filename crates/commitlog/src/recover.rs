//! Opening a log: from segment files to the place where the log ends.
//!
//! The end is written nowhere; it is where the records stop. Recovery walks over them from a
//! segment that the caller chooses, hands each to the caller, and cuts off what is behind the
//! last one. It changes nothing before it has decided, and nothing before what it cuts off is
//! kept aside.
//!
//! Where the log ends:
//!
//! - at zeros, as in a fresh segment, or at the end of the last one: the ordinary cases. The blank
//!   record that ends a segment without a successor stays, and the next record begins the next
//!   segment, where RocketMQ overwrites the blank one: it may be known to be synced, and to take it
//!   out would look like damage afterwards;
//! - at the first bytes that are not the record which belongs there: not a record at all, a wrong
//!   length or CRC, a physical offset other than its position;
//! - above [`Known::flushed`], at a record with an unwritten sector in its topic and properties,
//!   which no CRC covers; and at a record stored before its predecessor, or with a place in its
//!   queue before it. Neither runs backwards within a log of ours, so such bytes are stale: an
//!   earlier truncation left them. Below, they are counted ([`RecoveryReport::time_steps_back`])
//!   and kept, because Java stamps records with a wall clock that may be set back.
//!
//! Where it does not end: at damage that has good records behind it, if [`Known`] tells that these
//! were written before the power was ever lost. Such damage is a [`Hole`]. Its bytes are kept aside
//! and overwritten with records that every reader walks over.

use std::sync::Arc;
use std::time::Duration;

use message::RecordView;
use mmap_core::sabotage::{self, Lie};
use mmap_core::{Io, IoError, StagePool};
use segment_queue::{
    Damage, DamagePolicy, FlushPolicy, Layout, SegmentQueue, SegmentQueueOptions, SegmentWriter,
};

use crate::clock::Clock;
use crate::error::{CallerError, Failure, LogError};
use crate::hole::{self, FILLER_LEN_MIN, Hole};
use crate::known::Known;
use crate::log::CommitLog;
use crate::options::{CommitLogOptions, FlushMode};
use crate::quarantine::{Piece, Place, Quarantine};
use crate::scan::{CrcCheck, Found, Invalid, Scanner, unwritten_sector};
use crate::search::Resume;
use crate::stale::QueueOffsets;

/// A log whose segments are open and whose end is not known yet.
#[derive(Debug)]
pub struct Opening<I: Io> {
    options: CommitLogOptions,
    clock: Arc<dyn Clock>,
    queue: Arc<SegmentQueue<I>>,
    writer: SegmentWriter<I>,
    damaged: Vec<Damage>,
    /// The buffers of staged mode.
    stage: Option<Arc<StagePool>>,
}

/// How a log is recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverFrom {
    /// Where to start: the base offset of a segment, or a place that is known to be the end of a
    /// record. Records before it are trusted and not visited.
    pub offset: u64,
    /// Store time of the record before it, ms; 0 when it is not known.
    pub last_store_ms: i64,
    /// What is known of the bytes before they are read.
    pub known: Known,
    /// Which CRCs are checked.
    pub crc: CrcCheck,
    /// What is known about the bytes behind the end.
    pub tail: Tail,
}

/// What is known about the bytes behind the end of the log, in its last segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// Nothing: they are read, and zeroed if they are not zero.
    #[default]
    Unknown,
    /// This crate closed the log and nobody has written since: they are zero.
    Zero,
}

/// Bytes that recovery cut off the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first of them: the end of the log.
    pub offset: u64,
    /// From there to the end of the last byte that was not zero.
    pub len: u64,
    /// What stood there instead of a record.
    pub reason: Invalid,
}

/// What recovery did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Segment files that were scanned.
    pub files: u64,
    /// Bytes that were scanned for records.
    pub bytes_scanned: u64,
    /// Valid records that were found and visited.
    pub records: u64,
    /// The end of the log.
    pub end: u64,
    /// What was cut off behind it, if anything but zeros was there.
    pub cut: Option<Cut>,
    /// Damage with good records behind it.
    pub holes: Vec<Hole>,
    /// Why the log can only be read: there was no room to keep aside what had to go, so that
    /// nothing was changed.
    pub read_only: Option<String>,
    /// Records stored before their predecessor, below the flushed offset.
    pub time_steps_back: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// The caller's look at what is in the log, in order. An error ends the recovery with nothing in
/// the log changed. A closure that takes records is one.
pub trait Visitor {
    /// A valid record.
    ///
    /// # Errors
    ///
    /// The recovery ends with [`LogError::Visit`].
    fn record(&mut self, record: &RecordView<'_>) -> Result<(), CallerError>;

    /// Damage between the record before and the next one. What points into it points to nothing.
    ///
    /// # Errors
    ///
    /// The recovery ends with [`LogError::Visit`].
    fn hole(&mut self, hole: &Hole) -> Result<(), CallerError> {
        let _passed_over = hole;
        Ok(())
    }

    /// So far the scan has come: called about once for each mebibyte.
    fn progress(&mut self, offset: u64) {
        let _not_shown = offset;
    }
}

impl<F: FnMut(&RecordView<'_>) -> Result<(), CallerError>> Visitor for F {
    fn record(&mut self, record: &RecordView<'_>) -> Result<(), CallerError> {
        self(record)
    }
}

impl<I: Io> CommitLog<I> {
    /// Opens the segments in `options.dir`, without deciding where the log ends.
    ///
    /// A segment that is shorter than the others, empty or missing is extended with zeros; see
    /// [`Opening::damaged`]. The caller holds the lock of the store directory.
    ///
    /// # Errors
    ///
    /// An option that cannot be used; a foreign or missing file, or one of another length; no memory
    /// for the buffers of staged mode.
    pub fn open(
        io: I,
        options: CommitLogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Opening<I>, LogError> {
        options.validate()?;
        let stage = match options.flush.stage() {
            Some(stage) => Some(StagePool::new(stage.buffer_count, stage.buffer_len)?.into()),
            None => None,
        };
        let mut segments = SegmentQueueOptions::new(&options.dir, options.segment_len);
        segments.allocate_step = options.allocate_step;
        segments.base_when_empty = options.base_when_empty;
        segments.damage = DamagePolicy::ExtendWithZeros;
        segments.prepare_wait = options.append_wait;
        segments.lock_tail = options.lock_tail;
        segments.advice = options.advice;
        segments.budget.clone_from(&options.budget);
        segments.unmap_after = options.unmap_after;
        let damaged = Layout::scan(&io, &segments)?.damaged;
        let (queue, writer) = SegmentQueue::open(io, &segments)?;
        Ok(Opening {
            damaged,
            options,
            clock,
            queue,
            writer,
            stage,
        })
    }
}

impl<I: Io> Opening<I> {
    /// The segment files, all taken as full: what they hold is not known yet.
    pub fn segments(&self) -> &Arc<SegmentQueue<I>> {
        &self.queue
    }

    /// The segments that were shorter than the others, empty or missing, and now end in zeros, by
    /// ascending offset. A recovery that starts behind the first of them does not see what it lost.
    pub fn damaged(&self) -> &[Damage] {
        &self.damaged
    }

    /// Where a recovery after an unclean stop starts; see
    /// [`recovery_start`](crate::recovery_start()).
    ///
    /// # Errors
    ///
    /// A segment cannot be read.
    pub fn recovery_start(&self, checkpoint_ms: i64) -> Result<u64, LogError> {
        crate::recovery_start::recovery_start(&self.queue, checkpoint_ms)
    }

    /// Finds the end of the log, shows each record on the way to `visitor`, gives what has to go
    /// to `quarantine`, cuts it off or fills its place, and makes everything that is left durable. The
    /// last is left to the flush service in async mode, if the machine has not lost power and nothing
    /// had to go.
    ///
    /// If there is no room to keep aside what has to go, the log is only opened for reading
    /// ([`RecoveryReport::read_only`]): appends are refused, and the files stay as they are.
    ///
    /// # Errors
    ///
    /// See [`LogError`]. Up to and including [`LogError::Quarantine`] nothing was changed.
    pub fn recover(
        mut self,
        from: &RecoverFrom,
        visitor: &mut dyn Visitor,
        quarantine: &mut dyn Quarantine,
    ) -> Result<(CommitLog<I>, RecoveryReport), LogError> {
        let started = self.clock.monotonic();
        self.check_start(from.offset)?;
        let mut scan = Scan::new(&self.queue, from);
        scan.run(visitor)?;
        let (pieces, is_tail_zero) = scan.find_tail(from.tail)?;
        let kept = scan.keep_aside(&pieces, quarantine);
        let Scan {
            end,
            known,
            last_store_ms,
            mut report,
            ..
        } = scan;
        // From here on it has to be synced; what the scan has learned counts. It is handed to the
        // kernel again, because the process may have ended after a sync had failed: also where
        // nothing tells that the machine has run on since, as what tells is written later.
        let unsynced = match from.offset <= known.whole {
            true => known.flushed.min(end),
            false => known.flushed.max(from.offset).min(end),
        };
        // What was cut off or filled must not come back, and is synced before anything is appended.
        let is_unchanged = is_tail_zero && report.holes.is_empty();
        let is_later = known.is_power_kept && is_unchanged && self.syncs_later();
        match kept {
            Ok(()) => {
                self.fill(&report.holes)?;
                if !is_later {
                    self.writer.write_again(unsynced, end)?;
                }
                self.set_end(end, is_tail_zero)?;
            }
            Err(LogError::Quarantine { source, .. }) if is_full(&source) => {
                quarantine.abandon();
                self.writer.write_again(unsynced, end)?;
                self.writer.limit_to(end)?;
                report.read_only = Some(source.to_string());
            }
            Err(error) => {
                quarantine.abandon();
                return Err(error);
            }
        }
        self.writer.mark_unflushed(unsynced);
        if is_later {
            self.writer.write_again_later(end);
        } else {
            self.queue.flush(FlushPolicy::All)?;
        }
        report.elapsed = self.clock.monotonic().saturating_sub(started);
        let log = CommitLog::new(
            self.options,
            self.clock,
            self.queue,
            self.writer,
            last_store_ms,
            self.stage,
        );
        if let Some(reason) = &report.read_only {
            log.refuse_appends(Failure::read_only(reason.clone()));
        }
        Ok((log, report))
    }

    /// Puts fillers in the places of what was kept aside.
    fn fill(&mut self, holes: &[Hole]) -> Result<(), LogError> {
        for hole in holes {
            hole::fill(&mut self.writer, hole, &self.options.limits)?;
        }
        Ok(())
    }

    /// Whether what was found may be synced in its own time: nobody waits for it.
    fn syncs_later(&self) -> bool {
        !matches!(self.options.flush, FlushMode::Sync { .. })
    }

    /// What `look` says of the record at `offset`; `None` where no whole record stands. A way to
    /// recognise a log.
    ///
    /// # Errors
    ///
    /// The segment cannot be read.
    pub fn look_at<T>(
        &self,
        offset: u64,
        look: impl FnOnce(&RecordView<'_>) -> T,
    ) -> Result<Option<T>, LogError> {
        let held = self.queue.min_offset()..self.queue.published();
        if !held.contains(&offset) {
            return Ok(None);
        }
        let mut scanner = Scanner::new(&self.queue, CrcCheck::Body);
        Ok(match scanner.look_at(offset)? {
            Found::Record(view) => Some(look(&view)),
            _ => None,
        })
    }

    fn check_start(&self, offset: u64) -> Result<(), LogError> {
        let (min, end) = (self.queue.min_offset(), self.queue.published());
        if offset < min || offset > end {
            return Err(LogError::RecoveryStart { offset, min, end });
        }
        Ok(())
    }

    /// Makes `end` the end, with zeros behind it.
    fn set_end(&mut self, end: u64, is_tail_zero: bool) -> Result<(), LogError> {
        if is_tail_zero {
            self.writer.resume(end)?;
        } else {
            self.writer.truncate(end)?;
        }
        Ok(())
    }
}

/// Whether the system refused for lack of space.
fn is_full(error: &CallerError) -> bool {
    let error = error.downcast_ref::<IoError>();
    error.is_some_and(IoError::is_full)
}

/// How often the visitor hears how far the scan has come.
pub(crate) const PROGRESS_STRIDE: u64 = 1 << 20;

/// One walk over the records.
struct Scan<'a, I: Io> {
    queue: &'a SegmentQueue<I>,
    scanner: Scanner<'a, I>,
    from: &'a RecoverFrom,
    known: Known,
    /// The end of the last record so far.
    end: u64,
    /// Why it ended before the end of the files.
    stop: Option<Invalid>,
    last_store_ms: i64,
    queues: QueueOffsets,
    report: RecoveryReport,
}

/// What stands at the next place of a scan.
enum Step {
    Record { len: u64 },
    SegmentEnd,
    Invalid(Invalid),
}

impl<'a, I: Io> Scan<'a, I> {
    fn new(queue: &'a SegmentQueue<I>, from: &'a RecoverFrom) -> Self {
        let report = RecoveryReport {
            files: 0,
            bytes_scanned: 0,
            records: 0,
            end: from.offset,
            cut: None,
            holes: Vec::new(),
            read_only: None,
            time_steps_back: 0,
            elapsed: Duration::ZERO,
        };
        let scanner = Scanner::new(queue, from.crc);
        Self {
            queue,
            scanner,
            from,
            known: from.known,
            end: from.offset,
            stop: None,
            last_store_ms: from.last_store_ms,
            queues: QueueOffsets::default(),
            report,
        }
    }

    fn run(&mut self, visitor: &mut dyn Visitor) -> Result<(), LogError> {
        let (files_end, segment_len) = (self.queue.published(), self.queue.segment_len());
        let mut offset = self.from.offset;
        let mut told = offset;
        while offset < files_end {
            let is_new_file = offset == self.from.offset || offset.is_multiple_of(segment_len);
            self.report.files += u64::from(is_new_file);
            if offset - told >= PROGRESS_STRIDE {
                told = offset;
                visitor.progress(offset);
            }
            match self.step(offset, visitor)? {
                Step::Record { len } => {
                    offset += len;
                    self.end = offset;
                }
                Step::SegmentEnd => {
                    offset = offset - offset % segment_len + segment_len;
                    self.end = offset;
                }
                Step::Invalid(reason) => match self.behind(offset)? {
                    Some(next) => {
                        self.pass_hole(offset, next, reason, visitor)?;
                        offset = next.offset;
                        self.end = offset;
                    }
                    None => {
                        self.stop = Some(reason);
                        break;
                    }
                },
            }
        }
        self.report.end = self.end;
        self.report.bytes_scanned = self.end - self.from.offset;
        Ok(())
    }

    /// Looks at `offset`, and shows the record there, if there is one.
    fn step(&mut self, offset: u64, visitor: &mut dyn Visitor) -> Result<Step, LogError> {
        let view = match self.scanner.look_at(offset)? {
            Found::Record(view) => view,
            Found::SegmentEnd => return Ok(Step::SegmentEnd),
            Found::Invalid(invalid) => return Ok(Step::Invalid(invalid)),
        };
        let store_ms = view.store_timestamp_ms();
        self.known.see(offset, store_ms);
        let known = &self.known;
        if offset >= known.flushed
            && let Some(offset) = unwritten_sector(&view, offset, self.queue.segment_len())
        {
            return Ok(Step::Invalid(Invalid::Torn { offset }));
        }
        if let Some(stale) = self.queues.stale(&view, offset, self.last_store_ms, known) {
            return Ok(Step::Invalid(stale));
        }
        self.report.time_steps_back += u64::from(store_ms < self.last_store_ms);
        visitor
            .record(&view)
            .map_err(|source| LogError::Visit { offset, source })?;
        self.queues.note(&view, known);
        self.last_store_ms = self.last_store_ms.max(store_ms);
        self.report.records += 1;
        Ok(Step::Record {
            len: view.total_size() as u64,
        })
    }

    /// Where the log goes on behind the damage at `offset`, if what is known tells that it does.
    fn behind(&mut self, offset: u64) -> Result<Option<Resume>, LogError> {
        let (known, files_end) = (&self.known, self.queue.published());
        if offset >= known.flushed && !known.is_power_kept && known.flushed_before_ms == 0 {
            return Ok(None);
        }
        let (queues, last_store_ms) = (&self.queues, self.last_store_ms);
        let mut accept = |view: &RecordView<'_>| {
            let at = view.physical_offset().cast_unsigned();
            queues.stale(view, at, last_store_ms, known).is_none()
        };
        let segment_len = self.queue.segment_len();
        let mut found = self.scanner.next_good(offset, files_end, &mut accept)?;
        let first = found;
        // The end of a segment proves nothing: the record that follows it does.
        while let Some(blank) = found.filter(|found| found.store_ms.is_none()) {
            if blank.offset <= known.flushed {
                return Ok(first);
            }
            let next = blank.offset - blank.offset % segment_len + segment_len;
            found = self.scanner.first_good(next, files_end, &mut accept)?;
        }
        let is_proved = found.is_some_and(|found| {
            let store_ms = found.store_ms.unwrap_or(i64::MAX);
            known.vouches_for(found.offset, store_ms)
        });
        Ok(if is_proved {
            first
        } else {
            self.known_end(offset)
        })
    }

    /// The end of what is known to be synced: the log reached there, whatever is left of it.
    fn known_end(&self, offset: u64) -> Option<Resume> {
        let flushed = self.known.flushed;
        let is_there = flushed <= self.queue.published()
            && offset
                .checked_add(FILLER_LEN_MIN)
                .is_some_and(|least| least <= flushed);
        is_there.then_some(Resume {
            offset: flushed,
            store_ms: None,
        })
    }

    fn pass_hole(
        &mut self,
        offset: u64,
        next: Resume,
        reason: Invalid,
        visitor: &mut dyn Visitor,
    ) -> Result<(), LogError> {
        let segment = self.queue.find(offset);
        let hole = Hole {
            path: segment.map(|segment| segment.path()).unwrap_or_default(),
            offset,
            len: next.offset - offset,
            reason,
            store_ms: match (self.last_store_ms, next.store_ms) {
                (0, store_ms) => store_ms.unwrap_or(1),
                (last_store_ms, _) => last_store_ms,
            },
        };
        visitor
            .hole(&hole)
            .map_err(|source| LogError::Visit { offset, source })?;
        self.report.holes.push(hole);
        Ok(())
    }

    /// What stands behind the end: for each segment that has any, from where to where; and whether
    /// all behind the end is known to be zero.
    fn find_tail(&mut self, tail: Tail) -> Result<(Vec<(u64, u64)>, bool), LogError> {
        let pieces = match tail {
            // What is behind something wrong is no tail of a log that was closed.
            Tail::Zero if matches!(self.stop, None | Some(Invalid::Unwritten)) => Vec::new(),
            // The log reaches to the end of the files.
            _ if self.stop.is_none() => Vec::new(),
            _ => written_behind(self.queue, &mut self.scanner, self.end)?,
        };
        let is_tail_zero = pieces.is_empty();
        if let (Some(reason), Some(&(_, last_end))) = (&self.stop, pieces.last()) {
            self.report.cut = Some(Cut {
                offset: self.end,
                len: last_end - self.end,
                reason: reason.clone(),
            });
        }
        Ok((pieces, is_tail_zero))
    }

    /// Keeps aside everything that is about to go.
    fn keep_aside(
        &mut self,
        tail: &[(u64, u64)],
        quarantine: &mut dyn Quarantine,
    ) -> Result<(), LogError> {
        let segment_len = self.queue.segment_len();
        let tail = tail.iter().map(|&piece| (Place::Tail, piece, &self.stop));
        let reasons: Vec<_> = self
            .report
            .holes
            .iter()
            .map(|hole| (hole.offset, hole.end(), Some(hole.reason.clone())))
            .collect();
        let holes = reasons.iter().flat_map(|(offset, end, reason)| {
            pieces_of(*offset, *end, segment_len).map(move |piece| (Place::Hole, piece, reason))
        });
        for (place, (offset, piece_end), reason) in holes.chain(tail) {
            let Some(reason) = reason else { continue };
            let piece = Piece {
                place,
                segment: offset - offset % segment_len,
                offset,
                len: piece_end - offset,
                end: self.end,
                reason,
            };
            keep_piece(&mut self.scanner, &piece, quarantine)?;
        }
        Ok(())
    }
}

/// A range cut at the borders of segments.
fn pieces_of(offset: u64, end: u64, segment_len: u64) -> impl Iterator<Item = (u64, u64)> {
    let next = move |from: u64| (from - from % segment_len + segment_len).min(end);
    std::iter::successors(Some((offset, next(offset))), move |&(_, from)| {
        (from < end).then(|| (from, next(from)))
    })
}

/// What is not zero behind `end`: for each segment that has any, from where to where.
fn written_behind<I: Io>(
    queue: &SegmentQueue<I>,
    scanner: &mut Scanner<'_, I>,
    end: u64,
) -> Result<Vec<(u64, u64)>, LogError> {
    let mut pieces = Vec::new();
    for segment in queue
        .segments()
        .iter()
        .filter(|segment| segment.end() > end)
    {
        let start = end.max(segment.base());
        if let Some(last) = scanner.last_written(start, segment.end())? {
            pieces.push((start, last));
        }
    }
    Ok(pieces)
}

fn keep_piece<I: Io>(
    scanner: &mut Scanner<'_, I>,
    piece: &Piece<'_>,
    quarantine: &mut dyn Quarantine,
) -> Result<(), LogError> {
    if sabotage::is_planted(Lie::SkipQuarantine) {
        return Ok(());
    }
    let (offset, len) = (piece.offset, piece.len);
    let refused = |source| LogError::Quarantine {
        offset,
        len,
        source,
    };
    quarantine.begin(piece).map_err(refused)?;
    scanner
        .copy(offset, offset + len, |bytes| quarantine.write(bytes))?
        .map_err(refused)?;
    quarantine.finish().map_err(refused)
}

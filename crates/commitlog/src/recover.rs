//! Opening a log: from segment files to the place where the log ends.
//!
//! The end is written nowhere; it is where the records stop. Recovery walks over them from a
//! segment that the caller chooses, hands each to the caller, and cuts off what is behind the
//! last one. It changes nothing before it has decided, and nothing before what it cuts off is
//! kept aside.
//!
//! Where the log ends:
//!
//! - at zeros, as in a fresh segment, or at the blank record of a segment that has no successor
//!   (the next record goes there, as with RocketMQ): the ordinary cases;
//! - at the first bytes that are not the record which belongs there: not a record at all, a wrong
//!   length or CRC, a physical offset other than its position;
//! - above [`RecoverFrom::flushed`], at a record with an unwritten sector in its topic and
//!   properties, which no CRC covers; and at a record stored before its predecessor. Store times do
//!   not run backwards within a log of ours, so such bytes are stale: an earlier truncation left
//!   them. Below, they are counted ([`RecoveryReport::time_steps_back`]) and kept, because Java
//!   stamps records with a wall clock that may be set back.

use std::sync::Arc;
use std::time::Duration;

use message::RecordView;
use mmap_core::Io;
use mmap_core::sabotage::{self, Lie};
use segment_queue::{FlushPolicy, SegmentQueue, SegmentQueueOptions, SegmentWriter};

use crate::clock::Clock;
use crate::error::{CallerError, LogError};
use crate::log::CommitLog;
use crate::options::CommitLogOptions;
use crate::quarantine::{Piece, Quarantine};
use crate::scan::{CrcCheck, Found, Invalid, Scanner, unwritten_sector};

/// A log whose segments are open and whose end is not known yet.
#[derive(Debug)]
pub struct Opening<I: Io> {
    options: CommitLogOptions,
    clock: Arc<dyn Clock>,
    queue: Arc<SegmentQueue<I>>,
    writer: SegmentWriter<I>,
}

/// What is known about a log before it is recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverFrom {
    /// Where to start: the base offset of a segment. Records before it are trusted and not
    /// visited.
    pub offset: u64,
    /// Everything below this offset is known to have been synced: `u64::MAX` after a clean stop,
    /// 0 when nothing is known.
    pub flushed: u64,
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
    /// Records stored before their predecessor, below the flushed offset.
    pub time_steps_back: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// The caller's look at each valid record, in order. An error ends the recovery with nothing
/// changed.
pub type Visit<'a> = dyn FnMut(&RecordView<'_>) -> Result<(), CallerError> + 'a;

impl<I: Io> CommitLog<I> {
    /// Opens the segments in `options.dir`, without deciding where the log ends.
    ///
    /// The caller holds the lock of the store directory.
    ///
    /// # Errors
    ///
    /// An option that cannot be used; a foreign or missing file, or one of another length.
    pub fn open(
        io: I,
        options: CommitLogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Opening<I>, LogError> {
        options.validate()?;
        let mut segments = SegmentQueueOptions::new(&options.dir, options.segment_len);
        segments.allocate_step = options.allocate_step;
        segments.base_when_empty = options.base_when_empty;
        let (queue, writer) = SegmentQueue::open(io, &segments)?;
        Ok(Opening {
            options,
            clock,
            queue,
            writer,
        })
    }
}

impl<I: Io> Opening<I> {
    /// The segment files, all taken as full: what they hold is not known yet.
    pub fn segments(&self) -> &Arc<SegmentQueue<I>> {
        &self.queue
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

    /// Finds the end of the log, shows each record on the way to `visit`, gives what is behind
    /// the end to `quarantine`, cuts it off, and makes everything that is left durable.
    ///
    /// # Errors
    ///
    /// See [`LogError`]. Up to and including [`LogError::Quarantine`] nothing was changed.
    pub fn recover(
        mut self,
        from: &RecoverFrom,
        visit: &mut Visit<'_>,
        quarantine: &mut dyn Quarantine,
    ) -> Result<(CommitLog<I>, RecoveryReport), LogError> {
        let started = self.clock.monotonic();
        self.check_start(from.offset)?;
        let mut scan = Scan::new(&self.queue, from);
        scan.run(from, visit)?;
        let Scan {
            mut scanner,
            end,
            stop,
            last_store_ms,
            mut report,
            ..
        } = scan;
        let pieces = match from.tail {
            // What is behind something wrong is no tail of a log that was closed.
            Tail::Zero if matches!(stop, None | Some(Invalid::Unwritten)) => Vec::new(),
            // Behind a blank record at the end of the files nothing is defined or lost.
            _ if stop.is_none() => Vec::new(),
            _ => written_behind(&self.queue, &mut scanner, end)?,
        };
        // The blank record is overwritten by the next record, so what is behind it must go.
        let is_tail_zero = stop.is_some() && pieces.is_empty();
        if let (Some(reason), Some(&(_, last_end))) = (stop, pieces.last()) {
            keep_aside(&self.queue, &mut scanner, &pieces, end, &reason, quarantine)?;
            report.cut = Some(Cut {
                offset: end,
                len: last_end - end,
                reason,
            });
        }
        drop(scanner);
        self.set_end(from, end, is_tail_zero)?;
        report.elapsed = self.clock.monotonic().saturating_sub(started);
        let log = CommitLog::new(
            self.options,
            self.clock,
            self.queue,
            self.writer,
            last_store_ms,
        );
        Ok((log, report))
    }

    fn check_start(&self, offset: u64) -> Result<(), LogError> {
        let (min, end) = (self.queue.min_offset(), self.queue.published());
        let segment_len = self.queue.segment_len();
        if offset < min || offset > end || !offset.is_multiple_of(segment_len) {
            return Err(LogError::RecoveryStart {
                offset,
                min,
                segment_len,
            });
        }
        Ok(())
    }

    /// Makes `end` the end, with zeros behind it, and everything before it durable.
    fn set_end(
        &mut self,
        from: &RecoverFrom,
        end: u64,
        is_tail_zero: bool,
    ) -> Result<(), LogError> {
        if is_tail_zero {
            self.writer.resume(end)?;
        } else {
            self.writer.truncate(end)?;
        }
        // A process that was killed leaves bytes in the page cache that no sync has covered.
        self.writer
            .mark_unflushed(from.flushed.clamp(from.offset, end));
        self.queue.flush(FlushPolicy::All)?;
        Ok(())
    }
}

/// One walk over the records.
struct Scan<'a, I: Io> {
    queue: &'a SegmentQueue<I>,
    scanner: Scanner<'a, I>,
    /// The end of the last record so far.
    end: u64,
    /// Why it ended before the end of the files.
    stop: Option<Invalid>,
    last_store_ms: i64,
    report: RecoveryReport,
}

impl<'a, I: Io> Scan<'a, I> {
    fn new(queue: &'a SegmentQueue<I>, from: &RecoverFrom) -> Self {
        let report = RecoveryReport {
            files: 0,
            bytes_scanned: 0,
            records: 0,
            end: from.offset,
            cut: None,
            time_steps_back: 0,
            elapsed: Duration::ZERO,
        };
        let scanner = Scanner::new(queue, from.crc);
        Self {
            queue,
            scanner,
            end: from.offset,
            stop: None,
            last_store_ms: 0,
            report,
        }
    }

    fn run(&mut self, from: &RecoverFrom, visit: &mut Visit<'_>) -> Result<(), LogError> {
        let (files_end, segment_len) = (self.queue.published(), self.queue.segment_len());
        let mut offset = from.offset;
        while offset < files_end {
            self.report.files += u64::from(offset.is_multiple_of(segment_len));
            match self.scanner.look_at(offset)? {
                Found::Record(view) => {
                    let time_ms = view.store_timestamp_ms();
                    if offset >= from.flushed
                        && let Some(offset) = unwritten_sector(&view, offset)
                    {
                        self.stop = Some(Invalid::Torn { offset });
                        break;
                    }
                    if time_ms < self.last_store_ms {
                        if offset >= from.flushed {
                            let previous_ms = self.last_store_ms;
                            self.stop = Some(Invalid::StoreTime {
                                found_ms: time_ms,
                                previous_ms,
                            });
                            break;
                        }
                        self.report.time_steps_back += 1;
                    }
                    visit(&view).map_err(|source| LogError::Visit { offset, source })?;
                    self.last_store_ms = self.last_store_ms.max(time_ms);
                    self.report.records += 1;
                    offset += view.total_size() as u64;
                    self.end = offset;
                }
                Found::SegmentEnd => {
                    let next = offset - offset % segment_len + segment_len;
                    // Without a successor the log goes on at the blank record.
                    self.end = if next < files_end { next } else { offset };
                    offset = next;
                }
                Found::Invalid(invalid) => {
                    self.stop = Some(invalid);
                    break;
                }
            }
        }
        self.report.end = self.end;
        self.report.bytes_scanned = self.end - from.offset;
        Ok(())
    }
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

fn keep_aside<I: Io>(
    queue: &SegmentQueue<I>,
    scanner: &mut Scanner<'_, I>,
    pieces: &[(u64, u64)],
    end: u64,
    reason: &Invalid,
    quarantine: &mut dyn Quarantine,
) -> Result<(), LogError> {
    if sabotage::is_planted(Lie::SkipQuarantine) {
        return Ok(());
    }
    for &(offset, piece_end) in pieces {
        let len = piece_end - offset;
        let segment = offset - offset % queue.segment_len();
        let refused = |source| LogError::Quarantine {
            offset,
            len,
            source,
        };
        quarantine
            .begin(&Piece {
                segment,
                offset,
                len,
                end,
                reason,
            })
            .map_err(refused)?;
        scanner
            .copy(offset, piece_end, |bytes| quarantine.write(bytes))?
            .map_err(refused)?;
        quarantine.finish().map_err(refused)?;
    }
    Ok(())
}

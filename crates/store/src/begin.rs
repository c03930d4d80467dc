//! Where recovery begins, and what is known of the log before it is read: told from the `abort`
//! file, the checkpoint, our own state, the marks of this run of the machine, and where queues and
//! index end.

use commitlog::{CrcCheck, Known, Opening, RecoverFrom, Tail};
use mmap_core::Io;

use crate::checkpoint::{Checkpoint, CheckpointTimes};
use crate::dispatched::{self, Mark, Origin};
use crate::error::OpenError;
use crate::options::StoreOptions;
use crate::ownership::{LOCK_FILE, LastExit};
use crate::state::{Anchor, State, StateFile};

/// What the files say before the log is read.
pub(crate) struct Found {
    pub(crate) last_exit: LastExit,
    pub(crate) times: CheckpointTimes,
    /// What we remember, if the log is still the one that it was about.
    remembered: Option<Remembered>,
    /// Whether the machine has run on since the store was last open.
    pub(crate) is_power_kept: bool,
    /// Whether the page cache may hold of queues and index what the device never got.
    pub(crate) is_derived_in_doubt: bool,
    /// This run of the machine, and more that ties marks to it.
    pub(crate) origin: Origin,
    /// How far a process that was killed in this run had come, if its record is still in the log.
    pub(crate) mark: Option<Mark>,
    /// Whether the file of marks is damaged.
    pub(crate) has_torn_marks: bool,
}

/// Where the derived files end.
pub(crate) struct DerivedEnds {
    /// The end of the last message that has an entry in a queue; 0 without any.
    pub(crate) queues: u64,
    /// Messages from here on may be missing in the index; `None` if there is to be none.
    pub(crate) index: Option<u64>,
    /// Whether the index reaches as far as the mark says.
    pub(crate) has_marked_index: bool,
}

/// Where recovery begins.
pub(crate) struct Beginning {
    pub(crate) from: RecoverFrom,
    /// The mark that vouches for everything before, if that is what does.
    pub(crate) mark: Option<Mark>,
}

impl Found {
    /// Reads them; nothing is changed.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub(crate) fn read<I: Io>(
        io: &I,
        options: &StoreOptions,
        last_exit: LastExit,
        opening: &Opening<I>,
    ) -> Result<Self, OpenError> {
        let times = Checkpoint::read(io, &options.root)?;
        let state = match StateFile::read(io, &options.own_dir()) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, "the store's own state is not used");
                None
            }
        };
        let origin = origin(io, options)?;
        let is_this_run =
            |state: &State| !origin.run_id.is_empty() && state.run_id == origin.run_id;
        let is_derived_in_doubt = state
            .as_ref()
            .is_some_and(|state| state.is_derived_in_doubt);
        let marked = match last_exit {
            LastExit::Clean => dispatched::Found::Nothing,
            LastExit::Unclean => origin.read(io, &options.own_dir()),
        };
        let mark = match marked {
            dispatched::Found::Mark(mark) if !is_derived_in_doubt => Some(mark),
            _ => None,
        };
        Ok(Self {
            last_exit,
            times,
            is_power_kept: state.as_ref().is_some_and(is_this_run)
                || matches!(
                    marked,
                    dispatched::Found::Mark(_) | dispatched::Found::ThisRun
                ),
            is_derived_in_doubt,
            mark: match mark {
                Some(mark) if stands(&mark, opening)? => Some(mark),
                _ => None,
            },
            has_torn_marks: marked == dispatched::Found::Torn,
            origin,
            remembered: match state {
                Some(state) => remembered(state, opening)?,
                None => None,
            },
        })
    }

    /// What is known of the log before it is read.
    fn known<I: Io>(&self, opening: &Opening<I>, mark: Option<&Mark>) -> Result<Known, OpenError> {
        let physic_ms = self.times.physic_ms;
        if self.last_exit == LastExit::Clean {
            return Ok(Known {
                last_store_ms: (physic_ms > 0).then_some(physic_ms),
                ..Known::CLEAN
            });
        }
        let synced_base = opening.recovery_start(self.times.recovery_start_ms())?;
        let remembered = self.remembered.as_ref().map(|remembered| &remembered.state);
        let remembered = remembered.filter(|state| state.flushed > synced_base);
        let flushed = remembered.map_or(synced_base, |state| state.flushed);
        Ok(Known {
            flushed: flushed.max(mark.map_or(0, |mark| mark.flushed)),
            whole: mark.map_or(0, |mark| mark.anchor.end()),
            flushed_last_ms: remembered.map(|state| state.flushed_ms),
            flushed_before_ms: self.times.flushed_before_ms(),
            is_power_kept: self.is_power_kept,
            last_store_ms: None,
        })
    }

    /// Where the log is read from: everything before is there and has its entries.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(crate) fn begin<I: Io>(
        &self,
        opening: &Opening<I>,
        derived: &DerivedEnds,
    ) -> Result<Beginning, OpenError> {
        let mut mark = self.mark.filter(|mark| {
            derived.has_marked_index && derived.queues >= mark.anchor.end() && self.is_power_kept
        });
        // An extended segment has lost something, whatever is remembered of it.
        let damaged_from = opening.damaged().first().map(|damage| damage.base);
        let is_before_damage = |place: u64| damaged_from.is_none_or(|base| place <= base);
        mark = mark.filter(|mark| is_before_damage(mark.anchor.end()));
        let place = match mark {
            Some(Mark { anchor, .. }) => Some((anchor.end(), anchor.store_ms)),
            None => self.remembered_place(derived),
        };
        let (mut offset, mut last_store_ms) = match place {
            Some(place) => place,
            None => (self.place_without_state(opening, derived)?, 0),
        };
        if let Some(base) = damaged_from.filter(|base| *base < offset) {
            (offset, last_store_ms) = (base, 0);
        }
        Ok(Beginning {
            from: RecoverFrom {
                offset,
                last_store_ms,
                known: self.known(opening, mark.as_ref())?,
                crc: CrcCheck::Body,
                tail: Tail::Unknown,
            },
            mark,
        })
    }

    /// The end of the record by which the state knows the log, with its store time, if queues and
    /// index are still as far as they were. The state may vouch for more, but not say when the last
    /// record of that was stored.
    fn remembered_place(&self, derived: &DerivedEnds) -> Option<(u64, i64)> {
        let remembered = self.remembered.as_ref()?;
        let state = &remembered.state;
        let anchor = state.anchor.filter(|_| remembered.is_certain)?;
        let has_index = derived.index.is_none_or(|end| end >= state.index_end);
        let has_entries = has_index && derived.queues >= anchor.end();
        has_entries.then_some((anchor.end(), anchor.store_ms))
    }

    /// RocketMQ's rule, by segments, and before the end of the index.
    fn place_without_state<I: Io>(
        &self,
        opening: &Opening<I>,
        derived: &DerivedEnds,
    ) -> Result<u64, OpenError> {
        let segments = opening.segments();
        let (min, end) = (segments.min_offset(), segments.published());
        let base_of = |offset: u64| {
            let inside = offset.clamp(min, end.saturating_sub(1).max(min));
            inside - inside % segments.segment_len()
        };
        let mut offset = base_of(derived.queues);
        if self.last_exit == LastExit::Unclean {
            offset = offset.min(opening.recovery_start(self.times.recovery_start_ms())?);
        }
        let indexed_to = derived.index.unwrap_or(u64::MAX);
        if indexed_to >= offset {
            return Ok(offset);
        }
        // The index ends with a message, unless it is wrong.
        let is_record = opening.look_at(indexed_to, |_| ())?.is_some();
        Ok(if is_record {
            indexed_to
        } else {
            base_of(indexed_to)
        })
    }
}

/// What ties marks to this run of the machine and to who opens the store now.
fn origin<I: Io>(io: &I, options: &StoreOptions) -> Result<Origin, OpenError> {
    let (log, queues) = (options.commit_log_dir(), options.queue_dir());
    let (batches, index) = (options.batch_queue_dir(), options.index_dir());
    let lock = io.metadata(&options.root.join(LOCK_FILE))?;
    Ok(Origin {
        segment_len: options.segment_len,
        lock_changed: lock.map_or(std::time::SystemTime::UNIX_EPOCH, |lock| lock.changed),
        run_id: io
            .run_id(&[&options.root, &log, &queues, &batches, &index])
            .unwrap_or_default(),
    })
}

/// Whether the record of a mark stands where it stood.
fn stands<I: Io>(mark: &Mark, opening: &Opening<I>) -> Result<bool, OpenError> {
    let found = opening.look_at(mark.anchor.offset, |view| Anchor::of(view) == mark.anchor)?;
    Ok(found == Some(true))
}

/// What is left of a state, after a look at the log.
struct Remembered {
    state: State,
    /// Whether the anchor stands where it stood. If it is damaged the state still tells what was
    /// synced, but not where a record begins.
    is_certain: bool,
}

/// Compares what the state tells of the log with the log: a whole record in the anchor's place
/// that is another one tells that the log is.
fn remembered<I: Io>(state: State, opening: &Opening<I>) -> Result<Option<Remembered>, OpenError> {
    let segments = opening.segments();
    let Some(anchor) = state.anchor else {
        return Ok(None);
    };
    let held = segments.min_offset()..=segments.published();
    if state.segment_len != segments.segment_len()
        || !held.contains(&anchor.offset)
        || !held.contains(&state.flushed.max(state.derived))
        || anchor.end() > state.flushed.min(state.derived)
    {
        return Ok(None);
    }
    let is_same = opening.look_at(anchor.offset, |view| Anchor::of(view) == anchor)?;
    let is_certain = is_same == Some(true);
    Ok((is_same != Some(false)).then_some(Remembered { state, is_certain }))
}

//! Where recovery begins, and what is known of the log before it is read: told from the `abort`
//! file, the checkpoint, our own state, and where queues and index end.

use commitlog::{CrcCheck, Known, Opening, RecoverFrom, Tail};
use mmap_core::Io;

use crate::checkpoint::{Checkpoint, CheckpointTimes};
use crate::error::OpenError;
use crate::options::StoreOptions;
use crate::ownership::LastExit;
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
}

/// Where the derived files end.
pub(crate) struct DerivedEnds {
    /// The end of the last message that has an entry in a queue; 0 without any.
    pub(crate) queues: u64,
    /// Messages from here on may be missing in the index; `None` if there is to be none.
    pub(crate) index: Option<u64>,
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
        let boot_id = io.boot_id().unwrap_or_default();
        let is_power_kept = state
            .as_ref()
            .is_some_and(|state| !boot_id.is_empty() && state.boot_id == boot_id);
        let is_derived_in_doubt = state
            .as_ref()
            .is_some_and(|state| state.is_derived_in_doubt);
        Ok(Self {
            last_exit,
            times,
            is_power_kept,
            is_derived_in_doubt,
            remembered: match state {
                Some(state) => remembered(state, opening)?,
                None => None,
            },
        })
    }

    /// What is known of the log before it is read.
    fn known<I: Io>(&self, opening: &Opening<I>) -> Result<Known, OpenError> {
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
        Ok(Known {
            flushed: remembered.map_or(synced_base, |state| state.flushed),
            flushed_last_ms: remembered.map(|state| state.flushed_ms),
            flushed_before_ms: self.times.flushed_before_ms(),
            is_power_kept: self.is_power_kept,
            last_store_ms: None,
        })
    }

    /// Where the log is read from: everything before is synced and has its entries.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(crate) fn recover_from<I: Io>(
        &self,
        opening: &Opening<I>,
        derived: &DerivedEnds,
    ) -> Result<RecoverFrom, OpenError> {
        let (mut offset, mut last_store_ms) = match self.remembered_place(derived) {
            Some(place) => place,
            None => (self.place_without_state(opening, derived)?, 0),
        };
        // An extended segment has lost something, whatever is remembered of it.
        if let Some(damage) = opening.damaged().first()
            && damage.base < offset
        {
            (offset, last_store_ms) = (damage.base, 0);
        }
        Ok(RecoverFrom {
            offset,
            last_store_ms,
            known: self.known(opening)?,
            crc: CrcCheck::Body,
            tail: Tail::Unknown,
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

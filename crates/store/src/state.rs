//! What the store remembers of itself beside RocketMQ's files: `foliomq/state`.
//!
//! It tells a crash of the process from one of the machine, and up to where the log was synced, so
//! that recovery can tell damage from what was never written, and begins where work was in flight.
//! It is never needed: without it recovery reads more, and ends the log at the first damage.
//!
//! Two slots of 512 bytes, which a device writes whole or not at all, written in turn; the valid
//! one with the higher sequence counts. Big-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `FMQ1` |
//! | 4 | 4 | CRC-32 of the bytes from 8 to 128, without its highest bit |
//! | 8 | 8 | sequence |
//! | 16 | 8 | length of a segment of the log |
//! | 24 | 8 | everything below this offset of the log is synced |
//! | 32 | 8 | everything below this offset has synced entries in queues and index |
//! | 40 | 8 | end offset of the index then, 0 for none |
//! | 48 | 8 | anchor: offset of a record that ends at or below both offsets; -1 for none |
//! | 56 | 4 | its length |
//! | 60 | 4 | CRC of its body |
//! | 64 | 8 | its store time, ms |
//! | 72 | 47 | name of the machine's run (boot id, and a hash of what is mounted), padded with zeros |
//! | 119 | 1 | 1: a sync of queues or index has failed, so that what the page cache holds of them proves nothing |
//! | 120 | 8 | nothing that is synced was stored after this time, ms |
//!
//! The anchor ties it to the log: if another record stands there, a Java broker has cut the log and
//! written on since, and the offsets mean nothing.

use std::path::{Path, PathBuf};

use message::{RecordView, body_crc};
use mmap_core::{Access, Io, IoError, IoFile};

/// Name of the file below the directory of our own.
const STATE_FILE: &str = "state";
const SLOT_LEN: usize = 512;
const SLOT_COUNT: u64 = 2;
const MAGIC: [u8; 4] = *b"FMQ1";
const CRC_POSITION: usize = 4;
const FIELDS_POSITION: usize = 8;
const RUN_ID_POSITION: usize = 72;
const RUN_ID_LEN: usize = 47;
const DOUBT_POSITION: usize = RUN_ID_POSITION + RUN_ID_LEN;
const FLUSHED_MS_POSITION: usize = DOUBT_POSITION + 1;
const FIELDS_END: usize = FLUSHED_MS_POSITION + 8;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) segment_len: u64,
    /// Everything below is synced in the log.
    pub(crate) flushed: u64,
    /// Nothing below was stored after this time, ms.
    pub(crate) flushed_ms: i64,
    /// Everything below has synced entries in queues and index.
    pub(crate) derived: u64,
    /// Where the index ended then; 0 for an empty one.
    pub(crate) index_end: u64,
    pub(crate) anchor: Option<Anchor>,
    /// Names the run of the machine ([`Io::run_id`]); empty where the system does not say.
    pub(crate) run_id: String,
    /// A sync of queues or index has failed: the kernel may count pages of theirs as written that
    /// never were.
    pub(crate) is_derived_in_doubt: bool,
}

/// A record by which the log is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) body_crc: u32,
    pub(crate) store_ms: i64,
}

impl Anchor {
    /// The anchor that a record makes.
    pub(crate) fn of(view: &RecordView<'_>) -> Self {
        Self {
            offset: view.physical_offset().cast_unsigned(),
            len: view.total_size() as u32,
            body_crc: view.body_crc(),
            store_ms: view.store_timestamp_ms(),
        }
    }

    /// The offset behind it.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// The file, open for writing.
#[derive(Debug)]
pub(crate) struct StateFile<I: Io> {
    file: I::File,
    sequence: u64,
    last: State,
    /// A record that becomes the anchor once it is synced, in the log and in what is derived.
    candidate: Option<Anchor>,
}

impl<I: Io> StateFile<I> {
    /// What the file says; `None` when it is missing, torn or foreign.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(crate) fn read(io: &I, own_dir: &Path) -> Result<Option<State>, IoError> {
        let path = own_dir.join(STATE_FILE);
        if io.metadata(&path)?.is_none() {
            return Ok(None);
        }
        let file = io.open(&path, Access::ReadOnly)?;
        Ok(read_newest(&file)?.map(|(_, state)| state))
    }

    /// Opens the file for writing, creating it where it is missing.
    ///
    /// # Errors
    /// When it cannot be created or read.
    pub(crate) fn open(io: &I, own_dir: &Path) -> Result<Self, IoError> {
        let path: PathBuf = own_dir.join(STATE_FILE);
        let file = match io.metadata(&path)? {
            Some(_) => io.open(&path, Access::ReadWrite)?,
            None => {
                io.create_dir_all(own_dir)?;
                let file = io.create(&path, SLOT_COUNT * SLOT_LEN as u64)?;
                io.sync_dir(own_dir)?;
                file
            }
        };
        let (sequence, last) = read_newest(&file)?.unwrap_or_default();
        Ok(Self {
            file,
            sequence,
            last,
            candidate: None,
        })
    }

    /// The anchor for what is synced up to `end`, where `newest` is the last record there is. Under
    /// load that one is not synced yet: it is kept in mind until it is.
    pub(crate) fn anchor_below(&mut self, end: u64, newest: Option<Anchor>) -> Option<Anchor> {
        let is_synced = |anchor: &Anchor| anchor.end() <= end;
        if let Some(newest) = newest.filter(is_synced) {
            self.candidate = None;
            return Some(newest);
        }
        match self.candidate.filter(is_synced) {
            Some(candidate) => {
                self.candidate = newest;
                Some(candidate)
            }
            None => {
                self.candidate = self.candidate.or(newest);
                self.last.anchor
            }
        }
    }

    /// Keeps a record in mind that may become the anchor.
    pub(crate) fn consider(&mut self, newest: Option<Anchor>) {
        self.candidate = newest;
    }

    /// Says that a sync of queues or index has failed.
    ///
    /// # Errors
    /// The old state is still there.
    pub(crate) fn doubt_derived(&mut self) -> Result<(), IoError> {
        let last = self.last.clone();
        self.save(&State {
            is_derived_in_doubt: true,
            ..last
        })
    }

    /// Writes and syncs the state, if it is another than the last one.
    ///
    /// # Errors
    /// The old state is still there.
    pub(crate) fn save(&mut self, state: &State) -> Result<(), IoError> {
        if *state == self.last {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let position = sequence % SLOT_COUNT * SLOT_LEN as u64;
        self.file.write_all_at(&encode(sequence, state), position)?;
        self.file.sync_data()?;
        self.sequence = sequence;
        self.last = state.clone();
        Ok(())
    }
}

fn read_newest(file: &impl IoFile) -> Result<Option<(u64, State)>, IoError> {
    let mut bytes = [0; SLOT_LEN * SLOT_COUNT as usize];
    let len = file.read_at(&mut bytes, 0)?;
    let (slots, _) = bytes.get(..len).unwrap_or_default().as_chunks::<SLOT_LEN>();
    let valid = slots.iter().filter_map(decode);
    Ok(valid.max_by_key(|(sequence, _)| *sequence))
}

fn encode(sequence: u64, state: &State) -> [u8; SLOT_LEN] {
    let mut fields = Vec::with_capacity(FIELDS_END - FIELDS_POSITION);
    let anchor = state.anchor;
    for number in [
        sequence,
        state.segment_len,
        state.flushed,
        state.derived,
        state.index_end,
        anchor.map_or(u64::MAX, |anchor| anchor.offset),
    ] {
        fields.extend(number.to_be_bytes());
    }
    fields.extend(anchor.map_or(0, |anchor| anchor.len).to_be_bytes());
    fields.extend(anchor.map_or(0, |anchor| anchor.body_crc).to_be_bytes());
    fields.extend(anchor.map_or(0, |anchor| anchor.store_ms).to_be_bytes());
    fields.extend(state.run_id.bytes().take(RUN_ID_LEN));
    fields.resize(DOUBT_POSITION - FIELDS_POSITION, 0);
    fields.push(u8::from(state.is_derived_in_doubt));
    fields.extend(state.flushed_ms.to_be_bytes());
    let crc = body_crc(&fields).to_be_bytes();
    let mut slot = [0; SLOT_LEN];
    let bytes = MAGIC.into_iter().chain(crc).chain(fields);
    slot.iter_mut()
        .zip(bytes)
        .for_each(|(byte, value)| *byte = value);
    slot
}

fn decode(slot: &[u8; SLOT_LEN]) -> Option<(u64, State)> {
    let fields = &slot[FIELDS_POSITION..FIELDS_END];
    let crc = u32::from_be_bytes(field(slot, CRC_POSITION));
    if slot[..CRC_POSITION] != MAGIC || crc != body_crc(fields) {
        return None;
    }
    let [
        sequence,
        segment_len,
        flushed,
        derived,
        index_end,
        anchor_offset,
    ] = std::array::from_fn(|index| u64::from_be_bytes(field(slot, FIELDS_POSITION + 8 * index)));
    let anchor = Anchor {
        offset: anchor_offset,
        len: u32::from_be_bytes(field(slot, 56)),
        body_crc: u32::from_be_bytes(field(slot, 60)),
        store_ms: i64::from_be_bytes(field(slot, 64)),
    };
    let run_id = &slot[RUN_ID_POSITION..DOUBT_POSITION];
    let run_id = std::str::from_utf8(run_id).ok()?.trim_end_matches('\0');
    let state = State {
        segment_len,
        flushed,
        flushed_ms: i64::from_be_bytes(field(slot, FLUSHED_MS_POSITION)),
        derived,
        index_end,
        anchor: (anchor_offset != u64::MAX).then_some(anchor),
        run_id: run_id.to_owned(),
        is_derived_in_doubt: slot[DOUBT_POSITION] != 0,
    };
    Some((sequence, state))
}

fn field<const LEN: usize>(slot: &[u8; SLOT_LEN], position: usize) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(&slot[position..position + LEN]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmap_core::{CrashStyle, SimIo};

    fn state(flushed: u64) -> State {
        State {
            segment_len: 4096,
            flushed,
            flushed_ms: 8,
            derived: flushed / 2,
            index_end: 7,
            anchor: Some(Anchor {
                offset: 100,
                len: 92,
                body_crc: 5,
                store_ms: -1,
            }),
            run_id: "12345678-1234-1234-1234-123456789abc".to_owned(),
            is_derived_in_doubt: flushed.is_multiple_of(2),
        }
    }

    #[test]
    fn what_was_saved_last_is_read() {
        let (io, dir) = (SimIo::new(1), Path::new("/store/foliomq"));
        assert_eq!(StateFile::read(&io, dir).unwrap(), None);
        let mut file = StateFile::open(&io, dir).unwrap();
        for flushed in 1..5 {
            file.save(&state(flushed)).unwrap();
            assert_eq!(StateFile::read(&io, dir).unwrap(), Some(state(flushed)));
        }
        let before = io.operation_count();
        file.save(&state(4)).unwrap();
        assert_eq!(io.operation_count(), before, "nothing new is not written");
        drop(file);
        let mut file = StateFile::open(&io, dir).unwrap();
        let none = State {
            anchor: None,
            ..state(9)
        };
        file.save(&none).unwrap();
        assert_eq!(StateFile::read(&io, dir).unwrap(), Some(none));
    }

    #[test]
    fn a_power_cut_leaves_one_of_the_last_two() {
        for seed in 0..200 {
            let (io, dir) = (SimIo::new(seed), Path::new("/store/foliomq"));
            let mut file = StateFile::open(&io, dir).unwrap();
            file.save(&state(1)).unwrap();
            file.save(&state(2)).unwrap();
            io.fail_next("sync_data", std::io::ErrorKind::Other);
            file.save(&state(3)).unwrap_err();
            let io = io.crash(CrashStyle::Tear);
            let flushed = StateFile::read(&io, dir).unwrap().unwrap().flushed;
            assert!((2..=3).contains(&flushed), "{flushed}");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let slot = encode(3, &state(1));
        assert_eq!(decode(&slot), Some((3, state(1))));
        for bit in 0..FIELDS_END * 8 {
            let mut flipped = slot;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }
}

//! How far each delay level has been delivered: `config/delayOffset.json`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use remoting::body::{DataVersion, DelayOffsetSerializeWrapper};
use remoting::json;

use super::json_file::{JsonFile, StateError};
use super::next_version;

/// The next offset of each level's queue.
#[derive(Debug)]
pub struct DelayOffsets {
    file: JsonFile,
    version_step: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    offsets: BTreeMap<i32, i64>,
    version: DataVersion,
    updates: u64,
    is_saved: bool,
}

impl DelayOffsets {
    /// Loads the offsets from their file.
    ///
    /// # Errors
    /// The file is unreadable, and so is its backup.
    pub fn load(file: JsonFile, version_step: u64) -> Result<Self, StateError> {
        let loaded: DelayOffsetSerializeWrapper = file.load_json()?.unwrap_or_default();
        let state = State {
            offsets: loaded.offset_table,
            version: loaded.data_version,
            updates: 0,
            is_saved: true,
        };
        Ok(Self {
            file,
            version_step,
            state: Mutex::new(state),
        })
    }

    /// The next offset of a level.
    #[must_use]
    pub fn find(&self, level: i32) -> Option<i64> {
        self.state().offsets.get(&level).copied()
    }

    /// Notes how far a level has come.
    pub fn update(&self, level: i32, offset: i64) {
        let mut state = self.state();
        if state.offsets.insert(level, offset) == Some(offset) {
            return;
        }
        state.is_saved = false;
        state.updates += 1;
        if state.updates.is_multiple_of(self.version_step) {
            state.version = next_version(state.version);
        }
    }

    /// The offsets as the file holds them.
    #[must_use]
    pub fn snapshot(&self) -> DelayOffsetSerializeWrapper {
        let state = self.state();
        DelayOffsetSerializeWrapper {
            data_version: state.version,
            offset_table: state.offsets.clone(),
        }
    }

    /// Writes the file if it does not hold the newest offsets.
    ///
    /// # Errors
    /// The system refuses; the next call tries again.
    pub fn save(&self) -> Result<(), StateError> {
        if std::mem::replace(&mut self.state().is_saved, true) {
            return Ok(());
        }
        let text = json::encode_pretty(&self.snapshot())?;
        self.file
            .save(&text)
            .inspect_err(|_| self.state().is_saved = false)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! A table of named records with a data version, kept as one JSON file.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use remoting::body::DataVersion;
use remoting::json;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::json_file::{JsonFile, StateError};
use super::next_version;

/// What a table holds, and what its file looks like.
pub trait Record: Clone + PartialEq + Debug + Send + Sync + 'static {
    /// The file's shape.
    type File: Serialize + DeserializeOwned;

    /// Makes the file's content.
    fn file(version: DataVersion, records: BTreeMap<String, Self>) -> Self::File;

    /// Takes the file's content apart.
    fn parts(file: Self::File) -> (DataVersion, BTreeMap<String, Self>);
}

/// The records by name. Each change bumps the version and replaces the file, and then counts.
#[derive(Debug)]
pub struct Table<T: Record> {
    file: JsonFile,
    state: RwLock<State<T>>,
    /// Generation of what the file holds; locked by who changes the table or writes the file.
    saved: Mutex<u64>,
}

#[derive(Debug)]
struct State<T> {
    records: HashMap<String, Arc<T>>,
    version: DataVersion,
    /// Counts changes since start.
    generation: u64,
}

/// Whether an update changed the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing is different.
    None,
    /// Something is: the version moves and the file is replaced.
    Made,
}

impl<T: Record> Table<T> {
    /// Loads the table from its file; empty if there is none.
    ///
    /// # Errors
    /// The file is unreadable, and so is its backup.
    pub fn load(file: JsonFile) -> Result<Self, StateError> {
        let (version, records) = file
            .load_json::<T::File>()?
            .map(T::parts)
            .unwrap_or_default();
        let records = records
            .into_iter()
            .map(|(name, record)| (name, Arc::new(record)));
        let state = State {
            records: records.collect(),
            version,
            generation: 0,
        };
        Ok(Self {
            file,
            state: RwLock::new(state),
            saved: Mutex::new(0),
        })
    }

    /// A record by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<T>> {
        self.read().records.get(name).cloned()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.read().records.len()
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.read().records.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The version of the table.
    #[must_use]
    pub fn version(&self) -> DataVersion {
        self.read().version
    }

    /// The whole table at one moment.
    #[must_use]
    pub fn snapshot(&self) -> (DataVersion, BTreeMap<String, T>) {
        let state = self.read();
        let copy = |(name, record): (&String, &Arc<T>)| (name.clone(), T::clone(record));
        (state.version, state.records.iter().map(copy).collect())
    }

    /// Creates or replaces a record.
    pub fn put(&self, name: &str, record: T) -> Change {
        self.update(|records| {
            if records.get(name).is_some_and(|known| **known == record) {
                return Change::None;
            }
            records.insert(name.to_owned(), Arc::new(record));
            Change::Made
        })
    }

    /// The record of this name, made by `make` if there is none; with it whether it was made.
    pub fn find_or_create(&self, name: &str, make: impl FnOnce() -> T) -> (Arc<T>, Change) {
        if let Some(known) = self.find(name) {
            return (known, Change::None);
        }
        let record = Arc::new(make());
        let mut found = Arc::clone(&record);
        let change = self.update(|records| match records.get(name) {
            Some(known) => {
                found = Arc::clone(known);
                Change::None
            }
            None => {
                records.insert(name.to_owned(), record);
                Change::Made
            }
        });
        (found, change)
    }

    /// Creates those of `records` that are missing, as one change.
    pub fn add_missing(&self, missing: Vec<(String, T)>) -> Change {
        self.update(|records| {
            let count = records.len();
            for (name, record) in missing {
                records.entry(name).or_insert_with(|| Arc::new(record));
            }
            if records.len() == count {
                Change::None
            } else {
                Change::Made
            }
        })
    }

    /// Removes a record.
    pub fn remove(&self, name: &str) -> Change {
        self.update(|records| match records.remove(name) {
            Some(_) => Change::Made,
            None => Change::None,
        })
    }

    /// Writes the file if it does not hold the newest change.
    ///
    /// # Errors
    /// The system refuses; the next call tries again.
    pub fn save(&self) -> Result<(), StateError> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.read();
        let (version, generation) = (state.version, state.generation);
        if generation == *saved {
            return Ok(());
        }
        let records = state.records.clone();
        drop(state);
        self.write(version, &records)?;
        *saved = generation;
        Ok(())
    }

    /// Makes a change. Others see it when the file has it: who finds a topic stores messages in
    /// it, and a topic that a crash takes away again takes them along.
    fn update(&self, change: impl FnOnce(&mut HashMap<String, Arc<T>>) -> Change) -> Change {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else writes while `saved` is locked.
        let state = self.read();
        let (mut records, generation) = (state.records.clone(), state.generation + 1);
        let version = next_version(state.version);
        drop(state);
        if change(&mut records) == Change::None {
            return Change::None;
        }
        match self.write(version, &records) {
            Ok(()) => *saved = generation,
            // As in Java the table counts; the file is tried again with the next change, by the
            // regular flush, and at shutdown.
            Err(error) => tracing::error!(%error, "a table was changed but not saved"),
        }
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State {
            records,
            version,
            generation,
        };
        Change::Made
    }

    fn write(
        &self,
        version: DataVersion,
        records: &HashMap<String, Arc<T>>,
    ) -> Result<(), StateError> {
        let copy = |(name, record): (&String, &Arc<T>)| (name.clone(), T::clone(record));
        let content = T::file(version, records.iter().map(copy).collect());
        self.file.save(&json::encode_pretty(&content)?)
    }

    fn read(&self) -> RwLockReadGuard<'_, State<T>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

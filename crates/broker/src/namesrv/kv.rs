//! The name server's key-value configuration: namespaces of texts, kept in `kvConfig.json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mmap_core::OsIo;
use remoting::body::KVConfigSerializeWrapper;
use remoting::json;

use crate::state::json_file::{JsonFile, StateError};

/// Namespace of the topics whose queues are in an order: topic to `broker:queues;...`.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// The configuration; each change is on disk before it is acknowledged.
#[derive(Debug)]
pub struct KvConfig {
    file: JsonFile,
    table: Mutex<Table>,
}

type Table = BTreeMap<String, BTreeMap<String, String>>;

impl KvConfig {
    /// Loads the file `kvConfig.json` in `dir`.
    ///
    /// # Errors
    /// It is unreadable, and so is its backup.
    pub fn load(dir: &Path) -> Result<Self, StateError> {
        let file = JsonFile::new(
            OsIo,
            dir,
            "kvConfig.json",
            &dir.join("quarantine"),
            &Arc::default(),
        );
        let loaded: Option<KVConfigSerializeWrapper> = file.load_json()?;
        let table = loaded.unwrap_or_default().config_table;
        Ok(Self {
            file,
            table: Mutex::new(table),
        })
    }

    /// The value of a key.
    #[must_use]
    pub fn find(&self, namespace: &str, key: &str) -> Option<String> {
        self.table().get(namespace)?.get(key).cloned()
    }

    /// All keys of a namespace with their values.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.table().get(namespace).cloned()
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// The file could not be replaced; the table has the value nevertheless.
    pub fn put(&self, namespace: &str, key: &str, value: &str) -> Result<(), StateError> {
        let mut table = self.table();
        table
            .entry(namespace.to_owned())
            .or_default()
            .insert(key.to_owned(), value.to_owned());
        self.save(&table)
    }

    /// Removes a key; it need not be there.
    ///
    /// # Errors
    /// The file could not be replaced; the key is gone nevertheless.
    pub fn delete(&self, namespace: &str, key: &str) -> Result<(), StateError> {
        let mut table = self.table();
        let known = table.get_mut(namespace).and_then(|keys| keys.remove(key));
        if known.is_some() {
            self.save(&table)
        } else {
            Ok(())
        }
    }

    fn save(&self, table: &Table) -> Result<(), StateError> {
        let text = json::encode(&KVConfigSerializeWrapper {
            config_table: table.clone(),
        })?;
        self.file.save(&text)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

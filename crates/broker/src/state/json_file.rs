//! A table kept as a JSON file with a backup beside it, as `ConfigManager` of RocketMQ 5.3.3
//! keeps it: `topics.json` and `topics.json.bak`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mmap_core::{Io, IoError, OsIo};
use remoting::{BodyError, json};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Longest file that is read, in bytes: two million topics or so.
const LEN_MAX: u64 = 512 * 1024 * 1024;

/// Most memory that a table may take while it is read, in bytes.
const MEMORY_LEN_MAX: usize = 4 << 30;

/// The file of one table.
#[derive(Debug, Clone)]
pub struct JsonFile<I: Io = OsIo> {
    io: I,
    path: PathBuf,
    backup: PathBuf,
}

/// Why a table could not be loaded or kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The table cannot be written as JSON.
    #[error(transparent)]
    Write(#[from] BodyError),
    /// Neither the file nor its backup is what it should be.
    #[error(
        "{}: {reason}, and its backup cannot take its place; move the file away to start without \
         what it held",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What one of the two files holds.
enum Content<T> {
    Table(T),
    /// There is no file, or one without bytes.
    Nothing,
    Foreign(String),
}

impl<I: Io> JsonFile<I> {
    /// The file `name` in `dir`; nothing is touched.
    pub fn new(io: I, dir: &Path, name: &str) -> Self {
        let path = dir.join(name);
        let mut backup = OsString::from(path.as_os_str());
        backup.push(".bak");
        Self {
            io,
            path,
            backup: PathBuf::from(backup),
        }
    }

    /// Reads the table; `None` when there is none yet. A file that is torn or not this table's is
    /// passed over for the backup, with a warning.
    ///
    /// # Errors
    /// The system refuses, or the file is unreadable and so is the backup.
    pub fn load<T>(
        &self,
        parse: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, StateError> {
        let reason = match self.read(&self.path, &parse)? {
            Content::Table(table) => return Ok(Some(table)),
            Content::Nothing => None,
            Content::Foreign(reason) => Some(reason),
        };
        match (self.read(&self.backup, &parse)?, reason) {
            (Content::Table(table), reason) => {
                let reason = reason.unwrap_or_else(|| "missing or empty".to_owned());
                tracing::warn!(
                    path = %self.path.display(),
                    %reason,
                    backup = %self.backup.display(),
                    "loaded the backup instead"
                );
                Ok(Some(table))
            }
            (_, Some(reason)) => Err(StateError::Unreadable {
                path: self.path.clone(),
                reason,
            }),
            (Content::Nothing, None) => Ok(None),
            (Content::Foreign(reason), None) => Err(StateError::Unreadable {
                path: self.backup.clone(),
                reason,
            }),
        }
    }

    /// As [`load`](Self::load), for a table that is JSON.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_json<T: DeserializeOwned>(&self) -> Result<Option<T>, StateError> {
        let limits = json::Limits {
            memory_len: MEMORY_LEN_MAX,
            ..json::Limits::default()
        };
        self.load(|text| json::decode_within(text, limits).map_err(|error| error.to_string()))
    }

    /// Replaces the file; the old content becomes the backup. A crash leaves one of the two whole.
    ///
    /// # Errors
    /// The system refuses; the old content is still there.
    pub fn save(&self, text: &[u8]) -> Result<(), StateError> {
        if let Some(dir) = self.path.parent() {
            self.io.create_dir_all(dir)?;
        }
        Ok(self.io.replace(&self.path, text, Some(&self.backup))?)
    }

    fn read<T>(
        &self,
        path: &Path,
        parse: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Content<T>, StateError> {
        if self.io.metadata(path)?.is_none() {
            return Ok(Content::Nothing);
        }
        let bytes = self.io.read(path, LEN_MAX)?;
        if bytes.is_empty() {
            return Ok(Content::Nothing);
        }
        Ok(parse(&bytes).map_or_else(Content::Foreign, Content::Table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &[u8]) -> Result<u32, String> {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        text.parse().map_err(|_| "not a number".to_owned())
    }

    fn put(dir: &Path, name: &str, text: &str) {
        OsIo.replace(&dir.join(name), text.as_bytes(), None)
            .unwrap();
    }

    #[test]
    fn a_table_is_kept_with_the_one_before_as_backup() {
        let dir = tempfile::tempdir().unwrap();
        let file = JsonFile::new(OsIo, &dir.path().join("config"), "n.json");
        assert_eq!(file.load(number).unwrap(), None);
        file.save(b"1").unwrap();
        file.save(b"2").unwrap();
        assert_eq!(file.load(number).unwrap(), Some(2));
        let backup = OsIo
            .read(&dir.path().join("config/n.json.bak"), 10)
            .unwrap();
        assert_eq!(backup, b"1");
    }

    #[test]
    fn a_torn_or_foreign_file_falls_back_to_the_backup() {
        let dir = tempfile::tempdir().unwrap();
        let file = JsonFile::new(OsIo, dir.path(), "n.json");
        put(dir.path(), "n.json.bak", "1");
        for torn in ["", "12x", "\u{fffd}"] {
            put(dir.path(), "n.json", torn);
            assert_eq!(file.load(number).unwrap(), Some(1), "{torn:?}");
        }
        put(dir.path(), "n.json.bak", "also torn");
        let text = file.load(number).unwrap_err().to_string();
        assert!(text.contains("n.json: not a number") && text.contains("move the file away"));
        // Java starts with an empty table where both are empty.
        put(dir.path(), "n.json", "");
        put(dir.path(), "n.json.bak", "");
        assert_eq!(file.load(number).unwrap(), None);
    }
}

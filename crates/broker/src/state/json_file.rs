//! A table kept as a JSON file with a backup beside it, as `ConfigManager` of RocketMQ 5.3.3
//! keeps it: `topics.json` and `topics.json.bak`.
//!
//! What cannot be read is moved to a quarantine directory, never deleted; and it never becomes the
//! backup, which is the good one then.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mmap_core::{Io, IoError, OsIo};
use remoting::{BodyError, json};
use serde::de::DeserializeOwned;
use store::health::Troubles;
use thiserror::Error;

/// Longest file that is read, in bytes: two million topics or so.
const LEN_MAX: u64 = 512 * 1024 * 1024;

/// Most memory that a table may take while it is read, in bytes.
const MEMORY_LEN_MAX: usize = 4 << 30;

/// The file of one table.
#[derive(Debug, Clone)]
pub struct JsonFile<I: Io = OsIo> {
    io: I,
    name: &'static str,
    path: PathBuf,
    backup: PathBuf,
    quarantine: PathBuf,
    troubles: Arc<Troubles>,
    /// The file is unreadable and could not be moved away: it must not become the backup.
    is_foreign: Arc<AtomicBool>,
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
        "{}: {reason}, and its backup cannot take its place; restore one of them, or move both \
         away to start without what they held",
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
    /// The file `name` in `dir`; nothing is touched. What of it cannot be read goes to
    /// `quarantine`, and what is wrong with it is listed in `troubles` under its name.
    pub fn new(
        io: I,
        dir: &Path,
        name: &'static str,
        quarantine: &Path,
        troubles: &Arc<Troubles>,
    ) -> Self {
        let path = dir.join(name);
        let mut backup = OsString::from(path.as_os_str());
        backup.push(".bak");
        Self {
            io,
            name,
            path,
            backup: PathBuf::from(backup),
            quarantine: quarantine.to_owned(),
            troubles: Arc::clone(troubles),
            is_foreign: Arc::default(),
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
                self.give_up_file();
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
    /// A failure is listed, and logged once until it succeeds again.
    ///
    /// # Errors
    /// The system refuses; the old content is still there.
    pub fn save(&self, text: &[u8]) -> Result<(), StateError> {
        let saved = self.replace(text).map_err(StateError::from);
        self.troubles
            .note(self.name, crate::clock::now_ms(), &saved);
        saved
    }

    fn replace(&self, text: &[u8]) -> Result<(), IoError> {
        if let Some(dir) = self.path.parent() {
            self.io.create_dir_all(dir)?;
        }
        let is_foreign = self.is_foreign.load(Ordering::Relaxed);
        let backup = (!is_foreign).then_some(&*self.backup);
        self.io.replace(&self.path, text, backup)?;
        self.is_foreign.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Moves the file and its backup, neither of which can be read, to the quarantine; returns
    /// where they are. The table can be loaded then: there is none.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_aside(&self) -> Result<Vec<PathBuf>, StateError> {
        let mut moved = Vec::new();
        for path in [&self.path, &self.backup] {
            if self.io.metadata(path)?.is_some() {
                moved.push(self.move_away(path)?);
            }
        }
        Ok(moved)
    }

    /// The backup has taken the file's place: the file goes away, so that it does not take the
    /// backup's with the next save.
    fn give_up_file(&self) {
        match self.io.metadata(&self.path) {
            Ok(None) => return,
            Ok(Some(_)) => match self.move_away(&self.path) {
                Ok(moved) => {
                    tracing::warn!(path = %self.path.display(), moved = %moved.display(), "kept aside");
                    return;
                }
                Err(error) => tracing::warn!(%error, "an unreadable file stays where it is"),
            },
            Err(error) => tracing::warn!(%error, "an unreadable file stays where it is"),
        }
        self.is_foreign.store(true, Ordering::Relaxed);
    }

    fn move_away(&self, path: &Path) -> Result<PathBuf, IoError> {
        self.io.create_dir_all(&self.quarantine)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", crate::clock::now_ms()));
        let to = self.quarantine.join(name);
        self.io.rename(path, &to)?;
        self.io.sync_dir(&self.quarantine)?;
        if let Some(dir) = path.parent() {
            self.io.sync_dir(dir)?;
        }
        Ok(to)
    }

    fn read<T>(
        &self,
        path: &Path,
        parse: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Content<T>, StateError> {
        if self.io.metadata(path)?.is_none() {
            return Ok(Content::Nothing);
        }
        let bytes = match self.io.read(path, LEN_MAX) {
            // The medium fails, or it is no file of ours: the backup may be better off. What we may
            // not read is somebody's mistake, which no backup cures.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Ok(Content::Foreign(error.to_string()));
            }
            read => read?,
        };
        if bytes.is_empty() {
            return Ok(Content::Nothing);
        }
        Ok(parse(&bytes).map_or_else(Content::Foreign, Content::Table))
    }
}

#[cfg(test)]
mod tests {
    use mmap_core::{CrashStyle, SimIo};

    use super::*;

    fn number(text: &[u8]) -> Result<u32, String> {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        text.parse().map_err(|_| "not a number".to_owned())
    }

    fn file<I: Io>(io: &I, dir: &Path) -> JsonFile<I> {
        let quarantine = dir.join("quarantine");
        JsonFile::new(
            io.clone(),
            &dir.join("config"),
            "n.json",
            &quarantine,
            &Arc::default(),
        )
    }

    fn put<I: Io>(io: &I, dir: &Path, name: &str, text: &str) {
        io.create_dir_all(&dir.join("config")).unwrap();
        io.replace(&dir.join("config").join(name), text.as_bytes(), None)
            .unwrap();
    }

    fn quarantined<I: Io>(io: &I, dir: &Path) -> Vec<String> {
        let listed = io.list(&dir.join("quarantine")).unwrap_or_default();
        listed
            .into_iter()
            .map(|entry| entry.name.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_table_is_kept_with_the_one_before_as_backup() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&OsIo, dir.path());
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
    fn a_torn_or_foreign_file_falls_back_to_the_backup_and_is_kept() {
        for torn in ["", "12x", "\u{fffd}"] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            put(&OsIo, dir, "n.json", torn);
            put(&OsIo, dir, "n.json.bak", "1");
            let file = file(&OsIo, dir);
            assert_eq!(file.load(number).unwrap(), Some(1), "{torn:?}");
            assert_eq!(quarantined(&OsIo, dir).len(), 1, "{torn:?}");
            // The backup is still there, and is not overwritten by what was torn.
            assert_eq!(file.load(number).unwrap(), Some(1), "{torn:?}");
            file.save(b"2").unwrap();
            let backup = OsIo.read(&dir.join("config/n.json.bak"), 10).unwrap();
            assert_eq!(backup, b"1");
        }
    }

    #[test]
    fn what_neither_of_the_two_holds_is_refused_until_it_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        put(&OsIo, dir, "n.json", "torn");
        put(&OsIo, dir, "n.json.bak", "also torn");
        let file = file(&OsIo, dir);
        let text = file.load(number).unwrap_err().to_string();
        assert!(
            text.contains("n.json: not a number") && text.contains("move both away"),
            "{text}"
        );
        assert_eq!(file.set_aside().unwrap().len(), 2);
        assert_eq!(file.load(number).unwrap(), None);
        assert_eq!(quarantined(&OsIo, dir).len(), 2);
        // Java starts with an empty table where both are empty.
        put(&OsIo, dir, "n.json", "");
        put(&OsIo, dir, "n.json.bak", "");
        assert_eq!(file.load(number).unwrap(), None);
    }

    #[test]
    fn an_unreadable_block_is_like_a_torn_file() {
        let io = SimIo::new(1);
        let dir = Path::new("/s");
        put(&io, dir, "n.json", "2");
        put(&io, dir, "n.json.bak", "1");
        io.fail_next("read", io::ErrorKind::Other);
        assert_eq!(file(&io, dir).load(number).unwrap(), Some(1));
        put(&io, dir, "n.json", "2");
        io.fail_next("open", io::ErrorKind::PermissionDenied);
        assert!(matches!(
            file(&io, dir).load(number),
            Err(StateError::Io(_))
        ));
    }

    #[test]
    fn a_failed_save_is_listed_until_one_succeeds() {
        let io = SimIo::new(1);
        let file = file(&io, Path::new("/s"));
        file.save(b"1").unwrap();
        io.space_limit(0);
        for _ in 0..2 {
            assert!(file.save(b"2").is_err());
        }
        let troubles = file.troubles.list();
        assert_eq!(troubles.len(), 1);
        assert_eq!(troubles[0].name, "n.json");
        assert_eq!(file.load(number).unwrap(), Some(1));
        io.space_limit(1 << 20);
        file.save(b"2").unwrap();
        assert!(file.troubles.is_empty());
        assert_eq!(file.load(number).unwrap(), Some(2));
    }

    /// The machine dies at any operation of saving, in any way: the old content is there or the new
    /// one, and a second start finds the same.
    fn dies_at_each_operation(prepare: impl Fn(&SimIo)) {
        let dir = Path::new("/s");
        let styles = [
            CrashStyle::KillProcess,
            CrashStyle::LoseUnsynced,
            CrashStyle::Tear,
        ];
        for style in styles {
            for seed in 0..20 {
                for nth in 1.. {
                    let io = SimIo::new(seed);
                    prepare(&io);
                    io.fail_from("*", nth, io::ErrorKind::Other);
                    let file = file(&io, dir);
                    let loaded = file.load(number);
                    let saved = loaded.is_ok() && file.save(b"2").is_ok();
                    let io = io.crash(style);
                    let found = self::file(&io, dir).load(number).unwrap();
                    let allowed: &[u32] = if saved { &[2] } else { &[1, 2] };
                    let is_there = found.is_some_and(|found| allowed.contains(&found));
                    assert!(is_there, "{style:?} at {nth}, seed {seed}: {found:?}");
                    assert_eq!(self::file(&io, dir).load(number).unwrap(), found);
                    if saved {
                        assert!(nth > 5);
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn a_crash_at_any_operation_leaves_the_old_content_or_the_new_one() {
        dies_at_each_operation(|io| {
            let file = file(io, Path::new("/s"));
            file.save(b"0").unwrap();
            file.save(b"1").unwrap();
        });
    }

    #[test]
    fn a_crash_while_the_backup_is_the_only_good_one_does_not_lose_it() {
        dies_at_each_operation(|io| {
            let dir = Path::new("/s");
            put(io, dir, "n.json", "torn");
            put(io, dir, "n.json.bak", "1");
        });
    }
}

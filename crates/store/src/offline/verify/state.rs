//! Checkpoint, lock, abort file, and what is our own.

use mmap_core::{Access, Io, IoError, IoFile, LockState};

use super::Check;
use crate::checkpoint::{CHECKPOINT_FILE, CHECKPOINT_LEN};
use crate::offline::error::OfflineError;
use crate::offline::files::list_or_nothing;
use crate::offline::finding::{Finding, FindingKind, Part, Severity};
use crate::offline::inspect;
use crate::ownership::{ABORT_FILE, LOCK_FILE, LastExit};

impl<I: Io> Check<'_, I> {
    /// Whether the store is open or was not closed, and what recoveries have kept.
    pub(super) fn check_state(&mut self) -> Result<(), OfflineError> {
        let root = self.dirs.root.clone();
        let info = |kind, path, detail: String| {
            Finding::new(Severity::Info, kind, Part::State, (path, 0), detail)
        };
        if let LockState::Held { holder_pid } = self.report.lock {
            let holder = holder_pid.map_or("a process".to_owned(), |pid| format!("process {pid}"));
            let detail =
                format!("{holder} has the store open: what was stored just now is not compared");
            self.report(&info(FindingKind::InUse, root.join(LOCK_FILE), detail));
        } else if self.report.last_exit == LastExit::Unclean {
            let detail = "the store was not closed: the next start recovers it".to_owned();
            self.report(&info(FindingKind::NotClosed, root.join(ABORT_FILE), detail));
        }
        let quarantine = self.dirs.own.join("quarantine");
        for entry in list_or_nothing(self.io, &quarantine)? {
            if entry
                .name
                .to_str()
                .is_some_and(|name| name.ends_with(".bytes"))
            {
                let detail = format!("{} bytes that a recovery cut off are kept", entry.len);
                let path = quarantine.join(&entry.name);
                self.report(&info(FindingKind::Quarantined, path, detail));
            }
        }
        Ok(())
    }

    /// The checkpoint must not promise more than the log has.
    pub(super) fn check_checkpoint(&mut self) -> Result<(), OfflineError> {
        let path = self.dirs.root.join(CHECKPOINT_FILE);
        match self.look_at_checkpoint() {
            Ok(findings) => {
                for (severity, kind, position, detail) in findings {
                    let place = (path.clone(), position);
                    self.report(&Finding::new(
                        severity,
                        kind,
                        Part::Checkpoint,
                        place,
                        detail,
                    ));
                }
            }
            Err(error) => self.unreadable(Part::Checkpoint, &error),
        }
        Ok(())
    }

    fn look_at_checkpoint(&self) -> Result<Vec<(Severity, FindingKind, u64, String)>, IoError> {
        let path = self.dirs.root.join(CHECKPOINT_FILE);
        let mut found = Vec::new();
        let Some(info) = self.io.metadata(&path)? else {
            if self.report.log.record_count > 0 && !self.is_live {
                let detail = "missing: the next start reads more of the log".to_owned();
                found.push((Severity::Warning, FindingKind::CheckpointLength, 0, detail));
            }
            return Ok(found);
        };
        if info.len != CHECKPOINT_LEN {
            let detail = format!("{} bytes where {CHECKPOINT_LEN} are expected", info.len);
            found.push((
                Severity::Warning,
                FindingKind::CheckpointLength,
                info.len,
                detail,
            ));
        }
        let mut bytes = vec![0; CHECKPOINT_LEN as usize];
        let read = self
            .io
            .open(&path, Access::ReadOnly)?
            .read_at(&mut bytes, 0)?;
        let fields = inspect::decode_checkpoint(bytes.get(..read).unwrap_or_default());
        // In a store in use the records that it goes by are not compared.
        let latest_ms = match self.report.compared_until_ms {
            Some(_) => i64::MAX,
            None => self.report.log.last_store_ms,
        };
        let times = [
            ("physicMsgTimestamp", fields.physic_ms),
            ("logicsMsgTimestamp", fields.logics_ms),
            ("indexMsgTimestamp", fields.index_ms),
        ];
        for (index, (name, time_ms)) in times.into_iter().enumerate() {
            if time_ms < 0 || time_ms > latest_ms {
                let detail = format!(
                    "{name} is {time_ms}, the last record was stored at {latest_ms}: a recovery \
                     that believes it begins too late"
                );
                let position = index as u64 * 8;
                found.push((
                    Severity::Warning,
                    FindingKind::CheckpointAhead,
                    position,
                    detail,
                ));
            }
        }
        Ok(found)
    }
}

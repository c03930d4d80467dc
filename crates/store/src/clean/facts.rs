//! What the cleaner has to know before it decides anything.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mmap_core::{FileInfo, FileKind, Io, IoError, Space};
use segment_queue::parse_segment_name;

use crate::options::StoreOptions;

/// All that a [`plan`](super::plan) is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanFacts {
    /// The time, Unix time in milliseconds.
    pub now_ms: i64,
    /// The hour of the day where the machine is, 0 to 23.
    pub local_hour: u8,
    /// The log's files, oldest first.
    pub log: Vec<LogFile>,
    /// No file that ends above this offset may go: what lies there is not flushed, or has no queue
    /// entries yet.
    pub settled: u64,
    /// The disk of the log; `None` when it cannot be asked.
    pub log_disk: Option<DiskUse>,
    /// The disk of the consume queues; `None` when it cannot be asked.
    pub queue_disk: Option<DiskUse>,
    /// The two disks are one.
    pub shared_disk: bool,
    /// Somebody has asked for a manual delete.
    pub manual: bool,
}

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// Log offset of its first byte.
    pub base: u64,
    /// Its length in bytes.
    pub len: u64,
    /// When it was last written, Unix time in milliseconds.
    pub modified_ms: i64,
}

impl LogFile {
    /// Log offset behind its last byte.
    pub fn end(&self) -> u64 {
        self.base.saturating_add(self.len)
    }
}

/// A file system's space, by RocketMQ's rule (`UtilAll.getDiskPartitionSpaceUsedPercent`): what
/// only privileged processes may use counts neither as used nor as there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes in use, by whatever.
    pub used: u64,
    /// Bytes that can be used: those in use and those available.
    pub limit: u64,
}

impl DiskUse {
    /// The use of a file system.
    pub fn of(space: Space) -> Self {
        let used = space.total.saturating_sub(space.free);
        Self {
            used,
            limit: used.saturating_add(space.available),
        }
    }

    /// The used part in percent, rounded up.
    pub fn percent(&self) -> u8 {
        if self.limit == 0 {
            return 100;
        }
        let percent = (u128::from(self.used) * 100).div_ceil(u128::from(self.limit));
        u8::try_from(percent).unwrap_or(100)
    }
}

/// The facts of a directory, as it stands.
pub(crate) fn of_directory<I: Io>(
    io: &I,
    options: &StoreOptions,
    now_ms: i64,
    manual: bool,
) -> Result<CleanFacts, IoError> {
    let dir = options.commit_log_dir();
    let mut log = Vec::new();
    for name in segment_names(io, &dir)? {
        let path = dir.join(&name);
        if let (Some(base), Some(info)) = (parse_segment_name(name.as_ref()), io.metadata(&path)?) {
            log.push(log_file(path, base, &info));
        }
    }
    Ok(with_disks(io, options, now_ms, manual, log))
}

/// Facts of these files, with the clock read and the disks asked.
pub(crate) fn with_disks<I: Io>(
    io: &I,
    options: &StoreOptions,
    now_ms: i64,
    manual: bool,
    log: Vec<LogFile>,
) -> CleanFacts {
    let log_space = space_at(io, &options.commit_log_dir());
    let queue_space = space_at(io, &options.queue_dir());
    CleanFacts {
        now_ms,
        local_hour: local_hour(now_ms),
        log,
        settled: u64::MAX,
        log_disk: log_space.map(DiskUse::of),
        queue_disk: queue_space.map(DiskUse::of),
        shared_disk: log_space.map(|space| space.id) == queue_space.map(|space| space.id),
        manual,
    }
}

/// The disk that holds `path`, or will: that of the first directory above that is there.
pub(crate) fn space_at<I: Io>(io: &I, path: &Path) -> Option<Space> {
    path.ancestors().find_map(|path| io.space(path).ok())
}

pub(crate) fn log_file(path: PathBuf, base: u64, info: &FileInfo) -> LogFile {
    let since_1970 = info.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    LogFile {
        path,
        base,
        len: info.len,
        modified_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
    }
}

/// The names of the segment files in `dir`, which need not exist, in order.
pub(crate) fn segment_names<I: Io>(io: &I, dir: &Path) -> Result<Vec<String>, IoError> {
    let entries = match io.list(dir) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        entries => entries?,
    };
    let files = entries
        .into_iter()
        .filter(|entry| entry.kind == FileKind::File && parse_segment_name(&entry.name).is_some());
    Ok(files
        .filter_map(|entry| entry.name.into_string().ok())
        .collect())
}

/// The hour of the day where the machine is.
pub(crate) fn local_hour(now_ms: i64) -> u8 {
    let moment = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let hour = moment.to_zoned(TimeZone::system()).hour();
    u8::try_from(hour).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_used_part_is_rounded_up_and_leaves_out_what_is_reserved() {
        let percent = |total, free, available| {
            DiskUse::of(Space {
                total,
                free,
                available,
                id: 0,
            })
            .percent()
        };
        assert_eq!(percent(1000, 500, 500), 50);
        assert_eq!(percent(1000, 499, 499), 51);
        // 100 of 1000 are reserved: 600 used of 900.
        assert_eq!(percent(1000, 400, 300), 67);
        assert_eq!(percent(1000, 0, 0), 100);
        assert_eq!(percent(1000, 1000, 1000), 0);
        assert_eq!(percent(0, 0, 0), 100);
        assert_eq!(percent(u64::MAX, 0, 0), 100);
    }
}

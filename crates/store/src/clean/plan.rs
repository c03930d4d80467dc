//! The decision, as a function of facts and options.

use std::fmt;

use super::derived::{DerivedFile, DerivedKind};
use super::facts::{CleanFacts, DiskUse, LogFile};
use super::options::CleanOptions;

/// What one round of cleaning does, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanPlan {
    /// Why files may go now; none, and nothing goes.
    pub triggers: Vec<Trigger>,
    /// How full the disks are, by the fuller one.
    pub pressure: Pressure,
    /// Files may go before their time.
    pub forced: bool,
    /// Every file of the log, oldest first, and what becomes of it.
    pub log: Vec<PlannedFile>,
    /// Where the log begins afterwards.
    pub log_min: u64,
    /// What goes along with it. Filled by [`plan_clean`](super::plan_clean) alone: it takes reading
    /// files.
    pub derived: Vec<DerivedFile>,
    /// The disk of the log.
    pub log_disk: Option<DiskUse>,
    /// The disk of the consume queues.
    pub queue_disk: Option<DiskUse>,
}

/// Why files may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// It is one of the hours for it.
    Hour {
        /// This hour.
        hour: u8,
    },
    /// A disk is fuller than `max_used_percent`.
    Space {
        /// Its use.
        used_percent: u8,
        /// What is allowed.
        limit_percent: u8,
    },
    /// A disk does not say how full it is. RocketMQ takes that for full enough.
    SpaceUnknown,
    /// Somebody asked for it.
    Manual,
    /// The log is longer than it may be.
    Length {
        /// Its length in bytes.
        len: u64,
        /// What is allowed.
        limit: u64,
    },
}

/// How full the disks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Below every mark.
    None,
    /// Above `max_used_percent`: files go as soon as they are old enough.
    High,
    /// Above `forced_percent`: files go before their time.
    Forced,
    /// Above `full_percent`: no more messages are taken either (RocketMQ: `DISK_FULL`).
    Full,
}

/// A file of the log and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// The file.
    pub file: LogFile,
    /// What becomes of it, and why.
    pub verdict: Verdict,
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Goes(Gone),
    /// It stays.
    Stays(Kept),
}

/// Why a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It is older than it has to be.
    Expired {
        /// Milliseconds since it was written.
        age_ms: i64,
    },
    /// The disk is too full.
    Forced {
        /// The fuller disk's use.
        used_percent: u8,
        /// Above which files go before their time.
        limit_percent: u8,
    },
    /// The log is too long.
    Length {
        /// Bytes of the log from this file on.
        len: u64,
        /// What is allowed.
        limit: u64,
    },
}

/// Why a file stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The last file always does.
    Last,
    /// It is not old enough.
    Young {
        /// When it will be, Unix time in milliseconds.
        expires_ms: i64,
    },
    /// It is old enough, but it is not the hour, and the disk is not full enough.
    NotNow,
    /// This round has deleted as many as it may.
    Batch,
    /// What it holds is not synced, or has no queue entries yet.
    Unsettled,
    /// A file before it stays: only a prefix goes.
    Behind,
}

impl CleanPlan {
    /// The files of the log that go.
    pub fn removed(&self) -> impl Iterator<Item = &PlannedFile> {
        self.log.iter().filter(|file| file.verdict.is_removed())
    }

    /// The files of the log that stay.
    pub fn kept(&self) -> impl Iterator<Item = &PlannedFile> {
        self.log.iter().filter(|file| !file.verdict.is_removed())
    }

    /// Bytes that become free, once nobody reads the files any more.
    pub fn freed_bytes(&self) -> u64 {
        let log: u64 = self.removed().map(|planned| planned.file.len).sum();
        log + self.derived.iter().map(|file| file.len).sum::<u64>()
    }
}

impl Verdict {
    /// Whether the file goes.
    pub fn is_removed(&self) -> bool {
        matches!(self, Self::Goes(_))
    }
}

/// Decides what one round of cleaning does.
pub fn plan(facts: &CleanFacts, options: &CleanOptions) -> CleanPlan {
    let fullest = [facts.log_disk, facts.queue_disk]
        .into_iter()
        .flatten()
        .map(|disk| disk.percent())
        .max();
    let pressure = pressure(fullest, options);
    let log_len: u64 = facts.log.iter().map(|file| file.len).sum();
    let mut plan = CleanPlan {
        triggers: triggers(facts, options, fullest, log_len),
        pressure,
        forced: options.forced_enabled && pressure >= Pressure::Forced,
        log: Vec::with_capacity(facts.log.len()),
        log_min: facts.log.first().map_or(0, |file| file.base),
        derived: Vec::new(),
        log_disk: facts.log_disk,
        queue_disk: facts.queue_disk,
    };
    let mut round = Round {
        facts,
        options,
        is_time: !plan.triggers.is_empty(),
        forced: plan.forced.then_some(fullest.unwrap_or(100)),
        len_left: log_len,
        removed: 0,
        freed: 0,
        is_prefix: true,
    };
    for (position, file) in facts.log.iter().enumerate() {
        let is_last = position + 1 == facts.log.len();
        let verdict = round.judge(file, is_last);
        if verdict.is_removed() {
            plan.log_min = file.end();
        }
        plan.log.push(PlannedFile {
            file: file.clone(),
            verdict,
        });
    }
    plan
}

fn pressure(used_percent: Option<u8>, options: &CleanOptions) -> Pressure {
    match used_percent {
        Some(used) if used > options.full_percent() => Pressure::Full,
        Some(used) if used > options.forced_percent() => Pressure::Forced,
        Some(used) if used > options.max_used_percent() => Pressure::High,
        _ => Pressure::None,
    }
}

fn triggers(
    facts: &CleanFacts,
    options: &CleanOptions,
    fullest: Option<u8>,
    log_len: u64,
) -> Vec<Trigger> {
    let mut triggers = Vec::new();
    if options.delete_when.contains(facts.local_hour) {
        triggers.push(Trigger::Hour {
            hour: facts.local_hour,
        });
    }
    // Each of RocketMQ's three marks does; the lowest one need not be the first of them.
    let marks = [
        options.max_used_percent(),
        options.forced_percent(),
        options.full_percent(),
    ];
    let limit_percent = marks.into_iter().min().unwrap_or(0);
    if let Some(used_percent) = fullest.filter(|used| *used > limit_percent) {
        triggers.push(Trigger::Space {
            used_percent,
            limit_percent,
        });
    }
    if facts.log_disk.is_none() || facts.queue_disk.is_none() {
        triggers.push(Trigger::SpaceUnknown);
    }
    if facts.manual {
        triggers.push(Trigger::Manual);
    }
    if let Some(limit) = options.log_len_max.filter(|limit| log_len > *limit) {
        triggers.push(Trigger::Length {
            len: log_len,
            limit,
        });
    }
    triggers
}

/// The state of going through the files.
struct Round<'a> {
    facts: &'a CleanFacts,
    options: &'a CleanOptions,
    is_time: bool,
    /// The fuller disk's use, if files may go before their time.
    forced: Option<u8>,
    /// Bytes of the log from the file in hand on.
    len_left: u64,
    removed: usize,
    freed: u64,
    is_prefix: bool,
}

impl Round<'_> {
    fn judge(&mut self, file: &LogFile, is_last: bool) -> Verdict {
        let reason = self.reason_to_go(file);
        let verdict = match (self.reason_to_stay(file, is_last), reason) {
            (Some(kept), _) => Verdict::Stays(kept),
            (None, Ok(gone)) => Verdict::Goes(gone),
            (None, Err(kept)) => Verdict::Stays(kept),
        };
        self.len_left = self.len_left.saturating_sub(file.len);
        if verdict.is_removed() {
            self.removed += 1;
            self.freed += file.len;
        } else {
            self.is_prefix = false;
        }
        verdict
    }

    /// What keeps a file whatever its age.
    fn reason_to_stay(&self, file: &LogFile, is_last: bool) -> Option<Kept> {
        if is_last {
            Some(Kept::Last)
        } else if !self.is_prefix {
            // Of a file that would not go anyway its own reason says more.
            self.reason_to_go(file).is_ok().then_some(Kept::Behind)
        } else if file.end() > self.facts.settled {
            Some(Kept::Unsettled)
        } else if self.removed >= self.options.batch_max.max(1) {
            self.reason_to_go(file).is_ok().then_some(Kept::Batch)
        } else {
            None
        }
    }

    fn reason_to_go(&self, file: &LogFile) -> Result<Gone, Kept> {
        let reserved = i64::try_from(self.options.reserved.as_millis()).unwrap_or(i64::MAX);
        let expires_ms = file.modified_ms.saturating_add(reserved);
        let is_expired = self.facts.now_ms >= expires_ms;
        if is_expired && self.is_time {
            let age_ms = self.facts.now_ms.saturating_sub(file.modified_ms);
            return Ok(Gone::Expired { age_ms });
        }
        if let Some(used_percent) = self.forced
            && !self.is_relieved()
        {
            let limit_percent = self.options.forced_percent();
            return Ok(Gone::Forced {
                used_percent,
                limit_percent,
            });
        }
        match self.options.log_len_max {
            Some(limit) if self.len_left > limit => Ok(Gone::Length {
                len: self.len_left,
                limit,
            }),
            _ if is_expired => Err(Kept::NotNow),
            _ => Err(Kept::Young { expires_ms }),
        }
    }

    /// Whether the files that go already bring the log's disk below the mark for forced deletion.
    /// RocketMQ deletes a whole batch before it looks again. A disk of the queues that is too full
    /// is not relieved by a log on another one, which goes on as RocketMQ's does.
    fn is_relieved(&self) -> bool {
        let is_relieved = |disk: Option<DiskUse>, freed: u64| {
            disk.is_none_or(|disk| {
                let used = disk.used.saturating_sub(freed);
                DiskUse { used, ..disk }.percent() <= self.options.forced_percent()
            })
        };
        let freed_of_queues = match self.facts.shared_disk {
            true => self.freed,
            false => 0,
        };
        is_relieved(self.facts.log_disk, self.freed)
            && is_relieved(self.facts.queue_disk, freed_of_queues)
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour { hour } => write!(f, "it is {hour:02} o'clock (deleteWhen)"),
            Self::Space {
                used_percent,
                limit_percent,
            } => write!(
                f,
                "the disk is used by {used_percent} %, above {limit_percent} %"
            ),
            Self::SpaceUnknown => f.write_str("the disk does not say how full it is"),
            Self::Manual => f.write_str("a manual delete was asked for"),
            Self::Length { len, limit } => {
                write!(f, "the log has {len} bytes, {limit} are allowed")
            }
        }
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no",
            Self::High => "high: files go as soon as they are old enough (diskMaxUsedSpaceRatio)",
            Self::Forced => "forced: files go before their time (diskSpaceCleanForciblyRatio)",
            Self::Full => "full: no more messages are taken (diskSpaceWarningLevelRatio)",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goes(gone) => write!(f, "goes: {gone}"),
            Self::Stays(kept) => write!(f, "stays: {kept}"),
        }
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { age_ms } => {
                write!(f, "written {} hours ago (fileReservedTime)", hours(*age_ms))
            }
            Self::Forced {
                used_percent,
                limit_percent,
            } => write!(
                f,
                "the disk is used by {used_percent} %, above {limit_percent} % \
                 (diskSpaceCleanForciblyRatio)"
            ),
            Self::Length { len, limit } => write!(
                f,
                "the log has {len} bytes from here on, {limit} are allowed (foliomq.maxLogBytes)"
            ),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("the last file always does"),
            Self::Young { expires_ms } => {
                let moment = jiff::Timestamp::from_millisecond(*expires_ms);
                match moment {
                    Ok(moment) => write!(f, "not old enough before {moment:.0}"),
                    Err(_) => f.write_str("not old enough"),
                }
            }
            Self::NotNow => f.write_str("old enough; goes in an hour of deleteWhen"),
            Self::Batch => f.write_str("goes in a later round (deleteFileBatchMax)"),
            Self::Unsettled => f.write_str("not synced yet, or without queue entries"),
            Self::Behind => f.write_str("a file before it does"),
        }
    }
}

impl fmt::Display for CleanPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, disk) in [("log", self.log_disk), ("queues", self.queue_disk)] {
            if let Some(disk) = disk {
                writeln!(
                    f,
                    "disk of the {name}: {} of {} bytes used, {} %",
                    disk.used,
                    disk.limit,
                    disk.percent()
                )?;
            }
        }
        writeln!(f, "pressure: {}", self.pressure)?;
        if self.triggers.is_empty() {
            writeln!(
                f,
                "nothing goes now: it is not the hour, and no disk is full"
            )?;
        }
        for trigger in &self.triggers {
            writeln!(f, "files go now: {trigger}")?;
        }
        for planned in &self.log {
            let path = planned.file.path.display();
            writeln!(f, "{path} ({} bytes) {}", planned.file.len, planned.verdict)?;
        }
        for file in &self.derived {
            let DerivedFile {
                path,
                len,
                kind,
                last_offset,
            } = file;
            writeln!(
                f,
                "{} ({len} bytes) goes: {}, its last message lies at {last_offset}",
                path.display(),
                DerivedKind::name(*kind)
            )?;
        }
        write!(
            f,
            "{} files go, {} bytes; the log begins at {} then",
            self.removed().count() + self.derived.len(),
            self.freed_bytes(),
            self.log_min
        )
    }
}

/// Whole hours of a time span.
fn hours(ms: i64) -> i64 {
    ms / 3_600_000
}

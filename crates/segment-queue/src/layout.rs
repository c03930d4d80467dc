//! What segment files a directory holds, found without changing anything.

use std::path::{Path, PathBuf};

use mmap_core::{Access, DirEntry, FileKind, Io, IoFile};

use crate::error::QueueError;
use crate::name::{parse_segment_name, segment_name};
use crate::options::{DamagePolicy, SegmentQueueOptions};

/// Missing segments in one directory above which a gap is not repaired but refused: a crash loses
/// the file being filled and the ones prepared behind it, not more.
pub const MISSING_COUNT_MAX: u64 = 4;

/// The segment files of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// First offsets of the segments that are there in full length, ascending.
    pub bases: Vec<u64>,
    /// The segments that are short or missing, by ascending offset.
    pub damaged: Vec<Damage>,
}

/// A segment file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's first offset.
    pub base: u64,
    /// Its file.
    pub path: PathBuf,
    /// Its length in bytes; `None` if there is no such file.
    pub len: Option<u64>,
}

impl Layout {
    /// Lists a directory. One that does not exist is empty; sub-directories are ignored, as
    /// RocketMQ does.
    ///
    /// # Errors
    /// A file that is no segment, of another configuration, or behind a gap wider than
    /// [`MISSING_COUNT_MAX`] segments.
    pub fn scan<I: Io>(io: &I, options: &SegmentQueueOptions) -> Result<Self, QueueError> {
        options.validate()?;
        let entries = match io.list(&options.dir) {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut layout = Self {
            bases: Vec::new(),
            damaged: Vec::new(),
        };
        for entry in entries
            .iter()
            .filter(|entry| entry.kind != FileKind::Directory)
        {
            layout.add(entry, options)?;
        }
        layout.bases.sort_unstable();
        layout.refuse_other_configuration(options.segment_len)?;
        layout.add_missing(options)?;
        layout.damaged.sort_unstable_by_key(|damage| damage.base);
        Ok(layout)
    }

    fn add(&mut self, entry: &DirEntry, options: &SegmentQueueOptions) -> Result<(), QueueError> {
        let path = options.dir.join(&entry.name);
        let segment_len = options.segment_len;
        let Some(base) = parse_segment_name(&entry.name) else {
            return Err(QueueError::ForeignFile { path });
        };
        if base % segment_len != 0 {
            return Err(QueueError::Misaligned { path, segment_len });
        }
        if entry.len > segment_len {
            return Err(QueueError::SegmentLen {
                path,
                len: entry.len,
                segment_len,
            });
        }
        if entry.len == segment_len {
            self.bases.push(base);
        } else {
            self.damaged.push(Damage {
                base,
                path,
                len: Some(entry.len),
            });
        }
        Ok(())
    }

    /// Short files beside full ones are damage; short ones only were written with another length.
    fn refuse_other_configuration(&self, segment_len: u64) -> Result<(), QueueError> {
        if !self.bases.is_empty() {
            return Ok(());
        }
        let other = self.damaged.iter().find_map(|damage| match damage.len {
            Some(len) if len > 0 => Some((damage.path.clone(), len)),
            _ => None,
        });
        match other {
            Some((path, len)) => Err(QueueError::SegmentLen {
                path,
                len,
                segment_len,
            }),
            None => Ok(()),
        }
    }

    fn add_missing(&mut self, options: &SegmentQueueOptions) -> Result<(), QueueError> {
        let mut present: Vec<u64> = self.bases.clone();
        present.extend(self.damaged.iter().map(|damage| damage.base));
        present.sort_unstable();
        let mut missing_count = 0;
        for pair in present.windows(2) {
            let &[before, next] = pair else { continue };
            let count = (next - before) / options.segment_len - 1;
            missing_count += count;
            let first = before + options.segment_len;
            if missing_count > MISSING_COUNT_MAX {
                return Err(gap(&options.dir, first, next));
            }
            self.damaged.extend((0..count).map(|index| {
                let base = first + index * options.segment_len;
                Damage {
                    base,
                    path: options.dir.join(segment_name(base)),
                    len: None,
                }
            }));
        }
        Ok(())
    }

    /// Makes the directory whole as the policy says; afterwards `bases` has no gap.
    pub(crate) fn repair<I: Io>(
        &mut self,
        io: &I,
        options: &SegmentQueueOptions,
    ) -> Result<(), QueueError> {
        for damage in std::mem::take(&mut self.damaged) {
            match options.damage {
                DamagePolicy::ExtendWithZeros => {
                    extend(io, &damage, options.segment_len)?;
                    self.bases.push(damage.base);
                }
                DamagePolicy::RemoveEmptyLast
                    if damage.len == Some(0) && !self.is_before_another(damage.base) =>
                {
                    io.remove_file(&damage.path)?;
                }
                DamagePolicy::Refuse | DamagePolicy::RemoveEmptyLast => {
                    return Err(self.refusal(damage, options));
                }
            }
            io.sync_dir(&options.dir)?;
        }
        self.bases.sort_unstable();
        Ok(())
    }

    /// Leaves out what a live writer may be creating right now: damage behind the last segment.
    pub(crate) fn leave_out_tail(
        &mut self,
        options: &SegmentQueueOptions,
    ) -> Result<(), QueueError> {
        for damage in std::mem::take(&mut self.damaged) {
            if self.is_before_another(damage.base) {
                return Err(self.refusal(damage, options));
            }
        }
        Ok(())
    }

    fn is_before_another(&self, base: u64) -> bool {
        self.bases.last().is_some_and(|&last| last > base)
    }

    fn refusal(&self, damage: Damage, options: &SegmentQueueOptions) -> QueueError {
        match damage.len {
            Some(len) => QueueError::Damaged {
                path: damage.path,
                len,
                segment_len: options.segment_len,
            },
            None => {
                let next = self.bases.iter().find(|&&base| base > damage.base);
                gap(
                    &options.dir,
                    damage.base,
                    next.copied().unwrap_or(damage.base),
                )
            }
        }
    }
}

/// Gives a short or missing file its full length; what is added reads as zeros.
fn extend<I: Io>(io: &I, damage: &Damage, segment_len: u64) -> Result<(), QueueError> {
    let file = match damage.len {
        None => io.create(&damage.path, segment_len)?,
        Some(_) => {
            let file = io.open(&damage.path, Access::ReadWrite)?;
            file.set_len(segment_len)?;
            file
        }
    };
    file.sync_all()?;
    Ok(())
}

fn gap(dir: &Path, missing: u64, next: u64) -> QueueError {
    QueueError::Gap {
        missing: dir.join(segment_name(missing)),
        next: dir.join(segment_name(next)),
    }
}

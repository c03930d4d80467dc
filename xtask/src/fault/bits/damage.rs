//! What is done to a store, and what it touches.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use mmap_core::Random;

use super::baseline::{Baseline, Record};

/// What a device loses as a whole.
const SECTOR_LEN: u64 = 512;

/// Where the damage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The file, by its path in the store.
    pub(super) path: PathBuf,
    /// The bytes.
    pub(super) range: Range<u64>,
}

/// Damage to one file.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    pub(super) place: Place,
    deed: Deed,
    segment_len: u64,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Flip { bit: u32 },
    Zero,
    Truncate { len: u64 },
}

impl Damage {
    /// Some damage to some file: kinds of files are equally likely, whatever their number.
    pub(super) fn choose(baseline: &Baseline, random: &mut Random) -> Self {
        let mut kinds: Vec<PathBuf> = Vec::new();
        for path in baseline.files.keys() {
            let kind = kind_of(path);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let kind = &kinds[random.below(kinds.len() as u64) as usize];
        let files: Vec<_> = { baseline.files.iter() }
            .filter(|(path, bytes)| kind_of(path) == *kind && !bytes.is_empty())
            .collect();
        let Some((path, bytes)) = files.get(random.below(files.len().max(1) as u64) as usize)
        else {
            return Self::nothing(baseline);
        };
        let len = bytes.len() as u64;
        // Where something is written there is more to damage.
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        let reach = if random.once_in(8) { len } else { written };
        let position = random.below(reach);
        let (range, deed) = match random.below(10) {
            0 => {
                let start = position - position % SECTOR_LEN;
                (start..(start + SECTOR_LEN).min(len), Deed::Zero)
            }
            1 => (position..len, Deed::Truncate { len: position }),
            _ => {
                let bit = random.below(8) as u32;
                (position..position + 1, Deed::Flip { bit })
            }
        };
        Self {
            place: Place {
                path: (*path).clone(),
                range,
            },
            deed,
            segment_len: baseline.segment_len(),
        }
    }

    fn nothing(baseline: &Baseline) -> Self {
        Self {
            place: Place {
                path: PathBuf::from("lock"),
                range: 0..0,
            },
            deed: Deed::Zero,
            segment_len: baseline.segment_len(),
        }
    }

    /// Does it to the store below `root`.
    pub(super) fn apply(&self, root: &Path) -> Result<()> {
        let path = root.join(&self.place.path);
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let start = self.place.range.start;
        match self.deed {
            Deed::Flip { bit } => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, start)?;
                file.write_all_at(&[byte[0] ^ 1 << bit], start)?;
            }
            Deed::Zero => {
                let len = self.place.range.end - start;
                file.write_all_at(&vec![0; len as usize], start)?;
            }
            Deed::Truncate { len } => file.set_len(len)?,
        }
        Ok(())
    }

    /// The bytes of the log that it hits, by offset; `None` for other files.
    pub(super) fn log_range(&self) -> Option<Range<u64>> {
        if !super::is_in_log(&self.place) {
            return None;
        }
        let base: u64 = self.place.path.file_name()?.to_str()?.parse().ok()?;
        let range = &self.place.range;
        let end = range.end.min(self.segment_len);
        Some(base + range.start.min(end)..base + end)
    }

    /// Whether the only file of the log is shorter now: nothing tells that from a log that was
    /// written with another length, which is refused.
    pub(super) fn is_like_another_configuration(&self, baseline: &Baseline) -> bool {
        let Deed::Truncate { len } = self.deed else {
            return false;
        };
        let in_log = |path: &&PathBuf| path.starts_with("commitlog");
        let is_only = baseline.files.keys().filter(in_log).count() == 1;
        super::is_in_log(&self.place) && is_only && len > 0
    }

    /// Whether it touches a record.
    pub(super) fn touches(&self, record: &Record) -> bool {
        let range = self.log_range();
        range.is_some_and(|range| record.offset < range.end && range.start < record.end())
    }

    /// Whether a file is the one that was damaged, or one of the same queue or directory, which may
    /// be where the damage shows.
    pub(super) fn is_near(&self, path: &Path) -> bool {
        let dir = self.place.path.parent();
        path.ends_with(&self.place.path)
            || dir.is_some_and(|dir| {
                dir.components().next().is_some()
                    && path.parent().is_some_and(|parent| parent.ends_with(dir))
            })
            || dir.is_some_and(|dir| {
                let text = dir
                    .to_string_lossy()
                    .replace("consumequeue_ext", "consumequeue");
                path.to_string_lossy().contains(&text) && text.contains("consumequeue")
            })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { path, range } = &self.place;
        match self.deed {
            Deed::Flip { bit } => {
                write!(
                    f,
                    "bit {bit} of byte {} of {} flipped",
                    range.start,
                    path.display()
                )
            }
            Deed::Zero => write!(f, "bytes {range:?} of {} zeroed", path.display()),
            Deed::Truncate { len } => write!(f, "{} cut to {len} bytes", path.display()),
        }
    }
}

/// Files of one kind: the directory below the root, or the file itself.
fn kind_of(path: &Path) -> PathBuf {
    let mut components = path.components();
    let first = components
        .next()
        .map(|first| PathBuf::from(first.as_os_str()));
    first.unwrap_or_default()
}

//! The files of a directory: names, lengths, gaps.

use mmap_core::Io;

use super::Check;
use crate::offline::files::SegmentDir;
use crate::offline::finding::{Finding, FindingKind, Part, Severity};

impl<I: Io> Check<'_, I> {
    /// Reports names that do not belong there, lengths that differ, and missing files.
    pub(super) fn check_layout(&mut self, part: Part, files: &SegmentDir<I>) {
        for path in files.foreign() {
            let detail = "no name of a file of this directory; RocketMQ does not start with it";
            self.report(&Finding::new(
                Severity::Warning,
                FindingKind::ForeignFile,
                part,
                (path.clone(), 0),
                detail,
            ));
        }
        let expected = files.file_len();
        let last = files.files().last().copied();
        for file in files.files() {
            let path = files.path_of(file.base);
            if !file.base.is_multiple_of(expected) {
                let detail = format!("the name is not a multiple of the file length {expected}");
                let kind = FindingKind::ForeignFile;
                self.report(&Finding::new(
                    Severity::Error,
                    kind,
                    part,
                    (path, 0),
                    detail,
                ));
                continue;
            }
            let is_being_made = self.is_live && Some(*file) == last;
            if file.len != expected && !is_being_made {
                // RocketMQ removes an empty last file at its start.
                let severity = match file.len {
                    0 if Some(*file) == last => Severity::Warning,
                    _ => Severity::Error,
                };
                let detail = format!("{} bytes where {expected} are expected", file.len);
                let mut finding = Finding::new(
                    severity,
                    FindingKind::FileLength,
                    part,
                    (path, file.len),
                    detail,
                );
                finding.len = expected.abs_diff(file.len);
                self.report(&finding);
            }
        }
        self.check_gaps(part, files);
    }

    fn check_gaps(&mut self, part: Part, files: &SegmentDir<I>) {
        let expected = files.file_len();
        for pair in files.files().windows(2) {
            let &[before, next] = pair else { continue };
            let end = before.base.saturating_add(expected);
            if next.base <= end {
                continue;
            }
            let count = (next.base - end) / expected;
            let detail = format!(
                "{count} files are missing between {} and {}",
                segment_queue::segment_name(before.base),
                segment_queue::segment_name(next.base)
            );
            let mut finding = Finding::new(
                Severity::Error,
                FindingKind::FileMissing,
                part,
                (files.path_of(end), 0),
                detail,
            );
            (finding.count, finding.len) = (count, next.base - end);
            self.report(&finding);
        }
    }
}

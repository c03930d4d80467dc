//! Keeping aside what recovery is about to cut off or to overwrite.

use std::path::PathBuf;

use mmap_core::{Io, IoError, IoFile};

use crate::error::CallerError;
use crate::scan::Invalid;

/// Where in the log the bytes of a [`Piece`] stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind its end.
    Tail,
    /// In a [`Hole`](crate::Hole), with records behind it.
    Hole,
}

/// Bytes that recovery takes out of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where in the log they stand.
    pub place: Place,
    /// Base offset of the segment.
    pub segment: u64,
    /// Offset of the first byte.
    pub offset: u64,
    /// How many bytes; the zeros behind them are not counted.
    pub len: u64,
    /// Where the log ends.
    pub end: u64,
    /// What stands where the next record should begin, instead of it.
    pub reason: &'a Invalid,
}

/// Somewhere to keep what recovery takes out of the log.
///
/// For each piece, `begin`, then `write` until all its bytes were given, then `finish`. Recovery
/// changes nothing before every piece is finished; an error ends it with nothing changed.
pub trait Quarantine {
    /// Begins a piece.
    ///
    /// # Errors
    ///
    /// It cannot be kept.
    fn begin(&mut self, piece: &Piece<'_>) -> Result<(), CallerError>;

    /// The next bytes of the piece.
    ///
    /// # Errors
    ///
    /// They cannot be kept.
    fn write(&mut self, bytes: &[u8]) -> Result<(), CallerError>;

    /// Ends the piece. On return it **must** be durable.
    ///
    /// # Errors
    ///
    /// It may not survive a crash.
    fn finish(&mut self) -> Result<(), CallerError>;

    /// Something failed, and recovery gives up: the piece that was begun may go.
    fn abandon(&mut self) {}
}

/// A quarantine in a directory: for each piece a file of its bytes, `commitlog-<offset>.bytes`,
/// and beside it a note in plain text, `commitlog-<offset>.note`. A second piece of the same
/// offset gets a number behind it.
#[derive(Debug)]
pub struct DirQuarantine<I: Io> {
    io: I,
    dir: PathBuf,
    kept: Vec<PathBuf>,
    open: Option<OpenPiece<I>>,
}

#[derive(Debug)]
struct OpenPiece<I: Io> {
    file: I::File,
    path: PathBuf,
    written: u64,
    note: String,
    note_path: PathBuf,
}

impl<I: Io> DirQuarantine<I> {
    /// Keeps pieces in `dir`, which is created when there is something to keep.
    pub fn new(io: I, dir: impl Into<PathBuf>) -> Self {
        Self {
            io,
            dir: dir.into(),
            kept: Vec::new(),
            open: None,
        }
    }

    /// The files of bytes that were written.
    pub fn kept(&self) -> &[PathBuf] {
        &self.kept
    }

    /// The first pair of names that is not taken.
    fn free_paths(&self, offset: u64) -> Result<(PathBuf, PathBuf), IoError> {
        let mut number = 0_u64;
        loop {
            let suffix = if number == 0 {
                String::new()
            } else {
                format!("-{number}")
            };
            let bytes = self
                .dir
                .join(format!("commitlog-{offset:020}{suffix}.bytes"));
            if self.io.metadata(&bytes)?.is_none() {
                return Ok((bytes.clone(), bytes.with_extension("note")));
            }
            number += 1;
        }
    }
}

impl<I: Io> Quarantine for DirQuarantine<I> {
    fn begin(&mut self, piece: &Piece<'_>) -> Result<(), CallerError> {
        self.io.create_dir_all(&self.dir)?;
        let (path, note_path) = self.free_paths(piece.offset)?;
        let deed = match piece.place {
            Place::Tail => "cut off the commit log by recovery",
            Place::Hole => "damage taken out of the commit log by recovery; records follow it",
        };
        let note = format!(
            "{deed}\nsegment: {:020}\noffset: {}\nlen: {}\n\
             the log ends at: {}\nreason: {}\n",
            piece.segment, piece.offset, piece.len, piece.end, piece.reason
        );
        let file = self.io.create(&path, piece.len)?;
        self.kept.push(path.clone());
        self.open = Some(OpenPiece {
            file,
            path,
            written: 0,
            note,
            note_path,
        });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CallerError> {
        if let Some(piece) = &mut self.open {
            piece.file.write_all_at(bytes, piece.written)?;
            piece.written += bytes.len() as u64;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), CallerError> {
        if let Some(piece) = &self.open {
            piece.file.sync_all()?;
            // Replacing a file syncs the directory, and with it the name of the other one.
            self.io
                .replace(&piece.note_path, piece.note.as_bytes(), None)?;
        }
        self.open = None;
        Ok(())
    }

    fn abandon(&mut self) {
        if let Some(piece) = self.open.take() {
            self.kept.retain(|kept| *kept != piece.path);
            // On a full disk its blocks are wanted elsewhere. If it stays, it is a copy too many.
            let _stays = self.io.remove_file(&piece.path);
        }
    }
}

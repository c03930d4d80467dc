//! Bytes of files on their way to a socket: four ways, of which none is the best everywhere.
//!
//! [`Way::Copy`] reads into a buffer and writes it; [`Way::SendFile`] lets the kernel take the page
//! cache's own pages; [`Way::Map`] writes from a mapping, a call for each piece; [`Way::Gather`]
//! writes many pieces of mappings with one call. The first two touch no mapping, and what the
//! device cannot read is an error. With the others a page that is not in memory is read in the
//! middle of the call, and one that is unreadable ends it with `EFAULT`.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use crate::error::IoError;
use crate::io::IoFile;
use crate::os::OsFile;

/// Pieces of one vectored write: seven answers to pulls of 32 messages that lie apart (Linux takes
/// 1024, but a list of them is made for each call).
pub const PIECE_COUNT_MAX: usize = 256;

/// A range of an open file, which it keeps open: the bytes can be had when the file has lost its
/// name.
#[derive(Debug)]
pub struct FileRange<F = OsFile> {
    file: Arc<F>,
    offset: u64,
    len: u64,
}

/// How bytes come from a file to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `pread` into a buffer, and `write`.
    Copy,
    /// `sendfile`.
    SendFile,
    /// One `write` for each piece of a mapping.
    Map,
    /// `writev` of many pieces of mappings.
    Gather,
}

/// Whether more follows what is sent: small pieces then wait for it and share a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The end of what there is to send.
    Nothing,
    /// More at once (`MSG_MORE`).
    More,
}

impl<F> FileRange<F> {
    /// The `len` bytes from `offset` of a file.
    pub fn new(file: Arc<F>, offset: u64, len: u64) -> Self {
        Self { file, offset, len }
    }

    /// The file.
    pub fn file(&self) -> &Arc<F> {
        &self.file
    }

    /// Position in the file of the first byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Count of bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves the beginning over bytes that were sent, at most to the end.
    pub fn advance(&mut self, sent: u64) {
        let sent = sent.min(self.len);
        self.offset += sent;
        self.len -= sent;
    }
}

impl<F: IoFile> FileRange<F> {
    /// Appends the bytes to `buf`.
    ///
    /// # Errors
    /// Those of `pread`; `buf` is as it was then.
    pub fn read_to(&self, buf: &mut Vec<u8>) -> Result<(), IoError> {
        let before = buf.len();
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        buf.resize(before.saturating_add(len), 0);
        let read = self.file.read_exact_at(&mut buf[before..], self.offset);
        if read.is_err() {
            buf.truncate(before);
        }
        read
    }
}

impl<F> Clone for FileRange<F> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.file), self.offset, self.len)
    }
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Copy, Self::SendFile, Self::Map, Self::Gather];

    /// Its name, which [`FromStr`] reads back.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::SendFile => "sendfile",
            Self::Map => "map",
            Self::Gather => "gather",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Way {
    type Err = UnknownWay;

    fn from_str(text: &str) -> Result<Self, UnknownWay> {
        let named = Self::ALL.into_iter().find(|way| way.name() == text);
        named.ok_or(UnknownWay)
    }
}

/// A text that names no [`Way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWay;

impl fmt::Display for UnknownWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("copy, sendfile, map or gather")
    }
}

impl std::error::Error for UnknownWay {}

/// Sends ranges by [`Way::Copy`], a `pread` and a `write` for each buffer full, to a socket that
/// blocks. Returns the count of bytes.
///
/// # Errors
/// The file cannot be read, or the peer is gone. A part may have been sent.
pub fn send_copied(socket: impl AsFd, ranges: &[FileRange], buf: &mut [u8]) -> io::Result<u64> {
    let mut total = 0;
    for range in ranges {
        let mut rest = range.clone();
        while !rest.is_empty() {
            let len = usize::try_from(rest.len).map_or(buf.len(), |len| len.min(buf.len()));
            let part = &mut buf[..len];
            let read = rest.file.read_exact_at(part, rest.offset);
            read.map_err(|error| io::Error::new(error.kind(), error))?;
            total += write_all(&socket, part)?;
            rest.advance(len as u64);
        }
    }
    Ok(total)
}

/// Sends ranges by [`Way::SendFile`] to a socket that blocks. Returns the count of bytes.
///
/// # Errors
/// The file cannot be read, or the peer is gone. A part may have been sent.
pub fn send_files(socket: impl AsFd, ranges: &[FileRange]) -> io::Result<u64> {
    let mut total = 0;
    for range in ranges {
        let mut rest = range.clone();
        while !rest.is_empty() {
            let sent = send_file_once(&socket, &rest)? as u64;
            rest.advance(sent);
            total += sent;
        }
    }
    Ok(total)
}

/// Sends pieces by [`Way::Map`] to a socket that blocks. Returns the count of bytes.
///
/// # Errors
/// The peer is gone. A part may have been sent.
pub fn send_mapped(socket: impl AsFd, pieces: &[impl AsRef<[u8]>]) -> io::Result<u64> {
    pieces
        .iter()
        .map(|piece| write_all(&socket, piece.as_ref()))
        .sum()
}

/// Sends pieces by [`Way::Gather`] to a socket that blocks. Returns the count of bytes.
///
/// # Errors
/// The peer is gone. A part may have been sent.
pub fn send_gathered(socket: impl AsFd, pieces: &[impl AsRef<[u8]>]) -> io::Result<u64> {
    let mut total = 0;
    for pieces in pieces.chunks(PIECE_COUNT_MAX) {
        let mut array = [IoSlice::new(&[]); PIECE_COUNT_MAX];
        for (slot, piece) in array.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece.as_ref());
        }
        let mut rest = &mut array[..pieces.len()];
        // Without content, `advance_slices` drops leading empty parts.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let sent = send_pieces_once(&socket, rest, Follows::Nothing)?;
            IoSlice::advance_slices(&mut rest, sent);
            total += sent as u64;
        }
    }
    Ok(total)
}

/// One `sendfile` of what is left of a range; returns how much of it the socket took.
///
/// # Errors
/// `WouldBlock` when a socket that does not block is full; the file cannot be read; the peer is
/// gone; `UnexpectedEof` when the file has become shorter.
pub fn send_file_once(socket: impl AsFd, range: &FileRange) -> io::Result<usize> {
    let count = usize::try_from(range.len).unwrap_or(usize::MAX);
    loop {
        let mut offset = range.offset;
        match rustix::fs::sendfile(&socket, &*range.file, Some(&mut offset), count) {
            Ok(0) if count > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// One vectored write; returns how many bytes the socket took.
///
/// # Errors
/// `WouldBlock` when a socket that does not block is full; the peer is gone.
pub fn send_pieces_once(
    socket: impl AsFd,
    pieces: &[IoSlice<'_>],
    follows: Follows,
) -> io::Result<usize> {
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::MORE, follows == Follows::More);
    loop {
        let mut nothing = SendAncillaryBuffer::default();
        match rustix::net::sendmsg(&socket, pieces, &mut nothing, flags) {
            Ok(0) if pieces.iter().any(|piece| !piece.is_empty()) => {
                return Err(io::ErrorKind::WriteZero.into());
            }
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

fn write_all(socket: impl AsFd, bytes: &[u8]) -> io::Result<u64> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::net::send(&socket, rest, SendFlags::NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => rest = &rest[sent..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(bytes.len() as u64)
}

//! Regions that are written once, from front to back, and read while they grow.
//!
//! The bytes below one published position never change again, so readers hold plain slices of
//! them. The bytes above it are touched only by the one [`Appender`], through raw pointers. A
//! `&mut [u8]` over the map never exists, nor a slice that reaches beyond the published position.
//!
//! # Safety
//! Two deeds, listed in docs/unsafe.md: **U1** makes a slice of published bytes, **U2** copies
//! bytes into the unpublished tail. Both rest on [`RawMap`]'s contract, on there being one
//! appender whose position is never below the published one, and on the promise that nobody else
//! rewrites published bytes of the file, which the directory's lock stands for.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, AsRawFd};
use std::slice;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::io::Access;
use crate::map::{OsMap, RawMap};
use crate::publish::{Published, Tail};
use crate::retire::Held;

/// A mapped range of a file whose bytes are written once and then published by one position.
///
/// A handle: clones are the same region, and the mapping ends with the last of them, of its slices
/// and its appender.
///
/// ```
/// # use mmap_core::{Access, AppendRegion, Io, IoFile, OsIo};
/// # let dir = tempfile::tempdir()?;
/// let file = OsIo.create(&dir.path().join("00000000000000000000"), 4096)?;
/// let (region, mut appender) = AppendRegion::new(file.map(0, 4096, Access::ReadWrite)?, 0);
///
/// let range = appender.write(&[b"one ", b"record"]).expect("4096 bytes are free");
/// assert_eq!(region.bytes(range.clone()), None, "copied, not yet visible");
/// appender.publish();
/// assert_eq!(region.bytes(range), Some(&b"one record"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AppendRegion<M: RawMap = OsMap> {
    shared: Held<Shared<M>>,
}

struct Shared<M: RawMap> {
    map: M,
    /// Moved by the one appender, and never back.
    published: Published,
}

/// The one writer of an [`AppendRegion`].
pub struct Appender<M: RawMap = OsMap> {
    region: AppendRegion<M>,
    /// `published <= position <= len`.
    tail: Tail,
}

/// Published bytes of a region, which keep its mapping alive.
///
/// Cheap to clone (one reference count). As it is `AsRef<[u8]> + Send + 'static` it can back a
/// `bytes::Bytes` (`Bytes::from_owner`).
pub struct MapSlice<M: RawMap = OsMap> {
    region: AppendRegion<M>,
    /// Within the published bytes of `region` at the time of making.
    start: usize,
    len: usize,
}

#[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
impl<M: RawMap> AppendRegion<M> {
    /// A region over `map` of which `published` bytes are there already, and its writer.
    ///
    /// The caller holds the lock of the file's directory: nobody else writes to the file.
    ///
    /// # Panics
    /// If `published` exceeds the map's length, or the map cannot be written.
    pub fn new(map: M, published: usize) -> (Self, Appender<M>) {
        assert!(
            map.access() == Access::ReadWrite,
            "an appender needs a writable mapping"
        );
        let region = Self::read_only(map, published);
        let appender = Appender {
            region: region.clone(),
            tail: Tail::new(published),
        };
        (region, appender)
    }

    /// A region over `map` that nobody of this process appends to.
    ///
    /// The caller holds the lock of the file's directory, or knows that its holder never rewrites
    /// the first `published` bytes.
    ///
    /// # Panics
    /// If `published` exceeds the map's length.
    pub fn read_only(map: M, published: usize) -> Self {
        assert!(
            published <= map.len(),
            "published {published} of a map of {}",
            map.len()
        );
        let published = Published::new(published as u64);
        Self {
            shared: Held::new(Shared { map, published }),
        }
    }

    /// How many bytes, from the front, may be read.
    #[inline]
    pub fn published(&self) -> usize {
        self.shared.published.get() as usize
    }

    /// The bytes of `range`; `None` unless all of them are published.
    #[inline]
    pub fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if !self.shared.published.covers(&range) {
            return None;
        }
        Some(self.published_bytes(range.start, range.end - range.start))
    }

    /// As [`bytes`](AppendRegion::bytes), kept alive by a reference count.
    #[inline]
    pub fn slice(&self, range: Range<usize>) -> Option<MapSlice<M>> {
        if !self.shared.published.covers(&range) {
            return None;
        }
        Some(MapSlice {
            region: self.clone(),
            start: range.start,
            len: range.len(),
        })
    }

    /// The mapping.
    pub fn map(&self) -> &M {
        &self.shared.map
    }

    /// Whether others hold the region, its appender or a slice of it.
    pub fn is_shared(&self) -> bool {
        self.shared.is_shared()
    }

    /// Whether another handle is of the same region.
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        self.shared.is_same(&other.shared)
    }

    /// The mapping's length.
    #[inline]
    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// Bytes that the caller has found to be published before.
    #[inline]
    pub(crate) fn published_bytes(&self, start: usize, len: usize) -> &[u8] {
        debug_assert!(start + len <= self.published());
        // SAFETY: (U1) `start <= published <= len`, so the address stays within the map.
        let pointer = unsafe { self.map().as_ptr().add(start) };
        // SAFETY: (U1) the range ends at or below the published position, which was loaded with
        // Acquire: its bytes are initialised (a file's always are), visible, and not written
        // again by the appender, which only writes at or above it; the map lives as long as
        // `self` does.
        unsafe { slice::from_raw_parts(pointer, len) }
    }
}

impl<M: RawMap> Clone for AppendRegion<M> {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<M: RawMap> fmt::Debug for AppendRegion<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendRegion")
            .field("map", self.map())
            .field("published", &self.published())
            .finish()
    }
}

impl<M: RawMap> Appender<M> {
    /// The region written to.
    pub fn region(&self) -> &AppendRegion<M> {
        &self.region
    }

    /// Where the next byte goes.
    #[inline]
    pub fn position(&self) -> usize {
        self.tail.position()
    }

    /// How many bytes still fit.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.region.len() - self.position()
    }

    /// Copies `parts`, one after the other, to the position and moves it; they become visible
    /// with [`publish`](Appender::publish). `None` when they do not fit: nothing is written then.
    #[inline]
    #[must_use = "None means that nothing was written"]
    pub fn write(&mut self, parts: &[&[u8]]) -> Option<Range<usize>> {
        let range = self.range_of(parts)?;
        self.copy(range.start, parts);
        self.tail.advance_to(range.end);
        Some(range)
    }

    /// As [`write`](Appender::write), but the first [`HEAD_LEN`] bytes of the first part come last,
    /// in one store: whoever finds them in a file whose writer was killed finds the rest as well.
    #[inline]
    #[must_use = "None means that nothing was written"]
    pub fn write_head_last(&mut self, parts: &[&[u8]]) -> Option<Range<usize>> {
        let range = self.range_of(parts)?;
        if let [first, others @ ..] = parts {
            let (head, rest) = first.split_at(first.len().min(HEAD_LEN));
            self.copy(range.start + head.len(), &[rest]);
            self.copy(range.start + first.len(), others);
            // The processor finishes what came before in the program when it is interrupted; only
            // the compiler could turn it around.
            compiler_fence(Ordering::SeqCst);
            self.copy(range.start, &[head]);
        }
        self.tail.advance_to(range.end);
        Some(range)
    }

    /// Where the parts go, if they fit.
    #[inline]
    fn range_of(&self, parts: &[&[u8]]) -> Option<Range<usize>> {
        let len = parts
            .iter()
            .fold(0_usize, |len, part| len.saturating_add(part.len()));
        let start = self.position();
        (len <= self.remaining()).then(|| start..start + len)
    }

    /// Copies the parts, one after the other, to `start`, which is at or above the position.
    ///
    /// # Panics
    /// If they reach beyond the map.
    #[inline]
    fn copy(&mut self, start: usize, parts: &[&[u8]]) {
        #[cfg(feature = "failpoints")]
        let parts = &in_halves(parts)[..];
        let map = self.region.map();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        assert!(self.tail.may_write(start, len, map.len()));
        let guard = map.begin_write(start, len);
        let mut end = start;
        for part in parts {
            failpoint!("mmap_core.append");
            // SAFETY: (U2) the parts fit (checked above), so that `end` stays within the map.
            let target = unsafe { map.as_ptr().add(end) };
            // SAFETY: (U2) the target range ends within the map, which is writable (checked by
            // `new`) and lives as long as the region. It lies at or above the published position,
            // where no slice reaches, and `&mut self` is the only writer there is: nothing else in
            // this process refers to it, `part` included, so that the two do not overlap.
            unsafe { target.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            end += part.len();
        }
        drop(guard);
    }

    /// Stores a zero at `position`, where nothing was written yet, so that its page is there.
    ///
    /// # Panics
    /// If it is below the appender's position or not within the map.
    pub(crate) fn touch(&mut self, position: usize) {
        self.copy(position, &[&[0]]);
    }

    /// Reads from a socket, pipe or file straight to the position, at most `len_max` bytes and what
    /// fits, and moves it; they become visible with [`publish`](Appender::publish). Returns how
    /// many came: 0 at the end of the source, or when nothing fits.
    ///
    /// # Errors
    /// Those of `read`; nothing is moved then. Bytes behind the position may have changed.
    pub fn read_from(&mut self, source: impl AsFd, len_max: usize) -> io::Result<usize> {
        let len = len_max.min(self.remaining());
        let map = self.region.map();
        let guard = map.begin_write(self.position(), len);
        // SAFETY: (U2) `position <= len` of the map, so that the address stays within it.
        let target = unsafe { map.as_ptr().add(self.position()) };
        let source = source.as_fd().as_raw_fd();
        let read = loop {
            // SAFETY: (U2) the kernel writes at most `len` bytes, which fit, to the unpublished
            // tail of a writable map, where no slice reaches; `&mut self` is the only writer. The
            // descriptor is borrowed for the call.
            let read = unsafe { libc::read(source, target.cast(), len) };
            match usize::try_from(read) {
                Ok(read) => break read,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        };
        drop(guard);
        self.tail.advance_to(self.position() + read);
        Ok(read)
    }

    /// Moves over `len` bytes that were written to the file by other means, or that stay as they
    /// are.
    ///
    /// # Panics
    /// If fewer bytes remain.
    pub fn skip(&mut self, len: usize) {
        assert!(
            len <= self.remaining(),
            "skip {len} of {} remaining bytes",
            self.remaining()
        );
        self.tail.advance_to(self.position() + len);
    }

    /// Lets readers see all that was written.
    #[inline]
    pub fn publish(&mut self) {
        failpoint!("mmap_core.publish");
        self.tail.publish(&self.region.shared.published);
    }
}

/// Bytes that [`Appender::write_head_last`] writes last.
pub const HEAD_LEN: usize = 8;

/// So that a failpoint stands in the middle of each part.
#[cfg(feature = "failpoints")]
fn in_halves<'a>(parts: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let halves = parts.iter().map(|part| part.split_at(part.len() / 2));
    halves.flat_map(|(first, rest)| [first, rest]).collect()
}

impl<M: RawMap> fmt::Debug for Appender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender")
            .field("region", &self.region)
            .field("position", &self.position())
            .finish()
    }
}

impl<M: RawMap> MapSlice<M> {
    /// A part of this slice; `None` when `range` is not within it.
    #[inline]
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        let (start, len) = (self.start + range.start, range.end - range.start);
        Some(Self {
            region: self.region.clone(),
            start,
            len,
        })
    }

    /// As [`slice`](MapSlice::slice), without taking a reference count of its own.
    ///
    /// # Panics
    /// If `range` is not within the slice.
    #[inline]
    #[must_use]
    pub fn into_slice(mut self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "slice out of range"
        );
        self.start += range.start;
        self.len = range.end - range.start;
        self
    }

    /// The region sliced.
    pub fn region(&self) -> &AppendRegion<M> {
        &self.region
    }

    /// Which positions of the region these bytes are.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

impl<M: RawMap> Clone for MapSlice<M> {
    fn clone(&self) -> Self {
        Self {
            region: self.region.clone(),
            start: self.start,
            len: self.len,
        }
    }
}

impl<M: RawMap> Deref for MapSlice<M> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.region.published_bytes(self.start, self.len)
    }
}

impl<M: RawMap> AsRef<[u8]> for MapSlice<M> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<M: RawMap> fmt::Debug for MapSlice<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapSlice")
            .field("region", &self.region)
            .field("range", &self.range())
            .finish()
    }
}

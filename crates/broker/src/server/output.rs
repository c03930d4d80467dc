//! What a connection has still to send: headers and small bodies back to back in one buffer, with
//! large payloads between them that are sent from where they lie.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mmap_core::transfer::{FileRange, Follows, PIECE_COUNT_MAX, send_file_once, send_pieces_once};
use mmap_core::{MapParts, MapSlice};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

/// Unsent bytes of one connection, in the order in which they are to go out.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Headers and small bodies.
    bytes: Vec<u8>,
    /// Payloads, each to go out after the bytes before its position.
    payloads: VecDeque<Payload>,
    /// Bytes of `bytes` that have been sent.
    sent: usize,
    /// Unsent payload bytes.
    payload_len: usize,
}

#[derive(Debug)]
struct Payload {
    /// Position in `bytes` before which it goes out.
    position: usize,
    content: Content,
    /// Bytes of it that have been sent; of parts, of the one that is next.
    sent: usize,
    /// Parts of it that have been sent whole.
    parts_sent: usize,
    /// Bytes of it that have not been sent.
    unsent_len: usize,
}

/// Bytes that are sent from where they lie.
#[derive(Debug)]
pub enum Content {
    /// A part of a mapped file; the mapping lives until it is sent.
    Mapped(MapSlice),
    /// Several parts of a mapped file, the same.
    Parts(MapParts),
    /// The same, to be sent by a call of its own.
    MappedAlone(MapSlice),
    /// A part of a file, sent by the kernel from its page cache; the file stays open until then.
    File(FileRange),
    /// Bytes of our own.
    Owned(Vec<u8>),
}

/// Where bytes go: a socket.
pub(super) trait Sink {
    /// Sends what it takes of some pieces with one call.
    fn poll_send_pieces(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        follows: Follows,
    ) -> Poll<io::Result<usize>>;

    /// Sends what it takes of a range of a file with one call.
    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        range: &FileRange,
    ) -> Poll<io::Result<usize>>;
}

impl Sink for TcpStream {
    fn poll_send_pieces(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        follows: Follows,
    ) -> Poll<io::Result<usize>> {
        match follows {
            Follows::Nothing => Pin::new(self).poll_write_vectored(cx, pieces),
            Follows::More => {
                poll_call(self, cx, |socket| send_pieces_once(socket, pieces, follows))
            }
        }
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        range: &FileRange,
    ) -> Poll<io::Result<usize>> {
        poll_call(self, cx, |socket| send_file_once(socket, range))
    }
}

/// A system call on a socket, once it is ready for it.
fn poll_call(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    call: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, || call(socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

impl Content {
    /// Count of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Mapped(slice) | Self::MappedAlone(slice) => slice.len(),
            Self::Parts(parts) => parts.byte_len(),
            Self::File(range) => usize::try_from(range.len()).unwrap_or(usize::MAX),
            Self::Owned(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Payload {
    /// The unsent bytes of the content, or of one of its parts; `None` behind the last of them, and
    /// where the kernel has them.
    fn unsent(&self, part: usize) -> Option<&[u8]> {
        let bytes: &[u8] = match &self.content {
            Content::Parts(parts) => parts.get(part)?,
            Content::Mapped(slice) | Content::MappedAlone(slice) if part == 0 => slice,
            Content::Owned(bytes) if part == 0 => bytes,
            _ => return None,
        };
        let sent = if part == self.parts_sent {
            self.sent
        } else {
            0
        };
        bytes.get(sent..)
    }

    /// Takes note of bytes that have been sent, at most the unsent ones.
    fn advance(&mut self, sent: usize) {
        self.unsent_len -= sent;
        self.sent += sent;
        if let Content::Parts(parts) = &self.content {
            while let Some(part) = parts.get(self.parts_sent)
                && self.sent >= part.len()
            {
                self.sent -= part.len();
                self.parts_sent += 1;
            }
        }
    }

    fn goes_alone(&self) -> bool {
        matches!(self.content, Content::MappedAlone(_) | Content::File(_))
    }

    fn is_in_kernel(&self) -> bool {
        matches!(self.content, Content::File(_))
    }
}

impl Output {
    /// The buffer to append headers and small bodies to.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a payload without copying it.
    pub(super) fn push_payload(&mut self, content: Content) {
        let len = content.len();
        if len > 0 {
            self.payload_len += len;
            self.payloads.push_back(Payload {
                position: self.bytes.len(),
                content,
                sent: 0,
                parts_sent: 0,
                unsent_len: len,
            });
        }
    }

    /// Unsent bytes.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.payload_len
    }

    /// Whether everything has been sent.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the output a buffer to use; returns the one it had if nothing in it is unsent.
    pub(super) fn swap_buffer(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        debug_assert!(self.is_empty());
        self.sent = 0;
        let mut old = std::mem::replace(&mut self.bytes, buffer);
        self.bytes.clear();
        old.clear();
        old
    }

    /// Sends what the socket takes, in as few system calls as possible. Ready when all is sent.
    ///
    /// # Errors
    /// The peer is gone, or a file cannot be read.
    pub(super) fn poll_send(
        &mut self,
        socket: &mut impl Sink,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while !self.is_empty() {
            match self.poll_send_some(socket, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => {
                    self.advance(sent);
                    total += sent;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if total > 0 => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(total))
    }

    /// One call: the range of a file that is next, or what stands before the next one.
    fn poll_send_some(
        &self,
        socket: &mut impl Sink,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(Payload {
            position,
            content: Content::File(range),
            sent,
            ..
        }) = self.payloads.front()
            && *position == self.sent
        {
            let mut unsent = range.clone();
            unsent.advance(*sent as u64);
            return socket.poll_send_file(cx, &unsent);
        }
        let mut pieces = [IoSlice::new(&[]); PIECE_COUNT_MAX];
        let (count, follows) = self.pieces(&mut pieces);
        socket.poll_send_pieces(cx, &pieces[..count], follows)
    }

    /// Fills `pieces` with the unsent bytes in order, up to a payload that goes alone; returns how
    /// many it used, and whether such a one follows.
    fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> (usize, Follows) {
        let mut count = 0;
        let mut position = self.sent;
        for payload in &self.payloads {
            if count + 2 > pieces.len() {
                return (count, Follows::Nothing);
            }
            if payload.position > position {
                pieces[count] = IoSlice::new(&self.bytes[position..payload.position]);
                position = payload.position;
                count += 1;
            }
            if payload.goes_alone() && count > 0 || payload.is_in_kernel() {
                return (count, Follows::More);
            }
            for part in payload.parts_sent.. {
                let Some(unsent) = payload.unsent(part) else {
                    break;
                };
                if count == pieces.len() {
                    return (count, Follows::Nothing);
                }
                pieces[count] = IoSlice::new(unsent);
                count += 1;
            }
            if payload.goes_alone() {
                return (count, Follows::Nothing);
            }
        }
        if position < self.bytes.len() && count < pieces.len() {
            pieces[count] = IoSlice::new(&self.bytes[position..]);
            count += 1;
        }
        (count, Follows::Nothing)
    }

    fn advance(&mut self, mut sent: usize) {
        while let Some(payload) = self.payloads.front_mut() {
            let before = payload.position - self.sent;
            if sent < before {
                break;
            }
            sent -= before;
            self.sent = payload.position;
            let unsent = payload.unsent_len;
            if sent < unsent {
                payload.advance(sent);
                self.payload_len -= sent;
                return;
            }
            sent -= unsent;
            self.payload_len -= unsent;
            self.payloads.pop_front();
        }
        self.sent += sent;
        debug_assert!(self.sent <= self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mmap_core::{Access, AppendRegion, Io, IoFile, OsIo};
    use proptest::prelude::*;

    use super::*;

    /// A socket that takes so many bytes at a time, then one pause, and so on.
    struct Trickle {
        steps: Vec<usize>,
        next: usize,
        taken: Vec<u8>,
    }

    impl Trickle {
        fn poll_take(&mut self, offered: &[u8]) -> Poll<io::Result<usize>> {
            let step = self.steps[self.next % self.steps.len()];
            self.next += 1;
            if step == 0 {
                return Poll::Pending;
            }
            let count = step.min(offered.len());
            self.taken.extend_from_slice(&offered[..count]);
            Poll::Ready(Ok(count))
        }
    }

    impl Sink for Trickle {
        fn poll_send_pieces(
            &mut self,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
            _: Follows,
        ) -> Poll<io::Result<usize>> {
            assert!(!pieces.is_empty());
            let all: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece.iter().copied())
                .collect();
            self.poll_take(&all)
        }

        fn poll_send_file(
            &mut self,
            _: &mut Context<'_>,
            range: &FileRange,
        ) -> Poll<io::Result<usize>> {
            let mut all = Vec::new();
            range.read_to(&mut all).unwrap();
            self.poll_take(&all)
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Item {
        Bytes,
        Owned,
        Mapped,
        Parts,
        Alone,
        File,
    }

    fn item() -> impl Strategy<Value = Item> {
        prop::sample::select(vec![
            Item::Bytes,
            Item::Owned,
            Item::Mapped,
            Item::Parts,
            Item::Alone,
            Item::File,
        ])
    }

    proptest! {
        #[test]
        fn bytes_go_out_in_order_however_the_socket_takes_them(
            items in prop::collection::vec((item(), 0usize..40), 0..200),
            mut steps in prop::collection::vec(0usize..50, 1..8),
        ) {
            steps.push(7);
            let dir = tempfile::tempdir().unwrap();
            let file = OsIo.create(&dir.path().join("f"), 4096).unwrap();
            let in_file: Vec<u8> = (0..4096).map(|position| (position % 251) as u8).collect();
            file.write_all_at(&in_file, 0).unwrap();
            let region = AppendRegion::read_only(file.map(0, 4096, Access::ReadOnly).unwrap(), 4096);
            let file = Arc::new(file);
            let mut socket = Trickle { steps, next: 0, taken: Vec::new() };
            let mut output = Output::default();
            let mut expected = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for (index, (kind, len)) in items.into_iter().enumerate() {
                let range = index * 11..index * 11 + len;
                let content = in_file[range.clone()].to_vec();
                expected.extend_from_slice(&content);
                let slice = region.slice(range.clone()).unwrap();
                let in_file = FileRange::new(Arc::clone(&file), range.start as u64, len as u64);
                match kind {
                    Item::Bytes => output.bytes_mut().extend_from_slice(&content),
                    Item::Owned => output.push_payload(Content::Owned(content)),
                    Item::Mapped => output.push_payload(Content::Mapped(slice)),
                    Item::Parts => {
                        let whole = region.slice(0..4096).unwrap();
                        let mut parts = MapParts::of(&whole, 0);
                        let halves = [range.start..range.start + len / 2, range.start + len / 2 + 1..range.end];
                        for half in halves {
                            if !half.is_empty() {
                                parts.push(&whole, half);
                            }
                        }
                        expected.truncate(expected.len() - len);
                        expected.extend(parts.iter().flatten());
                        output.push_payload(Content::Parts(parts));
                    }
                    Item::Alone => output.push_payload(Content::MappedAlone(slice)),
                    Item::File => output.push_payload(Content::File(in_file)),
                }
                if index % 5 == 0 {
                    let _ = output.poll_send(&mut socket, &mut cx);
                }
                prop_assert_eq!(output.len(), expected.len() - socket.taken.len());
            }
            for _ in 0..10_000 {
                if output.is_empty() {
                    break;
                }
                let _ = output.poll_send(&mut socket, &mut cx);
            }
            prop_assert_eq!(&socket.taken, &expected);
            prop_assert!(output.bytes_mut().is_empty());
        }
    }
}

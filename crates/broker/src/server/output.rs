//! What a connection has still to send: headers and small bodies back to back in one buffer, with
//! large payloads between them that are sent from where they lie.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use mmap_core::MapSlice;
use tokio::io::AsyncWrite;

/// Most pieces of one vectored write (Linux takes 1024; more than this is never worth it).
const PIECE_COUNT_MAX: usize = 64;

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
    /// Bytes of it that have been sent.
    sent: usize,
}

/// Bytes that are sent from where they lie.
#[derive(Debug)]
pub enum Content {
    /// A part of a mapped file; the mapping lives until it is sent.
    Mapped(MapSlice),
    /// Bytes of our own.
    Owned(Vec<u8>),
}

impl Content {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(slice) => slice,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Payload {
    fn unsent(&self) -> &[u8] {
        &self.content.bytes()[self.sent..]
    }
}

impl Output {
    /// The buffer to append headers and small bodies to.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a payload without copying it.
    pub(super) fn push_payload(&mut self, content: Content) {
        let len = content.bytes().len();
        if len > 0 {
            self.payload_len += len;
            self.payloads.push_back(Payload {
                position: self.bytes.len(),
                content,
                sent: 0,
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
    /// The peer is gone.
    pub(super) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while !self.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECE_COUNT_MAX];
            let count = self.pieces(&mut pieces);
            match Pin::new(&mut *socket).poll_write_vectored(cx, &pieces[..count]) {
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

    /// Fills `pieces` with the unsent bytes in order; returns how many it used.
    fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        let mut position = self.sent;
        for payload in &self.payloads {
            if count + 2 > pieces.len() {
                return count;
            }
            if payload.position > position {
                pieces[count] = IoSlice::new(&self.bytes[position..payload.position]);
                position = payload.position;
                count += 1;
            }
            pieces[count] = IoSlice::new(payload.unsent());
            count += 1;
        }
        if position < self.bytes.len() && count < pieces.len() {
            pieces[count] = IoSlice::new(&self.bytes[position..]);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut sent: usize) {
        while let Some(payload) = self.payloads.front_mut() {
            let before = payload.position - self.sent;
            if sent < before {
                break;
            }
            sent -= before;
            self.sent = payload.position;
            let unsent = payload.unsent().len();
            if sent < unsent {
                payload.sent += sent;
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
    use proptest::prelude::*;

    use super::*;

    /// A socket that takes so many bytes at a time, then one pause, and so on.
    struct Trickle {
        steps: Vec<usize>,
        next: usize,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Trickle {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let step = self.steps[self.next % self.steps.len()];
            self.next += 1;
            if step == 0 {
                return Poll::Pending;
            }
            let all: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece.iter().copied())
                .collect();
            let count = step.min(all.len());
            self.taken.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn bytes_go_out_in_order_however_the_socket_takes_them(
            items in prop::collection::vec((any::<bool>(), 0usize..40), 0..200),
            mut steps in prop::collection::vec(0usize..50, 1..8),
        ) {
            steps.push(7);
            let mut socket = Trickle { steps, next: 0, taken: Vec::new() };
            let mut output = Output::default();
            let mut expected = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for (index, (is_payload, len)) in items.into_iter().enumerate() {
                let content = vec![index as u8; len];
                expected.extend_from_slice(&content);
                if is_payload {
                    output.push_payload(Content::Owned(content));
                } else {
                    output.bytes_mut().extend_from_slice(&content);
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

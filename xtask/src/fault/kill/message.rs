//! Messages that tell who they are: a body, and so every byte of it, follows from an identity.

use std::fmt;

use anyhow::{Context, Result, ensure};
use mmap_core::Random;

/// Bytes at the beginning of a body: identity, topic, queue.
const HEAD_LEN: usize = 8 + 2 + 1;

/// In the place of the queue, when the client chooses it.
pub const ANY_QUEUE: u8 = u8::MAX;

/// Which message of which producer: the producer's number, then the message's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(u64);

const SEQUENCE_BITS: u32 = 48;

impl Identity {
    /// The message with this number of this producer.
    pub fn new(producer: u16, sequence: u64) -> Self {
        Self(u64::from(producer) << SEQUENCE_BITS | sequence)
    }

    /// The key that finds it.
    pub fn key(self) -> String {
        format!("k{:x}", self.0)
    }

    /// The body of this message in a topic and queue: mostly short, now and then many pages.
    pub fn body(self, topic: usize, queue: u8) -> Vec<u8> {
        let mut state = mix(self.0);
        let len = HEAD_LEN as u64
            + match state % 64 {
                0 => state >> 40 & 0x3FFF,
                1..=8 => state >> 40 & 0xFFF,
                _ => state >> 40 & 0x1FF,
            };
        let mut body = Vec::with_capacity(len as usize + 8);
        body.extend_from_slice(&self.0.to_be_bytes());
        body.extend_from_slice(&(topic as u16).to_be_bytes());
        body.push(queue);
        while (body.len() as u64) < len {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            body.extend_from_slice(&mix(state).to_be_bytes());
        }
        body.truncate(len as usize);
        body
    }

    /// Who a body says it is, if every byte of it is as that message had it, in this topic and
    /// queue.
    pub fn of_body(body: &[u8], topic: usize, queue: i32) -> Result<Self> {
        let head = body
            .first_chunk::<HEAD_LEN>()
            .with_context(|| format!("a body of {} bytes", body.len()))?;
        let [identity @ .., _, _, named_queue] = head;
        let identity = Self(u64::from_be_bytes(*identity));
        ensure!(
            *named_queue == ANY_QUEUE || i32::from(*named_queue) == queue,
            "a message for queue {named_queue}"
        );
        ensure!(
            body == identity.body(topic, *named_queue),
            "{identity:?} with {} bytes is not as it was sent",
            body.len()
        );
        Ok(identity)
    }
}

/// Scatters the bits of a number.
fn mix(number: u64) -> u64 {
    Random::new(number).next()
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequence = self.0 & ((1 << SEQUENCE_BITS) - 1);
        write!(f, "message {sequence} of {}", self.0 >> SEQUENCE_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_whose_it_is() {
        let identity = Identity::new(3, 17);
        assert_eq!(format!("{identity:?}"), "message 17 of 3");
        let mut body = identity.body(5, 2);
        assert_eq!(Identity::of_body(&body, 5, 2).ok(), Some(identity));
        assert!(Identity::of_body(&body, 5, 1).is_err(), "another queue");
        assert!(Identity::of_body(&body, 4, 2).is_err(), "another topic");
        if let Some(last) = body.last_mut() {
            *last ^= 1;
        }
        assert!(Identity::of_body(&body, 5, 2).is_err(), "a flipped bit");
        let anywhere = identity.body(5, ANY_QUEUE);
        assert!(Identity::of_body(&anywhere, 5, 3).is_ok());
    }
}

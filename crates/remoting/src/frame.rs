//! Cutting a byte stream into frames.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length: bytes that follow this word |
//! | 4 | 1 | serialize type: 0 JSON, 1 ROCKETMQ |
//! | 5 | 3 | header length |
//! | 8 | header length | header |
//! | 8 + header length | the rest | body |
//!
//! All integers big-endian (RocketMQ 5.3.3 `NettyDecoder`, `RemotingCommand`).

use crate::error::FrameError;

/// Longest frame accepted by default, in bytes with its length word: 16 MiB, as
/// `com.rocketmq.remoting.frameMaxLength` has it.
pub const FRAME_LEN_MAX: usize = 16 * 1_024 * 1_024;

/// Bytes of a frame before its header: length word, serialize type and header length.
pub const FRAME_PREFIX_LEN: usize = LENGTH_LEN + 4;

/// The longest header whose length 24 bits hold.
pub(crate) const HEADER_LEN_MAX: usize = (1 << 24) - 1;

/// Bytes of the length word.
const LENGTH_LEN: usize = 4;

/// How a frame's header is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SerializeType {
    /// JSON text; what every client speaks.
    #[default]
    Json,
    /// The binary form, `RocketMQSerializable`.
    RocketMq,
}

impl SerializeType {
    /// The byte in the frame.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::RocketMq => 1,
        }
    }

    /// The type of a frame's byte, `None` if there is no such type.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Json),
            1 => Some(Self::RocketMq),
            _ => None,
        }
    }
}

/// Measures of one whole frame at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of the whole frame, the length word included.
    pub len: usize,
    /// How the header is written down.
    pub serialize: SerializeType,
    /// Bytes of the header, which starts at [`FRAME_PREFIX_LEN`].
    pub header_len: usize,
}

impl Frame {
    /// Position of the body in the frame.
    #[must_use]
    pub fn body_position(&self) -> usize {
        FRAME_PREFIX_LEN + self.header_len
    }
}

/// What a buffer starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStep {
    /// A frame of which at least this many bytes are still missing. Once the length word is there
    /// the number is exact, so it can size the next read.
    NeedMore(usize),
    /// A whole frame.
    Frame(Frame),
}

/// Looks for a frame at the start of `buffer`. A frame's length is checked against `limit` (bytes,
/// length word included) as soon as its first four bytes are there, so no caller has to hold more
/// than `limit` bytes.
///
/// # Errors
/// The stream is not this protocol, or exceeds `limit`: close the connection.
pub fn next_frame(buffer: &[u8], limit: usize) -> Result<FrameStep, FrameError> {
    let Some((length_bytes, rest)) = buffer.split_first_chunk::<LENGTH_LEN>() else {
        return Ok(FrameStep::NeedMore(FRAME_PREFIX_LEN - buffer.len()));
    };
    let length = u32::from_be_bytes(*length_bytes);
    if length < 4 {
        return Err(FrameError::TooShort { length });
    }
    let len = u64::from(length) + LENGTH_LEN as u64;
    let len = match usize::try_from(len) {
        Ok(len) if len <= limit => len,
        _ => return Err(FrameError::TooLong { len, limit }),
    };
    let Some((&[serialize, high, middle, low], _)) = rest.split_first_chunk::<4>() else {
        return Ok(FrameStep::NeedMore(len - buffer.len()));
    };
    let serialize =
        SerializeType::from_byte(serialize).ok_or(FrameError::SerializeType(serialize))?;
    let header_len = u32::from_be_bytes([0, high, middle, low]) as usize;
    let room = len - FRAME_PREFIX_LEN;
    if header_len > room {
        return Err(FrameError::HeaderTooLong { header_len, room });
    }
    if buffer.len() < len {
        return Ok(FrameStep::NeedMore(len - buffer.len()));
    }
    Ok(FrameStep::Frame(Frame {
        len,
        serialize,
        header_len,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: u32, kind: u8, header_len: u32, rest: usize) -> Vec<u8> {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend((u32::from(kind) << 24 | header_len).to_be_bytes());
        bytes.resize(bytes.len() + rest, b' ');
        bytes
    }

    #[test]
    fn a_whole_frame_is_measured() {
        let mut bytes = frame(4 + 10 + 5, 1, 10, 15);
        bytes.extend(b"next frame");
        let step = next_frame(&bytes, FRAME_LEN_MAX).unwrap();
        let frame = Frame {
            len: 23,
            serialize: SerializeType::RocketMq,
            header_len: 10,
        };
        assert_eq!(step, FrameStep::Frame(frame));
        assert_eq!(frame.body_position(), 18);
    }

    #[test]
    fn a_part_of_a_frame_says_what_is_missing() {
        let bytes = frame(4 + 10 + 5, 0, 10, 15);
        assert_eq!(next_frame(&[], 99), Ok(FrameStep::NeedMore(8)));
        assert_eq!(next_frame(&bytes[..3], 99), Ok(FrameStep::NeedMore(5)));
        assert_eq!(next_frame(&bytes[..4], 99), Ok(FrameStep::NeedMore(19)));
        assert_eq!(next_frame(&bytes[..22], 99), Ok(FrameStep::NeedMore(1)));
    }

    #[test]
    fn lies_about_lengths_are_refused_early() {
        let limit = 100;
        let too_long = 97u32.to_be_bytes();
        assert_eq!(
            next_frame(&too_long, limit),
            Err(FrameError::TooLong { len: 101, limit })
        );
        let most = 96u32.to_be_bytes();
        assert_eq!(next_frame(&most, limit), Ok(FrameStep::NeedMore(96)));
        let negative = (-1i32).to_be_bytes();
        assert!(matches!(
            next_frame(&negative, limit),
            Err(FrameError::TooLong { .. })
        ));
        assert_eq!(
            next_frame(&[0, 0, 0, 3], limit),
            Err(FrameError::TooShort { length: 3 })
        );
        assert_eq!(
            next_frame(&frame(4, 2, 0, 0), limit),
            Err(FrameError::SerializeType(2))
        );
        assert_eq!(
            next_frame(&frame(14, 0, 11, 0), limit),
            Err(FrameError::HeaderTooLong {
                header_len: 11,
                room: 10
            })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_give_a_step_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(FrameStep::Frame(frame)) = next_frame(&bytes, 64) {
                prop_assert!(frame.len <= bytes.len());
                prop_assert!(frame.body_position() <= frame.len);
            }
        }
    }
}

//! What can be wrong with received bytes. One type per consequence: a [`FrameError`] or
//! [`CommandError`] leaves nothing to answer to, so the connection is closed; a [`HeaderError`] or
//! [`BodyError`] is answered with its text.

use thiserror::Error;

/// A byte stream that is not cut into frames of this protocol. The stream cannot be followed any
/// further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length word promises more than is allowed.
    #[error("frame of {len} bytes exceeds the limit of {limit} bytes")]
    TooLong {
        /// Whole frame in bytes, the length word included.
        len: u64,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// The length word leaves no room for the word behind it.
    #[error("frame length word is {length}, must be at least 4")]
    TooShort {
        /// The length word: bytes that follow it.
        length: u32,
    },
    /// The serialize type byte is not one of ours.
    #[error("serialize type {0} is unknown, must be 0 (JSON) or 1 (ROCKETMQ)")]
    SerializeType(u8),
    /// The header does not fit into the frame.
    #[error("header of {header_len} bytes does not fit into a frame with {room} bytes left for it")]
    HeaderTooLong {
        /// Header length in bytes, as the frame states it.
        header_len: usize,
        /// Bytes that are left for header and body.
        room: usize,
    },
    /// A header that was to be written, or a whole frame, exceeds what its length field holds.
    #[error("{what} of {len} bytes cannot be written, the most is {limit} bytes")]
    Unwritable {
        /// Which part.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most that the length field holds.
        limit: usize,
    },
}

/// A frame whose header cannot be read as a command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The bytes are not one whole frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The bytes are more or fewer than one frame.
    #[error("{given} bytes were given for a frame of {len} bytes")]
    NotOneFrame {
        /// Length of the frame in bytes, as far as it is known.
        len: usize,
        /// How many bytes there are.
        given: usize,
    },
    /// Text that is not UTF-8.
    #[error("header is not UTF-8 at byte {position}")]
    NotUtf8 {
        /// Position in the header of the first wrong byte.
        position: usize,
    },
    /// The JSON header breaks off or goes wrong.
    #[error("header is not JSON at byte {position}: expected {expected}")]
    Json {
        /// Position in the header.
        position: usize,
        /// What would have been right.
        expected: &'static str,
    },
    /// A fixed field that must be an integer is not one.
    #[error("header field {name} is {value:?}, must be an integer from {min} to {max}", min = i32::MIN, max = i32::MAX)]
    Integer {
        /// Which field.
        name: &'static str,
        /// What was there instead, shortened.
        value: String,
    },
    /// The header has no `code`.
    #[error("header has no field code")]
    NoCode,
    /// A length inside the binary header that points outside of it.
    #[error("binary header states {len} bytes of {what}, {room} are left")]
    BinaryLength {
        /// Which part.
        what: &'static str,
        /// The stated length; negative ones are wrong too.
        len: i64,
        /// Bytes that are left.
        room: usize,
    },
    /// More extension fields than any client sends.
    #[error("header has more than {max} extension fields")]
    TooManyFields {
        /// The most that is allowed.
        max: usize,
    },
}

/// A command whose extension fields do not make up the typed header asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// A field that must be there is not.
    #[error("{header}: field {field} is missing, must be {expected}")]
    Missing {
        /// Upstream's name of the header class.
        header: &'static str,
        /// The field's name on the wire.
        field: &'static str,
        /// What is allowed.
        expected: &'static str,
    },
    /// A field's text is not of its type.
    #[error("{header}: field {field} is {value:?}, must be {expected}")]
    Invalid {
        /// Upstream's name of the header class.
        header: &'static str,
        /// The field's name on the wire.
        field: &'static str,
        /// What was there, shortened.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
}

/// A body that cannot be read or written as what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Not JSON, not even in fastjson's sense.
    #[error("body is not JSON at byte {position}: expected {expected}")]
    Json {
        /// Position in the body.
        position: usize,
        /// What would have been right.
        expected: &'static str,
    },
    /// A bound on what is read was exceeded.
    #[error("body has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The most that is allowed.
        limit: usize,
    },
    /// JSON of another shape than the type asked for.
    #[error("body is not a {expected}: {reason}")]
    Shape {
        /// The type asked for.
        expected: &'static str,
        /// What did not fit.
        reason: String,
    },
    /// A compressed body that does not inflate.
    #[error("body does not inflate as zlib: {0}")]
    Zlib(String),
    /// A length inside a binary body that points outside of it.
    #[error("body states {len} bytes of {what}, {room} are left")]
    BinaryLength {
        /// Which part.
        what: &'static str,
        /// The stated length or count.
        len: i64,
        /// Bytes that are left.
        room: usize,
    },
}

/// Any of this crate's errors, for callers that treat them alike.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RemotingError {
    /// See [`FrameError`].
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// See [`CommandError`].
    #[error(transparent)]
    Command(#[from] CommandError),
    /// See [`HeaderError`].
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// See [`BodyError`].
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// The first characters of a wrong value: enough to recognise it, too few to fill a log.
pub(crate) fn shorten(value: &str) -> String {
    const SHOWN_MAX: usize = 64;
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    }
}

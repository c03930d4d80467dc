//! What can go wrong, with the address it went wrong at.

use std::io;
use std::time::Duration;

use message::{BatchError, EncodeError, RecordError};
use remoting::{BodyError, CommandError, FrameError, HeaderError, RequestCode, ResponseCode};

/// Why a request brought no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Host and port as given.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// A connection broke.
    #[error("{operation} {address}: {source}")]
    Io {
        /// The peer.
        address: String,
        /// `write to` or `read from`.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The peer closed the connection.
    #[error("{address} closed the connection")]
    Closed {
        /// The peer.
        address: String,
    },
    /// No answer in time. The connection is still good.
    #[error("{address} did not answer {request} within {timeout:?}")]
    TimedOut {
        /// The peer.
        address: String,
        /// What was asked.
        request: RequestCode,
        /// How long was waited.
        timeout: Duration,
    },
    /// The peer does not speak the protocol, or a frame is too large.
    #[error("{address} sent a frame that cannot be read: {source}")]
    Frame {
        /// The peer.
        address: String,
        /// What is wrong with it.
        source: CommandError,
    },
    /// A request that cannot be written as a frame.
    #[error("request for {address}: {source}")]
    Request {
        /// The peer.
        address: String,
        /// What is wrong with it.
        source: FrameError,
    },
    /// An answer whose code is not one of success.
    #[error("{address} refused {request}: {code} {remark}")]
    Refused {
        /// The peer.
        address: String,
        /// What was asked.
        request: RequestCode,
        /// The answer.
        code: ResponseCode,
        /// The peer's words.
        remark: String,
    },
    /// An answer that lacks what it should have.
    #[error("answer of {address}: {source}")]
    Header {
        /// The peer.
        address: String,
        /// What is missing.
        source: HeaderError,
    },
    /// An answer whose body cannot be read.
    #[error("answer of {address} to {request}: {source}")]
    Body {
        /// The peer.
        address: String,
        /// What was asked.
        request: RequestCode,
        /// What is wrong with it.
        source: BodyError,
    },
    /// Messages that cannot be read.
    #[error("messages from {address}: {source}")]
    Record {
        /// The peer.
        address: String,
        /// What is wrong with them.
        source: RecordError,
    },
    /// An inner batch that cannot be read.
    #[error("inner batch from {address}: {source}")]
    Batch {
        /// The peer.
        address: String,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A message that cannot be sent.
    #[error("message to be sent: {0}")]
    Encode(#[from] EncodeError),
    /// A batch without messages, which no broker takes.
    #[error("a batch needs at least one message")]
    EmptyBatch,
    /// No broker has queues of the topic for this purpose.
    #[error("topic {topic} has no queue to {purpose}, says name server {name_server}")]
    NoQueue {
        /// The topic.
        topic: String,
        /// `read from` or `write to`.
        purpose: &'static str,
        /// Who says so.
        name_server: String,
    },
}

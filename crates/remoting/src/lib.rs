//! RocketMQ's wire protocol: frames, headers, bodies. Pure: no I/O, no threads, no clock.
//!
//! A frame is cut out of a byte stream by [`next_frame`], its header read in place by
//! [`CommandView`] (no allocation: values are slices of the frame, or of a reusable [`Scratch`]
//! where JSON escapes had to be undone), and turned into a typed header of module [`header`].
//! The answer's header is written by [`HeaderWriter`] straight into an output buffer; the body
//! follows it, from wherever it lies. [`Command`] is the owned form for clients and tools. Bodies
//! that are JSON are the serde types of module [`body`]; [`json`] reads and writes fastjson's
//! dialect of it.
//!
//! Everything that decodes takes any bytes without panicking, and with memory bounded by the
//! input's length and by the limits named in each module.
//!
//! ```
//! use remoting::header::{GetMaxOffsetRequestHeader, OffsetResponseHeader};
//! use remoting::{Command, CommandView, FrameStep, HeaderWriter, RequestCode, ResponseCode, Scratch};
//!
//! // A client asks for a queue's maximum offset ...
//! let request = Command::request(RequestCode::GET_MAX_OFFSET)
//!     .with_opaque(7)
//!     .with_header(&GetMaxOffsetRequestHeader { topic: "T1", queue_id: 3, committed: true });
//! let mut stream = Vec::new();
//! request.encode(&mut stream)?;
//!
//! // ... the server cuts the frame from what it has received ...
//! let FrameStep::Frame(frame) = remoting::next_frame(&stream, remoting::FRAME_LEN_MAX)? else {
//!     panic!("the frame is complete");
//! };
//! let mut scratch = Scratch::default();
//! let view = CommandView::parse(&stream[..frame.len], &mut scratch)?;
//! assert_eq!(view.request_code(), RequestCode::GET_MAX_OFFSET);
//! let header: GetMaxOffsetRequestHeader<'_> = view.header()?;
//! assert_eq!((header.topic, header.queue_id), ("T1", 3));
//!
//! // ... and answers in the same serialize type.
//! let mut out = Vec::new();
//! let mut writer = HeaderWriter::response(&mut out, &view, ResponseCode::SUCCESS, None);
//! writer.header(&OffsetResponseHeader { offset: 42 });
//! writer.finish(0)?;
//! # Ok::<(), remoting::RemotingError>(())
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod body;
pub mod code;
pub mod header;
pub mod json;
pub mod properties;

mod binary_header;
mod command;
mod error;
mod escape;
mod fields;
mod frame;
mod json_header;
mod language;
mod span;
mod text;
mod view;
mod writer;

pub use code::{RequestCode, ResponseCode};
pub use command::Command;
pub use error::{BodyError, CommandError, FrameError, HeaderError, RemotingError};
pub use fields::{FieldSink, FieldValue, Fields};
pub use frame::{FRAME_LEN_MAX, FRAME_PREFIX_LEN, Frame, FrameStep, SerializeType, next_frame};
pub use header::Header;
pub use language::LanguageCode;
pub use view::{CommandView, Scratch};
pub use writer::{HeaderWriter, WriterHead, write_response};

/// The protocol version that we report: RocketMQ 5.3.3's `MQVersion` ordinal. Clients enable
/// features by it (SQL92 filters from 232 on).
pub const VERSION: i32 = 479;

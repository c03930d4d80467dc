//! Reading a command in place, without allocation.

use std::fmt;

use crate::code::{RequestCode, ResponseCode};
use crate::command::Command;
use crate::error::{CommandError, HeaderError};
use crate::frame::{FRAME_PREFIX_LEN, Frame, FrameStep, SerializeType, next_frame};
use crate::header::Header;
use crate::language::LanguageCode;
use crate::span::Span;
use crate::{binary_header, json_header};

/// Set in `flag` of a response.
pub(crate) const FLAG_RESPONSE: i32 = 1;
/// Set in `flag` of a request that wants no response.
pub(crate) const FLAG_ONEWAY: i32 = 2;

/// Most extension fields accepted in one header. Clients send up to about twenty.
pub(crate) const FIELD_COUNT_MAX: usize = 256;

/// Working memory of [`CommandView::parse`], to be used again for the next frame. One per
/// connection or thread.
#[derive(Default)]
pub struct Scratch {
    /// Texts whose JSON escapes were undone, or all texts of a binary header, one behind the
    /// other.
    pub(crate) decoded: String,
    pub(crate) fields: Vec<FieldSpan>,
}

impl Scratch {
    /// Capacity that is kept from frame to frame, in bytes; an unusual header shall not occupy
    /// memory for ever.
    const DECODED_CAPACITY_MAX: usize = 64 * 1_024;

    fn clear(&mut self) {
        self.decoded.clear();
        self.decoded.shrink_to(Self::DECODED_CAPACITY_MAX);
        self.fields.clear();
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// One command of either serialize type, read in place: texts are slices of the frame, or of the
/// scratch memory where escapes had to be undone or the header is binary.
#[derive(Clone, Copy)]
pub struct CommandView<'a> {
    serialize: SerializeType,
    header: &'a str,
    decoded: &'a str,
    fields: &'a [FieldSpan],
    fixed: FixedFields,
    body: &'a [u8],
}

/// The fields that every command has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FixedFields {
    pub(crate) code: i32,
    pub(crate) language: Option<LanguageCode>,
    pub(crate) version: i32,
    pub(crate) opaque: i32,
    pub(crate) flag: i32,
    pub(crate) remark: Option<Span>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldSpan {
    pub(crate) name: Span,
    pub(crate) value: Span,
}

impl<'a> CommandView<'a> {
    /// Reads the frame that `frame` consists of. Values that arrive as JSON numbers or booleans
    /// count as their text, nulls as absent, unknown keys and languages are ignored; all of that
    /// is what clients send.
    ///
    /// # Errors
    /// `frame` is not one whole frame, or its header cannot be read: close the connection.
    pub fn parse(frame: &'a [u8], scratch: &'a mut Scratch) -> Result<Self, CommandError> {
        let given = frame.len();
        let measured = match next_frame(frame, usize::MAX)? {
            FrameStep::Frame(measured) if measured.len == given => measured,
            FrameStep::Frame(Frame { len, .. }) => {
                return Err(CommandError::NotOneFrame { len, given });
            }
            FrameStep::NeedMore(missing) => {
                return Err(CommandError::NotOneFrame {
                    len: given + missing,
                    given,
                });
            }
        };
        scratch.clear();
        let (head, body) = frame
            .split_at_checked(measured.body_position())
            .unwrap_or_default();
        let header = head.get(FRAME_PREFIX_LEN..).unwrap_or_default();
        let (header, fixed) = match measured.serialize {
            SerializeType::Json => {
                let header = utf8(header, 0)?;
                (
                    header,
                    json_header::read(header, scratch).map_err(|error| *error)?,
                )
            }
            SerializeType::RocketMq => (
                "",
                binary_header::read(header, scratch).map_err(|error| *error)?,
            ),
        };
        let Scratch { decoded, fields } = scratch;
        Ok(Self {
            serialize: measured.serialize,
            header,
            decoded,
            fields,
            fixed,
            body,
        })
    }

    /// Request or response code, whichever [`is_response`](Self::is_response) says.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.fixed.code
    }

    /// The code of a request.
    #[must_use]
    pub fn request_code(&self) -> RequestCode {
        RequestCode(self.fixed.code)
    }

    /// The code of a response.
    #[must_use]
    pub fn response_code(&self) -> ResponseCode {
        ResponseCode(self.fixed.code)
    }

    /// The sender's language, `None` for one that RocketMQ 5.3.3 does not know.
    #[must_use]
    pub fn language(&self) -> Option<LanguageCode> {
        self.fixed.language
    }

    /// The sender's `MQVersion` ordinal.
    #[must_use]
    pub fn version(&self) -> i32 {
        self.fixed.version
    }

    /// Number that ties a response to its request.
    #[must_use]
    pub fn opaque(&self) -> i32 {
        self.fixed.opaque
    }

    /// All bits of `flag`.
    #[must_use]
    pub fn flag(&self) -> i32 {
        self.fixed.flag
    }

    /// Whether this is a response.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.fixed.flag & FLAG_RESPONSE != 0
    }

    /// Whether this is a request that must never be answered.
    #[must_use]
    pub fn is_oneway(&self) -> bool {
        self.fixed.flag & FLAG_ONEWAY != 0
    }

    /// Error text of a response.
    #[must_use]
    pub fn remark(&self) -> Option<&'a str> {
        self.fixed.remark.map(|span| self.text(span))
    }

    /// How the header is written down, and so how an answer's must be.
    #[must_use]
    pub fn serialize(&self) -> SerializeType {
        self.serialize
    }

    /// The body; an absent one is empty.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The value of an extension field. The last of several with one name counts, as in Java.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let field = self
            .fields
            .iter()
            .rev()
            .find(|field| self.text(field.name) == name)?;
        Some(self.text(field.value))
    }

    /// All extension fields in the order they were sent.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let view = *self;
        self.fields
            .iter()
            .map(move |field| (view.text(field.name), view.text(field.value)))
    }

    /// The extension fields as a typed header.
    ///
    /// # Errors
    /// A field is missing or of another type.
    pub fn header<H: Header<'a>>(&self) -> Result<H, HeaderError> {
        H::decode(self.fields())
    }

    /// The owned form.
    #[must_use]
    pub fn to_command(&self) -> Command {
        Command {
            code: self.code(),
            language: self.language().unwrap_or(LanguageCode::Other),
            version: self.version(),
            opaque: self.opaque(),
            flag: self.flag(),
            remark: self.remark().map(str::to_owned),
            fields: self.fields().collect(),
            serialize: self.serialize,
            body: self.body.to_vec(),
        }
    }

    fn text(&self, span: Span) -> &'a str {
        span.text(self.header, self.decoded)
    }
}

impl fmt::Debug for CommandView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandView")
            .field("code", &self.code())
            .field("opaque", &self.opaque())
            .field("flag", &self.flag())
            .field("language", &self.language())
            .field("version", &self.version())
            .field("remark", &self.remark())
            .field("fields", &FieldsDebug(self))
            .field("body_len", &self.body.len())
            .finish()
    }
}

struct FieldsDebug<'v, 'a>(&'v CommandView<'a>);

impl fmt::Debug for FieldsDebug<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.fields()).finish()
    }
}

/// The outcome of a step of reading a header. Errors are boxed to keep the many small results
/// small.
pub(crate) type Step<T> = Result<T, Box<CommandError>>;

/// The text of `bytes`, which start at `position` in the header.
pub(crate) fn utf8(bytes: &[u8], position: usize) -> Result<&str, CommandError> {
    std::str::from_utf8(bytes).map_err(|wrong| CommandError::NotUtf8 {
        position: position + wrong.valid_up_to(),
    })
}

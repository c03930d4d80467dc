//! The owned form of a command, for clients and tools.

use crate::VERSION;
use crate::code::{RequestCode, ResponseCode};
use crate::error::{CommandError, FrameError, HeaderError};
use crate::fields::{FieldSink, FieldValue, Fields};
use crate::frame::SerializeType;
use crate::header::Header;
use crate::language::LanguageCode;
use crate::view::{CommandView, FLAG_ONEWAY, FLAG_RESPONSE, Scratch};
use crate::writer::{HeaderWriter, WriterHead};

/// One request or response with everything it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Request or response code, whichever `flag` says.
    pub code: i32,
    /// The sender's language.
    pub language: LanguageCode,
    /// The sender's `MQVersion` ordinal.
    pub version: i32,
    /// Number that ties a response to its request.
    pub opaque: i32,
    /// Bit 0: response; bit 1: a request that wants no response.
    pub flag: i32,
    /// Error text of a response.
    pub remark: Option<String>,
    /// Extension fields.
    pub fields: Fields,
    /// How the header is written down.
    pub serialize: SerializeType,
    /// The body; an absent one is empty.
    pub body: Vec<u8>,
}

impl Command {
    /// A request of ours that wants a response.
    #[must_use]
    pub fn request(code: RequestCode) -> Self {
        Self::new(code.0, 0)
    }

    /// A request of ours that wants no response.
    #[must_use]
    pub fn oneway(code: RequestCode) -> Self {
        Self::new(code.0, FLAG_ONEWAY)
    }

    /// A response of ours to the request `opaque`.
    #[must_use]
    pub fn response(opaque: i32, code: ResponseCode) -> Self {
        Self::new(code.0, FLAG_RESPONSE).with_opaque(opaque)
    }

    fn new(code: i32, flag: i32) -> Self {
        Self {
            code,
            language: LanguageCode::Rust,
            version: VERSION,
            opaque: 0,
            flag,
            remark: None,
            fields: Fields::default(),
            serialize: SerializeType::default(),
            body: Vec::new(),
        }
    }

    /// The same with another `opaque`.
    #[must_use]
    pub fn with_opaque(mut self, opaque: i32) -> Self {
        self.opaque = opaque;
        self
    }

    /// The same with the fields of a typed header.
    #[must_use]
    pub fn with_header<'h, H: Header<'h>>(mut self, header: &H) -> Self {
        header.encode(&mut self.fields);
        self
    }

    /// The same with one more extension field.
    #[must_use]
    pub fn with_field<'v>(mut self, name: &str, value: impl Into<FieldValue<'v>>) -> Self {
        self.fields.put(name, value.into());
        self
    }

    /// The same with a body.
    #[must_use]
    pub fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// The code of a response.
    #[must_use]
    pub fn response_code(&self) -> ResponseCode {
        ResponseCode(self.code)
    }

    /// Whether this is a response.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// The extension fields as a typed header.
    ///
    /// # Errors
    /// A field is missing or of another type.
    pub fn header<'a, H: Header<'a>>(&'a self) -> Result<H, HeaderError> {
        H::decode(self.fields.iter())
    }

    /// Reads one whole frame.
    ///
    /// # Errors
    /// `frame` is not one whole frame, or its header cannot be read.
    pub fn decode(frame: &[u8]) -> Result<Self, CommandError> {
        Ok(CommandView::parse(frame, &mut Scratch::default())?.to_command())
    }

    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    /// A part is longer than its length field can say. `out` is left as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let head = WriterHead {
            serialize: self.serialize,
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flag: self.flag,
            remark: self.remark.as_deref(),
        };
        let mut writer = HeaderWriter::new(out, head);
        for (name, value) in self.fields.iter() {
            writer.put(name, FieldValue::Text(value));
        }
        writer.finish(self.body.len())?;
        out.extend_from_slice(&self.body);
        Ok(())
    }
}

//! Writing a command's header straight into an output buffer.

use crate::VERSION;
use crate::code::ResponseCode;
use crate::error::FrameError;
use crate::fields::{FieldSink, FieldValue};
use crate::frame::{FRAME_PREFIX_LEN, HEADER_LEN_MAX, SerializeType};
use crate::header::Header;
use crate::language::LanguageCode;
use crate::text::{Charset, push_integer, push_quoted};
use crate::view::{CommandView, FLAG_RESPONSE};

/// Room for the header of most answers.
const HEADER_LEN_USUAL: usize = 512;

/// What a header says besides its extension fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterHead<'a> {
    /// How the header is written down.
    pub serialize: SerializeType,
    /// Request or response code. The binary form carries its low 16 bits.
    pub code: i32,
    /// The sender's language.
    pub language: LanguageCode,
    /// The sender's `MQVersion` ordinal. The binary form carries its low 16 bits.
    pub version: i32,
    /// Number that ties a response to its request.
    pub opaque: i32,
    /// Bit 0: response; bit 1: a request that wants no response.
    pub flag: i32,
    /// Error text of a response.
    pub remark: Option<&'a str>,
}

impl<'a> WriterHead<'a> {
    /// The head of our answer to the request `opaque` that came as `serialize`.
    #[must_use]
    pub fn response(
        serialize: SerializeType,
        opaque: i32,
        code: ResponseCode,
        remark: Option<&'a str>,
    ) -> Self {
        Self {
            serialize,
            code: code.0,
            language: LanguageCode::Rust,
            version: VERSION,
            opaque,
            flag: FLAG_RESPONSE,
            remark,
        }
    }
}

/// Appends one frame's length words and header to a buffer, field by field. The body is the
/// caller's: appended behind, or sent from where it lies.
///
/// Dropped without [`finish`](Self::finish), an incomplete frame stays in the buffer.
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    out: &'a mut Vec<u8>,
    head: WriterHead<'a>,
    /// Where the frame starts in `out`.
    start: usize,
    /// Binary form: where the length of the extension fields stands in `out`.
    fields_len_position: usize,
    has_fields: bool,
    /// The first thing that could not be written.
    failed: Option<FrameError>,
}

impl<'a> HeaderWriter<'a> {
    /// Starts a frame at the end of `out`.
    #[must_use]
    pub fn new(out: &'a mut Vec<u8>, head: WriterHead<'a>) -> Self {
        let start = out.len();
        out.reserve(HEADER_LEN_USUAL);
        out.extend_from_slice(&[0; FRAME_PREFIX_LEN]);
        let mut writer = Self {
            out,
            head,
            start,
            fields_len_position: 0,
            has_fields: false,
            failed: None,
        };
        match head.serialize {
            SerializeType::Json => writer.start_json(),
            SerializeType::RocketMq => writer.start_binary(),
        }
        writer
    }

    /// Starts the answer to `request`, in its serialize type.
    #[must_use]
    pub fn response(
        out: &'a mut Vec<u8>,
        request: &CommandView<'_>,
        code: ResponseCode,
        remark: Option<&'a str>,
    ) -> Self {
        let head = WriterHead::response(request.serialize(), request.opaque(), code, remark);
        Self::new(out, head)
    }

    /// Writes all fields of a typed header.
    pub fn header<'h, H: Header<'h>>(&mut self, header: &H) {
        header.encode(self);
    }

    /// Completes the header of a frame whose body will have `body_len` bytes, and returns the
    /// length of the whole frame in bytes.
    ///
    /// # Errors
    /// A part is longer than its length field can say. Nothing is left in the buffer then.
    pub fn finish(mut self, body_len: usize) -> Result<usize, FrameError> {
        match self.head.serialize {
            SerializeType::Json => self.finish_json(),
            SerializeType::RocketMq => self.finish_binary(),
        }
        let outcome = match self.failed.take() {
            Some(failed) => Err(failed),
            None => self.patch_lengths(body_len),
        };
        if outcome.is_err() {
            self.out.truncate(self.start);
        }
        outcome
    }

    fn patch_lengths(&mut self, body_len: usize) -> Result<usize, FrameError> {
        let header_len = self.out.len() - self.start - FRAME_PREFIX_LEN;
        if header_len > HEADER_LEN_MAX {
            return Err(unwritable("header", header_len, HEADER_LEN_MAX));
        }
        let length = 4 + header_len + body_len;
        // Java reads the length word as a signed integer.
        let Ok(length_word) = i32::try_from(length) else {
            return Err(unwritable("frame", length, i32::MAX as usize));
        };
        let type_and_header_len =
            u32::from(self.head.serialize.to_byte()) << 24 | header_len as u32;
        self.patch(self.start, length_word.to_be_bytes());
        self.patch(self.start + 4, type_and_header_len.to_be_bytes());
        Ok(length + 4)
    }

    fn patch(&mut self, position: usize, word: [u8; 4]) {
        if let Some(place) = self.out.get_mut(position..position + word.len()) {
            place.copy_from_slice(&word);
        }
    }

    /// Keys come in alphabetical order, as from Java.
    fn start_json(&mut self) {
        self.out.extend_from_slice(b"{\"code\":");
        push_integer(self.out, i64::from(self.head.code));
    }

    fn finish_json(&mut self) {
        let head = self.head;
        let flag: &[u8] = if self.has_fields {
            b"},\"flag\":"
        } else {
            b",\"flag\":"
        };
        self.out.extend_from_slice(flag);
        push_integer(self.out, i64::from(head.flag));
        self.out.extend_from_slice(b",\"language\":\"");
        self.out.extend_from_slice(head.language.name().as_bytes());
        self.out.extend_from_slice(b"\",\"opaque\":");
        push_integer(self.out, i64::from(head.opaque));
        if let Some(remark) = head.remark {
            self.out.extend_from_slice(b",\"remark\":");
            push_quoted(self.out, remark, Charset::Utf8);
        }
        self.out
            .extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        push_integer(self.out, i64::from(head.version));
        self.out.push(b'}');
    }

    fn start_binary(&mut self) {
        let head = self.head;
        let low_half = |[_, _, high, low]: [u8; 4]| [high, low];
        self.out
            .extend_from_slice(&low_half(head.code.to_be_bytes()));
        self.out.push(head.language.to_byte());
        self.out
            .extend_from_slice(&low_half(head.version.to_be_bytes()));
        self.out.extend_from_slice(&head.opaque.to_be_bytes());
        self.out.extend_from_slice(&head.flag.to_be_bytes());
        let remark_len_position = self.start_long_text();
        self.out
            .extend_from_slice(head.remark.unwrap_or_default().as_bytes());
        self.patch_text_len(remark_len_position);
        self.fields_len_position = self.start_long_text();
    }

    fn finish_binary(&mut self) {
        self.patch_text_len(self.fields_len_position);
    }

    /// What stands in front of a field's name.
    fn separate_json(&mut self) {
        if self.has_fields {
            self.out.push(b',');
        } else {
            self.out.extend_from_slice(b",\"extFields\":{");
        }
    }

    fn put_binary(&mut self, name: &str, value: FieldValue<'_>) {
        let Ok(name_len) = i16::try_from(name.len()) else {
            self.failed = Some(unwritable("field name", name.len(), i16::MAX as usize));
            return;
        };
        self.out.extend_from_slice(&name_len.to_be_bytes());
        self.out.extend_from_slice(name.as_bytes());
        let len_position = self.start_long_text();
        match value {
            FieldValue::Text(text) => self.out.extend_from_slice(text.as_bytes()),
            FieldValue::Integer(integer) => push_integer(self.out, integer),
            FieldValue::Boolean(boolean) => {
                self.out.extend_from_slice(boolean_text(boolean).as_bytes());
            }
        }
        self.patch_text_len(len_position);
    }

    /// Leaves room for a length of four bytes and returns where it stands.
    fn start_long_text(&mut self) -> usize {
        let len_position = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        len_position
    }

    /// Sets the length at `len_position` to what was written behind it.
    fn patch_text_len(&mut self, len_position: usize) {
        // Longer than 2 GiB fails later, on the length of the whole header.
        let len = i32::try_from(self.out.len() - len_position - 4).unwrap_or(i32::MAX);
        self.patch(len_position, len.to_be_bytes());
    }
}

impl FieldSink for HeaderWriter<'_> {
    fn put(&mut self, name: &str, value: FieldValue<'_>) {
        match self.head.serialize {
            SerializeType::Json => {
                self.separate_json();
                push_quoted(self.out, name, Charset::Utf8);
                self.out.push(b':');
                push_json_value(self.out, value);
            }
            SerializeType::RocketMq => self.put_binary(name, value),
        }
        self.has_fields = true;
    }

    fn put_known(&mut self, name: &'static str, json_name: &'static str, value: FieldValue<'_>) {
        match self.head.serialize {
            SerializeType::Json => {
                self.separate_json();
                self.out.extend_from_slice(json_name.as_bytes());
                push_json_value(self.out, value);
            }
            SerializeType::RocketMq => self.put_binary(name, value),
        }
        self.has_fields = true;
    }
}

/// Writes the header of one response: see [`HeaderWriter`] for the same in steps.
///
/// # Errors
/// A part is longer than its length field can say.
pub fn write_response(
    out: &mut Vec<u8>,
    head: WriterHead<'_>,
    fields: &[(&str, FieldValue<'_>)],
    body_len: usize,
) -> Result<usize, FrameError> {
    let mut writer = HeaderWriter::new(out, head);
    for (name, value) in fields {
        writer.put(name, *value);
    }
    writer.finish(body_len)
}

/// Values are strings always: the Go client reads nothing else.
fn push_json_value(out: &mut Vec<u8>, value: FieldValue<'_>) {
    match value {
        FieldValue::Text(text) => push_quoted(out, text, Charset::Utf8),
        FieldValue::Integer(integer) => {
            out.push(b'"');
            push_integer(out, integer);
            out.push(b'"');
        }
        FieldValue::Boolean(true) => out.extend_from_slice(b"\"true\""),
        FieldValue::Boolean(false) => out.extend_from_slice(b"\"false\""),
    }
}

fn boolean_text(boolean: bool) -> &'static str {
    if boolean { "true" } else { "false" }
}

fn unwritable(what: &'static str, len: usize, limit: usize) -> FrameError {
    FrameError::Unwritable { what, len, limit }
}

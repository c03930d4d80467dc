//! The binary form of a header (RocketMQ 5.3.3 `RocketMQSerializable`).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | code, truncated to 16 bits |
//! | 2 | 1 | language |
//! | 3 | 2 | version |
//! | 5 | 4 | opaque |
//! | 9 | 4 | flag |
//! | 13 | 4 | remark length, 0 for none |
//! | 17 | remark length | remark |
//! | then | 4 | length of all extension fields, 0 for none |
//! | repeated | 2 + n, 4 + m | name length and name, value length and value |
//!
//! Integers are big-endian and signed, texts are UTF-8. Empty text means absent.

use crate::code::RequestCode;
use crate::error::CommandError;
use crate::language::LanguageCode;
use crate::span::Span;
use crate::view::{FIELD_COUNT_MAX, FLAG_RESPONSE, FieldSpan, FixedFields, Scratch, Step, utf8};

/// Reads `header`; extension fields go into `scratch`.
pub(crate) fn read(header: &[u8], scratch: &mut Scratch) -> Step<FixedFields> {
    let mut reader = Reader {
        header,
        position: 0,
        end: header.len(),
        decoded: &mut scratch.decoded,
    };
    let code = i16::from_be_bytes(reader.array("code")?);
    let [language] = reader.array("language")?;
    let version = i16::from_be_bytes(reader.array("version")?);
    let opaque = reader.integer("opaque")?;
    let flag = reader.integer("flag")?;
    let remark_len = reader.integer("remark length")?;
    let remark = reader.text("remark", i64::from(remark_len))?;
    let fields_len = reader.integer("extension fields length")?;
    reader.end = reader.reach("extension fields", i64::from(fields_len))?;
    while reader.position < reader.end {
        let name_len = i16::from_be_bytes(reader.array("field name length")?);
        let name = reader.text("field name", i64::from(name_len))?;
        let value_len = reader.integer("field value length")?;
        let value = reader.text("field value", i64::from(value_len))?;
        if name.is_empty() || value.is_empty() {
            continue;
        }
        if scratch.fields.len() == FIELD_COUNT_MAX {
            return Err(Box::new(CommandError::TooManyFields {
                max: FIELD_COUNT_MAX,
            }));
        }
        scratch.fields.push(FieldSpan { name, value });
    }
    let code = match flag & FLAG_RESPONSE {
        0 => RequestCode::from_truncated(code).0,
        _ => i32::from(code),
    };
    let language = LanguageCode::from_byte(language);
    Ok(FixedFields {
        code,
        language,
        version: i32::from(version),
        opaque,
        flag,
        remark: (!remark.is_empty()).then_some(remark),
    })
}

struct Reader<'h, 's> {
    header: &'h [u8],
    /// Takes the texts, so that each is checked to be UTF-8 only once.
    decoded: &'s mut String,
    position: usize,
    /// Where reading must stop: of the header, later of the extension fields.
    end: usize,
}

impl Reader<'_, '_> {
    fn array<const LEN: usize>(&mut self, what: &'static str) -> Step<[u8; LEN]> {
        let end = self.reach(what, LEN as i64)?;
        let bytes = self.header.get(self.position..end).unwrap_or_default();
        self.position = end;
        Ok(bytes.try_into().unwrap_or([0; LEN]))
    }

    fn integer(&mut self, what: &'static str) -> Step<i32> {
        Ok(i32::from_be_bytes(self.array(what)?))
    }

    /// A text of `len` bytes.
    fn text(&mut self, what: &'static str, len: i64) -> Step<Span> {
        let (start, end) = (self.position, self.reach(what, len)?);
        let text = utf8(self.header.get(start..end).unwrap_or_default(), start)?;
        self.position = end;
        let decoded_start = self.decoded.len();
        self.decoded.push_str(text);
        Ok(Span::of_decoded(decoded_start, self.decoded.len()))
    }

    /// The position `len` bytes further on, if that is not beyond the end.
    fn reach(&self, what: &'static str, len: i64) -> Step<usize> {
        let room = self.end - self.position;
        match usize::try_from(len) {
            Ok(len) if len <= room => Ok(self.position + len),
            _ => Err(Box::new(CommandError::BinaryLength { what, len, room })),
        }
    }
}

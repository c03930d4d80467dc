//! The JSON form of a header, scanned once without building a tree.
//!
//! Accepted is what the Java, Go and Node clients write: standard JSON, extension values as
//! strings, numbers, booleans or null. A nested extension value counts as its JSON text. What
//! stands under unknown keys is skipped by its brackets and strings only.

use crate::error::{CommandError, shorten};
use crate::escape::unescape;
use crate::language::LanguageCode;
use crate::view::{FIELD_COUNT_MAX, FieldSpan, FixedFields, Place, Scratch, Span};

/// Reads `header`; extension fields and undone escapes go into `scratch`.
pub(crate) fn read(header: &str, scratch: &mut Scratch) -> Result<FixedFields, CommandError> {
    let mut scanner = Scanner {
        header,
        position: 0,
        scratch,
    };
    let mut fixed = FixedFields::default();
    let mut code = None;
    scanner.object(|scanner, name| {
        match scanner.text(name) {
            "code" => code = scanner.integer("code")?,
            "opaque" => fixed.opaque = scanner.integer("opaque")?.unwrap_or_default(),
            "flag" => fixed.flag = scanner.integer("flag")?.unwrap_or_default(),
            "version" => fixed.version = scanner.integer("version")?.unwrap_or_default(),
            "language" => fixed.language = scanner.language()?,
            "remark" => fixed.remark = scanner.value()?.span(),
            "extFields" => scanner.extension_fields()?,
            _ => drop(scanner.value()?),
        }
        Ok(())
    })?;
    scanner.end()?;
    fixed.code = code.ok_or(CommandError::NoCode)?;
    Ok(fixed)
}

struct Scanner<'h, 's> {
    header: &'h str,
    position: usize,
    scratch: &'s mut Scratch,
}

/// A value and where its text lies.
#[derive(Clone, Copy)]
enum Value {
    /// A string, its quotes left out.
    Text(Span),
    /// A number or boolean.
    Scalar(Span),
    /// An object or array.
    Nested(Span),
    Null,
}

impl Value {
    /// The value as text, `None` for null.
    fn span(self) -> Option<Span> {
        match self {
            Self::Text(span) | Self::Scalar(span) | Self::Nested(span) => Some(span),
            Self::Null => None,
        }
    }
}

impl Scanner<'_, '_> {
    /// Calls `member` behind the colon of each member; it must consume the value.
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Span) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        self.expect(b'{', "an opening brace")?;
        if self.skip_if(b'}') {
            return Ok(());
        }
        loop {
            self.expect(b'"', "a name in quotes")?;
            let name = self.string()?;
            self.expect(b':', "a colon")?;
            member(self, name)?;
            if self.skip_if(b'}') {
                return Ok(());
            }
            self.expect(b',', "a comma or a closing brace")?;
        }
    }

    fn extension_fields(&mut self) -> Result<(), CommandError> {
        if self.peek() == Some(b'n') {
            return self.value().map(drop);
        }
        self.object(|scanner, name| {
            if let Some(value) = scanner.value()?.span() {
                if scanner.scratch.fields.len() == FIELD_COUNT_MAX {
                    return Err(CommandError::TooManyFields {
                        max: FIELD_COUNT_MAX,
                    });
                }
                scanner.scratch.fields.push(FieldSpan { name, value });
            }
            Ok(())
        })
    }

    /// An integer as a number or as a string; `None` for null.
    fn integer(&mut self, name: &'static str) -> Result<Option<i32>, CommandError> {
        let Some(span) = self.value()?.span() else {
            return Ok(None);
        };
        let text = self.text(span);
        match text.parse() {
            Ok(integer) => Ok(Some(integer)),
            Err(_) => Err(CommandError::Integer {
                name,
                value: shorten(text),
            }),
        }
    }

    /// A language by name or, as fastjson allows for enums, by number.
    fn language(&mut self) -> Result<Option<LanguageCode>, CommandError> {
        Ok(match self.value()? {
            Value::Text(span) => LanguageCode::from_name(self.text(span)),
            Value::Scalar(span) => self
                .text(span)
                .parse()
                .ok()
                .and_then(LanguageCode::from_byte),
            Value::Nested(_) | Value::Null => None,
        })
    }

    fn value(&mut self) -> Result<Value, CommandError> {
        match self.peek() {
            Some(b'"') => {
                self.position += 1;
                Ok(Value::Text(self.string()?))
            }
            Some(b'{' | b'[') => Ok(Value::Nested(self.nested()?)),
            _ => self.scalar(),
        }
    }

    /// A number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Result<Value, CommandError> {
        let start = self.position;
        let part_of_scalar =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        self.position += self
            .rest()
            .iter()
            .take_while(|byte| part_of_scalar(byte))
            .count();
        let span = Span::new(Place::Header, start, self.position);
        match self.text(span) {
            "null" => Ok(Value::Null),
            "true" | "false" => Ok(Value::Scalar(span)),
            text if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
                Ok(Value::Scalar(span))
            }
            _ => {
                self.position = start;
                Err(self.expected("a value"))
            }
        }
    }

    /// Skips an object or array. Not recursive, so depth costs nothing.
    fn nested(&mut self) -> Result<Span, CommandError> {
        let start = self.position;
        let mut depth = 0usize;
        loop {
            match self.next() {
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(b'"') => self.skip_string()?,
                Some(_) => {}
                None => return Err(self.expected("a closing bracket")),
            }
            if depth == 0 {
                return Ok(Span::new(Place::Header, start, self.position));
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), CommandError> {
        loop {
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => drop(self.next()),
                Some(_) => {}
                None => return Err(self.expected("a closing quote")),
            }
        }
    }

    /// The string whose opening quote is behind us.
    fn string(&mut self) -> Result<Span, CommandError> {
        let start = self.position;
        if self.skip_to_quote_or_escape()? == b'"' {
            return Ok(Span::new(Place::Header, start, self.position - 1));
        }
        let decoded_start = self.scratch.decoded.len();
        let mut run_start = start;
        loop {
            let run = Span::new(Place::Header, run_start, self.position - 1);
            self.scratch.decoded.push_str(run.slice(self.header));
            let escaped = self.escape()?;
            self.scratch.decoded.push(escaped);
            run_start = self.position;
            if self.skip_to_quote_or_escape()? == b'"' {
                break;
            }
        }
        let run = Span::new(Place::Header, run_start, self.position - 1);
        self.scratch.decoded.push_str(run.slice(self.header));
        Ok(Span::new(
            Place::Decoded,
            decoded_start,
            self.scratch.decoded.len(),
        ))
    }

    /// Goes behind the next quote or backslash and says which it was.
    fn skip_to_quote_or_escape(&mut self) -> Result<u8, CommandError> {
        let found = self
            .rest()
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\'));
        match found {
            Some(position) => {
                self.position += position;
                self.next().ok_or_else(|| self.expected("a closing quote"))
            }
            None => {
                self.position = self.header.len();
                Err(self.expected("a closing quote"))
            }
        }
    }

    /// The character of an escape whose backslash is behind us.
    fn escape(&mut self) -> Result<char, CommandError> {
        let (character, len) = unescape(self.rest()).map_err(|what| self.expected(what))?;
        self.position += len;
        Ok(character)
    }

    /// Nothing but white space may follow.
    fn end(&mut self) -> Result<(), CommandError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end")),
        }
    }

    /// Skips white space and the byte `wanted`.
    fn expect(&mut self, wanted: u8, expected: &'static str) -> Result<(), CommandError> {
        if self.skip_if(wanted) {
            Ok(())
        } else {
            Err(self.expected(expected))
        }
    }

    fn skip_if(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.position += usize::from(found);
        found
    }

    /// The next byte that is not white space; it stays to be read.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.header.as_bytes().get(self.position)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.position += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.header.as_bytes().get(self.position)?;
        self.position += 1;
        Some(byte)
    }

    fn rest(&self) -> &[u8] {
        self.header
            .as_bytes()
            .get(self.position..)
            .unwrap_or_default()
    }

    fn text(&self, span: Span) -> &str {
        match span.place {
            Place::Header => span.slice(self.header),
            Place::Decoded => span.slice(&self.scratch.decoded),
        }
    }

    fn expected(&self, expected: &'static str) -> CommandError {
        CommandError::Json {
            position: self.position.min(self.header.len()),
            expected,
        }
    }
}

//! The JSON form of a header, scanned once without building a tree.
//!
//! Accepted is what the Java, Go and Node clients write: standard JSON, extension values as
//! strings, numbers, booleans or null. A nested extension value counts as its JSON text. What
//! stands under unknown keys is skipped by its brackets and strings only.

use crate::error::{CommandError, shorten};
use crate::escape::{quote_or_escape, unescape};
use crate::language::LanguageCode;
use crate::span::Span;
use crate::view::{FIELD_COUNT_MAX, FieldSpan, FixedFields, Scratch, Step};

/// Reads `header`; extension fields and undone escapes go into `scratch`.
pub(crate) fn read(header: &str, scratch: &mut Scratch) -> Step<FixedFields> {
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
            "remark" => fixed.remark = scanner.value()?,
            "extFields" => scanner.extension_fields()?,
            _ => drop(scanner.value()?),
        }
        Ok(())
    })?;
    scanner.end()?;
    fixed.code = code.ok_or_else(|| Box::new(CommandError::NoCode))?;
    Ok(fixed)
}

struct Scanner<'h, 's> {
    header: &'h str,
    position: usize,
    scratch: &'s mut Scratch,
}

/// A member `,"name":"value"` without escapes and white space, and where it ends.
#[inline(always)]
fn compact_field(bytes: &[u8], position: usize) -> Option<(FieldSpan, usize)> {
    let text_end = |start: usize| Some(start + quote_or_escape(bytes.get(start..)?)?);
    let is = |position: usize, wanted: &[u8]| {
        bytes.get(position..position + wanted.len()) == Some(wanted)
    };
    if !is(position, b",\"") {
        return None;
    }
    let name_start = position + 2;
    let name_end = text_end(name_start)?;
    if !is(name_end, b"\":\"") {
        return None;
    }
    let value_start = name_end + 3;
    let value_end = text_end(value_start)?;
    let field = FieldSpan {
        name: Span::of_header(name_start, name_end),
        value: Span::of_header(value_start, value_end),
    };
    is(value_end, b"\"").then_some((field, value_end + 1))
}

/// The short steps are inlined by force: then the position stays in a register, which saves a
/// quarter of the time of a send request's header.
impl Scanner<'_, '_> {
    /// Calls `member` behind the colon of each member; it must consume the value.
    fn object(&mut self, mut member: impl FnMut(&mut Self, Span) -> Step<()>) -> Step<()> {
        self.expect(b'{', "an opening brace")?;
        if self.skip_if(b'}') {
            return Ok(());
        }
        self.expect(b'"', "a name in quotes")?;
        loop {
            let name = self.string()?;
            self.expect(b':', "a colon")?;
            member(self, name)?;
            // As clients write it: without white space.
            if self.skip_pair(*b",\"") {
                continue;
            }
            if self.skip_if(b'}') {
                return Ok(());
            }
            self.expect(b',', "a comma or a closing brace")?;
            self.expect(b'"', "a name in quotes")?;
        }
    }

    fn extension_fields(&mut self) -> Step<()> {
        if self.peek() == Some(b'n') {
            return self.value().map(drop);
        }
        self.object(|scanner, name| {
            if let Some(value) = scanner.value()? {
                if scanner.scratch.fields.len() == FIELD_COUNT_MAX {
                    return Err(Box::new(CommandError::TooManyFields {
                        max: FIELD_COUNT_MAX,
                    }));
                }
                scanner.scratch.fields.push(FieldSpan { name, value });
            }
            scanner.compact_fields();
            Ok(())
        })
    }

    /// Takes further members that are what most are: texts without escapes, no white space. The
    /// position is behind a value before and after. Nothing here is an error: what is not taken is
    /// for [`object`](Self::object) to judge.
    ///
    /// It halves the time of a send request's header, because only a local position is carried from
    /// one member to the next.
    fn compact_fields(&mut self) {
        let bytes = self.header.as_bytes();
        let mut position = self.position;
        while self.scratch.fields.len() < FIELD_COUNT_MAX {
            let Some((field, end)) = compact_field(bytes, position) else {
                break;
            };
            self.scratch.fields.push(field);
            position = end;
        }
        self.position = position;
    }

    /// An integer as a number or as a string; `None` for null.
    #[inline(always)]
    fn integer(&mut self, name: &'static str) -> Step<Option<i32>> {
        if let Some(integer) = self.plain_integer() {
            return Ok(Some(integer));
        }
        self.unusual_integer(name)
    }

    /// The usual form: digits up to a comma. Otherwise nothing is consumed.
    #[inline(always)]
    fn plain_integer(&mut self) -> Option<i32> {
        let digits = self.rest();
        let mut value = 0u64;
        // Eleven digits do not fit anyway.
        for (count, byte) in digits.iter().take(11).enumerate() {
            match byte {
                b'0'..=b'9' => value = value * 10 + u64::from(byte - b'0'),
                b',' if count > 0 => {
                    let value = i32::try_from(value).ok()?;
                    self.position += count;
                    return Some(value);
                }
                _ => return None,
            }
        }
        None
    }

    fn unusual_integer(&mut self, name: &'static str) -> Step<Option<i32>> {
        let Some(span) = self.value()? else {
            return Ok(None);
        };
        let text = self.text(span);
        match text.parse() {
            Ok(integer) => Ok(Some(integer)),
            Err(_) => Err(Box::new(CommandError::Integer {
                name,
                value: shorten(text),
            })),
        }
    }

    /// A language by name or, as fastjson allows for enums, by number.
    fn language(&mut self) -> Step<Option<LanguageCode>> {
        let Some(span) = self.value()? else {
            return Ok(None);
        };
        let text = self.text(span);
        let by_number = || text.parse().ok().and_then(LanguageCode::from_byte);
        Ok(LanguageCode::from_name(text).or_else(by_number))
    }

    /// The text of a value: a string without its quotes, everything else as it stands; `None` for
    /// null.
    #[inline(always)]
    fn value(&mut self) -> Step<Option<Span>> {
        match self.peek() {
            Some(b'"') => {
                self.position += 1;
                self.string().map(Some)
            }
            Some(b'{' | b'[') => self.nested().map(Some),
            _ => self.scalar(),
        }
    }

    /// A number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Step<Option<Span>> {
        let start = self.position;
        let part_of_scalar =
            |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        self.position += self.rest().iter().take_while(part_of_scalar).count();
        let span = Span::of_header(start, self.position);
        match self.text(span) {
            "null" => Ok(None),
            "true" | "false" => Ok(Some(span)),
            text if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
                Ok(Some(span))
            }
            _ => {
                self.position = start;
                Err(self.expected("a value"))
            }
        }
    }

    /// Skips an object or array. Not recursive, so depth costs nothing.
    fn nested(&mut self) -> Step<Span> {
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
                return Ok(Span::of_header(start, self.position));
            }
        }
    }

    fn skip_string(&mut self) -> Step<()> {
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
    #[inline(always)]
    fn string(&mut self) -> Step<Span> {
        let start = self.position;
        match self.skip_to_quote_or_escape()? {
            b'"' => Ok(Span::of_header(start, self.position - 1)),
            _ => self.escaped_string(start),
        }
    }

    /// The string that starts at `start` and whose first backslash is behind us.
    fn escaped_string(&mut self, start: usize) -> Step<Span> {
        let header = self.header;
        let bytes = header.as_bytes();
        let decoded = &mut self.scratch.decoded;
        let decoded_start = decoded.len();
        decoded.push_str(header.get(start..self.position - 1).unwrap_or_default());
        let mut position = self.position;
        loop {
            let rest = bytes.get(position..).unwrap_or_default();
            let (escaped, len) = match unescape(rest) {
                Ok(escaped) => escaped,
                Err(expected) => return Err(self.expected_at(position, expected)),
            };
            decoded.push(escaped);
            let run_start = position + len;
            let rest = bytes.get(run_start..).unwrap_or_default();
            let Some(run_len) = quote_or_escape(rest) else {
                return Err(self.expected_at(header.len(), "a closing quote"));
            };
            let run_end = run_start + run_len;
            decoded.push_str(header.get(run_start..run_end).unwrap_or_default());
            position = run_end + 1;
            if bytes.get(run_end) == Some(&b'"') {
                self.position = position;
                return Ok(Span::of_decoded(decoded_start, decoded.len()));
            }
        }
    }

    /// Goes behind the next quote or backslash and says which it was.
    #[inline(always)]
    fn skip_to_quote_or_escape(&mut self) -> Step<u8> {
        let found = quote_or_escape(self.rest());
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

    /// Nothing but white space may follow.
    fn end(&mut self) -> Step<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end")),
        }
    }

    /// Skips white space and the byte `wanted`.
    #[inline(always)]
    fn expect(&mut self, wanted: u8, expected: &'static str) -> Step<()> {
        if self.skip_if(wanted) {
            Ok(())
        } else {
            Err(self.expected(expected))
        }
    }

    #[inline(always)]
    fn skip_pair(&mut self, wanted: [u8; 2]) -> bool {
        let found = self.rest().first_chunk() == Some(&wanted);
        self.position += if found { 2 } else { 0 };
        found
    }

    #[inline(always)]
    fn skip_if(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.position += usize::from(found);
        found
    }

    /// The next byte that is not white space; it stays to be read.
    #[inline(always)]
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

    #[inline(always)]
    fn rest(&self) -> &[u8] {
        self.header
            .as_bytes()
            .get(self.position..)
            .unwrap_or_default()
    }

    #[inline(always)]
    fn text(&self, span: Span) -> &str {
        span.text(self.header, &self.scratch.decoded)
    }

    fn expected(&self, expected: &'static str) -> Box<CommandError> {
        self.expected_at(self.position, expected)
    }

    fn expected_at(&self, position: usize, expected: &'static str) -> Box<CommandError> {
        Box::new(CommandError::Json { position, expected })
    }
}

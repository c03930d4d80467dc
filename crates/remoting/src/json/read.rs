//! Reading fastjson's dialect into a tree.

use serde_json::{Map, Number, Value};

use super::Limits;
use crate::error::BodyError;
use crate::escape::unescape;

/// Estimated memory of one value in an array, or of a member besides its texts.
const VALUE_LEN: usize = 64;
/// Estimated memory of an object that has members, besides them: one node of its tree.
const OBJECT_LEN: usize = 640;

/// See [`super::read`].
pub(super) fn read(text: &[u8], limits: Limits) -> Result<Value, BodyError> {
    let text = std::str::from_utf8(text).map_err(|wrong| BodyError::Json {
        position: wrong.valid_up_to(),
        expected: "UTF-8",
    })?;
    let mut reader = Reader {
        text,
        position: 0,
        depth: 0,
        memory_len: 0,
        limits,
    };
    let value = reader.value()?;
    match reader.peek()? {
        None => Ok(value),
        Some(_) => Err(reader.expected("the end")),
    }
}

struct Reader<'t> {
    text: &'t str,
    position: usize,
    depth: usize,
    memory_len: usize,
    limits: Limits,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Value, BodyError> {
        self.charge(VALUE_LEN)?;
        match self.peek()? {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(quote @ (b'"' | b'\'')) => self.string(quote).map(Value::String),
            Some(_) => self.scalar(),
            None => Err(self.expected("a value")),
        }
    }

    /// Reads what stands behind an opening bracket, which is skipped.
    fn nested(
        &mut self,
        content: fn(&mut Self) -> Result<Value, BodyError>,
    ) -> Result<Value, BodyError> {
        if self.depth == self.limits.depth {
            let what = "levels of nesting";
            return Err(BodyError::TooLarge {
                what,
                limit: self.limits.depth,
            });
        }
        self.depth += 1;
        self.position += 1;
        let value = content(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, BodyError> {
        let mut members = Map::new();
        while !self.skip_if(b'}')? {
            if members.is_empty() {
                self.charge(OBJECT_LEN)?;
            }
            let name = self.name()?;
            if !self.skip_if(b':')? {
                return Err(self.expected("a colon"));
            }
            let value = self.value()?;
            // fastjson does not tell a null from an absent member when it fills a bean.
            if !value.is_null() {
                members.insert(name, value);
            }
            if !self.skip_if(b',')? && self.peek()? != Some(b'}') {
                return Err(self.expected("a comma or a closing brace"));
            }
        }
        Ok(Value::Object(members))
    }

    fn array(&mut self) -> Result<Value, BodyError> {
        let mut elements = Vec::new();
        while !self.skip_if(b']')? {
            elements.push(self.value()?);
            if !self.skip_if(b',')? && self.peek()? != Some(b']') {
                return Err(self.expected("a comma or a closing bracket"));
            }
        }
        Ok(Value::Array(elements))
    }

    /// A member's name: a string, a bare word or number, or an object or array literal.
    fn name(&mut self) -> Result<String, BodyError> {
        match self.peek()? {
            Some(quote @ (b'"' | b'\'')) => self.string(quote),
            Some(b'{' | b'[') => {
                let name = self.value()?.to_string();
                self.charge(name.len())?;
                Ok(name)
            }
            _ => {
                let word = self.word().to_owned();
                if word.is_empty() {
                    return Err(self.expected("a name"));
                }
                self.charge(word.len())?;
                Ok(word)
            }
        }
    }

    fn scalar(&mut self) -> Result<Value, BodyError> {
        let start = self.position;
        let value = match self.word() {
            "null" => Some(Value::Null),
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            word => number(word).map(Value::Number),
        };
        value.ok_or(BodyError::Json {
            position: start,
            expected: "a value",
        })
    }

    /// Letters, digits and the marks of numbers and Java names.
    fn word(&mut self) -> &str {
        let start = self.position;
        let part = |byte: &u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_' | b'$')
        };
        self.position += self.rest().iter().take_while(|byte| part(byte)).count();
        self.text.get(start..self.position).unwrap_or_default()
    }

    fn string(&mut self, quote: u8) -> Result<String, BodyError> {
        self.position += 1;
        let mut string = String::new();
        loop {
            let end_of_run = |byte: &u8| *byte == quote || *byte == b'\\';
            let Some(run_len) = self.rest().iter().position(end_of_run) else {
                self.position = self.text.len();
                return Err(self.expected("a closing quote"));
            };
            let run = self.text.get(self.position..self.position + run_len);
            string.push_str(run.unwrap_or_default());
            self.position += run_len;
            if self.rest().first() == Some(&quote) {
                self.position += 1;
                self.charge(string.len())?;
                return Ok(string);
            }
            self.position += 1;
            let (character, len) = unescape(self.rest()).map_err(|what| self.expected(what))?;
            string.push(character);
            self.position += len;
        }
    }

    fn skip_if(&mut self, wanted: u8) -> Result<bool, BodyError> {
        let found = self.peek()? == Some(wanted);
        self.position += usize::from(found);
        Ok(found)
    }

    /// The next byte behind white space and comments; it stays to be read.
    fn peek(&mut self) -> Result<Option<u8>, BodyError> {
        loop {
            let rest = self.rest();
            match rest.first() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.position += 1,
                Some(b'/') => self.position += self.comment_len()?,
                first => return Ok(first.copied()),
            }
        }
    }

    fn comment_len(&self) -> Result<usize, BodyError> {
        let rest = self.rest();
        let end = if rest.starts_with(b"//") {
            rest.iter()
                .position(|byte| *byte == b'\n')
                .or(Some(rest.len()))
        } else if rest.starts_with(b"/*") {
            let body = rest.get(2..).unwrap_or_default();
            body.windows(2)
                .position(|pair| pair == b"*/")
                .map(|position| position + 4)
        } else {
            None
        };
        end.ok_or_else(|| self.expected("a comment"))
    }

    fn rest(&self) -> &[u8] {
        self.text
            .as_bytes()
            .get(self.position..)
            .unwrap_or_default()
    }

    fn charge(&mut self, len: usize) -> Result<(), BodyError> {
        self.memory_len += len;
        if self.memory_len > self.limits.memory_len {
            let what = "bytes of memory to be read into";
            return Err(BodyError::TooLarge {
                what,
                limit: self.limits.memory_len,
            });
        }
        Ok(())
    }

    fn expected(&self, expected: &'static str) -> BodyError {
        BodyError::Json {
            position: self.position,
            expected,
        }
    }
}

fn number(word: &str) -> Option<Number> {
    if let Ok(integer) = word.parse::<i64>() {
        return Some(Number::from(integer));
    }
    if let Ok(integer) = word.parse::<u64>() {
        return Some(Number::from(integer));
    }
    // Rust also reads words such as `inf`.
    let numeric = word.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let float: f64 = word.parse().ok().filter(|_| numeric)?;
    Number::from_f64(float)
}

//! Writing fastjson's dialect.

use serde::ser::{self, Serialize, Serializer};

use crate::error::BodyError;
use crate::text::{Charset, push_decimal, push_integer, push_quoted};

/// fastjson's default form, as bodies have it.
pub(super) const COMPACT: Style = Style {
    charset: Charset::Utf8,
    layout: Layout::Compact,
    integer_names: IntegerNames::Bare,
};
/// Standard JSON.
pub(super) const STANDARD: Style = Style {
    charset: Charset::Ascii,
    layout: Layout::Compact,
    integer_names: IntegerNames::Quoted,
};
/// The form of state files.
pub(super) const PRETTY: Style = Style {
    charset: Charset::Utf8,
    layout: Layout::Pretty,
    integer_names: IntegerNames::Bare,
};

/// How a text is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    charset: Charset,
    layout: Layout,
    integer_names: IntegerNames,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Compact,
    Pretty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IntegerNames {
    Bare,
    Quoted,
}

/// Writes `value` in `style`.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, style: Style) -> Result<Vec<u8>, BodyError> {
    let mut writer = Writer {
        out: Vec::new(),
        style,
        depth: 0,
    };
    value.serialize(&mut writer)?;
    Ok(writer.out)
}

impl ser::Error for BodyError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Shape {
            expected: "value with a JSON form",
            reason: message.to_string(),
        }
    }
}

struct Writer {
    out: Vec<u8>,
    style: Style,
    depth: usize,
}

impl Writer {
    fn open(&mut self, bracket: u8) -> Nested<'_> {
        self.out.push(bracket);
        self.depth += 1;
        Nested {
            writer: self,
            count: 0,
            member_start: 0,
            value_start: 0,
        }
    }

    fn new_line(&mut self) {
        if self.style.layout == Layout::Pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + self.depth, b'\t');
        }
    }

    /// A member's name and colon. Only names in quotes start a line of their own, as in fastjson.
    fn name<K: Serialize + ?Sized>(&mut self, name: &K) -> Result<(), BodyError> {
        let name = write(
            name,
            Style {
                layout: Layout::Compact,
                ..self.style
            },
        )?;
        match name.first() {
            Some(b'"') => {
                self.new_line();
                self.out.extend_from_slice(&name);
            }
            Some(b'-' | b'0'..=b'9') if self.style.integer_names == IntegerNames::Quoted => {
                self.out.push(b'"');
                self.out.extend_from_slice(&name);
                self.out.push(b'"');
            }
            _ => self.out.extend_from_slice(&name),
        }
        self.out.push(b':');
        Ok(())
    }
}

/// An object or array under construction.
struct Nested<'w> {
    writer: &'w mut Writer,
    /// Elements or members so far.
    count: usize,
    /// Where the member under construction starts in the output, its comma included.
    member_start: usize,
    /// Where its value starts.
    value_start: usize,
}

impl Nested<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), BodyError> {
        self.separate();
        element.serialize(&mut *self.writer)
    }

    fn member_name<K: Serialize + ?Sized>(&mut self, name: &K) -> Result<(), BodyError> {
        self.member_start = self.writer.out.len();
        self.separate();
        self.writer.name(name)?;
        self.value_start = self.writer.out.len();
        Ok(())
    }

    /// Writes the value, or takes the name back if the value is null.
    fn member_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BodyError> {
        value.serialize(&mut *self.writer)?;
        if self.writer.out.get(self.value_start..) == Some(b"null".as_slice()) {
            self.writer.out.truncate(self.member_start);
            self.count -= 1;
        }
        Ok(())
    }

    fn separate(&mut self) {
        if self.count > 0 {
            self.writer.out.push(b',');
        }
        self.count += 1;
    }

    fn close_object(self) -> Result<(), BodyError> {
        self.writer.depth -= 1;
        if self.count > 0 {
            self.writer.new_line();
        }
        self.writer.out.push(b'}');
        Ok(())
    }

    fn close_array(self) -> Result<(), BodyError> {
        self.writer.depth -= 1;
        self.writer.out.push(b']');
        Ok(())
    }
}

macro_rules! integers {
    ($($method:ident $type:ty,)+) => {
        $(
            fn $method(self, value: $type) -> Result<(), BodyError> {
                self.serialize_i64(i64::from(value))
            }
        )+
    };
}

impl<'w> Serializer for &'w mut Writer {
    type Ok = ();
    type Error = BodyError;
    type SerializeSeq = Nested<'w>;
    type SerializeTuple = Nested<'w>;
    type SerializeTupleStruct = Nested<'w>;
    type SerializeTupleVariant = ser::Impossible<(), BodyError>;
    type SerializeMap = Nested<'w>;
    type SerializeStruct = Nested<'w>;
    type SerializeStructVariant = ser::Impossible<(), BodyError>;

    integers! {
        serialize_i8 i8,
        serialize_i16 i16,
        serialize_i32 i32,
        serialize_u8 u8,
        serialize_u16 u16,
        serialize_u32 u32,
    }

    fn serialize_i64(self, value: i64) -> Result<(), BodyError> {
        push_integer(&mut self.out, value);
        Ok(())
    }

    fn serialize_u64(self, value: u64) -> Result<(), BodyError> {
        push_decimal(&mut self.out, value, false);
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result<(), BodyError> {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.out.extend_from_slice(text);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), BodyError> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), BodyError> {
        if !value.is_finite() {
            return self.serialize_unit();
        }
        self.out.extend_from_slice(format!("{value:?}").as_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), BodyError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), BodyError> {
        push_quoted(&mut self.out, value, self.style.charset);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), BodyError> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), BodyError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), BodyError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), BodyError> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), BodyError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), BodyError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), BodyError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), BodyError> {
        Err(enum_content(name))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Nested<'w>, BodyError> {
        Ok(self.open(b'['))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Nested<'w>, BodyError> {
        Ok(self.open(b'['))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Nested<'w>, BodyError> {
        Ok(self.open(b'['))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, BodyError> {
        Err(enum_content(name))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Nested<'w>, BodyError> {
        Ok(self.open(b'{'))
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Nested<'w>, BodyError> {
        Ok(self.open(b'{'))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, BodyError> {
        Err(enum_content(name))
    }
}

fn enum_content(name: &'static str) -> BodyError {
    ser::Error::custom(format_args!("enum {name} has a variant with content"))
}

impl ser::SerializeSeq for Nested<'_> {
    type Ok = ();
    type Error = BodyError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BodyError> {
        self.element(value)
    }

    fn end(self) -> Result<(), BodyError> {
        self.close_array()
    }
}

impl ser::SerializeTuple for Nested<'_> {
    type Ok = ();
    type Error = BodyError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BodyError> {
        self.element(value)
    }

    fn end(self) -> Result<(), BodyError> {
        self.close_array()
    }
}

impl ser::SerializeTupleStruct for Nested<'_> {
    type Ok = ();
    type Error = BodyError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BodyError> {
        self.element(value)
    }

    fn end(self) -> Result<(), BodyError> {
        self.close_array()
    }
}

impl ser::SerializeMap for Nested<'_> {
    type Ok = ();
    type Error = BodyError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), BodyError> {
        self.member_name(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BodyError> {
        self.member_value(value)
    }

    fn end(self) -> Result<(), BodyError> {
        self.close_object()
    }
}

impl ser::SerializeStruct for Nested<'_> {
    type Ok = ();
    type Error = BodyError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), BodyError> {
        self.member_name(name)?;
        self.member_value(value)
    }

    fn end(self) -> Result<(), BodyError> {
        self.close_object()
    }
}

//! From the tree to a type, with fastjson's casts: texts to numbers and booleans, numbers and
//! booleans to texts, enum ordinals to names, and the JSON text of an object to the object.

use std::borrow::Cow;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use thiserror::Error;

use super::{Limits, read};

/// Why a tree does not fit a type: a path to the place, and the reason.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct ShapeError(String);

impl de::Error for ShapeError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A value to be read as what the type asks for.
#[derive(Clone)]
pub(super) struct Coerced<'v>(Cow<'v, Value>);

impl<'v> Coerced<'v> {
    pub(super) fn new(value: &'v Value) -> Self {
        Self(Cow::Borrowed(value))
    }

    fn kind(&self) -> &'static str {
        match &*self.0 {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }

    /// Numbers and booleans as text, texts as they are.
    fn text(&self) -> Option<Cow<'_, str>> {
        match &*self.0 {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(boolean) => Some(Cow::Owned(boolean.to_string())),
            _ => None,
        }
    }

    fn parse<T: std::str::FromStr>(&self, expected: &'static str) -> Result<T, ShapeError> {
        let parsed = self.text().and_then(|text| text.trim().parse().ok());
        parsed.ok_or_else(|| self.is_not(expected))
    }

    fn is_not(&self, expected: &'static str) -> ShapeError {
        match self.text() {
            Some(text) => ShapeError(format!(
                "is {:?}, must be {expected}",
                crate::error::shorten(&text)
            )),
            None => ShapeError(format!("is {}, must be {expected}", self.kind())),
        }
    }

    /// The object or array itself, or the one that a text spells.
    fn structure(self) -> Self {
        match &*self.0 {
            Value::String(text) if text.starts_with(['{', '[']) => {
                match read(text.as_bytes(), Limits::default()) {
                    Ok(value) => Self(Cow::Owned(value)),
                    Err(_) => self,
                }
            }
            _ => self,
        }
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $expected:literal,)+) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
                visitor.$visit(self.parse($expected)?)
            }
        )+
    };
}

impl<'de> Deserializer<'de> for Coerced<'_> {
    type Error = ShapeError;

    parsed! {
        deserialize_i8 visit_i8 "an integer of 8 bits",
        deserialize_i16 visit_i16 "an integer of 16 bits",
        deserialize_i32 visit_i32 "an integer of 32 bits",
        deserialize_i64 visit_i64 "an integer of 64 bits",
        deserialize_u8 visit_u8 "a positive integer of 8 bits",
        deserialize_u16 visit_u16 "a positive integer of 16 bits",
        deserialize_u32 visit_u32 "a positive integer of 32 bits",
        deserialize_u64 visit_u64 "a positive integer of 64 bits",
        deserialize_f32 visit_f32 "a number",
        deserialize_f64 visit_f64 "a number",
        deserialize_char visit_char "one character",
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.text().as_deref() {
            Some("true" | "TRUE" | "True" | "1") => visitor.visit_bool(true),
            Some("false" | "FALSE" | "False" | "0") => visitor.visit_bool(false),
            _ => Err(self.is_not("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.text() {
            Some(text) => visitor.visit_str(&text),
            // fastjson casts an object to its JSON text.
            None => visitor.visit_string(self.0.to_string()),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        let structure = self.structure();
        match &*structure.0 {
            Value::Array(elements) => visitor.visit_seq(Elements {
                rest: elements.iter(),
            }),
            _ => Err(structure.is_not("an array")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        let structure = self.structure();
        match &*structure.0 {
            Value::Object(members) => visitor.visit_map(Members {
                rest: members.iter(),
                current: None,
            }),
            _ => Err(structure.is_not("an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let name = match &*self.0 {
            Value::Number(ordinal) => {
                let ordinal = ordinal
                    .as_u64()
                    .and_then(|ordinal| usize::try_from(ordinal).ok());
                ordinal.and_then(|ordinal| variants.get(ordinal)).copied()
            }
            Value::String(name) => Some(name.as_str()),
            _ => None,
        };
        let name = name.ok_or_else(|| self.is_not("a name"))?;
        visitor.visit_enum(Variant(name))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match &*self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(boolean) => visitor.visit_bool(*boolean),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(integer), _, _) => visitor.visit_i64(integer),
                (_, Some(integer), _) => visitor.visit_u64(integer),
                (_, _, float) => visitor.visit_f64(float.unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Elements<'v> {
    rest: std::slice::Iter<'v, Value>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ShapeError> {
        self.rest
            .next()
            .map(|element| seed.deserialize(Coerced::new(element)))
            .transpose()
    }
}

struct Members<'v> {
    rest: serde_json::map::Iter<'v>,
    current: Option<(&'v str, &'v Value)>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = ShapeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ShapeError> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.current = Some((name, value));
        // An owned text, because a name may have to be read as a number or an object.
        let key = Coerced(Cow::Owned(Value::String(name.clone())));
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, ShapeError> {
        let Some((name, value)) = self.current.take() else {
            return Err(ShapeError(
                "a value was asked for before its name".to_owned(),
            ));
        };
        seed.deserialize(Coerced::new(value))
            .map_err(|ShapeError(reason)| {
                // `is ..` ends the path of names.
                let separator = if reason.starts_with("is ") { " " } else { "." };
                ShapeError(format!(
                    "{}{separator}{reason}",
                    crate::error::shorten(name)
                ))
            })
    }
}

struct Variant<'n>(&'n str);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = ShapeError;
    type Variant = UnitVariant;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, UnitVariant), ShapeError> {
        let name: StrDeserializer<'_, ShapeError> = de::IntoDeserializer::into_deserializer(self.0);
        Ok((seed.deserialize(name)?, UnitVariant))
    }
}

/// Java's enums have no content.
struct UnitVariant;

impl<'de> de::VariantAccess<'de> for UnitVariant {
    type Error = ShapeError;

    fn unit_variant(self) -> Result<(), ShapeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, ShapeError> {
        Err(no_content())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ShapeError> {
        Err(no_content())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ShapeError> {
        Err(no_content())
    }
}

fn no_content() -> ShapeError {
    ShapeError("is a name, must be an object".to_owned())
}

//! The macro that makes a typed header from a list of fields.

use crate::error::{HeaderError, shorten};
use crate::fields::FieldValue;

/// A type that a field can have.
pub(super) trait FieldType<'a>: Sized {
    /// What is allowed, for error texts.
    const EXPECTED: &'static str;

    /// The value of a field's text, `None` if it is not of this type.
    fn parse(text: &'a str) -> Option<Self>;

    /// The value when the field is not there, `None` if it must be.
    fn absent() -> Option<Self> {
        None
    }

    /// The value to be written, `None` to leave the field out.
    fn value(&self) -> Option<FieldValue<'_>>;

    /// Reads the field `field` of the header `header`.
    fn decode(
        header: &'static str,
        field: &'static str,
        text: Option<&'a str>,
    ) -> Result<Self, HeaderError> {
        let expected = Self::EXPECTED;
        match text {
            Some(text) => Self::parse(text).ok_or_else(|| HeaderError::Invalid {
                header,
                field,
                value: shorten(text),
                expected,
            }),
            None => Self::absent().ok_or(HeaderError::Missing {
                header,
                field,
                expected,
            }),
        }
    }
}

impl<'a> FieldType<'a> for &'a str {
    const EXPECTED: &'static str = "text";

    fn parse(text: &'a str) -> Option<Self> {
        Some(text)
    }

    fn value(&self) -> Option<FieldValue<'_>> {
        Some(FieldValue::Text(self))
    }
}

impl FieldType<'_> for i32 {
    const EXPECTED: &'static str = "a decimal integer from -2147483648 to 2147483647";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn value(&self) -> Option<FieldValue<'_>> {
        Some(FieldValue::from(*self))
    }
}

impl FieldType<'_> for i64 {
    const EXPECTED: &'static str =
        "a decimal integer from -9223372036854775808 to 9223372036854775807";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn value(&self) -> Option<FieldValue<'_>> {
        Some(FieldValue::Integer(*self))
    }
}

impl FieldType<'_> for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        Some(text.eq_ignore_ascii_case("true"))
    }

    fn value(&self) -> Option<FieldValue<'_>> {
        Some(FieldValue::Boolean(*self))
    }
}

impl<'a, T: FieldType<'a>> FieldType<'a> for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(text: &'a str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn value(&self) -> Option<FieldValue<'_>> {
        self.as_ref().and_then(T::value)
    }
}

/// `Name<'a> { field: Type => "wireName", other: Type => "wireName" or default, }`: the struct and
/// its [`Header`](super::Header) implementation, which looks at each pair once.
macro_rules! headers {
    () => {};
    ($(#[$meta:meta])* $name:ident<$life:lifetime> { $($fields:tt)* } $($rest:tt)*) => {
        headers!(@one [$(#[$meta])*] $name [<$life>] $life { $($fields)* });
        headers!($($rest)*);
    };
    ($(#[$meta:meta])* $name:ident { $($fields:tt)* } $($rest:tt)*) => {
        headers!(@one [$(#[$meta])*] $name [] 'a { $($fields)* });
        headers!($($rest)*);
    };
    (@one [$(#[$meta:meta])*] $name:ident [$($generics:tt)*] $life:lifetime {
        $($(#[$field_meta:meta])* $field:ident: $type:ty => $wire:literal $(or $default:expr)?,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "fields have upstream's names and meaning")]
        pub struct $name $($generics)* {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl<$life> $crate::header::Header<$life> for $name $($generics)* {
            const NAME: &'static str = stringify!($name);

            fn decode(
                fields: impl Iterator<Item = (&$life str, &$life str)>,
            ) -> Result<Self, $crate::error::HeaderError> {
                $(let mut $field: Option<&$life str> = None;)*
                for (name, value) in fields {
                    match name {
                        $($wire => $field = Some(value),)*
                        _ => {}
                    }
                }
                Ok(Self {
                    $($field: $crate::header::macros::decode_or(
                        Self::NAME,
                        $wire,
                        $field,
                        headers!(@default $($default)?),
                    )?,)*
                })
            }

            fn encode<S: $crate::fields::FieldSink + ?Sized>(&self, sink: &mut S) {
                $(
                    if let Some(value) = $crate::header::macros::FieldType::value(&self.$field) {
                        sink.put_known($wire, concat!("\"", $wire, "\":"), value);
                    }
                )*
            }
        }
    };
    (@default) => { None };
    (@default $default:expr) => { Some($default) };
}

/// Reads a field; an absent one has the value `default` if there is one.
pub(super) fn decode_or<'a, T: FieldType<'a>>(
    header: &'static str,
    field: &'static str,
    text: Option<&'a str>,
    default: Option<T>,
) -> Result<T, HeaderError> {
    match (text, default) {
        (None, Some(default)) => Ok(default),
        _ => T::decode(header, field, text),
    }
}

pub(super) use headers;

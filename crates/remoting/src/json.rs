//! fastjson's dialect of JSON, which RocketMQ's bodies and state files are written in.
//!
//! Read: besides standard JSON, names without quotes (`{0:"a"}`), objects as names
//! (`{{"queueId":0}:1}`), single quotes, trailing commas and comments. Members that are null
//! count as absent. Numbers, booleans and texts are taken for one another where the type asked for
//! is clear, as fastjson does. A `{"$ref":..}`, which fastjson writes when one Java object occurs
//! twice, is not resolved but read as an object of that name.
//!
//! Written: null members are left out, integer names are bare and objects may be names (what Java
//! and Go expect). Members stand in the order that the type declares, which in [`body`](crate::body)
//! is alphabetical.

mod coerce;
mod read;
mod write;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::BodyError;
use coerce::Coerced;

/// Bounds on what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Deepest nesting. Default: 64.
    pub depth: usize,
    /// Estimated memory of the value, in bytes. Default: 64 MiB, enough to register 40,000 topics
    /// at once; state files can need more.
    pub memory_len: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 64,
            memory_len: 64 * 1_024 * 1_024,
        }
    }
}

/// Reads a text as a tree. Names that are objects become their compact JSON text.
///
/// # Errors
/// The text is not JSON, or exceeds `limits`.
pub fn read(text: &[u8], limits: Limits) -> Result<Value, BodyError> {
    read::read(text, limits)
}

/// Reads a body or state file as a `T`, within default limits.
///
/// # Errors
/// The text is not JSON, exceeds the limits, or does not have the shape of a `T`.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, BodyError> {
    decode_within(text, Limits::default())
}

/// Reads a body or state file as a `T`.
///
/// # Errors
/// The text is not JSON, exceeds `limits`, or does not have the shape of a `T`.
pub fn decode_within<T: DeserializeOwned>(text: &[u8], limits: Limits) -> Result<T, BodyError> {
    let value = read(text, limits)?;
    T::deserialize(Coerced::new(&value)).map_err(|shape| {
        let name = std::any::type_name::<T>();
        let expected = name.rsplit("::").next().unwrap_or(name);
        BodyError::Shape {
            expected,
            reason: shape.to_string(),
        }
    })
}

/// Writes a body: compact, integer names bare.
///
/// # Errors
/// Only those of a `Serialize` implementation; the types of [`body`](crate::body) have none.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BodyError> {
    write::write(value, write::COMPACT)
}

/// Writes a body that any JSON parser reads: integer names in quotes and ASCII only. What a
/// `GET_ROUTEINFO_BY_TOPIC` with `acceptStandardJsonOnly` is answered with.
///
/// # Errors
/// Only those of a `Serialize` implementation; the types of [`body`](crate::body) have none.
pub fn encode_standard<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BodyError> {
    write::write(value, write::STANDARD)
}

/// Writes a state file: indented with tabs, integer names bare.
///
/// # Errors
/// Only those of a `Serialize` implementation; the types of [`body`](crate::body) have none.
pub fn encode_pretty<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BodyError> {
    write::write(value, write::PRETTY)
}

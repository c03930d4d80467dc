//! Typed headers: the extension fields of each request and response, under upstream's names.
//!
//! A header borrows its texts from the command it was decoded from. Fields that RocketMQ 5.3.3
//! marks as not null are plain, the others optional. Booleans are true for `true` in any case and
//! false for every other text, integers are decimal text, both as in Java. Unknown fields are
//! ignored.

mod admin;
mod macros;
mod namesrv;
mod offset;
mod pull;
mod query;
mod send;

pub use admin::*;
pub use namesrv::*;
pub use offset::*;
pub use pull::*;
pub use query::*;
pub use send::*;

use crate::error::HeaderError;
use crate::fields::FieldSink;

/// A set of extension fields with types.
pub trait Header<'a>: Sized {
    /// Upstream's class name, for error texts.
    const NAME: &'static str;

    /// Reads the header from name-value pairs. The last of several with one name counts.
    ///
    /// # Errors
    /// The first field that is missing or of another type.
    fn decode(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, HeaderError>;

    /// Writes all fields that are not absent.
    fn encode<S: FieldSink + ?Sized>(&self, sink: &mut S);
}

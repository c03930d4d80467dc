//! Why bytes are not a record, and why a message cannot become one.

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Fewer bytes than the record says, or than any record has.
    #[error("{have} bytes are there, the record needs {need}")]
    TooShort {
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Size and magic are zero: nothing was written here.
    #[error("zeros where a record should start")]
    Unwritten,
    /// Not the magic number of a record.
    #[error("magic {0:#010x} is none of 0xdaa320a7 (V1), 0xdaa320ab (V2), 0xcbd43194 (blank)")]
    Magic(u32),
    /// The total size is less than any record has.
    #[error("total size {found} is less than {min}")]
    Size {
        /// Size found.
        found: i32,
        /// The least it can be.
        min: usize,
    },
    /// A length that is negative or reaches beyond the record.
    #[error("{field} of {len} bytes in a record of {total_size}, of which {left} are left")]
    Field {
        /// The field.
        field: &'static str,
        /// Its length as found.
        len: i64,
        /// Bytes of the record behind the length.
        left: usize,
        /// The record's size.
        total_size: usize,
    },
    /// The lengths of the fields do not add up to the total size.
    #[error("total size is {total_size}, the fields have {counted} bytes")]
    Lengths {
        /// The record's size as found.
        total_size: usize,
        /// The sum of its fields.
        counted: usize,
    },
    /// The topic is not UTF-8.
    #[error("the topic is not UTF-8")]
    Topic,
    /// The body is not the one that was written.
    #[error("body CRC is {computed:#010x}, the record says {stored:#010x}")]
    BodyCrc {
        /// CRC in the record.
        stored: u32,
        /// CRC of its body.
        computed: u32,
    },
    /// The record does not end in a CRC property.
    #[error("the record has no property __CRC32#")]
    CrcPropertyMissing,
    /// The record is not the one that was written.
    #[error("record CRC is {computed:#010x}, its property __CRC32# says {stored:#010x}")]
    CrcProperty {
        /// CRC in the property.
        stored: u32,
        /// CRC of the bytes in front of it.
        computed: u32,
    },
    /// A record in the delay topic whose property DELAY is not a number.
    #[error("property DELAY is not a whole number")]
    DelayLevel,
}

/// Why a message cannot become a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The topic is empty or too long.
    #[error("topic has {len} bytes, allowed are 1 to {max}")]
    Topic {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The body is too long.
    #[error("body has {len} bytes, allowed are {max}")]
    Body {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The properties are too long.
    #[error("properties have {len} bytes, allowed are {max}")]
    Properties {
        /// Their length in bytes, CRC property included.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The whole record is too long.
    #[error("record has {len} bytes, allowed are {max}")]
    Record {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The properties are not text.
    #[error("properties are not UTF-8")]
    PropertiesText,
    /// A property that could not be read back.
    #[error("property {name:?}: {problem}")]
    Property {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Why bytes are not the body of a client's batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The body ends inside a message.
    #[error("message {index} of the batch ends after {have} bytes, inside its {field}")]
    TooShort {
        /// 0-based ordinal of the message.
        index: usize,
        /// Bytes left for the field.
        have: usize,
        /// The field.
        field: &'static str,
    },
    /// A length is negative.
    #[error("message {index} of the batch has a {field} length of {len}")]
    Length {
        /// 0-based ordinal of the message.
        index: usize,
        /// The field.
        field: &'static str,
        /// Its length as found.
        len: i32,
    },
    /// The fields do not add up to the stated size.
    #[error("message {index} of the batch says {stated} bytes and has {counted}")]
    Size {
        /// 0-based ordinal of the message.
        index: usize,
        /// Its size as found.
        stated: i32,
        /// The sum of its fields.
        counted: usize,
    },
}

/// Why a text is not an offset message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Neither 32 (IPv4) nor 56 (IPv6) characters.
    #[error("a message id has 32 or 56 characters, not {0}")]
    Length(usize),
    /// Not hexadecimal.
    #[error("a message id is hexadecimal; character {0} is not")]
    Digit(usize),
    /// The port is none.
    #[error("{0} is not a port")]
    Port(i32),
}

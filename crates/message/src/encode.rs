//! From a message to the bytes of its record: all that can be is computed before the log's append
//! lock is taken.

use std::borrow::Cow;
use std::net::SocketAddr;

use crc32fast::Hasher;

use crate::batch::BatchMessage;
use crate::crc::{CrcTail, masked};
use crate::error::EncodeError;
use crate::header::Header;
use crate::layout::{MAGIC_BLANK, PROPERTIES_LEN_MAX};
use crate::names::property;
use crate::properties::{PROPERTY_SEPARATOR, Properties, PropertiesBuilder};
use crate::sys_flag::SysFlag;

/// A message to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The queue within the topic.
    pub queue_id: i32,
    /// The user's flag.
    pub flag: i32,
    /// The system flag; the bits of the hosts' address families are set by the encoder.
    pub sys_flag: SysFlag,
    /// When the producer made it, ms since 1970.
    pub born_timestamp_ms: i64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// The broker's address.
    pub store_host: SocketAddr,
    /// How often it was given back by consumers.
    pub reconsume_times: i32,
    /// Where the half message of its transaction lies; 0 for others.
    pub prepared_transaction_offset: i64,
    /// The body; of a client's batch, all its messages ([`crate::BatchView`]).
    pub body: &'a [u8],
    /// The properties text.
    pub properties: &'a [u8],
}

impl<'a> Message<'a> {
    /// A message of which no more than this is known: it has no properties, was made in 1970, and
    /// comes from nowhere.
    pub fn new(topic: &'a str, queue_id: i32, body: &'a [u8]) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            topic,
            queue_id,
            flag: 0,
            sys_flag: SysFlag::default(),
            born_timestamp_ms: 0,
            born_host: nowhere,
            store_host: nowhere,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: b"",
        }
    }
}

/// How long a message may be, and which of the record's variants is written. The default is
/// RocketMQ's, with the one exception named at [`BatchProperties::Own`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body in bytes (`maxMessageSize`, 4 MiB).
    pub body_len_max: usize,
    /// The longest record in bytes (RocketMQ: `maxMessageSize` + 64 KiB).
    pub record_len_max: usize,
    /// The longest topic in bytes (RocketMQ: 255, and 127 for topics that clients name).
    pub topic_len_max: usize,
    /// Whether records end in a CRC property.
    pub crc_property: CrcProperty,
    /// What the properties of a batch's messages are.
    pub batch_properties: BatchProperties,
}

/// Whether records end in a CRC over all that is in front of it (`enabledAppendPropCRC`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrcProperty {
    /// They do not.
    #[default]
    Omit,
    /// They do; one that is there already is taken out.
    Append,
}

/// What the properties of a batch's messages are when they become records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchProperties {
    /// The message's own, as after RocketMQ 5.3.3 (its issue 9416).
    #[default]
    Own,
    /// Its own and behind them the batch's, whose UNIQ_KEY then hides the message's: RocketMQ
    /// 4.8.0 to 5.3.3.
    OwnThenOuter,
}

/// The fields that only the log knows, under its append lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The message's place in its queue; half and rolled-back messages are stored with 0.
    pub queue_offset: i64,
    /// Where the record lies in the log.
    pub physical_offset: i64,
    /// When it is stored, ms since 1970.
    pub store_timestamp_ms: i64,
}

/// How many parts [`PreparedRecord::parts`] gives; some may be empty.
pub const RECORD_PARTS: usize = 9;

/// A record of which all is computed except what [`PreparedRecord::stamp`] sets. It borrows body,
/// topic and properties, and allocates nothing (but for a CRC property that must be taken out of
/// the properties first).
#[derive(Clone, Debug)]
pub struct PreparedRecord<'a> {
    header: Header,
    body: &'a [u8],
    topic_len: TopicLen,
    topic: &'a str,
    properties_len: [u8; 2],
    properties: StoredProperties<'a>,
    crc_tail: Option<CrcTail>,
    len: usize,
}

/// The topic's length as its version has it.
#[derive(Clone, Copy, Debug)]
enum TopicLen {
    V1([u8; 1]),
    V2([u8; 2]),
}

/// The pieces of the properties text in front of the CRC property.
#[derive(Clone, Debug)]
struct StoredProperties<'a> {
    own: Cow<'a, [u8]>,
    /// 0x02 or nothing, between the two others.
    separator: &'static [u8],
    outer: &'a [u8],
}

impl<'a> Message<'a> {
    /// One message of this batch by itself: flag, body and properties are its own, the rest is the
    /// batch's.
    pub fn single(&self, message: &BatchMessage<'a>) -> Self {
        let BatchMessage {
            flag,
            body,
            properties,
        } = *message;
        Self {
            flag,
            body,
            properties,
            prepared_transaction_offset: 0,
            ..*self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const BODY_LEN_MAX: usize = 4 << 20;
        Self {
            body_len_max: BODY_LEN_MAX,
            record_len_max: BODY_LEN_MAX + (64 << 10),
            topic_len_max: 255,
            crc_property: CrcProperty::default(),
            batch_properties: BatchProperties::default(),
        }
    }
}

impl<'a> PreparedRecord<'a> {
    /// Computes the record of a message.
    ///
    /// It is V2 if the topic has more than 127 bytes, else V1. (RocketMQ counts UTF-16 units
    /// there, and writes an unreadable record for 127 units of more than 127 bytes.)
    ///
    /// # Errors
    /// A limit that is exceeded, or properties that are not UTF-8.
    pub fn new(message: &Message<'a>, limits: &Limits) -> Result<Self, EncodeError> {
        Self::with_outer_properties(message, &[], limits)
    }

    /// Computes the record of one message of a batch, see [`Message::single`] (RocketMQ 5.3.3
    /// `MessageExtEncoder.encode(MessageExtBatch)`).
    ///
    /// # Errors
    /// As [`PreparedRecord::new`].
    pub fn of_batch_message(
        batch: &Message<'a>,
        message: &BatchMessage<'a>,
        limits: &Limits,
    ) -> Result<Self, EncodeError> {
        let single = batch.single(message);
        let outer_properties = match limits.batch_properties {
            BatchProperties::Own => &[],
            BatchProperties::OwnThenOuter => batch.properties,
        };
        Self::with_outer_properties(&single, outer_properties, limits)
    }

    /// Bytes of the record.
    #[expect(clippy::len_without_is_empty, reason = "a record is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The topic it belongs to.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The system flag, with the bits of the hosts' address families.
    pub fn sys_flag(&self) -> SysFlag {
        self.header.sys_flag()
    }

    /// Sets the three fields that the log knows, and the CRC property if there is one. It may be
    /// done again, when the record moves to another place.
    #[inline]
    pub fn stamp(&mut self, stamp: Stamp) {
        self.header.stamp(stamp);
        if let Some(tail) = &mut self.crc_tail {
            tail.finish(self.header.as_slice());
        }
    }

    /// The record's bytes, as parts to be copied one behind the other.
    #[inline]
    pub fn parts(&self) -> [&[u8]; RECORD_PARTS] {
        [
            self.header.as_slice(),
            self.body,
            self.topic_len.as_slice(),
            self.topic.as_bytes(),
            &self.properties_len,
            &self.properties.own,
            self.properties.separator,
            self.properties.outer,
            self.crc_tail.as_ref().map_or(&[], CrcTail::as_slice),
        ]
    }

    fn with_outer_properties(
        message: &Message<'a>,
        outer_properties: &'a [u8],
        limits: &Limits,
    ) -> Result<Self, EncodeError> {
        check_topic_and_body(message, limits)?;
        let properties =
            StoredProperties::new(message.properties, outer_properties, limits.crc_property)?;
        let body_hasher = hasher_of(message.body);
        let mut record = Self {
            header: Header::new(message, masked(body_hasher.clone().finalize())),
            body: message.body,
            topic_len: TopicLen::new(message.topic.len()),
            topic: message.topic,
            properties_len: [0; 2],
            properties,
            crc_tail: None,
            len: 0,
        };
        if limits.crc_property == CrcProperty::Append {
            record.crc_tail = Some(CrcTail::new(record.properties.needs_separator()));
        }
        record.measure(limits)?;
        if let Some(mut tail) = record.crc_tail.take() {
            tail.begin(record.hasher_behind_header(body_hasher));
            record.crc_tail = Some(tail);
        }
        Ok(record)
    }

    /// Computes the lengths, and checks those of properties and record.
    fn measure(&mut self, limits: &Limits) -> Result<(), EncodeError> {
        let tail_len = self
            .crc_tail
            .as_ref()
            .map_or(0, |tail| tail.as_slice().len());
        let properties_len = self.properties.len() + tail_len;
        self.properties_len = i16::try_from(properties_len)
            .map_err(|_| EncodeError::Properties {
                len: properties_len,
                max: PROPERTIES_LEN_MAX,
            })?
            .to_be_bytes();
        self.len = self.parts().iter().map(|part| part.len()).sum();
        let max = limits.record_len_max.min(i32::MAX as usize);
        match i32::try_from(self.len) {
            Ok(total_size) if self.len <= max => {
                self.header.set_total_size(total_size);
                Ok(())
            }
            _ => Err(EncodeError::Record { len: self.len, max }),
        }
    }

    /// CRC state over all that lies between header and CRC tail.
    fn hasher_behind_header(&self, body_hasher: Hasher) -> Hasher {
        let mut hasher = body_hasher;
        for part in self.parts().iter().skip(2) {
            hasher.update(part);
        }
        hasher
    }
}

impl TopicLen {
    /// `len` is at most [`Limits::topic_len_max`], and that at most what V2 can hold.
    fn new(len: usize) -> Self {
        match i8::try_from(len) {
            Ok(len) => Self::V1(len.to_be_bytes()),
            Err(_) => Self::V2((len as i16).to_be_bytes()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::V1(field) => field,
            Self::V2(field) => field,
        }
    }
}

impl<'a> StoredProperties<'a> {
    fn new(own: &'a [u8], outer: &'a [u8], crc_property: CrcProperty) -> Result<Self, EncodeError> {
        if std::str::from_utf8(own).is_err() || std::str::from_utf8(outer).is_err() {
            return Err(EncodeError::PropertiesText);
        }
        let has_crc = |text| Properties::new(text).find_bytes(property::CRC32).is_some();
        let own = if crc_property == CrcProperty::Append && has_crc(own) {
            let mut builder = PropertiesBuilder::from(Properties::new(own));
            builder.remove(property::CRC32);
            Cow::Owned(builder.finish())
        } else {
            Cow::Borrowed(own)
        };
        let is_open = !outer.is_empty() && lacks_separator(&own);
        Ok(Self {
            own,
            separator: if is_open { &[PROPERTY_SEPARATOR] } else { &[] },
            outer,
        })
    }

    fn len(&self) -> usize {
        self.own.len() + self.separator.len() + self.outer.len()
    }

    /// Whether a pair added behind them would merge with their last one.
    fn needs_separator(&self) -> bool {
        lacks_separator(if self.outer.is_empty() {
            &self.own
        } else {
            self.outer
        })
    }
}

/// The 8 bytes that begin the padding of `remaining` bytes at the end of a file. What follows them
/// up to the end of the file means nothing.
pub fn blank_record(remaining: u32) -> [u8; 8] {
    (u64::from(remaining) << 32 | u64::from(MAGIC_BLANK)).to_be_bytes()
}

fn check_topic_and_body(message: &Message<'_>, limits: &Limits) -> Result<(), EncodeError> {
    let topic_len = message.topic.len();
    let max = limits.topic_len_max.min(i16::MAX as usize);
    if topic_len == 0 || topic_len > max {
        return Err(EncodeError::Topic {
            len: topic_len,
            max,
        });
    }
    let (len, max) = (message.body.len(), limits.body_len_max);
    if len > max {
        return Err(EncodeError::Body { len, max });
    }
    Ok(())
}

fn hasher_of(bytes: &[u8]) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher
}

fn lacks_separator(properties: &[u8]) -> bool {
    properties
        .last()
        .is_some_and(|last| *last != PROPERTY_SEPARATOR)
}

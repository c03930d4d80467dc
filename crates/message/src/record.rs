//! A zero-copy view of one stored record.

use std::net::{Ipv4Addr, SocketAddr};

use crate::batch::BatchView;
use crate::bytes::Reader;
use crate::crc::{CRC_PROPERTY_LEN, masked, parse_crc_property};
use crate::dispatch::DispatchFields;
use crate::encode::Message;
use crate::error::RecordError;
use crate::id::MessageId;
use crate::layout::{
    BLANK_LEN_MIN, MAGIC_BLANK, RECORD_LEN_MIN, SYS_FLAG_POSITION, Version, host_len,
};
use crate::properties::Properties;
use crate::sys_flag::SysFlag;
use crate::{body_crc, host};

/// What stands at a place in the log.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'a> {
    /// A message.
    Record(RecordView<'a>),
    /// Padding to the end of the file.
    Blank {
        /// Bytes of the padding, these eight included, as the record says: at least 8. Java does
        /// not check it; in a sound log it reaches exactly to the end of the file.
        size: u32,
    },
}

/// One stored record, checked to be complete and its lengths to add up.
///
/// The CRCs are not checked unless asked for, and nothing is known about the bytes of the
/// properties.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    version: Version,
    body_crc: u32,
    queue_id: i32,
    flag: i32,
    queue_offset: i64,
    physical_offset: i64,
    sys_flag: SysFlag,
    born_timestamp_ms: i64,
    born_host: &'a [u8],
    store_timestamp_ms: i64,
    store_host: &'a [u8],
    reconsume_times: i32,
    prepared_transaction_offset: i64,
    body: &'a [u8],
    topic: &'a str,
    properties: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Reads the record at the front of `bytes`, which may go on behind it. Of a blank record
    /// only its first 8 bytes must be there.
    ///
    /// # Errors
    /// What is wrong with the bytes; see [`RecordError`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Parsed<'a>, RecordError> {
        let mut reader = Reader::new(bytes);
        let (Some(size), Some(magic)) = (reader.i32(), reader.u32()) else {
            return Err(RecordError::TooShort {
                have: bytes.len(),
                need: BLANK_LEN_MIN,
            });
        };
        let Some(version) = Version::from_magic(magic) else {
            return parse_other(size, magic);
        };
        let total_size = checked_size(size, RECORD_LEN_MIN)?;
        let Some(record) = bytes.get(..total_size) else {
            return Err(RecordError::TooShort {
                have: bytes.len(),
                need: total_size,
            });
        };
        parse_record(record, version).map(Parsed::Record)
    }

    /// Bytes of the record.
    pub fn total_size(&self) -> usize {
        self.bytes.len()
    }

    /// Which layout it has.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The body's CRC as stored, not checked.
    pub fn body_crc(&self) -> u32 {
        self.body_crc
    }

    /// The queue within the topic.
    pub fn queue_id(&self) -> i32 {
        self.queue_id
    }

    /// The user's flag.
    pub fn flag(&self) -> i32 {
        self.flag
    }

    /// The message's place in its queue; of an inner batch, its first message's.
    pub fn queue_offset(&self) -> i64 {
        self.queue_offset
    }

    /// Where the record says it lies in the log, not checked.
    pub fn physical_offset(&self) -> i64 {
        self.physical_offset
    }

    /// The system flag.
    pub fn sys_flag(&self) -> SysFlag {
        self.sys_flag
    }

    /// When the producer made it, ms since 1970 by its clock.
    pub fn born_timestamp_ms(&self) -> i64 {
        self.born_timestamp_ms
    }

    /// The producer's address. Of the stored i32 port the low 16 bits count.
    pub fn born_host(&self) -> SocketAddr {
        decoded_host(self.born_host)
    }

    /// When the broker stored it, ms since 1970 by its clock.
    pub fn store_timestamp_ms(&self) -> i64 {
        self.store_timestamp_ms
    }

    /// The broker's address. Of the stored i32 port the low 16 bits count.
    pub fn store_host(&self) -> SocketAddr {
        decoded_host(self.store_host)
    }

    /// How often it was given back by consumers.
    pub fn reconsume_times(&self) -> i32 {
        self.reconsume_times
    }

    /// Where the half message of its transaction lies; 0 for others.
    pub fn prepared_transaction_offset(&self) -> i64 {
        self.prepared_transaction_offset
    }

    /// The body as stored: compressed, if [`SysFlag::compression`] says so.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The topic's bytes.
    pub fn topic_bytes(&self) -> &'a [u8] {
        self.topic.as_bytes()
    }

    /// The properties.
    pub fn properties(&self) -> Properties<'a> {
        Properties::new(self.properties)
    }

    /// The whole record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The id that names the record by broker and physical offset.
    pub fn message_id(&self) -> MessageId {
        MessageId {
            host: self.store_host(),
            physical_offset: self.physical_offset,
        }
    }

    /// The message of this record, to be stored again: as it is, but for what the next record
    /// says of itself (its places, its store time, the kinds of its hosts' addresses), and without
    /// a link to a transaction.
    pub fn to_message(&self) -> Message<'a> {
        let own = SysFlag(SysFlag::BORN_HOST_V6.0 | SysFlag::STORE_HOST_V6.0);
        Message {
            topic: self.topic(),
            queue_id: self.queue_id(),
            flag: self.flag(),
            sys_flag: self.sys_flag().without(own),
            born_timestamp_ms: self.born_timestamp_ms(),
            born_host: self.born_host(),
            store_host: self.store_host(),
            reconsume_times: self.reconsume_times(),
            prepared_transaction_offset: 0,
            body: self.body(),
            properties: self.properties().bytes(),
        }
    }

    /// The properties that dispatch needs, found in one pass.
    #[inline]
    pub fn dispatch_fields(&self) -> DispatchFields<'a> {
        DispatchFields::new(self.properties())
    }

    /// The messages inside, if this is a batch stored as one record. They have a flag, a body
    /// and properties of their own; message i has this record's queue offset + i, and the rest
    /// is this record's (RocketMQ 5.3.3 `MessageDecoder.decodeMessage`).
    pub fn inner_batch(&self) -> Option<BatchView<'a>> {
        self.sys_flag
            .is_inner_batch()
            .then(|| BatchView::new(self.body))
    }

    /// Checks the body against its CRC.
    ///
    /// # Errors
    /// [`RecordError::BodyCrc`].
    pub fn verify_body_crc(&self) -> Result<(), RecordError> {
        // RocketMQ 5.3.3 `checkMessageAndReturnSize` checks only bodies that are not empty.
        let computed = body_crc(self.body);
        if self.body.is_empty() || computed == self.body_crc {
            return Ok(());
        }
        Err(RecordError::BodyCrc {
            stored: self.body_crc,
            computed,
        })
    }

    /// Checks the whole record against the CRC property at its end.
    ///
    /// # Errors
    /// [`RecordError::CrcPropertyMissing`], [`RecordError::CrcProperty`].
    pub fn verify_crc_property(&self) -> Result<(), RecordError> {
        let missing = RecordError::CrcPropertyMissing;
        let Some(stored) = parse_crc_property(self.properties) else {
            return Err(missing);
        };
        let covered_len = self.bytes.len().saturating_sub(CRC_PROPERTY_LEN);
        let Some(covered) = self.bytes.get(..covered_len) else {
            return Err(missing);
        };
        let computed = masked(crc32fast::hash(covered));
        if computed == stored {
            return Ok(());
        }
        Err(RecordError::CrcProperty { stored, computed })
    }
}

/// What has neither magic number of a message.
#[cold]
fn parse_other<'a>(size: i32, magic: u32) -> Result<Parsed<'a>, RecordError> {
    match (magic, size) {
        (MAGIC_BLANK, size) => {
            let size = checked_size(size, BLANK_LEN_MIN)?;
            Ok(Parsed::Blank { size: size as u32 })
        }
        (0, 0) => Err(RecordError::Unwritten),
        (magic, _) => Err(RecordError::Magic(magic)),
    }
}

fn checked_size(found: i32, min: usize) -> Result<usize, RecordError> {
    match usize::try_from(found) {
        Ok(size) if size >= min => Ok(size),
        _ => Err(RecordError::Size { found, min }),
    }
}

/// `record` is exactly as long as it says, and not shorter than [`RECORD_LEN_MIN`].
#[inline]
fn parse_record(record: &[u8], version: Version) -> Result<RecordView<'_>, RecordError> {
    let mut fields = Fields {
        reader: Reader::new(record),
        total_size: record.len(),
    };
    let sys_flag = Reader::new(record.get(SYS_FLAG_POSITION..).unwrap_or_default()).i32();
    let sys_flag = SysFlag(sys_flag.unwrap_or_default());
    fields.fixed(8, Reader::i64)?; // total size and magic
    let body_crc = fields.fixed(4, Reader::u32)?;
    let queue_id = fields.fixed(4, Reader::i32)?;
    let flag = fields.fixed(4, Reader::i32)?;
    let queue_offset = fields.fixed(8, Reader::i64)?;
    let physical_offset = fields.fixed(8, Reader::i64)?;
    fields.fixed(4, Reader::i32)?; // system flag
    let born_timestamp_ms = fields.fixed(8, Reader::i64)?;
    let born_host_len = host_len(sys_flag.contains(SysFlag::BORN_HOST_V6));
    let born_host = fields.fixed(born_host_len, |reader| reader.bytes(born_host_len))?;
    let store_timestamp_ms = fields.fixed(8, Reader::i64)?;
    let store_host_len = host_len(sys_flag.contains(SysFlag::STORE_HOST_V6));
    let store_host = fields.fixed(store_host_len, |reader| reader.bytes(store_host_len))?;
    let reconsume_times = fields.fixed(4, Reader::i32)?;
    let prepared_transaction_offset = fields.fixed(8, Reader::i64)?;
    let body_len = fields.fixed(4, Reader::i32)?;
    let body = fields.variable("body", body_len)?;
    let topic_len = match version {
        Version::V1 => fields.fixed(1, Reader::i8).map(i32::from)?,
        Version::V2 => fields.fixed(2, Reader::i16).map(i32::from)?,
    };
    let topic = fields.variable("topic", topic_len)?;
    let topic = std::str::from_utf8(topic).map_err(|_| RecordError::Topic)?;
    let properties_len = fields.fixed(2, Reader::i16)?;
    let properties = fields.variable("properties", i32::from(properties_len))?;
    fields.finish()?;
    Ok(RecordView {
        bytes: record,
        version,
        body_crc,
        queue_id,
        flag,
        queue_offset,
        physical_offset,
        sys_flag,
        born_timestamp_ms,
        born_host,
        store_timestamp_ms,
        store_host,
        reconsume_times,
        prepared_transaction_offset,
        body,
        topic,
        properties,
    })
}

/// The fields of one record, in order.
struct Fields<'a> {
    reader: Reader<'a>,
    total_size: usize,
}

impl<'a> Fields<'a> {
    /// A field of a known length.
    #[inline]
    fn fixed<T>(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Result<T, RecordError> {
        let counted = self.total_size - self.reader.left() + len;
        read(&mut self.reader).ok_or(RecordError::Lengths {
            total_size: self.total_size,
            counted,
        })
    }

    /// A field whose length the record says.
    #[inline]
    fn variable(&mut self, field: &'static str, len: i32) -> Result<&'a [u8], RecordError> {
        let bytes = usize::try_from(len)
            .ok()
            .and_then(|len| self.reader.bytes(len));
        bytes.ok_or(RecordError::Field {
            field,
            len: i64::from(len),
            left: self.reader.left(),
            total_size: self.total_size,
        })
    }

    #[inline]
    fn finish(self) -> Result<(), RecordError> {
        let counted = self.total_size - self.reader.left();
        if counted == self.total_size {
            return Ok(());
        }
        Err(RecordError::Lengths {
            total_size: self.total_size,
            counted,
        })
    }
}

/// `field` has 8 or 20 bytes, which are always a host.
fn decoded_host(field: &[u8]) -> SocketAddr {
    debug_assert!(matches!(field.len(), 8 | 20));
    host::decode(field).unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

//! Messages as a consumer gets them.

use std::io::Read;

use flate2::read::ZlibDecoder;
use message::layout::MAGIC_BLANK;
use message::names::property;
use message::{BatchMessage, Compression, MessageId, Parsed, Properties, RecordError, RecordView};

use crate::error::ClientError;

/// The longest body that is inflated; RocketMQ's clients compress at most 4 MiB.
const INFLATED_LEN_MAX: u64 = 64 << 20;

/// A message from a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The topic.
    pub topic: String,
    /// The queue, at the broker of [`Received::id`].
    pub queue_id: i32,
    /// Its place in the queue.
    pub queue_offset: i64,
    /// The broker and the place in its log; messages of an inner batch share it.
    pub id: MessageId,
    /// The user's flag.
    pub flag: i32,
    /// When its producer made it, ms since 1970.
    pub born_timestamp_ms: i64,
    /// When the broker stored it, ms since 1970.
    pub store_timestamp_ms: i64,
    /// How often it was given back by consumers.
    pub reconsume_times: i32,
    /// Name and value, in the stored order.
    pub properties: Vec<(String, String)>,
    /// The body; inflated, if it was a zlib stream.
    pub body: Vec<u8>,
    /// How `body` is still compressed, when this client cannot undo it.
    pub compression: Option<Compression>,
}

impl Received {
    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&str> {
        let found = self
            .properties
            .iter()
            .rev()
            .find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.property(property::TAGS)
    }

    /// The id that its producer gave it.
    pub fn unique_key(&self) -> Option<&str> {
        self.property(property::UNIQUE_KEY)
    }

    /// The messages of an answer's body, all or none.
    ///
    /// # Errors
    /// [`ClientError::Record`] or [`ClientError::Batch`], with `address` as who sent it.
    pub fn read_all(address: &str, body: &[u8]) -> Result<Vec<Self>, ClientError> {
        let failed = |source| ClientError::Record {
            address: address.to_owned(),
            source,
        };
        let mut messages = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let Parsed::Record(record) = RecordView::parse(rest).map_err(failed)? else {
                return Err(failed(RecordError::Magic(MAGIC_BLANK)));
            };
            record.verify_body_crc().map_err(failed)?;
            Self::read_record(address, &record, &mut messages)?;
            rest = rest.get(record.total_size()..).unwrap_or_default();
        }
        Ok(messages)
    }

    /// One message, or those of an inner batch.
    fn read_record(
        address: &str,
        record: &RecordView<'_>,
        out: &mut Vec<Self>,
    ) -> Result<(), ClientError> {
        let Some(batch) = record.inner_batch() else {
            let (flag, properties) = (record.flag(), record.properties());
            let inner = BatchMessage {
                flag,
                body: record.body(),
                properties: properties.bytes(),
            };
            out.push(Self::new(record, &inner, record.queue_offset()));
            return Ok(());
        };
        for (queue_offset, inner) in (record.queue_offset()..).zip(batch) {
            let failed = |source| ClientError::Batch {
                address: address.to_owned(),
                source,
            };
            out.push(Self::new(record, &inner.map_err(failed)?, queue_offset));
        }
        Ok(())
    }

    fn new(record: &RecordView<'_>, message: &BatchMessage<'_>, queue_offset: i64) -> Self {
        let (body, compression) = inflate(message.body, record.sys_flag().compression());
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let properties = Properties::new(message.properties);
        Self {
            topic: record.topic().to_owned(),
            queue_id: record.queue_id(),
            queue_offset,
            id: record.message_id(),
            flag: message.flag,
            born_timestamp_ms: record.born_timestamp_ms(),
            store_timestamp_ms: record.store_timestamp_ms(),
            reconsume_times: record.reconsume_times(),
            properties: properties
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            body,
            compression,
        }
    }
}

/// The body, and how it is still compressed. A stream that does not inflate is left as it is.
fn inflate(body: &[u8], compression: Option<Compression>) -> (Vec<u8>, Option<Compression>) {
    if compression == Some(Compression::Zlib) {
        let mut inflated = Vec::new();
        let mut decoder = ZlibDecoder::new(body).take(INFLATED_LEN_MAX);
        if decoder.read_to_end(&mut inflated).is_ok() && decoder.limit() > 0 {
            return (inflated, None);
        }
    }
    (body.to_vec(), compression)
}

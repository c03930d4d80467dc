//! Batches: the body that a client sends many messages in (RocketMQ 5.3.3
//! `MessageDecoder.encodeMessages`).
//!
//! ```text
//! 4 total size | 4 magic, 0 | 4 CRC, 0 | 4 flag | 4 body length | body | 2 properties length |
//! properties
//! ```
//! once per message. The broker stores each as a record of its own, or, for a topic with a batch
//! consume queue, the whole body as one record whose system flag says so.

use crate::bytes::Reader;
use crate::error::{BatchError, EncodeError};
use crate::layout::PROPERTIES_LEN_MAX;

/// Bytes of a message in a batch besides its body and properties.
const FIXED_LEN: usize = 5 * 4 + 2;

/// A batch body.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    body: &'a [u8],
}

/// One message of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchMessage<'a> {
    /// The user's flag.
    pub flag: i32,
    /// The body; messages of a batch are never compressed one by one.
    pub body: &'a [u8],
    /// The properties text.
    pub properties: &'a [u8],
}

/// The messages of a [`BatchView`]; ends behind the first error.
#[derive(Clone, Debug)]
pub struct BatchIter<'a> {
    reader: Reader<'a>,
    index: usize,
}

impl<'a> BatchView<'a> {
    /// Reads this body as a batch; whether it is one, [`BatchView::iter`] tells.
    pub fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// The messages in order.
    pub fn iter(&self) -> BatchIter<'a> {
        BatchIter {
            reader: Reader::new(self.body),
            index: 0,
        }
    }

    /// Checks the whole body, and counts its messages.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn count(&self) -> Result<usize, BatchError> {
        self.iter()
            .try_fold(0, |count, message| message.map(|_| count + 1))
    }
}

impl<'a> IntoIterator for BatchView<'a> {
    type Item = Result<BatchMessage<'a>, BatchError>;
    type IntoIter = BatchIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<BatchMessage<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.left() == 0 {
            return None;
        }
        let message = self.message();
        if message.is_err() {
            self.reader = Reader::new(&[]);
        }
        self.index += 1;
        Some(message)
    }
}

impl<'a> BatchIter<'a> {
    fn message(&mut self) -> Result<BatchMessage<'a>, BatchError> {
        let left = self.reader.left();
        let stated = self.field("size", Reader::i32)?;
        self.field("magic", Reader::i32)?;
        self.field("CRC", Reader::i32)?;
        let flag = self.field("flag", Reader::i32)?;
        let body_len = self.field("body length", Reader::i32)?;
        let body = self.bytes("body", body_len)?;
        let properties_len = self.field("properties length", Reader::i16)?;
        let properties = self.bytes("properties", i32::from(properties_len))?;
        let counted = left - self.reader.left();
        if usize::try_from(stated) != Ok(counted) {
            return Err(BatchError::Size {
                index: self.index,
                stated,
                counted,
            });
        }
        Ok(BatchMessage {
            flag,
            body,
            properties,
        })
    }

    fn field<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Result<T, BatchError> {
        let have = self.reader.left();
        read(&mut self.reader).ok_or(BatchError::TooShort {
            index: self.index,
            have,
            field,
        })
    }

    fn bytes(&mut self, field: &'static str, len: i32) -> Result<&'a [u8], BatchError> {
        let index = self.index;
        let len = usize::try_from(len).map_err(|_| BatchError::Length { index, field, len })?;
        self.field(field, |reader| reader.bytes(len))
    }
}

/// Adds a message to the batch body `out`.
///
/// # Errors
/// [`EncodeError::Properties`] and [`EncodeError::Body`] if a length does not fit its field; the
/// limits of the broker are checked there. Nothing is added then.
pub fn encode_batch_message(
    message: &BatchMessage<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let BatchMessage {
        flag,
        body,
        properties,
    } = *message;
    let properties_len = i16::try_from(properties.len()).map_err(|_| EncodeError::Properties {
        len: properties.len(),
        max: PROPERTIES_LEN_MAX,
    })?;
    let total_len = FIXED_LEN + body.len() + properties.len();
    let body_max = i32::MAX as usize - FIXED_LEN - PROPERTIES_LEN_MAX;
    let (Ok(body_len), Ok(total_size)) = (i32::try_from(body.len()), i32::try_from(total_len))
    else {
        return Err(EncodeError::Body {
            len: body.len(),
            max: body_max,
        });
    };
    out.reserve(total_len);
    // Magic and CRC are 0: the broker computes them for the record.
    for field in [total_size, 0, 0, flag, body_len] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    out.extend_from_slice(body);
    out.extend_from_slice(&properties_len.to_be_bytes());
    out.extend_from_slice(properties);
    Ok(())
}

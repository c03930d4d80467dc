//! The bytes of one RocketMQ message: record V1 and V2 of the commit log, properties, message
//! ids, CRC, client batch bodies.
//!
//! Pure: no I/O, no clock, no random numbers. Decoding borrows from the bytes it is given and
//! never panics, whatever they are; encoding computes all it can in [`PreparedRecord::new`], so
//! that under the log's append lock only three fields are set and the parts copied once. Neither
//! allocates.
//!
//! All numbers are big-endian. The layout is drawn in [`layout`]; facts are those of RocketMQ
//! 5.3.3, and where this crate departs from it the item says so.
//!
//! ```
//! use message::{Limits, Message, Parsed, PreparedRecord, RecordView, Stamp, SysFlag};
//!
//! let message = Message {
//!     topic: "TopicA",
//!     queue_id: 3,
//!     flag: 0,
//!     sys_flag: SysFlag::default(),
//!     born_timestamp_ms: 1_700_000_000_000,
//!     born_host: ([127, 0, 0, 1], 1234).into(),
//!     store_host: ([127, 0, 0, 1], 10911).into(),
//!     reconsume_times: 0,
//!     prepared_transaction_offset: 0,
//!     body: b"hello",
//!     properties: b"TAGS\x01TagA\x02",
//! };
//! let mut record = PreparedRecord::new(&message, &Limits::default())?;
//! record.stamp(Stamp { queue_offset: 7, physical_offset: 4096, store_timestamp_ms: 1 });
//! let bytes = record.parts().concat();
//! assert_eq!(bytes.len(), record.len());
//!
//! let Parsed::Record(view) = RecordView::parse(&bytes)? else { panic!("not a blank record") };
//! view.verify_body_crc()?;
//! assert_eq!((view.topic(), view.queue_offset(), view.body()), ("TopicA", 7, &b"hello"[..]));
//! assert_eq!(view.properties().find("TAGS"), Some("TagA"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod batch;
mod bytes;
mod claim;
mod crc;
mod dispatch;
mod encode;
mod error;
mod hash;
mod header;
mod host;
mod id;
pub mod layout;
pub mod names;
mod properties;
mod record;
mod sys_flag;
mod unique_key;

pub use batch::{BatchIter, BatchMessage, BatchView, encode_batch_message};
pub use claim::RecordClaim;
pub use crc::body_crc;
pub use dispatch::{DispatchFields, IndexKeys};
pub use encode::{
    BatchProperties, CrcProperty, Limits, Message, PreparedRecord, RECORD_PARTS, Stamp,
    blank_record,
};
pub use error::{BatchError, EncodeError, IdError, RecordError};
pub use hash::{java_string_hash, java_string_hash_lossy, tags_code};
pub use id::{IdText, MessageId};
pub use properties::{Properties, PropertiesBuilder, PropertiesIter};
pub use record::{Parsed, RecordView};
pub use sys_flag::{Compression, SysFlag, Transaction};
pub use unique_key::{UniqueKeyGenerator, UniqueKeySource};

//! Where each field of a stored record lies (RocketMQ 5.3.3 `MessageExtEncoder`,
//! `MessageDecoder`).
//!
//! ```text
//! position        size   field
//! 0               4      total size, of the whole record
//! 4               4      magic: V1 0xDAA320A7, V2 0xDAA320AB; 0xCBD43194 = blank
//! 8               4      body CRC: CRC-32 of the stored body, top bit cleared
//! 12              4      queue id
//! 16              4      flag, the user's
//! 20              8      queue offset            set when appended
//! 28              8      physical offset         set when appended
//! 36              4      system flag
//! 40              8      born timestamp, ms
//! 48              B      born host               B = 8 (IPv4: 4 + i32 port) or 20 (IPv6)
//! 48+B            8      store timestamp, ms     set when appended
//! 56+B            H      store host              H = 8 or 20
//! 56+B+H          4      reconsume times
//! 60+B+H          8      prepared transaction offset
//! 68+B+H          4      body length
//! 72+B+H          ...    body
//!                 1 | 2  topic length            1 in V1, 2 in V2; signed
//!                 ...    topic, UTF-8
//!                 2      properties length       signed
//!                 ...    properties; the last 20 bytes may be the CRC property
//! ```

/// Position of the record's total size, an i32.
pub const TOTAL_SIZE_POSITION: usize = 0;
/// Position of the magic number, a u32.
pub const MAGIC_POSITION: usize = TOTAL_SIZE_POSITION + 4;
/// Position of the body's CRC, a u32 whose top bit is clear.
pub const BODY_CRC_POSITION: usize = MAGIC_POSITION + 4;
/// Position of the queue id, an i32.
pub const QUEUE_ID_POSITION: usize = BODY_CRC_POSITION + 4;
/// Position of the user's flag, an i32.
pub const FLAG_POSITION: usize = QUEUE_ID_POSITION + 4;
/// Position of the queue offset, an i64.
pub const QUEUE_OFFSET_POSITION: usize = FLAG_POSITION + 4;
/// Position of the physical offset, an i64.
pub const PHYSICAL_OFFSET_POSITION: usize = QUEUE_OFFSET_POSITION + 8;
/// Position of the system flag, an i32.
pub const SYS_FLAG_POSITION: usize = PHYSICAL_OFFSET_POSITION + 8;
/// Position of the born timestamp, an i64 of milliseconds.
pub const BORN_TIMESTAMP_POSITION: usize = SYS_FLAG_POSITION + 4;
/// Position of the born host; what follows it depends on its length.
pub const BORN_HOST_POSITION: usize = BORN_TIMESTAMP_POSITION + 8;

/// Bytes of a host with an IPv4 address: address and i32 port.
pub const HOST_V4_LEN: usize = 4 + 4;
/// Bytes of a host with an IPv6 address: address and i32 port.
pub const HOST_V6_LEN: usize = 16 + 4;

/// Position of the store timestamp, an i64 of milliseconds, behind an IPv4 born host.
pub const STORE_TIMESTAMP_POSITION_V4: usize = BORN_HOST_POSITION + HOST_V4_LEN;

/// Bytes in front of the body with two IPv4 hosts.
pub const HEADER_LEN_MIN: usize = STORE_TIMESTAMP_POSITION_V4 + 8 + HOST_V4_LEN + 4 + 8 + 4;
/// Bytes in front of the body with two IPv6 hosts.
pub const HEADER_LEN_MAX: usize = HEADER_LEN_MIN + 2 * (HOST_V6_LEN - HOST_V4_LEN);
/// The smallest record: V1, IPv4, everything of variable length empty.
pub const RECORD_LEN_MIN: usize = HEADER_LEN_MIN + 1 + 2;

/// Magic number of records whose topic length has one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic number of records whose topic length has two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic number of the padding at the end of a file.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;

/// Bytes of a blank record's size and magic; every rolled file ends with at least these
/// (`END_FILE_MIN_BLANK_LENGTH`).
pub const BLANK_LEN_MIN: usize = 8;

/// The longest topic, in bytes, of a record V1: its length is a signed byte.
pub const TOPIC_LEN_MAX_V1: usize = i8::MAX as usize;
/// The longest properties, in bytes, the CRC property included: their length is an i16.
pub const PROPERTIES_LEN_MAX: usize = i16::MAX as usize;

/// Which of the two layouts a record has; they differ in the topic's length field only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// Topic length in one byte.
    V1,
    /// Topic length in two bytes (RocketMQ 5, topics longer than 127).
    V2,
}

impl Version {
    /// The version that has this magic number; `None` for a blank record and all else.
    pub fn from_magic(magic: u32) -> Option<Self> {
        match magic {
            MAGIC_V1 => Some(Self::V1),
            MAGIC_V2 => Some(Self::V2),
            _ => None,
        }
    }

    /// The version that a record of this topic is written in: V1 if it can be.
    pub fn of_topic(topic: &str) -> Self {
        if topic.len() <= TOPIC_LEN_MAX_V1 {
            Self::V1
        } else {
            Self::V2
        }
    }

    /// The magic number of this version.
    pub fn magic(self) -> u32 {
        match self {
            Self::V1 => MAGIC_V1,
            Self::V2 => MAGIC_V2,
        }
    }
}

/// Bytes of a host field.
pub const fn host_len(is_v6: bool) -> usize {
    if is_v6 { HOST_V6_LEN } else { HOST_V4_LEN }
}

const _: () = {
    // Figures of RocketMQ 5.3.3: `MessageDecoder` positions, `calMsgLength` of an empty message.
    assert!(QUEUE_OFFSET_POSITION == 20 && PHYSICAL_OFFSET_POSITION == 28);
    assert!(SYS_FLAG_POSITION == 36 && STORE_TIMESTAMP_POSITION_V4 == 56);
    assert!(HEADER_LEN_MIN == 88 && HEADER_LEN_MAX == 112 && RECORD_LEN_MIN == 91);
};

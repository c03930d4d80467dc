//! The system flag's bits (RocketMQ 5.3.3 `MessageSysFlag`).

use std::ops::{BitOr, BitOrAssign};

/// The system flag of a message; unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SysFlag(pub i32);

/// What a message is to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transaction {
    /// An ordinary message.
    None,
    /// A half message; not readable from its queue.
    Prepared,
    /// A message whose transaction was committed.
    Commit,
    /// A message whose transaction was rolled back.
    Rollback,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// An LZ4 frame.
    Lz4,
    /// A Zstandard frame.
    Zstd,
    /// A zlib stream; also what older clients write without naming a type.
    Zlib,
    /// A type with no meaning yet: the value of its three bits.
    Unknown(u8),
}

impl SysFlag {
    /// The body is compressed; by what, [`SysFlag::compression`] tells.
    pub const COMPRESSED: Self = Self(0x1);
    /// TAGS holds several tags.
    pub const MULTI_TAGS: Self = Self(0x2);
    /// [`Transaction::Prepared`].
    pub const TRANSACTION_PREPARED: Self = Self(0x4);
    /// [`Transaction::Commit`].
    pub const TRANSACTION_COMMIT: Self = Self(0x8);
    /// [`Transaction::Rollback`], and the mask of all three.
    pub const TRANSACTION_ROLLBACK: Self = Self(0xC);
    /// The born host is IPv6.
    pub const BORN_HOST_V6: Self = Self(0x10);
    /// The store host is IPv6.
    pub const STORE_HOST_V6: Self = Self(0x20);
    /// Clients must unwrap the body, which is a batch.
    pub const NEED_UNWRAP: Self = Self(0x40);
    /// The body is a batch stored as one record.
    pub const INNER_BATCH: Self = Self(0x80);
    /// Mask of the compression type.
    pub const COMPRESSION_MASK: Self = Self(0x700);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// This flag without the bits of `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What the message is to a transaction.
    pub fn transaction(self) -> Transaction {
        match self.0 & Self::TRANSACTION_ROLLBACK.0 {
            0x4 => Transaction::Prepared,
            0x8 => Transaction::Commit,
            0xC => Transaction::Rollback,
            _ => Transaction::None,
        }
    }

    /// How the body is compressed; `None` when it is not.
    pub fn compression(self) -> Option<Compression> {
        if !self.contains(Self::COMPRESSED) {
            return None;
        }
        Some(match (self.0 & Self::COMPRESSION_MASK.0) >> 8 {
            0 | 3 => Compression::Zlib,
            1 => Compression::Lz4,
            2 => Compression::Zstd,
            other => Compression::Unknown(other as u8),
        })
    }

    /// Whether the body is a batch stored as one record, for the reader to unwrap.
    pub fn is_inner_batch(self) -> bool {
        self.contains(Self::INNER_BATCH | Self::NEED_UNWRAP)
    }
}

impl Transaction {
    /// Whether a record of this kind takes a place in its queue. The others are stored with a
    /// queue offset of 0 and get no consume queue entry (`CommitLog:doAppend`).
    pub fn takes_queue_offset(self) -> bool {
        matches!(self, Self::None | Self::Commit)
    }
}

impl BitOr for SysFlag {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for SysFlag {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_bits() {
        for (bits, transaction, takes) in [
            (0x0, Transaction::None, true),
            (0x4, Transaction::Prepared, false),
            (0x8, Transaction::Commit, true),
            (0xC, Transaction::Rollback, false),
        ] {
            let flag = SysFlag(bits | 0x31);
            assert_eq!(flag.transaction(), transaction);
            assert_eq!(transaction.takes_queue_offset(), takes);
        }
    }

    #[test]
    fn compression_type_counts_only_when_compressed() {
        assert_eq!(SysFlag(0x300).compression(), None);
        assert_eq!(SysFlag(0x001).compression(), Some(Compression::Zlib));
        assert_eq!(SysFlag(0x101).compression(), Some(Compression::Lz4));
        assert_eq!(SysFlag(0x201).compression(), Some(Compression::Zstd));
        assert_eq!(SysFlag(0x301).compression(), Some(Compression::Zlib));
        assert_eq!(SysFlag(0x701).compression(), Some(Compression::Unknown(7)));
    }

    #[test]
    fn inner_batch_needs_both_bits() {
        assert!(SysFlag(0xC0).is_inner_batch());
        assert!(!SysFlag(0x80).is_inner_batch());
        assert_eq!(SysFlag(0xC1).without(SysFlag::INNER_BATCH), SysFlag(0x41));
    }
}

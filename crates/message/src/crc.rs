//! CRC-32 of bodies and of whole records, in RocketMQ's forms.

use crc32fast::Hasher;

use crate::names::property;
use crate::properties::PROPERTY_SEPARATOR;

/// Bytes of the CRC property: name, 0x01, ten digits, 0x02 (`CRC32_RESERVED_LEN`).
pub(crate) const CRC_PROPERTY_LEN: usize = property::CRC32.len() + 1 + DIGITS + 1;

const DIGITS: usize = 10;

/// CRC-32 of a stored body with the top bit cleared, as the record's field has it
/// (RocketMQ 5.3.3 `UtilAll.crc32`).
pub fn body_crc(body: &[u8]) -> u32 {
    masked(crc32fast::hash(body))
}

/// Java's CRCs are non-negative ints.
pub(crate) fn masked(crc: u32) -> u32 {
    crc & 0x7FFF_FFFF
}

/// The CRC property: its ten digits are the decimal CRC, **least significant first**, padded with
/// zeros (RocketMQ 5.3.3 `MessageDecoder.createCrc32`).
pub(crate) fn crc_property(crc: u32) -> [u8; CRC_PROPERTY_LEN] {
    let mut bytes = *b"__CRC32#\x010000000000\x02";
    let mut rest = crc;
    for digit in bytes
        .iter_mut()
        .skip(property::CRC32.len() + 1)
        .take(DIGITS)
    {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}

/// Reads a CRC property that ends `bytes`; `None` if there is none.
pub(crate) fn parse_crc_property(bytes: &[u8]) -> Option<u32> {
    let digits = bytes
        .last_chunk::<CRC_PROPERTY_LEN>()?
        .strip_prefix(property::CRC32.as_bytes())?
        .strip_prefix(b"\x01")?
        .strip_suffix(b"\x02")?;
    let mut crc = 0u64;
    for digit in digits.iter().rev() {
        if !digit.is_ascii_digit() {
            return None;
        }
        crc = crc * 10 + u64::from(digit - b'0');
    }
    u32::try_from(crc).ok()
}

/// The end of a record with a CRC property: 0x02 if the properties in front lack it (RocketMQ
/// 5.3.3 leaves it out in batches, which spoils the property before), then the property.
#[derive(Clone, Debug)]
pub(crate) struct CrcTail {
    bytes: [u8; 1 + CRC_PROPERTY_LEN],
    /// Where the tail begins in `bytes`: 0 with the separator, 1 without.
    start: usize,
    /// CRC state over all that lies between the record's header and the CRC property.
    behind_header: Hasher,
}

impl CrcTail {
    pub(crate) fn new(needs_separator: bool) -> Self {
        let mut tail = Self {
            bytes: [PROPERTY_SEPARATOR; 1 + CRC_PROPERTY_LEN],
            start: usize::from(!needs_separator),
            behind_header: Hasher::new(),
        };
        tail.write(0);
        tail
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or(&self.bytes)
    }

    /// Takes the CRC state over all between header and tail; the tail's separator is added here.
    pub(crate) fn begin(&mut self, mut behind_header: Hasher) {
        if self.start == 0 {
            behind_header.update(&[PROPERTY_SEPARATOR]);
        }
        self.behind_header = behind_header;
    }

    /// Computes the property for this header, without another pass over what lies behind it.
    pub(crate) fn finish(&mut self, header: &[u8]) {
        let mut hasher = Hasher::new();
        hasher.update(header);
        hasher.combine(&self.behind_header);
        self.write(masked(hasher.finalize()));
    }

    fn write(&mut self, crc: u32) {
        if let Some(place) = self.bytes.last_chunk_mut() {
            *place = crc_property(crc);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values that RocketMQ 5.3.3 computed.
    #[test]
    fn java_vectors() {
        assert_eq!(body_crc(b"hello0"), 1_882_646_930);
        assert_eq!(&crc_property(1_234_567_890), b"__CRC32#\x010987654321\x02");
        assert_eq!(CRC_PROPERTY_LEN, 20);
    }

    #[test]
    fn digits_are_padded_behind() {
        assert_eq!(&crc_property(0), b"__CRC32#\x010000000000\x02");
        assert_eq!(&crc_property(12), b"__CRC32#\x012100000000\x02");
    }

    #[test]
    fn what_is_no_crc_property() {
        for bytes in [
            &b""[..],
            b"__CRC32#\x01000000000\x02",
            b"__CRC32#\x01000000000a\x02",
            b"__CRC32#\x010000000000",
            b"__CRC32#\x019999999999\x02",
        ] {
            assert_eq!(parse_crc_property(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(crc: u32, mut front: Vec<u8>) {
            front.extend_from_slice(&crc_property(crc));
            prop_assert_eq!(parse_crc_property(&front), Some(crc));
        }
    }
}

//! Offset message ids: broker address and physical offset in hexadecimal.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use crate::error::IdError;
use crate::host::HostField;

/// Names a record by its broker and its physical offset: hexadecimal of address (4 or 16 bytes),
/// i32 port, i64 offset, so 32 or 56 characters (RocketMQ 5.3.3 `MessageDecoder.createMessageId`).
///
/// ```
/// use message::MessageId;
///
/// let id = MessageId { host: ([127, 0, 0, 1], 10911).into(), physical_offset: 8192 };
/// assert_eq!(&*id.text(), "7F00000100002A9F0000000000002000");
/// assert_eq!("7F00000100002A9F0000000000002000".parse(), Ok(id));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The broker's address.
    pub host: SocketAddr,
    /// Where its record lies in the log.
    pub physical_offset: i64,
}

/// The text of an id, in upper-case hexadecimal; on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdText {
    digits: [u8; Self::LEN_MAX],
    len: usize,
}

impl MessageId {
    /// The id's text.
    pub fn text(&self) -> IdText {
        let mut text = IdText::default();
        text.push(HostField::new(self.host).as_slice());
        text.push(&self.physical_offset.to_be_bytes());
        text
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    /// Lower-case digits are taken too.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0; IdText::LEN_MAX / 2];
        let field = bytes
            .get_mut(..text.len() / 2)
            .ok_or(IdError::Length(text.len()))?;
        decode_hex(text.as_bytes(), field)?;
        let wrong_len = || IdError::Length(text.len());
        if !matches!(text.len(), 32 | 56) {
            return Err(wrong_len());
        }
        let (host, offset) = field.split_last_chunk::<8>().ok_or_else(wrong_len)?;
        let (address, port) = host.split_last_chunk::<4>().ok_or_else(wrong_len)?;
        let ip = match <[u8; 4]>::try_from(address) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(address).map_err(|_| wrong_len())?),
        };
        let port = i32::from_be_bytes(*port);
        let port = u16::try_from(port).map_err(|_| IdError::Port(port))?;
        Ok(Self {
            host: SocketAddr::new(ip, port),
            physical_offset: i64::from_be_bytes(*offset),
        })
    }
}

impl IdText {
    /// Characters of an id with an IPv6 address.
    pub const LEN_MAX: usize = 56;

    /// Makes it the id of another record of the same broker.
    pub fn move_to(&mut self, physical_offset: i64) {
        self.len = self.len.saturating_sub(2 * size_of::<i64>());
        self.push(&physical_offset.to_be_bytes());
    }

    /// Adds the digits of `bytes`; what has no room is cut, and a bug of this crate.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        debug_assert!(self.len + bytes.len() * 2 <= Self::LEN_MAX);
        let room = self.digits.get_mut(self.len..).unwrap_or_default();
        for ([high, low], byte) in room.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *high = upper_digit(byte >> 4);
            *low = upper_digit(byte & 0xF);
            self.len += 2;
        }
    }
}

fn upper_digit(digit: u8) -> u8 {
    // Without a branch: the digits of an offset are as good as random.
    let letter = u8::from(digit > 9);
    b'0' + digit + letter * (b'A' - b'9' - 1)
}

impl Default for IdText {
    fn default() -> Self {
        Self {
            digits: [b'0'; Self::LEN_MAX],
            len: 0,
        }
    }
}

impl Deref for IdText {
    type Target = str;

    fn deref(&self) -> &str {
        let digits = self.digits.get(..self.len).unwrap_or(&self.digits);
        // Only hexadecimal digits are ever pushed.
        std::str::from_utf8(digits).unwrap_or_default()
    }
}

impl AsRef<str> for IdText {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Display for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

fn decode_hex(text: &[u8], bytes: &mut [u8]) -> Result<(), IdError> {
    let (pairs, odd) = text.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(IdError::Length(text.len()));
    }
    for (index, (byte, [high, low])) in bytes.iter_mut().zip(pairs).enumerate() {
        let high = hex_digit(*high).ok_or(IdError::Digit(index * 2))?;
        let low = hex_digit(*low).ok_or(IdError::Digit(index * 2 + 1))?;
        *byte = high << 4 | low;
    }
    Ok(())
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn java_vector() {
        let id = MessageId {
            host: ([127, 0, 0, 1], 10911).into(),
            physical_offset: 0,
        };
        assert_eq!(id.to_string(), "7F00000100002A9F0000000000000000");
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let parse = |text: &str| text.parse::<MessageId>();
        assert_eq!(parse(""), Err(IdError::Length(0)));
        assert_eq!(parse("7F0"), Err(IdError::Length(3)));
        assert_eq!(parse(&"0".repeat(58)), Err(IdError::Length(58)));
        assert_eq!(parse(&"0".repeat(34)), Err(IdError::Length(34)));
        assert_eq!(
            parse("7F00000100002A9F000000000000200g"),
            Err(IdError::Digit(31))
        );
        assert_eq!(
            parse("7F000001000F2A9F0000000000002000"),
            Err(IdError::Port(0xF2A9F))
        );
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(ip: IpAddr, port: u16, physical_offset: i64) {
            let id = MessageId { host: SocketAddr::new(ip, port), physical_offset };
            prop_assert_eq!(id.text().parse(), Ok(id));
            prop_assert_eq!(id.text().to_lowercase().parse(), Ok(id));
        }

        #[test]
        fn moved_is_as_good_as_made(ip: IpAddr, port: u16, from: i64, physical_offset: i64) {
            let id = MessageId { host: SocketAddr::new(ip, port), physical_offset };
            let mut moved = MessageId { physical_offset: from, ..id }.text();
            moved.move_to(physical_offset);
            prop_assert_eq!(&*moved, &*id.text());
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<MessageId>();
        }
    }
}

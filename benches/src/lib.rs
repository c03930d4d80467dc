//! What the benches of the crates have in common: the messages that are put.
//!
//! Criterion benches in `benches/` (`cargo bench -p benches`): `record`, what a message costs before
//! and after the log; `store`, put and get in process. The program `embedded` makes single
//! measurements of the store for `cargo xtask bench store`. Whole runs against other servers are
//! `cargo xtask bench servers`.

pub mod sample;

use message::Message;

/// Bytes of a body.
pub const BODY_LEN: usize = 1024;
/// The topic.
pub const TOPIC: &str = "BenchTopic";
/// Its queues, which are put to in turn.
pub const QUEUES: i32 = 4;

const UNIQUE_KEY: &str = "UNIQ_KEY\u{1}";
const KEYS: &str = "KEYS\u{1}order-";
const DIGITS: usize = 16;

/// Makes messages with TAGS, KEYS and UNIQ_KEY, of which no two are the same, without allocating
/// for one.
#[derive(Debug)]
pub struct Messages {
    body: Vec<u8>,
    properties: Vec<u8>,
    /// Where the number stands in the properties.
    places: [usize; 2],
    number: u64,
}

impl Messages {
    /// Messages numbered from `first`.
    pub fn new(first: u64) -> Self {
        let zeros = "0".repeat(DIGITS);
        let text = format!(
            "{UNIQUE_KEY}7F00000100005678{zeros}\u{2}{KEYS}{zeros}\u{2}TAGS\u{1}TagA\u{2}WAIT\u{1}true\u{2}"
        );
        let unique = UNIQUE_KEY.len() + DIGITS;
        let keys = unique + DIGITS + 1 + KEYS.len();
        Self {
            body: vec![b'x'; BODY_LEN],
            properties: text.into_bytes(),
            places: [unique, keys],
            number: first,
        }
    }

    /// The next message.
    #[inline]
    pub fn make(&mut self) -> Message<'_> {
        let number = self.number;
        self.number += 1;
        let digits = hexadecimal(number);
        for place in self.places {
            if let Some(field) = self.properties.get_mut(place..place + DIGITS) {
                field.copy_from_slice(&digits);
            }
        }
        if let Some(front) = self.body.first_chunk_mut() {
            *front = number.to_be_bytes();
        }
        Message {
            properties: &self.properties,
            ..Message::new(TOPIC, (number % QUEUES as u64) as i32, &self.body)
        }
    }
}

/// The sum of the bytes, taken as words of eight: what readers do with them, so that none is left
/// unread. The compiler takes several words at once. A loop that takes them one by one, as it does
/// where their bytes have to be turned around, reads every fourth piece of memory at a third of the
/// rate, and then that is all that is measured.
#[expect(
    clippy::host_endian_bytes,
    reason = "a sum that nobody compares with another machine's"
)]
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_ne_bytes(*word));
    let sum = words.fold(0, u64::wrapping_add);
    rest.iter()
        .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

#[inline]
fn hexadecimal(number: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (index, digit) in digits.iter_mut().enumerate() {
        let nibble = (number >> (60 - 4 * index)) as u8 & 15;
        *digit = if nibble < 10 {
            b'0' + nibble
        } else {
            b'A' - 10 + nibble
        };
    }
    digits
}

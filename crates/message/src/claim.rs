//! Whether a record is the one that is looked for, without taking it apart.

use crate::layout::{
    HEADER_LEN_MIN, HOST_V4_LEN, HOST_V6_LEN, MAGIC_POSITION, PHYSICAL_OFFSET_POSITION,
    QUEUE_ID_POSITION, QUEUE_OFFSET_POSITION, SYS_FLAG_POSITION, TOTAL_SIZE_POSITION, Version,
};
use crate::sys_flag::SysFlag;

/// Bytes of the body's length, which stands before the body.
const BODY_LEN_LEN: usize = 4;

/// What a record says of itself if it is the one that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordClaim<'a> {
    /// Bytes of the record.
    pub total_size: usize,
    /// Where it lies in the log.
    pub physical_offset: i64,
    /// Its topic.
    pub topic: &'a str,
    /// The queue within the topic.
    pub queue_id: i32,
    /// Its place in its queue.
    pub queue_offset: i64,
}

impl RecordClaim<'_> {
    /// Whether the record at the front of `bytes` says all this, and its lengths add up: then
    /// [`RecordView::parse`](crate::RecordView::parse) finds the same. Returns where its topic
    /// stands.
    ///
    /// For readers who ask it of each record: a handful of comparisons at fixed places, in the first
    /// bytes of the record and around its topic.
    #[inline]
    pub fn holds_for(&self, bytes: &[u8]) -> Option<usize> {
        let head = bytes.first_chunk::<HEADER_LEN_MIN>()?;
        let is_it = usize::try_from(i32_at(head, TOTAL_SIZE_POSITION)?) == Ok(self.total_size)
            && i32_at(head, QUEUE_ID_POSITION)? == self.queue_id
            && i64_at(head, QUEUE_OFFSET_POSITION)? == self.queue_offset
            && i64_at(head, PHYSICAL_OFFSET_POSITION)? == self.physical_offset;
        if !is_it {
            return None;
        }
        let record = bytes.get(..self.total_size)?;
        let topic_len_position = body_end(head, record)?;
        let rest = record.get(topic_len_position..)?;
        let magic = i32_at(head, MAGIC_POSITION)?.cast_unsigned();
        let (topic_len, rest) = match Version::from_magic(magic)? {
            Version::V1 => {
                let (len, rest) = rest.split_first_chunk()?;
                (i16::from(i8::from_be_bytes(*len)), rest)
            }
            Version::V2 => {
                let (len, rest) = rest.split_first_chunk()?;
                (i16::from_be_bytes(*len), rest)
            }
        };
        let topic_position = record.len() - rest.len();
        let (topic, rest) = rest.split_at_checked(usize::try_from(topic_len).ok()?)?;
        let (properties_len, properties) = rest.split_first_chunk()?;
        let properties_len = usize::try_from(i16::from_be_bytes(*properties_len)).ok()?;
        let adds_up = properties.len() == properties_len;
        (adds_up && topic == self.topic.as_bytes()).then_some(topic_position)
    }
}

/// Where the body of a record ends, by its header.
#[inline]
fn body_end(head: &[u8; HEADER_LEN_MIN], record: &[u8]) -> Option<usize> {
    let sys_flag = SysFlag(i32_at(head, SYS_FLAG_POSITION)?);
    let (is_born_v6, is_store_v6) = (
        sys_flag.contains(SysFlag::BORN_HOST_V6),
        sys_flag.contains(SysFlag::STORE_HOST_V6),
    );
    let v6_count = usize::from(is_born_v6) + usize::from(is_store_v6);
    let header_len = HEADER_LEN_MIN + v6_count * (HOST_V6_LEN - HOST_V4_LEN);
    let body_len = i32_at(record, header_len - BODY_LEN_LEN)?;
    header_len.checked_add(usize::try_from(body_len).ok()?)
}

#[inline]
fn i32_at(bytes: &[u8], position: usize) -> Option<i32> {
    let bytes = bytes.get(position..)?.first_chunk()?;
    Some(i32::from_be_bytes(*bytes))
}

#[inline]
fn i64_at(bytes: &[u8], position: usize) -> Option<i64> {
    let bytes = bytes.get(position..)?.first_chunk()?;
    Some(i64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use proptest::prelude::*;

    use super::*;
    use crate::{Limits, Message, Parsed, PreparedRecord, RecordView, Stamp};

    /// The same answer, by taking the record apart.
    fn found_by_parsing(claim: &RecordClaim<'_>, bytes: &[u8]) -> Option<usize> {
        let Ok(Parsed::Record(view)) = RecordView::parse(bytes) else {
            return None;
        };
        let found = RecordClaim {
            total_size: view.total_size(),
            physical_offset: view.physical_offset(),
            topic: view.topic(),
            queue_id: view.queue_id(),
            queue_offset: view.queue_offset(),
        };
        let position = view.topic().as_ptr() as usize - bytes.as_ptr() as usize;
        (found == *claim).then_some(position)
    }

    fn host(is_v6: bool) -> SocketAddr {
        match is_v6 {
            true => (Ipv6Addr::LOCALHOST, 1234).into(),
            false => ([127, 0, 0, 1], 1234).into(),
        }
    }

    proptest! {
        #[test]
        fn says_what_parsing_says(
            topic in "[a-z]{1,140}",
            body in prop::collection::vec(any::<u8>(), 0..40),
            properties_len in 0_usize..30,
            hosts: (bool, bool),
            wrong in 0_usize..7,
            damage in prop::option::of((0_usize..400, any::<u8>())),
            cut in prop::option::of(0_usize..400),
        ) {
            let message = Message {
                topic: &topic,
                queue_id: 3,
                flag: 0,
                sys_flag: SysFlag::default(),
                born_timestamp_ms: 1,
                born_host: host(hosts.0),
                store_host: host(hosts.1),
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: &body,
                properties: &vec![b'x'; properties_len],
            };
            let mut record = PreparedRecord::new(&message, &Limits::default()).unwrap();
            let stamp = Stamp { queue_offset: 7, physical_offset: 4096, store_timestamp_ms: 1 };
            record.stamp(stamp);
            let mut claim = RecordClaim {
                total_size: record.len(),
                physical_offset: 4096,
                topic: &topic,
                queue_id: 3,
                queue_offset: 7,
            };
            let mut bytes = record.parts().concat();
            // Whatever follows is not the record's.
            bytes.extend_from_slice(&[0x5a; 7]);
            if let Some((position, byte)) = damage {
                let position = position % bytes.len();
                bytes[position] = byte;
            }
            if let Some(len) = cut {
                bytes.truncate(len);
            }
            let shorter = topic.get(1..).unwrap_or_default();
            match wrong {
                0 => claim.total_size += 1,
                1 => claim.physical_offset += 1,
                2 => claim.topic = shorter,
                3 => claim.queue_id += 1,
                4 => claim.queue_offset += 1,
                _ => {}
            }
            prop_assert_eq!(claim.holds_for(&bytes), found_by_parsing(&claim, &bytes));
            if wrong > 4 && damage.is_none() && cut.is_none() {
                prop_assert!(claim.holds_for(&bytes).is_some());
            }
        }
    }
}

//! A record's fields in front of its body, being written.

use crate::encode::{Message, Stamp};
use crate::host::{HostField, canonical};
use crate::layout::{
    BORN_HOST_POSITION, HEADER_LEN_MAX, PHYSICAL_OFFSET_POSITION, QUEUE_OFFSET_POSITION,
    TOTAL_SIZE_POSITION, Version,
};
use crate::sys_flag::SysFlag;

/// The bytes in front of the body: 88, and 12 more for each IPv6 host.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    bytes: [u8; HEADER_LEN_MAX],
    len: usize,
    store_timestamp_position: usize,
    sys_flag: SysFlag,
}

impl Header {
    /// All fields but total size and those of [`Stamp`]. The body's length must fit its field.
    pub(crate) fn new(message: &Message<'_>, body_crc: u32) -> Self {
        let born_host = HostField::new(canonical(message.born_host));
        let store_host = HostField::new(canonical(message.store_host));
        let sys_flag = host_bits(message.sys_flag, &born_host, &store_host);
        let mut header = Self {
            bytes: [0; HEADER_LEN_MAX],
            len: 0,
            store_timestamp_position: BORN_HOST_POSITION + born_host.as_slice().len(),
            sys_flag,
        };
        header.push(&0i32.to_be_bytes()); // total size
        header.push(&Version::of_topic(message.topic).magic().to_be_bytes());
        header.push(&body_crc.to_be_bytes());
        header.push(&message.queue_id.to_be_bytes());
        header.push(&message.flag.to_be_bytes());
        header.push(&0i64.to_be_bytes()); // queue offset
        header.push(&0i64.to_be_bytes()); // physical offset
        header.push(&sys_flag.0.to_be_bytes());
        header.push(&message.born_timestamp_ms.to_be_bytes());
        header.push(born_host.as_slice());
        header.push(&0i64.to_be_bytes()); // store timestamp
        header.push(store_host.as_slice());
        header.push(&message.reconsume_times.to_be_bytes());
        header.push(&message.prepared_transaction_offset.to_be_bytes());
        header.push(&(message.body.len() as i32).to_be_bytes());
        header
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    pub(crate) fn sys_flag(&self) -> SysFlag {
        self.sys_flag
    }

    pub(crate) fn set_total_size(&mut self, total_size: i32) {
        self.write_at(TOTAL_SIZE_POSITION, &total_size.to_be_bytes());
    }

    #[inline]
    pub(crate) fn stamp(&mut self, stamp: Stamp) {
        let takes_queue_offset = self.sys_flag.transaction().takes_queue_offset();
        let queue_offset = if takes_queue_offset {
            stamp.queue_offset
        } else {
            0
        };
        self.write_at(QUEUE_OFFSET_POSITION, &queue_offset.to_be_bytes());
        self.write_at(
            PHYSICAL_OFFSET_POSITION,
            &stamp.physical_offset.to_be_bytes(),
        );
        self.write_at(
            self.store_timestamp_position,
            &stamp.store_timestamp_ms.to_be_bytes(),
        );
    }

    fn push(&mut self, field: &[u8]) {
        self.write_at(self.len, field);
        self.len += field.len();
    }

    /// Every caller's place is inside: the fields' lengths add up to [`HEADER_LEN_MAX`] at most.
    #[inline]
    fn write_at(&mut self, position: usize, field: &[u8]) {
        let place = self.bytes.get_mut(position..position + field.len());
        debug_assert!(place.is_some());
        if let Some(place) = place {
            place.copy_from_slice(field);
        }
    }
}

/// `sys_flag` with the bits that tell the lengths of the host fields.
fn host_bits(sys_flag: SysFlag, born_host: &HostField, store_host: &HostField) -> SysFlag {
    let mut flag = sys_flag.without(SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6);
    if matches!(born_host, HostField::V6(_)) {
        flag |= SysFlag::BORN_HOST_V6;
    }
    if matches!(store_host, HostField::V6(_)) {
        flag |= SysFlag::STORE_HOST_V6;
    }
    flag
}

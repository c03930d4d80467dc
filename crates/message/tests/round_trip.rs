//! What is written is read back, and no bytes make a reader panic.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::net::SocketAddr;

use message::{
    BatchMessage, BatchProperties, BatchView, CrcProperty, Limits, Message, Parsed, PreparedRecord,
    Properties, PropertiesBuilder, RecordView, Stamp, SysFlag, encode_batch_message,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Debug)]
struct Owned {
    topic: String,
    queue_id: i32,
    flag: i32,
    sys_flag: i32,
    times: (i64, i64),
    hosts: (SocketAddr, SocketAddr),
    reconsume_times: i32,
    offsets: (i64, i64, i64),
    body: Vec<u8>,
    properties: Vec<u8>,
}

impl Owned {
    fn message(&self) -> Message<'_> {
        Message {
            topic: &self.topic,
            queue_id: self.queue_id,
            flag: self.flag,
            sys_flag: SysFlag(self.sys_flag),
            born_timestamp_ms: self.times.0,
            born_host: self.hosts.0,
            store_host: self.hosts.1,
            reconsume_times: self.reconsume_times,
            prepared_transaction_offset: self.offsets.2,
            body: &self.body,
            properties: &self.properties,
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            queue_offset: self.offsets.0,
            physical_offset: self.offsets.1,
            store_timestamp_ms: self.times.1,
        }
    }
}

fn properties() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        select(vec!["TAGS", "KEYS", "UNIQ_KEY", "DELAY"]),
        Just("other")
    ];
    vec((name, "[^\u{1}\u{2}]{1,12}"), 0..6).prop_map(|pairs| {
        let mut builder = PropertiesBuilder::new();
        for (name, value) in pairs {
            builder.push(name, &value).unwrap();
        }
        builder.finish()
    })
}

prop_compose! {
    fn owned()(
        topic in prop_oneof!["[a-zA-Z%_-]{1,127}", "[a-z]{128,255}", "\\PC{1,60}"],
        (queue_id, flag, sys_flag, reconsume_times) in any::<(i32, i32, i32, i32)>(),
        times in any::<(i64, i64)>(),
        hosts in any::<(SocketAddr, SocketAddr)>(),
        offsets in any::<(i64, i64, i64)>(),
        body in vec(any::<u8>(), 0..200),
        properties in properties(),
    ) -> Owned {
        Owned {
            topic, queue_id, flag, sys_flag, times, hosts, reconsume_times, offsets, body, properties,
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        select(vec![CrcProperty::Omit, CrcProperty::Append]),
        select(vec![BatchProperties::Own, BatchProperties::OwnThenOuter]),
    )
        .prop_map(|(crc_property, batch_properties)| Limits {
            crc_property,
            batch_properties,
            ..Limits::default()
        })
}

fn bytes_of(record: &mut PreparedRecord<'_>, stamp: Stamp) -> Vec<u8> {
    record.stamp(stamp);
    let bytes = record.parts().concat();
    assert_eq!(bytes.len(), record.len());
    bytes
}

fn view(bytes: &[u8]) -> RecordView<'_> {
    match RecordView::parse(bytes) {
        Ok(Parsed::Record(view)) => view,
        other => panic!("{other:?}"),
    }
}

/// What is stored of a host: no scope, no flow, and IPv4 instead of IPv4 in IPv6.
fn canonical(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(host.ip().to_canonical(), host.port())
}

fn check_view(view: &RecordView<'_>, owned: &Owned) {
    let sys_flag = SysFlag(owned.sys_flag);
    let kept = sys_flag.without(SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6);
    assert_eq!(view.topic(), owned.topic);
    assert_eq!(view.topic_bytes(), owned.topic.as_bytes());
    assert_eq!(view.queue_id(), owned.queue_id);
    assert_eq!(
        view.sys_flag()
            .without(SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6),
        kept
    );
    assert_eq!(view.born_timestamp_ms(), owned.times.0);
    assert_eq!(view.store_timestamp_ms(), owned.times.1);
    assert_eq!(view.born_host(), canonical(owned.hosts.0));
    assert_eq!(view.store_host(), canonical(owned.hosts.1));
    assert_eq!(view.reconsume_times(), owned.reconsume_times);
    assert_eq!(view.physical_offset(), owned.offsets.1);
    let takes_offset = sys_flag.transaction().takes_queue_offset();
    assert_eq!(
        view.queue_offset(),
        if takes_offset { owned.offsets.0 } else { 0 }
    );
    assert_eq!(view.verify_body_crc(), Ok(()));
}

/// Everything that reads, on any bytes.
fn read_all(bytes: &[u8]) {
    if let Ok(Parsed::Record(view)) = RecordView::parse(bytes) {
        assert!(view.total_size() <= bytes.len());
        let _ = view.verify_body_crc();
        let _ = view.verify_crc_property();
        let fields = view.dispatch_fields();
        let _ = fields.tags_code_of(&view, &[1000]);
        let _ = fields.index_keys().count();
        let _ = (view.born_host(), view.message_id().text().len());
        let _ = view.inner_batch().map(|batch| batch.count());
        let _ = format!("{view:?}");
    }
    let _ = BatchView::new(bytes).count();
    for (name, value) in Properties::new(bytes) {
        assert!(!name.is_empty() && !value.is_empty());
    }
}

proptest! {
    #[test]
    fn records_read_back(owned in owned(), limits in limits(), behind: [u8; 9]) {
        let mut record = PreparedRecord::new(&owned.message(), &limits).unwrap();
        record.stamp(Stamp { queue_offset: 1, physical_offset: 2, store_timestamp_ms: 3 });
        let mut bytes = bytes_of(&mut record, owned.stamp());
        bytes.extend_from_slice(&behind);
        let view = view(&bytes);
        prop_assert_eq!(view.total_size(), record.len());
        check_view(&view, &owned);
        prop_assert_eq!((view.flag(), view.body()), (owned.flag, &owned.body[..]));
        prop_assert_eq!(view.prepared_transaction_offset(), owned.offsets.2);
        prop_assert!(view.properties().bytes().starts_with(&owned.properties));
        if limits.crc_property == CrcProperty::Append {
            prop_assert_eq!(view.verify_crc_property(), Ok(()));
        } else {
            prop_assert_eq!(view.properties().bytes(), &owned.properties[..]);
        }
    }

    #[test]
    fn batches_read_back(
        outer in owned(),
        limits in limits(),
        inner in vec((any::<i32>(), vec(any::<u8>(), 0..50), properties()), 0..5),
    ) {
        let mut body = Vec::new();
        for (flag, body_of_one, properties) in &inner {
            let message = BatchMessage { flag: *flag, body: body_of_one, properties };
            encode_batch_message(&message, &mut body).unwrap();
        }
        let messages: Result<Vec<_>, _> = BatchView::new(&body).into_iter().collect();
        let messages = messages.unwrap();
        prop_assert_eq!(messages.len(), inner.len());
        for (message, (flag, body, properties)) in messages.iter().zip(&inner) {
            prop_assert_eq!((message.flag, message.body), (*flag, &body[..]));
            prop_assert_eq!(message.properties, properties);
            let batch = outer.message();
            let mut record = PreparedRecord::of_batch_message(&batch, message, &limits).unwrap();
            let bytes = bytes_of(&mut record, outer.stamp());
            let view = view(&bytes);
            check_view(&view, &outer);
            prop_assert_eq!((view.flag(), view.body()), (*flag, &body[..]));
            prop_assert!(view.properties().bytes().starts_with(properties));
        }
    }

    #[test]
    fn dispatch_fields_are_what_a_search_finds(text in properties()) {
        let properties = Properties::new(&text);
        let fields = message::DispatchFields::new(properties);
        prop_assert_eq!(fields.tags, properties.find_bytes("TAGS"));
        prop_assert_eq!(fields.keys, properties.find("KEYS"));
        prop_assert_eq!(fields.unique_key, properties.find("UNIQ_KEY"));
        prop_assert_eq!(fields.delay_level, properties.find("DELAY"));
        prop_assert_eq!(fields.tags_code(), fields.tags.map_or(0, |tags| {
            message::tags_code(std::str::from_utf8(tags).unwrap())
        }));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        read_all(&bytes);
    }

    #[test]
    fn no_damaged_record_panics(
        owned in owned(),
        limits in limits(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut record = PreparedRecord::new(&owned.message(), &limits).unwrap();
        let mut bytes = bytes_of(&mut record, owned.stamp());
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        read_all(&bytes);
        read_all(&bytes[..cut.index(bytes.len())]);
    }
}

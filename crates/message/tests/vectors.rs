//! Bytes and numbers that RocketMQ 5.3.3 produced, and the limits at their edges.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use message::layout::{RECORD_LEN_MIN, Version};
use message::{
    BatchError, BatchMessage, BatchProperties, BatchView, CrcProperty, EncodeError, Limits,
    Message, Parsed, PreparedRecord, PropertiesBuilder, RecordError, RecordView, Stamp, SysFlag,
    blank_record, encode_batch_message,
};

const DELAYS_MS: [i64; 3] = [1_000, 5_000, 10_000];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn message() -> Message<'static> {
    Message {
        topic: "TopicA",
        queue_id: 0,
        flag: 0,
        sys_flag: SysFlag::default(),
        born_timestamp_ms: 1_700_000_000_000,
        born_host: ([127, 0, 0, 1], 1234).into(),
        store_host: ([127, 0, 0, 1], 10911).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"hello0",
        properties: b"KEYS\x01k0 kk\x02UNIQ_KEY\x01ABCDEF0\x02TAGS\x01TagA\x02",
    }
}

/// The record of `message` at queue offset 5, physical offset 4096, store time 42.
fn encode(message: &Message<'_>, limits: &Limits) -> Vec<u8> {
    let mut record = PreparedRecord::new(message, limits).unwrap();
    stamped(&mut record)
}

fn stamped(record: &mut PreparedRecord<'_>) -> Vec<u8> {
    record.stamp(Stamp {
        queue_offset: 5,
        physical_offset: 4096,
        store_timestamp_ms: 42,
    });
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

fn crc_limits() -> Limits {
    Limits {
        crc_property: CrcProperty::Append,
        ..Limits::default()
    }
}

#[test]
fn java_record() {
    let store_time = "000001915aa3b1c2";
    let expected = hex(&format!(
        "0000008d daa320a7 7036e992 00000000 00000000 0000000000000000 0000000000000000
         00000000 0000018bcfe56800 7f000001000004d2 {store_time} 7f00000100002a9f 00000000
         0000000000000000 00000006 68656c6c6f30 06 546f70696341 0026
         4b455953 01 6b30206b6b 02 554e49515f4b4559 01 41424344454630 02 54414753 01 54616741 02"
    ));
    let mut record = PreparedRecord::new(&message(), &Limits::default()).unwrap();
    record.stamp(Stamp {
        store_timestamp_ms: 0x0191_5aa3_b1c2,
        ..Stamp::default()
    });
    assert_eq!(record.parts().concat(), expected);

    let view = view(&expected);
    assert_eq!((view.total_size(), view.body_crc()), (141, 1_882_646_930));
    assert_eq!(
        view.message_id().to_string(),
        "7F00000100002A9F0000000000000000"
    );
    let fields = view.dispatch_fields();
    assert_eq!(fields.tags_code_of(&view, &DELAYS_MS), Ok(0x27_a807));
    assert_eq!(
        fields.index_keys().collect::<Vec<_>>(),
        ["ABCDEF0", "k0", "kk"]
    );
}

#[test]
fn java_blank() {
    assert_eq!(&blank_record(2686)[..], hex("00000a7e cbd43194"));
    let blank = blank_record(4096);
    let parsed = RecordView::parse(&blank);
    assert!(
        matches!(parsed, Ok(Parsed::Blank { size: 4096 })),
        "{parsed:?}"
    );
    let too_small = RecordError::Size { found: 7, min: 8 };
    assert_eq!(RecordView::parse(&blank_record(7)).unwrap_err(), too_small);
}

#[test]
fn java_batch_message() {
    let expected = hex("0000002D 00000000 00000000 00000000 00000004 626F6479 0013
         57414954 01 74727565 02 54414753 01 746167 02");
    let message = BatchMessage {
        flag: 0,
        body: b"body",
        properties: b"WAIT\x01true\x02TAGS\x01tag\x02",
    };
    let mut body = Vec::new();
    encode_batch_message(&message, &mut body).unwrap();
    assert_eq!(body, expected);
    encode_batch_message(&BatchMessage::default(), &mut body).unwrap();
    let messages: Vec<_> = BatchView::new(&body).iter().map(Result::unwrap).collect();
    assert_eq!(messages, [message, BatchMessage::default()]);
}

#[test]
fn ipv6_hosts_lengthen_the_record() {
    let v4 = encode(&message(), &Limits::default());
    let host = "[2001:db8::1]:65535".parse().unwrap();
    for (born_host, store_host, bits, more) in [
        (host, message().store_host, 0x10, 12),
        (message().born_host, host, 0x20, 12),
        (host, host, 0x30, 24),
    ] {
        let bytes = encode(
            &Message {
                born_host,
                store_host,
                ..message()
            },
            &Limits::default(),
        );
        assert_eq!(bytes.len(), v4.len() + more);
        let view = view(&bytes);
        assert_eq!(view.sys_flag(), SysFlag(bits));
        assert_eq!(
            (view.born_host(), view.store_host()),
            (born_host, store_host)
        );
        assert_eq!(view.store_timestamp_ms(), 42);
    }
}

#[test]
fn ipv4_address_in_ipv6_clothes_is_ipv4() {
    let born_host = "[::ffff:127.0.0.1]:1234".parse().unwrap();
    let sys_flag = SysFlag::BORN_HOST_V6;
    let bytes = encode(
        &Message {
            born_host,
            sys_flag,
            ..message()
        },
        &Limits::default(),
    );
    assert_eq!(bytes, encode(&message(), &Limits::default()));
}

#[test]
fn longer_topics_make_version_2() {
    for (len, version) in [
        (1, Version::V1),
        (127, Version::V1),
        (128, Version::V2),
        (255, Version::V2),
    ] {
        let topic = "t".repeat(len);
        let bytes = encode(
            &Message {
                topic: &topic,
                ..message()
            },
            &Limits::default(),
        );
        assert_eq!(view(&bytes).version(), version, "{len}");
        assert_eq!(view(&bytes).topic(), topic);
    }
    // 100 characters, 200 bytes.
    let topic = "\u{e9}".repeat(100);
    let bytes = encode(
        &Message {
            topic: &topic,
            ..message()
        },
        &Limits::default(),
    );
    assert_eq!(
        (view(&bytes).version(), view(&bytes).topic()),
        (Version::V2, topic.as_str())
    );
}

#[test]
fn half_and_rolled_back_messages_take_no_queue_offset() {
    for (bits, queue_offset) in [(0, 5), (4, 0), (8, 5), (12, 0)] {
        let message = Message {
            sys_flag: SysFlag(bits),
            ..message()
        };
        assert_eq!(
            view(&encode(&message, &Limits::default())).queue_offset(),
            queue_offset
        );
    }
}

#[test]
fn crc_property_covers_the_record() {
    for properties in [&b""[..], b"a\x01b", b"a\x01b\x02"] {
        let bytes = encode(
            &Message {
                properties,
                ..message()
            },
            &crc_limits(),
        );
        let view = view(&bytes);
        assert_eq!(view.verify_crc_property(), Ok(()));
        assert_eq!(
            view.properties().iter().count(),
            usize::from(!properties.is_empty()) + 1
        );
        for position in 0..bytes.len() - 20 {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x40;
            if let Ok(Parsed::Record(view)) = RecordView::parse(&damaged) {
                assert!(view.verify_crc_property().is_err(), "byte {position}");
            }
        }
    }
    let bytes = encode(&message(), &Limits::default());
    assert_eq!(
        view(&bytes).verify_crc_property(),
        Err(RecordError::CrcPropertyMissing)
    );
}

#[test]
fn crc_property_is_not_doubled() {
    let stale = Message {
        properties: b"a\x01b\x02__CRC32#\x011\x02c\x01d\x02",
        ..message()
    };
    let fresh = Message {
        properties: b"a\x01b\x02c\x01d\x02",
        ..message()
    };
    assert_eq!(encode(&stale, &crc_limits()), encode(&fresh, &crc_limits()));
    // Without one of our own it is the sender's affair.
    assert_eq!(
        view(&encode(&stale, &Limits::default()))
            .properties()
            .bytes(),
        stale.properties
    );
}

#[test]
fn batch_messages_become_records_of_their_own() {
    let outer = Message {
        queue_id: 3,
        reconsume_times: 2,
        prepared_transaction_offset: 9,
        properties: b"UNIQ_KEY\x01outer\x02",
        ..message()
    };
    let inner = BatchMessage {
        flag: 7,
        body: b"one",
        properties: b"UNIQ_KEY\x01own",
    };
    for (batch_properties, properties) in [
        (BatchProperties::Own, &b"UNIQ_KEY\x01own"[..]),
        (
            BatchProperties::OwnThenOuter,
            b"UNIQ_KEY\x01own\x02UNIQ_KEY\x01outer\x02",
        ),
    ] {
        let limits = Limits {
            batch_properties,
            ..Limits::default()
        };
        let bytes =
            stamped(&mut PreparedRecord::of_batch_message(&outer, &inner, &limits).unwrap());
        let view = view(&bytes);
        assert_eq!((view.flag(), view.body()), (7, &b"one"[..]));
        assert_eq!((view.queue_id(), view.reconsume_times()), (3, 2));
        assert_eq!(view.prepared_transaction_offset(), 0);
        assert_eq!(view.properties().bytes(), properties);
        assert_eq!(view.verify_body_crc(), Ok(()));

        let limits = Limits {
            crc_property: CrcProperty::Append,
            ..limits
        };
        let bytes =
            stamped(&mut PreparedRecord::of_batch_message(&outer, &inner, &limits).unwrap());
        assert_eq!(self::view(&bytes).verify_crc_property(), Ok(()));
        assert_ne!(self::view(&bytes).properties().find("UNIQ_KEY"), None);
    }
}

#[test]
fn no_separator_around_properties_that_are_not_there() {
    let limits = Limits {
        batch_properties: BatchProperties::OwnThenOuter,
        ..Limits::default()
    };
    for (own, outer, expected) in [
        (&b""[..], &b"a\x01b\x02"[..], &b"a\x01b\x02"[..]),
        (b"a\x01b", b"", b"a\x01b"),
        (b"a\x01b\x02", b"c\x01d", b"a\x01b\x02c\x01d"),
    ] {
        let batch = Message {
            properties: outer,
            ..message()
        };
        let inner = BatchMessage {
            flag: 0,
            body: b"",
            properties: own,
        };
        let bytes =
            stamped(&mut PreparedRecord::of_batch_message(&batch, &inner, &limits).unwrap());
        assert_eq!(view(&bytes).properties().bytes(), expected);
    }
}

#[test]
fn limits_at_their_edges() {
    let limits = Limits {
        body_len_max: 10,
        record_len_max: 200,
        ..Limits::default()
    };
    let prepare = |message: Message<'_>, limits: &Limits| {
        PreparedRecord::new(&message, limits).map(|record| record.len())
    };
    let body = [7; 11];
    assert!(
        prepare(
            Message {
                body: &body[..10],
                ..message()
            },
            &limits
        )
        .is_ok()
    );
    let refused = prepare(
        Message {
            body: &body,
            ..message()
        },
        &limits,
    );
    assert_eq!(refused, Err(EncodeError::Body { len: 11, max: 10 }));

    for (topic_len, limits, fits) in [
        (0, limits, false),
        (255, Limits::default(), true),
        (256, Limits::default(), false),
    ] {
        let topic = "t".repeat(topic_len);
        let refused = prepare(
            Message {
                topic: &topic,
                ..message()
            },
            &limits,
        );
        let expected = EncodeError::Topic {
            len: topic_len,
            max: 255,
        };
        assert_eq!(refused.is_ok(), fits);
        assert!(fits || refused == Err(expected));
    }

    let properties = [b'p'; 200];
    let base_len = RECORD_LEN_MIN + 6 + 6;
    let fitting = Message {
        properties: &properties[..200 - base_len],
        ..message()
    };
    assert_eq!(prepare(fitting, &limits), Ok(200));
    let refused = prepare(
        Message {
            properties: &properties[..201 - base_len],
            ..message()
        },
        &limits,
    );
    assert_eq!(refused, Err(EncodeError::Record { len: 201, max: 200 }));
}

#[test]
fn properties_limit_counts_the_crc_property() {
    let properties = [b'p'; 32768];
    let prepare = |len: usize, limits: &Limits| {
        PreparedRecord::new(
            &Message {
                properties: &properties[..len],
                ..message()
            },
            limits,
        )
        .err()
    };
    let refused = |len| Some(EncodeError::Properties { len, max: 32767 });
    assert_eq!(prepare(32767, &Limits::default()), None);
    assert_eq!(prepare(32768, &Limits::default()), refused(32768));
    // 0x02 and the 20 bytes of the property.
    assert_eq!(prepare(32767 - 21, &crc_limits()), None);
    assert_eq!(prepare(32767 - 20, &crc_limits()), refused(32768));
    let not_text = Message {
        properties: b"a\x01\xff\x02",
        ..message()
    };
    let refused = PreparedRecord::new(&not_text, &Limits::default()).err();
    assert_eq!(refused, Some(EncodeError::PropertiesText));
}

#[test]
fn delay_topic_takes_the_time_of_delivery_as_tags_code() {
    let code = |topic: &str, level: &str, delays: &[i64]| {
        let mut properties = PropertiesBuilder::new();
        properties
            .push("TAGS", "TagA")
            .unwrap()
            .push("DELAY", level)
            .unwrap();
        let properties = properties.finish();
        let message = Message {
            topic,
            properties: &properties,
            ..message()
        };
        let bytes = encode(&message, &Limits::default());
        let view = view(&bytes);
        view.dispatch_fields().tags_code_of(&view, delays)
    };
    const TAG_A: i64 = 2_598_919;
    assert_eq!(code("SCHEDULE_TOPIC_XXXX", "1", &DELAYS_MS), Ok(42 + 1_000));
    assert_eq!(
        code("SCHEDULE_TOPIC_XXXX", "3", &DELAYS_MS),
        Ok(42 + 10_000)
    );
    assert_eq!(
        code("SCHEDULE_TOPIC_XXXX", "99", &DELAYS_MS),
        Ok(42 + 10_000)
    );
    assert_eq!(code("SCHEDULE_TOPIC_XXXX", "0", &DELAYS_MS), Ok(TAG_A));
    assert_eq!(code("SCHEDULE_TOPIC_XXXX", "-1", &DELAYS_MS), Ok(TAG_A));
    assert_eq!(code("SCHEDULE_TOPIC_XXXX", "1", &[]), Ok(TAG_A));
    assert_eq!(
        code("SCHEDULE_TOPIC_XXXX", "x", &DELAYS_MS),
        Err(RecordError::DelayLevel)
    );
    assert_eq!(code("TopicA", "x", &DELAYS_MS), Ok(TAG_A));
}

#[test]
fn records_that_are_none_say_why() {
    let sound = encode(&message(), &Limits::default());
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        RecordView::parse(&bytes).map(|_| ()).unwrap_err()
    };
    let set = |position: usize, field: &'static [u8]| {
        move |bytes: &mut Vec<u8>| bytes[position..position + field.len()].copy_from_slice(field)
    };
    assert_eq!(error(&|bytes| bytes.fill(0)), RecordError::Unwritten);
    assert_eq!(
        error(&|bytes| bytes.clear()),
        RecordError::TooShort { have: 0, need: 8 }
    );
    assert_eq!(
        error(&|bytes| bytes.truncate(140)),
        RecordError::TooShort {
            have: 140,
            need: 141
        }
    );
    assert_eq!(
        error(&set(4, b"\xda\xa3\x20\xa8")),
        RecordError::Magic(0xDAA3_20A8)
    );
    assert_eq!(
        error(&set(0, b"\0\0\0\x5a")),
        RecordError::Size { found: 90, min: 91 }
    );
    assert_eq!(
        error(&set(0, b"\x80\0\0\0")),
        RecordError::Size {
            found: i32::MIN,
            min: 91
        }
    );
    let field = |field, len, left| RecordError::Field {
        field,
        len,
        left,
        total_size: 141,
    };
    assert_eq!(error(&set(84, b"\xff\xff\xff\xff")), field("body", -1, 53));
    assert_eq!(error(&set(94, b"\x80")), field("topic", -128, 46));
    assert_eq!(error(&set(101, b"\xff\xff")), field("properties", -1, 38));
    assert_eq!(error(&set(101, b"\0\x27")), field("properties", 39, 38));
    assert_eq!(
        error(&set(101, b"\0\x25")),
        RecordError::Lengths {
            total_size: 141,
            counted: 140
        }
    );
    assert_eq!(error(&set(95, b"\xff")), RecordError::Topic);
    // A V1 record read as V2 takes the topic's first letter as part of its length.
    assert_eq!(
        error(&set(4, b"\xda\xa3\x20\xab")),
        field("topic", 0x0654, 45)
    );

    let mut damaged = sound.clone();
    damaged[90] ^= 1;
    let view = view(&damaged);
    assert!(matches!(
        view.verify_body_crc(),
        Err(RecordError::BodyCrc {
            stored: 1_882_646_930,
            ..
        })
    ));
}

#[test]
fn batches_that_are_none_say_why() {
    let mut sound = Vec::new();
    let message = BatchMessage {
        flag: 0,
        body: b"body",
        properties: b"a\x01b\x02",
    };
    encode_batch_message(&message, &mut sound).unwrap();
    encode_batch_message(&message, &mut sound).unwrap();
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        BatchView::new(&bytes).count().unwrap_err()
    };
    assert_eq!(BatchView::new(&sound).count(), Ok(2));
    assert_eq!(BatchView::new(&[]).count(), Ok(0));
    assert_eq!(
        error(&|bytes| bytes.truncate(59)),
        BatchError::TooShort {
            index: 1,
            have: 3,
            field: "properties"
        }
    );
    assert_eq!(
        error(&|bytes| bytes.push(0)),
        BatchError::TooShort {
            index: 2,
            have: 1,
            field: "size"
        }
    );
    assert_eq!(
        error(&|bytes| bytes[16] = 0xff),
        BatchError::Length {
            index: 0,
            field: "body",
            len: i32::from_be_bytes([0xff, 0, 0, 4])
        }
    );
    assert_eq!(
        error(&|bytes| bytes[33] = 31),
        BatchError::Size {
            index: 1,
            stated: 31,
            counted: 30
        }
    );
}

//! Commands over the wire in both forms, against what real clients send.
#![allow(clippy::unwrap_used, reason = "tests panic on purpose")]

use proptest::prelude::*;
use remoting::header::{
    PullMessageRequestHeader, PullMessageResponseHeader, SendMessageRequestHeader,
    SendMessageRequestHeaderV2, SendMessageResponseHeader,
};
use remoting::{
    Command, CommandError, CommandView, FieldValue, FrameError, HeaderError, HeaderWriter,
    LanguageCode, RequestCode, ResponseCode, Scratch, SerializeType, VERSION, WriterHead,
    write_response,
};

/// A frame with a JSON header.
fn json_frame(header: &str, body: &[u8]) -> Vec<u8> {
    frame(0, header.as_bytes(), body)
}

fn frame(kind: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = 4 + header.len() + body.len();
    let mut frame = (length as u32).to_be_bytes().to_vec();
    frame.extend((u32::from(kind) << 24 | header.len() as u32).to_be_bytes());
    frame.extend(header);
    frame.extend(body);
    frame
}

/// The header text of one JSON frame.
fn header_text(frame: &[u8]) -> &str {
    let header_len = u32::from_be_bytes([0, frame[5], frame[6], frame[7]]) as usize;
    assert_eq!(frame[4], 0);
    std::str::from_utf8(&frame[8..8 + header_len]).unwrap()
}

fn java(code: i32, flag: i32, opaque: i32) -> WriterHead<'static> {
    WriterHead {
        serialize: SerializeType::Json,
        code,
        language: LanguageCode::Java,
        version: VERSION,
        opaque,
        flag,
        remark: None,
    }
}

#[test]
fn json_headers_are_written_as_java_writes_them() {
    let mut out = Vec::new();
    let fields = [
        ("topic", "T1".into()),
        ("acceptStandardJsonOnly", true.into()),
    ];
    write_response(&mut out, java(105, 0, 1), &fields, 0).unwrap();
    assert_eq!(
        header_text(&out),
        r#"{"code":105,"extFields":{"topic":"T1","acceptStandardJsonOnly":"true"},"flag":0,"language":"JAVA","opaque":1,"serializeTypeCurrentRPC":"JSON","version":479}"#
    );
    out.clear();
    write_response(&mut out, java(0, 1, 5), &[], 0).unwrap();
    assert_eq!(
        header_text(&out),
        r#"{"code":0,"flag":1,"language":"JAVA","opaque":5,"serializeTypeCurrentRPC":"JSON","version":479}"#
    );
}

#[test]
fn a_remark_is_escaped_and_the_body_counted() {
    let mut out = b"earlier".to_vec();
    let head = WriterHead::response(
        SerializeType::Json,
        -3,
        ResponseCode::TOPIC_NOT_EXIST,
        Some("no \"route\""),
    );
    let len = write_response(&mut out, head, &[], 9).unwrap();
    let frame = &out[7..];
    assert_eq!(len, frame.len() + 9);
    assert_eq!(
        header_text(frame),
        r#"{"code":17,"flag":1,"language":"RUST","opaque":-3,"remark":"no \"route\"","serializeTypeCurrentRPC":"JSON","version":479}"#
    );
}

#[test]
fn what_node_sends_is_read() {
    // ali-ons: raw numbers and booleans, no `m`, `n` and serialize type; unknown keys added.
    let header = r#" { "code" : 310, "language":"JAVA","version":121,"opaque":12,"flag":0,"remark":null,
        "extFields":{"a":"PG","b":"T1","c":"TBW102","d":4,"e":3,"f":0,"g":1700000000000,"h":0,
        "i":"TAGS\u0001a\\b\u0002caf\u00e9\ud83d\ude00","j":0,"k":false,"z":null,"deep":{"x":[1,"}"]}},"more":[{"a":"]\""}]} "#;
    let frame = json_frame(header, b"body");
    let mut scratch = Scratch::default();
    let view = CommandView::parse(&frame, &mut scratch).unwrap();
    assert_eq!(view.request_code(), RequestCode::SEND_MESSAGE_V2);
    assert_eq!(
        (view.version(), view.opaque(), view.remark()),
        (121, 12, None)
    );
    assert_eq!(view.body(), b"body");
    assert_eq!(view.field("k"), Some("false"));
    assert_eq!(view.field("z"), None);
    assert_eq!(view.field("deep"), Some(r#"{"x":[1,"}"]}"#));
    let header = SendMessageRequestHeader::from_view(&view).unwrap();
    assert_eq!(
        header,
        SendMessageRequestHeader {
            producer_group: "PG",
            topic: "T1",
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id: 3,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            flag: 0,
            properties: Some("TAGS\u{1}a\\b\u{2}caf\u{e9}\u{1f600}"),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: None,
            max_reconsume_times: None,
        }
    );
}

#[test]
fn what_go_sends_is_read() {
    // V1 names, language GO, no serialize type.
    let header = r#"{"code":10,"language":"GO","version":317,"opaque":1,"flag":0,"remark":"","extFields":{"producerGroup":"PG","topic":"T1","defaultTopic":"TBW102","defaultTopicQueueNums":"4","queueId":"0","sysFlag":"0","bornTimestamp":"1700000000000","flag":"0","properties":"","reconsumeTimes":"0","unitMode":"false","maxReconsumeTimes":"0","batch":"false"}}"#;
    let frame = json_frame(header, b"");
    let mut scratch = Scratch::default();
    let view = CommandView::parse(&frame, &mut scratch).unwrap();
    assert_eq!(view.language(), Some(LanguageCode::Go));
    let header = SendMessageRequestHeader::from_view(&view).unwrap();
    assert_eq!((header.topic, header.max_reconsume_times), ("T1", Some(0)));
    assert_eq!(header.batch, Some(false));
}

#[test]
fn unknown_languages_and_absent_numbers_are_no_errors() {
    let mut scratch = Scratch::default();
    let frame = json_frame(r#"{"code":34,"language":"COBOL","extFields":null}"#, b"");
    let view = CommandView::parse(&frame, &mut scratch).unwrap();
    assert_eq!((view.language(), view.version(), view.flag()), (None, 0, 0));
    let frame = json_frame(r#"{"code":"34","language":9}"#, b"");
    let view = CommandView::parse(&frame, &mut scratch).unwrap();
    assert_eq!((view.code(), view.language()), (34, Some(LanguageCode::Go)));
}

#[test]
fn wrong_headers_say_where_and_what() {
    let cases = [
        (
            "",
            CommandError::Json {
                position: 0,
                expected: "an opening brace",
            },
        ),
        (
            "hello",
            CommandError::Json {
                position: 0,
                expected: "an opening brace",
            },
        ),
        (r#"{"flag":0}"#, CommandError::NoCode),
        (r#"{"code":null}"#, CommandError::NoCode),
        (
            r#"{"code":1.5}"#,
            CommandError::Integer {
                name: "code",
                value: "1.5".into(),
            },
        ),
        (
            r#"{"code":1,"opaque":3000000000}"#,
            CommandError::Integer {
                name: "opaque",
                value: "3000000000".into(),
            },
        ),
        (
            r#"{"code":1,"#,
            CommandError::Json {
                position: 10,
                expected: "a name in quotes",
            },
        ),
        (
            r#"{"code":1}x"#,
            CommandError::Json {
                position: 10,
                expected: "the end",
            },
        ),
        (
            r#"{"code":oops}"#,
            CommandError::Json {
                position: 8,
                expected: "a value",
            },
        ),
        (
            r#"{"code":"1"#,
            CommandError::Json {
                position: 10,
                expected: "a closing quote",
            },
        ),
        (
            r#"{"x":"\q"}"#,
            CommandError::Json {
                position: 7,
                expected: "an escaped character",
            },
        ),
        (
            r#"{"x":[[{}"#,
            CommandError::Json {
                position: 9,
                expected: "a closing bracket",
            },
        ),
        (
            r#"{"x":"\u12"}"#,
            CommandError::Json {
                position: 7,
                expected: "four hexadecimal digits",
            },
        ),
    ];
    for (header, expected) in cases {
        let frame = json_frame(header, b"");
        let mut scratch = Scratch::default();
        let error = CommandView::parse(&frame, &mut scratch).unwrap_err();
        assert_eq!(error, expected, "{header}");
    }
    let frame = frame(0, b"{\"a\":\"\xff\"}", b"");
    let error = Command::decode(&frame).unwrap_err();
    assert_eq!(error, CommandError::NotUtf8 { position: 6 });
}

#[test]
fn a_lone_surrogate_is_replaced() {
    let frame = json_frame(r#"{"code":1,"remark":"a\ud800b\ud800\u0041\udc00"}"#, b"");
    let command = Command::decode(&frame).unwrap();
    assert_eq!(
        command.remark.as_deref(),
        Some("a\u{fffd}b\u{fffd}A\u{fffd}")
    );
}

#[test]
fn more_fields_than_allowed_are_refused() {
    let fields = |count| {
        let pairs: Vec<String> = (0..count).map(|index| format!("\"f{index}\":1")).collect();
        json_frame(
            &format!("{{\"code\":1,\"extFields\":{{{}}}}}", pairs.join(",")),
            b"",
        )
    };
    assert_eq!(Command::decode(&fields(256)).unwrap().fields.count(), 256);
    let error = Command::decode(&fields(257)).unwrap_err();
    assert_eq!(error, CommandError::TooManyFields { max: 256 });
}

#[test]
fn missing_and_wrong_fields_are_named() {
    let mut command =
        Command::request(RequestCode::PULL_MESSAGE).with_header(&PullMessageRequestHeader {
            consumer_group: "CG",
            ..Default::default()
        });
    command.fields.remove("topic");
    let error = command
        .header::<PullMessageRequestHeader<'_>>()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "PullMessageRequestHeader: field topic is missing, must be text"
    );
    let command = command
        .with_field("topic", "T1")
        .with_field("queueId", "four");
    let error = command
        .header::<PullMessageRequestHeader<'_>>()
        .unwrap_err();
    assert!(matches!(
        error,
        HeaderError::Invalid {
            field: "queueId",
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        "PullMessageRequestHeader: field queueId is \"four\", must be a decimal integer from -2147483648 to 2147483647"
    );
    let command = command.with_field("queueId", "x".repeat(1000).as_str());
    let error = command
        .header::<PullMessageRequestHeader<'_>>()
        .unwrap_err();
    assert!(error.to_string().len() < 250);
}

#[test]
fn headers_of_both_versions_and_forms_read_back() {
    let header = SendMessageRequestHeaderV2 {
        producer_group: "PG",
        topic: "T1",
        default_topic: "TBW102",
        properties: Some("TAGS\u{1}a\u{2}"),
        batch: Some(true),
        broker_name: Some("broker-a"),
        ..Default::default()
    };
    for serialize in [SerializeType::Json, SerializeType::RocketMq] {
        let mut command = Command::request(RequestCode::SEND_BATCH_MESSAGE)
            .with_opaque(9)
            .with_header(&header)
            .with_body(b"body".to_vec());
        command.serialize = serialize;
        command.remark = Some("remark".to_owned());
        let mut frame = Vec::new();
        command.encode(&mut frame).unwrap();
        let mut scratch = Scratch::default();
        let view = CommandView::parse(&frame, &mut scratch).unwrap();
        assert_eq!(view.serialize(), serialize);
        assert_eq!(
            view.header::<SendMessageRequestHeaderV2<'_>>().unwrap(),
            header
        );
        assert_eq!(view.to_command(), command);
        let common = SendMessageRequestHeader::from_view(&view).unwrap();
        assert_eq!((common.topic, common.batch), ("T1", Some(true)));
    }
}

#[test]
fn binary_headers_have_javas_layout() {
    let mut out = Vec::new();
    let head = WriterHead {
        serialize: SerializeType::RocketMq,
        ..java(200_050, 0, 7)
    };
    let fields = [
        ("a", "xy".into()),
        ("n", FieldValue::Integer(-12)),
        ("b", true.into()),
    ];
    let len = write_response(&mut out, head, &fields, 3).unwrap();
    let mut expected = vec![0, 0, 0, 4 + 51 + 3, 1, 0, 0, 51];
    expected.extend([0x0d, 0x72, 0, 0x01, 0xdf, 0, 0, 0, 7, 0, 0, 0, 0]); // code .. flag
    expected.extend([0, 0, 0, 0]); // no remark
    expected.extend([0, 0, 0, 30]);
    expected.extend(b"\0\x01a\0\0\0\x02xy");
    expected.extend(b"\0\x01n\0\0\0\x03-12");
    expected.extend(b"\0\x01b\0\0\0\x04true");
    assert_eq!((len, &out), (out.len() + 3, &expected));
    out.extend(b"123");
    let command = Command::decode(&out).unwrap();
    assert_eq!(command.code, 200_050);
    assert_eq!(command.fields.find("n"), Some("-12"));
}

#[test]
fn lying_binary_headers_are_refused() {
    let mut good = Vec::new();
    let mut command = Command::request(RequestCode::HEART_BEAT).with_field("name", "value");
    command.serialize = SerializeType::RocketMq;
    command.encode(&mut good).unwrap();
    let header = good[8..].to_vec();
    let cut = frame(1, &header[..20], b"");
    assert!(matches!(
        Command::decode(&cut),
        Err(CommandError::BinaryLength { .. })
    ));
    for (position, what) in [
        (13, "remark"),
        (17, "extension fields"),
        (27, "field value"),
    ] {
        for lie in [i32::MAX, -1] {
            let mut header = header.clone();
            header[position..position + 4].copy_from_slice(&lie.to_be_bytes());
            match Command::decode(&frame(1, &header, b"")) {
                Err(CommandError::BinaryLength {
                    what: named, len, ..
                }) => {
                    assert_eq!((named, len), (what, i64::from(lie)));
                }
                other => panic!("{what}: {other:?}"),
            }
        }
    }
}

#[test]
fn only_one_whole_frame_is_a_command() {
    let frame = json_frame(r#"{"code":1}"#, b"body");
    let error = Command::decode(&frame[..frame.len() - 1]).unwrap_err();
    assert_eq!(error, CommandError::NotOneFrame { len: 22, given: 21 });
    let mut longer = frame.clone();
    longer.push(0);
    let error = Command::decode(&longer).unwrap_err();
    assert!(matches!(
        error,
        CommandError::NotOneFrame { len: 22, given: 23 }
    ));
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let mut command =
        Command::request(RequestCode::HEART_BEAT).with_field(&"n".repeat(40_000), "value");
    command.serialize = SerializeType::RocketMq;
    let mut out = b"before".to_vec();
    assert!(matches!(
        command.encode(&mut out),
        Err(FrameError::Unwritable { .. })
    ));
    command.serialize = SerializeType::Json;
    command.remark = Some("r".repeat(1 << 24));
    assert!(matches!(
        command.encode(&mut out),
        Err(FrameError::Unwritable { .. })
    ));
    assert_eq!(out, b"before");
}

#[test]
fn answers_come_in_the_requests_serialize_type() {
    let response = SendMessageResponseHeader {
        msg_id: "7F0000010000277600000000000000AB",
        queue_id: 3,
        queue_offset: 42,
        transaction_id: Some("KEY"),
        ..Default::default()
    };
    for serialize in [SerializeType::Json, SerializeType::RocketMq] {
        let mut request = Command::request(RequestCode::SEND_MESSAGE).with_opaque(77);
        request.serialize = serialize;
        let mut frame = Vec::new();
        request.encode(&mut frame).unwrap();
        let mut scratch = Scratch::default();
        let view = CommandView::parse(&frame, &mut scratch).unwrap();
        let mut out = Vec::new();
        let mut writer = HeaderWriter::response(&mut out, &view, ResponseCode::SUCCESS, None);
        writer.header(&response);
        writer.finish(0).unwrap();
        let answer = Command::decode(&out).unwrap();
        assert!(answer.is_response());
        assert_eq!(
            (answer.opaque, answer.version, answer.serialize),
            (77, VERSION, serialize)
        );
        assert_eq!(
            answer.header::<SendMessageResponseHeader<'_>>().unwrap(),
            response
        );
    }
}

/// Fields as a client could send them: unique names, and values that are not empty, because the
/// binary form cannot tell an empty value from none.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let unique = proptest::collection::btree_map(".{1,12}", ".{1,40}", 0..12);
    unique.prop_map(|pairs| pairs.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn commands_read_back(
        code in 0..30_000i32,
        opaque in any::<i32>(),
        binary in any::<bool>(),
        remark in proptest::option::of(".{1,30}"),
        pairs in fields(),
        body in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut command = Command::request(RequestCode(code)).with_opaque(opaque).with_body(body);
        // Those codes are taken for truncated ones.
        prop_assume!(!(3_440..3_550).contains(&code));
        command.remark = remark;
        command.serialize = if binary { SerializeType::RocketMq } else { SerializeType::Json };
        for (name, value) in &pairs {
            command = command.with_field(name, value.as_str());
        }
        let mut frame = Vec::new();
        command.encode(&mut frame).unwrap();
        prop_assert_eq!(Command::decode(&frame).unwrap(), command);
    }

    #[test]
    fn any_header_bytes_are_a_command_or_an_error(
        kind in 0..2u8,
        header in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Command::decode(&frame(kind, &header, b""));
    }

    #[test]
    fn any_damage_to_a_header_is_a_command_or_an_error(
        kind in 0..2u8,
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut command = Command::request(RequestCode::PULL_MESSAGE)
            .with_header(&PullMessageResponseHeader::default())
            .with_field("p\u{1}\u{e9}", "v\"\\\u{2}");
        command.serialize = SerializeType::from_byte(kind).unwrap();
        let mut bytes = Vec::new();
        command.encode(&mut bytes).unwrap();
        let mut header = bytes[8..].to_vec();
        let position = position.index(header.len());
        header[position] = byte;
        header.truncate(cut.index(header.len() * 4).max(1));
        let _ = Command::decode(&frame(kind, &header, b""));
    }
}

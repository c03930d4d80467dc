//! Bytes that are no frames, headers that are no headers, fields that are missing or of another
//! type: an answer or a closed connection, never a panic, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;

use mmap_core::Random;
use remoting::{Command, RequestCode, SerializeType};

use crate::support::{PATIENCE, Served, connect, pull, send, until};

/// Sends bytes and reads until the broker closes; what it said.
fn closed_after(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // The broker may close before it has read all of it.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut said = Vec::new();
    if let Err(error) = socket.read_to_end(&mut said) {
        let kind = error.kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{error}");
    }
    said
}

/// A frame whose four length bytes, header length and bytes are as given.
fn frame(len: u32, kind: u8, header_len: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend((u32::from(kind) << 24 | header_len).to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

/// A frame that tells the truth about a header that need not be one.
fn header_frame(header: &[u8]) -> Vec<u8> {
    frame(header.len() as u32 + 4, 0, header.len() as u32, header)
}

#[test]
fn what_is_no_frame_closes_its_own_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Served::start(dir.path(), "");
    let mut bystander = connect(&broker.address);
    assert_eq!(send(&mut bystander, "Calm", 0, b"before"), Ok(0));
    let nested = |open: &str, close: &str| {
        let deep = 200_000;
        let bomb = format!("{}{}", open.repeat(deep), close.repeat(deep));
        header_frame(format!(r#"{{"code":10,"opaque":1,"extFields":{bomb}}}"#).as_bytes())
    };
    let mut bad = vec![
        frame(u32::MAX, 0, 0, b""),
        frame(i32::MAX as u32, 0, 0, b"x"),
        frame(1 << 31, 0, 0, b"x"),
        frame(0, 0, 0, b""),
        frame(3, 0, 0, b""),
        frame(20, 0, 17, &[b' '; 16]),
        frame(20, 0, 0xFF_FFFF, &[b' '; 16]),
        frame(20, 9, 16, &[b' '; 16]),
        frame(20, 1, 16, &[0xFF; 16]),
        header_frame(b"not JSON"),
        header_frame(b"[]"),
        header_frame(b"{\"code\":\"ten\"}"),
        header_frame(b"{\"code\":1e999}"),
        header_frame(b"\xFF\xFE\x00"),
        header_frame(b""),
        nested("[", "]"),
        nested("{\"a\":", "}"),
        nested("[", ""),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    ];
    let mut random = Random::new(0x5EED);
    for len in (1..200).step_by(7) {
        let mut bytes = random.bytes(len);
        // Half of them as the inside of a frame that is one.
        if len % 2 == 0 {
            bytes = header_frame(&bytes);
        }
        bad.push(bytes);
    }
    for bytes in &bad {
        closed_after(&broker.address, bytes);
        closed_after(&broker.name_server, bytes);
    }
    assert_eq!(send(&mut bystander, "Calm", 0, b"after"), Ok(1));
    broker.assert_well();
}

#[test]
fn each_request_survives_fields_that_are_missing_or_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Served::start(dir.path(), "");
    let mut bystander = connect(&broker.address);
    assert_eq!(send(&mut bystander, "Calm", 0, b"before"), Ok(0));
    let bodies: [&[u8]; 6] = [
        b"",
        b"{",
        b"[[[[[[[[",
        b"{\"clientID\":7,\"consumerDataSet\":{}}",
        b"\xFF\x00\xFF\x00\x80",
        b"null",
    ];
    for address in [&broker.address, &broker.name_server] {
        for &code in RequestCode::ALL {
            for serialize in [SerializeType::Json, SerializeType::RocketMq] {
                for (wrongness, body) in bodies.iter().enumerate() {
                    let mut request = spoiled(code, wrongness).with_body(body.to_vec());
                    request.serialize = serialize;
                    let mut bytes = Vec::new();
                    request.with_opaque(1).encode(&mut bytes).unwrap();
                    let said = closed_after(address, &bytes);
                    assert!(!said.is_empty(), "{code} #{wrongness} had no answer");
                }
            }
        }
    }
    assert_eq!(pull(&mut bystander, "Calm", 0, 0).messages.len(), 1);
    broker.assert_well();
}

/// A request whose every known field is wrong in one of several ways.
fn spoiled(code: RequestCode, wrongness: usize) -> Command {
    let values = [
        "",
        "x",
        "-1",
        "9223372036854775807",
        "-2147483648",
        "\u{1}../..\u{2}",
    ];
    let names = [
        "topic",
        "queueId",
        "queueOffset",
        "offset",
        "consumerGroup",
        "producerGroup",
        "group",
        "maxMsgNums",
        "sysFlag",
        "commitOffset",
        "suspendTimeoutMillis",
        "subVersion",
        "timestamp",
        "key",
        "maxNum",
        "beginTimestamp",
        "endTimestamp",
        "delayLevel",
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "g",
        "h",
        "i",
        "j",
        "k",
        "l",
        "m",
        "clientID",
        "defaultTopic",
        "readQueueNums",
        "writeQueueNums",
        "perm",
        "topicFilterType",
        "order",
        "brokerName",
        "brokerAddr",
        "clusterName",
        "haServerAddr",
        "brokerId",
        "namespace",
        "groupName",
        "bornTimestamp",
        "flag",
        "properties",
        "defaultTopicQueueNums",
        "isForce",
        "consumeQueueId",
    ];
    let mut request = Command::request(code);
    if wrongness == 0 {
        return request; // no field at all
    }
    for name in names {
        request = request.with_field(name, values[wrongness % values.len()]);
    }
    request
}

#[test]
fn half_frames_and_one_way_floods_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Served::start(dir.path(), "");
    let before = broker.memory();
    // Each claims 16 MiB less a little, and sends ten bytes of it.
    let halves: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut socket = TcpStream::connect(&broker.address).unwrap();
            let half = frame(16 * 1024 * 1024 - 4, 0, 100, b"{}");
            socket.write_all(&half).unwrap();
            socket
        })
        .collect();
    let mut flood = TcpStream::connect(&broker.address).unwrap();
    let mut bytes = Vec::new();
    for code in [9_999, 11, 14] {
        let request = Command::oneway(RequestCode(code));
        request.with_opaque(1).encode(&mut bytes).unwrap();
    }
    for _ in 0..20_000 {
        flood.write_all(&bytes).unwrap();
    }
    let mut bystander = connect(&broker.address);
    assert_eq!(send(&mut bystander, "Calm", 0, b"x"), Ok(0));
    until("memory is bounded", || {
        (broker.memory() < before + 64 * 1024 * 1024).then_some(())
    });
    assert!(broker.log().lines().count() < 100, "one line for each kind");
    drop((halves, flood));
    broker.assert_well();
}

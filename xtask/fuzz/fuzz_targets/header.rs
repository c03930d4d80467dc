//! Any bytes as a header, the first one choosing its form: nothing panics, what reads can be
//! written again and reads the same, and what reads as standard JSON is what another parser reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remoting::header::{
    CreateTopicRequestHeader, GetMaxOffsetRequestHeader, PullMessageRequestHeader,
    RegisterBrokerRequestHeader, SendMessageRequestHeader,
};
use remoting::{Command, CommandView, Scratch, SerializeType};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, header)) = bytes.split_first() else {
        return;
    };
    let frame = frame(kind % 2, header);
    let mut scratch = Scratch::default();
    let Ok(view) = CommandView::parse(&frame, &mut scratch) else {
        return;
    };
    let _ = SendMessageRequestHeader::from_view(&view);
    let _ = view.header::<PullMessageRequestHeader<'_>>();
    let _ = view.header::<GetMaxOffsetRequestHeader<'_>>();
    let _ = view.header::<CreateTopicRequestHeader<'_>>();
    let _ = view.header::<RegisterBrokerRequestHeader<'_>>();
    for (name, _) in view.fields() {
        assert!(view.field(name).is_some());
    }
    let command = view.to_command();
    write_again(&command);
    if view.serialize() == SerializeType::Json {
        compare(header, &command);
    }
});

fn frame(kind: u8, header: &[u8]) -> Vec<u8> {
    let header_len = header.len() as u32;
    let mut frame = (header_len + 4).to_be_bytes().to_vec();
    frame.extend((u32::from(kind) << 24 | header_len).to_be_bytes());
    frame.extend(header);
    frame
}

fn write_again(command: &Command) {
    let mut frame = Vec::new();
    command
        .encode(&mut frame)
        .expect("what was read can be written");
    assert_eq!(
        &Command::decode(&frame).expect("what was written can be read"),
        command
    );
}

/// Where serde_json reads the header as well, both must mean the same.
fn compare(header: &[u8], command: &Command) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(header) else {
        return;
    };
    if let Some(code) = value.get("code").and_then(serde_json::Value::as_i64) {
        assert_eq!(code, i64::from(command.code));
    }
    let Some(fields) = value
        .get("extFields")
        .and_then(serde_json::Value::as_object)
    else {
        return;
    };
    for (name, value) in fields {
        if let Some(text) = value.as_str() {
            assert_eq!(command.fields.find(name), Some(text), "{name}");
        }
    }
}

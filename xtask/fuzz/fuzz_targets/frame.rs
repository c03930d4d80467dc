//! Any bytes as a stream of frames, and their bodies as the bodies of every kind: nothing panics,
//! and no step claims more than there is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remoting::body::{ConsumeStats, HeartbeatData, LockBatchRequestBody, RegisterBrokerBody};
use remoting::{CommandView, FrameStep, Scratch, json, next_frame};

const LIMIT: usize = 4_096;

fuzz_target!(|stream: &[u8]| {
    let mut rest = stream;
    let mut scratch = Scratch::default();
    loop {
        match next_frame(rest, LIMIT) {
            Err(_) => return,
            Ok(FrameStep::NeedMore(missing)) => {
                assert!(missing > 0 && rest.len() + missing <= LIMIT.max(8));
                return;
            }
            Ok(FrameStep::Frame(frame)) => {
                assert!(frame.len <= LIMIT && frame.body_position() <= frame.len);
                let (whole, behind) = rest.split_at(frame.len);
                if let Ok(view) = CommandView::parse(whole, &mut scratch) {
                    assert_eq!(view.body(), &whole[frame.body_position()..]);
                }
                read_body(&whole[frame.body_position()..]);
                rest = behind;
            }
        }
    }
});

fn read_body(body: &[u8]) {
    if let Ok(heartbeat) = json::decode::<HeartbeatData>(body) {
        let written = json::encode(&heartbeat).expect("what was read can be written");
        assert_eq!(json::decode::<HeartbeatData>(&written), Ok(heartbeat));
    }
    if let Ok(stats) = json::decode::<ConsumeStats>(body) {
        let written = json::encode(&stats).expect("what was read can be written");
        let _ = json::decode::<ConsumeStats>(&written).expect("what was written can be read");
    }
    let _ = json::decode::<LockBatchRequestBody>(body);
    let _ = json::decode::<RegisterBrokerBody>(body);
    let _ = RegisterBrokerBody::decompress(body);
}

//! Any bytes as a client's batch: nothing panics, and what reads is written again byte for byte
//! but for magic and CRC, which nobody reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::{BatchView, Limits, Message, PreparedRecord, SysFlag, encode_batch_message};

fuzz_target!(|bytes: &[u8]| {
    let batch = BatchView::new(bytes);
    let Ok(messages) = batch.iter().collect::<Result<Vec<_>, _>>() else {
        assert!(batch.count().is_err());
        return;
    };
    assert_eq!(batch.count(), Ok(messages.len()));
    let outer = Message {
        topic: "topic",
        queue_id: 0,
        flag: 0,
        sys_flag: SysFlag::default(),
        born_timestamp_ms: 0,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_host: ([127, 0, 0, 1], 2).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: bytes,
        properties: b"",
    };
    let mut written = Vec::new();
    for message in &messages {
        encode_batch_message(message, &mut written).expect("what was read can be written");
        let _ = PreparedRecord::of_batch_message(&outer, message, &Limits::default());
    }
    assert_eq!(written.len(), bytes.len());
    let again: Result<Vec<_>, _> = BatchView::new(&written).iter().collect();
    assert_eq!(again.as_ref(), Ok(&messages));
});

//! Any bytes as a record: nothing panics, and a record that reads can be written again so that
//! it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::{Limits, Message, Parsed, PreparedRecord, RecordView, Stamp};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Parsed::Record(view)) = RecordView::parse(bytes) else {
        return;
    };
    assert!(view.total_size() <= bytes.len());
    let _ = view.verify_body_crc();
    let _ = view.verify_crc_property();
    let fields = view.dispatch_fields();
    let _ = fields.tags_code_of(&view, &[1_000, 5_000]);
    let _ = fields.index_keys().count();
    assert_eq!(view.message_id().text().parse(), Ok(view.message_id()));
    if let Some(batch) = view.inner_batch() {
        let _ = batch.count();
    }
    write_again(&view);
});

fn write_again(view: &RecordView<'_>) {
    let message = Message {
        topic: view.topic(),
        queue_id: view.queue_id(),
        flag: view.flag(),
        sys_flag: view.sys_flag(),
        born_timestamp_ms: view.born_timestamp_ms(),
        born_host: view.born_host(),
        store_host: view.store_host(),
        reconsume_times: view.reconsume_times(),
        prepared_transaction_offset: view.prepared_transaction_offset(),
        body: view.body(),
        properties: view.properties().bytes(),
    };
    // Refused are topics that are empty or too long and properties that are not UTF-8.
    let Ok(mut record) = PreparedRecord::new(&message, &Limits::default()) else {
        return;
    };
    record.stamp(Stamp {
        queue_offset: view.queue_offset(),
        physical_offset: view.physical_offset(),
        store_timestamp_ms: view.store_timestamp_ms(),
    });
    let again_bytes = record.parts().concat();
    let again = match RecordView::parse(&again_bytes) {
        Ok(Parsed::Record(again)) => again,
        other => panic!("{other:?}"),
    };
    assert_eq!(again.topic(), view.topic());
    assert_eq!(again.body(), view.body());
    assert_eq!(again.properties(), view.properties());
    assert_eq!(again.dispatch_fields(), view.dispatch_fields());
    assert_eq!(again.verify_body_crc(), Ok(()));
}

//! The commit logs that RocketMQ 5.3.3 wrote: read as Java reads them, and written again byte for
//! byte. The data is described in the store's tests/golden/PROVENANCE.md.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;

use flate2::read::GzDecoder;
use message::layout::Version;
use message::{Limits, Message, Parsed, PreparedRecord, RecordError, RecordView, Stamp};
use serde_json::Value;

/// One set: its commit-log files by name, and for each record what a reader in Java found.
struct Golden {
    segments: BTreeMap<String, Vec<u8>>,
    lines: Vec<Value>,
}

const CLEAN: &[u8] = include_bytes!("../../store/tests/golden/clean.tar.gz");
const SPECIAL: &[u8] = include_bytes!("../../store/tests/golden/special.tar.gz");
const KILLED: &[u8] = include_bytes!("../../store/tests/golden/killed.tar.gz");

impl Golden {
    fn unpack(archive: &[u8]) -> Self {
        let mut golden = Self {
            segments: BTreeMap::new(),
            lines: Vec::new(),
        };
        let mut archive = tar::Archive::new(GzDecoder::new(archive));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            if let Some((_, name)) = path.split_once("/store/commitlog/") {
                entry.read_to_end(&mut bytes).unwrap();
                golden.segments.insert(name.to_owned(), bytes);
            } else if path.ends_with("/records.jsonl") {
                entry.read_to_end(&mut bytes).unwrap();
                let lines = std::str::from_utf8(&bytes).unwrap().lines();
                golden.lines = lines
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
            }
        }
        golden.segments.retain(|_, bytes| !bytes.is_empty());
        golden
    }

    /// Walks the log from its first byte to its end; each record with its line.
    fn each(&self, mut check: impl FnMut(RecordView<'_>, &Value)) {
        let mut lines = self.lines.iter();
        for (name, segment) in &self.segments {
            let mut rest = &segment[..];
            while !rest.is_empty() {
                match RecordView::parse(rest) {
                    Ok(Parsed::Record(view)) => {
                        check(view, lines.next().unwrap());
                        rest = &rest[view.total_size()..];
                    }
                    Ok(Parsed::Blank { size }) => {
                        assert_eq!(size as usize, rest.len(), "{name} ends with its padding");
                        break;
                    }
                    Err(RecordError::Unwritten) => break,
                    Err(error) => panic!("{name}, {} bytes from its end: {error}", rest.len()),
                }
            }
        }
        assert_eq!(lines.count(), 0, "records that were not found");
    }
}

/// Several checks in one test, because unpacking a set takes longer than checking it.
fn check_set(archive: &[u8], record_count: usize) -> Golden {
    let golden = Golden::unpack(archive);
    assert_eq!(golden.lines.len(), record_count);
    golden.each(|view, line| {
        check_fields(view, line);
        check_encoding(view, line);
    });
    golden
}

#[test]
fn clean_set() {
    let golden = check_set(CLEAN, 631);
    assert!(doubled_unique_keys(&golden) > 0, "the set has batches");
}

#[test]
fn killed_set() {
    check_set(KILLED, 2995);
}

#[test]
fn special_set() {
    let golden = check_set(SPECIAL, 65);
    assert!(inner_batches(&golden) > 0, "the set has inner batches");
}

/// Checks that inner batches hold what their properties say; how many there are.
fn inner_batches(golden: &Golden) -> usize {
    let mut batches = 0;
    golden.each(|view, line| {
        let Some(batch) = view.inner_batch() else {
            return;
        };
        batches += 1;
        let fields = view.dispatch_fields();
        let count = batch.count().unwrap().to_string();
        assert_eq!(fields.inner_count, Some(count.as_str()), "{line}");
        let base = view.queue_offset().to_string();
        assert_eq!(fields.inner_base, Some(base.as_str()), "{line}");
    });
    batches
}

/// A batch of RocketMQ 5.3.3 holds UNIQ_KEY twice, its messages' own and the batch's: checks that
/// the last counts; how many such records there are.
fn doubled_unique_keys(golden: &Golden) -> usize {
    let mut doubled = 0;
    golden.each(|view, line| {
        let keys: Vec<_> = view
            .properties()
            .iter()
            .filter(|(name, _)| *name == b"UNIQ_KEY")
            .collect();
        if let [_, .., (_, last)] = keys[..] {
            doubled += 1;
            let found = view.dispatch_fields().unique_key.map(str::as_bytes);
            assert_eq!(found, Some(last), "{line}");
        }
    });
    doubled
}

fn host_hex(host: SocketAddr) -> String {
    let SocketAddr::V4(host) = host else {
        panic!("{host} is not IPv4")
    };
    let port = i32::from(host.port()).to_be_bytes();
    host.ip()
        .octets()
        .iter()
        .chain(&port)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn check_fields(view: RecordView<'_>, line: &Value) {
    let number = |name: &str| line[name].as_i64().unwrap();
    let version = if view.version() == Version::V1 {
        "V1"
    } else {
        "V2"
    };
    assert_eq!(version, line["magic"], "{line}");
    assert_eq!(view.topic(), line["topic"], "{line}");
    for (found, name) in [
        (view.physical_offset(), "offset"),
        (view.total_size() as i64, "size"),
        (view.body_crc().into(), "bodyCRC"),
        (view.queue_id().into(), "queueId"),
        (view.flag().into(), "flag"),
        (view.queue_offset(), "queueOffset"),
        (view.sys_flag().0.into(), "sysFlag"),
        (view.born_timestamp_ms(), "bornTimestamp"),
        (view.store_timestamp_ms(), "storeTimestamp"),
        (view.reconsume_times().into(), "reconsumeTimes"),
        (
            view.prepared_transaction_offset(),
            "preparedTransactionOffset",
        ),
        (view.body().len() as i64, "bodyLen"),
        (view.properties().bytes().len() as i64, "propsLen"),
    ] {
        assert_eq!(found, number(name), "{name} in {line}");
    }
    assert_eq!(host_hex(view.born_host()), line["bornHost"], "{line}");
    assert_eq!(host_hex(view.store_host()), line["storeHost"], "{line}");
    let properties = std::str::from_utf8(view.properties().bytes()).unwrap();
    assert_eq!(properties, line["properties"], "{line}");
    assert_eq!(view.verify_body_crc(), Ok(()), "{line}");
}

fn check_encoding(view: RecordView<'_>, line: &Value) {
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
    let mut record = PreparedRecord::new(&message, &Limits::default()).unwrap();
    record.stamp(Stamp {
        queue_offset: view.queue_offset(),
        physical_offset: view.physical_offset(),
        store_timestamp_ms: view.store_timestamp_ms(),
    });
    assert_eq!(record.parts().concat(), view.bytes(), "{line}");
}

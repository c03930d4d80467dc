//! Files of the log made and warmed up before they are needed, under the keys that say so.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{InProcess, Served, connect, pull, runtime_info, send, until};

/// Small files, whose pages are prepared in every way that there is.
const SETTINGS: &str = "mappedFileSizeCommitLog=65536\nfoliomq.commitLogWarmUp=zeros\n\
                        foliomq.commitLogLock=tail\nfoliomq.commitLogAdvice=random\n";

/// First offsets of the log's files.
fn files(store: &Path) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(store.join("commitlog")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.parse().unwrap()).collect()
}

#[test]
fn files_are_ready_ahead_of_the_log_and_gone_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    for flush in ["ASYNC_FLUSH", "SYNC_FLUSH"] {
        let broker = InProcess::start(dir.path(), &format!("{SETTINGS}flushDiskType={flush}"));
        let mut connection = connect(&broker.address());
        for _ in 0..100 {
            send(&mut connection, "Prepared", 0, &[7; 1000]).unwrap();
        }
        let end = |connection: &mut _| -> u64 {
            runtime_info(connection)["commitLogMaxOffset"]
                .parse()
                .unwrap()
        };
        until("a file is ready", || {
            send(&mut connection, "Prepared", 0, &[7; 1000]).unwrap();
            let end = end(&mut connection);
            let ready = files(dir.path()).split_off(&end);
            assert!(ready.len() <= 2, "{ready:?} behind {end}");
            (!ready.is_empty()).then_some(())
        });
        let info = runtime_info(&mut connection);
        let number = |name: &str| -> u64 { info[name].parse().unwrap() };
        assert!(number("foliomq.mappedFiles") >= 2);
        assert!(number("foliomq.mappedBytes") >= 2 * 65_536);
        assert_eq!(info.get("foliomq.commitLogLockFailure"), None);
        let end = end(&mut connection);
        broker.stop();
        assert_eq!(files(dir.path()).split_off(&end), BTreeSet::new());
    }
}

#[test]
fn files_that_a_killed_broker_had_ready_are_no_part_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let java = "mappedFileSizeCommitLog=65536\nwarmMapedFileEnable=true\ndataReadAheadEnable=false";
    let broker = Served::start(dir.path(), java);
    let mut connection = connect(&broker.address);
    let mut sent = 0;
    until("a file is ready", || {
        send(&mut connection, "Killed", 0, &[7; 1000]).unwrap();
        sent += 1;
        let end: u64 = runtime_info(&mut connection)["commitLogMaxOffset"]
            .parse()
            .unwrap();
        files(dir.path())
            .last()
            .is_some_and(|last| *last >= end)
            .then_some(())
    });
    broker.kill();
    let broker = Served::start(dir.path(), java);
    let mut connection = connect(&broker.address);
    send(&mut connection, "Killed", 0, b"afterwards").unwrap();
    let last = pull(&mut connection, "Killed", 0, sent);
    assert_eq!(last.messages.len(), 1);
    assert_eq!(last.messages[0].1, b"afterwards");
}

//! Tables that cannot be read: the backup takes the place of the file; what neither has is made
//! again from the store, or, where that is not possible, the start is refused.

use std::path::Path;
use std::time::Duration;

use client::Connection;
use remoting::header::UpdateConsumerOffsetRequestHeader;
use remoting::{Command, RequestCode, ResponseCode, json};

use crate::support::{Served, configuration, connect, pull, pull_request, run_to_end, send, until};

const TABLES: [&str; 4] = [
    "topics.json",
    "subscriptionGroup.json",
    "consumerOffset.json",
    "delayOffset.json",
];

fn config_file(store: &Path, name: &str) -> std::path::PathBuf {
    store.join("config").join(name)
}

fn tear(store: &Path, name: &str) {
    let path = config_file(store, name);
    if let Ok(text) = std::fs::read(&path) {
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    } else {
        std::fs::write(&path, "{\"dataVersion\":{").unwrap();
    }
}

fn quarantined(store: &Path, name: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(store.join("foliomq/quarantine")) else {
        return 0;
    };
    entries
        .filter(|entry| {
            let found = entry.as_ref().unwrap().file_name();
            found.to_str().unwrap().starts_with(name)
        })
        .count()
}

fn commit(connection: &mut Connection, queue_id: i32, offset: i64) {
    let header = UpdateConsumerOffsetRequestHeader {
        consumer_group: "consumers",
        topic: "Kept",
        queue_id,
        commit_offset: offset,
    };
    let request = Command::request(RequestCode::UPDATE_CONSUMER_OFFSET).with_header(&header);
    let answer = connection.call(request).unwrap();
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
}

/// A broker that was killed, with every table saved twice, so that each has a backup.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), "flushConsumerOffsetInterval=10\n");
    let mut connection = connect(&broker.address);
    for queue_id in [0, 2] {
        send(&mut connection, "Kept", queue_id, b"a message").unwrap();
    }
    for (offset, name) in [(1, "consumerOffset.json"), (2, "consumerOffset.json.bak")] {
        pull(&mut connection, "Kept", 0, 0);
        commit(&mut connection, 0, offset);
        until("it is saved", || {
            config_file(dir.path(), name).exists().then_some(())
        });
    }
    broker.kill();
    dir
}

#[test]
fn torn_files_fall_back_to_their_backups() {
    let dir = filled();
    let torn: Vec<_> = TABLES
        .into_iter()
        .filter(|name| config_file(dir.path(), &format!("{name}.bak")).exists())
        .collect();
    assert!(torn.len() >= 2, "{torn:?}");
    for name in &torn {
        tear(dir.path(), name);
    }
    let mut broker = Served::start(dir.path(), "");
    for name in &torn {
        assert_eq!(quarantined(dir.path(), name), 1, "{name}");
        assert!(broker.log().contains(name), "{}", broker.log());
    }
    assert!(broker.log().contains("loaded the backup instead"));
    broker.assert_well();
}

#[test]
fn lost_topics_and_groups_are_made_again_from_the_store() {
    let dir = filled();
    for name in ["topics.json", "subscriptionGroup.json", "delayOffset.json"] {
        tear(dir.path(), name);
        tear(dir.path(), &format!("{name}.bak"));
    }
    let mut broker = Served::start(dir.path(), "autoCreateTopicEnable=false\n");
    let mut connection = connect(&broker.address);
    for (code, known) in [
        (
            RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG,
            "\"consumers\"",
        ),
        (RequestCode::GET_ALL_TOPIC_CONFIG, "\"Kept\""),
    ] {
        let answer = connection.call(Command::request(code)).unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains(known), "{text}");
    }
    for queue_id in [0, 2] {
        assert_eq!(pull(&mut connection, "Kept", queue_id, 0).messages.len(), 1);
        assert_eq!(send(&mut connection, "Kept", queue_id, b"more"), Ok(1));
    }
    let answer = connection
        .call(Command::request(RequestCode::GET_BROKER_RUNTIME_INFO))
        .unwrap();
    let table: remoting::body::KVTable = json::decode(&answer.body).unwrap();
    let lost = &table.table["trouble.topics.json.lost"];
    assert!(
        lost.contains("begun anew with 1 topics that have queues"),
        "{lost}"
    );
    assert!(
        table
            .table
            .contains_key("trouble.subscriptionGroup.json.lost")
    );
    assert_eq!(quarantined(dir.path(), "topics.json"), 2);
    assert!(
        broker.log().contains("topics.json.lost"),
        "{}",
        broker.log()
    );
    broker.assert_well();
}

#[test]
fn lost_consumer_offsets_are_not_begun_anew_unasked() {
    let dir = filled();
    for name in ["consumerOffset.json", "consumerOffset.json.bak"] {
        tear(dir.path(), name);
    }
    let conf = tempfile::tempdir().unwrap();
    let file = conf.path().join("broker.conf");
    std::fs::write(&file, configuration(dir.path(), "")).unwrap();
    let (ended, log) = run_to_end(&["serve", "-c", file.to_str().unwrap()]);
    assert_eq!(ended.code(), Some(1), "{log}");
    for word in [
        "consumerOffset.json",
        "restore one of them, or move both away",
    ] {
        assert!(log.contains(word), "{word:?} is not in: {log}");
    }
    // As it says.
    for name in ["consumerOffset.json", "consumerOffset.json.bak"] {
        std::fs::remove_file(config_file(dir.path(), name)).unwrap();
    }
    let mut broker = Served::start(dir.path(), "");
    let mut connection = connect(&broker.address);
    let request = pull_request("Kept", 0, 0, Some(Duration::from_millis(1)));
    assert_eq!(
        connection.call(request).unwrap().response_code(),
        ResponseCode::SUCCESS
    );
    broker.assert_well();
}

//! Old files go while the broker serves: on demand (329, 306, 316), and what a consumer hears that
//! asks for what is gone.

use std::path::Path;

use client::Connection;
use remoting::header::DeleteTopicRequestHeader;
use remoting::{Command, RequestCode, ResponseCode};

use crate::support::{Served, connect, pull, runtime_info, send, until};

/// Small files; the log may have two of them; a round of cleaning at once and often.
const SETTINGS: &str = "mappedFileSizeCommitLog=65536\nfoliomq.maxLogBytes=131072\n\
                        cleanResourceInterval=20\nflushIntervalCommitLog=10\n\
                        flushCommitLogThoroughInterval=20\n";

fn ask(connection: &mut Connection, code: RequestCode) {
    let answer = connection.call(Command::request(code)).unwrap();
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
}

fn min_offset(connection: &mut Connection) -> u64 {
    runtime_info(connection)["commitLogMinOffset"]
        .parse()
        .unwrap()
}

fn queue_dir(store: &Path, topic: &str) -> std::path::PathBuf {
    store.join("consumequeue").join(topic)
}

#[test]
fn files_are_removed_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Served::start(dir.path(), SETTINGS);
    let mut connection = connect(&broker.address);
    send(&mut connection, "Once", 0, b"the first message").unwrap();
    for _ in 0..400 {
        send(&mut connection, "Many", 1, &[7; 1000]).unwrap();
    }
    assert_eq!(min_offset(&mut connection), 0);
    ask(&mut connection, RequestCode::DELETE_EXPIRED_COMMITLOG);
    until("the log has two files", || {
        (min_offset(&mut connection) >= 5 * 65_536).then_some(())
    });

    // What is gone: the consumer is told where the queue begins now.
    let moved = until("the queue follows", || {
        let moved = pull(&mut connection, "Many", 1, 0);
        (moved.header.min_offset > 0).then_some(moved)
    });
    assert_eq!(moved.code, ResponseCode::PULL_OFFSET_MOVED);
    assert_eq!(moved.header.next_begin_offset, moved.header.min_offset);
    let found = pull(&mut connection, "Many", 1, moved.header.min_offset);
    assert_eq!(found.code, ResponseCode::SUCCESS);
    assert_eq!(found.messages[0].0, moved.header.min_offset);

    // A queue without messages keeps its numbers, until somebody asks otherwise.
    let gone = pull(&mut connection, "Once", 0, 0);
    assert_eq!(gone.code, ResponseCode::PULL_OFFSET_MOVED);
    assert_eq!((gone.header.min_offset, gone.header.max_offset), (1, 1));
    ask(&mut connection, RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE);
    assert!(!queue_dir(dir.path(), "Once").exists());
    assert!(queue_dir(dir.path(), "Many").exists());
    assert_eq!(send(&mut connection, "Once", 0, b"the second"), Ok(0));
    until("it can be read", || {
        let read = pull(&mut connection, "Once", 0, 0);
        (read.messages == [(0, b"the second".to_vec())]).then_some(())
    });

    let table = runtime_info(&mut connection);
    assert_eq!(table["storeWritable"], "true");
    let ratio: f64 = table["commitLogDiskRatio"].parse().unwrap();
    assert!((0.0..=1.0).contains(&ratio));
    let troubles: Vec<_> = table
        .keys()
        .filter(|key| key.starts_with("trouble."))
        .collect();
    assert_eq!(troubles, Vec::<&String>::new());
    broker.assert_well();
}

#[test]
fn queues_of_topics_that_are_no_more_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), "");
    let mut connection = connect(&broker.address);
    send(&mut connection, "Kept", 0, b"a message").unwrap();
    send(&mut connection, "Forgotten", 0, b"a message").unwrap();
    until("both have a queue", || {
        let found = pull(&mut connection, "Forgotten", 0, 0).messages.len();
        (found == 1).then_some(())
    });
    broker.kill();
    // Somebody has put another topics.json into its place.
    let path = dir.path().join("config/topics.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let other = text.replace("Forgotten", "Other");
    assert_ne!(other, text);
    std::fs::write(&path, other).unwrap();

    let mut broker = Served::start(dir.path(), "");
    let mut connection = connect(&broker.address);
    assert!(queue_dir(dir.path(), "Forgotten").exists());
    ask(&mut connection, RequestCode::CLEAN_UNUSED_TOPIC);
    assert!(!queue_dir(dir.path(), "Forgotten").exists());
    assert_eq!(pull(&mut connection, "Kept", 0, 0).messages.len(), 1);
    let header = DeleteTopicRequestHeader { topic: "Kept" };
    let delete = Command::request(RequestCode::DELETE_TOPIC_IN_BROKER).with_header(&header);
    assert_eq!(
        connection.call(delete).unwrap().response_code(),
        ResponseCode::SUCCESS
    );
    assert!(!queue_dir(dir.path(), "Kept").exists());
    assert_eq!(send(&mut connection, "Kept", 0, b"anew"), Ok(0));
    broker.assert_well();
}

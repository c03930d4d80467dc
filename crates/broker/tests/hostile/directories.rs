//! Store directories and settings that do not fit: an error that names the culprit, and nothing
//! changed on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::support::{InProcess, Served, configuration, connect, run_to_end, send};

/// Every file and directory below, with a hash of the content.
fn listing(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), Vec::new());
                dirs.push(path);
            } else {
                let hash = Sha256::digest(std::fs::read(&path).unwrap());
                found.insert(path, hash.to_vec());
            }
        }
    }
    found
}

/// A store with some messages, cleanly closed.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(dir.path(), "");
    let mut producer = connect(&broker.address());
    for number in 0..20u8 {
        send(&mut producer, "Kept", 0, &[number; 100]).unwrap();
    }
    broker.stop();
    dir
}

/// Does not start on `store`, says each of `words`, and leaves everything as it is.
fn refuses(store: &Path, extra: &str, words: &[&str]) {
    let conf = tempfile::tempdir().unwrap();
    let file = conf.path().join("broker.conf");
    std::fs::write(&file, configuration(store, extra)).unwrap();
    let before = listing(store);
    let (ended, log) = run_to_end(&["serve", "-c", file.to_str().unwrap()]);
    assert_eq!(ended.code(), Some(1), "{log}");
    for word in words {
        assert!(log.contains(word), "{word:?} is not in: {log}");
    }
    let after = listing(store);
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, hash)| after.get(*path) != Some(hash))
        .map(|(path, _)| path)
        .chain(after.keys().filter(|path| !before.contains_key(*path)))
        .collect();
    assert!(changed.is_empty(), "changed: {changed:?}\n{log}");
}

#[test]
fn another_segment_size_is_refused() {
    let dir = filled();
    let words = ["commitlog", "00000000000000000000"];
    refuses(dir.path(), "mappedFileSizeCommitLog=8388608", &words);
}

#[test]
fn a_foreign_file_in_the_log_is_refused() {
    let dir = filled();
    std::fs::write(dir.path().join("commitlog/notes.txt"), "mine").unwrap();
    refuses(dir.path(), "", &["commitlog", "notes.txt"]);
}

#[test]
fn a_foreign_file_in_a_queue_is_refused() {
    let dir = filled();
    std::fs::write(dir.path().join("consumequeue/Kept/0/notes.txt"), "mine").unwrap();
    refuses(dir.path(), "", &["consumequeue", "notes.txt"]);
}

#[test]
fn a_store_in_use_says_how_to_find_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Served::start(dir.path(), "");
    refuses(dir.path(), "", &["lock is locked by another", "fuser"]);
    holder.assert_well();
}

#[test]
fn a_bad_value_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["flushDiskType", "SOMETIMES", "ASYNC_FLUSH or SYNC_FLUSH"];
    refuses(dir.path(), "flushDiskType=SOMETIMES", &words);
}

#[test]
fn a_taken_port_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    refuses(
        dir.path(),
        &format!("listenPort={port}"),
        &["cannot listen", &port.to_string()],
    );
}

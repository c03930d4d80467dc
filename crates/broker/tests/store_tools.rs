//! `foliomq store ...` as a script meets it: what is printed, and how the process ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "damages files behind the store's back"
)]

#[path = "../../store/tests/golden/mod.rs"]
mod golden;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use golden::GoldenSet;
use mmap_core::{Io, OsIo};
use serde_json::Value;

/// What a run of the program came to.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    /// The lines of the output as JSON.
    #[track_caller]
    fn json(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
            })
            .collect()
    }
}

fn tool(arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_foliomq"))
        .arg("store")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended {
        code: output.status.code().expect("no signal"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A tool on a store, answering in JSON.
fn json_of(set: &GoldenSet, arguments: &[&str]) -> Ended {
    let store = set.store_dir();
    let place = ["--store", store.to_str().unwrap(), "--output", "json"];
    tool(&[arguments, &place].concat())
}

fn damage(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[position] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn verify_ends_with_what_it_found() {
    let set = GoldenSet::unpack("clean");
    let ended = json_of(&set, &["verify"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let [summary] = &ended.json()[..] else {
        panic!("{ended:?}")
    };
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["log"]["records"], 631);
    assert_eq!(summary["index"]["keys"], 1577);
    assert_eq!(summary["shape"]["maxHashSlotNum"], 1000);
    assert_eq!(summary["inUse"], false);

    damage(&set.store_dir().join("commitlog/00000000000001048576"), 70);
    damage(
        &set.store_dir()
            .join("consumequeue/GoldB/1/00000000000000000000"),
        27,
    );
    let ended = json_of(&set, &["verify"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let lines = ended.json();
    let queue = lines
        .iter()
        .find(|line| line["part"] == "queue" && line["severity"] == "error")
        .expect("the queue");
    assert_eq!(
        (&queue["topic"], &queue["queueId"]),
        (&"GoldB".into(), &1.into())
    );
    assert_eq!(queue["kind"], "entry_of_other_record");
    assert_eq!(queue["position"], 20);
    assert!(lines.last().unwrap()["totals"]["errors"].as_u64() >= Some(1));
}

#[test]
fn verify_says_what_is_wrong_in_words_too() {
    let set = GoldenSet::unpack("killed");
    let store = set.store_dir();
    let ended = tool(&["verify", "--store", store.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("info    not_closed"), "{}", ended.out);
    assert!(
        ended.out.contains("0 errors, 0 warnings, 6 infos"),
        "{}",
        ended.out
    );
    let ended = tool(&["verify", "--quiet", "--store", store.to_str().unwrap()]);
    assert_eq!(ended.out.lines().count(), 2, "{}", ended.out);
}

#[test]
fn tables_are_compared_with_the_queues() {
    let set = GoldenSet::unpack("clean");
    // Torn, with a backup; a group beyond the end of a queue; a topic of another kind.
    set.write("config/subscriptionGroup.json", b"{\"dataVersion\":{");
    set.write(
        "config/consumerOffset.json",
        b"{\"offsetTable\":{\"GoldA@g\":{0:999999}}}",
    );
    let topics = set.store_dir().join("config/topics.json");
    let text = std::fs::read_to_string(&topics).unwrap();
    let at = text.find("\"GoldB\":").unwrap();
    let changed = text[at..].replacen(
        "\"attributes\":{}",
        "\"attributes\":{\"queue.type\":\"BatchCQ\"}",
        1,
    );
    std::fs::write(&topics, format!("{}{changed}", &text[..at])).unwrap();
    let ended = json_of(&set, &["verify", "--quiet"]);
    assert_eq!(ended.code, 1);
    let found: Vec<(String, String)> = ended
        .json()
        .iter()
        .filter(|line| line["part"] == "config")
        .map(|line| (line["kind"].to_string(), line["severity"].to_string()))
        .collect();
    for expected in [
        ("config_unreadable", "warning"),
        ("offset_out_of_range", "warning"),
        ("queue_type", "error"),
    ] {
        let expected = (format!("{:?}", expected.0), format!("{:?}", expected.1));
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
}

#[test]
fn a_configuration_of_other_sizes_is_named() {
    let set = GoldenSet::unpack("clean");
    let own = set.broker_conf();
    let own = own.to_str().unwrap();
    assert_eq!(json_of(&set, &["verify", "-c", own]).code, 0);
    let text = std::fs::read_to_string(own).unwrap();
    let other = text.replace("maxIndexNum=4000", "maxIndexNum=5000");
    std::fs::write(own, other).unwrap();
    let ended = json_of(&set, &["verify", "-c", own]);
    assert_eq!(ended.code, 1);
    let detail = ended.json()[0]["detail"].to_string();
    assert!(
        detail.contains("maxIndexNum is 5000, the files have 4000"),
        "{detail}"
    );
}

#[test]
fn what_cannot_be_done_is_told_from_what_is_different() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    let ended = tool(&["verify", "--store", empty]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("no store"), "{}", ended.err);
    assert_eq!(
        dir.path().read_dir().unwrap().count(),
        0,
        "nothing is created"
    );
    for wrong in [
        &["verify", "--output", "xml"][..],
        &["frobnicate"],
        &["export", "--from", "yesterday"],
    ] {
        assert_eq!(tool(wrong).code, 64, "{wrong:?}");
    }
    assert_eq!(tool(&["--help"]).code, 0);

    // A store that is open is not built anew.
    let set = GoldenSet::unpack("clean");
    let lock = OsIo.lock(&set.store_dir().join("lock")).unwrap();
    let ended = json_of(&set, &["rebuild"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("is locked by"), "{}", ended.err);
    assert_eq!(json_of(&set, &["verify"]).code, 0);
    drop(lock);
}

#[test]
fn records_are_shown_without_opening_the_store() {
    let set = GoldenSet::unpack("special");
    for (place, record) in set.records().iter().enumerate().step_by(8) {
        let offset = record["offset"].to_string();
        let file = set.store_dir().join("commitlog/00000000000000000000");
        let at = format!("{}@{offset}", file.display());
        let shown = json_of(&set, &["inspect", &at]).json();
        assert_eq!(shown, json_of(&set, &["inspect", "record", &offset]).json());
        let found = &shown[0]["record"];
        for (field, name) in [
            ("topic", "topic"),
            ("queueId", "queueId"),
            ("queueOffset", "queueOffset"),
            ("storeTimestamp", "storeTimestamp"),
            ("sysFlag", "sysFlag"),
            ("bodyLen", "bodyLen"),
            ("bodyCRC", "bodyCrc"),
            ("size", "size"),
            ("crcOk", "bodyCrcOk"),
        ] {
            assert_eq!(record[field], found[name], "record {place}: {name}");
        }
    }
    let end = json_of(&set, &["inspect", "40000"]);
    assert_eq!((end.code, &end.json()[0]["what"]), (0, &"none".into()));
    assert_eq!(json_of(&set, &["inspect", "99999999"]).code, 2);
    assert_eq!(json_of(&set, &["inspect"]).code, 2);
}

#[test]
fn entries_slots_and_checkpoint_are_shown() {
    let set = GoldenSet::unpack("killed");
    let entry = json_of(
        &set,
        &["inspect", "queue", "GoldA", "1", "3", "--count", "2"],
    )
    .json();
    assert_eq!(entry.len(), 2);
    assert_eq!(entry[0]["position"], 60);
    assert_eq!(entry[0]["extension"]["tagsCode"], 2_598_920);
    let record = json_of(&set, &["inspect", &entry[1]["logOffset"].to_string()]).json();
    assert_eq!(record[0]["record"]["queueOffset"], 4);

    let files = json_of(&set, &["inspect", "index"]).json();
    assert_eq!(files.len(), 2);
    assert_eq!(files[0]["nextEntry"], 4000);
    let first = files[0]["path"].as_str().unwrap();
    let arguments = ["inspect", "index", "--file", first, "--entry", "17"];
    let entry = json_of(&set, &arguments).json();
    assert_eq!(entry[0]["entries"][0]["ordinal"], 17);
    let manifest = set.manifest();
    let query = &manifest["queryByKey"][0];
    let (topic, key) = (
        query["topic"].as_str().unwrap(),
        query["key"].as_str().unwrap(),
    );
    let found = json_of(&set, &["inspect", "index", "--topic", topic, "--key", key]).json();
    let entries: usize = found
        .iter()
        .map(|file| file["entries"].as_array().unwrap().len())
        .sum();
    assert!(entries >= query["hits"].as_array().unwrap().len());

    let checkpoint = json_of(&set, &["inspect", "checkpoint"]).json();
    assert!(checkpoint[0]["physicMsgTimestamp"].as_i64() > Some(0));
    let offsets = json_of(&set, &["inspect", "config", "consumerOffset.json"]).json();
    assert!(offsets[0]["offsetTable"].is_object());
    assert_eq!(json_of(&set, &["inspect", "config", "none.json"]).code, 2);
    let whole = json_of(&set, &["inspect", "store"]).json();
    assert!(whole[0]["state"].is_null());
    assert_eq!(whole[0]["closed"], false);
    assert_eq!(whole[0]["logFiles"].as_array().unwrap().len(), 12);

    let set = GoldenSet::unpack("special");
    let batch = json_of(&set, &["inspect", "queue", "GoldBcq", "0", "3"]).json();
    assert_eq!(
        (&batch[0]["kind"], &batch[0]["batchSize"]),
        (&"BatchCQ".into(), &5.into())
    );
}

#[test]
fn exported_messages_are_those_that_java_serves() {
    let set = GoldenSet::unpack("clean");
    let served = set.served();
    let ended = json_of(&set, &["export", "--topic", "GoldA"]);
    assert_eq!(ended.code, 0);
    let exported = ended.json();
    let of_topic: Vec<_> = served
        .iter()
        .filter(|one| one["topic"] == "GoldA")
        .collect();
    assert_eq!(exported.len(), of_topic.len());
    for java in of_topic {
        let ours = exported
            .iter()
            .find(|ours| ours["logOffset"] == java["commitLogOffset"])
            .expect("the message");
        for name in ["queueId", "queueOffset", "storeTimestamp", "properties"] {
            assert_eq!(ours[name], java[name], "{name}");
        }
        assert!(ours["body"].is_string() || ours["bodyBase64"].is_string());
    }
}

#[test]
fn compressed_bodies_are_inflated_if_asked_for() {
    let set = GoldenSet::unpack("clean");
    let is_compressed = |message: &&Value| message["sysFlag"].as_i64().unwrap() & 1 == 1;
    let sent = set.sent();
    let exported = json_of(&set, &["export", "--decompress"]).json();
    let mut count = 0;
    for message in exported.iter().filter(is_compressed) {
        let Some(sent) = sent
            .iter()
            .find(|sent| sent["commitLogOffset"] == message["logOffset"])
        else {
            continue;
        };
        assert_eq!(message["compressed"], false);
        let (text, base64) = (message["body"].as_str(), message["bodyBase64"].as_str());
        let len = text.map_or_else(|| base64.unwrap().len() / 4 * 3, str::len) as u64;
        let sent_len = sent["bodyLen"].as_u64().unwrap();
        // Base64 rounds up to threes.
        assert!(
            (sent_len..sent_len + 3).contains(&len),
            "{sent_len} and {len}"
        );
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn an_export_ends_when_nobody_reads_it_any_more() {
    let set = GoldenSet::unpack("killed");
    let mut child = Command::new(env!("CARGO_BIN_EXE_foliomq"))
        .args(["store", "export", "--store"])
        .arg(set.store_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begin = [0; 100];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut begin).unwrap();
    drop(out);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn a_rebuilt_store_has_no_differences() {
    let set = GoldenSet::unpack("special");
    set.remove("consumequeue/GoldLong");
    set.remove("batchconsumequeue");
    set.remove("index");
    assert_eq!(json_of(&set, &["verify"]).code, 1);
    let ended = json_of(&set, &["rebuild"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let report = &ended.json()[0];
    assert_eq!(
        (&report["records"], &report["keys"]),
        (&65.into(), &124.into())
    );
    let ended = json_of(&set, &["verify"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let store = set.store_dir();
    let place = ["--store", store.to_str().unwrap()];
    let ended = tool(&[&["rebuild", "--topic", "GoldLong"], &place[..]].concat());
    assert!(ended.out.contains("and indexed 0 keys"), "{ended:?}");
}

#[test]
fn a_plan_says_what_goes_and_why() {
    let set = GoldenSet::unpack("clean");
    let now = json_of(&set, &["plan-clean"]).json();
    assert_eq!(now[0]["log"].as_array().unwrap().len(), 7);
    // In four days, asked for by hand, all but the last are old enough.
    let later = (now[0]["at"].as_i64().unwrap() + 4 * 86_400_000).to_string();
    let plan = json_of(&set, &["plan-clean", "--manual", "--at", &later]);
    assert_eq!(plan.code, 0);
    let plan = &plan.json()[0];
    let removed: Vec<bool> = plan["log"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["removed"].as_bool().unwrap())
        .collect();
    assert_eq!(removed.last(), Some(&false));
    assert!(removed[0], "{plan}");
    assert!(plan["freedBytes"].as_u64() >= Some(1_048_576));
    assert_eq!(
        set.store_dir()
            .join("commitlog")
            .read_dir()
            .unwrap()
            .count(),
        7
    );
}

#[test]
fn every_kind_of_finding_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tools.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for kind in store::offline::FindingKind::ALL {
        let name = format!("`{}`", kind.name());
        assert!(
            docs.contains(&name),
            "docs/tools.md says nothing about {name}"
        );
    }
}

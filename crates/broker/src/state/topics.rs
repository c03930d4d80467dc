//! The topic table: `config/topics.json`, and which topics a broker owns from the start.
//!
//! RocketMQ 5.3.3 `TopicConfigManager`, `TopicValidator`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use message::names::topic as names;
use mmap_core::{Io, OsIo};
use remoting::body::{DataVersion, TopicConfig, TopicConfigSerializeWrapper};
use remoting::json;
use thiserror::Error;

use super::table::{Change, Record, Table};
use crate::config::Config;

/// Permission bits of a topic (`PermName`).
pub mod perm {
    /// Others may be created after this topic's pattern.
    pub const INHERIT: i32 = 1;
    /// May be written to.
    pub const WRITE: i32 = 2;
    /// May be read.
    pub const READ: i32 = 4;
    /// Readable and writable.
    pub const READ_WRITE: i32 = READ | WRITE;
}

/// The topic whose settings auto-created topics take.
pub const TEMPLATE: &str = "TBW102";
/// A table larger than this is not looked into for batch topics.
const TABLE_LEN_MAX: u64 = 256 << 20;
/// Longest topic name, in bytes; retry and dead-letter topics may be longer.
const NAME_LEN_MAX: usize = 127;
/// Longest name of a retry or dead-letter topic, in bytes.
const DERIVED_NAME_LEN_MAX: usize = 255;

/// The table.
pub type TopicTable = Table<TopicConfig>;

impl Record for TopicConfig {
    type File = TopicConfigSerializeWrapper;

    fn file(data_version: DataVersion, records: BTreeMap<String, Self>) -> Self::File {
        TopicConfigSerializeWrapper {
            data_version,
            topic_config_table: records,
        }
    }

    fn parts(file: Self::File) -> (DataVersion, BTreeMap<String, Self>) {
        (file.data_version, file.topic_config_table)
    }
}

/// The topics of a store that have batch consume queues (attribute `queue.type`), by the table as it
/// lies there. The store must know them before it dispatches anything; the table itself is loaded,
/// and what is wrong with it said, once the store is open.
#[must_use]
pub fn batch_topics(store_root: &Path) -> BTreeSet<String> {
    let read = |name: &str| -> Option<TopicConfigSerializeWrapper> {
        let path = store_root.join("config").join(name);
        let text = OsIo.read(&path, TABLE_LEN_MAX).ok()?;
        json::decode(&text).ok()
    };
    let table = read("topics.json").or_else(|| read("topics.json.bak"));
    let topics = table.unwrap_or_default().topic_config_table.into_iter();
    topics
        .filter(|(_, topic)| {
            let queue_type = topic.attributes.get("queue.type");
            queue_type.is_some_and(|value| value == "BatchCQ")
        })
        .map(|(name, _)| name)
        .collect()
}

/// A topic with as many queues to read as to write.
#[must_use]
pub fn topic(name: &str, queue_count: i32, perm: i32) -> TopicConfig {
    TopicConfig {
        topic_name: name.to_owned(),
        read_queue_nums: queue_count,
        write_queue_nums: queue_count,
        perm,
        ..TopicConfig::default()
    }
}

/// The topics that a broker creates at its first start (`TopicConfigManager.init`).
#[must_use]
pub fn system_topics(config: &Config) -> Vec<(String, TopicConfig)> {
    let cluster = &config.identity.cluster_name;
    let broker = &config.identity.broker_name;
    let inherit = |enabled| {
        if enabled {
            perm::INHERIT | perm::READ_WRITE
        } else {
            perm::INHERIT
        }
    };
    let levels = i32::try_from(config.store.delay_levels.len()).unwrap_or(i32::MAX);
    let mut topics = vec![
        topic("SELF_TEST_TOPIC", 1, perm::READ_WRITE),
        topic("BenchmarkTest", 1024, perm::READ_WRITE),
        topic(cluster, 16, inherit(config.topics.cluster_topic)),
        topic(broker, 1, inherit(config.topics.broker_topic)),
        topic("OFFSET_MOVED_EVENT", 1, perm::READ_WRITE),
        topic(names::SCHEDULE, levels, perm::READ_WRITE),
        topic(&format!("{cluster}_REPLY_TOPIC"), 1, perm::READ_WRITE),
        topic(
            &format!("rmq_sys_REVIVE_LOG_{cluster}"),
            8,
            perm::READ_WRITE,
        ),
        topic(
            &format!("rmq_sys_SYNC_BROKER_MEMBER_{broker}"),
            1,
            perm::INHERIT,
        ),
        topic(names::TRANSACTION_HALF, 1, perm::READ_WRITE),
        topic(names::TRANSACTION_OP_HALF, 1, perm::READ_WRITE),
    ];
    if config.topics.auto_create {
        let count = config.topics.default_queue_count;
        topics.push(topic(TEMPLATE, count, perm::INHERIT | perm::READ_WRITE));
    }
    if config.topics.trace_topic {
        topics.push(topic(&config.topics.trace_topic_name, 1, perm::READ_WRITE));
    }
    topics
        .into_iter()
        .map(|topic| (topic.topic_name.clone(), topic))
        .collect()
}

/// Whether a topic is the broker's own (`TopicValidator.isSystemTopic`).
#[must_use]
pub fn is_system(config: &Config, name: &str) -> bool {
    const OWN: [&str; 9] = [
        "SELF_TEST_TOPIC",
        "TBW102",
        "BenchmarkTest",
        "OFFSET_MOVED_EVENT",
        names::SCHEDULE,
        "RMQ_SYS_TRACE_TOPIC",
        names::TRANSACTION_HALF,
        names::TRANSACTION_OP_HALF,
        names::TRANSACTION_CHECK_MAX_TIME,
    ];
    let identity = &config.identity;
    OWN.contains(&name)
        || name.starts_with("rmq_sys_")
        || name == identity.cluster_name
        || name == identity.broker_name
        || name.strip_suffix("_REPLY_TOPIC") == Some(&identity.cluster_name)
}

/// Whether clients may not send to a topic (`TopicValidator.isNotAllowedSendTopic`).
#[must_use]
pub fn is_send_forbidden(name: &str) -> bool {
    const FORBIDDEN: [&str; 6] = [
        names::SCHEDULE,
        names::TRANSACTION_HALF,
        names::TRANSACTION_OP_HALF,
        names::TRANSACTION_CHECK_MAX_TIME,
        "SELF_TEST_TOPIC",
        "OFFSET_MOVED_EVENT",
    ];
    FORBIDDEN.contains(&name)
}

/// Why a name cannot be a topic's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing but white space.
    #[error("The specified topic is blank.")]
    Blank,
    /// A character that is not allowed.
    #[error(
        "The specified topic contains illegal characters, allowing only \
         ^[%|a-zA-Z0-9_-]+$"
    )]
    Characters,
    /// Too long.
    #[error("The specified topic is longer than topic max length {limit}.")]
    TooLong {
        /// Most bytes.
        limit: usize,
    },
}

/// Checks a topic's name (`TopicValidator.validateTopic`).
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank);
    }
    if !is_plain(name) {
        return Err(NameError::Characters);
    }
    let derived = name.starts_with(names::RETRY_PREFIX) || name.starts_with(names::DLQ_PREFIX);
    let limit = if derived {
        DERIVED_NAME_LEN_MAX
    } else {
        NAME_LEN_MAX
    };
    if name.len() > limit {
        Err(NameError::TooLong { limit })
    } else {
        Ok(())
    }
}

/// Whether a name of a topic or group has allowed characters only.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"%|_-".contains(&byte);
    name.bytes().all(allowed)
}

/// Why a topic was not created by sending to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCreated;

/// Creates a topic after the pattern of `template` because somebody sends to it
/// (`createTopicInSendMessageMethod`).
///
/// # Errors
/// There is no such template, or it is not one to inherit from.
pub fn auto_create(
    table: &TopicTable,
    config: &Config,
    name: &str,
    template: &str,
    queue_count: i32,
    sys_flag: i32,
) -> Result<(Arc<TopicConfig>, Change), NotCreated> {
    let pattern = table.find(template).ok_or(NotCreated)?;
    let disabled = template == TEMPLATE && !config.topics.auto_create;
    if disabled || pattern.perm & perm::INHERIT == 0 {
        return Err(NotCreated);
    }
    Ok(table.find_or_create(name, || TopicConfig {
        topic_filter_type: pattern.topic_filter_type,
        topic_sys_flag: sys_flag,
        ..topic(
            name,
            queue_count.min(pattern.write_queue_nums).max(0),
            pattern.perm & !perm::INHERIT,
        )
    }))
}

#[cfg(test)]
mod tests {
    use mmap_core::{Io, OsIo};

    use super::*;
    use crate::state::json_file::JsonFile;

    fn table(dir: &std::path::Path) -> TopicTable {
        TopicTable::load(JsonFile::new(
            OsIo,
            dir,
            "topics.json",
            dir,
            &Default::default(),
        ))
        .unwrap()
    }

    #[test]
    fn topics_are_created_after_their_template() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new("broker-a");
        let topics = table(dir.path());
        topics.add_missing(system_topics(&config));
        let (made, change) = auto_create(&topics, &config, "A", TEMPLATE, 4, 0).unwrap();
        assert_eq!(
            (made.write_queue_nums, made.perm, change),
            (4, 6, Change::Made)
        );
        let (made, _) = auto_create(&topics, &config, "B", TEMPLATE, 99, 0).unwrap();
        assert_eq!(made.read_queue_nums, 8);
        assert_eq!(
            auto_create(&topics, &config, "C", "A", 4, 0),
            Err(NotCreated)
        );
        assert_eq!(
            auto_create(&topics, &config, "C", "missing", 4, 0),
            Err(NotCreated)
        );
        config.topics.auto_create = false;
        assert_eq!(
            auto_create(&topics, &config, "C", TEMPLATE, 4, 0),
            Err(NotCreated)
        );
    }

    #[test]
    fn a_topic_is_found_when_its_file_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let topics = table(dir.path());
        let names: Vec<_> = (0..20).map(|number| format!("T{number}.")).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for name in &names {
                    topics.find_or_create(name, || topic(name, 4, 6));
                }
            });
            for name in &names {
                while topics.find(name).is_none() {
                    std::thread::yield_now();
                }
                let text = OsIo.read(&dir.path().join("topics.json"), 1 << 20).unwrap();
                let text = String::from_utf8(text).unwrap();
                assert!(text.contains(name.as_str()), "{name} would not survive");
            }
        });
    }

    #[test]
    fn the_file_is_java_s_and_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let topics = table(dir.path());
        topics.put("T1", topic("T1", 4, 6));
        let version = topics.version();
        assert_eq!((version.counter, version.state_version), (1, 0));
        let text = OsIo.read(&dir.path().join("topics.json"), 10_000).unwrap();
        let expected = format!(
            "{{\n\t\"dataVersion\":{{\n\t\t\"counter\":1,\n\t\t\"stateVersion\":0,\n\t\t\
             \"timestamp\":{}\n\t}},\n\t\"topicConfigTable\":{{\n\t\t\"T1\":{{\n\t\t\t\
             \"attributes\":{{}},\n\t\t\t\"order\":false,\n\t\t\t\"perm\":6,\n\t\t\t\
             \"readQueueNums\":4,\n\t\t\t\"topicFilterType\":\"SINGLE_TAG\",\n\t\t\t\
             \"topicName\":\"T1\",\n\t\t\t\"topicSysFlag\":0,\n\t\t\t\"writeQueueNums\":4\n\t\t}}\
             \n\t}}\n}}",
            version.timestamp
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        let again = table(dir.path());
        assert_eq!(again.snapshot(), topics.snapshot());
        assert_eq!(again.put("T1", topic("T1", 4, 6)), Change::None);
        assert_eq!(again.remove("T1"), Change::Made);
        assert_eq!(table(dir.path()).count(), 0);
    }

    #[test]
    fn names_are_checked_as_in_java() {
        for good in [
            "T1",
            "%RETRY%g|x",
            "a-b_C9",
            &format!("%DLQ%{}", "g".repeat(200)),
        ] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_name(" "), Err(NameError::Blank));
        assert_eq!(check_name("a b"), Err(NameError::Characters));
        assert_eq!(check_name("\u{e4}"), Err(NameError::Characters));
        assert_eq!(
            check_name(&"a".repeat(128)),
            Err(NameError::TooLong { limit: 127 })
        );
    }

    #[test]
    fn batch_topics_are_told_by_their_attribute() {
        let root = tempfile::tempdir().unwrap();
        assert!(batch_topics(root.path()).is_empty());
        let config = root.path().join("config");
        OsIo.create_dir_all(&config).unwrap();
        // Of the golden store `special`, shortened.
        let text = b"{\"topicConfigTable\":{\
            \"GoldBcq\":{\"attributes\":{\"queue.type\":\"BatchCQ\"},\"topicName\":\"GoldBcq\"},\
            \"GoldLmq\":{\"attributes\":{},\"topicName\":\"GoldLmq\"}}}";
        OsIo.replace(&config.join("topics.json.bak"), text, None)
            .unwrap();
        OsIo.replace(&config.join("topics.json"), b"{torn", None)
            .unwrap();
        let found: Vec<_> = batch_topics(root.path()).into_iter().collect();
        assert_eq!(found, ["GoldBcq"]);
    }
}

//! The JSON tables of a store against its queues.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use message::names::topic;
use mmap_core::Io;
use remoting::body::{
    ConsumerOffsetSerializeWrapper, DelayOffsetSerializeWrapper, SubscriptionGroupWrapper,
    TopicConfig, TopicConfigSerializeWrapper,
};
use remoting::json;
use serde::de::DeserializeOwned;
use store::StoreOptions;
use store::offline::{
    Finding, FindingKind, Part, QueueKind, QueuePlace, QueueSummary, Severity, Shape, StoreDirs,
    VerifyReport,
};

/// Longest table that is read, in bytes.
const LEN_MAX: u64 = 512 * 1024 * 1024;
/// Most memory that a table may take while it is read, in bytes.
const MEMORY_LEN_MAX: usize = 4 << 30;
/// A topic's attribute that says of which kind its queues are.
const QUEUE_TYPE: &str = "queue.type";

/// Compares the tables with what verify found of the queues.
pub(super) fn check<I: Io>(io: &I, options: &StoreOptions, report: &VerifyReport) -> Vec<Finding> {
    let mut check = Check {
        io,
        dir: StoreDirs::new(options).config,
        queues: report
            .queues
            .iter()
            .map(|queue| ((queue.topic.as_str(), queue.queue_id), queue))
            .collect(),
        findings: Vec::new(),
    };
    let topics: Option<TopicConfigSerializeWrapper> = check.load("topics.json");
    if let Some(topics) = &topics {
        check.topics(&topics.topic_config_table);
    }
    let _: Option<SubscriptionGroupWrapper> = check.load("subscriptionGroup.json");
    let offsets: Option<ConsumerOffsetSerializeWrapper> = check.load("consumerOffset.json");
    for (key, queues) in offsets.unwrap_or_default().offset_table {
        let (topic, group) = key.split_once('@').unwrap_or((&key, ""));
        for (queue_id, offset) in queues {
            let whose = format!("group {group}");
            check.offset("consumerOffset.json", topic, queue_id, offset, &whose);
        }
    }
    let delays: Option<DelayOffsetSerializeWrapper> = check.load("delayOffset.json");
    for (level, offset) in delays.unwrap_or_default().offset_table {
        let whose = format!("delay level {level}");
        check.offset(
            "delayOffset.json",
            topic::SCHEDULE,
            level - 1,
            offset,
            &whose,
        );
    }
    check.findings
}

/// Compares the sizes that a configuration says with those that the files have.
pub(super) fn sizes(path: &Path, options: &StoreOptions, shape: &Shape) -> Vec<Finding> {
    let index = options.index.as_ref();
    let pairs = [
        (
            "mappedFileSizeCommitLog",
            options.segment_len,
            shape.segment_len,
        ),
        (
            "mappedFileSizeConsumeQueue",
            // RocketMQ rounds it up to whole entries.
            options.queue_file_len.next_multiple_of(20),
            shape.queue_file_len,
        ),
        (
            "mappedFileSizeConsumeQueueExt",
            options.extension_file_len,
            shape.extension_file_len,
        ),
        (
            "maxHashSlotNum",
            index
                .map_or(shape.index_slot_count, |index| index.slot_count)
                .into(),
            shape.index_slot_count.into(),
        ),
        (
            "maxIndexNum",
            index
                .map_or(shape.index_entry_count_max, |index| index.entry_count_max)
                .into(),
            shape.index_entry_count_max.into(),
        ),
    ];
    let differ = pairs.into_iter().filter(|(_, says, is)| says != is);
    differ
        .map(|(name, says, is)| Finding {
            severity: Severity::Error,
            kind: FindingKind::FileLength,
            part: Part::Config,
            path: path.to_owned(),
            position: 0,
            len: 0,
            count: 1,
            log_offset: None,
            queue: None,
            detail: format!("{name} is {says}, the files have {is}: no broker starts so"),
        })
        .collect()
}

/// Topics that are to have batch queues, as far as the table can be read.
pub(super) fn batch_topics<I: Io>(io: &I, options: &StoreOptions) -> BTreeSet<String> {
    let mut check = Check {
        io,
        dir: StoreDirs::new(options).config,
        queues: HashMap::new(),
        findings: Vec::new(),
    };
    let topics: Option<TopicConfigSerializeWrapper> = check.load("topics.json");
    let topics = topics.unwrap_or_default().topic_config_table;
    let batch = topics.into_iter().filter(|(_, config)| is_batch(config));
    batch.map(|(name, _)| name).collect()
}

fn is_batch(config: &TopicConfig) -> bool {
    let kind = config.attributes.get(QUEUE_TYPE);
    kind.is_some_and(|kind| kind == QueueKind::Batch.name())
}

struct Check<'a, I: Io> {
    io: &'a I,
    dir: PathBuf,
    queues: HashMap<(&'a str, i32), &'a QueueSummary>,
    findings: Vec<Finding>,
}

impl<I: Io> Check<'_, I> {
    /// Reads a table, or its backup; `None` when there is none.
    fn load<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let path = self.dir.join(name);
        match self.read(&path) {
            Ok(table) if table.is_some() => table,
            Ok(_) => self.read(&self.dir.join(format!("{name}.bak"))).ok()?,
            Err((kind, reason)) => {
                let backup = self.read(&self.dir.join(format!("{name}.bak")));
                let (severity, what) = match &backup {
                    Ok(Some(_)) => (Severity::Warning, "the backup takes its place"),
                    _ => (
                        Severity::Error,
                        "and there is no backup that could take its place",
                    ),
                };
                self.add(severity, kind, &path, format!("{reason}; {what}"));
                backup.ok()?
            }
        }
    }

    /// What a file holds; `None` for one that is missing or empty, as for RocketMQ.
    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, (FindingKind, String)> {
        let unreadable = |error: mmap_core::IoError| (FindingKind::Unreadable, error.to_string());
        if self.io.metadata(path).map_err(unreadable)?.is_none() {
            return Ok(None);
        }
        let bytes = self.io.read(path, LEN_MAX).map_err(unreadable)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let limits = json::Limits {
            memory_len: MEMORY_LEN_MAX,
            ..json::Limits::default()
        };
        json::decode_within(&bytes, limits)
            .map(Some)
            .map_err(|error| (FindingKind::ConfigUnreadable, error.to_string()))
    }

    fn topics(&mut self, topics: &BTreeMap<String, TopicConfig>) {
        let path = self.dir.join("topics.json");
        let mut queues: Vec<&QueueSummary> = self.queues.values().copied().collect();
        queues.sort_by(|a, b| (&a.topic, a.queue_id).cmp(&(&b.topic, b.queue_id)));
        for queue in queues {
            let is_light = queue.topic.starts_with(topic::LMQ_PREFIX);
            match topics.get(&queue.topic) {
                Some(config) => self.topic(&path, queue, config),
                None if queue.has_files && !is_light => {
                    let detail = format!(
                        "topic {} has queue {} on disk and no entry here",
                        queue.topic, queue.queue_id
                    );
                    self.add(Severity::Info, FindingKind::TopicUnknown, &path, detail);
                }
                None => {}
            }
        }
    }

    fn topic(&mut self, path: &Path, queue: &QueueSummary, config: &TopicConfig) {
        let is_batch = is_batch(config);
        if !queue.has_files && queue.record_count > 0 {
            // A topic that was deleted and created again begins without queues.
            let detail = format!(
                "{} records of queue {} of topic {} are in the log, and the queue is not there",
                queue.record_count, queue.queue_id, queue.topic
            );
            self.add(Severity::Warning, FindingKind::QueueMissing, path, detail);
            self.place_last(queue, queue.min, queue.max - 1);
        } else if queue.has_files && is_batch != (queue.kind == QueueKind::Batch) {
            let detail = format!(
                "topic {} is to have {} queues and has a {}: RocketMQ does not start with it",
                queue.topic,
                if is_batch { "BatchCQ" } else { "SimpleCQ" },
                queue.kind.name()
            );
            self.add(Severity::Error, FindingKind::QueueType, path, detail);
            self.place_last(queue, queue.min, queue.max - 1);
        }
    }

    fn offset(&mut self, name: &str, topic: &str, queue_id: i32, offset: i64, whose: &str) {
        let path = self.dir.join(name);
        let Some(queue) = self.queues.get(&(topic, queue_id)).copied() else {
            if offset > 0 {
                let detail =
                    format!("{whose} is at {offset} of {topic}/{queue_id}, which is not there");
                self.add(Severity::Info, FindingKind::OffsetOutOfRange, &path, detail);
            }
            return;
        };
        if offset > queue.max || offset < 0 {
            let detail = format!(
                "{whose} is at {offset} of {topic}/{queue_id}, which ends at {}",
                queue.max
            );
            self.add(
                Severity::Warning,
                FindingKind::OffsetOutOfRange,
                &path,
                detail,
            );
            self.place_last(queue, offset, offset);
        } else if offset < queue.min {
            let detail = format!(
                "{whose} is at {offset} of {topic}/{queue_id}, which begins at {}",
                queue.min
            );
            self.add(Severity::Info, FindingKind::OffsetOutOfRange, &path, detail);
            self.place_last(queue, offset, offset);
        }
    }

    fn add(&mut self, severity: Severity, kind: FindingKind, path: &Path, detail: String) {
        self.findings.push(Finding {
            severity,
            kind,
            part: Part::Config,
            path: path.to_owned(),
            position: 0,
            len: 0,
            count: 1,
            log_offset: None,
            queue: None,
            detail,
        });
    }

    fn place_last(&mut self, queue: &QueueSummary, first: i64, last: i64) {
        if let Some(finding) = self.findings.last_mut() {
            finding.queue = Some(QueuePlace {
                topic: queue.topic.clone(),
                queue_id: queue.queue_id,
                first,
                last,
            });
        }
    }
}

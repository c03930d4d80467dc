//! A table of which neither the file nor its backup can be read: both are set aside, and what the
//! store knows of it takes their place, so that the broker starts unattended.
//!
//! Not for consumer offsets: no other place has them, and a group that begins anew skips messages
//! or gets them again without anybody being told. There the start is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use message::names::topic as names;
use mmap_core::OsIo;
use remoting::body::{SubscriptionGroupConfig, TopicConfig};
use store::MessageStore;
use store::health::Troubles;

use super::json_file::{JsonFile, StateError};
use super::{ConsumerOffsets, DelayOffsets, GroupTable, TopicTable, groups, topics};
use crate::config::GroupOptions;

/// The tables of a broker.
#[derive(Debug)]
pub struct Tables {
    /// `topics.json`.
    pub topics: TopicTable,
    /// `subscriptionGroup.json`.
    pub groups: GroupTable,
    /// `consumerOffset.json`.
    pub offsets: ConsumerOffsets,
    /// `delayOffset.json`.
    pub delays: DelayOffsets,
}

impl Tables {
    /// Loads the tables under `config/` in the store's directory.
    ///
    /// # Errors
    /// The consumer offsets are unreadable, and so is their backup; or the system refuses.
    pub fn load(
        store: &MessageStore,
        options: &GroupOptions,
        troubles: &Arc<Troubles>,
    ) -> Result<Self, StateError> {
        let root = &store.options().root;
        let (dir, quarantine) = (root.join("config"), root.join("foliomq").join("quarantine"));
        let file = |name| JsonFile::new(OsIo, &dir, name, &quarantine, troubles);
        let topics = load_or_rebuild(
            &file("topics.json"),
            (troubles, "topics.json.lost"),
            TopicTable::load,
            |table| {
                let found = topics_of_queues(store.topics(), store.batch_topics());
                let text = format!("{} topics that have queues", found.len());
                table.add_missing(found);
                text
            },
        )?;
        let step = options.offset_version_step;
        let offsets = ConsumerOffsets::load(file("consumerOffset.json"), step)?;
        let groups = load_or_rebuild(
            &file("subscriptionGroup.json"),
            (troubles, "subscriptionGroup.json.lost"),
            GroupTable::load,
            |table| {
                let found = groups_of_traces(offsets.all_groups(), &topics.names());
                let text = format!("{} groups that have offsets or retries", found.len());
                table.add_missing(found);
                text
            },
        )?;
        let step = options.delay_offset_version_step;
        let delays = load_or_rebuild(
            &file("delayOffset.json"),
            (troubles, "delayOffset.json.lost"),
            |file| DelayOffsets::load(file, step),
            |_| "all delayed messages that are kept: each is delivered again".to_owned(),
        )?;
        Ok(Self {
            topics,
            groups,
            offsets,
            delays,
        })
    }
}

/// Loads a table; when it is lost, begins it with what `rebuild` puts into it. The loss stays listed
/// in the troubles under a name until the broker is started again.
fn load_or_rebuild<T>(
    file: &JsonFile,
    (troubles, lost): (&Troubles, &'static str),
    load: impl Fn(JsonFile) -> Result<T, StateError>,
    rebuild: impl FnOnce(&T) -> String,
) -> Result<T, StateError> {
    let unreadable = match load(file.clone()) {
        Err(error @ StateError::Unreadable { .. }) => error,
        loaded => return loaded,
    };
    let moved: Vec<_> = file
        .set_aside()?
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let table = load(file.clone())?;
    let rebuilt = rebuild(&table);
    troubles.begin(lost, crate::clock::now_ms(), || {
        format!(
            "{unreadable}; both are kept as {}; begun anew with {rebuilt}",
            moved.join(" and ")
        )
    });
    Ok(table)
}

/// Topics by the queues that the store has of them, and one more than the highest queue id of each.
fn topics_of_queues(
    simple: BTreeMap<String, i32>,
    batch: BTreeMap<String, i32>,
) -> Vec<(String, TopicConfig)> {
    let topic = |(name, queue_count): (String, i32)| {
        let config = topics::topic(&name, queue_count, topics::perm::READ_WRITE);
        (name, config)
    };
    let batch_topic = |queues| {
        let (name, mut config) = topic(queues);
        // Without it a Java broker does not start on the directory.
        let kind = ("queue.type".to_owned(), "BatchCQ".to_owned());
        config.attributes.extend([kind]);
        (name, config)
    };
    let batch: Vec<_> = batch.into_iter().map(batch_topic).collect();
    simple.into_iter().map(topic).chain(batch).collect()
}

/// Groups that have offsets, or a topic for their retries.
fn groups_of_traces(
    with_offsets: impl IntoIterator<Item = String>,
    topics: &[String],
) -> Vec<(String, SubscriptionGroupConfig)> {
    let retried = topics
        .iter()
        .filter_map(|topic| topic.strip_prefix(names::RETRY_PREFIX))
        .map(str::to_owned);
    let known: BTreeSet<_> = with_offsets.into_iter().chain(retried).collect();
    known
        .into_iter()
        .filter(|name| groups::is_name(name))
        .map(|name| {
            let config = groups::group(&name);
            (name, config)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_made_again_by_the_kind_of_their_queues() {
        let queues = |name: &str, count| BTreeMap::from([(name.to_owned(), count)]);
        let found = topics_of_queues(queues("Simple", 3), queues("Batch", 2));
        let shown: Vec<_> = found
            .iter()
            .map(|(name, config)| {
                let kind = config.attributes.get("queue.type").map(String::as_str);
                (&**name, config.read_queue_nums, config.perm, kind)
            })
            .collect();
        assert_eq!(
            shown,
            [("Simple", 3, 6, None), ("Batch", 2, 6, Some("BatchCQ"))]
        );
    }

    #[test]
    fn groups_leave_traces_in_offsets_and_retry_topics() {
        let topics = ["%RETRY%one", "Plain", "%RETRY%bad name"].map(str::to_owned);
        let found = groups_of_traces(["two".to_owned(), "one".to_owned()], &topics);
        let names: Vec<_> = found.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["one", "two"]);
    }
}

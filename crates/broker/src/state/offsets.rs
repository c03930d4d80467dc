//! How far consumer groups have come: `config/consumerOffset.json`.
//!
//! RocketMQ 5.3.3 `ConsumerOffsetManager`. Only committed offsets are kept on disk; what was
//! pulled, and resets that a group has not taken yet, live in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use remoting::body::{ConsumerOffsetSerializeWrapper, DataVersion};
use remoting::json;

use super::json_file::{JsonFile, StateError};
use super::next_version;

/// Stands for "no offset".
const NONE: i64 = -1;
/// Between topic and group in the file's keys.
const SEPARATOR: char = '@';

/// The offsets of all groups. Commits take a shared lock and store an atomic.
#[derive(Debug)]
pub struct ConsumerOffsets {
    file: JsonFile,
    /// Held while the file is written: two at once would rename each other's temporary file, and
    /// the older content could come last.
    saving: Mutex<()>,
    groups: RwLock<Groups>,
    /// Counts commits; every `version_step` of them are one step of the version.
    commits: AtomicU64,
    version_step: u64,
    version: Mutex<Versioned>,
}

/// Group, topic, queue.
type Groups = HashMap<String, HashMap<String, HashMap<i32, Progress>>>;

#[derive(Debug)]
struct Versioned {
    version: DataVersion,
    /// Commits that the version has counted.
    counted: u64,
    /// Commits that the file holds.
    saved: u64,
}

/// A group's progress in one queue. The three are independent of each other.
#[derive(Debug)]
struct Progress {
    committed: AtomicI64,
    pulled: AtomicI64,
    reset: AtomicI64,
}

impl Default for Progress {
    fn default() -> Self {
        let none = || AtomicI64::new(NONE);
        Self {
            committed: none(),
            pulled: none(),
            reset: none(),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Committed,
    Pulled,
    Reset,
}

impl Progress {
    fn cell(&self, kind: Kind) -> &AtomicI64 {
        match kind {
            Kind::Committed => &self.committed,
            Kind::Pulled => &self.pulled,
            Kind::Reset => &self.reset,
        }
    }
}

impl ConsumerOffsets {
    /// Loads the offsets from their file.
    ///
    /// # Errors
    /// The file is unreadable, and so is its backup.
    pub fn load(file: JsonFile, version_step: u64) -> Result<Self, StateError> {
        let loaded: ConsumerOffsetSerializeWrapper = file.load_json()?.unwrap_or_default();
        let mut groups = Groups::new();
        for (key, queues) in loaded.offset_table {
            let Some((topic, group)) = key.split_once(SEPARATOR) else {
                tracing::warn!(%key, "an entry of consumerOffset.json is not topic@group");
                continue;
            };
            let of_group = groups.entry(group.to_owned()).or_default();
            let of_topic = of_group.entry(topic.to_owned()).or_default();
            for (queue_id, offset) in queues {
                let progress = of_topic.entry(queue_id).or_default();
                progress.committed.store(offset, Ordering::Relaxed);
            }
        }
        Ok(Self {
            file,
            saving: Mutex::new(()),
            groups: RwLock::new(groups),
            commits: AtomicU64::new(0),
            version_step,
            version: Mutex::new(Versioned {
                version: loaded.data_version,
                counted: 0,
                saved: 0,
            }),
        })
    }

    /// Commits an offset; it may go backwards.
    pub fn commit(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        self.store(Kind::Committed, group, topic, queue_id, offset);
        self.commits.fetch_add(1, Ordering::Release);
    }

    /// Takes back commits behind the ends of their queues, as a power loss leaves them in async mode:
    /// the messages are lost, and those that come in their places would be passed over. A queue
    /// without an end is not there. Returns how many commits that were.
    pub fn take_back(&self, end_of: impl Fn(&str, i32) -> Option<i64>) -> usize {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (topic, queues) in groups.values().flatten() {
            for (queue_id, progress) in queues {
                let Some(end) = end_of(topic, *queue_id) else {
                    continue;
                };
                if progress.committed.load(Ordering::Relaxed) > end {
                    progress.committed.store(end, Ordering::Relaxed);
                    count += 1;
                }
            }
        }
        drop(groups);
        self.commits.fetch_add(count as u64, Ordering::Release);
        count
    }

    /// The committed offset; while a reset waits to be taken, that one.
    #[must_use]
    pub fn committed(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let reset = self.value(Kind::Reset, group, topic, queue_id);
        reset.or_else(|| self.value(Kind::Committed, group, topic, queue_id))
    }

    /// Notes how far a group has pulled.
    pub fn pulled_to(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        self.store(Kind::Pulled, group, topic, queue_id, offset);
    }

    /// How far a group has pulled.
    #[must_use]
    pub fn pulled(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.value(Kind::Pulled, group, topic, queue_id)
    }

    /// Sets a group to an offset; it learns of it at its next pull.
    pub fn reset(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        self.store(Kind::Reset, group, topic, queue_id, offset);
        self.commit(group, topic, queue_id, offset);
    }

    /// Whether a reset waits to be taken.
    #[must_use]
    pub fn has_reset(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        self.value(Kind::Reset, group, topic, queue_id).is_some()
    }

    /// Takes the reset that waits, once.
    #[must_use]
    pub fn take_reset(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let progress = groups.get(group)?.get(topic)?.get(&queue_id)?;
        let reset = progress.reset.swap(NONE, Ordering::Relaxed);
        (reset != NONE).then_some(reset)
    }

    /// The committed offsets of a group in a topic, by queue.
    #[must_use]
    pub fn of_topic(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let queues = groups.get(group).and_then(|topics| topics.get(topic));
        queues.map(committed).unwrap_or_default()
    }

    /// The groups that have offsets.
    #[must_use]
    pub fn all_groups(&self) -> Vec<String> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.keys().cloned().collect()
    }

    /// Topics that a group has offsets in.
    #[must_use]
    pub fn topics_of_group(&self, group: &str) -> BTreeSet<String> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let Some(topics) = groups.get(group) else {
            return BTreeSet::new();
        };
        let known = topics
            .iter()
            .filter(|(_, queues)| !committed(queues).is_empty());
        known.map(|(topic, _)| topic.clone()).collect()
    }

    /// Groups that have offsets in a topic.
    #[must_use]
    pub fn groups_of_topic(&self, topic: &str) -> BTreeSet<String> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let known = groups.iter().filter(|(_, topics)| {
            topics
                .get(topic)
                .is_some_and(|queues| !committed(queues).is_empty())
        });
        known.map(|(group, _)| group.clone()).collect()
    }

    /// Forgets a topic in all groups.
    pub fn remove_topic(&self, topic: &str) {
        self.remove(|topics| drop(topics.remove(topic)));
    }

    /// Forgets a group.
    pub fn remove_group(&self, group: &str) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.remove(group);
        self.commits.fetch_add(1, Ordering::Release);
    }

    /// The committed offsets and their version, as the file holds them.
    #[must_use]
    pub fn snapshot(&self) -> ConsumerOffsetSerializeWrapper {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let mut offset_table = BTreeMap::new();
        for (group, topics) in &*groups {
            for (topic, queues) in topics {
                let queues = committed(queues);
                if !queues.is_empty() {
                    offset_table.insert(format!("{topic}{SEPARATOR}{group}"), queues);
                }
            }
        }
        drop(groups);
        let data_version = self.current_version().version;
        ConsumerOffsetSerializeWrapper {
            data_version,
            offset_table,
        }
    }

    /// Writes the file if anything was committed since it was written.
    ///
    /// # Errors
    /// The system refuses; the next call tries again.
    pub fn save(&self) -> Result<(), StateError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        // What these commits stored is in the snapshot below.
        let commits = self.commits.load(Ordering::Acquire);
        if commits == self.current_version().saved {
            return Ok(());
        }
        self.file.save(&json::encode_pretty(&self.snapshot())?)?;
        self.current_version().saved = commits;
        Ok(())
    }

    /// The version, moved on by the commits that it has not counted yet.
    fn current_version(&self) -> std::sync::MutexGuard<'_, Versioned> {
        let mut versioned = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let commits = self.commits.load(Ordering::Relaxed);
        while commits - versioned.counted >= self.version_step {
            versioned.counted += self.version_step;
            versioned.version = next_version(versioned.version);
        }
        versioned
    }

    fn remove(&self, change: impl Fn(&mut HashMap<String, HashMap<i32, Progress>>)) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.values_mut().for_each(change);
        groups.retain(|_, topics| !topics.is_empty());
        self.commits.fetch_add(1, Ordering::Release);
    }

    fn value(&self, kind: Kind, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let progress = groups.get(group)?.get(topic)?.get(&queue_id)?;
        let value = progress.cell(kind).load(Ordering::Relaxed);
        (value != NONE).then_some(value)
    }

    fn store(&self, kind: Kind, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let known = groups
            .get(group)
            .and_then(|topics| topics.get(topic)?.get(&queue_id));
        if let Some(progress) = known {
            progress.cell(kind).store(offset, Ordering::Relaxed);
            return;
        }
        drop(groups);
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let of_group = groups.entry(group.to_owned()).or_default();
        let of_topic = of_group.entry(topic.to_owned()).or_default();
        let progress = of_topic.entry(queue_id).or_default();
        progress.cell(kind).store(offset, Ordering::Relaxed);
    }
}

fn committed(queues: &HashMap<i32, Progress>) -> BTreeMap<i32, i64> {
    let offsets = queues
        .iter()
        .map(|(id, progress)| (*id, progress.committed.load(Ordering::Relaxed)));
    offsets.filter(|(_, offset)| *offset != NONE).collect()
}

#[cfg(test)]
mod tests {
    use mmap_core::{Io, OsIo};

    use super::*;

    fn offsets(dir: &std::path::Path) -> ConsumerOffsets {
        ConsumerOffsets::load(
            JsonFile::new(OsIo, dir, "consumerOffset.json", dir, &Default::default()),
            2,
        )
        .unwrap()
    }

    #[test]
    fn committed_offsets_outlive_a_restart_and_others_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = offsets(dir.path());
        assert_eq!(first.committed("g", "T", 0), None);
        first.commit("g", "T", 0, 5);
        first.commit("g", "T", 1, 6);
        first.commit("g", "T", 0, 3);
        first.pulled_to("h", "T", 0, 9);
        first.reset("g", "U", 0, 7);
        assert!(first.has_reset("g", "U", 0));
        first.save().unwrap();

        let second = offsets(dir.path());
        assert_eq!(second.of_topic("g", "T"), BTreeMap::from([(0, 3), (1, 6)]));
        assert_eq!(second.committed("g", "U", 0), Some(7));
        assert_eq!(second.take_reset("g", "U", 0), None);
        assert_eq!(second.pulled("h", "T", 0), None);
        assert_eq!(second.snapshot().data_version.counter, 2);
        assert_eq!(Vec::from_iter(second.groups_of_topic("T")), ["g"]);
        assert_eq!(Vec::from_iter(second.topics_of_group("g")), ["T", "U"]);
        second.remove_topic("T");
        assert_eq!(Vec::from_iter(second.topics_of_group("g")), ["U"]);
        second.remove_group("g");
        assert!(second.snapshot().offset_table.is_empty());
    }

    #[test]
    fn a_reset_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = offsets(dir.path());
        offsets.commit("g", "T", 0, 5);
        offsets.reset("g", "T", 0, 2);
        assert_eq!(offsets.committed("g", "T", 0), Some(2));
        assert_eq!(offsets.take_reset("g", "T", 0), Some(2));
        assert_eq!(offsets.take_reset("g", "T", 0), None);
    }

    #[test]
    fn offsets_are_saved_by_several_at_once() {
        let dir = &tempfile::tempdir().unwrap();
        let first = offsets(dir.path());
        std::thread::scope(|scope| {
            for queue_id in 0..3 {
                let first = &first;
                scope.spawn(move || {
                    for offset in 0..50 {
                        first.commit("g", "T", queue_id, offset);
                        first.save().unwrap();
                        let saved = offsets(dir.path()).committed("g", "T", queue_id);
                        assert!(saved >= Some(offset), "{saved:?}");
                    }
                });
            }
        });
    }

    #[test]
    fn the_file_of_java_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = "{\n\t\"dataVersion\":{\n\t\t\"counter\":7,\n\t\t\"stateVersion\":0,\n\t\t\
                    \"timestamp\":1795400054540\n\t},\n\t\"groupTopicMap\":{\n\t\t\
                    \"g\":[\"%RETRY%g\"]\n\t},\n\t\"offsetTable\":{\n\t\t\
                    \"%RETRY%g@g\":{0:2\n\t\t},\n\t\t\"T@g\":{0:20,3:10\n\t\t}\n\t}\n}";
        OsIo.replace(
            &dir.path().join("consumerOffset.json"),
            text.as_bytes(),
            None,
        )
        .unwrap();
        let offsets = offsets(dir.path());
        assert_eq!(offsets.committed("g", "%RETRY%g", 0), Some(2));
        assert_eq!(
            offsets.of_topic("g", "T"),
            BTreeMap::from([(0, 20), (3, 10)])
        );
        assert_eq!(offsets.snapshot().data_version.counter, 7);
    }

    #[test]
    fn commits_of_lost_messages_are_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = offsets(dir.path());
        for (queue_id, offset) in [(0, 7), (1, 8), (2, 9)] {
            offsets.commit("G", "T", queue_id, offset);
        }
        let ends = |topic: &str, queue_id| (topic == "T" && queue_id < 2).then_some(7);
        assert_eq!(offsets.take_back(ends), 1);
        let left = offsets.of_topic("G", "T");
        assert_eq!(left, BTreeMap::from([(0, 7), (1, 7), (2, 9)]));
    }
}

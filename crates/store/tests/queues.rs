//! Consume queues that do not say what the log says: whatever happened to their files, every
//! message is served at its queue offset and no other, and no queue offset is given away twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod small;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use message::Message;
use mmap_core::{Access, CrashStyle, Io, IoFile, SimIo};
use small::{ENTRIES_PER_FILE, SEGMENT_LEN, Ticks};
use store::offline::{self, RebuildSelection};
use store::{
    AllMessages, Clock, Filter, FlushMode, GetLimits, GetStatus, LastExit, MessageStore,
    NoProgress, OpenReport, QueueFault, StoreOptions, TagFilter,
};

const FILE_LEN: u64 = 20 * ENTRIES_PER_FILE;
/// `Rare` gets every message of the beginning, `Often` the others: recovery sees none of `Rare`.
const RARE_COUNT: usize = 40;

#[derive(Clone)]
struct Put {
    topic: &'static str,
    queue_offset: i64,
    physical_offset: i64,
    tag: &'static str,
}

#[derive(Clone)]
struct Scene {
    io: SimIo,
    clock: Arc<dyn Clock>,
    puts: Vec<Put>,
    has_extensions: bool,
    batch_topics: BTreeSet<String>,
}

impl Scene {
    /// A store of `count` messages, closed.
    fn closed(count: usize, has_extensions: bool) -> Self {
        let mut scene = Self {
            io: SimIo::new(5),
            clock: Arc::new(Ticks::default()),
            puts: Vec::new(),
            has_extensions,
            batch_topics: BTreeSet::new(),
        };
        let store = scene.open().0;
        for _ in 0..count {
            scene.put(&store);
        }
        store.close().unwrap();
        drop(store);
        scene
    }

    /// As [`closed`](Self::closed), and then the process was killed with a few messages more.
    fn killed(count: usize, has_extensions: bool) -> Self {
        let mut scene = Self::closed(count, has_extensions);
        let store = scene.open().0;
        for _ in 0..8 {
            scene.put(&store);
        }
        while store.step_dispatch().unwrap() {}
        store.log().flush_now().unwrap();
        scene.crash(CrashStyle::KillProcess);
        // What it vouches for is not looked at again.
        let marks = Path::new("/store/foliomq/dispatched");
        scene.io.remove_file(marks).unwrap();
        scene
    }

    fn options(&self) -> StoreOptions {
        let mut options = small::options();
        options.writes_extensions = self.has_extensions;
        options.extension_file_len = 20 * 10 + 4;
        options.flush = FlushMode::async_default();
        options.batch_topics = self.batch_topics.clone();
        options
    }

    fn try_open(&self) -> Result<(MessageStore<SimIo>, OpenReport), store::OpenError> {
        MessageStore::open_with(self.io.clone(), self.options(), Arc::clone(&self.clock))
    }

    fn open(&self) -> (MessageStore<SimIo>, OpenReport) {
        self.try_open()
            .unwrap_or_else(|error| panic!("no start: {error}"))
    }

    /// A device of its own with the same content.
    fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.crash(CrashStyle::KillProcess);
        copy
    }

    fn crash(&mut self, style: CrashStyle) {
        self.io = self.io.crash(style);
    }

    fn put(&mut self, store: &MessageStore<SimIo>) {
        let number = self.puts.len();
        let topic = if number < RARE_COUNT { "Rare" } else { "Often" };
        let tag = ["TagA", "TagB", "TagC"][number % 3];
        let properties = format!("TAGS\u{1}{tag}\u{2}");
        let body = vec![number as u8; 300 + number % 7 * 100];
        let appended = store
            .put(&Message {
                properties: properties.as_bytes(),
                ..Message::new(topic, 0, &body)
            })
            .unwrap();
        self.puts.push(Put {
            topic,
            queue_offset: appended.queue_offset,
            physical_offset: appended.physical_offset as i64,
            tag,
        });
    }

    fn next_offset(&self, topic: &str) -> i64 {
        let last = self.puts.iter().rfind(|put| put.topic == topic);
        last.map_or(0, |put| put.queue_offset + 1)
    }

    /// What a consumer gets of a topic that wants this.
    fn consume(&self, store: &MessageStore<SimIo>, topic: &str, filter: &dyn Filter) -> Vec<i64> {
        let limits = GetLimits {
            count_max: 7,
            bytes_max: 1 << 20,
        };
        let mut offset = store.min_offset(topic, 0).unwrap_or(0);
        let mut found = Vec::new();
        loop {
            let got = store.get(topic, 0, offset, &limits, filter).unwrap();
            if let GetStatus::OffsetOverflowOne
            | GetStatus::NoMatchedLogicQueue
            | GetStatus::NoMessageInQueue = got.status
            {
                return found;
            }
            for view in got.messages.records() {
                let put = self
                    .puts
                    .iter()
                    .find(|put| put.physical_offset == view.physical_offset());
                let put = put.expect("a message that was put");
                assert_eq!((put.topic, put.queue_offset), (topic, view.queue_offset()));
                assert!((offset..got.next_offset).contains(&view.queue_offset()));
                found.push(view.queue_offset());
            }
            assert!(got.next_offset > offset, "{:?}", got.status);
            offset = got.next_offset;
        }
    }

    /// Every message is served, to those who want all and to those who want its tag.
    fn check(&self, store: &MessageStore<SimIo>) {
        let log_min = store.log().min_offset() as i64;
        for topic in ["Rare", "Often"] {
            let live = |put: &&Put| put.topic == topic && put.physical_offset >= log_min;
            let all: Vec<i64> = { self.puts.iter() }
                .filter(live)
                .map(|put| put.queue_offset)
                .collect();
            assert_eq!(self.consume(store, topic, &AllMessages), all, "{topic}");
            for tag in ["TagA", "TagB", "TagC"] {
                let wanted: Vec<i64> = { self.puts.iter() }
                    .filter(|put| live(put) && put.tag == tag)
                    .map(|put| put.queue_offset)
                    .collect();
                assert_eq!(
                    self.consume(store, topic, &TagFilter::new([tag])),
                    wanted,
                    "{topic} {tag}"
                );
            }
            let is_known = self.puts.iter().any(|put| put.topic == topic);
            let end = is_known.then(|| self.next_offset(topic));
            assert_eq!(store.max_offset(topic, 0), end, "{topic}");
        }
    }

    /// Opens, with these queues built again and nothing else; checks; then once more with nothing
    /// to do.
    fn check_rebuilt(&mut self, expected: &[(&str, QueueFault)]) {
        let (store, report) = self.open();
        let rebuilt: Vec<_> = { report.rebuilt_queues.iter() }
            .map(|rebuilt| (rebuilt.topic.as_str(), rebuilt.fault))
            .collect();
        assert_eq!(rebuilt, expected, "{report}");
        self.check(&store);
        for _ in 0..3 {
            self.put(&store);
        }
        store.close().unwrap();
        drop(store);
        let (store, report) = self.open();
        assert_eq!(report.rebuilt_queues, [], "{report}");
        self.check(&store);
    }

    fn queue_file(&self, topic: &str, number: u64) -> PathBuf {
        PathBuf::from(format!(
            "/store/consumequeue/{topic}/0/{:020}",
            number * FILE_LEN
        ))
    }

    /// Lets a record say that its queue offset is another; nothing checks this field.
    fn claim(&self, put: &Put, queue_offset: i64) {
        const QUEUE_OFFSET_POSITION: u64 = 20;
        let offset = put.physical_offset as u64;
        let base = offset - offset % SEGMENT_LEN;
        let path = PathBuf::from(format!("/store/commitlog/{base:020}"));
        let position = offset - base + QUEUE_OFFSET_POSITION;
        self.write(&path, &queue_offset.to_be_bytes(), position);
    }

    fn remove_dir(&self, dir: &str) {
        for entry in self.io.list(Path::new(dir)).unwrap() {
            self.io
                .remove_file(&Path::new(dir).join(entry.name))
                .unwrap();
        }
        self.io.remove_dir(Path::new(dir)).unwrap();
        let above = Path::new(dir).parent().unwrap();
        self.io.sync_dir(above).unwrap();
    }

    fn write(&self, path: &Path, bytes: &[u8], position: u64) {
        let file = self.io.open(path, Access::ReadWrite).unwrap();
        file.write_all_at(bytes, position).unwrap();
        file.sync_all().unwrap();
    }
}

#[test]
fn nothing_is_built_again_where_nothing_is_wrong() {
    for has_extensions in [false, true] {
        let scene = Scene::killed(100, has_extensions);
        let (store, report) = scene.open();
        assert_eq!(report.last_exit, LastExit::Unclean);
        assert_eq!(report.rebuilt_queues, [], "{report}");
        scene.check(&store);
        drop(store);
        let mut scene = scene.copy();
        scene.check_rebuilt(&[]);
    }
}

#[test]
fn a_queue_whose_last_file_is_lost_is_built_again() {
    for has_extensions in [false, true] {
        for scene in [
            Scene::closed(100, has_extensions),
            Scene::killed(100, has_extensions),
        ] {
            let mut scene = scene;
            scene.io.remove_file(&scene.queue_file("Rare", 2)).unwrap();
            scene.check_rebuilt(&[("Rare", QueueFault::Shorter)]);
        }
    }
}

#[test]
fn a_queue_whose_first_file_is_lost_is_built_again() {
    for mut scene in [Scene::closed(100, true), Scene::killed(100, true)] {
        scene.io.remove_file(&scene.queue_file("Rare", 0)).unwrap();
        scene.check_rebuilt(&[("Rare", QueueFault::Shorter)]);
    }
}

#[test]
fn a_queue_whose_middle_file_is_lost_is_built_again() {
    for mut scene in [Scene::closed(100, false), Scene::killed(100, false)] {
        scene.io.remove_file(&scene.queue_file("Rare", 1)).unwrap();
        let fault = scene.copy().open().1.rebuilt_queues[0].fault;
        assert!(matches!(fault, QueueFault::Damaged | QueueFault::Shorter));
        scene.check_rebuilt(&[("Rare", fault)]);
    }
}

#[test]
fn a_queue_whose_directory_is_lost_is_built_again() {
    for has_extensions in [false, true] {
        for mut scene in [
            Scene::closed(100, has_extensions),
            Scene::killed(100, has_extensions),
        ] {
            scene.remove_dir("/store/consumequeue/Rare/0");
            scene.check_rebuilt(&[("Rare", QueueFault::Shorter)]);
        }
    }
}

#[test]
fn without_the_store_s_own_files_the_log_still_tells_where_it_was_read() {
    let mut scene = Scene::killed(100, false);
    scene.remove_dir("/store/foliomq");
    scene.remove_dir("/store/consumequeue/Often/0");
    // The queues that are left end long before: the whole log is read.
    scene.check_rebuilt(&[]);
    // A torn file is as good as none.
    let scene = Scene::closed(100, false);
    scene.write(Path::new("/store/foliomq/queues"), b"torn", 20);
    let (store, report) = scene.open();
    assert_eq!(report.rebuilt_queues, []);
    scene.check(&store);
}

#[test]
fn a_record_that_says_to_be_the_first_empties_no_queue() {
    let mut scene = Scene::killed(100, false);
    let victim = scene.puts.remove(RARE_COUNT + 30);
    scene.claim(&victim, 0);
    scene.remove_dir("/store/foliomq");
    scene.remove_dir("/store/consumequeue/Often/0");
    scene.check(&scene.open().0);
}

/// A store of which the last five messages of `Often` are those of a topic that was created again.
fn created_again() -> Scene {
    let mut scene = Scene::killed(100, false);
    let first = scene.puts.len() - 5;
    for index in 0..5 {
        scene.claim(&scene.puts[first + index], index as i64);
        scene.puts[first + index].queue_offset = index as i64;
    }
    scene.puts.drain(RARE_COUNT..first);
    scene
}

#[test]
fn the_queue_of_a_topic_that_was_created_again_has_its_last_life() {
    let scene = created_again();
    scene.remove_dir("/store/foliomq");
    scene.remove_dir("/store/consumequeue/Often/0");
    scene.check(&scene.open().0);
}

/// The messages of `Often` in a batch queue, which is built when the store is opened.
fn with_batch_queue(mut scene: Scene) -> Scene {
    scene.remove_dir("/store/foliomq");
    scene.remove_dir("/store/consumequeue/Often/0");
    scene
        .io
        .remove_dir(Path::new("/store/consumequeue/Often"))
        .unwrap();
    scene.batch_topics = ["Often".to_owned()].into();
    scene
}

#[test]
fn a_record_that_says_to_be_the_first_empties_no_batch_queue() {
    let mut scene = Scene::killed(100, false);
    let victim = scene.puts.remove(RARE_COUNT + 30);
    scene.claim(&victim, 0);
    let scene = with_batch_queue(scene);
    scene.check(&scene.open().0);
}

#[test]
fn the_batch_queue_of_a_topic_that_was_created_again_has_its_last_life() {
    let scene = with_batch_queue(created_again());
    scene.check(&scene.open().0);
}

#[test]
fn a_rebuild_of_a_store_at_rest_is_no_easier_to_lead_astray() {
    let rebuild = |scene: &Scene| {
        let selection = RebuildSelection::default();
        offline::rebuild(&scene.io, &scene.options(), &selection, &NoProgress).unwrap()
    };
    let mut scene = Scene::closed(100, false);
    let victim = scene.puts.remove(RARE_COUNT + 30);
    scene.claim(&victim, 0);
    assert_eq!(rebuild(&scene).misplaced_count, 1);
    scene.check(&scene.open().0);

    let mut scene = Scene::closed(100, false);
    let first = scene.puts.len() - 5;
    for index in 0..5 {
        scene.claim(&scene.puts[first + index], index as i64);
        scene.puts[first + index].queue_offset = index as i64;
    }
    scene.puts.drain(RARE_COUNT..first);
    assert_eq!(rebuild(&scene).misplaced_count, 0);
    scene.check(&scene.open().0);
}

#[test]
fn an_entry_that_leads_elsewhere_is_noticed_when_its_record_is_read() {
    for has_extensions in [false, true] {
        let mut scene = Scene::killed(100, has_extensions);
        let last = scene.puts.last().unwrap().queue_offset as u64 - 1;
        let (number, place) = (last / ENTRIES_PER_FILE, last % ENTRIES_PER_FILE);
        // The entry before, once more.
        let file = scene.queue_file("Often", number);
        let bytes = scene.io.read(&file, FILE_LEN).unwrap();
        let before = bytes[(place as usize - 1) * 20..place as usize * 20].to_vec();
        scene.write(&file, &before, place * 20);
        scene.check_rebuilt(&[("Often", QueueFault::WrongEntry)]);
    }
}

#[test]
fn a_tags_code_that_is_not_the_message_s_is_noticed_when_its_record_is_read() {
    let mut scene = Scene::killed(100, false);
    let last = scene.puts.last().unwrap().queue_offset as u64 - 1;
    let (number, place) = (last / ENTRIES_PER_FILE, last % ENTRIES_PER_FILE);
    scene.write(&scene.queue_file("Often", number), &[9, 9], place * 20 + 18);
    scene.check_rebuilt(&[("Often", QueueFault::WrongEntry)]);
}

#[test]
fn extension_units_that_are_lost_are_written_again() {
    let mut scene = Scene::killed(100, true);
    scene.remove_dir("/store/consumequeue_ext/Often/0");
    scene.check_rebuilt(&[("Often", QueueFault::WrongEntry)]);

    // Of messages that recovery does not read: nobody knows their tags, and they are served.
    let scene = Scene::closed(100, true);
    scene.remove_dir("/store/consumequeue_ext/Rare/0");
    let (store, _) = scene.open();
    let all: Vec<i64> = (0..RARE_COUNT as i64).collect();
    assert_eq!(scene.consume(&store, "Rare", &AllMessages), all);
    assert_eq!(
        scene.consume(&store, "Rare", &TagFilter::new(["TagA"])),
        all
    );
}

#[test]
fn no_flipped_bit_leads_to_another_message() {
    for has_extensions in [false, true] {
        let scene = Scene::closed(100, has_extensions);
        let mut lost_most = 0;
        // A prime step: all bytes of an entry, and all bits, in every file.
        for bit in (0..RARE_COUNT as u64 * 160).step_by(37) {
            let scene = scene.copy();
            let (number, position) = (bit / 8 / FILE_LEN, bit / 8 % FILE_LEN);
            scene
                .io
                .flip_bit(
                    &scene.queue_file("Rare", number),
                    position,
                    (bit % 8) as u32,
                )
                .unwrap();
            let (store, _) = scene.open();
            let found: BTreeSet<i64> = scene
                .consume(&store, "Rare", &AllMessages)
                .into_iter()
                .collect();
            let lost = RARE_COUNT - found.len();
            assert!(lost <= 1, "bit {bit}: {lost} messages");
            lost_most = lost_most.max(lost);
            assert_eq!(
                store.max_offset("Rare", 0),
                Some(RARE_COUNT as i64),
                "bit {bit}"
            );
        }
        // In the middle nobody looks before it is read: that message is passed over.
        assert_eq!(lost_most, 1);
    }
}

#[test]
fn no_flipped_bit_of_an_extension_leads_to_another_message() {
    let scene = Scene::closed(100, true);
    let path = PathBuf::from(format!("/store/consumequeue_ext/Rare/0/{:020}", 0));
    for bit in (0..204 * 8).step_by(13) {
        let scene = scene.copy();
        scene.io.flip_bit(&path, bit / 8, (bit % 8) as u32).unwrap();
        let (store, _) = scene.open();
        let all: Vec<i64> = (0..RARE_COUNT as i64).collect();
        assert_eq!(scene.consume(&store, "Rare", &AllMessages), all);
    }
}

#[test]
fn a_rebuild_survives_a_crash_at_any_point() {
    let scene = Scene::killed(70, true);
    scene.remove_dir("/store/consumequeue/Rare/0");
    for style in [
        CrashStyle::KillProcess,
        CrashStyle::LoseUnsynced,
        CrashStyle::Tear,
    ] {
        let mut nth = 1;
        loop {
            let mut scene = scene.copy();
            scene.io.fail_from("*", nth, ErrorKind::Other);
            let opened = scene.try_open();
            let is_done = opened.is_ok();
            scene.crash(style);
            drop(opened);
            let (store, report) = scene.open();
            scene.check(&store);
            drop(store);
            scene.crash(CrashStyle::KillProcess);
            let (store, again) = scene.open();
            assert_eq!(
                again.rebuilt_queues,
                [],
                "operation {nth}, {style:?}: {report}, then {again}"
            );
            scene.check(&store);
            if is_done {
                break;
            }
            nth += 5;
        }
        assert!(nth > 100, "the rebuild took {nth} operations");
    }
}

#[test]
fn a_deleted_topic_does_not_come_back() {
    let mut scene = Scene::closed(100, true);
    let store = scene.open().0;
    store.delete_topic("Often").unwrap();
    scene.crash(CrashStyle::LoseUnsynced);
    drop(store);
    for style in [CrashStyle::KillProcess, CrashStyle::LoseUnsynced] {
        let (store, report) = scene.open();
        assert_eq!(report.last_exit, LastExit::Unclean);
        assert_eq!(report.rebuilt_queues, []);
        assert_eq!(store.max_offset("Often", 0), None);
        assert_eq!(
            scene.consume(&store, "Rare", &AllMessages).len(),
            RARE_COUNT
        );
        drop(store);
        scene.crash(style);
    }
    // Made anew, it begins at 0 and holds the new messages only.
    scene.puts.retain(|put| put.topic == "Rare");
    let store = scene.open().0;
    for _ in 0..5 {
        scene.put(&store);
    }
    assert_eq!(scene.puts.last().map(|put| put.queue_offset), Some(4));
    while store.step_dispatch().unwrap() {}
    scene.check(&store);
    scene.crash(CrashStyle::KillProcess);
    drop(store);
    scene.check_rebuilt(&[]);
}

#[test]
fn what_is_sent_after_a_power_cut_was_not_deleted_before() {
    let mut scene = Scene::closed(60, false);
    let store = scene.open().0;
    for _ in 0..10 {
        scene.put(&store);
    }
    // None of these is synced: the log is shorter after the power cut than the deletion has seen it.
    store.delete_topic("Often").unwrap();
    scene.crash(CrashStyle::LoseUnsynced);
    drop(store);
    scene.puts.retain(|put| put.topic == "Rare");
    // Enough that some lie behind where the log ended when the topic was deleted.
    let (store, _) = scene.open();
    for _ in 0..5 {
        scene.put(&store);
    }
    while store.step_dispatch().unwrap() {}
    scene.check(&store);
    // It is remembered so: also when nothing is written down once more.
    scene.crash(CrashStyle::KillProcess);
    drop(store);
    scene.remove_dir("/store/consumequeue/Often/0");
    scene.check_rebuilt(&[]);
}

#[test]
fn an_expired_queue_with_a_message_on_its_way_is_kept() {
    let mut scene = Scene::closed(100, false);
    let store = scene.open().0;
    let behind = scene.puts[RARE_COUNT + 10].physical_offset as u64;
    store.log().flush_now().unwrap();
    store.log().trim_to(behind).unwrap();
    assert!(store.log().min_offset() as i64 > scene.puts[RARE_COUNT - 1].physical_offset);
    // In the log, and not dispatched yet.
    let often = scene.puts.split_off(RARE_COUNT - 1);
    scene.put(&store);
    assert_eq!(scene.puts.last().unwrap().queue_offset, RARE_COUNT as i64);
    assert_eq!(store.delete_expired_queues(&|_| false).unwrap(), 0);
    while store.step_dispatch().unwrap() {}
    scene.puts.extend(often);
    scene.puts.sort_by_key(|put| put.physical_offset);
    scene.check(&store);
    // Dispatched, it is not expired; a queue without new ones goes.
    assert_eq!(store.delete_expired_queues(&|_| false).unwrap(), 0);
    store.log().flush_now().unwrap();
    drop(store);

    let scene = Scene::closed(100, false);
    let store = scene.open().0;
    store.log().trim_to(behind).unwrap();
    assert_eq!(store.delete_expired_queues(&|_| false).unwrap(), 1);
    assert_eq!(store.max_offset("Rare", 0), None);
}

#[test]
fn a_queue_whose_messages_have_expired_keeps_its_numbers() {
    let scene = Scene::closed(100, false);
    let store = scene.open().0;
    let behind = scene.puts[RARE_COUNT + 10].physical_offset as u64;
    store.log().flush_now().unwrap();
    store.log().trim_to(behind).unwrap();
    assert!(store.log().min_offset() as i64 > scene.puts[RARE_COUNT - 1].physical_offset);
    store.close().unwrap();
    drop(store);
    for lost in [false, true] {
        let scene = scene.copy();
        if lost {
            scene.remove_dir("/store/consumequeue/Rare/0");
        }
        let (store, report) = scene.open();
        assert_eq!(report.rebuilt_queues.len(), usize::from(lost), "{report}");
        let end = RARE_COUNT as i64;
        assert_eq!(store.max_offset("Rare", 0), Some(end));
        assert_eq!(store.min_offset("Rare", 0), Some(end));
        store.close().unwrap();
        drop(store);
        let (store, report) = scene.open();
        assert_eq!(report.rebuilt_queues, [], "{report}");
        assert_eq!(store.max_offset("Rare", 0), Some(end));
    }
}

//! The scenarios: what a store of Java's held when it was left, and what was damaged then.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use message::{Parsed, RecordView};

use super::script::{Place, Put, Shape, Step};

/// One row of the table.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What is done, for the table.
    pub(super) what: &'static str,
    /// What Java's store is told first. It dies then, if it is not closed.
    pub(super) write: Vec<Step>,
    /// What is done to its files. Returns the log offsets of messages that nobody can be asked
    /// for any more.
    pub(super) damage: fn(&Target<'_>) -> Result<Vec<i64>>,
    /// Whether Java's loses something: the run fails when it does not any more.
    pub(super) java_loses: bool,
    /// What each store is told then. It is opened, and dies, as often as there are parts.
    pub(super) then: Vec<Vec<Step>>,
}

/// The store that is damaged.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) place: &'a Place,
    /// What was put to it, in order.
    pub(super) puts: &'a [Put],
}

/// Every scenario.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "cut-records-return",
            java_loses: true,
            what: "killed; the third of six messages is damaged; recovery cuts there, one message \
                   is put, killed again",
            write: puts(0, 0..6),
            damage: |target| {
                target.flip_body_bit(2)?;
                Ok(target.offsets(2..6))
            },
            then: vec![vec![put(0, 6, 200)], vec![]],
        },
        Scenario {
            name: "first-unqueued-record",
            java_loses: true,
            what: "closed; the last two queue entries are gone",
            write: [puts(0, 0..11), vec![Step::Close]].concat(),
            damage: |target| {
                target.cut_queue(0, 9)?;
                Ok(Vec::new())
            },
            then: vec![vec![put(0, 11, 200)]],
        },
        Scenario {
            name: "queue-behind-checkpoint",
            java_loses: true,
            what: "power loss: the checkpoint is newer than the entries of one queue that reached \
                   the disk",
            write: [
                puts(0, 0..24),
                vec![Step::Pause],
                puts(0, 24..32),
                puts(1, 32..36),
                vec![Step::Pause],
            ]
            .concat(),
            damage: |target| {
                target.cut_queue(0, 5)?;
                Ok(Vec::new())
            },
            then: vec![vec![put(0, 36, 200)]],
        },
        Scenario {
            name: "keys-after-kill",
            java_loses: true,
            what: "killed",
            write: [
                puts(0, 0..24),
                vec![Step::Pause],
                puts(0, 24..32),
                vec![Step::Pause],
            ]
            .concat(),
            damage: |_| Ok(Vec::new()),
            then: vec![vec![]],
        },
        Scenario {
            name: "one-bit",
            java_loses: true,
            what: "killed, everything synced before; one bit of the 29th of 80 messages flips",
            write: [
                puts(0, 0..36),
                vec![Step::Pause],
                puts(0, 36..80),
                vec![Step::Pause],
            ]
            .concat(),
            damage: |target| {
                target.flip_body_bit(28)?;
                Ok(target.offsets(28..29))
            },
            then: vec![vec![]],
        },
        Scenario {
            name: "too-large-message",
            java_loses: true,
            what: "a message larger than a file of the log is put",
            write: puts(0, 0..1),
            damage: |_| Ok(Vec::new()),
            then: vec![vec![put(0, 1, 5_000), put(0, 2, 200)]],
        },
        Scenario {
            name: "second-store",
            what: "a Java store is started on the directory in use, by mistake; 40 messages are \
                   put before and 40 after; killed",
            java_loses: true,
            write: Vec::new(),
            damage: |_| Ok(Vec::new()),
            then: vec![
                [puts(0, 0..40), vec![Step::Intrude], puts(0, 40..80)].concat(),
                vec![],
            ],
        },
        Scenario {
            name: "short-last-file",
            java_loses: true,
            what: "closed; the last file of the log is cut short",
            write: [puts(0, 0..30), vec![Step::Close]].concat(),
            damage: |target| {
                let last = target.puts.last().context("a put")?.offset as u64;
                let base = last - last % target.place.shape.segment_len;
                let kept = last - base;
                target.resize_segment(base, kept)?;
                Ok(target.offsets(29..30))
            },
            then: vec![vec![put(0, 30, 200)]],
        },
        Scenario {
            name: "empty-last-file",
            java_loses: false,
            what: "closed; the last file of the log, which held messages, is empty",
            write: [puts(0, 0..30), vec![Step::Close]].concat(),
            damage: |target| target.empty_segment(2),
            then: vec![vec![]],
        },
        Scenario {
            name: "empty-middle-file",
            java_loses: true,
            what: "closed; the second of three files of the log is empty",
            write: [puts(0, 0..30), vec![Step::Close]].concat(),
            damage: |target| target.empty_segment(1),
            then: vec![vec![]],
        },
        Scenario {
            name: "unwritten-sector",
            java_loses: true,
            what: "power loss: the last sector of the last message, in its properties, is zeros",
            write: [puts(0, 0..3), vec![long_key(3)]].concat(),
            damage: |target| {
                target.zero_last_sector(3)?;
                Ok(target.offsets(3..4))
            },
            then: vec![vec![]],
        },
    ]
}

fn put(queue_id: i32, number: usize, body_len: usize) -> Step {
    Step::Put {
        topic: "Losses".to_owned(),
        queue_id,
        key: format!("key{number}"),
        body_len,
    }
}

pub(super) fn puts(queue_id: i32, numbers: std::ops::Range<usize>) -> Vec<Step> {
    numbers.map(|number| put(queue_id, number, 200)).collect()
}

/// A message whose properties are longer than a sector of the disk.
fn long_key(number: usize) -> Step {
    Step::Put {
        topic: "Losses".to_owned(),
        queue_id: 0,
        key: format!("key{number}{}", "x".repeat(1_200)),
        body_len: 10,
    }
}

/// What a disk writes as a whole.
const SECTOR_LEN: u64 = 512;

impl Scenario {
    /// The shape of its store. One that pauses syncs meanwhile, as RocketMQ's does every ten
    /// seconds.
    pub(super) fn shape(&self) -> Shape {
        let mut shape = Shape::SMALL;
        if self.write.contains(&Step::Pause) {
            shape.sync_interval_ms = 500;
        }
        shape
    }
}

impl Target<'_> {
    /// Where messages stand in the log.
    fn offsets(&self, numbers: std::ops::Range<usize>) -> Vec<i64> {
        let puts = self.puts.get(numbers).unwrap_or_default();
        puts.iter().map(|put| put.offset).collect()
    }

    fn segment(&self, base: u64) -> PathBuf {
        self.place.store().join(format!("commitlog/{base:020}"))
    }

    /// Removes the entries of a queue from `index` on: zeros in its file, no files behind it.
    fn cut_queue(&self, queue_id: i32, index: u64) -> Result<()> {
        let dir = self
            .place
            .store()
            .join(format!("consumequeue/Losses/{queue_id}"));
        let file_len = self.place.shape.queue_file_len;
        let cut = index * 20;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let base: u64 = name.context("a file of a queue")?.parse()?;
            if base > cut {
                fs::remove_file(&path)?;
            } else if cut < base + file_len {
                let zeros = vec![0; (base + file_len - cut) as usize];
                let file = fs::File::options().write(true).open(&path)?;
                file.write_all_at(&zeros, cut - base)?;
            }
        }
        Ok(())
    }

    /// The record of a message, with its file and its position in it.
    fn record(&self, number: usize) -> Result<(fs::File, u64, Vec<u8>)> {
        let offset = self.puts.get(number).context("a put")?.offset as u64;
        let position = offset % self.place.shape.segment_len;
        let path = self.segment(offset - position);
        let file = fs::File::options().read(true).write(true).open(path)?;
        let mut bytes = vec![0; (self.place.shape.segment_len - position) as usize];
        file.read_exact_at(&mut bytes, position)?;
        let Ok(Parsed::Record(view)) = RecordView::parse(&bytes) else {
            anyhow::bail!("no record at {offset}");
        };
        let len = view.total_size();
        bytes.truncate(len);
        Ok((file, position, bytes))
    }

    fn flip_body_bit(&self, number: usize) -> Result<()> {
        let (file, position, mut bytes) = self.record(number)?;
        // The body begins after 88 bytes.
        let byte = bytes.get_mut(100).context("a body")?;
        *byte ^= 1;
        file.write_all_at(&bytes, position)?;
        Ok(())
    }

    /// Zeros from the last border of a sector in the record to its end.
    fn zero_last_sector(&self, number: usize) -> Result<()> {
        let (file, position, bytes) = self.record(number)?;
        let end = position + bytes.len() as u64;
        let border = (end - 1) / SECTOR_LEN * SECTOR_LEN;
        ensure!(
            border > position + 100,
            "the sector begins in the properties"
        );
        file.write_all_at(&vec![0; (end - border) as usize], border)?;
        Ok(())
    }

    fn resize_segment(&self, base: u64, len: u64) -> Result<()> {
        let file = fs::File::options().write(true).open(self.segment(base))?;
        file.set_len(len).context("resize a file of the log")
    }

    /// Empties a file of the log; its messages are gone.
    fn empty_segment(&self, number: u64) -> Result<Vec<i64>> {
        let len = self.place.shape.segment_len;
        let lost = (number * len)..((number + 1) * len);
        self.resize_segment(number * len, 0)?;
        let puts = self.puts.iter().map(|put| put.offset);
        let lost: Vec<_> = puts
            .filter(|offset| lost.contains(&(*offset as u64)))
            .collect();
        ensure!(!lost.is_empty(), "file {number} held messages");
        Ok(lost)
    }
}

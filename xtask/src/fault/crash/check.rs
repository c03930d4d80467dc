//! What must be true of a store that was opened again.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use message::RecordView;
use mmap_core::{FileKind, Io, SimIo};
use store::{AllMessages, GetLimits, GetStatus, KeyQuery, MessageStore};

use super::model::{Issued, Model, QueueName, QueueState, topic_name};
use super::setup::ROOT;

/// Every file with its length and a hash of its bytes.
pub type Files = BTreeMap<PathBuf, (u64, u64)>;

/// Compares the store with the model, and lets the model forget what is gone and might be. What
/// recovery has found is synced, unless that `may_be_later`.
pub fn recovered(store: &MessageStore<SimIo>, model: &mut Model, may_be_later: bool) -> Result<()> {
    log(store, model, may_be_later)?;
    let names: Vec<QueueName> = model.queues.keys().copied().collect();
    for name in names {
        let state = queue(store, model, name)
            .with_context(|| format!("queue {}-{}", topic_name(name.0), name.1))?;
        model.queues.insert(name, state);
    }
    keys(store, model)
}

/// The log is a first part of what was issued, with everything durable in it, and with nothing
/// else.
fn log(store: &MessageStore<SimIo>, model: &mut Model, may_be_later: bool) -> Result<()> {
    let log = store.log();
    let (min, end) = (log.min_offset(), log.max_offset());
    let flushed = log.flushed();
    ensure!(
        (flushed == end || (may_be_later && flushed < end)) && log.visible() == end,
        "after recovery {flushed} is flushed and {} visible of a log that ends at {end}",
        log.visible()
    );
    ensure!(
        (model.min_at_least..=model.min_at_most).contains(&min),
        "the log begins at {min}, not between {} and {}",
        model.min_at_least,
        model.min_at_most
    );
    expire(model, min);
    let kept = model
        .issued
        .partition_point(|message| message.physical_offset < end);
    for lost in &model.issued[kept..] {
        ensure!(
            !lost.is_durable && !lost.survives_kill,
            "acknowledged and lost: the message at {} of queue {:?}; the log ends at {end}",
            lost.physical_offset,
            lost.queue()
        );
    }
    model.issued.truncate(kept);
    let mut expected = model.issued.iter();
    let walked = log.walk(min, &mut |view: &RecordView<'_>| {
        match expected.next() {
            Some(message) => message.check(view),
            None => Err(anyhow::anyhow!(
                "a record at {} that nobody has put, or that was gone",
                view.physical_offset()
            )),
        }
        .map_err(Into::into)
    })?;
    ensure!(
        walked == end,
        "the log ends at {end}, its records at {walked}"
    );
    if let Some(missing) = expected.next() {
        bail!("no record at {}", missing.physical_offset);
    }
    model.flushed_to(flushed);
    Ok(())
}

/// Forgets the messages before the log's first offset.
fn expire(model: &mut Model, min: u64) {
    (model.min_at_least, model.min_at_most) = (min, min);
    let expired = model
        .issued
        .partition_point(|message| message.physical_offset < min);
    for message in model.issued.drain(..expired) {
        if let (Some(queue), Some(offset)) =
            (model.queues.get_mut(&message.queue()), message.queue_offset)
            && queue.generation == message.generation
        {
            queue.expired_to = queue.expired_to.max(offset + 1);
        }
    }
}

/// A queue shows the messages that the log has of it, each at its offset, and no others.
fn queue(store: &MessageStore<SimIo>, model: &Model, name: QueueName) -> Result<QueueState> {
    let topic = topic_name(name.0);
    let min = store.min_offset(&topic, name.1).unwrap_or(0);
    let max = store.max_offset(&topic, name.1).unwrap_or(0);
    let mut state = model.queues.get(&name).copied().unwrap_or_default();
    let mut expected = model.of_queue(name, state.generation, model.min_at_least);
    if expected.is_empty() && min < max && state.generation > 0 {
        // The topic was deleted and nothing is left of what came later: recovery may have brought
        // back its last messages.
        for generation in (0..state.generation).rev() {
            expected = model.of_queue(name, generation, model.min_at_least);
            if !expected.is_empty() {
                state.generation = generation;
                state.must_from = max;
                break;
            }
        }
    }
    let end = expected
        .last()
        .and_then(|last| last.queue_offset)
        .map_or(state.expired_to, |last| last + 1);
    // Where a queue goes on that has no message left may have been noted for its rebuild when it had
    // messages that are lost now: their numbers are not given again then.
    let goes_on = expected.is_empty() && min == max && model.min_at_least > 0;
    let end = if goes_on && (end..=state.next_offset).contains(&max) {
        state.expired_to = max;
        max
    } else {
        end
    };
    ensure!(
        max == end,
        "the queue ends at {max}, its messages in the log at {end}"
    );
    state.next_offset = end;
    let first_wanted = expected
        .iter()
        .filter(|message| message.physical_offset >= model.cleaned_to)
        .filter_map(|message| message.queue_offset)
        .find(|offset| *offset >= state.must_from)
        .unwrap_or(end);
    ensure!(
        min <= first_wanted,
        "the queue begins at {min}, its messages in the log at {first_wanted}"
    );
    let shown = expected
        .iter()
        .filter(|message| message.queue_offset >= Some(min));
    let mut next = min;
    let mut shown = shown.peekable();
    while next < max {
        let limits = GetLimits {
            count_max: 1_000,
            bytes_max: 1 << 30,
        };
        let got = store.get(&topic, name.1, next, &limits, &AllMessages)?;
        ensure!(
            got.status == GetStatus::Found,
            "nothing at {next} between {min} and {max}: {:?}",
            got.status
        );
        for view in got.messages.records() {
            let message = shown
                .next()
                .with_context(|| format!("more than the messages of the log at {next}"))?;
            ensure!(
                view.physical_offset().cast_unsigned() == message.physical_offset
                    && message.queue_offset == Some(next),
                "at {next} stands the message at {} of the log, not that at {}",
                view.physical_offset(),
                message.physical_offset
            );
            next += 1;
        }
        ensure!(
            got.next_offset == next,
            "messages are missing before {next}"
        );
    }
    Ok(state)
}

/// Every key of every message finds it.
fn keys(store: &MessageStore<SimIo>, model: &Model) -> Result<()> {
    let wanted =
        |message: &&Issued| message.is_indexed && message.physical_offset >= model.cleaned_to;
    for message in model.issued.iter().filter(wanted) {
        for key in &message.keys {
            let answer = store.query(&KeyQuery {
                topic: &topic_name(message.topic),
                key,
                count_max: 64,
                begin_ms: message.store_ms,
                end_ms: message.store_ms,
            })?;
            ensure!(
                answer.messages.records().any(|view| {
                    view.physical_offset().cast_unsigned() == message.physical_offset
                }),
                "key {key} does not find the message at {}",
                message.physical_offset
            );
        }
    }
    Ok(())
}

/// The files of the store.
pub fn files(io: &SimIo) -> Result<Files> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![PathBuf::from(ROOT)];
    while let Some(dir) = dirs.pop() {
        for entry in io.list(&dir)? {
            let path = dir.join(&entry.name);
            match entry.kind {
                FileKind::Directory => dirs.push(path),
                _ => {
                    let bytes = io.read(&path, u64::MAX)?;
                    let mut hash = DefaultHasher::new();
                    bytes.hash(&mut hash);
                    found.insert(path, (entry.len, hash.finish()));
                }
            }
        }
    }
    Ok(found)
}

/// Nothing has changed between two looks at the files. Of a topic that was deleted, recovery may
/// bring back more from the log each time, so that queues are not compared where that has been.
pub fn same_files(before: &Files, after: &Files, model: &Model) -> Result<()> {
    let was_deleted = model.queues.values().any(|queue| queue.generation > 0);
    let queue_dir = Path::new(ROOT).join("consumequeue");
    let own_dir = Path::new(ROOT).join("foliomq");
    let is_excepted = |path: &Path| {
        let is_own = path.starts_with(&own_dir) && !path.starts_with(own_dir.join("quarantine"));
        // They count the openings, and say how far all is synced.
        is_own || path.ends_with("checkpoint") || (was_deleted && path.starts_with(&queue_dir))
    };
    let differs =
        |path: &&PathBuf| before.get(*path) != after.get(*path) && !is_excepted(path.as_path());
    let changed: Vec<&Path> = before
        .keys()
        .chain(after.keys())
        .filter(differs)
        .map(PathBuf::as_path)
        .collect();
    ensure!(changed.is_empty(), "a second opening changed {changed:?}");
    Ok(())
}

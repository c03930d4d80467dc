//! One life of a store: operations in an order that nobody planned, until the machine dies.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use message::{BatchMessage, Message, SysFlag, Transaction, encode_batch_message};
use mmap_core::{Io, Random, SimIo};
use store::{
    AllMessages, AppendError, GetLimits, GetStatus, KeyQuery, MessageStore, PutError, PutTicket,
};

use super::model::{Issued, Model, topic_name};
use super::setup::{ROOT, Setup, Ticks};
use crate::fault::seeds::tell;

/// A store that is open, and what is waited for.
pub struct Life<'a> {
    pub setup: &'a Setup,
    pub io: &'a SimIo,
    pub clock: &'a Arc<Ticks>,
    pub store: MessageStore<SimIo>,
    pub random: &'a mut Random,
    pub model: &'a mut Model,
    /// Tickets that are not resolved, by the end of what they are for.
    waiting: Vec<(u64, PutTicket)>,
    /// A fault was injected: operations may fail from now on.
    pub is_faulty: bool,
    /// Everything below was in the files, and seen by readers, before the last operation: a kill
    /// leaves it.
    pub committed: u64,
}

/// How a store was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Open, between two operations.
    Open,
    /// Closed.
    Closed,
    /// The machine died in the middle of an operation.
    Dead,
}

/// Operations that producers' failures may have.
const ERROR_KINDS: [ErrorKind; 2] = [ErrorKind::Other, ErrorKind::Interrupted];

impl<'a> Life<'a> {
    pub fn new(
        setup: &'a Setup,
        io: &'a SimIo,
        clock: &'a Arc<Ticks>,
        store: MessageStore<SimIo>,
        random: &'a mut Random,
        model: &'a mut Model,
    ) -> Self {
        Self {
            setup,
            io,
            clock,
            store,
            random,
            model,
            waiting: Vec::new(),
            is_faulty: false,
            committed: 0,
        }
    }

    /// Does one operation, and takes in what it made durable, unless the machine died meanwhile:
    /// then nobody heard of it. The count of messages issued before it.
    pub fn step(&mut self) -> Result<Left> {
        let left = self.operation()?;
        if self.io.is_wrecked() {
            return Ok(Left::Dead);
        }
        self.collect_acknowledgements()?;
        // After a failure less is shown than is there.
        self.committed = self.committed.max(self.store.log().visible());
        Ok(left)
    }

    /// How many messages a kill leaves.
    pub fn in_files(&self) -> usize {
        if self.setup.is_staged() || self.setup.is_sync() {
            let committed = self.committed;
            self.model
                .issued
                .partition_point(|message| message.end() <= committed)
        } else {
            self.model.issued.len()
        }
    }

    fn operation(&mut self) -> Result<Left> {
        let choice = self.random.below(100);
        tell(|| format!("operation {choice}"));
        match choice {
            0..34 => self.put()?,
            34..38 => self.put_batch()?,
            38..50 => self.get()?,
            50..53 => self.query()?,
            53..58 if self.setup.is_staged() => drop(self.store.log().step_commit()),
            53..63 => drop(self.store.log().step_flush()),
            63..66 => self.flush_now()?,
            66..78 => drop(self.allow(|life| Ok(life.store.step_dispatch()?))?),
            78..83 => drop(self.allow(|life| Ok(life.store.step_flush_derived()?))?),
            83..87 => self.io.writeback(),
            87..90 => drop(self.store.log().step_prepare()),
            90..92 => self.clock.leap(self.random.pick(&[600, 600, 11_000])),
            92 => drop(self.store.log().step_deadlines()),
            93 if self.setup.has_trims => self.trim()?,
            94 if self.setup.has_deletes => self.delete_topic()?,
            95 if self.setup.has_errors => self.break_device(),
            96 if self.setup.has_full_disk => self.fill_disk(),
            97 => self.repair_device(),
            98 if self.random.once_in(3) => return self.close(),
            _ => self.put()?,
        }
        Ok(Left::Open)
    }

    fn put(&mut self) -> Result<()> {
        let (topic, queue_id) = self.pick_queue();
        let sys_flag = match self.random.below(20) {
            0 => SysFlag::TRANSACTION_PREPARED,
            1 => SysFlag::TRANSACTION_ROLLBACK,
            2 => SysFlag::TRANSACTION_COMMIT,
            _ => SysFlag::default(),
        };
        let body = self.body();
        let (properties, keys) = self.properties();
        let flag = self.random.next() as i32;
        let name = topic_name(topic);
        let outcome = self.store.put(&message(
            &name,
            queue_id,
            flag,
            sys_flag,
            &body,
            &properties,
        ));
        let appended = match outcome {
            Ok(appended) => appended,
            Err(error) => return self.refused(&error),
        };
        self.issue(Issued {
            topic,
            queue_id,
            generation: 0,
            queue_offset: sys_flag
                .transaction()
                .takes_queue_offset()
                .then_some(appended.queue_offset),
            physical_offset: appended.physical_offset,
            len: u64::from(appended.len),
            store_ms: appended.store_timestamp_ms,
            flag,
            body,
            properties,
            keys,
            is_indexed: sys_flag.transaction() != Transaction::Rollback,
            is_durable: false,
            survives_kill: false,
        })?;
        let end = appended.physical_offset + u64::from(appended.len);
        self.waiting.push((end, appended.ticket));
        Ok(())
    }

    fn put_batch(&mut self) -> Result<()> {
        let (topic, queue_id) = self.pick_queue();
        let mut batch = Vec::new();
        let mut parts = Vec::new();
        for _ in 0..self.random.between(1, 6) {
            let body_len = self.random.below(300) as usize;
            let body = self.random.bytes(body_len);
            let (properties, keys) = self.properties();
            let flag = self.random.next() as i32;
            encode_batch_message(
                &BatchMessage {
                    flag,
                    body: &body,
                    properties: properties.as_bytes(),
                },
                &mut batch,
            )?;
            parts.push((flag, body, properties, keys));
        }
        let name = topic_name(topic);
        let outcome =
            self.store
                .put_batch(&message(&name, queue_id, 0, SysFlag::default(), &batch, ""));
        let put = match outcome {
            Ok(put) => put,
            Err(error) => return self.refused(&error),
        };
        let end = put.appended.physical_offset + put.appended.len;
        let ends = put.physical_offsets.iter().copied().skip(1).chain([end]);
        let offsets = put.physical_offsets.iter().zip(ends).zip(parts);
        for (index, ((&offset, end), (flag, body, properties, keys))) in (0..).zip(offsets) {
            self.issue(Issued {
                topic,
                queue_id,
                generation: 0,
                queue_offset: Some(put.appended.queue_offset + index),
                physical_offset: offset,
                len: end - offset,
                store_ms: put.appended.store_timestamp_ms,
                flag,
                body,
                properties,
                keys,
                is_indexed: true,
                is_durable: false,
                survives_kill: false,
            })?;
        }
        self.waiting.push((end, put.appended.ticket));
        Ok(())
    }

    /// Takes a stored message into the model.
    fn issue(&mut self, mut message: Issued) -> Result<()> {
        ensure!(
            message.physical_offset >= self.model.end(),
            "a record at {} before the end at {}",
            message.physical_offset,
            self.model.end()
        );
        let queue = self.model.queue(message.queue());
        message.generation = queue.generation;
        if let Some(offset) = message.queue_offset {
            ensure!(
                offset == queue.next_offset,
                "queue {:?} goes on with {offset}, not with {}",
                (message.topic, message.queue_id),
                queue.next_offset
            );
            queue.next_offset += 1;
        }
        tell(|| {
            format!(
                "put {} of {}-{} ({}) at {} of {} bytes, keys {:?}",
                message.queue_offset.unwrap_or(-1),
                message.topic,
                message.queue_id,
                message.generation,
                message.physical_offset,
                message.len,
                message.keys
            )
        });
        self.model.issued.push(message);
        Ok(())
    }

    /// A refusal must have a reason.
    fn refused(&mut self, error: &PutError) -> Result<()> {
        match error {
            PutError::Append(AppendError::TooLarge { .. }) => Ok(()),
            PutError::Append(AppendError::Busy { .. }) if self.setup.is_fast_failing() => Ok(()),
            PutError::Append(AppendError::Failed(_)) => {
                ensure!(
                    self.store.log().failure().is_some(),
                    "refused as failed, but nothing has"
                );
                ensure!(self.is_faulty, "failed without a fault: {error}");
                Ok(())
            }
            _ if self.is_faulty => Ok(()),
            _ => bail!("a put was refused without a fault: {error}"),
        }
    }

    fn get(&mut self) -> Result<()> {
        let (topic, queue_id) = self.pick_queue();
        let name = topic_name(topic);
        let max = self.store.max_offset(&name, queue_id).unwrap_or(0);
        let offset = self.random.below(max.cast_unsigned() + 2).cast_signed();
        let limits = GetLimits {
            count_max: self.random.between(1, 40) as usize,
            bytes_max: 1 << 20,
        };
        let read = self.allow(|life| {
            Ok(life
                .store
                .get(&name, queue_id, offset, &limits, &AllMessages)?)
        })?;
        let Some(got) = read else { return Ok(()) };
        if got.status == GetStatus::Found {
            let mut next = offset;
            for view in got.messages.records() {
                let place = view.physical_offset().cast_unsigned();
                let Some(message) = self.model.at(place) else {
                    bail!("a reader got a message at {place} that nobody has put");
                };
                message.check(&view)?;
                ensure!(
                    message.queue() == (topic, queue_id) && message.queue_offset >= Some(next),
                    "queue {topic}-{queue_id} shows a message of another place at {next}"
                );
                next = message.queue_offset.unwrap_or(0) + 1;
                self.saw(place);
            }
            ensure!(next > offset, "messages were found, and none is there");
        }
        Ok(())
    }

    /// In sync mode, and after a failed sync, readers see only what is durable.
    fn saw(&mut self, physical_offset: u64) {
        let is_held = self.setup.is_sync() || self.store.log().failure().is_some();
        let issued = &mut self.model.issued;
        if is_held
            && !self.io.is_wrecked()
            && let Ok(index) =
                issued.binary_search_by_key(&physical_offset, |message| message.physical_offset)
        {
            issued[index].is_durable = true;
        }
    }

    fn query(&mut self) -> Result<()> {
        let Some(index) = self.some_issued() else {
            return Ok(());
        };
        let message = &self.model.issued[index];
        let Some(key) = message.keys.first().cloned() else {
            return Ok(());
        };
        let (topic, offset) = (topic_name(message.topic), message.physical_offset);
        let query = KeyQuery {
            topic: &topic,
            key: &key,
            count_max: 64,
            begin_ms: 0,
            end_ms: i64::MAX,
        };
        let Some(answer) = self.allow(|life| Ok(life.store.query(&query)?))? else {
            return Ok(());
        };
        for view in answer.messages.records() {
            let place = view.physical_offset().cast_unsigned();
            let Some(found) = self.model.at(place) else {
                bail!("key {key} of {offset} finds a message at {place} that nobody has put");
            };
            found.check(&view)?;
            self.saw(place);
        }
        Ok(())
    }

    fn flush_now(&mut self) -> Result<()> {
        let end = self.store.log().max_offset();
        if let Some(flushed) = self.allow(|life| Ok(life.store.log().flush_now()?))? {
            ensure!(
                flushed >= end,
                "flushed up to {flushed}, and {end} was asked for"
            );
        }
        Ok(())
    }

    /// Removes old segments, if the log has grown over its bound.
    fn trim(&mut self) -> Result<()> {
        // Whatever the plan: never what is not flushed.
        self.model.min_at_most = self.store.log().flushed();
        let cleaned = self.allow(|life| Ok(life.store.step_clean(&mut |_| true)?))?;
        self.model.cleaned_to = self.model.cleaned_to.max(self.store.log().min_offset());
        if !self.io.is_wrecked() {
            let min = self.store.log().min_offset();
            tell(|| format!("the log begins at {min}"));
            self.model.min_at_most = min;
            // A removal whose sync has failed may come back.
            if cleaned.is_some() && !self.is_faulty {
                self.model.min_at_least = min;
            }
        }
        Ok(())
    }

    fn delete_topic(&mut self) -> Result<()> {
        // One that fails half way leaves what nobody has promised anything about.
        if self.is_faulty {
            return Ok(());
        }
        let topic = self.random.below(self.setup.topics);
        let name = topic_name(topic);
        tell(|| format!("delete {name}"));
        self.allow(|life| Ok(life.store.delete_topic(&name)?))?;
        self.model.delete_topic(topic);
        Ok(())
    }

    fn break_device(&mut self) {
        let op = self.random.pick(&[
            "*",
            "*",
            "sync_data",
            "msync",
            "write",
            "sync_dir",
            "create",
            "rename",
            "allocate",
            "read",
            "open",
            "map",
            "remove",
        ]);
        let kind = self.random.pick(&ERROR_KINDS);
        self.is_faulty = true;
        let nth = self.random.between(1, 12);
        tell(|| format!("the {nth}th `{op}` fails"));
        if self.random.once_in(4) {
            self.io.fail_from(op, nth, kind);
        } else {
            self.io.fail_nth(op, nth, kind);
        }
    }

    fn fill_disk(&mut self) {
        let left = self.random.pick(&[0, 4096, 20_000, 100_000]);
        if let Ok(space) = self.io.space(Path::new(ROOT)) {
            self.is_faulty = true;
            self.io.space_limit(space.total - space.available + left);
        }
    }

    /// The faults end. What failed by them may stay so until the store is opened again.
    fn repair_device(&mut self) {
        self.io.clear_faults();
        self.io.space_limit(u64::MAX / 4);
    }

    fn close(&mut self) -> Result<Left> {
        match self.allow(|life| Ok(life.store.close()?))? {
            Some(()) => Ok(Left::Closed),
            None => Ok(Left::Open),
        }
    }

    /// An operation that may fail only if a fault was injected.
    fn allow<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match operation(self) {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.is_faulty => {
                tell(|| format!("failed: {error:#}"));
                Ok(None)
            }
            Err(error) => Err(error).context("an operation failed without a fault"),
        }
    }

    fn collect_acknowledgements(&mut self) -> Result<()> {
        let log = self.store.log();
        let flushed = log.flushed();
        let (model, is_faulty) = (&mut *self.model, self.is_faulty);
        let mut durable_to = flushed;
        let mut failed = None;
        self.waiting
            .retain(|(end, ticket)| match ticket.try_ready() {
                None => true,
                Some(Ok(durable)) => {
                    // In async mode the policy is met at once.
                    if durable.flushed >= *end {
                        durable_to = durable_to.max(*end);
                    }
                    false
                }
                Some(Err(error)) => {
                    failed = Some(error);
                    false
                }
            });
        if let Some(error) = failed {
            let is_timeout = matches!(error, store::FlushError::Timeout { .. });
            ensure!(is_faulty || is_timeout, "a ticket failed: {error}");
        }
        model.flushed_to(durable_to);
        ensure!(
            flushed <= log.max_offset(),
            "flushed beyond the end of the log"
        );
        Ok(())
    }

    fn pick_queue(&mut self) -> (u64, i32) {
        let topic = self.random.below(self.setup.topics);
        (topic, self.random.below(self.setup.queues) as i32)
    }

    fn some_issued(&mut self) -> Option<usize> {
        let count = self.model.issued.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    /// Short ones, long ones, and some about as long as a segment.
    fn body(&mut self) -> Vec<u8> {
        let segment_len = self.setup.options.segment_len;
        let len = match self.random.below(40) {
            0..20 => self.random.below(200),
            20..36 => self.random.below(2_000),
            36..39 => self.random.below(6_000),
            _ => segment_len - self.random.between(60, 400),
        };
        match self.random.below(8) {
            0 => vec![0; len as usize],
            1 => vec![0xAB; len as usize],
            _ => self.random.bytes(len as usize),
        }
    }

    fn properties(&mut self) -> (String, Vec<String>) {
        self.model.serial += 1;
        let number = self.model.serial;
        let mut keys = Vec::new();
        let mut text = String::new();
        if !self.random.once_in(8) {
            keys.push(format!("key-{number}"));
        }
        if self.random.once_in(6) {
            keys.push(format!("group-{}", number % 5));
        }
        if !keys.is_empty() {
            text += &format!("KEYS\u{1}{}\u{2}", keys.join(" "));
        }
        if self.random.once_in(3) {
            let unique = format!("UNIQ{number}");
            text += &format!("UNIQ_KEY\u{1}{unique}\u{2}");
            keys.push(unique);
        }
        if self.random.once_in(20) {
            let len = self.random.below(1_500) as usize;
            text += &format!("long\u{1}{}\u{2}", "x".repeat(len + 1));
        }
        if self.random.once_in(2) {
            text += &format!("TAGS\u{1}Tag{}\u{2}", number % 3);
        }
        (text, keys)
    }
}

fn message<'a>(
    topic: &'a str,
    queue_id: i32,
    flag: i32,
    sys_flag: SysFlag,
    body: &'a [u8],
    properties: &'a str,
) -> Message<'a> {
    Message {
        topic,
        queue_id,
        flag,
        sys_flag,
        born_timestamp_ms: 1,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_host: ([127, 0, 0, 1], 2).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: properties.as_bytes(),
    }
}

//! Our store, taken through the steps of a script in this process.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use message::Message;
use store::{
    AllMessages, FlushMode, GetLimits, IndexOptions, KeyQuery, MessageStore, StoreOptions,
};

use super::script::{self, Answer, Found, Place, Put, Served, Step, body};
use crate::process::poll;

/// How long the dispatching thread may be behind.
const DISPATCH_LIMIT: Duration = Duration::from_secs(30);

/// Opens the store, takes the steps, and leaves it as a dying process does.
pub(super) fn run(place: &Place, steps: &[Step]) -> Result<Vec<Answer>> {
    let store = match MessageStore::open(options(place)) {
        Ok((store, report)) => {
            println!("     {}: {report}", place.name);
            store
        }
        Err(error) => {
            println!("     {}: does not start: {error}", place.name);
            return Ok(vec![Answer::Open { started: false }]);
        }
    };
    let mut answers = vec![Answer::Open { started: true }];
    let mut refusals = Vec::new();
    for step in steps {
        match step {
            Step::Put {
                topic,
                queue_id,
                key,
                body_len,
            } => {
                let (put, refusal) = put(&store, topic, *queue_id, key, *body_len);
                answers.push(Answer::Put(put));
                refusals.extend(refusal);
            }
            Step::Dump => dump(&store, &mut answers)?,
            Step::Find { topic, key } => answers.push(find(&store, topic, key)?),
            Step::Pause => std::thread::sleep(script::PAUSE),
            Step::Intrude => {
                super::run_script(&place.dir, "intruder", &script::line(step, place))?;
            }
            Step::Close => store.close()?,
        }
    }
    if let Some(first) = refusals.first() {
        println!(
            "       {} puts are refused, the first: {first}",
            refusals.len()
        );
    }
    // In sync mode every acknowledged message is where it has to be.
    if steps.last() != Some(&Step::Close) && !place.shape.is_sync {
        await_dispatch(&store)?;
    }
    Ok(answers)
}

fn options(place: &Place) -> StoreOptions {
    let mut options = StoreOptions::new(place.store());
    options.segment_len = place.shape.segment_len;
    options.queue_file_len = place.shape.queue_file_len;
    options.extension_file_len = script::EXTENSION_FILE_LEN;
    options.writes_extensions = place.shape.is_extended;
    if place.shape.is_sync {
        options.flush = FlushMode::sync_default();
    }
    options.index = Some(IndexOptions {
        slot_count: place.shape.slot_count,
        entry_count_max: place.shape.entry_count_max,
        ..IndexOptions::DEFAULT
    });
    options
}

/// Puts a message and waits until it is as durable as promised; with why it was refused.
fn put(
    store: &MessageStore,
    topic: &str,
    queue_id: i32,
    key: &str,
    body_len: usize,
) -> (Put, Option<String>) {
    let body = body(key, body_len);
    let properties = format!("KEYS\u{1}{key}\u{2}");
    let put = store.put(&Message {
        topic,
        queue_id,
        flag: 0,
        sys_flag: Default::default(),
        born_timestamp_ms: 1,
        born_host: ([127, 0, 0, 1], 1_234).into(),
        store_host: ([127, 0, 0, 1], 10_911).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: &body,
        properties: properties.as_bytes(),
    });
    let outcome = put.map_err(anyhow::Error::from).and_then(|put| {
        let place = (put.queue_offset, put.physical_offset as i64);
        put.ticket.wait()?;
        Ok(place)
    });
    let (queue_offset, offset) = outcome.as_ref().copied().unwrap_or_default();
    let put = Put {
        acknowledged: outcome.is_ok(),
        topic: topic.to_owned(),
        queue_id,
        key: key.to_owned(),
        queue_offset,
        offset,
        body_crc: message::body_crc(&body),
    };
    (put, outcome.err().map(|refusal| format!("{refusal:#}")))
}

fn dump(store: &MessageStore, answers: &mut Vec<Answer>) -> Result<()> {
    await_dispatch(store)?;
    for (topic, queue_count) in store.topics() {
        for queue_id in 0..queue_count {
            queue(store, &topic, queue_id, answers)?;
        }
    }
    Ok(())
}

/// Reads a queue message by message.
fn queue(
    store: &MessageStore,
    topic: &str,
    queue_id: i32,
    answers: &mut Vec<Answer>,
) -> Result<()> {
    let limits = GetLimits {
        count_max: 1,
        bytes_max: 1,
    };
    let mut next = store.min_offset(topic, queue_id).unwrap_or(0);
    while next < store.max_offset(topic, queue_id).unwrap_or(0) {
        let got = store.get(topic, queue_id, next, &limits, &AllMessages)?;
        ensure!(got.next_offset > next, "{topic}-{queue_id} stuck at {next}");
        next = got.next_offset;
        answers.extend(got.messages.records().map(|view| {
            Answer::Message(Served {
                topic: topic.to_owned(),
                queue_id,
                slot: next - 1,
                offset: Some(view.physical_offset()),
                body_crc: message::body_crc(view.body()),
            })
        }));
    }
    Ok(())
}

fn find(store: &MessageStore, topic: &str, key: &str) -> Result<Answer> {
    let answer = store.query(&KeyQuery {
        topic,
        key,
        count_max: store::QUERY_COUNT_MAX,
        begin_ms: 0,
        end_ms: i64::MAX,
    })?;
    Ok(Answer::Find(Found {
        topic: topic.to_owned(),
        key: key.to_owned(),
        offsets: answer
            .messages
            .records()
            .map(|view| view.physical_offset())
            .collect(),
    }))
}

fn await_dispatch(store: &MessageStore) -> Result<()> {
    let is_done = || (store.dispatch_behind_bytes() == 0).then_some(());
    poll(DISPATCH_LIMIT, is_done).context("the dispatching thread does not catch up")
}

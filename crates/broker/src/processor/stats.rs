//! How it goes: of a group (208, 303), of the broker (26, 28, 315).
//!
//! RocketMQ 5.3.3 `AdminBrokerProcessor`.

use std::collections::BTreeMap;
use std::sync::Arc;

use message::names::topic as topic_names;
use mmap_core::{Io, OsIo, Space, StagePool, counters};
use remoting::body::{
    ConsumeStats, KVTable, OffsetWrapper, QueryConsumeTimeSpanBody, QueueTimeSpan,
};
use remoting::header::{
    GetBrokerConfigResponseHeader, GetConsumeStatsRequestHeader, QueryConsumeTimeSpanRequestHeader,
    ViewBrokerStatsDataRequestHeader,
};
use remoting::{CommandView, ResponseCode, json, properties};

use store::DiskUse;

use super::{Outcome, Refusal, topic};
use crate::broker::Broker;
use crate::server::Exchange;
use crate::traffic::Counts;

/// Request 208: how far a group is behind.
///
/// # Errors
/// The header is malformed, or a queue cannot be read.
pub fn consume(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetConsumeStatsRequestHeader<'_> = request.header()?;
    let group = header.consumer_group;
    let list = header.topic_list.unwrap_or_default();
    let named: Vec<String> = match header.topic {
        Some(one) if !one.is_empty() => vec![one.to_owned()],
        _ => list
            .split(';')
            .filter(|one| !one.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    let names = if named.is_empty() {
        broker.offsets.topics_of_group(group).into_iter().collect()
    } else {
        named
    };
    let mut stats = ConsumeStats::default();
    for name in names {
        let is_online = broker.consumers.kind(group).is_some();
        if is_online && broker.consumers.subscription(group, &name).is_none() {
            continue;
        }
        let Some(config) = broker.topics.find(&name) else {
            continue;
        };
        for queue_id in 0..config.read_queue_nums {
            let wrapper = behind(broker, group, &name, queue_id)?;
            stats
                .offset_table
                .insert(topic::queue_of(broker, &name, queue_id), wrapper);
        }
    }
    super::json_body(exchange, &stats)
}

fn behind(
    broker: &Broker,
    group: &str,
    name: &str,
    queue_id: i32,
) -> Result<OffsetWrapper, Refusal> {
    let broker_offset = broker.store.max_offset(name, queue_id).unwrap_or(0);
    let consumer_offset = broker
        .offsets
        .committed(group, name, queue_id)
        .unwrap_or(0)
        .max(0);
    let pulled = broker.offsets.pulled(group, name, queue_id).unwrap_or(0);
    let last = (consumer_offset > 0).then(|| {
        broker
            .store
            .store_time_at(name, queue_id, consumer_offset - 1)
    });
    let last = last.transpose()?.flatten();
    Ok(OffsetWrapper {
        broker_offset,
        consumer_offset,
        last_timestamp: last.unwrap_or(0),
        pull_offset: pulled.max(consumer_offset),
    })
}

/// Request 303: the times between which a group's messages lie, and how late it is.
///
/// # Errors
/// The topic does not exist, or a queue cannot be read.
pub fn time_span(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: QueryConsumeTimeSpanRequestHeader<'_> = request.header()?;
    let (name, group) = (header.topic, header.group);
    let config = topic::find(broker, name)?;
    let mut body = QueryConsumeTimeSpanBody::default();
    for queue_id in 0..config.write_queue_nums {
        let time_at = |offset: i64| {
            let time = broker.store.store_time_at(name, queue_id, offset);
            time.map(|time| time.unwrap_or(-1)).map_err(Refusal::error)
        };
        let min = broker.store.min_offset(name, queue_id).unwrap_or(0);
        let max = broker.store.max_offset(name, queue_id).unwrap_or(0);
        let consumed = broker.offsets.committed(group, name, queue_id).unwrap_or(0);
        let min_time_stamp = time_at(min)?;
        let delay_time = match consumed < max {
            true => crate::clock::now_ms().saturating_sub(time_at(consumed.max(min))?),
            false => 0,
        };
        body.consume_time_span_set.push(QueueTimeSpan {
            consume_time_stamp: if consumed > 0 {
                time_at(consumed - 1)?
            } else {
                min_time_stamp
            },
            delay_time,
            max_time_stamp: time_at(max - 1)?,
            message_queue: topic::queue_of(broker, name, queue_id),
            min_time_stamp,
        });
    }
    super::json_body(exchange, &body)
}

/// Request 28: the table of `brokerStatus` and `clusterList`. Tools read some rows as numbers, so
/// rows of what this broker does not have are there, and 0.
///
/// # Errors
/// Never but for a bug in the encoder.
pub fn runtime(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    let mut table = BTreeMap::new();
    put_traffic(broker, &mut table);
    put_store(broker, &mut table);
    for name in ["send", "pull", "litePull", "query", "ack"] {
        for (what, value) in [("Size", "0"), ("Capacity", "0")] {
            table.insert(format!("{name}ThreadPoolQueue{what}"), value.to_owned());
        }
        table.insert(
            format!("{name}ThreadPoolQueueHeadWaitTimeMills"),
            "0".to_owned(),
        );
    }
    for name in [
        "EndTransactionQueueSize",
        "EndTransactionThreadPoolQueueCapacity",
        "msgGetTotalTodayMorning",
        "msgGetTotalYesterdayMorning",
        "msgPutTotalTodayMorning",
        "msgPutTotalYesterdayMorning",
        "pageCacheLockTimeMills",
        "startAcceptSendRequestTimeStamp",
        "timerCongestNum",
        "timerOffsetBehind",
        "timerReadBehind",
    ] {
        table.insert(name.to_owned(), "0".to_owned());
    }
    let stage = broker.store.log().stage_pool();
    table.insert(
        "remainTransientStoreBufferNumbs".to_owned(),
        stage.map_or(0, StagePool::available).to_string(),
    );
    for name in ["timerDequeueTps", "timerEnqueueTps"] {
        table.insert(name.to_owned(), "0.0".to_owned());
    }
    super::json_body(exchange, &KVTable { table })
}

fn put_traffic(broker: &Broker, table: &mut BTreeMap<String, String>) {
    let now_ms = crate::clock::now_ms();
    let traffic = &broker.traffic;
    let counts = traffic.counts();
    let Counts {
        put,
        put_bytes,
        put_failed,
        got,
        ..
    } = counts;
    let average = if put == 0 {
        0.0
    } else {
        put_bytes as f64 / put as f64
    };
    let elapsed = (now_ms - traffic.started_ms()).max(0) / 1000;
    let runtime = format!(
        "[ {} days, {} hours, {} minutes, {} seconds ]",
        elapsed / 86_400,
        elapsed / 3600 % 24,
        elapsed / 60 % 60,
        elapsed % 60
    );
    let rows = [
        ("bootTimestamp", traffic.started_ms().to_string()),
        ("runtime", runtime),
        ("msgPutTotalTodayNow", put.to_string()),
        ("msgGetTotalTodayNow", got.to_string()),
        ("putMessageTimesTotal", put.to_string()),
        ("putMessageFailedTimes", put_failed.to_string()),
        ("putMessageSizeTotal", put_bytes.to_string()),
        ("putMessageAverageSize", average.to_string()),
        ("putTps", traffic.rates(now_ms, |counts| counts.put)),
        ("getFoundTps", traffic.rates(now_ms, |counts| counts.got)),
        (
            "getMissTps",
            traffic.rates(now_ms, |counts| counts.got_nothing),
        ),
        (
            "getTotalTps",
            traffic.rates(now_ms, |counts| counts.got + counts.got_nothing),
        ),
        (
            "getTransferredTps",
            traffic.rates(now_ms, |counts| counts.got),
        ),
        (
            "getTransferedTps",
            traffic.rates(now_ms, |counts| counts.got),
        ),
    ];
    table.extend(rows.map(|(name, value)| (name.to_owned(), value)));
}

fn put_store(broker: &Broker, table: &mut BTreeMap<String, String>) {
    let store = &broker.store;
    let log = store.log();
    let root = &store.options().root;
    let space = OsIo.space(root).unwrap_or(Space {
        total: 0,
        free: 0,
        available: 0,
        id: 0,
    });
    let health = store.health();
    let ratio = |disk: Option<DiskUse>| {
        let disk = disk.unwrap_or_else(|| DiskUse::of(space));
        (f64::from(disk.percent()) / 100.0).to_string()
    };
    let mib = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1_048_576.0);
    let earliest = store.earliest_store_time().unwrap_or(-1);
    let rows = [
        ("brokerActive", "true".to_owned()),
        ("brokerVersion", remoting::VERSION.to_string()),
        ("brokerVersionDesc", "V5_3_3".to_owned()),
        ("foliomqVersion", env!("CARGO_PKG_VERSION").to_owned()),
        ("commitLogMinOffset", log.min_offset().to_string()),
        ("commitLogMaxOffset", log.max_offset().to_string()),
        ("commitLogDiskRatio", ratio(health.log_disk)),
        ("consumeQueueDiskRatio", ratio(health.queue_disk)),
        (
            "commitLogDirCapacity",
            format!(
                "Total : {}, Free : {}.",
                mib(space.total),
                mib(space.available)
            ),
        ),
        (
            "dispatchBehindBytes",
            store.dispatch_behind_bytes().to_string(),
        ),
        (
            "remainHowManyDataToFlush",
            mib(log.max_offset().saturating_sub(log.flushed())),
        ),
        ("earliestMessageTimeStamp", earliest.to_string()),
        ("foliomq.mappedBytes", counters::mapped_bytes().to_string()),
        ("foliomq.mappedFiles", counters::mapped_files().to_string()),
        (
            "foliomq.coldReads",
            broker.readers.begun_count().to_string(),
        ),
        (
            "foliomq.coldReadsWaiting",
            broker.readers.waiting_count().to_string(),
        ),
    ];
    table.extend(rows.map(|(name, value)| (name.to_owned(), value)));
    if let Some(failure) = log.failure() {
        table.insert("storeFailure".to_owned(), store::health::chain(failure));
    }
    if let Some(failure) = log.segments().lock_failure() {
        table.insert(
            "foliomq.commitLogLockFailure".to_owned(),
            failure.to_owned(),
        );
    }
    let is_writable = health.refusal.is_none();
    table.insert("storeWritable".to_owned(), is_writable.to_string());
    if let Some(refusal) = health.refusal {
        table.insert("storeRefusal".to_owned(), refusal);
    }
    for trouble in health.troubles.into_iter().chain(broker.troubles.list()) {
        let (name, since, reason) = (trouble.name, trouble.since_ms, trouble.reason);
        table.insert(
            format!("trouble.{name}"),
            format!("since {since}: {reason}"),
        );
    }
    for level in 1..=store.options().delay_levels.max() {
        let max = store
            .max_offset(topic_names::SCHEDULE, level - 1)
            .unwrap_or(0);
        let offset = broker.delays.find(level).unwrap_or(0);
        table.insert(
            format!("scheduleMessageOffset_{level}"),
            format!("{offset},{max}"),
        );
    }
}

/// Request 26: the configuration, as far as it is RocketMQ's.
///
/// # Errors
/// Never but for a bug in the encoder.
pub fn configuration(broker: &Arc<Broker>, exchange: &mut Exchange<'_>) -> Outcome {
    let pairs = crate::config::keys::effective(&broker.config);
    let text = properties::format(pairs.iter().map(|(key, value)| (*key, value.as_str())));
    let version = json::encode(&broker.topics.version())?;
    let version = String::from_utf8_lossy(&version);
    let header = GetBrokerConfigResponseHeader { version: &version };
    let fields = |writer: &mut remoting::HeaderWriter<'_>| writer.header(&header);
    Ok(exchange.write(ResponseCode::SUCCESS, None, fields, text.as_bytes()))
}

/// Request 315: RocketMQ's statistics items, of which this broker keeps none yet.
///
/// # Errors
/// Always, as Java's for an item that was never counted.
pub fn broker_stats(request: &CommandView<'_>) -> Outcome {
    let header: ViewBrokerStatsDataRequestHeader<'_> = request.header()?;
    let remark = format!(
        "The stats <{}> <{}> not exist",
        header.stats_name, header.stats_key
    );
    Err(Refusal::error(remark))
}

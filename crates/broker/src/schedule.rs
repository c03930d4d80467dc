//! Delay levels: a delayed message is parked in `SCHEDULE_TOPIC_XXXX`, in the queue of its level,
//! and put to its real topic when it is due.
//!
//! RocketMQ 5.3.3 `ScheduleMessageService`, `HookUtils.transformDelayLevelMessage`. One thread
//! delivers for all levels: each queue is in the order of its due times, so that only its first
//! message is looked at. How far each level has come is in `delayOffset.json`; after a crash
//! messages of the last seconds are delivered again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use message::names::{property, topic as topic_names};
use message::{Message, Parsed, Properties, PropertiesBuilder, RecordView};

use crate::broker::Broker;
use crate::processor::Refusal;

/// How often queues are looked at whose first message is not due. RocketMQ's is the same.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Messages of one level delivered before the other levels have their turn.
const TURN_COUNT: usize = 1000;

/// A delayed message as it is stored until it is due.
#[derive(Debug)]
pub struct Parked {
    /// The queue of its level.
    pub queue_id: i32,
    /// Its properties, with the real topic and queue.
    pub properties: Vec<u8>,
}

/// What parking changes in a message; a level above the highest is the highest.
///
/// # Errors
/// The properties become too long or hold what cannot be written.
pub fn park(broker: &Broker, message: &Message<'_>, level: i32) -> Result<Parked, Refusal> {
    let level = level.min(broker.store.options().delay_levels.max());
    let mut properties = PropertiesBuilder::from(Properties::new(message.properties));
    let queue_id = message.queue_id.to_string();
    for (name, value) in [
        (property::DELAY, level.to_string().as_str()),
        (property::REAL_TOPIC, message.topic),
        (property::REAL_QUEUE_ID, &queue_id),
    ] {
        properties.replace(name, value).map_err(Refusal::error)?;
    }
    for name in [
        property::TIMER_DELAY_SEC,
        property::TIMER_DELAY_MS,
        property::TIMER_DELIVER_MS,
    ] {
        properties.remove(name);
    }
    Ok(Parked {
        queue_id: level - 1,
        properties: properties.finish(),
    })
}

/// The delivering thread. Dropping it stops and joins it.
#[derive(Debug)]
pub struct Delivery {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delivery {
    /// Starts to deliver.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(broker: Arc<Broker>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("delay-delivery".to_owned())
            .spawn(move || run(&broker, &stopped))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic has been printed by the panic hook.
            let _panicked = thread.join();
        }
    }
}

fn run(broker: &Broker, stop: &AtomicBool) {
    let mut save_at = Instant::now() + broker.config.groups.delay_offset_flush_interval;
    while !stop.load(Ordering::Acquire) {
        let mut delivered = 0;
        for level in 1..=broker.store.options().delay_levels.max() {
            delivered += deliver_level(broker, level);
        }
        let now = Instant::now();
        if now >= save_at {
            broker.save_delays();
            save_at = now + broker.config.groups.delay_offset_flush_interval;
        }
        if delivered == 0 {
            std::thread::park_timeout(POLL_INTERVAL);
        }
    }
    broker.save_delays();
}

/// Delivers what is due of one level, at most [`TURN_COUNT`]; returns how many.
fn deliver_level(broker: &Broker, level: i32) -> usize {
    let queue_id = level - 1;
    let store = &broker.store;
    let Some(max) = store.max_offset(topic_names::SCHEDULE, queue_id) else {
        return 0;
    };
    let min = store
        .min_offset(topic_names::SCHEDULE, queue_id)
        .unwrap_or(0);
    let mut offset = broker.delays.find(level).unwrap_or(min).clamp(min, max);
    let begin = offset;
    let now_ms = crate::clock::now_ms();
    while offset < max && (offset - begin) < TURN_COUNT as i64 {
        let Ok(Some(entry)) = store.entry(topic_names::SCHEDULE, queue_id, offset) else {
            break;
        };
        let delays = &store.options().delay_levels;
        let latest_ms = delays.due_ms(level, now_ms).unwrap_or(now_ms);
        // A due time further away than the level's delay comes from a clock that was set back.
        let due_ms = if entry.tags_code > latest_ms {
            now_ms
        } else {
            entry.tags_code
        };
        if due_ms > now_ms {
            break;
        }
        let found = match u64::try_from(entry.physical_offset) {
            Ok(at) => store.record_at(at),
            Err(_) => Ok(None),
        };
        let record = found.unwrap_or_else(|error| {
            let error = store::health::chain(&error);
            tracing::error!(level, offset, error, "a delayed message cannot be read");
            None
        });
        match record.as_deref().map(RecordView::parse) {
            Some(Ok(Parsed::Record(view))) => {
                if let Err(error) = deliver(broker, &view) {
                    tracing::warn!(level, offset, error = %error.remark, "not delivered; tried again");
                    break;
                }
            }
            // As in RocketMQ a message that is gone is passed over; one that should be there is
            // worth a line.
            _ if entry.physical_offset.cast_unsigned() >= store.log().min_offset() => {
                let at = entry.physical_offset;
                tracing::error!(level, offset, at, "a delayed message is not delivered");
            }
            _ => {}
        }
        offset += 1;
    }
    broker.delays.update(level, offset);
    usize::try_from(offset - begin).unwrap_or(0)
}

/// Puts a due message to its real topic. Its stored properties keep what parking added, as
/// RocketMQ's do, so the level is taken out of what decides about delay, not of the text.
fn deliver(broker: &Broker, view: &RecordView<'_>) -> Result<(), Refusal> {
    let properties = view.properties();
    let (Some(topic), Some(queue_id)) = (
        properties.find(property::REAL_TOPIC),
        properties
            .find(property::REAL_QUEUE_ID)
            .and_then(|text| text.parse().ok()),
    ) else {
        tracing::error!(
            offset = view.physical_offset(),
            "a delayed message without its topic"
        );
        return Ok(());
    };
    if topic == topic_names::TRANSACTION_HALF {
        return Ok(());
    }
    let message = Message {
        topic,
        queue_id,
        store_host: broker.address,
        ..view.to_message()
    };
    let put = broker
        .store
        .put(&message)
        .map_err(|error| Refusal::error(error.to_string()));
    put.map(drop)
}

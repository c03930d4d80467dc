//! In which queues a record has its place.

use message::{DispatchFields, RecordView, names::topic};

/// A place in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) topic: &'a str,
    pub(crate) queue_id: i32,
    pub(crate) index: i64,
}

impl<'a> Place<'a> {
    /// That in the queue the message was sent to.
    pub(crate) fn own(view: &RecordView<'a>) -> Self {
        Self {
            topic: view.topic(),
            queue_id: view.queue_id(),
            index: view.queue_offset(),
        }
    }

    /// The time in the extension unit of the entry there, which entries in light queues do without
    /// (RocketMQ 5.3.3 `ConsumeQueue.doDispatchLmqQueue`).
    pub(crate) fn unit_time_ms(&self, view: &RecordView<'_>) -> Option<i64> {
        (self.topic == view.topic()).then(|| view.store_timestamp_ms())
    }
}

/// The places of a record in other queues than its own, as its properties say
/// (`INNER_MULTI_DISPATCH`, `INNER_MULTI_QUEUE_OFFSET`; RocketMQ 5.3.3
/// `ConsumeQueue.multiDispatchLmqQueue`). An offset that is no number is left out, where RocketMQ
/// gives up dispatching the record.
pub(crate) fn light_places<'a>(
    view: &RecordView<'a>,
    fields: &DispatchFields<'a>,
) -> impl Iterator<Item = Place<'a>> + use<'a> {
    let (own, queue_id) = (view.topic(), view.queue_id());
    let is_allowed = !own.starts_with(topic::RETRY_PREFIX)
        && !own.starts_with(topic::SYSTEM_PREFIX)
        && own != topic::SCHEDULE;
    let lists = match (fields.multi_dispatch, fields.multi_queue_offset) {
        (Some(names), Some(offsets)) if is_allowed => {
            let is_even = names.split(',').count() == offsets.split(',').count();
            is_even.then_some((names, offsets))
        }
        _ => None,
    };
    let pairs = lists.map(|(names, offsets)| names.split(',').zip(offsets.split(',')));
    pairs
        .into_iter()
        .flatten()
        .filter_map(move |(name, offset)| {
            if name.is_empty() || name.contains('/') {
                return None;
            }
            let is_light = name.starts_with(topic::LMQ_PREFIX);
            Some(Place {
                topic: name,
                queue_id: if is_light { 0 } else { queue_id },
                index: offset.parse().ok().filter(|index| *index >= 0)?,
            })
        })
}

/// Whether a record has this place in a queue, by what it says itself.
#[inline]
pub(crate) fn has_place(view: &RecordView<'_>, place: &Place<'_>) -> bool {
    let is_own = view.queue_offset() == place.index
        && view.queue_id() == place.queue_id
        && view.topic() == place.topic;
    is_own || (view.topic() != place.topic && has_light_place(view, place))
}

#[cold]
fn has_light_place(view: &RecordView<'_>, place: &Place<'_>) -> bool {
    light_places(view, &view.dispatch_fields()).any(|other| other == *place)
}

/// Which index a record has in a queue.
pub(crate) fn index_in(view: &RecordView<'_>, topic: &str, queue_id: i32) -> Option<i64> {
    if view.topic() == topic && view.queue_id() == queue_id {
        return Some(view.queue_offset());
    }
    let mut places = light_places(view, &view.dispatch_fields());
    places
        .find(|place| place.topic == topic && place.queue_id == queue_id)
        .map(|place| place.index)
}

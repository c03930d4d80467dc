//! What a record leaves in queues: for verify, which compares, and for rebuild, which writes.

use message::{DispatchFields, RecordView};

use crate::delay::DelayLevels;

/// What of a record its queue entry must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordFacts {
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Queue offset of the first message in it.
    pub(crate) index: i64,
    /// Messages in it.
    pub(crate) count: i64,
    pub(crate) tags_code: i64,
    pub(crate) store_ms: i64,
}

impl RecordFacts {
    /// The facts of a record in an ordinary queue.
    pub(crate) fn new(
        view: &RecordView<'_>,
        fields: &DispatchFields<'_>,
        delays_ms: &[i64],
    ) -> Self {
        Self {
            offset: view.physical_offset().cast_unsigned(),
            size: view.total_size() as u64,
            index: view.queue_offset(),
            count: 1,
            tags_code: fields
                .tags_code_of(view, delays_ms)
                .unwrap_or_else(|_| fields.tags_code()),
            store_ms: view.store_timestamp_ms(),
        }
    }

    /// The same in a batch queue, where a record can hold many messages.
    pub(crate) fn in_batch_queue(self, view: &RecordView<'_>, fields: &DispatchFields<'_>) -> Self {
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        if !view.sys_flag().is_inner_batch() {
            return self;
        }
        Self {
            index: number(fields.inner_base).unwrap_or(self.index),
            count: number(fields.inner_count).unwrap_or(1),
            ..self
        }
    }
}

/// The delays of the levels 1, 2, ... in ms.
pub(crate) fn level_delays_ms(levels: &DelayLevels) -> Vec<i64> {
    (1..=levels.max())
        .map(|level| levels.due_ms(level, 0).unwrap_or_default())
        .collect()
}

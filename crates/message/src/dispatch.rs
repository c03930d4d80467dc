//! The properties that dispatch needs: what the consume queue and the index keep of a message.

use crate::error::RecordError;
use crate::hash::java_string_hash_lossy;
use crate::names::{property, topic};
use crate::properties::Properties;
use crate::record::RecordView;

/// The properties that dispatch needs, found in one pass without a map.
///
/// A value that is not UTF-8 counts as absent, except of TAGS, whose hash is that of the string
/// Java makes of it.
///
/// ```
/// use message::{DispatchFields, Properties};
///
/// let properties = Properties::new(b"KEYS\x01k0  kk\x02UNIQ_KEY\x01ABC\x02TAGS\x01TagA\x02");
/// let fields = DispatchFields::new(properties);
/// assert_eq!(fields.tags_code(), 2_598_919);
/// assert_eq!(fields.index_keys().collect::<Vec<_>>(), ["ABC", "k0", "kk"]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DispatchFields<'a> {
    /// TAGS.
    pub tags: Option<&'a [u8]>,
    /// KEYS, separated by spaces.
    pub keys: Option<&'a str>,
    /// UNIQ_KEY.
    pub unique_key: Option<&'a str>,
    /// DELAY, a delay level.
    pub delay_level: Option<&'a str>,
    /// INNER_NUM, the number of messages in an inner batch.
    pub inner_count: Option<&'a str>,
    /// INNER_BASE, the queue offset of the first message of an inner batch.
    pub inner_base: Option<&'a str>,
    /// INNER_MULTI_DISPATCH, names of light queues separated by commas.
    pub multi_dispatch: Option<&'a str>,
    /// INNER_MULTI_QUEUE_OFFSET, the offsets in them separated by commas.
    pub multi_queue_offset: Option<&'a str>,
}

/// The keys under which the index files a message.
#[derive(Clone, Debug)]
pub struct IndexKeys<'a> {
    unique_key: Option<&'a str>,
    keys: std::str::Split<'a, char>,
}

impl<'a> DispatchFields<'a> {
    /// Finds them; of equal names the last counts.
    #[inline]
    pub fn new(properties: Properties<'a>) -> Self {
        const TAGS: &[u8] = property::TAGS.as_bytes();
        const KEYS: &[u8] = property::KEYS.as_bytes();
        const UNIQUE_KEY: &[u8] = property::UNIQUE_KEY.as_bytes();
        const DELAY: &[u8] = property::DELAY.as_bytes();
        const INNER_NUM: &[u8] = property::INNER_NUM.as_bytes();
        const INNER_BASE: &[u8] = property::INNER_BASE.as_bytes();
        const MULTI_DISPATCH: &[u8] = property::INNER_MULTI_DISPATCH.as_bytes();
        const MULTI_QUEUE_OFFSET: &[u8] = property::INNER_MULTI_QUEUE_OFFSET.as_bytes();

        let mut fields = Self::default();
        for (name, value) in properties {
            match name {
                TAGS => fields.tags = Some(value),
                KEYS => fields.keys = text(value),
                UNIQUE_KEY => fields.unique_key = text(value),
                DELAY => fields.delay_level = text(value),
                INNER_NUM => fields.inner_count = text(value),
                INNER_BASE => fields.inner_base = text(value),
                MULTI_DISPATCH => fields.multi_dispatch = text(value),
                MULTI_QUEUE_OFFSET => fields.multi_queue_offset = text(value),
                _ => {}
            }
        }
        fields
    }

    /// The hash of TAGS; 0 without.
    #[inline]
    pub fn tags_code(&self) -> i64 {
        self.tags
            .map_or(0, |tags| i64::from(java_string_hash_lossy(tags)))
    }

    /// What the consume queue entry of `record` has as tags code: the hash of TAGS, or in the
    /// delay topic the time of delivery in ms (RocketMQ 5.3.3 `checkMessageAndReturnSize`).
    ///
    /// `level_delays_ms` are the delays of levels 1, 2, ...; a higher level is the last one.
    ///
    /// # Errors
    /// [`RecordError::DelayLevel`] if the record is in the delay topic and its level is not a
    /// number.
    #[inline]
    pub fn tags_code_of(
        &self,
        record: &RecordView<'_>,
        level_delays_ms: &[i64],
    ) -> Result<i64, RecordError> {
        match self.delay_level {
            Some(level) if record.topic() == topic::SCHEDULE => {
                let level: i32 = level.parse().map_err(|_| RecordError::DelayLevel)?;
                let deliver = deliver_time_ms(level, level_delays_ms, record.store_timestamp_ms());
                Ok(deliver.unwrap_or_else(|| self.tags_code()))
            }
            _ => Ok(self.tags_code()),
        }
    }

    /// The keys to file the message under: UNIQ_KEY, then the parts of KEYS that are not empty
    /// (RocketMQ 5.3.3 `IndexService.buildIndex`).
    #[inline]
    pub fn index_keys(&self) -> IndexKeys<'a> {
        IndexKeys {
            unique_key: self.unique_key,
            keys: self.keys.unwrap_or_default().split(' '),
        }
    }
}

impl<'a> Iterator for IndexKeys<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        self.unique_key
            .take()
            .or_else(|| self.keys.find(|key| !key.is_empty()))
    }
}

#[inline]
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// `None` for a level below 1, which is no delay.
fn deliver_time_ms(level: i32, level_delays_ms: &[i64], store_timestamp_ms: i64) -> Option<i64> {
    let index = usize::try_from(level)
        .ok()?
        .min(level_delays_ms.len())
        .checked_sub(1)?;
    Some(store_timestamp_ms.wrapping_add(*level_delays_ms.get(index)?))
}

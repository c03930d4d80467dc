//! Which messages of a queue a reader wants, decided on the queue entry before the log is touched.

use std::fmt::Debug;

/// Chooses messages by their queue entry.
pub trait Filter: Debug {
    /// Whether the message may be wanted. `tags_code` is the hash of its tag; `None` where the
    /// entry does not say (it refers to an extended consume queue): the reader decides then.
    fn matches(&self, tags_code: Option<i64>) -> bool;
}

/// Wants every message: the subscription `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AllMessages;

impl Filter for AllMessages {
    fn matches(&self, _tags_code: Option<i64>) -> bool {
        true
    }
}

/// Wants messages with one of several tags, by the tags' hashes. Another tag with the same hash
/// passes: clients compare the text (RocketMQ 5.3.3 `ExpressionMessageFilter`).
///
/// ```
/// use store::{Filter, TagFilter};
///
/// let filter = TagFilter::new(["TagA", "TagB"]);
/// assert!(filter.matches(Some(message::tags_code("TagB"))));
/// assert!(!filter.matches(Some(message::tags_code("TagC"))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter {
    codes: Vec<i32>,
}

impl TagFilter {
    /// A filter for these tags.
    pub fn new<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        Self::of_codes(tags.into_iter().map(message::java_string_hash).collect())
    }

    /// A filter for tags with these hashes (Java's `String.hashCode`).
    pub fn of_codes(codes: Vec<i32>) -> Self {
        Self { codes }
    }
}

impl Filter for TagFilter {
    fn matches(&self, tags_code: Option<i64>) -> bool {
        // Java compares the low 32 bits.
        tags_code.is_none_or(|code| self.codes.contains(&(code as i32)))
    }
}

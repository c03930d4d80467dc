//! What a store lost, from what it acknowledged and what it serves in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::script::{Answer, Found, Put, Served};

/// A message that has to be there in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expected {
    pub(super) topic: String,
    pub(super) queue_id: i32,
    pub(super) queue_offset: i64,
    /// Its place in the log.
    pub(super) offset: i64,
    pub(super) body_crc: u32,
    pub(super) keys: Vec<String>,
}

impl Expected {
    /// A message that was acknowledged.
    pub(super) fn of(put: &Put) -> Option<Self> {
        put.acknowledged.then(|| Self {
            topic: put.topic.clone(),
            queue_id: put.queue_id,
            queue_offset: put.queue_offset,
            offset: put.offset,
            body_crc: put.body_crc,
            keys: vec![put.key.clone()],
        })
    }
}

/// How a store came out of a scenario.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    does_not_start: bool,
    expected: usize,
    /// Expected messages that no queue serves.
    lost: usize,
    /// Served, but not at their own place in the queue.
    misplaced: usize,
    /// Served, though cut off or damaged before.
    returned: usize,
    /// Queue offsets that a later message got, too.
    given_twice: usize,
    keys_expected: usize,
    keys_lost: usize,
}

impl Verdict {
    /// Judges the answers of the last opening.
    pub(super) fn of(expected: &[Expected], answers: &[Answer]) -> Self {
        if !answers
            .iter()
            .any(|answer| matches!(answer, Answer::Open { started: true }))
        {
            return Self {
                does_not_start: true,
                expected: expected.len(),
                ..Self::default()
            };
        }
        let mut served: BTreeMap<Identity<'_>, Vec<&Served>> = BTreeMap::new();
        let mut found: BTreeMap<(&str, &str), &Found> = BTreeMap::new();
        for answer in answers {
            match answer {
                Answer::Message(message) => {
                    served.entry(identity(message)).or_default().push(message);
                }
                Answer::Find(one) => {
                    found.insert((&one.topic, &one.key), one);
                }
                Answer::Open { .. } | Answer::Put(_) => {}
            }
        }
        let mut verdict = Self {
            expected: expected.len(),
            ..Self::default()
        };
        let mut places = BTreeSet::new();
        for message in expected {
            let is_new = places.insert((&message.topic, message.queue_id, message.queue_offset));
            verdict.given_twice += usize::from(!is_new);
            let key: Identity<'_> = (
                &message.topic,
                message.queue_id,
                Some(message.offset),
                message.body_crc,
            );
            match served.remove(&key) {
                None => verdict.lost += 1,
                Some(places) => {
                    let is_in_place = |place: &&Served| place.slot == message.queue_offset;
                    verdict.misplaced += usize::from(!places.iter().any(is_in_place));
                }
            }
            for key in &message.keys {
                let is_found = found
                    .get(&(&message.topic, key))
                    .is_some_and(|found| found.offsets.contains(&message.offset));
                verdict.keys_expected += 1;
                verdict.keys_lost += usize::from(!is_found);
            }
        }
        verdict.returned = served.len();
        verdict
    }

    /// Whether anything that the damage itself did not take is not as it was acknowledged.
    pub(super) fn is_loss(&self) -> bool {
        let Self {
            lost,
            misplaced,
            returned,
            given_twice,
            keys_lost,
            ..
        } = *self;
        self.does_not_start || lost + misplaced + returned + given_twice + keys_lost > 0
    }

    /// Whether nothing is worse than with the other, where the damage itself costs something.
    pub(super) fn is_at_least(&self, other: &Self) -> bool {
        !self.does_not_start
            && self.misplaced + self.returned + self.given_twice == 0
            && (other.does_not_start
                || (self.lost <= other.lost && self.keys_lost <= other.keys_lost))
    }
}

impl Verdict {
    /// The verdict without the messages that nobody expected.
    pub(super) fn without_returned(self) -> Self {
        Self {
            returned: 0,
            ..self
        }
    }

    /// The verdict without the keys: Java's store drops some when it recovers from a kill.
    pub(super) fn without_keys(self) -> Self {
        Self {
            keys_expected: 0,
            keys_lost: 0,
            ..self
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.does_not_start {
            return f.write_str("does not start");
        }
        let mut parts = Vec::new();
        let mut say = |count: usize, text: String| {
            if count > 0 {
                parts.push(text);
            }
        };
        say(
            self.lost,
            format!("loses {} of {} messages", self.lost, self.expected),
        );
        say(
            self.misplaced,
            format!("{} at a wrong queue offset", self.misplaced),
        );
        say(
            self.given_twice,
            format!("gives {} queue offset(s) twice", self.given_twice),
        );
        say(
            self.returned,
            format!("serves {} that were cut off or damaged", self.returned),
        );
        say(
            self.keys_lost,
            format!(
                "{} of {} keys not found",
                self.keys_lost, self.keys_expected
            ),
        );
        match parts.is_empty() {
            true => write!(f, "all {} messages", self.expected),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

/// Topic, queue, place in the log, body: what makes a served message that one.
type Identity<'a> = (&'a str, i32, Option<i64>, u32);

fn identity(served: &Served) -> Identity<'_> {
    (
        &served.topic,
        served.queue_id,
        served.offset,
        served.body_crc,
    )
}

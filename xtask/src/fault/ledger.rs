//! What was promised, and whether it is kept after a fault.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::reader::Found;
use super::workload::{Answer, History, Identity, Place};

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// The message is durable.
    Durable,
    /// It is, once this time has passed.
    DurableAfter(Duration),
}

/// What is known of all messages of one store.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Messages that were read after a cut: they are on the device.
    present: HashMap<Identity, Place>,
    /// Messages that were not there after a cut: they must never come back.
    gone: HashSet<Identity>,
}

/// What one check has found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    /// Acknowledged messages, all there.
    pub(super) kept: u64,
    /// Messages without an answer that are there.
    pub(super) unanswered_kept: u64,
    /// Messages without an answer that are not.
    pub(super) unanswered_gone: u64,
    /// Acknowledged messages that are lost, as the promise allows.
    pub(super) lost: u64,
    /// The longest time between an acknowledgement that is lost and the cut.
    pub(super) lost_age_max: Duration,
}

impl Ledger {
    /// Messages that are known to be on the device.
    pub(super) fn present(&self) -> &HashMap<Identity, Place> {
        &self.present
    }

    /// Compares what the broker serves with all that is known, and with what clients were told
    /// before the cut. Afterwards all that was found must stay.
    pub(super) fn settle(
        &mut self,
        found: &Found,
        history: &History,
        promise: Promise,
        cut_at: Instant,
    ) -> Result<Verdict> {
        let places = places(found)?;
        for (identity, place) in &self.present {
            let now = places.get(identity);
            ensure!(
                now == Some(place),
                "{identity:?}, durable at {place:?}, is now at {now:?}; {} messages are there, {} \
                 were",
                places.len(),
                self.present.len()
            );
        }
        if let Some(identity) = places.keys().find(|identity| self.gone.contains(identity)) {
            bail!("{identity:?} was cut off by a recovery and has come back");
        }
        ensure!(history.foreign.is_empty(), "{:?}", history.foreign);
        let verdict = self.judge(&places, history, promise, cut_at)?;
        if promise == Promise::Durable {
            for (identity, place) in &history.seen {
                ensure!(
                    places.get(identity) == Some(place),
                    "a consumer was given {identity:?} at {place:?}, which is now at {:?}",
                    places.get(identity)
                );
            }
        }
        let sent = history.sent.iter().map(|sent| sent.identity);
        self.gone
            .extend(sent.filter(|identity| !places.contains_key(identity)));
        self.present = places;
        Ok(verdict)
    }

    fn judge(
        &self,
        places: &HashMap<Identity, Place>,
        history: &History,
        promise: Promise,
        cut_at: Instant,
    ) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        // The log's offsets: what survives must lie before all that is lost.
        let (mut last_kept, mut first_lost) = (None, None);
        for sent in &history.sent {
            let identity = sent.identity;
            let now = places.get(&identity);
            match (&sent.answer, now) {
                (Answer::Acked(place), Some(now)) => {
                    ensure!(
                        now == place,
                        "{identity:?} was acknowledged at {place:?} and is at {now:?}"
                    );
                    verdict.kept += 1;
                    last_kept = last_kept.max(Some((place.physical, identity)));
                }
                (Answer::Acked(place), None) => {
                    let age = cut_at.saturating_duration_since(sent.answered_at);
                    let allowed = match promise {
                        Promise::Durable => Duration::ZERO,
                        Promise::DurableAfter(window) => window,
                    };
                    ensure!(
                        promise != Promise::Durable && age <= allowed,
                        "{identity:?} was acknowledged at {place:?}, {age:?} before the cut, and \
                         is gone"
                    );
                    verdict.lost += 1;
                    verdict.lost_age_max = verdict.lost_age_max.max(age);
                    let lost = (place.physical, identity);
                    first_lost = Some(first_lost.map_or(lost, |first: (i64, _)| first.min(lost)));
                }
                (_, Some(_)) => verdict.unanswered_kept += 1,
                (_, None) => verdict.unanswered_gone += 1,
            }
        }
        if let (Some(kept), Some(lost)) = (last_kept, first_lost) {
            ensure!(
                kept.0 < lost.0,
                "the log is no prefix of what was sent: {kept:?} is there, {lost:?} is not"
            );
        }
        Ok(verdict)
    }
}

/// Where each message is; an error if one is there twice, or if two share a place in the log.
fn places(found: &Found) -> Result<HashMap<Identity, Place>> {
    let mut places = HashMap::new();
    let mut physical = HashMap::new();
    for (place, identity) in &found.messages {
        if let Some(before) = places.insert(*identity, *place) {
            bail!("{identity:?} is there twice, at {before:?} and at {place:?}");
        }
        if let Some(before) = physical.insert(place.physical, place) {
            bail!("{before:?} and {place:?} are the same record");
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::workload::Sent;

    fn identity(ordinal: u64) -> Identity {
        Identity {
            producer: 0,
            ordinal,
        }
    }

    fn place(offset: i64) -> Place {
        Place {
            topic: "FaultA",
            queue: 0,
            offset,
            physical: offset * 100,
        }
    }

    fn acked(ordinals: std::ops::Range<u64>) -> History {
        let now = Instant::now();
        let sent = ordinals.map(|ordinal| Sent {
            identity: identity(ordinal),
            answer: Answer::Acked(place(ordinal as i64)),
            asked_at: now,
            answered_at: now,
        });
        History {
            sent: sent.collect(),
            ..History::default()
        }
    }

    fn found(ordinals: impl IntoIterator<Item = u64>) -> Found {
        let messages = ordinals
            .into_iter()
            .map(|ordinal| (place(ordinal as i64), identity(ordinal)));
        Found {
            messages: messages.collect(),
        }
    }

    fn settle(found: &Found, history: &History, promise: Promise) -> Result<Verdict> {
        Ledger::default().settle(found, history, promise, Instant::now())
    }

    #[test]
    fn a_lost_acknowledgement_is_found() {
        let history = acked(0..4);
        assert_eq!(
            settle(&found(0..4), &history, Promise::Durable)
                .unwrap()
                .kept,
            4
        );
        let error = settle(&found(0..3), &history, Promise::Durable).unwrap_err();
        assert!(error.to_string().ends_with("and is gone"), "{error}");
        let window = Promise::DurableAfter(Duration::from_secs(60));
        assert_eq!(settle(&found(0..3), &history, window).unwrap().lost, 1);
        let error = settle(&found([0, 1, 3]), &history, window).unwrap_err();
        assert!(error.to_string().contains("no prefix"), "{error}");
    }

    #[test]
    fn what_was_gone_must_not_come_back_and_what_was_there_must_stay() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        let mut unanswered = acked(0..3);
        unanswered.sent[2].answer = Answer::Unknown;
        ledger
            .settle(&found(0..2), &unanswered, Promise::Durable, now)
            .unwrap();
        let nothing = History::default();
        let error = ledger
            .settle(&found(0..3), &nothing, Promise::Durable, now)
            .unwrap_err();
        assert!(error.to_string().contains("come back"), "{error}");
        let error = ledger
            .settle(&found(0..1), &nothing, Promise::Durable, now)
            .unwrap_err();
        assert!(error.to_string().contains("is now at None"), "{error}");
    }

    #[test]
    fn a_consumer_must_not_have_seen_what_is_gone() {
        let mut history = History::default();
        history.seen.insert(identity(5), place(5));
        let error = settle(&found(0..1), &history, Promise::Durable).unwrap_err();
        assert!(
            error.to_string().contains("a consumer was given"),
            "{error}"
        );
    }
}

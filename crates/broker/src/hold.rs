//! Pulls that found nothing and wait for messages: the table of held requests.
//!
//! A pull is held under its queue and woken by the store's arrival of a matching message, or by
//! its deadline. Waking means a letter to the connection's task, which runs the pull again; no
//! message waits for a timer or a scan. RocketMQ 5.3.3 `PullRequestHoldService`, which scans
//! every 5 s.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Parts of the table that are locked apart from each other.
const SHARD_COUNT: usize = 16;

/// A request that can be held.
pub trait Held: Send {
    /// The queue offset that it waits for.
    fn offset(&self) -> i64;

    /// When it is answered whatever has come.
    fn deadline(&self) -> Instant;

    /// Whether it wants a message with this hash of its tag.
    fn matches(&self, tags_code: Option<i64>) -> bool;

    /// Goes on. Called without locks held.
    fn wake(self);
}

/// Requests held by queue.
#[derive(Debug)]
pub struct Holds<H> {
    shards: Vec<Mutex<Queues<H>>>,
    hasher: RandomState,
    /// How many are held; changed under a shard's lock, read without. An arrival that reads 0
    /// looks no further: a request that is being held at that moment looks at its queue again
    /// after it is in the table.
    count: AtomicUsize,
}

/// By topic, then queue id; asked for without a key of its own.
type Queues<H> = HashMap<String, HashMap<i32, Vec<H>>>;

impl<H: Held> Default for Holds<H> {
    fn default() -> Self {
        let shards = std::iter::repeat_with(Mutex::default)
            .take(SHARD_COUNT)
            .collect();
        Self {
            shards,
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
        }
    }
}

impl<H: Held> Holds<H> {
    /// Holds a request. The caller looks at the queue afterwards, and calls
    /// [`arrived`](Self::arrived) if something came meanwhile.
    pub fn hold(&self, topic: &str, queue_id: i32, held: H) {
        let mut queues = self.shard(topic);
        self.count.fetch_add(1, Ordering::SeqCst);
        match queues.get_mut(topic) {
            Some(of_topic) => of_topic.entry(queue_id).or_default().push(held),
            None => {
                let of_topic = HashMap::from([(queue_id, vec![held])]);
                queues.insert(topic.to_owned(), of_topic);
            }
        }
    }

    /// A message came: the queue's end is `next_offset` now. Wakes those that wait for an offset
    /// before it and want a message with this tag.
    pub fn arrived(&self, topic: &str, queue_id: i32, next_offset: i64, tags_code: Option<i64>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut queues = self.shard(topic);
        let woken = self.take(&mut queues, topic, queue_id, |held| {
            held.offset() < next_offset && held.matches(tags_code)
        });
        drop(queues);
        woken.into_iter().for_each(H::wake);
    }

    /// Wakes those whose deadline has passed.
    pub fn expire(&self, now: Instant) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for shard in &self.shards {
            let mut woken = Vec::new();
            let mut queues = lock(shard);
            queues.retain(|_, of_topic| {
                of_topic.retain(|_, held| {
                    woken.extend(held.extract_if(.., |held| held.deadline() <= now));
                    !held.is_empty()
                });
                !of_topic.is_empty()
            });
            self.count.fetch_sub(woken.len(), Ordering::SeqCst);
            drop(queues);
            woken.into_iter().for_each(H::wake);
        }
    }

    /// Drops all of them: nobody is left to be answered.
    pub fn clear(&self) {
        for shard in &self.shards {
            let dropped = std::mem::take(&mut *lock(shard));
            let count = dropped
                .values()
                .flat_map(HashMap::values)
                .map(Vec::len)
                .sum();
            self.count.fetch_sub(count, Ordering::SeqCst);
        }
    }

    /// How many are held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn take(
        &self,
        queues: &mut Queues<H>,
        topic: &str,
        queue_id: i32,
        mut wanted: impl FnMut(&mut H) -> bool,
    ) -> Vec<H> {
        let Some(of_topic) = queues.get_mut(topic) else {
            return Vec::new();
        };
        let Some(held) = of_topic.get_mut(&queue_id) else {
            return Vec::new();
        };
        let woken: Vec<H> = held.extract_if(.., |held| wanted(held)).collect();
        self.count.fetch_sub(woken.len(), Ordering::SeqCst);
        if held.is_empty() {
            of_topic.remove(&queue_id);
            if of_topic.is_empty() {
                queues.remove(topic);
            }
        }
        woken
    }

    fn shard(&self, topic: &str) -> MutexGuard<'_, Queues<H>> {
        let index = self.hasher.hash_one(topic) as usize % self.shards.len();
        lock(&self.shards[index])
    }
}

fn lock<H>(shard: &Mutex<Queues<H>>) -> MutexGuard<'_, Queues<H>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    struct Pull {
        number: usize,
        offset: i64,
        deadline: Instant,
        tag: Option<i64>,
        woken: Arc<Mutex<Vec<usize>>>,
    }

    impl Held for Pull {
        fn offset(&self) -> i64 {
            self.offset
        }
        fn deadline(&self) -> Instant {
            self.deadline
        }
        fn matches(&self, tags_code: Option<i64>) -> bool {
            self.tag.is_none() || self.tag == tags_code
        }
        fn wake(self) {
            self.woken.lock().unwrap().push(self.number);
        }
    }

    #[test]
    fn pulls_are_woken_by_what_they_wait_for_and_by_their_deadline() {
        let holds = Holds::default();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let pulls = [
            ("T", 0, 5, None),
            ("T", 0, 6, None),
            ("T", 0, 5, Some(1)),
            ("U", 0, 0, None),
        ];
        for (number, (topic, queue_id, offset, tag)) in pulls.into_iter().enumerate() {
            let deadline = start + Duration::from_secs(number as u64);
            let woken = Arc::clone(&woken);
            holds.hold(
                topic,
                queue_id,
                Pull {
                    number,
                    offset,
                    deadline,
                    tag,
                    woken,
                },
            );
        }
        assert_eq!(holds.count(), 4);
        holds.arrived("T", 1, 100, None);
        holds.arrived("V", 0, 100, None);
        holds.arrived("T", 0, 5, Some(2));
        assert_eq!(*woken.lock().unwrap(), Vec::<usize>::new());
        holds.arrived("T", 0, 6, Some(2));
        assert_eq!(*woken.lock().unwrap(), [0]);
        holds.expire(start + Duration::from_secs(1));
        assert_eq!(*woken.lock().unwrap(), [0, 1]);
        holds.arrived("T", 0, 7, Some(1));
        holds.expire(start + Duration::from_secs(9));
        assert_eq!(*woken.lock().unwrap(), [0, 1, 2, 3]);
        assert_eq!(holds.count(), 0);
        let (deadline, woken) = (start, Arc::clone(&woken));
        let (number, offset, tag) = (4, 0, None);
        holds.hold(
            "T",
            0,
            Pull {
                number,
                offset,
                deadline,
                tag,
                woken: Arc::clone(&woken),
            },
        );
        holds.clear();
        assert_eq!(holds.count(), 0);
        assert_eq!(*woken.lock().unwrap(), [0, 1, 2, 3]);
    }
}

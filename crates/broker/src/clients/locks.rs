//! Queue locks of orderly consumers: which client of a group may consume a queue.
//!
//! RocketMQ 5.3.3 `RebalanceLockManager`, without its strict mode (a quorum over replicas).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use remoting::body::MessageQueue;

/// How long a lock lives that is not renewed (`rocketmq.broker.rebalance.lockMaxLiveTime`).
/// Clients renew every 20 s.
pub const LOCK_LIFE: Duration = Duration::from_secs(60);

/// The locks of all groups.
#[derive(Debug, Default)]
pub struct QueueLocks {
    groups: Mutex<HashMap<String, HashMap<MessageQueue, Lock>>>,
}

#[derive(Debug)]
struct Lock {
    client_id: String,
    renewed: Instant,
}

impl Lock {
    fn is_live(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed) <= LOCK_LIFE
    }
}

impl QueueLocks {
    /// Takes or renews locks; returns those of `queues` that the client holds now.
    pub fn lock(
        &self,
        group: &str,
        client_id: &str,
        queues: Vec<MessageQueue>,
        now: Instant,
    ) -> Vec<MessageQueue> {
        let mut groups = self.groups();
        let locks = groups.entry(group.to_owned()).or_default();
        let take = |queue: &MessageQueue| match locks.get_mut(queue) {
            Some(lock) if lock.client_id == client_id => {
                lock.renewed = now;
                true
            }
            Some(lock) if lock.is_live(now) => false,
            _ => {
                let lock = Lock {
                    client_id: client_id.to_owned(),
                    renewed: now,
                };
                locks.insert(queue.clone(), lock);
                true
            }
        };
        let mut take = take;
        queues.into_iter().filter(|queue| take(queue)).collect()
    }

    /// Gives locks back; those of other clients stay.
    pub fn unlock(&self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let mut groups = self.groups();
        let Some(locks) = groups.get_mut(group) else {
            return;
        };
        for queue in queues {
            if locks
                .get(queue)
                .is_some_and(|lock| lock.client_id == client_id)
            {
                locks.remove(queue);
            }
        }
        if locks.is_empty() {
            groups.remove(group);
        }
    }

    /// Whether any queue of the group is locked: then its consumers are orderly.
    #[must_use]
    pub fn is_group_locked(&self, group: &str, now: Instant) -> bool {
        let groups = self.groups();
        groups
            .get(group)
            .is_some_and(|locks| locks.values().any(|lock| lock.is_live(now)))
    }

    /// Forgets locks that nobody renewed.
    pub fn expire(&self, now: Instant) {
        self.groups().retain(|_, locks| {
            locks.retain(|_, lock| lock.is_live(now));
            !locks.is_empty()
        });
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<String, HashMap<MessageQueue, Lock>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_id: i32) -> MessageQueue {
        MessageQueue {
            topic: "T".to_owned(),
            broker_name: "broker-a".to_owned(),
            queue_id,
        }
    }

    #[test]
    fn a_lock_excludes_others_until_it_expires_or_is_given_back() {
        let locks = QueueLocks::default();
        let start = Instant::now();
        assert_eq!(
            locks.lock("g", "one", vec![queue(0), queue(1)], start),
            [queue(0), queue(1)]
        );
        assert_eq!(
            locks.lock("g", "two", vec![queue(1), queue(2)], start),
            [queue(2)]
        );
        assert_eq!(
            locks.lock("other", "two", vec![queue(1)], start),
            [queue(1)]
        );
        assert!(locks.is_group_locked("g", start));

        locks.unlock("g", "two", &[queue(0)]);
        locks.unlock("g", "one", &[queue(1)]);
        assert_eq!(
            locks.lock("g", "two", vec![queue(0), queue(1)], start),
            [queue(1)]
        );

        let later = start + LOCK_LIFE + Duration::from_millis(1);
        assert_eq!(locks.lock("g", "two", vec![queue(0)], later), [queue(0)]);
        locks.expire(later + LOCK_LIFE + Duration::from_millis(1));
        assert!(!locks.is_group_locked("g", later));
    }
}

//! Producer groups that have members now.
//!
//! RocketMQ 5.3.3 `ProducerManager`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Client;
use crate::server::{CloseReason, Connection};

/// The groups.
#[derive(Debug, Default)]
pub struct Producers {
    groups: Mutex<BTreeMap<String, HashMap<u64, Member>>>,
}

#[derive(Debug)]
struct Member {
    client: Client,
    seen: Instant,
    /// Wall clock of the last heartbeat, milliseconds since 1970.
    seen_ms: i64,
}

/// A member as the administration sees it.
#[derive(Debug, Clone)]
pub struct ProducerView {
    /// The client.
    pub client: Client,
    /// Its last heartbeat, milliseconds since 1970.
    pub seen_ms: i64,
}

impl Producers {
    /// Takes what a heartbeat says of one group.
    pub fn register(&self, group: &str, client: &Client, now: Instant, now_ms: i64) {
        let member = Member {
            client: client.clone(),
            seen: now,
            seen_ms: now_ms,
        };
        let mut groups = self.groups();
        match groups.get_mut(group) {
            Some(members) => members.insert(client.connection.id(), member),
            None => groups
                .entry(group.to_owned())
                .or_default()
                .insert(client.connection.id(), member),
        };
    }

    /// A client leaves a group in good order.
    pub fn unregister(&self, group: &str, connection: u64) {
        let mut groups = self.groups();
        if let Some(members) = groups.get_mut(group) {
            members.remove(&connection);
            if members.is_empty() {
                groups.remove(group);
            }
        }
    }

    /// A connection is gone.
    pub fn connection_closed(&self, connection: u64) {
        self.groups().retain(|_, members| {
            members.remove(&connection);
            !members.is_empty()
        });
    }

    /// Closes the connections of members that sent no heartbeat for `expiry`.
    pub fn expire(&self, now: Instant, expiry: Duration) {
        for member in self.groups().values().flat_map(HashMap::values) {
            if now.saturating_duration_since(member.seen) > expiry {
                member.client.connection.close(CloseReason::Expired);
            }
        }
    }

    /// The members of a group; empty when there are none.
    #[must_use]
    pub fn members(&self, group: &str) -> Vec<ProducerView> {
        self.groups().get(group).map(views).unwrap_or_default()
    }

    /// All groups with their members.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Vec<ProducerView>> {
        let groups = self.groups();
        groups
            .iter()
            .map(|(group, members)| (group.clone(), views(members)))
            .collect()
    }

    /// The connection of a producer by its client id.
    #[must_use]
    pub fn connection(&self, client_id: &str) -> Option<Arc<Connection>> {
        let groups = self.groups();
        let mut members = groups.values().flat_map(HashMap::values);
        let member = members.find(|member| &*member.client.id == client_id)?;
        Some(Arc::clone(&member.client.connection))
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<String, HashMap<u64, Member>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn views(members: &HashMap<u64, Member>) -> Vec<ProducerView> {
    let view = |member: &Member| ProducerView {
        client: member.client.clone(),
        seen_ms: member.seen_ms,
    };
    members.values().map(view).collect()
}

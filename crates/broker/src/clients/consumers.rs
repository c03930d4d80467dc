//! Consumer groups that have members now: their clients, what they subscribe to, and who is to be
//! told when that changes.
//!
//! RocketMQ 5.3.3 `ConsumerManager`, `ConsumerGroupInfo`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use remoting::body::{ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel, SubscriptionData};
use remoting::header::NotifyConsumerIdsChangedRequestHeader;
use remoting::{Command, RequestCode};

use super::Client;
use crate::server::{CloseReason, Connection};

/// The groups. Readers (each pull is one) share a lock that heartbeats take alone.
#[derive(Debug, Default)]
pub struct Consumers {
    groups: RwLock<HashMap<String, Group>>,
}

#[derive(Debug)]
struct Group {
    kind: GroupKind,
    /// By connection.
    members: HashMap<u64, Member>,
    subscriptions: HashMap<String, Arc<SubscriptionData>>,
    /// Fingerprint of the last heartbeat (version 2), 0 after one of version 1.
    fingerprint: i32,
}

#[derive(Debug)]
struct Member {
    client: Client,
    seen: Instant,
}

/// How a group consumes, as its clients say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupKind {
    /// By pull, push or pop.
    pub consume_type: Option<ConsumeType>,
    /// Each message to one member or to all.
    pub message_model: Option<MessageModel>,
    /// Where a new group begins.
    pub consume_from_where: Option<ConsumeFromWhere>,
}

/// What a heartbeat says of the subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatForm {
    /// Version 1: all subscriptions are in it.
    Full,
    /// Version 2: as version 1, with a fingerprint.
    FullWithFingerprint(i32),
    /// Version 2: they are the ones of the heartbeat with this fingerprint.
    Fingerprint(i32),
}

/// What became of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// A member came, or a topic was added or removed: the members are to be told.
    pub changed: bool,
    /// The client is to send its subscriptions with the next heartbeat.
    pub wants_full: bool,
}

/// A group as the administration sees it.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// How it consumes.
    pub kind: GroupKind,
    /// Its members.
    pub clients: Vec<Client>,
    /// Its subscriptions, by topic.
    pub subscriptions: BTreeMap<String, Arc<SubscriptionData>>,
}

impl Consumers {
    /// Takes what a heartbeat of `client` says of one group.
    pub fn register(
        &self,
        client: &Client,
        data: ConsumerData,
        form: HeartbeatForm,
        now: Instant,
    ) -> Registered {
        let kind = GroupKind {
            consume_type: data.consume_type,
            message_model: data.message_model,
            consume_from_where: data.consume_from_where,
        };
        let mut groups = self.write();
        let group = groups.entry(data.group_name).or_insert_with(|| Group {
            kind,
            members: HashMap::new(),
            subscriptions: HashMap::new(),
            fingerprint: 0,
        });
        group.kind = kind;
        let member = Member {
            client: client.clone(),
            seen: now,
        };
        let mut changed = group
            .members
            .insert(client.connection.id(), member)
            .is_none();
        let wants_full = match form {
            HeartbeatForm::Full => {
                group.fingerprint = 0;
                true
            }
            HeartbeatForm::FullWithFingerprint(fingerprint) => group.note(fingerprint),
            HeartbeatForm::Fingerprint(fingerprint) => {
                // Java answers false here when it knows no subscription at all, and the group's
                // pulls fail until a full heartbeat comes.
                group.note(fingerprint) | group.subscriptions.is_empty()
            }
        };
        if !matches!(form, HeartbeatForm::Fingerprint(_)) {
            changed |= group.subscribe(data.subscription_data_set);
        }
        Registered {
            changed,
            wants_full,
        }
    }

    /// A client leaves a group in good order; `true` if it was in it.
    pub fn unregister(&self, group: &str, connection: u64) -> bool {
        let mut groups = self.write();
        let Some(found) = groups.get_mut(group) else {
            return false;
        };
        let known = found.members.remove(&connection).is_some();
        if found.members.is_empty() {
            groups.remove(group);
        }
        known
    }

    /// A connection is gone; returns the groups that lost a member by it.
    pub fn connection_closed(&self, connection: u64) -> Vec<String> {
        let mut left = Vec::new();
        self.write().retain(|name, group| {
            if group.members.remove(&connection).is_some() {
                left.push(name.clone());
            }
            !group.members.is_empty()
        });
        left
    }

    /// Closes the connections of members that sent no heartbeat for `expiry`.
    pub fn expire(&self, now: Instant, expiry: Duration) {
        for group in self.read().values() {
            for member in group.members.values() {
                if now.saturating_duration_since(member.seen) > expiry {
                    member.client.connection.close(CloseReason::Expired);
                }
            }
        }
    }

    /// Tells all members of a group that its members or topics changed, unless each of them gets
    /// every message anyway.
    pub fn notify(&self, group: &str) {
        let groups = self.read();
        let Some(found) = groups.get(group) else {
            return;
        };
        if found.kind.message_model == Some(MessageModel::Broadcasting) {
            return;
        }
        let header = NotifyConsumerIdsChangedRequestHeader {
            consumer_group: group,
        };
        for member in found.members.values() {
            let request = Command::oneway(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED);
            member
                .client
                .connection
                .notify(request.with_header(&header));
        }
    }

    /// How a group consumes; `None` when it has no members.
    #[must_use]
    pub fn kind(&self, group: &str) -> Option<GroupKind> {
        self.read().get(group).map(|group| group.kind)
    }

    /// What a group subscribes to in a topic.
    #[must_use]
    pub fn subscription(&self, group: &str, topic: &str) -> Option<Arc<SubscriptionData>> {
        self.read().get(group)?.subscriptions.get(topic).cloned()
    }

    /// Ids of the members, in their order; empty when there are none.
    #[must_use]
    pub fn client_ids(&self, group: &str) -> Vec<String> {
        let groups = self.read();
        let Some(found) = groups.get(group) else {
            return Vec::new();
        };
        let ids: BTreeSet<_> = found
            .members
            .values()
            .map(|member| &*member.client.id)
            .collect();
        ids.into_iter().map(str::to_owned).collect()
    }

    /// The connection of a member.
    #[must_use]
    pub fn connection(&self, group: &str, client_id: &str) -> Option<Arc<Connection>> {
        let groups = self.read();
        let mut members = groups.get(group)?.members.values();
        let member = members.find(|member| &*member.client.id == client_id)?;
        Some(Arc::clone(&member.client.connection))
    }

    /// A group as a whole.
    #[must_use]
    pub fn view(&self, group: &str) -> Option<GroupView> {
        let groups = self.read();
        let found = groups.get(group)?;
        let subscriptions = &found.subscriptions;
        Some(GroupView {
            kind: found.kind,
            clients: found
                .members
                .values()
                .map(|member| member.client.clone())
                .collect(),
            subscriptions: subscriptions
                .iter()
                .map(|(topic, subscription)| (topic.clone(), Arc::clone(subscription)))
                .collect(),
        })
    }

    /// Groups with members that subscribe to a topic.
    #[must_use]
    pub fn groups_of_topic(&self, topic: &str) -> BTreeSet<String> {
        let groups = self.read();
        let subscribed = |group: &Group| group.subscriptions.contains_key(topic);
        let found = groups.iter().filter(|(_, group)| subscribed(group));
        found.map(|(name, _)| name.clone()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Group>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Stores a fingerprint; whether there was one and it differs.
    fn note(&mut self, fingerprint: i32) -> bool {
        let known = std::mem::replace(&mut self.fingerprint, fingerprint);
        known != 0 && known != fingerprint
    }

    /// Makes `subscriptions` the group's; `true` when a topic came or went. A newer version of a
    /// known subscription is taken silently, an older one is ignored.
    fn subscribe(&mut self, subscriptions: Vec<SubscriptionData>) -> bool {
        let count = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| {
            subscriptions
                .iter()
                .any(|subscription| subscription.topic == *topic)
        });
        let mut changed = self.subscriptions.len() != count;
        for subscription in subscriptions {
            let known = self.subscriptions.get(&subscription.topic);
            changed |= known.is_none();
            if known.is_none_or(|known| known.sub_version < subscription.sub_version) {
                self.subscriptions
                    .insert(subscription.topic.clone(), Arc::new(subscription));
            }
        }
        changed
    }
}

//! The route tables: which brokers there are, and which queues of which topics they have.
//!
//! RocketMQ 5.3.3 `RouteInfoManager`. Plain data: time comes in, connections are numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use remoting::body::{BrokerData, DataVersion, QueueData};

/// How long a broker that says nothing else may be silent.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Permission bit: the topic may be written to.
const PERM_WRITE: i32 = 2;
/// Read and write.
const PERM_READ_WRITE: i32 = 6;
/// The id of a master.
const MASTER: i64 = 0;

/// What is known of the brokers. Not synchronised.
#[derive(Debug, Default)]
pub struct RouteTables {
    /// Topic, then broker name.
    topics: BTreeMap<String, BTreeMap<String, QueueData>>,
    /// By broker name.
    brokers: BTreeMap<String, BrokerData>,
    /// Cluster to broker names.
    clusters: BTreeMap<String, BTreeSet<String>>,
    live: HashMap<Key, Live>,
}

/// A broker process: cluster and address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    cluster: String,
    address: String,
}

#[derive(Debug)]
struct Live {
    broker_name: String,
    broker_id: i64,
    seen: Instant,
    silence_max: Duration,
    data_version: DataVersion,
    connection: u64,
    ha_address: String,
}

/// What a broker says of itself when it registers.
#[derive(Debug, Clone)]
pub struct Registration {
    /// `clusterName`.
    pub cluster: String,
    /// `brokerAddr`.
    pub address: String,
    /// `brokerName`.
    pub broker_name: String,
    /// `brokerId`.
    pub broker_id: i64,
    /// `haServerAddr`.
    pub ha_address: String,
    /// `__ZONE_NAME`.
    pub zone: Option<String>,
    /// `heartbeatTimeoutMillis`.
    pub silence_max: Option<Duration>,
    /// `enableActingMaster`; absent from old brokers.
    pub acting_master: Option<bool>,
    /// Version of the topic table.
    pub data_version: DataVersion,
    /// Topics with their queues; the broker's name in them is this one.
    pub topics: Vec<(String, QueueData)>,
    /// The connection it came by; when that closes, the broker is gone.
    pub connection: u64,
}

/// What a broker is told when it registers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registered {
    /// To a slave: the master's address.
    pub master_address: Option<String>,
    /// To a slave: where the master serves replication.
    pub ha_address: Option<String>,
}

/// `registerBroker` refuses an incremental registration that comes before the first full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("register broker failed: its first registration has one topic only")]
pub struct RegistrationRefused;

/// A topic's route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Queues by broker.
    pub queues: Vec<QueueData>,
    /// Those brokers.
    pub brokers: Vec<BrokerData>,
}

impl RouteTables {
    /// Takes a registration in.
    ///
    /// # Errors
    /// [`RegistrationRefused`]; nothing has changed then but the broker's name being known.
    pub fn register(
        &mut self,
        registration: Registration,
        now: Instant,
    ) -> Result<Registered, RegistrationRefused> {
        let Registration {
            cluster,
            address,
            broker_name,
            broker_id,
            ..
        } = &registration;
        let id = *broker_id;
        self.clusters
            .entry(cluster.clone())
            .or_default()
            .insert(broker_name.clone());
        let mut first = !self.brokers.contains_key(broker_name);
        let broker = self
            .brokers
            .entry(broker_name.clone())
            .or_insert_with(|| BrokerData {
                cluster: cluster.clone(),
                broker_name: broker_name.clone(),
                ..BrokerData::default()
            });
        broker.enable_acting_master = registration.acting_master.unwrap_or(false);
        broker.zone_name.clone_from(&registration.zone);
        broker
            .broker_addrs
            .retain(|other, known| *other == id || known != address);
        let key = Key {
            cluster: cluster.clone(),
            address: address.clone(),
        };
        if let Some(known) = broker
            .broker_addrs
            .get(&id)
            .filter(|known| *known != address)
        {
            let other = Key {
                cluster: cluster.clone(),
                address: known.clone(),
            };
            let newer = self.live.get(&other).is_some_and(|live| {
                live.data_version.state_version > registration.data_version.state_version
            });
            if newer {
                // A master of a later term has this id: this one is out of date.
                self.live.remove(&key);
                return Ok(Registered::default());
            }
        }
        if !broker.broker_addrs.contains_key(&id) && registration.topics.len() == 1 {
            return Err(RegistrationRefused);
        }
        first |= broker.broker_addrs.insert(id, address.clone()).is_none();
        let lowest = broker.broker_addrs.keys().next().copied();
        let prime_slave =
            id != MASTER && registration.acting_master.is_some() && lowest == Some(id);
        if id == MASTER || prime_slave {
            let strip_write = prime_slave && broker.enable_acting_master;
            let changed = first
                || self
                    .live
                    .get(&key)
                    .is_none_or(|live| live.data_version != registration.data_version);
            self.take_topics(&registration, strip_write, changed);
        }
        let live = Live {
            broker_name: registration.broker_name.clone(),
            broker_id: id,
            seen: now,
            silence_max: registration.silence_max.unwrap_or(SILENCE_MAX),
            data_version: registration.data_version,
            connection: registration.connection,
            ha_address: registration.ha_address,
        };
        if self.live.insert(key, live).is_none() {
            tracing::info!(broker = %registration.broker_name, id, address = %registration.address, "broker registered");
        }
        Ok(self.told(&registration.cluster, &registration.broker_name, id))
    }

    fn take_topics(&mut self, registration: &Registration, strip_write: bool, changed: bool) {
        for (topic, queues) in &registration.topics {
            let known = self.topics.entry(topic.clone()).or_default();
            if changed || !known.contains_key(&registration.broker_name) {
                let mut queues = queues.clone();
                queues.broker_name.clone_from(&registration.broker_name);
                if strip_write {
                    queues.perm &= !PERM_WRITE;
                }
                known.insert(registration.broker_name.clone(), queues);
            }
        }
    }

    /// What a slave learns of its master.
    fn told(&self, cluster: &str, broker_name: &str, id: i64) -> Registered {
        if id == MASTER {
            return Registered::default();
        }
        let master = self
            .brokers
            .get(broker_name)
            .and_then(|broker| broker.broker_addrs.get(&MASTER));
        let Some(address) = master else {
            return Registered::default();
        };
        let key = Key {
            cluster: cluster.to_owned(),
            address: address.clone(),
        };
        match self.live.get(&key) {
            Some(live) => Registered {
                master_address: Some(address.clone()),
                ha_address: Some(live.ha_address.clone()),
            },
            None => Registered::default(),
        }
    }

    /// Takes a broker out; `false` if it was not there.
    pub fn unregister(&mut self, cluster: &str, address: &str, broker_name: &str, id: i64) -> bool {
        let key = Key {
            cluster: cluster.to_owned(),
            address: address.to_owned(),
        };
        let known = self.live.remove(&key).is_some();
        let Some(broker) = self.brokers.get_mut(broker_name) else {
            return known;
        };
        if broker
            .broker_addrs
            .get(&id)
            .is_some_and(|known| known == address)
        {
            broker.broker_addrs.remove(&id);
        }
        if broker.broker_addrs.is_empty() {
            self.brokers.remove(broker_name);
            for names in self.clusters.values_mut() {
                names.remove(broker_name);
            }
            self.clusters.retain(|_, names| !names.is_empty());
            self.forget_queues(|name| name == broker_name);
        } else if broker.enable_acting_master && !broker.broker_addrs.contains_key(&MASTER) {
            self.for_queues(broker_name, |queues| queues.perm &= !PERM_WRITE);
        }
        if known {
            tracing::info!(broker = %broker_name, id, %address, "broker unregistered");
        }
        known
    }

    /// Unregisters the brokers that registered by this connection.
    pub fn connection_closed(&mut self, connection: u64) {
        self.unregister_where(|live| live.connection == connection);
    }

    /// Unregisters brokers that were silent for too long; returns their connections.
    pub fn expire(&mut self, now: Instant) -> Vec<u64> {
        self.unregister_where(|live| now.saturating_duration_since(live.seen) > live.silence_max)
    }

    fn unregister_where(&mut self, gone: impl Fn(&Live) -> bool) -> Vec<u64> {
        let found: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| gone(live))
            .map(|(key, live)| {
                (
                    key.clone(),
                    live.broker_name.clone(),
                    live.broker_id,
                    live.connection,
                )
            })
            .collect();
        let unregister = |(key, name, id, connection): (Key, String, i64, u64)| {
            self.unregister(&key.cluster, &key.address, &name, id);
            connection
        };
        found.into_iter().map(unregister).collect()
    }

    /// Notes that a broker is alive.
    pub fn heartbeat(&mut self, cluster: &str, address: &str, now: Instant) {
        let key = Key {
            cluster: cluster.to_owned(),
            address: address.to_owned(),
        };
        if let Some(live) = self.live.get_mut(&key) {
            live.seen = now;
        }
    }

    /// The version of the topics that a broker registered last.
    #[must_use]
    pub fn data_version(&self, cluster: &str, address: &str) -> Option<&DataVersion> {
        let key = Key {
            cluster: cluster.to_owned(),
            address: address.to_owned(),
        };
        self.live.get(&key).map(|live| &live.data_version)
    }

    /// Where a topic is; `None` without at least one queue and one broker.
    #[must_use]
    pub fn route(&self, topic: &str) -> Option<Route> {
        let queues: Vec<_> = self.topics.get(topic)?.values().cloned().collect();
        let brokers: Vec<_> = queues
            .iter()
            .filter_map(|queues| self.brokers.get(&queues.broker_name).cloned())
            .collect();
        (!queues.is_empty() && !brokers.is_empty()).then_some(Route { queues, brokers })
    }

    /// All brokers by name.
    #[must_use]
    pub fn brokers(&self) -> &BTreeMap<String, BrokerData> {
        &self.brokers
    }

    /// Broker names by cluster.
    #[must_use]
    pub fn clusters(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.clusters
    }

    /// All topics with queues, with the queues of each broker.
    pub fn topics(&self) -> impl Iterator<Item = (&String, impl Iterator<Item = &QueueData>)> {
        self.topics
            .iter()
            .map(|(topic, queues)| (topic, queues.values()))
    }

    /// Topics that a broker of the cluster has.
    #[must_use]
    pub fn topics_of_cluster(&self, cluster: &str) -> Vec<String> {
        let Some(names) = self.clusters.get(cluster) else {
            return Vec::new();
        };
        let here =
            |queues: &BTreeMap<String, QueueData>| queues.keys().any(|name| names.contains(name));
        let topics = self.topics.iter().filter(|(_, queues)| here(queues));
        topics.map(|(topic, _)| topic.clone()).collect()
    }

    /// Takes the write permission from all topics of a broker; returns how many topics it has.
    pub fn wipe_write(&mut self, broker_name: &str) -> usize {
        self.for_queues(broker_name, |queues| queues.perm &= !PERM_WRITE)
    }

    /// Gives read and write permission to all topics of a broker; returns how many it has.
    pub fn add_write(&mut self, broker_name: &str) -> usize {
        self.for_queues(broker_name, |queues| queues.perm = PERM_READ_WRITE)
    }

    fn for_queues(&mut self, broker_name: &str, mut change: impl FnMut(&mut QueueData)) -> usize {
        let queues = self
            .topics
            .values_mut()
            .filter_map(|queues| queues.get_mut(broker_name));
        queues.map(&mut change).count()
    }

    /// Removes a topic, or only what the brokers of `cluster` have of it.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        match cluster {
            None => drop(self.topics.remove(topic)),
            Some(cluster) => {
                let names = self.clusters.get(cluster);
                if let Some(queues) = self.topics.get_mut(topic) {
                    queues.retain(|name, _| !names.is_some_and(|names| names.contains(name)));
                }
                self.topics.retain(|_, queues| !queues.is_empty());
            }
        }
    }

    /// Adds or replaces the queues of one topic; ignored if one of the brokers is not known.
    pub fn register_topic(&mut self, topic: &str, queues: Vec<QueueData>) {
        if queues
            .iter()
            .any(|queues| !self.brokers.contains_key(&queues.broker_name))
        {
            return;
        }
        let known = self.topics.entry(topic.to_owned()).or_default();
        for queues in queues {
            known.insert(queues.broker_name.clone(), queues);
        }
    }

    fn forget_queues(&mut self, gone: impl Fn(&str) -> bool) {
        self.topics.retain(|_, queues| {
            queues.retain(|name, _| !gone(name));
            !queues.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(counter: i64) -> DataVersion {
        DataVersion {
            counter,
            ..DataVersion::default()
        }
    }

    fn queues(count: i32) -> QueueData {
        QueueData {
            read_queue_nums: count,
            write_queue_nums: count,
            perm: PERM_READ_WRITE,
            ..QueueData::default()
        }
    }

    fn registration(id: i64, counter: i64, topics: &[(&str, i32)]) -> Registration {
        Registration {
            cluster: "c".to_owned(),
            address: format!("10.0.0.{id}:10911"),
            broker_name: "broker-a".to_owned(),
            broker_id: id,
            ha_address: format!("10.0.0.{id}:10912"),
            zone: None,
            silence_max: None,
            acting_master: Some(false),
            data_version: version(counter),
            topics: topics
                .iter()
                .map(|&(topic, count)| (topic.to_owned(), queues(count)))
                .collect(),
            connection: 7,
        }
    }

    fn route_len(tables: &RouteTables, topic: &str) -> Option<i32> {
        tables
            .route(topic)
            .map(|route| route.queues[0].write_queue_nums)
    }

    #[test]
    fn a_first_registration_with_one_topic_is_refused() {
        let mut tables = RouteTables::default();
        let now = Instant::now();
        assert_eq!(
            tables.register(registration(0, 1, &[("A", 4)]), now),
            Err(RegistrationRefused)
        );
        tables
            .register(registration(0, 1, &[("A", 4), ("B", 4)]), now)
            .unwrap();
        tables
            .register(registration(0, 2, &[("C", 1)]), now)
            .unwrap();
        assert_eq!(route_len(&tables, "A"), Some(4));
        assert_eq!(route_len(&tables, "C"), Some(1));
        assert_eq!(tables.route("D"), None);
    }

    #[test]
    fn topics_change_with_the_data_version_only() {
        let mut tables = RouteTables::default();
        let now = Instant::now();
        tables
            .register(registration(0, 1, &[("A", 4), ("B", 4)]), now)
            .unwrap();
        tables
            .register(registration(0, 1, &[("A", 8), ("B", 4)]), now)
            .unwrap();
        assert_eq!(route_len(&tables, "A"), Some(4));
        tables
            .register(registration(0, 2, &[("A", 8), ("B", 4)]), now)
            .unwrap();
        assert_eq!(route_len(&tables, "A"), Some(8));
    }

    #[test]
    fn a_slave_learns_of_its_master_and_adds_no_topics() {
        let mut tables = RouteTables::default();
        let now = Instant::now();
        tables
            .register(registration(0, 1, &[("A", 4), ("B", 4)]), now)
            .unwrap();
        let told = tables
            .register(registration(1, 1, &[("X", 4), ("Y", 4)]), now)
            .unwrap();
        assert_eq!(told.master_address.as_deref(), Some("10.0.0.0:10911"));
        assert_eq!(told.ha_address.as_deref(), Some("10.0.0.0:10912"));
        assert_eq!(tables.route("X"), None);
        assert_eq!(tables.route("A").unwrap().brokers[0].broker_addrs.len(), 2);
    }

    #[test]
    fn silence_or_a_closed_connection_ends_a_broker() {
        let mut tables = RouteTables::default();
        let now = Instant::now();
        tables
            .register(registration(0, 1, &[("A", 4), ("B", 4)]), now)
            .unwrap();
        assert!(tables.expire(now + SILENCE_MAX).is_empty());
        tables.heartbeat("c", "10.0.0.0:10911", now + SILENCE_MAX);
        assert!(tables.expire(now + SILENCE_MAX * 2).is_empty());
        assert_eq!(
            tables.expire(now + SILENCE_MAX * 2 + Duration::from_millis(1)),
            [7]
        );
        assert_eq!(tables.route("A"), None);
        assert!(tables.clusters().is_empty());

        tables
            .register(registration(0, 1, &[("A", 4), ("B", 4)]), now)
            .unwrap();
        tables.connection_closed(8);
        assert!(tables.route("A").is_some());
        tables.connection_closed(7);
        assert!(tables.brokers().is_empty());
    }

    #[test]
    fn write_permission_is_wiped_and_given_back() {
        let mut tables = RouteTables::default();
        tables
            .register(registration(0, 1, &[("A", 4), ("B", 4)]), Instant::now())
            .unwrap();
        assert_eq!(tables.wipe_write("broker-a"), 2);
        assert_eq!(tables.route("A").unwrap().queues[0].perm, 4);
        assert_eq!(tables.add_write("broker-a"), 2);
        assert_eq!(tables.route("A").unwrap().queues[0].perm, 6);
        assert_eq!(tables.wipe_write("broker-b"), 0);
    }

    #[test]
    fn topics_are_deleted_everywhere_or_in_a_cluster() {
        let mut tables = RouteTables::default();
        tables
            .register(registration(0, 1, &[("A", 4), ("B", 4)]), Instant::now())
            .unwrap();
        tables.delete_topic("A", Some("other"));
        assert!(tables.route("A").is_some());
        tables.delete_topic("A", Some("c"));
        tables.delete_topic("B", None);
        assert_eq!(tables.topics().count(), 0);
    }
}

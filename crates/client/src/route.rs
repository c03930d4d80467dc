//! Where the queues of a topic are.

use remoting::body::{BrokerData, QueueData, TopicRouteData};

/// Bits of a queue's permission (RocketMQ 5.3.3 `PermName`).
const READ: i32 = 4;
const WRITE: i32 = 2;
/// The id of a broker that is not a slave.
const MASTER_ID: i64 = 0;
/// More queues than this in one broker's entry are not believed.
const QUEUE_COUNT_MAX: i32 = 65_536;

/// The brokers that have a topic, as a name server tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    entries: Vec<Entry>,
}

/// One queue of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// The broker's name.
    pub broker_name: String,
    /// Its master's `host:port`.
    pub broker_address: String,
    /// The queue's number at that broker.
    pub id: i32,
}

/// The queues of one broker that has a master.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    broker_address: String,
    queues: QueueData,
}

impl Route {
    /// The queues that can be read from.
    pub fn read_queues(&self) -> Vec<Queue> {
        self.queues(READ, |queues| queues.read_queue_nums)
    }

    /// The queues that can be written to.
    pub fn write_queues(&self) -> Vec<Queue> {
        self.queues(WRITE, |queues| queues.write_queue_nums)
    }

    fn queues(&self, permission: i32, count: impl Fn(&QueueData) -> i32) -> Vec<Queue> {
        let mut all = Vec::new();
        for Entry {
            broker_address,
            queues,
        } in &self.entries
        {
            if queues.perm & permission == 0 {
                continue;
            }
            let count = count(queues).clamp(0, QUEUE_COUNT_MAX);
            all.extend((0..count).map(|id| Queue {
                broker_name: queues.broker_name.clone(),
                broker_address: broker_address.clone(),
                id,
            }));
        }
        all
    }
}

impl From<TopicRouteData> for Route {
    /// Queues of brokers without a master are left out: slaves take no messages, and hand out
    /// only what they are told to.
    fn from(data: TopicRouteData) -> Self {
        let master_of = |queues: &QueueData| {
            let is_its = |broker: &&BrokerData| broker.broker_name == queues.broker_name;
            data.broker_datas
                .iter()
                .find(is_its)?
                .broker_addrs
                .get(&MASTER_ID)
                .cloned()
        };
        let entries = data.queue_datas.iter().filter_map(|queues| {
            Some(Entry {
                broker_address: master_of(queues)?,
                queues: queues.clone(),
            })
        });
        Self {
            entries: entries.collect(),
        }
    }
}

impl Queue {
    /// The brokers' addresses, each once.
    pub(crate) fn addresses(queues: &[Self]) -> Vec<String> {
        let mut addresses: Vec<_> = queues
            .iter()
            .map(|queue| queue.broker_address.clone())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

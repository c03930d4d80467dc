//! The broker: the tables, the store, the clients, and which processor serves which request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use message::{UniqueKeyGenerator, UniqueKeySource};
use remoting::{CommandView, RequestCode};
use store::health::Troubles;
use store::{Arrival, MessageStore};

use crate::clients::{Consumers, Producers, QueueLocks};
use crate::config::Config;
use crate::hold::Holds;
use crate::processor::pull::HeldPull;
use crate::processor::unknown::UnknownCodes;
use crate::processor::{
    self, Outcome, Refusal, clean, client, group, offset, pull, query, relay, send, send_back,
    settle, stats, topic,
};
use crate::readers::{Readers, Then};
use crate::registration::Changes;
use crate::server::{Connection, Exchange, Reply, Service};
use crate::state::json_file::StateError;
use crate::state::lost::Tables;
use crate::state::{ConsumerOffsets, DelayOffsets, GroupTable, TopicTable, groups, topics};
use crate::traffic::Traffic;

/// Reads beside held pulls that one connection may have waiting for a thread.
const READS_BESIDE_HELD: usize = 512;

/// A running broker. Processors are functions of it.
#[derive(Debug)]
pub struct Broker {
    /// How it was configured.
    pub config: Config,
    /// How clients reach it: the store host of messages, and so in their ids.
    pub address: SocketAddr,
    /// The same as routes have it: it may name a host.
    advertised: String,
    /// The messages.
    pub store: Arc<MessageStore>,
    /// `topics.json`.
    pub topics: TopicTable,
    /// `subscriptionGroup.json`.
    pub groups: GroupTable,
    /// `consumerOffset.json`.
    pub offsets: ConsumerOffsets,
    /// `delayOffset.json`.
    pub delays: DelayOffsets,
    /// Who consumes.
    pub consumers: Consumers,
    /// Who produces.
    pub producers: Producers,
    /// Queues locked by orderly consumers.
    pub locks: QueueLocks,
    /// Pulls that wait for messages.
    pub holds: Holds<HeldPull>,
    /// Who reads what is not in memory.
    pub readers: Readers,
    /// Topics that name servers are to be told of.
    pub changes: Arc<Changes>,
    /// What is wrong with the tables' files.
    pub troubles: Arc<Troubles>,
    /// What went in and out.
    pub traffic: Traffic,
    /// For messages whose producer gave none.
    pub unique_keys: UniqueKeyGenerator,
    unknown: UnknownCodes,
}

impl Broker {
    /// Loads the tables under `config/` in the store's directory, and adds what every broker has.
    ///
    /// # Errors
    /// The consumer offsets are unreadable, and so is their backup; or the system refuses. Another
    /// table of which that is so is begun anew with what the store knows of it.
    pub fn new(
        config: Config,
        address: SocketAddr,
        advertised: String,
        store: Arc<MessageStore>,
        readers: Readers,
        changes: Arc<Changes>,
    ) -> Result<Arc<Self>, StateError> {
        let troubles = Arc::new(Troubles::default());
        let Tables {
            topics,
            groups,
            offsets,
            delays,
        } = Tables::load(&store, &config.groups, &troubles)?;
        topics.add_missing(topics::system_topics(&config));
        groups.add_missing(groups::system_groups());
        // Messages that wait for room for their entries are not lost.
        if store.dispatch_behind_bytes() == 0 {
            let queues = offsets.take_back(|topic, queue_id| store.max_offset(topic, queue_id));
            if queues > 0 {
                tracing::warn!(
                    queues,
                    "groups had committed messages that the log has lost; they go on at the ends \
                     of the queues"
                );
            }
        }
        let unique_keys = UniqueKeyGenerator::new(UniqueKeySource {
            ip: address.ip(),
            process_id: std::process::id(),
            discriminator: u32::from(address.port()),
            utc_offset_seconds: jiff::Zoned::now().offset().seconds(),
        });
        let broker = Arc::new(Self {
            config,
            address,
            advertised,
            store,
            topics,
            groups,
            offsets,
            delays,
            consumers: Consumers::default(),
            producers: Producers::default(),
            locks: QueueLocks::default(),
            holds: Holds::default(),
            readers,
            changes,
            troubles,
            traffic: Traffic::new(crate::clock::now_ms()),
            unique_keys,
            unknown: UnknownCodes::default(),
        });
        broker.listen_for_arrivals();
        Ok(broker)
    }

    /// What the name servers and other brokers call this one.
    #[must_use]
    pub fn address_text(&self) -> String {
        self.advertised.clone()
    }

    /// Has `read` run where it may wait for a disk, and what it returns by the connection's task.
    /// `bytes` is what it reads at most.
    ///
    /// # Errors
    /// As [`Readers::read`].
    pub fn read_aside(
        &self,
        exchange: &mut Exchange<'_>,
        bytes: u64,
        read: impl FnOnce() -> Then + Send + 'static,
    ) -> Outcome {
        if !self.readers.are_there() {
            return read()(exchange);
        }
        let limits = &self.config.network.limits;
        let held_max = limits.held_pulls_per_connection_max + READS_BESIDE_HELD;
        self.readers.read(exchange, held_max, bytes, read)
    }

    /// Saves offsets that changed. Topics and groups are saved at each change, and here when that
    /// failed. What fails is listed in `troubles`, and tried again.
    pub fn save_offsets(&self) {
        let _noted = (self.topics.save(), self.groups.save());
        let _noted = self.offsets.save();
    }

    /// Saves how far the delay levels have come.
    pub fn save_delays(&self) {
        let _noted = self.delays.save();
    }

    /// Closes connections of clients that fell silent, and lets queue locks run out.
    pub fn expire_clients(&self, now: Instant) {
        let expiry = self.config.groups.client_expiry;
        self.consumers.expire(now, expiry);
        self.producers.expire(now, expiry);
        self.locks.expire(now);
    }

    /// Tells the members of a group that it changed, where the group wants that.
    pub fn notify_group(&self, group: &str) {
        let wanted = self
            .groups
            .find(group)
            .is_none_or(|config| config.notify_consumer_ids_changed_enable);
        if wanted && self.config.groups.notify_changes {
            self.consumers.notify(group);
        }
    }

    fn listen_for_arrivals(self: &Arc<Self>) {
        let broker = Arc::downgrade(self);
        let first = self.store.listen(Arc::new(move |arrival: &Arrival<'_>| {
            if let Some(broker) = broker.upgrade() {
                let Arrival {
                    topic,
                    queue_id,
                    next_offset,
                    tags_code,
                    ..
                } = *arrival;
                broker
                    .holds
                    .arrived(topic, queue_id, next_offset, Some(tags_code));
            }
        }));
        debug_assert!(first, "a store serves one broker");
    }

    fn dispatch(
        self: &Arc<Self>,
        exchange: &mut Exchange<'_>,
        request: &CommandView<'_>,
    ) -> Outcome {
        match request.request_code() {
            code if send::is_send(code) => send::send(self, exchange, request),
            RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => {
                pull::pull(self, exchange, request)
            }
            RequestCode::CONSUMER_SEND_MSG_BACK => send_back::send_back(self, exchange, request),
            RequestCode::QUERY_CONSUMER_OFFSET => offset::query(self, exchange, request),
            RequestCode::UPDATE_CONSUMER_OFFSET => offset::update(self, exchange, request),
            RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => offset::search(self, exchange, request),
            RequestCode::GET_MAX_OFFSET => offset::max(self, exchange, request),
            RequestCode::GET_MIN_OFFSET => offset::min(self, exchange, request),
            RequestCode::GET_EARLIEST_MSG_STORETIME => offset::earliest(self, exchange, request),
            RequestCode::INVOKE_BROKER_TO_RESET_OFFSET => offset::reset(self, exchange, request),
            RequestCode::QUERY_MESSAGE => query::by_key(self, exchange, request),
            RequestCode::VIEW_MESSAGE_BY_ID => query::by_offset(self, exchange, request),
            RequestCode::HEART_BEAT => client::heartbeat(self, exchange, request),
            RequestCode::UNREGISTER_CLIENT => client::unregister(self, exchange, request),
            RequestCode::CHECK_CLIENT_CONFIG => client::check(exchange, request),
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => client::list(self, exchange, request),
            RequestCode::LOCK_BATCH_MQ => client::lock(self, exchange, request),
            RequestCode::UNLOCK_BATCH_MQ => client::unlock(self, exchange, request),
            _ => self.dispatch_admin(exchange, request),
        }
    }

    fn dispatch_admin(
        self: &Arc<Self>,
        exchange: &mut Exchange<'_>,
        request: &CommandView<'_>,
    ) -> Outcome {
        match request.request_code() {
            RequestCode::UPDATE_AND_CREATE_TOPIC => topic::update(self, exchange, request),
            RequestCode::UPDATE_AND_CREATE_TOPIC_LIST => {
                topic::update_list(self, exchange, request)
            }
            RequestCode::DELETE_TOPIC_IN_BROKER => topic::delete(self, exchange, request),
            RequestCode::GET_ALL_TOPIC_CONFIG => topic::all(self, exchange),
            RequestCode::GET_TOPIC_CONFIG => topic::one(self, exchange, request),
            RequestCode::GET_TOPIC_STATS_INFO => topic::stats(self, exchange, request),
            RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => topic::system_list(self, exchange),
            RequestCode::QUERY_TOPIC_CONSUME_BY_WHO => topic::groups(self, exchange, request),
            RequestCode::QUERY_TOPICS_BY_CONSUMER => topic::of_group(self, exchange, request),
            RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => {
                group::update(self, exchange, request)
            }
            RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => group::all(self, exchange),
            RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG => group::one(self, exchange, request),
            RequestCode::DELETE_SUBSCRIPTIONGROUP => group::delete(self, exchange, request),
            RequestCode::GET_CONSUMER_CONNECTION_LIST => group::consumers(self, exchange, request),
            RequestCode::GET_PRODUCER_CONNECTION_LIST => group::producers(self, exchange, request),
            RequestCode::GET_ALL_PRODUCER_INFO => group::all_producers(self, exchange),
            RequestCode::GET_CONSUMER_RUNNING_INFO => relay::running_info(self, exchange, request),
            RequestCode::CONSUME_MESSAGE_DIRECTLY => {
                relay::consume_directly(self, exchange, request)
            }
            RequestCode::QUERY_CONSUME_TIME_SPAN => stats::time_span(self, exchange, request),
            RequestCode::GET_CONSUME_STATS => stats::consume(self, exchange, request),
            RequestCode::GET_ALL_CONSUMER_OFFSET => {
                processor::json_body(exchange, &self.offsets.snapshot())
            }
            RequestCode::GET_ALL_DELAY_OFFSET => {
                processor::json_body(exchange, &self.delays.snapshot())
            }
            RequestCode::DELETE_EXPIRED_COMMITLOG => clean::expired_log(self, exchange),
            RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE => clean::expired_queues(self, exchange),
            RequestCode::CLEAN_UNUSED_TOPIC => clean::unused_topics(self, exchange),
            RequestCode::GET_BROKER_RUNTIME_INFO => stats::runtime(self, exchange),
            RequestCode::GET_BROKER_CONFIG => stats::configuration(self, exchange),
            RequestCode::VIEW_BROKER_STATS_DATA => stats::broker_stats(request),
            code => Err(self.refuse_unknown(code)),
        }
    }

    fn refuse_unknown(&self, code: RequestCode) -> Refusal {
        self.unknown.refuse("broker", code)
    }
}

/// The service that the sockets hand requests to.
#[derive(Debug)]
pub struct BrokerService(pub Arc<Broker>);

impl Service for BrokerService {
    fn handle(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Reply {
        if !send::is_send(request.request_code()) {
            // What was answered as stored is there for the next request.
            crate::burst::end();
        }
        let outcome = self.0.dispatch(exchange, request);
        settle(exchange, outcome)
    }

    fn closed(&self, connection: &Arc<Connection>) {
        self.0.producers.connection_closed(connection.id());
        for group in self.0.consumers.connection_closed(connection.id()) {
            // RocketMQ does not ask the group's own setting here.
            self.0.consumers.notify(&group);
        }
    }
}

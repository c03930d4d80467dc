//! A whole node: name server and broker in one process, or either alone; from configuration to
//! serving, and back.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use mmap_core::{StagePool, WarmUp};
use remoting::body::{
    RegisterBrokerBody, TopicConfigAndMappingSerializeWrapper, register_body_crc,
};
use remoting::header::{RegisterBrokerRequestHeader, UnRegisterBrokerRequestHeader};
use remoting::{Command, RequestCode, json};
use store::{
    DelayLevels, FlushMode, IndexOptions, LogWarmUp, MessageStore, OpenReport, ReadLimits,
    StageOptions, StoreOptions,
};
use tokio::task::JoinHandle;

use crate::broker::{Broker, BrokerService};
use crate::config::{Config, FlushDisk, WarmUpWay};
use crate::namesrv::{self, NameServer};
use crate::progress::Bar;
use crate::readers::Readers;
use crate::recovery;
use crate::registration::{Changes, Registrant, Registrations};
use crate::schedule::Delivery;
use crate::server::{self, Places, Server, Workers};
use crate::traffic;

/// How long requests in hand may take when the node stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long start-up waits for the first registration before it says that it is ready.
const FIRST_REGISTRATION: Duration = Duration::from_secs(1);
/// How often held pulls are looked at for their deadline; messages wake them at once.
const HOLD_SCAN: Duration = Duration::from_millis(200);
/// How often silent clients are looked for (RocketMQ: 10 s).
const CLIENT_SCAN: Duration = Duration::from_secs(10);
/// The fast port lies so far below the port (`vipChannel`).
const FAST_PORT_DISTANCE: u16 = 2;

/// A running node.
pub struct Node {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Where everything is.
    pub summary: Summary,
    broker_server: Server,
    namesrv_server: Option<Server>,
    /// The threads of both.
    workers: Workers,
    registrations: Registrations,
    delivery: Delivery,
    tasks: Vec<JoinHandle<()>>,
}

/// What a node says when it is ready.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Addresses that the broker listens on; the first is its own, the second the fast port.
    pub broker_addresses: Vec<SocketAddr>,
    /// What routes name it by.
    pub advertised: String,
    /// The embedded name server.
    pub namesrv_address: Option<SocketAddr>,
    /// Name servers that the broker registers with.
    pub name_servers: Vec<String>,
    /// The store's directory.
    pub store: PathBuf,
    /// What opening it did.
    pub recovery: OpenReport,
    /// What an acknowledgement means.
    pub durability: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self
            .broker_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        writeln!(f, "foliomq {} is ready", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "  broker       {}", addresses.join(" and "))?;
        writeln!(f, "  advertised   {}", self.advertised)?;
        match self.namesrv_address {
            Some(address) => writeln!(f, "  name server  {address}")?,
            None => writeln!(f, "  name servers {}", self.name_servers.join(";"))?,
        }
        writeln!(f, "  store        {}", self.store.display())?;
        writeln!(f, "  recovery     {}", self.recovery)?;
        write!(f, "  durability   {}", self.durability)
    }
}

impl Node {
    /// Starts everything that `config` asks for. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// An address is taken, the store refuses to open, a table is unreadable: with file and cure.
    pub async fn start(config: Config) -> Result<Self> {
        let sockets = bind_broker(&config)?;
        let bound = sockets[0].local_addr().context("the bound address")?;
        let (address, advertised) = advertised(&config, bound)?;
        let embedded = config.network.name_servers.is_empty();
        let namesrv_socket = embedded
            .then(|| {
                bind(
                    &config.network.namesrv_listen,
                    config.network.limits.backlog,
                )
            })
            .transpose()?;
        let namesrv_address = namesrv_socket
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
            .context("address")?;
        let name_servers = match namesrv_address {
            Some(address) => vec![reachable(address).to_string()],
            None => config.network.name_servers.clone(),
        };

        let options = store_options(&config)?;
        let durability = durability(&options.flush);
        let root = options.root.clone();
        let (store, report) = MessageStore::open_showing(options, &Bar::new())
            .with_context(|| format!("cannot open the store in {}", root.display()))?;
        recovery::tell(&report);
        tell_of_stage(&store, config.store.stage);
        let changes = Changes::new(name_servers.len());
        let readers = Readers::start(&config.pull.cold).context("threads for cold reads")?;
        let broker = Broker::new(
            config,
            address,
            advertised,
            Arc::new(store),
            readers,
            Arc::clone(&changes),
        )
        .context("cannot load the broker's tables")?;

        let limits = broker.config.network.limits.clone();
        let service = Arc::new(BrokerService(Arc::clone(&broker)));
        let workers = start_workers(limits.worker_threads)?;
        let places = workers.places();
        let broker_server = Server::start("broker", service, limits, sockets, &places)?;
        let mut tasks = broker_tasks(&broker);
        let namesrv_server = match namesrv_socket {
            Some(socket) => {
                let dir = root.join("foliomq").join("namesrv");
                let limits = broker.config.network.limits.clone();
                let (server, task) = start_namesrv(&dir, limits, socket, &places)?;
                tasks.push(task);
                Some(server)
            }
            None => None,
        };
        let registrant = Arc::new(BrokerRegistrant(Arc::clone(&broker)));
        let times = &broker.config.registration;
        let (period, timeout) = (times.period, times.timeout);
        let mut registrations =
            Registrations::start(registrant, &name_servers, changes, period, timeout);
        registrations.first_round(FIRST_REGISTRATION).await;
        let delivery = Delivery::start(Arc::clone(&broker)).context("delay delivery")?;
        let summary = Summary {
            broker_addresses: broker_server.addresses().to_vec(),
            advertised: broker.address_text(),
            namesrv_address,
            name_servers,
            store: root,
            recovery: report,
            durability,
        };
        Ok(Self {
            broker,
            summary,
            broker_server,
            namesrv_server,
            workers,
            registrations,
            delivery,
            tasks,
        })
    }

    /// Stops in order: no new requests, answers for those in hand, then the store.
    ///
    /// # Errors
    /// The store could not be closed cleanly; it recovers at the next start.
    pub async fn stop(self) -> Result<()> {
        let Self {
            broker,
            broker_server,
            namesrv_server,
            workers,
            registrations,
            delivery,
            tasks,
            ..
        } = self;
        registrations.stop().await;
        broker_server.stop(Instant::now() + DRAIN).await;
        // They hold the broker, which holds them.
        broker.holds.clear();
        broker.readers.stop();
        if let Some(server) = namesrv_server {
            server.stop(Instant::now() + DRAIN).await;
        }
        drop(workers);
        for task in tasks {
            task.abort();
        }
        drop(delivery);
        broker.save_offsets();
        broker.save_delays();
        broker
            .store
            .close()
            .context("the store was not closed cleanly; the next start recovers it")
    }
}

/// A name server alone.
pub struct NamesrvNode {
    /// Where it listens.
    pub address: SocketAddr,
    server: Server,
    task: JoinHandle<()>,
    _workers: Workers,
}

impl NamesrvNode {
    /// Starts a name server with its key-value configuration in `dir`. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// The address is taken, or the configuration is unreadable.
    pub fn start(listen: &str, dir: &Path) -> Result<Self> {
        let limits = crate::config::Limits::default();
        let socket = bind(listen, limits.backlog)?;
        let workers = start_workers(limits.worker_threads)?;
        let (server, task) = start_namesrv(dir, limits, socket, &workers.places())?;
        let address = server.addresses()[0];
        Ok(Self {
            address,
            server,
            task,
            _workers: workers,
        })
    }

    /// Stops it.
    pub async fn stop(self) {
        self.server.stop(Instant::now() + DRAIN).await;
        self.task.abort();
    }
}

fn start_workers(count: usize) -> Result<Workers> {
    Workers::start(count, crate::burst::end).context("cannot start the network threads")
}

fn start_namesrv(
    dir: &Path,
    limits: crate::config::Limits,
    socket: TcpListener,
    places: &Places,
) -> Result<(Server, JoinHandle<()>)> {
    let namesrv = Arc::new(NameServer::new(dir).context("the name server's configuration")?);
    let service = Arc::clone(&namesrv) as _;
    let server = Server::start("namesrv", service, limits, vec![socket], places)?;
    let task = tokio::spawn(every(namesrv::SCAN_INTERVAL, move || {
        namesrv.expire(Instant::now())
    }));
    Ok((server, task))
}

/// What the broker does from time to time. No message waits for any of it.
fn broker_tasks(broker: &Arc<Broker>) -> Vec<JoinHandle<()>> {
    let interval = broker.config.groups.offset_flush_interval;
    let of = |act: fn(&Broker)| {
        let broker = Arc::clone(broker);
        move || act(&broker)
    };
    let offsets = Arc::clone(broker);
    let save = async move {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            let broker = Arc::clone(&offsets);
            // Writing a file blocks. A panic has been printed; the next turn tries again.
            let _panicked = tokio::task::spawn_blocking(move || broker.save_offsets()).await;
        }
    };
    vec![
        tokio::spawn(save),
        tokio::spawn(every(
            HOLD_SCAN,
            of(|broker| broker.holds.expire(Instant::now())),
        )),
        tokio::spawn(every(
            CLIENT_SCAN,
            of(|broker| broker.expire_clients(Instant::now())),
        )),
        tokio::spawn(every(
            Duration::from_secs(traffic::SAMPLE_SECONDS),
            of(|broker| broker.traffic.sample(crate::clock::now_ms())),
        )),
    ]
}

async fn every(period: Duration, act: impl Fn() + Send + 'static) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        act();
    }
}

/// The broker's port, and the fast port two below it.
fn bind_broker(config: &Config) -> Result<Vec<TcpListener>> {
    let network = &config.network;
    let bind_at = |port: u16| {
        bind(
            &format!("{}:{port}", network.bind_host),
            network.limits.backlog,
        )
    };
    let mut sockets = vec![bind_at(network.listen_port)?];
    if let Some(port) = network
        .listen_port
        .checked_sub(FAST_PORT_DISTANCE)
        .filter(|port| *port > 0)
    {
        sockets.push(bind_at(port).context("the fast port (vipChannel) is the port minus 2")?);
    }
    Ok(sockets)
}

fn bind(listen: &str, backlog: u32) -> Result<TcpListener> {
    let address = resolve(listen)?;
    server::bind(address, backlog).with_context(|| {
        format!(
            "cannot listen on {listen}: another process may have it, or it is not this machine's"
        )
    })
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found = address
        .to_socket_addrs()
        .with_context(|| format!("no address: {address}"))?;
    found
        .next()
        .with_context(|| format!("{address} has no address"))
}

/// How clients are told to reach the broker, and the same as an address for message ids.
fn advertised(config: &Config, bound: SocketAddr) -> Result<(SocketAddr, String)> {
    let network = &config.network;
    match &network.advertise_host {
        Some(host) => {
            let text = format!("{host}:{}", bound.port());
            Ok((
                resolve(&text).context("the advertised host (brokerIP1, --advertise)")?,
                text,
            ))
        }
        None => {
            let address = match bound.ip().is_unspecified() {
                true => SocketAddr::new(outward_address(), bound.port()),
                false => bound,
            };
            Ok((address, address.to_string()))
        }
    }
}

/// The address that this machine would use to reach others; loopback when it reaches none.
/// Nothing is sent: connecting a datagram socket only chooses a route.
fn outward_address() -> IpAddr {
    let documentation = SocketAddr::from(([192, 0, 2, 1], 9));
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect(documentation)?;
            socket.local_addr()
        })
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// An address to connect to: a server that listens everywhere is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    }
    address
}

pub(crate) fn store_options(config: &Config) -> Result<StoreOptions> {
    let from = &config.store;
    let delays: Vec<_> = from
        .delay_levels
        .iter()
        .map(|delay| format!("{}s", delay.as_secs()))
        .collect();
    let mut options = StoreOptions::new(config.store_root());
    options.commit_log_dir.clone_from(&from.commit_log_dir);
    options.segment_len = from.commit_log_segment_len;
    options.queue_file_len = from.consume_queue_segment_len;
    options.extension_file_len = from.queue_extension_segment_len;
    options.writes_extensions = from.queue_extensions;
    options.dispatches_light_queues = from.multi_dispatch;
    options.batch_queue_file_len = from.batch_queue_segment_len;
    options.batch_topics = crate::state::topics::batch_topics(&options.root);
    options.index = from.index.then_some(IndexOptions {
        slot_count: from.index_slot_count,
        entry_count_max: from.index_entry_count_max,
        ..IndexOptions::DEFAULT
    });
    options.flush = match from.flush_disk {
        FlushDisk::Async if from.stage => FlushMode::Staged {
            stage: StageOptions {
                buffer_count: from.stage_buffer_count,
                interval: from.commit_interval,
                least_pages: u64::from(from.commit_least_pages),
                thorough_interval: from.commit_thorough_interval,
                is_fast_failing: from.stage_fast_fail,
                ..StageOptions::DEFAULT
            },
            interval: from.flush_interval,
            least_pages: u64::from(from.flush_least_pages),
            thorough_interval: from.flush_thorough_interval,
        },
        FlushDisk::Async => FlushMode::Async {
            interval: from.flush_interval,
            least_pages: u64::from(from.flush_least_pages),
            thorough_interval: from.flush_thorough_interval,
        },
        FlushDisk::Sync => FlushMode::Sync {
            timeout: from.sync_flush_timeout,
        },
    };
    // RocketMQ syncs what it touches in sync mode only.
    let sync_every = (from.flush_disk == FlushDisk::Sync).then_some(from.warm_least_pages);
    options.log_warm_up = match config.log_warm_up() {
        WarmUpWay::None => LogWarmUp::None,
        WarmUpWay::Window => LogWarmUp::Window,
        WarmUpWay::Touch => LogWarmUp::Whole(WarmUp::Touch { sync_every }),
        WarmUpWay::Populate => LogWarmUp::Whole(WarmUp::Populate),
        WarmUpWay::Zeros => LogWarmUp::Whole(WarmUp::Zeros),
    };
    options.log_lock_tail = from.log_lock_tail;
    options.log_advice = config.log_advice();
    options.recovery = from.recovery_policy;
    options.mapped_len_max = from.mapped_len_max;
    options.unmap_after = from.unmap.then_some(from.unmap_after);
    options.derived_flush_interval = from.derived_flush_interval;
    options.clean = from.clean.clone();
    options.limits.body_len_max = from.body_len_max;
    options.limits.record_len_max = from.body_len_max.saturating_add(64 * 1024);
    if from.crc_property {
        options.limits.crc_property = message::CrcProperty::Append;
    }
    options.delay_levels = DelayLevels::parse(&delays.join(" ")).context("messageDelayLevel")?;
    options.read = ReadLimits {
        hot_count_max: config.pull.count_max,
        hot_bytes_max: config.pull.bytes_max as u64,
        cold_count_max: config.pull.old_count_max,
        cold_bytes_max: config.pull.old_bytes_max,
        hot_len: memory_len() / 100 * config.pull.memory_percent,
        ..ReadLimits::DEFAULT
    };
    Ok(options)
}

/// Bytes of memory that the machine has.
fn memory_len() -> u64 {
    let machine = rustix::system::sysinfo();
    machine.totalram.saturating_mul(u64::from(machine.mem_unit))
}

/// Says what is not as the configuration asks for.
fn tell_of_stage(store: &MessageStore, is_asked_for: bool) {
    let pool = store.log().stage_pool();
    if is_asked_for && pool.is_none() {
        tracing::warn!("transientStorePoolEnable has no effect with SYNC_FLUSH");
    }
    if let Some(refusal) = pool.and_then(StagePool::lock_refusal) {
        tracing::warn!(%refusal, "the transient store pool is not locked and may be swapped out");
    }
}

fn durability(flush: &FlushMode) -> String {
    if let FlushMode::Sync { timeout } = flush {
        return format!(
            "SYNC_FLUSH: acknowledged means synced to the device (or FLUSH_DISK_TIMEOUT after {timeout:?})"
        );
    }
    let window = flush.loss_window().map(|window| window.to_string());
    let killed = flush.kill_window().map_or_else(
        || "loses nothing".to_owned(),
        |window| format!("loses what was acknowledged in {window}"),
    );
    format!(
        "ASYNC_FLUSH: a killed process {killed}; a power loss can take what was acknowledged in {}",
        window.unwrap_or_default()
    )
}

/// What the broker says to name servers.
struct BrokerRegistrant(Arc<Broker>);

impl Registrant for BrokerRegistrant {
    fn registration(&self, topics: Option<&BTreeSet<String>>) -> Command {
        let broker = &self.0;
        let (data_version, mut table) = broker.topics.snapshot();
        if let Some(topics) = topics {
            table.retain(|name, _| topics.contains(name));
        }
        for topic in table.values_mut() {
            topic.perm &= broker.config.identity.permission | crate::state::topics::perm::INHERIT;
        }
        let body = RegisterBrokerBody {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
                data_version,
                topic_config_table: table,
                ..Default::default()
            },
        };
        // The tables hold nothing that JSON cannot.
        let body = json::encode(&body).unwrap_or_default();
        let identity = &broker.config.identity;
        let (address, ha) = (broker.address_text(), ha_address(broker));
        let header = RegisterBrokerRequestHeader {
            broker_name: &identity.broker_name,
            broker_addr: &address,
            cluster_name: &identity.cluster_name,
            ha_server_addr: &ha,
            broker_id: identity.broker_id.cast_signed(),
            heartbeat_timeout_millis: None,
            enable_acting_master: Some(false),
            compressed: false,
            body_crc32: register_body_crc(&body),
            zone_name: None,
        };
        Command::request(RequestCode::REGISTER_BROKER)
            .with_header(&header)
            .with_body(body)
    }

    fn farewell(&self) -> Command {
        let identity = &self.0.config.identity;
        let address = self.0.address_text();
        let header = UnRegisterBrokerRequestHeader {
            broker_name: &identity.broker_name,
            broker_addr: &address,
            cluster_name: &identity.cluster_name,
            broker_id: identity.broker_id.cast_signed(),
        };
        Command::request(RequestCode::UNREGISTER_BROKER).with_header(&header)
    }
}

/// Where slaves would replicate from; name servers want one, nobody listens there yet.
fn ha_address(broker: &Broker) -> String {
    let network = &broker.config.network;
    let host = network
        .ha_host
        .clone()
        .unwrap_or_else(|| broker.address.ip().to_string());
    format!("{host}:{}", network.ha_port)
}

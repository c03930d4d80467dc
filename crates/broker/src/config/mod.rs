//! Typed options of the broker and the name server, and how they come about: a flag beats the
//! file, the file beats the default.
//!
//! The names that RocketMQ gives them are known to [`keys`] alone.

pub mod keys;
mod kinds;
pub mod properties;
mod unused;
mod value;

use std::path::{Path, PathBuf};
use std::time::Duration;

use mmap_core::Advice;
use mmap_core::transfer::Way;
use store::{CleanOptions, ReadLimits, RecoveryPolicy};
use thiserror::Error;

pub use self::keys::Findings;

/// Everything that can be set. Each field says its `broker.conf` key and what it does; the
/// defaults are RocketMQ 5.3.3's unless the field says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who this broker is.
    pub identity: Identity,
    /// Addresses, and what one peer may cost.
    pub network: Network,
    /// The topic table.
    pub topics: TopicOptions,
    /// Consumer groups.
    pub groups: GroupOptions,
    /// Reading.
    pub pull: PullOptions,
    /// Registration with name servers.
    pub registration: RegistrationOptions,
    /// The message store.
    pub store: StoreConfig,
}

/// The broker's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `brokerClusterName`.
    pub cluster_name: String,
    /// `brokerName`; default: the machine's host name, as with Java.
    pub broker_name: String,
    /// `brokerId`: 0 is the master, the only role there is yet.
    pub broker_id: u64,
    /// `regionId`: property MSG_REGION of every stored message.
    pub region_id: String,
    /// `brokerPermission`: bits of every topic's permission; 2 write, 4 read.
    pub permission: i32,
    /// `traceOn`: property TRACE_ON of every stored message.
    pub trace: bool,
}

/// Addresses and limits of the sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// `bindAddress`: host to listen on. Default 127.0.0.1 (Java's is 0.0.0.0).
    pub bind_host: String,
    /// `listenPort`; the fast port is the one two below. 0 takes a free one (no fast port then).
    pub listen_port: u16,
    /// `brokerIP1`: the host that clients are told. Default: the bound one, or the first address
    /// that is not loopback when all are bound.
    pub advertise_host: Option<String>,
    /// `brokerIP2`: the host that replicas would be told; default: the advertised one.
    pub ha_host: Option<String>,
    /// `haListenPort`: told to the name servers; nothing listens there yet.
    pub ha_port: u16,
    /// `namesrvAddr`: name servers to register with; none = the embedded one is started.
    pub name_servers: Vec<String>,
    /// `foliomq.namesrvListen`: where the embedded name server listens.
    pub namesrv_listen: String,
    /// What one peer may cost.
    pub limits: Limits,
}

/// Bounds of the network side; each refusal names its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `foliomq.maxConnections`: more are closed as they come.
    pub connection_count_max: usize,
    /// `foliomq.maxFrameBytes`: longer frames close their connection. Java: 16 MiB.
    pub frame_len_max: usize,
    /// `foliomq.outboundHighWaterBytes`: a connection with more bytes unsent is not read from.
    pub outbound_high_water: usize,
    /// `foliomq.writeStallMillis`: a connection that takes none of its unsent bytes for so long is
    /// closed.
    pub write_stall: Duration,
    /// `serverChannelMaxIdleTimeSeconds`: a connection silent in both directions is closed.
    pub idle: Duration,
    /// `foliomq.maxHeldPullsPerConnection`: more are answered at once instead of held.
    pub held_pulls_per_connection_max: usize,
    /// `serverSocketBacklog`: connections the kernel holds before they are accepted.
    pub backlog: u32,
    /// `foliomq.workerThreads`: threads that serve the sockets.
    pub worker_threads: usize,
}

/// The topic table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    /// `autoCreateTopicEnable`: a send to an unknown topic makes it, after TBW102's pattern.
    pub auto_create: bool,
    /// `defaultTopicQueueNums`: queues of TBW102, hence the most that an auto-created topic gets.
    pub default_queue_count: i32,
    /// `clusterTopicEnable`: the topic named as the cluster may be written to.
    pub cluster_topic: bool,
    /// `brokerTopicEnable`: the topic named as the broker may be written to.
    pub broker_topic: bool,
    /// `traceTopicEnable`: the trace topic exists from the start.
    pub trace_topic: bool,
    /// `msgTraceTopicName`.
    pub trace_topic_name: String,
}

/// Consumer groups and their clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    /// `autoCreateSubscriptionGroup`: a heartbeat or pull of an unknown group makes it.
    pub auto_create: bool,
    /// `notifyConsumerIdsChangedEnable`: members are told when their group changes.
    pub notify_changes: bool,
    /// `channelExpiredTimeout`: a client that sends no heartbeat for so long is dropped.
    pub client_expiry: Duration,
    /// `flushConsumerOffsetInterval`: how often consumerOffset.json is written.
    pub offset_flush_interval: Duration,
    /// `consumerOffsetUpdateVersionStep`: commits per step of the offsets' data version.
    pub offset_version_step: u64,
    /// `delayOffsetUpdateVersionStep`: updates per step of the delay offsets' data version.
    pub delay_offset_version_step: u64,
    /// `flushDelayOffsetInterval`: how often delayOffset.json is written.
    pub delay_offset_flush_interval: Duration,
}

/// Reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOptions {
    /// `longPollingEnable`: a pull that finds nothing is held for as long as it allows.
    pub long_polling: bool,
    /// `shortPollingTimeMills`: how long it is held otherwise.
    pub short_polling: Duration,
    /// `litePullMessageEnable`: request 361 is served.
    pub lite_pull: bool,
    /// `maxTransferBytesOnMessageInMemory`.
    pub bytes_max: usize,
    /// `maxTransferCountOnMessageInMemory`.
    pub count_max: usize,
    /// `accessMessageInMemoryMaxRatio`: percent of the machine's memory; so many bytes at the log's
    /// end count as being in memory.
    pub memory_percent: u64,
    /// `maxTransferBytesOnMessageInDisk`: the bounds of a pull from before them.
    pub old_bytes_max: u64,
    /// `maxTransferCountOnMessageInDisk`.
    pub old_count_max: usize,
    /// `foliomq.transfer`: how messages come from their files to the socket. Default: as
    /// RocketMQ's key says.
    pub transfer: Option<Transfer>,
    /// `transferMsgByHeap`: copied into memory of their own. Default: no (Java's: yes).
    pub transfer_by_heap: bool,
    /// Reads of what is not in memory.
    pub cold: ColdReads,
    /// `defaultQueryMaxNum`: most messages that a query by unique key returns.
    pub query_count_default: usize,
}

/// How messages come from their files to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// By the way that suits them.
    Auto,
    /// Always by this one.
    By(Way),
}

/// What reads of what is not in memory may take: a budget of their own, so that a client that goes
/// through old messages does not hold up the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdReads {
    /// `foliomq.coldReadThreads`: threads that read. With 0 the threads that serve the sockets do,
    /// and wait for the device.
    pub thread_count: usize,
    /// `foliomq.coldReadQueueMax`: reads that wait for a thread; more are refused, and asked again
    /// by their clients.
    pub waiting_max: usize,
    /// `foliomq.coldReadBytesMax`: bytes that were read for connections that have not picked them
    /// up, or are being read.
    pub bytes_max: u64,
}

/// Registration with name servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationOptions {
    /// `registerNameServerPeriod`: how often the whole table is sent; 10 to 60 seconds.
    pub period: Duration,
    /// `registerBrokerTimeoutMills`: how long a name server may take.
    pub timeout: Duration,
}

/// When a stored message counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushDisk {
    /// `ASYNC_FLUSH`: once it is in the page cache.
    Async,
    /// `SYNC_FLUSH`: once the device has it.
    Sync,
}

/// How the pages of the commit log are prepared for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarmUpWay {
    /// Not at all; blocks are allocated.
    None,
    /// Those just ahead of the last message are faulted in.
    Window,
    /// And whole files before that, by touching each page.
    Touch,
    /// And whole files before that, by the kernel.
    Populate,
    /// And whole files before that, by writing zeros and syncing them.
    Zeros,
}

/// The message store's options under RocketMQ's rules; sizes in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreConfig {
    /// `storePathRootDir`.
    pub root: Option<PathBuf>,
    /// `storePathCommitLog`; default: `commitlog` under the root.
    pub commit_log_dir: Option<PathBuf>,
    /// `mappedFileSizeCommitLog`: part of the format.
    pub commit_log_segment_len: u64,
    /// `mappedFileSizeConsumeQueue`: part of the format; rounded up to whole entries of 20 bytes.
    pub consume_queue_segment_len: u64,
    /// `mappedFileSizeConsumeQueueExt`: part of the format.
    pub queue_extension_segment_len: u64,
    /// `mapperFileSizeBatchConsumeQueue`: part of the format, a multiple of 46 bytes.
    pub batch_queue_segment_len: u64,
    /// `enableConsumeQueueExt`: new entries get units of extended consume queues. Those that are
    /// there are read either way.
    pub queue_extensions: bool,
    /// `enableMultiDispatch`: records that name light queues get entries in them.
    pub multi_dispatch: bool,
    /// `maxHashSlotNum`: part of the format.
    pub index_slot_count: u32,
    /// `maxIndexNum`: part of the format.
    pub index_entry_count_max: u32,
    /// `messageIndexEnable`.
    pub index: bool,
    /// `flushDiskType`.
    pub flush_disk: FlushDisk,
    /// `transientStorePoolEnable`: records wait in locked buffers, which a thread commits to the log.
    /// In async mode only.
    pub stage: bool,
    /// `transientStorePoolSize`: buffers of 4 MiB, not of a whole file.
    pub stage_buffer_count: usize,
    /// `fastFailIfNoBufferInStorePool`.
    pub stage_fast_fail: bool,
    /// `commitIntervalCommitLog`.
    pub commit_interval: Duration,
    /// `commitCommitLogLeastPages`.
    pub commit_least_pages: u32,
    /// `commitCommitLogThoroughInterval`.
    pub commit_thorough_interval: Duration,
    /// `warmMapedFileEnable` (sic): whole files of the log are warmed up by touching each page, unless
    /// `foliomq.commitLogWarmUp` says otherwise.
    pub warm_mapped_file: bool,
    /// `flushLeastPagesWhenWarmMapedFile`: in sync mode, pages touched between two syncs.
    pub warm_least_pages: u32,
    /// `foliomq.commitLogWarmUp`: how the log's pages are prepared; `None` leaves it to
    /// `warmMapedFileEnable`.
    pub log_warm_up: Option<WarmUpWay>,
    /// `foliomq.commitLogLock`: whether the file that is appended to is kept in memory.
    pub log_lock_tail: bool,
    /// `dataReadAheadEnable`: `false` tells the kernel to read no more than what is asked for.
    pub data_read_ahead: bool,
    /// `foliomq.commitLogAdvice`: what the kernel is told instead; `None` leaves it to
    /// `dataReadAheadEnable`.
    pub log_advice: Option<Advice>,
    /// `foliomq.recoveryPolicy`: what to do about damage in the middle of the log.
    pub recovery_policy: RecoveryPolicy,
    /// `flushIntervalCommitLog`.
    pub flush_interval: Duration,
    /// `flushCommitLogLeastPages`: pages of 4 KiB.
    pub flush_least_pages: u32,
    /// `flushCommitLogThoroughInterval`.
    pub flush_thorough_interval: Duration,
    /// `flushIntervalConsumeQueue`: also of the index and the checkpoint.
    pub derived_flush_interval: Duration,
    /// `syncFlushTimeout`: how long a send waits for the device.
    pub sync_flush_timeout: Duration,
    /// `maxMessageSize`: longest body.
    pub body_len_max: usize,
    /// `enabledAppendPropCRC`: records carry a CRC of their own in the property `__CRC32#`.
    pub crc_property: bool,
    /// `messageDelayLevel`: the delays, level 1 first.
    pub delay_levels: Vec<Duration>,
    /// `foliomq.maxMappedBytes`: bytes of files that may be mapped at a time; 0 is no bound.
    pub mapped_len_max: Option<u64>,
    /// `mappedFileSwapEnable`: files that are not read are unmapped.
    pub unmap: bool,
    /// `commitLogSwapMapInterval`: after so long.
    pub unmap_after: Duration,
    /// `fileReservedTime`, `deleteWhen`, the disk's watermarks, ...: how long messages are kept.
    pub clean: CleanOptions,
}

/// What the command line can say; `None` leaves the file's word or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-c`.
    pub file: Option<PathBuf>,
    /// `--store`.
    pub store: Option<PathBuf>,
    /// `--listen HOST:PORT`.
    pub listen: Option<String>,
    /// `--namesrv-listen HOST:PORT`.
    pub namesrv_listen: Option<String>,
    /// `--namesrv HOST:PORT;...`.
    pub namesrv: Option<String>,
    /// `--advertise HOST`.
    pub advertise: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not a properties text.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: properties::PropertiesError,
    },
    /// A key has a value that it cannot have.
    #[error("{origin}: {key} = {value:?}: allowed is {allowed}")]
    Value {
        /// File and line, or the flag.
        origin: String,
        /// The key.
        key: String,
        /// The refused value.
        value: String,
        /// What would be right.
        allowed: String,
    },
}

impl Config {
    /// RocketMQ's defaults for a machine of this name.
    #[must_use]
    pub fn new(host_name: &str) -> Self {
        Self {
            identity: Identity {
                cluster_name: "DefaultCluster".to_owned(),
                broker_name: host_name.to_owned(),
                broker_id: 0,
                region_id: "DefaultRegion".to_owned(),
                permission: 6,
                trace: true,
            },
            network: Network::default(),
            topics: TopicOptions::default(),
            groups: GroupOptions::default(),
            pull: PullOptions::default(),
            registration: RegistrationOptions {
                period: Duration::from_secs(30),
                timeout: Duration::from_secs(24),
            },
            store: StoreConfig::default(),
        }
    }

    /// Puts a `broker.conf` text over the defaults; returns what deserves a warning.
    ///
    /// # Errors
    /// A text that is no properties text, or a value that its key cannot have.
    pub fn apply_file(&mut self, path: &Path, text: &str) -> Result<Findings, ConfigError> {
        let entries = properties::parse(text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        let mut findings = Findings::default();
        for entry in entries {
            findings.apply(self, path, &entry)?;
        }
        if self.store.root.is_none() {
            // As Java: a configuration file without a path means the one in the home directory.
            self.store.root =
                std::env::var_os("HOME").map(|home| PathBuf::from(home).join("store"));
        }
        Ok(findings)
    }

    /// Puts the command line over file and defaults.
    ///
    /// # Errors
    /// A flag whose value is not of its form.
    pub fn apply_flags(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        if let Some(store) = &flags.store {
            self.store.root = Some(store.clone());
        }
        if let Some(listen) = &flags.listen {
            let (host, port) = flag("--listen", listen, value::host_and_port)?;
            self.network.bind_host = host;
            self.network.listen_port = port;
        }
        if let Some(listen) = &flags.namesrv_listen {
            flag("--namesrv-listen", listen, value::host_and_port)?;
            self.network.namesrv_listen.clone_from(listen);
        }
        if let Some(servers) = &flags.namesrv {
            self.network.name_servers = flag("--namesrv", servers, value::addresses)?;
        }
        if let Some(host) = &flags.advertise {
            self.network.advertise_host = Some(flag("--advertise", host, value::text)?);
        }
        Ok(())
    }

    /// How the log's pages are prepared, by our key or RocketMQ's.
    #[must_use]
    pub fn log_warm_up(&self) -> WarmUpWay {
        let by_java = match self.store.warm_mapped_file {
            true => WarmUpWay::Touch,
            false => WarmUpWay::Window,
        };
        self.store.log_warm_up.unwrap_or(by_java)
    }

    /// How messages come from their files to the socket, by our key or RocketMQ's.
    #[must_use]
    pub fn transfer(&self) -> Transfer {
        let by_java = match self.pull.transfer_by_heap {
            true => Transfer::By(Way::Copy),
            false => Transfer::Auto,
        };
        self.pull.transfer.unwrap_or(by_java)
    }

    /// What the kernel is told of how the log is read, by our key or RocketMQ's.
    #[must_use]
    pub fn log_advice(&self) -> Advice {
        let by_java = match self.store.data_read_ahead {
            true => Advice::Normal,
            false => Advice::Random,
        };
        self.store.log_advice.unwrap_or(by_java)
    }

    /// The store's directory: the one given, else `foliomq-data` here.
    #[must_use]
    pub fn store_root(&self) -> PathBuf {
        self.store
            .root
            .clone()
            .unwrap_or_else(|| PathBuf::from("foliomq-data"))
    }
}

fn flag<T>(
    name: &str,
    given: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    parse(given).map_err(|allowed| ConfigError::Value {
        origin: "command line".to_owned(),
        key: name.to_owned(),
        value: given.to_owned(),
        allowed,
    })
}

impl Default for Network {
    fn default() -> Self {
        Self {
            bind_host: "127.0.0.1".to_owned(),
            listen_port: 10911,
            advertise_host: None,
            ha_host: None,
            ha_port: 10912,
            name_servers: Vec::new(),
            namesrv_listen: "127.0.0.1:9876".to_owned(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_count_max: 15_000,
            frame_len_max: 16 * 1024 * 1024,
            outbound_high_water: 4 * 1024 * 1024,
            write_stall: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            held_pulls_per_connection_max: 10_000,
            backlog: 1024,
            worker_threads: 2,
        }
    }
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            auto_create: true,
            default_queue_count: 8,
            cluster_topic: true,
            broker_topic: true,
            trace_topic: false,
            trace_topic_name: "RMQ_SYS_TRACE_TOPIC".to_owned(),
        }
    }
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            auto_create: true,
            notify_changes: true,
            client_expiry: Duration::from_secs(120),
            offset_flush_interval: Duration::from_secs(5),
            offset_version_step: 500,
            delay_offset_version_step: 200,
            delay_offset_flush_interval: Duration::from_secs(10),
        }
    }
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            long_polling: true,
            short_polling: Duration::from_secs(1),
            lite_pull: true,
            bytes_max: 256 * 1024,
            count_max: 32,
            memory_percent: 40,
            old_bytes_max: ReadLimits::DEFAULT.cold_bytes_max,
            old_count_max: ReadLimits::DEFAULT.cold_count_max,
            transfer: None,
            transfer_by_heap: false,
            cold: ColdReads::default(),
            query_count_default: 32,
        }
    }
}

impl Default for ColdReads {
    fn default() -> Self {
        Self {
            thread_count: 2,
            waiting_max: 10_000,
            bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        let seconds = [1, 5, 10, 30];
        let minutes = (1..=10).chain([20, 30]).map(|minute| minute * 60);
        let hours = [3600, 7200];
        let levels = seconds.into_iter().chain(minutes).chain(hours);
        Self {
            root: None,
            commit_log_dir: None,
            commit_log_segment_len: 1 << 30,
            consume_queue_segment_len: 6_000_000,
            queue_extension_segment_len: 48 * 1024 * 1024,
            batch_queue_segment_len: 13_800_000,
            queue_extensions: false,
            multi_dispatch: false,
            index_slot_count: 5_000_000,
            index_entry_count_max: 20_000_000,
            index: true,
            flush_disk: FlushDisk::Async,
            stage: false,
            stage_buffer_count: 5,
            stage_fast_fail: false,
            commit_interval: Duration::from_millis(200),
            commit_least_pages: 4,
            commit_thorough_interval: Duration::from_millis(200),
            warm_mapped_file: false,
            warm_least_pages: 4096,
            log_warm_up: None,
            log_lock_tail: false,
            data_read_ahead: true,
            log_advice: None,
            recovery_policy: RecoveryPolicy::Report,
            flush_interval: Duration::from_millis(500),
            flush_least_pages: 4,
            flush_thorough_interval: Duration::from_secs(10),
            derived_flush_interval: Duration::from_secs(1),
            sync_flush_timeout: Duration::from_secs(5),
            body_len_max: 4 * 1024 * 1024,
            crc_property: false,
            delay_levels: levels.map(Duration::from_secs).collect(),
            mapped_len_max: Some(16 << 30),
            unmap: true,
            unmap_after: Duration::from_secs(3600),
            clean: CleanOptions::DEFAULT,
        }
    }
}

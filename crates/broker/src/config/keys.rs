//! RocketMQ's configuration keys: the only place that knows them.
//!
//! Names and defaults: `BrokerConfig`, `MessageStoreConfig`, `NettyServerConfig`, `NamesrvConfig`
//! and `BrokerIdentity` of RocketMQ 5.3.3 and the release after it. Keys that begin with
//! `foliomq.` are ours; a Java broker ignores them.

use std::collections::BTreeSet;
use std::path::Path;

use super::kinds::*;
use super::properties::Entry;
use super::unused::UNUSED;
use super::{Config, ConfigError, value};

/// Keys of a file that had no effect; each list makes one warning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Keys of RocketMQ that nothing here reads yet.
    pub unused: BTreeSet<String>,
    /// Keys that nobody knows.
    pub unknown: BTreeSet<String>,
}

impl Findings {
    pub(super) fn apply(
        &mut self,
        config: &mut Config,
        path: &Path,
        entry: &Entry,
    ) -> Result<(), ConfigError> {
        if let Some(key) = USED.iter().find(|key| key.name == entry.key) {
            (key.apply)(config, &entry.value).map_err(|allowed| ConfigError::Value {
                origin: format!("{}, line {}", path.display(), entry.line),
                key: entry.key.clone(),
                value: entry.value.clone(),
                allowed,
            })
        } else {
            let known = UNUSED
                .split_ascii_whitespace()
                .any(|name| name == entry.key);
            let list = if known {
                &mut self.unused
            } else {
                &mut self.unknown
            };
            list.insert(entry.key.clone());
            Ok(())
        }
    }
}

/// The effective configuration under RocketMQ's names, sorted: what request 26 answers.
#[must_use]
pub fn effective(config: &Config) -> Vec<(&'static str, String)> {
    let mut pairs: Vec<_> = USED
        .iter()
        .map(|key| (key.name, (key.show)(config)))
        .collect();
    pairs.sort_unstable();
    pairs
}

struct Key {
    name: &'static str,
    apply: fn(&mut Config, &str) -> Result<(), String>,
    show: fn(&Config) -> String,
}

/// `key!("name", field.path, kind)`, or `kind(arguments)` for kinds with bounds.
macro_rules! key {
    ($name:literal, $($field:ident).+, $kind:ident $(($($bound:expr),+))?) => {
        Key {
            name: $name,
            apply: |config, given| {
                config.$($field).+ = $kind::parse(given $($(, $bound)+)?)?;
                Ok(())
            },
            show: |config| $kind::show(&config.$($field).+),
        }
    };
}

const USED: &[Key] = &[
    key!("brokerClusterName", identity.cluster_name, text),
    key!("brokerName", identity.broker_name, text),
    key!("brokerId", identity.broker_id, number(0, 0)),
    key!("regionId", identity.region_id, text),
    key!("brokerPermission", identity.permission, number(0, 6)),
    key!("traceOn", identity.trace, flag),
    key!("bindAddress", network.bind_host, text),
    key!("listenPort", network.listen_port, number(0, 65_535)),
    key!("brokerIP1", network.advertise_host, optional_text),
    key!("brokerIP2", network.ha_host, optional_text),
    key!("haListenPort", network.ha_port, number(0, 65_535)),
    key!("namesrvAddr", network.name_servers, addresses),
    key!("foliomq.namesrvListen", network.namesrv_listen, address),
    key!(
        "foliomq.maxConnections",
        network.limits.connection_count_max,
        number(1, 1_000_000)
    ),
    key!(
        "foliomq.maxFrameBytes",
        network.limits.frame_len_max,
        number(65_536, 268_435_456)
    ),
    key!(
        "foliomq.outboundHighWaterBytes",
        network.limits.outbound_high_water,
        number(65_536, 1 << 30)
    ),
    key!(
        "foliomq.writeStallMillis",
        network.limits.write_stall,
        millis(100, 3_600_000)
    ),
    key!(
        "serverChannelMaxIdleTimeSeconds",
        network.limits.idle,
        seconds(1, 86_400)
    ),
    key!(
        "foliomq.maxHeldPullsPerConnection",
        network.limits.held_pulls_per_connection_max,
        number(0, 1_000_000)
    ),
    key!(
        "serverSocketBacklog",
        network.limits.backlog,
        number(1, 65_535)
    ),
    key!(
        "foliomq.workerThreads",
        network.limits.worker_threads,
        number(1, 256)
    ),
    key!("autoCreateTopicEnable", topics.auto_create, flag),
    key!(
        "defaultTopicQueueNums",
        topics.default_queue_count,
        number(1, 65_535)
    ),
    key!("clusterTopicEnable", topics.cluster_topic, flag),
    key!("brokerTopicEnable", topics.broker_topic, flag),
    key!("traceTopicEnable", topics.trace_topic, flag),
    key!("msgTraceTopicName", topics.trace_topic_name, text),
    key!("autoCreateSubscriptionGroup", groups.auto_create, flag),
    key!(
        "notifyConsumerIdsChangedEnable",
        groups.notify_changes,
        flag
    ),
    key!(
        "channelExpiredTimeout",
        groups.client_expiry,
        millis(1_000, 86_400_000)
    ),
    key!(
        "flushConsumerOffsetInterval",
        groups.offset_flush_interval,
        millis(10, 3_600_000)
    ),
    key!(
        "consumerOffsetUpdateVersionStep",
        groups.offset_version_step,
        number(1, i64::MAX)
    ),
    key!(
        "delayOffsetUpdateVersionStep",
        groups.delay_offset_version_step,
        number(1, i64::MAX)
    ),
    key!(
        "flushDelayOffsetInterval",
        groups.delay_offset_flush_interval,
        millis(10, 3_600_000)
    ),
    key!("longPollingEnable", pull.long_polling, flag),
    key!(
        "shortPollingTimeMills",
        pull.short_polling,
        millis(1, 3_600_000)
    ),
    key!("litePullMessageEnable", pull.lite_pull, flag),
    key!(
        "maxTransferBytesOnMessageInMemory",
        pull.bytes_max,
        number(1, i32::MAX as i64)
    ),
    key!(
        "maxTransferCountOnMessageInMemory",
        pull.count_max,
        number(1, 65_536)
    ),
    key!(
        "accessMessageInMemoryMaxRatio",
        pull.memory_percent,
        number(0, 100)
    ),
    key!(
        "maxTransferBytesOnMessageInDisk",
        pull.old_bytes_max,
        number(1, i32::MAX as i64)
    ),
    key!(
        "maxTransferCountOnMessageInDisk",
        pull.old_count_max,
        number(1, 65_536)
    ),
    key!("foliomq.transfer", pull.transfer, transfer),
    key!("transferMsgByHeap", pull.transfer_by_heap, flag),
    key!(
        "foliomq.coldReadThreads",
        pull.cold.thread_count,
        number(0, 256)
    ),
    key!(
        "foliomq.coldReadQueueMax",
        pull.cold.waiting_max,
        number(1, 1_000_000)
    ),
    key!(
        "foliomq.coldReadBytesMax",
        pull.cold.bytes_max,
        number(65_536, 1 << 40)
    ),
    key!(
        "defaultQueryMaxNum",
        pull.query_count_default,
        number(1, 65_536)
    ),
    key!(
        "registerNameServerPeriod",
        registration.period,
        registration_period
    ),
    key!(
        "registerBrokerTimeoutMills",
        registration.timeout,
        millis(1, 3_600_000)
    ),
    key!("storePathRootDir", store.root, optional_path),
    key!("storePathCommitLog", store.commit_log_dir, optional_path),
    key!(
        "mappedFileSizeCommitLog",
        store.commit_log_segment_len,
        number(4_096, i32::MAX as i64)
    ),
    key!(
        "mappedFileSizeConsumeQueue",
        store.consume_queue_segment_len,
        queue_segment
    ),
    key!(
        "mappedFileSizeConsumeQueueExt",
        store.queue_extension_segment_len,
        number(32, i32::MAX as i64)
    ),
    key!(
        "mapperFileSizeBatchConsumeQueue",
        store.batch_queue_segment_len,
        number(46, i32::MAX as i64)
    ),
    key!("enableConsumeQueueExt", store.queue_extensions, flag),
    key!("enableMultiDispatch", store.multi_dispatch, flag),
    key!(
        "maxHashSlotNum",
        store.index_slot_count,
        number(1, 100_000_000)
    ),
    key!(
        "maxIndexNum",
        store.index_entry_count_max,
        number(2, 100_000_000)
    ),
    key!("messageIndexEnable", store.index, flag),
    key!("flushDiskType", store.flush_disk, flush_disk),
    key!(
        "foliomq.recoveryPolicy",
        store.recovery_policy,
        recovery_policy
    ),
    key!("transientStorePoolEnable", store.stage, flag),
    key!(
        "transientStorePoolSize",
        store.stage_buffer_count,
        number(1, 100_000)
    ),
    key!("fastFailIfNoBufferInStorePool", store.stage_fast_fail, flag),
    key!(
        "commitIntervalCommitLog",
        store.commit_interval,
        millis(1, 3_600_000)
    ),
    key!(
        "commitCommitLogLeastPages",
        store.commit_least_pages,
        number(0, 1_000_000)
    ),
    key!(
        "commitCommitLogThoroughInterval",
        store.commit_thorough_interval,
        millis(1, 86_400_000)
    ),
    key!("warmMapedFileEnable", store.warm_mapped_file, flag),
    key!(
        "flushLeastPagesWhenWarmMapedFile",
        store.warm_least_pages,
        number(0, 1_000_000)
    ),
    key!("foliomq.commitLogWarmUp", store.log_warm_up, warm_up),
    key!("foliomq.commitLogLock", store.log_lock_tail, log_lock),
    key!("dataReadAheadEnable", store.data_read_ahead, flag),
    key!("foliomq.commitLogAdvice", store.log_advice, log_advice),
    key!(
        "flushIntervalCommitLog",
        store.flush_interval,
        millis(1, 3_600_000)
    ),
    key!(
        "flushCommitLogLeastPages",
        store.flush_least_pages,
        number(0, 1_000_000)
    ),
    key!(
        "flushCommitLogThoroughInterval",
        store.flush_thorough_interval,
        millis(1, 86_400_000)
    ),
    key!(
        "flushIntervalConsumeQueue",
        store.derived_flush_interval,
        millis(1, 3_600_000)
    ),
    key!(
        "syncFlushTimeout",
        store.sync_flush_timeout,
        millis(1, 3_600_000)
    ),
    key!(
        "maxMessageSize",
        store.body_len_max,
        number(1, 256 * 1024 * 1024)
    ),
    key!("enabledAppendPropCRC", store.crc_property, flag),
    key!("messageDelayLevel", store.delay_levels, delay_levels),
    key!("foliomq.maxMappedBytes", store.mapped_len_max, bound),
    key!("mappedFileSwapEnable", store.unmap, flag),
    key!(
        "commitLogSwapMapInterval",
        store.unmap_after,
        millis(1_000, 31_536_000_000)
    ),
    key!(
        "fileReservedTime",
        store.clean.reserved,
        hours(0, 1_000_000)
    ),
    key!("deleteWhen", store.clean.delete_when, delete_when),
    key!(
        "diskMaxUsedSpaceRatio",
        store.clean.max_used_percent,
        number(0, 100)
    ),
    key!(
        "diskSpaceCleanForciblyRatio",
        store.clean.forced_percent,
        number(0, 100)
    ),
    key!(
        "diskSpaceWarningLevelRatio",
        store.clean.full_percent,
        number(0, 100)
    ),
    key!("cleanFileForciblyEnable", store.clean.forced_enabled, flag),
    key!(
        "deleteFileBatchMax",
        store.clean.batch_max,
        number(0, 1_000_000)
    ),
    key!(
        "deleteCommitLogFilesInterval",
        store.clean.pause,
        millis(0, 3_600_000)
    ),
    key!(
        "cleanResourceInterval",
        store.clean.interval,
        millis(1, 86_400_000)
    ),
    key!("foliomq.maxLogBytes", store.clean.log_len_max, bound),
    Key {
        name: "brokerRole",
        apply: |_, given| match given.trim() {
            "ASYNC_MASTER" | "SYNC_MASTER" => Ok(()),
            _ => Err("ASYNC_MASTER or SYNC_MASTER (there are no replicas yet)".to_owned()),
        },
        show: |_| "ASYNC_MASTER".to_owned(),
    },
    Key {
        name: "storeType",
        apply: |_, given| match given.trim() {
            "default" => Ok(()),
            _ => Err("default (the RocksDB store is not read)".to_owned()),
        },
        show: |_| "default".to_owned(),
    },
    Key {
        name: "enableDLegerCommitLog",
        apply: |_, given| match value::flag(given) {
            Ok(false) => Ok(()),
            _ => Err("false (the DLedger log has another format)".to_owned()),
        },
        show: |_| "false".to_owned(),
    },
];

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use mmap_core::Advice;
    use mmap_core::transfer::Way;

    use super::super::{Transfer, WarmUpWay};
    use super::*;

    fn apply(text: &str) -> Result<(Config, Findings), ConfigError> {
        let mut config = Config::new("host");
        let findings = config.apply_file(Path::new("broker.conf"), text)?;
        Ok((config, findings))
    }

    #[test]
    fn no_key_is_listed_twice() {
        let mut names: Vec<_> = UNUSED.split_ascii_whitespace().collect();
        assert!(names.is_sorted(), "unsorted");
        names.extend(USED.iter().map(|key| key.name));
        let count = names.len();
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), count);
    }

    #[test]
    fn the_configurations_of_the_golden_stores_are_accepted() {
        let texts = [
            include_str!("../../tests/data/golden-clean.conf"),
            include_str!("../../tests/data/golden-killed.conf"),
            include_str!("../../tests/data/golden-special.conf"),
        ];
        for text in texts {
            let (config, findings) = apply(text).unwrap();
            assert_eq!(findings.unknown, BTreeSet::new());
            assert!(findings.unused.contains("timerWheelEnable"));
            assert_eq!(config.identity.broker_name, "broker-a");
            assert_eq!(config.network.listen_port, 10921);
            assert_eq!(config.network.advertise_host.as_deref(), Some("127.0.0.1"));
            assert_eq!(config.store.commit_log_segment_len, 1_048_576);
            assert_eq!(config.store.consume_queue_segment_len, 20_000);
            assert_eq!(config.store.index_slot_count, 1_000);
            assert_eq!(config.store.index_entry_count_max, 4_000);
        }
    }

    #[test]
    fn keys_without_effect_are_found() {
        let (_, findings) = apply("timerWheelEnable=true\nfrobnicate=1\nlistenPort=1\n").unwrap();
        assert_eq!(Vec::from_iter(findings.unused), ["timerWheelEnable"]);
        assert_eq!(Vec::from_iter(findings.unknown), ["frobnicate"]);
    }

    #[test]
    fn a_bad_value_names_key_value_and_what_is_allowed() {
        let text = apply("# x\nflushDiskType=SOMETIMES")
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            "broker.conf, line 2: flushDiskType = \"SOMETIMES\": allowed is ASYNC_FLUSH or SYNC_FLUSH"
        );
        for bad in [
            "listenPort=70000",
            "listenPort=many",
            "autoCreateTopicEnable=yes",
            "namesrvAddr=localhost",
            "messageDelayLevel=1s 5x",
            "brokerId=1",
            "brokerRole=SLAVE",
            "storePathCommitLog=/a,/b",
            "brokerName=",
            "deleteWhen=25",
            "fileReservedTime=-1",
            "foliomq.commitLogWarmUp=fast",
            "foliomq.commitLogLock=true",
            "foliomq.commitLogAdvice=dontneed",
        ] {
            assert!(
                apply(bad).unwrap_err().to_string().contains("allowed is"),
                "{bad}"
            );
        }
    }

    #[test]
    fn sizes_are_rounded_and_periods_clamped_as_in_java() {
        let (config, _) =
            apply("mappedFileSizeConsumeQueue=20001\nregisterNameServerPeriod=1").unwrap();
        assert_eq!(config.store.consume_queue_segment_len, 20_020);
        assert_eq!(config.registration.period, Duration::from_secs(10));
    }

    #[test]
    fn the_rules_of_cleaning_are_read() {
        let text = "fileReservedTime=48\ndeleteWhen=04;23\ndiskMaxUsedSpaceRatio=60\n\
                    cleanFileForciblyEnable=false\nfoliomq.maxLogBytes=1073741824";
        let (config, findings) = apply(text).unwrap();
        assert_eq!(findings, Findings::default());
        let clean = config.store.clean;
        assert_eq!(clean.reserved, Duration::from_secs(48 * 3600));
        assert_eq!(clean.delete_when.to_string(), "04;23");
        assert_eq!((clean.max_used_percent, clean.forced_enabled), (60, false));
        assert_eq!(clean.log_len_max, Some(1 << 30));
    }

    #[test]
    fn our_keys_of_warm_up_and_advice_come_before_rocketmqs() {
        let (config, _) = apply("").unwrap();
        assert_eq!(config.log_warm_up(), WarmUpWay::Window);
        assert_eq!(config.log_advice(), Advice::Normal);
        let java = "warmMapedFileEnable=true\ndataReadAheadEnable=false\n\
                    flushLeastPagesWhenWarmMapedFile=16";
        let (config, findings) = apply(java).unwrap();
        assert_eq!(findings, Findings::default());
        assert_eq!(config.log_warm_up(), WarmUpWay::Touch);
        assert_eq!(config.log_advice(), Advice::Random);
        assert_eq!(config.store.warm_least_pages, 16);
        let ours = "foliomq.commitLogWarmUp=zeros\nfoliomq.commitLogAdvice=sequential\n\
                    foliomq.commitLogLock=tail";
        let (config, findings) = apply(&format!("{java}\n{ours}")).unwrap();
        assert_eq!(findings, Findings::default());
        assert_eq!(config.log_warm_up(), WarmUpWay::Zeros);
        assert_eq!(config.log_advice(), Advice::Sequential);
        assert!(config.store.log_lock_tail);
        let refusal = apply("foliomq.commitLogWarmUp=fast")
            .unwrap_err()
            .to_string();
        assert!(
            refusal.ends_with("java, none, window, touch, populate, zeros"),
            "{refusal}"
        );
    }

    #[test]
    fn our_key_of_the_way_to_the_socket_comes_before_rocketmqs_wherever_it_stands() {
        let transfer = |text| apply(text).unwrap().0.transfer();
        assert_eq!(transfer(""), Transfer::Auto);
        assert_eq!(transfer("transferMsgByHeap=true"), Transfer::By(Way::Copy));
        for text in [
            "foliomq.transfer=sendfile\ntransferMsgByHeap=true",
            "transferMsgByHeap=false\nfoliomq.transfer=sendfile",
        ] {
            assert_eq!(transfer(text), Transfer::By(Way::SendFile), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        let mut config = Config::new("host");
        config.network.advertise_host = Some("10.0.0.1".to_owned());
        config.network.ha_host = Some("10.0.0.1".to_owned());
        config.store.root = Some(PathBuf::from("/data"));
        config.store.log_warm_up = Some(WarmUpWay::Populate);
        config.store.log_lock_tail = true;
        config.pull.transfer = Some(Transfer::By(Way::SendFile));
        config.store.log_advice = Some(Advice::HugePage);
        config.store.commit_log_dir = Some(PathBuf::from("/log"));
        let text: String = effective(&config)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        assert_eq!(apply(&text).unwrap().0, config);
        assert!(text.contains(
            "messageDelayLevel=1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
        ));
    }
}

//! The name server: tells clients where topics are. Runs alone, or in the broker's process.
//!
//! RocketMQ 5.3.3 `DefaultRequestProcessor`, `ClientRequestProcessor`.

pub mod kv;
pub mod tables;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use remoting::body::{
    BrokerMemberGroup, ClusterInfo, DataVersion, GetBrokerMemberGroupResponseBody, KVTable,
    QueueData, RegisterBrokerBody, TopicConfigSerializeWrapper, TopicList, TopicRouteData,
    register_body_crc,
};
use remoting::header::{
    AddWritePermOfBrokerRequestHeader, AddWritePermOfBrokerResponseHeader,
    BrokerHeartbeatRequestHeader, DeleteKVConfigRequestHeader, DeleteTopicFromNamesrvRequestHeader,
    GetBrokerMemberGroupRequestHeader, GetKVConfigRequestHeader, GetKVConfigResponseHeader,
    GetKVListByNamespaceRequestHeader, GetRouteInfoRequestHeader, GetTopicsByClusterRequestHeader,
    PutKVConfigRequestHeader, QueryDataVersionRequestHeader, QueryDataVersionResponseHeader,
    RegisterBrokerRequestHeader, RegisterBrokerResponseHeader, RegisterTopicRequestHeader,
    UnRegisterBrokerRequestHeader, WipeWritePermOfBrokerRequestHeader,
    WipeWritePermOfBrokerResponseHeader,
};
use remoting::{CommandView, RequestCode, ResponseCode, json};

use self::kv::{KvConfig, ORDER_TOPIC_CONFIG};
use self::tables::{Registration, RouteTables};
use crate::processor::unknown::UnknownCodes;
use crate::processor::{Outcome, Refusal, settle};
use crate::server::{CloseReason, Connection, Exchange, Reply, Service};
use crate::state::json_file::StateError;

/// How often silent brokers are looked for (`scanNotActiveBrokerInterval`).
pub const SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// `MQVersion` ordinal of 3.0.11: from here on a registration's body is `RegisterBrokerBody`.
const V3_0_11: i32 = 37;
/// `MQVersion` ordinal of 4.9.4: from here on clients want strictly valid JSON in routes.
const V4_9_4: i32 = 401;
/// First byte of a zlib stream.
const ZLIB: u8 = 0x78;
/// Bits of a topic's system flag.
const UNIT: i32 = 1;
const UNIT_SUBSCRIPTION: i32 = 2;

/// The name server's service.
#[derive(Debug)]
pub struct NameServer {
    tables: RwLock<RouteTables>,
    kv: KvConfig,
    unknown: UnknownCodes,
    /// Connections that brokers registered by.
    brokers: Mutex<HashMap<u64, Arc<Connection>>>,
}

impl Service for NameServer {
    fn handle(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Reply {
        let outcome = self.dispatch(exchange, request);
        settle(exchange, outcome)
    }

    fn closed(&self, connection: &Arc<Connection>) {
        let known = self.brokers().remove(&connection.id());
        if known.is_some() {
            self.write().connection_closed(connection.id());
        }
    }
}

impl NameServer {
    /// A name server that keeps its key-value configuration in `dir`.
    ///
    /// # Errors
    /// That configuration is there and unreadable.
    pub fn new(dir: &Path) -> Result<Self, StateError> {
        Ok(Self {
            tables: RwLock::default(),
            kv: KvConfig::load(dir)?,
            unknown: UnknownCodes::default(),
            brokers: Mutex::default(),
        })
    }

    /// Unregisters silent brokers and closes their connections; to be called every
    /// [`SCAN_INTERVAL`].
    pub fn expire(&self, now: Instant) {
        let expired = self.write().expire(now);
        let mut brokers = self.brokers();
        for connection in expired.iter().filter_map(|id| brokers.remove(id)) {
            connection.close(CloseReason::Expired);
        }
    }

    fn dispatch(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        match request.request_code() {
            RequestCode::GET_ROUTEINFO_BY_TOPIC => self.route(exchange, request),
            RequestCode::REGISTER_BROKER => self.register(exchange, request),
            RequestCode::UNREGISTER_BROKER => self.unregister(exchange, request),
            RequestCode::BROKER_HEARTBEAT => self.heartbeat(exchange, request),
            RequestCode::QUERY_DATA_VERSION => self.query_data_version(exchange, request),
            RequestCode::GET_BROKER_CLUSTER_INFO => self.cluster_info(exchange),
            RequestCode::GET_BROKER_MEMBER_GROUP => self.member_group(exchange, request),
            RequestCode::PUT_KV_CONFIG => self.put_kv(exchange, request),
            RequestCode::GET_KV_CONFIG => self.get_kv(exchange, request),
            RequestCode::DELETE_KV_CONFIG => self.delete_kv(exchange, request),
            RequestCode::GET_KVLIST_BY_NAMESPACE => self.kv_list(exchange, request),
            RequestCode::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write(exchange, request),
            RequestCode::ADD_WRITE_PERM_OF_BROKER => self.add_write(exchange, request),
            RequestCode::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(exchange, request),
            RequestCode::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(exchange, request),
            RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => {
                let topics = self.topics_where(|_| true);
                topic_list(exchange, topics)
            }
            RequestCode::GET_TOPICS_BY_CLUSTER => {
                let header: GetTopicsByClusterRequestHeader<'_> = request.header()?;
                let topics = self.read().topics_of_cluster(header.cluster);
                topic_list(exchange, topics)
            }
            RequestCode::GET_UNIT_TOPIC_LIST => {
                let topics = self.topics_where(|flag| flag & UNIT != 0);
                topic_list(exchange, topics)
            }
            RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST => {
                let topics = self.topics_where(|flag| flag & UNIT_SUBSCRIPTION != 0);
                topic_list(exchange, topics)
            }
            RequestCode::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
                let topics =
                    self.topics_where(|flag| flag & UNIT == 0 && flag & UNIT_SUBSCRIPTION != 0);
                topic_list(exchange, topics)
            }
            RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_NS => self.system_topics(exchange),
            code => Err(self.unknown.refuse("name server", code)),
        }
    }

    fn route(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: GetRouteInfoRequestHeader<'_> = request.header()?;
        let Some(route) = self.read().route(header.topic) else {
            let remark = format!(
                "No topic route info in name server for the topic: {}\nSee \
                 https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.",
                header.topic
            );
            return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
        };
        let data = TopicRouteData {
            broker_datas: route.brokers,
            queue_datas: route.queues,
            ..TopicRouteData::default()
        };
        let standard =
            header.accept_standard_json_only == Some(true) || request.version() >= V4_9_4;
        let body = if standard {
            json::encode_standard(&data)?
        } else {
            json::encode(&data)?
        };
        Ok(exchange.body(&body))
    }

    fn register(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: RegisterBrokerRequestHeader<'_> = request.header()?;
        let body = request.body();
        if header.body_crc32 != 0 && header.body_crc32 != register_body_crc(body) {
            return Err(Refusal::error("crc32 not match"));
        }
        let (data_version, topics) = registered_topics(request, header.compressed)?;
        let connection = exchange.connection();
        let silence_max = header
            .heartbeat_timeout_millis
            .and_then(|ms| u64::try_from(ms).ok());
        let registration = Registration {
            cluster: header.cluster_name.to_owned(),
            address: header.broker_addr.to_owned(),
            broker_name: header.broker_name.to_owned(),
            broker_id: header.broker_id,
            ha_address: header.ha_server_addr.to_owned(),
            zone: header.zone_name.map(str::to_owned),
            silence_max: silence_max.map(Duration::from_millis),
            acting_master: header.enable_acting_master,
            data_version,
            topics,
            connection: connection.id(),
        };
        self.brokers()
            .insert(connection.id(), Arc::clone(connection));
        let told = self
            .write()
            .register(registration, Instant::now())
            .map_err(Refusal::error)?;
        let answer = RegisterBrokerResponseHeader {
            ha_server_addr: told.ha_address.as_deref(),
            master_addr: told.master_address.as_deref(),
        };
        let order = self.kv.namespace(ORDER_TOPIC_CONFIG);
        let body = order
            .map(|table| json::encode(&KVTable { table }))
            .transpose()?;
        let body = body.unwrap_or_default();
        Ok(exchange.write(
            ResponseCode::SUCCESS,
            None,
            |writer| writer.header(&answer),
            &body,
        ))
    }

    fn unregister(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: UnRegisterBrokerRequestHeader<'_> = request.header()?;
        let UnRegisterBrokerRequestHeader {
            cluster_name,
            broker_addr,
            broker_name,
            broker_id,
        } = header;
        self.write()
            .unregister(cluster_name, broker_addr, broker_name, broker_id);
        Ok(exchange.ok())
    }

    fn heartbeat(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: BrokerHeartbeatRequestHeader<'_> = request.header()?;
        self.write()
            .heartbeat(header.cluster_name, header.broker_addr, Instant::now());
        Ok(exchange.ok())
    }

    fn query_data_version(
        &self,
        exchange: &mut Exchange<'_>,
        request: &CommandView<'_>,
    ) -> Outcome {
        let header: QueryDataVersionRequestHeader<'_> = request.header()?;
        let asked: DataVersion = json::decode(request.body())?;
        let mut tables = self.write();
        tables.heartbeat(header.cluster_name, header.broker_addr, Instant::now());
        let known = tables
            .data_version(header.cluster_name, header.broker_addr)
            .copied();
        drop(tables);
        let answer = QueryDataVersionResponseHeader {
            changed: known != Some(asked),
        };
        let body = known
            .map(|version| json::encode(&version))
            .transpose()?
            .unwrap_or_default();
        Ok(exchange.write(
            ResponseCode::SUCCESS,
            None,
            |writer| writer.header(&answer),
            &body,
        ))
    }

    fn cluster_info(&self, exchange: &mut Exchange<'_>) -> Outcome {
        let tables = self.read();
        let clusters = tables.clusters().iter();
        let info = ClusterInfo {
            broker_addr_table: tables.brokers().clone(),
            cluster_addr_table: clusters
                .map(|(cluster, names)| (cluster.clone(), names.iter().cloned().collect()))
                .collect(),
        };
        drop(tables);
        Ok(exchange.body(&json::encode(&info)?))
    }

    fn member_group(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: GetBrokerMemberGroupRequestHeader<'_> = request.header()?;
        let tables = self.read();
        let known = tables.brokers().get(header.broker_name);
        let known = known.filter(|broker| broker.cluster == header.cluster_name);
        let body = GetBrokerMemberGroupResponseBody {
            broker_member_group: BrokerMemberGroup {
                broker_addrs: known
                    .map(|broker| broker.broker_addrs.clone())
                    .unwrap_or_default(),
                broker_name: header.broker_name.to_owned(),
                cluster: header.cluster_name.to_owned(),
            },
        };
        drop(tables);
        Ok(exchange.body(&json::encode(&body)?))
    }

    fn put_kv(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: PutKVConfigRequestHeader<'_> = request.header()?;
        self.kv
            .put(header.namespace, header.key, header.value)
            .map_err(Refusal::error)?;
        Ok(exchange.ok())
    }

    fn get_kv(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: GetKVConfigRequestHeader<'_> = request.header()?;
        match self.kv.find(header.namespace, header.key) {
            Some(value) => Ok(exchange.header(&GetKVConfigResponseHeader {
                value: Some(&value),
            })),
            None => Err(Refusal::new(
                ResponseCode::QUERY_NOT_FOUND,
                format!(
                    "No config item, Namespace: {} Key: {}",
                    header.namespace, header.key
                ),
            )),
        }
    }

    fn delete_kv(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: DeleteKVConfigRequestHeader<'_> = request.header()?;
        self.kv
            .delete(header.namespace, header.key)
            .map_err(Refusal::error)?;
        Ok(exchange.ok())
    }

    fn kv_list(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: GetKVListByNamespaceRequestHeader<'_> = request.header()?;
        match self.kv.namespace(header.namespace) {
            Some(table) => Ok(exchange.body(&json::encode(&KVTable { table })?)),
            None => Err(Refusal::new(
                ResponseCode::QUERY_NOT_FOUND,
                format!("No config item, Namespace: {}", header.namespace),
            )),
        }
    }

    fn wipe_write(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: WipeWritePermOfBrokerRequestHeader<'_> = request.header()?;
        let count = self.write().wipe_write(header.broker_name);
        let wipe_topic_count = i32::try_from(count).unwrap_or(i32::MAX);
        Ok(exchange.header(&WipeWritePermOfBrokerResponseHeader { wipe_topic_count }))
    }

    fn add_write(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: AddWritePermOfBrokerRequestHeader<'_> = request.header()?;
        let count = self.write().add_write(header.broker_name);
        let add_topic_count = i32::try_from(count).unwrap_or(i32::MAX);
        Ok(exchange.header(&AddWritePermOfBrokerResponseHeader { add_topic_count }))
    }

    fn delete_topic(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: DeleteTopicFromNamesrvRequestHeader<'_> = request.header()?;
        let cluster = header.cluster_name.filter(|cluster| !cluster.is_empty());
        self.write().delete_topic(header.topic, cluster);
        Ok(exchange.ok())
    }

    fn register_topic(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Outcome {
        let header: RegisterTopicRequestHeader<'_> = request.header()?;
        let route: TopicRouteData = json::decode(request.body())?;
        self.write().register_topic(header.topic, route.queue_datas);
        Ok(exchange.ok())
    }

    fn system_topics(&self, exchange: &mut Exchange<'_>) -> Outcome {
        let tables = self.read();
        let mut list = TopicList::default();
        for (cluster, names) in tables.clusters() {
            list.topic_list.push(cluster.clone());
            list.topic_list.extend(names.iter().cloned());
        }
        let mut addresses = tables
            .brokers()
            .values()
            .flat_map(|broker| broker.broker_addrs.values());
        list.broker_addr = addresses.next().cloned();
        drop(tables);
        Ok(exchange.body(&json::encode(&list)?))
    }

    fn topics_where(&self, wanted: impl Fn(i32) -> bool) -> Vec<String> {
        let tables = self.read();
        let topics = tables.topics().filter_map(|(topic, mut queues)| {
            queues
                .any(|queues| wanted(queues.topic_sys_flag))
                .then(|| topic.clone())
        });
        topics.collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, RouteTables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, RouteTables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn brokers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn topic_list(exchange: &mut Exchange<'_>, topics: Vec<String>) -> Outcome {
    let list = TopicList {
        topic_list: topics,
        ..TopicList::default()
    };
    Ok(exchange.body(&json::encode(&list)?))
}

/// The topics in a registration's body, in whichever of its forms.
fn registered_topics(
    request: &CommandView<'_>,
    compressed: bool,
) -> Result<(DataVersion, Vec<(String, QueueData)>), Refusal> {
    let body = request.body();
    let (version, table) = if body.is_empty() {
        Default::default()
    } else if request.version() < V3_0_11 {
        let wrapper: TopicConfigSerializeWrapper = json::decode(body)?;
        (wrapper.data_version, wrapper.topic_config_table)
    } else {
        // Java's broker says `compressed=false` even when it compresses.
        let registered: RegisterBrokerBody = if compressed || body.first() == Some(&ZLIB) {
            RegisterBrokerBody::decompress(body)?
        } else {
            json::decode(body)?
        };
        let wrapper = registered.topic_config_serialize_wrapper;
        (wrapper.data_version, wrapper.topic_config_table)
    };
    let queues = table.into_iter().map(|(topic, config)| {
        let queues = QueueData {
            broker_name: String::new(),
            perm: config.perm,
            read_queue_nums: config.read_queue_nums,
            topic_sys_flag: config.topic_sys_flag,
            write_queue_nums: config.write_queue_nums,
        };
        (topic, queues)
    });
    Ok((version, queues.collect()))
}

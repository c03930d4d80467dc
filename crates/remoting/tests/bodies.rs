//! Bodies against the samples that RocketMQ 5.3.3 itself wrote.
#![allow(clippy::unwrap_used, reason = "tests panic on purpose")]

use proptest::prelude::*;
use remoting::BodyError;
use remoting::body::*;
use remoting::json::{self, Limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

const DATA_VERSION: &str = r#"{"counter":0,"stateVersion":0,"timestamp":1795399609231}"#;
const TOPIC: &str = r#"{"attributes":{"message.type":"NORMAL"},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"T1","topicSysFlag":0,"writeQueueNums":4}"#;
const SUBSCRIPTION: &str = r#"{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"T1"}"#;
const GROUP: &str = r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"CG","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#;
const ROUTE: &str = r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;

/// Reads Java's text as a `T` and expects the same text back.
fn check<T: DeserializeOwned + Serialize>(text: &str) -> T {
    let body: T = json::decode(text.as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(json::encode(&body).unwrap()).unwrap(),
        text
    );
    body
}

#[test]
fn bodies_are_read_and_written_as_java_does() {
    check::<GetConsumerListByGroupResponseBody>(r#"{"consumerIdList":["c1","c2"]}"#);
    check::<DataVersion>(DATA_VERSION);
    check::<TopicConfig>(TOPIC);
    check::<TopicConfigSerializeWrapper>(&format!(
        r#"{{"dataVersion":{DATA_VERSION},"topicConfigTable":{{"T1":{TOPIC}}}}}"#
    ));
    check::<RegisterBrokerBody>(&format!(
        r#"{{"filterServerList":[],"topicConfigSerializeWrapper":{{"dataVersion":{DATA_VERSION},"mappingDataVersion":{DATA_VERSION},"topicConfigTable":{{"T1":{TOPIC}}},"topicQueueMappingDetailMap":{{}},"topicQueueMappingInfoMap":{{}}}}}}"#
    ));
    check::<ClusterInfo>(
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#,
    );
    check::<KVTable>(r#"{"table":{"brokerVersionDesc":"V5_3_3"}}"#);
    check::<SubscriptionGroupConfig>(GROUP);
    check::<SubscriptionGroupWrapper>(&format!(
        r#"{{"dataVersion":{DATA_VERSION},"subscriptionGroupTable":{{"CG":{GROUP}}}}}"#
    ));
    check::<ProducerTableInfo>(
        r#"{"data":{"PG":[{"clientId":"c1","language":"JAVA","lastUpdateTimestamp":1,"remoteIP":"/10.0.0.9:5","version":479}]}}"#,
    );
    check::<TopicList>(r#"{"topicList":["T1"]}"#);
    check::<GroupList>(r#"{"groupList":["CG"]}"#);
    check::<GetBrokerMemberGroupResponseBody>(
        r#"{"brokerMemberGroup":{"brokerAddrs":{0:"10.0.0.1:1",1:"10.0.0.2:1"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#,
    );
    check::<CheckClientRequestBody>(&format!(
        r#"{{"clientId":"c1","group":"CG","subscriptionData":{SUBSCRIPTION}}}"#
    ));
    check::<ConsumeMessageDirectlyResult>(
        r#"{"autoCommit":true,"consumeResult":"CR_SUCCESS","order":false,"spentTimeMills":0}"#,
    );
    check::<BrokerStatsData>(
        r#"{"statsDay":{"avgpt":0.0,"sum":0,"tps":0.0},"statsHour":{"avgpt":0.0,"sum":0,"tps":0.0},"statsMinute":{"avgpt":0.0,"sum":0,"tps":0.0}}"#,
    );
    check::<QueryConsumeQueueResponseBody>(&format!(
        r#"{{"filterData":"f","maxQueueIndex":9,"minQueueIndex":0,"queueData":[{{"eval":false,"physicOffset":0,"physicSize":200,"tagsCode":123}}],"subscriptionData":{SUBSCRIPTION}}}"#
    ));
    check::<QuerySubscriptionResponseBody>(&format!(
        r#"{{"group":"CG","subscriptionData":{SUBSCRIPTION},"topic":"T1"}}"#
    ));
    check::<CreateTopicListRequestBody>(&format!(r#"{{"topicConfigList":[{TOPIC}]}}"#));
    check::<SubscriptionGroupList>(&format!(r#"{{"groupConfigList":[{GROUP}]}}"#));
    check::<QueryCorrectionOffsetBody>(r#"{"correctionOffsets":{0:1}}"#);
    check::<KVConfigSerializeWrapper>(
        r#"{"configTable":{"ORDER_TOPIC_CONFIG":{"T1":"broker-a:4"}}}"#,
    );
}

#[test]
fn heartbeats_are_read_and_written_as_java_does() {
    let text = format!(
        r#"{{"clientID":"10.0.0.9@1234#567","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"CG","messageModel":"CLUSTERING","subscriptionDataSet":[{SUBSCRIPTION}],"unitMode":false}}],"heartbeatFingerprint":0,"producerDataSet":[{{"groupName":"PG"}}],"withoutSub":false}}"#
    );
    let heartbeat: HeartbeatData = check(&text);
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.consume_type, Some(ConsumeType::Passively));
    assert_eq!(consumer.message_model, Some(MessageModel::Clustering));

    let connection =
        r#"{"clientAddr":"10.0.0.9:5555","clientId":"c1","language":"JAVA","version":479}"#;
    check::<ConsumerConnection>(&format!(
        r#"{{"connectionSet":[{connection}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{{"T1":{SUBSCRIPTION}}}}}"#
    ));
    check::<ProducerConnection>(&format!(r#"{{"connectionSet":[{connection}]}}"#));
}

#[test]
fn queues_are_names_of_members() {
    let queue = |id| format!(r#"{{"brokerName":"broker-a","queueId":{id},"topic":"T1"}}"#);
    let stats: ConsumeStats = check(&format!(
        r#"{{"consumeTps":0.0,"offsetTable":{{{}:{{"brokerOffset":10,"consumerOffset":5,"lastTimestamp":1700000000000,"pullOffset":7}}}}}}"#,
        queue(1)
    ));
    assert_eq!(
        stats.offset_table.keys().next().map(|queue| queue.queue_id),
        Some(1)
    );
    check::<TopicStatsTable>(&format!(
        r#"{{"offsetTable":{{{}:{{"lastUpdateTimestamp":1700000000000,"maxOffset":9,"minOffset":0}}}},"topicPutTps":0.0}}"#,
        queue(0)
    ));
    let reset: ResetOffsetBody = check(&format!(
        r#"{{"offsetTable":{{{}:3,{}:4}}}}"#,
        queue(0),
        queue(1)
    ));
    // Java also takes, and so may anyone send, a text that holds the object.
    let quoted = format!(
        r#"{{"offsetTable":{{{:?}:3,{:?}:"4"}}}}"#,
        queue(0),
        queue(1)
    );
    assert_eq!(
        json::decode::<ResetOffsetBody>(quoted.as_bytes()).unwrap(),
        reset
    );
    check::<ResetOffsetBodyForC>(
        r#"{"offsetTable":[{"brokerName":"b","offset":4,"queueId":1,"topic":"T1"}]}"#,
    );
    check::<GetConsumerStatusBody>(&format!(
        r#"{{"consumerTable":{{"c1":{{{}:3}}}},"messageQueueTable":{{}}}}"#,
        queue(0)
    ));
    check::<LockBatchRequestBody>(&format!(
        r#"{{"clientId":"c1","consumerGroup":"CG","mqSet":[{}],"onlyThisBroker":false}}"#,
        queue(0)
    ));
    check::<LockBatchResponseBody>(&format!(r#"{{"lockOKMQSet":[{}]}}"#, queue(0)));
    check::<ConsumeStatsList>(
        r#"{"brokerAddr":"b","consumeStatsList":[{"CG":[{"consumeTps":0.0,"offsetTable":{}}]}],"totalDiff":0,"totalInflightDiff":0}"#,
    );
}

#[test]
fn integer_names_are_bare_or_quoted() {
    check::<ConsumerOffsetSerializeWrapper>(&format!(
        r#"{{"dataVersion":{DATA_VERSION},"offsetTable":{{"T1@CG":{{0:5,1:6}}}}}}"#
    ));
    check::<DelayOffsetSerializeWrapper>(&format!(
        r#"{{"dataVersion":{DATA_VERSION},"offsetTable":{{1:12,2:0}}}}"#
    ));
    let mut route: TopicRouteData = check(ROUTE);
    let standard = String::from_utf8(json::encode_standard(&route).unwrap()).unwrap();
    assert_eq!(
        standard,
        ROUTE
            .replace("0:\"10", "\"0\":\"10")
            .replace(",1:", ",\"1\":")
    );
    assert_eq!(
        json::decode::<TopicRouteData>(standard.as_bytes()).unwrap(),
        route
    );
    route.order_topic_conf = Some("caf\u{e9}".to_owned());
    let standard = String::from_utf8(json::encode_standard(&route).unwrap()).unwrap();
    assert!(standard.contains(r#""orderTopicConf":"caf\u00E9","#));
    serde_json::from_str::<serde_json::Value>(&standard).unwrap();
}

#[test]
fn state_files_are_laid_out_as_java_does() {
    let java = include_str!("data/delayOffset.json");
    let table: DelayOffsetSerializeWrapper = json::decode(java.as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(json::encode_pretty(&table).unwrap()).unwrap(),
        java
    );

    // Java's maps have no order, so these two can only agree in content and length.
    let java = include_str!("data/topics.json");
    let table: TopicConfigSerializeWrapper = json::decode(java.as_bytes()).unwrap();
    assert!(table.topic_config_table.len() > 10);
    let ours = json::encode_pretty(&table).unwrap();
    assert_eq!(ours.len(), java.len());
    assert_eq!(
        json::decode::<TopicConfigSerializeWrapper>(&ours).unwrap(),
        table
    );

    let java = include_str!("data/subscriptionGroup.json");
    let table: SubscriptionGroupWrapper = json::decode(java.as_bytes()).unwrap();
    assert_eq!(json::encode_pretty(&table).unwrap().len(), java.len());

    let java = include_str!("data/consumerOffset.json");
    let table: ConsumerOffsetSerializeWrapper = json::decode(java.as_bytes()).unwrap();
    assert_eq!(table.offset_table["GoldOrder@gold_cg_order"][&2], 10);
    let ours = String::from_utf8(json::encode_pretty(&table).unwrap()).unwrap();
    assert!(ours.contains("\t\t\"GoldOrder@gold_cg_order\":{0:20,1:20,2:10,3:10\n\t\t},\n"));
}

#[test]
fn what_other_clients_write_is_taken() {
    // Numbers as texts (C++), ordinals and unknown names for enums, nulls, unknown members.
    let text = r#"{"clientID":"c","heartbeatFingerprint":null,"extra":{"$ref":"$.x"},
        "consumerDataSet":[{"groupName":"CG","consumeType":1,"messageModel":"NEWER","unitMode":"false",
        "consumeFromWhere":null,"subscriptionDataSet":[{"topic":"T","subVersion":"12","tagsSet":null,
        "codeSet":["7",8],"subString":3}]}]}"#;
    let heartbeat: HeartbeatData = json::decode(text.as_bytes()).unwrap();
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.consume_type, Some(ConsumeType::Passively));
    assert_eq!(
        (consumer.message_model, consumer.consume_from_where),
        (None, None)
    );
    let subscription = &consumer.subscription_data_set[0];
    assert_eq!(
        (
            subscription.sub_version,
            subscription.expression_type.as_str()
        ),
        (12, "TAG")
    );
    assert_eq!(
        subscription.code_set.iter().copied().collect::<Vec<_>>(),
        [7, 8]
    );
    assert_eq!(subscription.sub_string, "3");
    let old: QueueData = json::decode(b"{'brokerName':'b','topicSynFlag':1,}").unwrap();
    assert_eq!((old.broker_name.as_str(), old.topic_sys_flag), ("b", 1));
}

#[test]
fn fastjsons_dialect_is_read() {
    let cases = [
        (r#" [1,-2, 1.5 ,true,null,] "#, r#"[1,-2,1.5,true,null]"#),
        (
            r#"{0:'a"',b_$: "c\u0001\'",}"#,
            r#"{"0":"a\"","b_$":"c\u0001'"}"#,
        ),
        (
            r#"{{"q":[1,2], p:'x'}:1}"#,
            r#"{"{\"p\":\"x\",\"q\":[1,2]}":1}"#,
        ),
        ("/* a */{//b\n}// c", "{}"),
        (
            r#"{"a":null,"b":18446744073709551615}"#,
            r#"{"b":18446744073709551615}"#,
        ),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
    ];
    for (text, standard) in cases {
        let value = json::read(text.as_bytes(), Limits::default()).unwrap();
        assert_eq!(value.to_string(), standard);
    }
}

#[test]
fn wrong_bodies_say_where_and_what() {
    let cases = [
        ("", 0, "a value"),
        ("{\"a\" 1}", 5, "a colon"),
        ("{\"a\":1 2}", 7, "a comma or a closing brace"),
        ("[1 2]", 3, "a comma or a closing bracket"),
        ("{,}", 1, "a name"),
        ("[inf]", 1, "a value"),
        ("[\"a", 3, "a closing quote"),
        ("[] []", 3, "the end"),
        ("/x", 0, "a comment"),
        ("\"\\q\"", 2, "an escaped character"),
    ];
    for (text, position, expected) in cases {
        let error = json::read(text.as_bytes(), Limits::default()).unwrap_err();
        assert_eq!(error, BodyError::Json { position, expected }, "{text}");
    }
    let error = json::decode::<TopicRouteData>(br#"{"queueDatas":[{"perm":"six"}]}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "body is not a TopicRouteData: queueDatas.perm is \"six\", must be an integer of 32 bits"
    );
    let error = json::decode::<TopicRouteData>(b"[]").unwrap_err();
    assert_eq!(
        error.to_string(),
        "body is not a TopicRouteData: is an array, must be an object"
    );
}

#[test]
fn depth_and_memory_are_bounded() {
    let deep = "[".repeat(100_000);
    let error = json::read(deep.as_bytes(), Limits::default()).unwrap_err();
    assert_eq!(
        error,
        BodyError::TooLarge {
            what: "levels of nesting",
            limit: 64
        }
    );
    let mut topics = TopicConfigSerializeWrapper::default();
    for index in 0..1_000 {
        let topic_name = format!("a_topic_with_a_name_of_usual_length_{index}");
        let topic = TopicConfig {
            topic_name: topic_name.clone(),
            ..TopicConfig::default()
        };
        topics.topic_config_table.insert(topic_name, topic);
    }
    let text = json::encode(&topics).unwrap();
    let limits = Limits {
        memory_len: Limits::default().memory_len / 40,
        ..Limits::default()
    };
    assert_eq!(json::decode_within(&text, limits), Ok(topics));
    let wide = format!("[{}]", "{0:1},".repeat(100_000));
    let limits = Limits {
        memory_len: 1_000_000,
        ..Limits::default()
    };
    let error = json::read(wide.as_bytes(), limits).unwrap_err();
    assert!(matches!(
        error,
        BodyError::TooLarge {
            limit: 1_000_000,
            ..
        }
    ));
}

#[test]
fn compressed_registrations_read_back() {
    let mut body = RegisterBrokerBody::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    wrapper.data_version = json::decode(DATA_VERSION.as_bytes()).unwrap();
    wrapper
        .topic_config_table
        .insert("T1".to_owned(), json::decode(TOPIC.as_bytes()).unwrap());
    let mapping = json::decode(br#"{"bname":"b","topic":"T1"}"#).unwrap();
    wrapper
        .topic_queue_mapping_info_map
        .insert("T1".to_owned(), mapping);
    body.filter_server_list.push("10.0.0.1:1".to_owned());
    let compressed = body.compress().unwrap();
    assert_eq!(compressed[0], 0x78);
    assert_eq!(RegisterBrokerBody::decompress(&compressed).unwrap(), body);
    assert_eq!(
        register_body_crc(b"123456789"),
        0xcbf4_3926_u32 as i32 & 0x7fff_ffff
    );
}

#[test]
fn compressed_sections_have_javas_layout() {
    let zlib = |sections: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
        std::io::Write::write_all(&mut encoder, sections).unwrap();
        encoder.finish().unwrap()
    };
    let mut sections = b"\0\0\0\x02{}\0\0\0\x01".to_vec();
    let topic = br#"T1 4 8 6 SINGLE_TAG {"message.type":"NORMAL"}"#;
    sections.extend((topic.len() as u32).to_be_bytes());
    sections.extend(topic);
    sections.extend(b"\0\0\0\x02[]");
    let body = RegisterBrokerBody::decompress(&zlib(&sections)).unwrap();
    let topic = &body.topic_config_serialize_wrapper.topic_config_table["T1"];
    assert_eq!(
        (topic.read_queue_nums, topic.write_queue_nums, topic.perm),
        (4, 8, 6)
    );
    assert_eq!(topic.attributes["message.type"], "NORMAL");

    for len in 0..sections.len() {
        assert!(
            RegisterBrokerBody::decompress(&zlib(&sections[..len])).is_err(),
            "{len}"
        );
    }
    let error = RegisterBrokerBody::decompress(&zlib(b"\xff\xff\xff\xff")).unwrap_err();
    assert!(matches!(
        error,
        BodyError::BinaryLength {
            what: "data version",
            len: -1,
            ..
        }
    ));
    assert!(matches!(
        RegisterBrokerBody::decompress(b"{}"),
        Err(BodyError::Zlib(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_a_value_or_an_error(text in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = json::read(&text, Limits::default());
        let _ = RegisterBrokerBody::decompress(&text);
    }

    #[test]
    fn any_jumble_is_a_body_or_an_error(text in r#"[\[\]{}:,"'\\/*01a\-.$u ]{0,40}"#) {
        let _ = json::decode::<HeartbeatData>(text.as_bytes());
        let _ = json::decode::<ConsumeStats>(text.as_bytes());
    }

    #[test]
    fn any_damage_to_a_body_is_a_body_or_an_error(
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut text = ROUTE.as_bytes().to_vec();
        let position = position.index(text.len());
        text[position] = byte;
        let _ = json::decode::<TopicRouteData>(&text);
    }

    #[test]
    fn standard_json_reads_as_serde_json_reads_it(text in proptest::collection::vec(any::<String>(), 0..5), integer in any::<i64>()) {
        let value = serde_json::json!({ "texts": text, "integer": integer, "nested": [{}] });
        for written in [value.to_string().into_bytes(), json::encode(&value).unwrap()] {
            prop_assert_eq!(&json::read(&written, Limits::default()).unwrap(), &value);
        }
    }
}

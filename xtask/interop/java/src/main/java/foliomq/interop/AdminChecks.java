package foliomq.interop;

import static foliomq.interop.PullChecks.committed;
import static foliomq.interop.SendChecks.body;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/** mqadmin's own commands, run as its main class runs them, their output read as a person would. */
final class AdminChecks {
    private AdminChecks() {
    }

    static void register(Suite suite) {
        // mqadmin prints to System.out, which is captured: one command at a time.
        suite.checkAlone("mqadmin: clusterList", AdminChecks::clusterList);
        suite.checkAlone("mqadmin: brokerStatus", AdminChecks::brokerStatus);
        suite.checkAlone("mqadmin: updateTopic, topicList, topicRoute, topicStatus, deleteTopic", AdminChecks::topics);
        suite.checkAlone("mqadmin: updateSubGroup, deleteSubGroup", AdminChecks::groups);
        suite.checkAlone("mqadmin: consumerProgress, consumerConnection", AdminChecks::progress);
        suite.checkAlone("mqadmin: queryMsgById, ByKey, ByUniqueKey, ByOffset", AdminChecks::queries);
        suite.checkAlone("mqadmin: statsAll, producerConnection, printMsg", AdminChecks::others);
        suite.checkAlone("mqadmin: resetOffsetByTime of a group that is offline", AdminChecks::resetOffset);
        suite.checkAlone("mqadmin: tables of topics and groups, consumers of a topic", AdminChecks::tables);
        suite.checkAlone("mqadmin: cleanExpiredCQ, cleanUnusedTopic, deleteExpiredCommitLog", AdminChecks::cleaning);
        suite.checkOptional("mqadmin: consume time spans of a group", AdminChecks::timeSpans);
        suite.checkOptional("mqadmin: a client's running info, and consumption by order", AdminChecks::relayed);
    }

    private static void clusterList(Scope scope) throws Exception {
        String output = mqadmin(scope, "clusterList");
        contains(output, Target.CLUSTER, Target.BROKER_NAME, scope.target.broker(), "V5_");
        String more = mqadmin(scope, "clusterList", "-m");
        contains(more, Target.CLUSTER, Target.BROKER_NAME);
    }

    private static void brokerStatus(Scope scope) throws Exception {
        String output = mqadmin(scope, "brokerStatus", "-b", scope.target.broker());
        contains(output, "brokerVersionDesc", "bootTimestamp", "putTps", "commitLogMaxOffset", "msgPutTotalTodayNow");
        contains(mqadmin(scope, "brokerStatus", "-c", Target.CLUSTER), "commitLogMaxOffset");
        contains(mqadmin(scope, "getBrokerConfig", "-b", scope.target.broker()), "brokerName", Target.BROKER_NAME);
    }

    private static void topics(Scope scope) throws Exception {
        String topic = scope.name("AdminTopic");
        contains(mqadmin(scope, "updateTopic", "-b", scope.target.broker(), "-t", topic, "-r", "3", "-w", "3"),
            "create topic to " + scope.target.broker() + " success");
        scope.awaitRoute(topic);
        contains(mqadmin(scope, "topicList"), topic, "TBW102", "SELF_TEST_TOPIC");
        contains(mqadmin(scope, "topicList", "-c", Target.CLUSTER), topic);
        contains(mqadmin(scope, "topicRoute", "-t", topic), "brokerDatas", scope.target.broker(), "\"readQueueNums\":3");
        contains(mqadmin(scope, "topicClusterList", "-t", topic), Target.CLUSTER);
        for (int i = 0; i < 6; i++) {
            scope.producer().send(new Message(topic, body(i)), scope.queue(topic, i % 3));
        }
        scope.awaitDispatch();
        String status = mqadmin(scope, "topicStatus", "-t", topic);
        contains(status, "#Broker Name", Target.BROKER_NAME);
        Expect.equal(3L, status.lines().filter(line -> line.startsWith(Target.BROKER_NAME)).count(), "queues shown");
        contains(mqadmin(scope, "updateTopic", "-c", Target.CLUSTER, "-t", topic, "-r", "5", "-w", "5"), "success");
        Expect.until("five queues", () -> scope.route(topic).getQueueDatas().get(0).getReadQueueNums() == 5);
        contains(mqadmin(scope, "updateTopicPerm", "-b", scope.target.broker(), "-t", topic, "-p", "4"), "success");
        Expect.until("read-only", () -> scope.route(topic).getQueueDatas().get(0).getPerm() == 4);
        contains(mqadmin(scope, "deleteTopic", "-c", Target.CLUSTER, "-t", topic), "delete topic [" + topic + "]");
        Expect.until("topic gone", () -> !scope.admin().fetchAllTopicList().getTopicList().contains(topic));
        Expect.that(scope.admin().examineTopicConfig(scope.target.broker(), "TBW102") != null, "other topics stay");
    }

    private static void cleaning(Scope scope) throws Exception {
        String topic = scope.newTopic("Cleaning", 2);
        scope.producer().send(new Message(topic, body(1)), scope.queue(topic, 1));
        scope.awaitDispatch();
        for (String command : List.of("cleanExpiredCQ", "cleanUnusedTopic", "deleteExpiredCommitLog")) {
            contains(mqadmin(scope, command, "-b", scope.target.broker()), "success");
        }
        // Nothing is old enough.
        var offset = scope.admin().examineTopicStats(topic).getOffsetTable().get(scope.queue(topic, 1));
        Expect.equal(1L, offset.getMaxOffset(), "max offset");
        Expect.equal(0L, offset.getMinOffset(), "min offset");
    }

    private static void groups(Scope scope) throws Exception {
        String group = scope.name("admin_group");
        contains(mqadmin(scope, "updateSubGroup", "-b", scope.target.broker(), "-g", group, "-r", "5", "-q", "2"),
            "create subscription group to " + scope.target.broker() + " success");
        var config = scope.admin().examineSubscriptionGroupConfig(scope.target.broker(), group);
        Expect.equal(5, config.getRetryMaxTimes(), "retryMaxTimes");
        Expect.equal(2, config.getRetryQueueNums(), "retryQueueNums");
        contains(mqadmin(scope, "deleteSubGroup", "-b", scope.target.broker(), "-g", group), "success");
        var table = scope.admin().getAllSubscriptionGroup(scope.target.broker(), 5_000).getSubscriptionGroupTable();
        Expect.that(!table.containsKey(group), "group deleted");
        Expect.that(table.containsKey("TOOLS_CONSUMER"), "system groups stay");
    }

    private static void progress(Scope scope) throws Exception {
        String topic = scope.newTopic("Progress", 2);
        String group = scope.name("progress");
        Received received = new Received();
        DefaultMQPushConsumer consumer = PushChecks.subscribed(scope, group, topic, "*", received);
        PullChecks.send(scope, topic, 0, 10);
        received.await(10);
        Expect.until("committed", () -> committed(scope, group, topic) == 10);
        String output = mqadmin(scope, "consumerProgress", "-g", group);
        contains(output, topic, Target.BROKER_NAME, "Consume Diff Total: 0");
        contains(mqadmin(scope, "consumerConnection", "-g", group), "JAVA", topic, "CLUSTERING");
        contains(mqadmin(scope, "consumerProgress"), group);
        consumer.shutdown();
        PullChecks.send(scope, topic, 10, 14);
        scope.awaitDispatch();
        contains(mqadmin(scope, "consumerProgress", "-g", group), "Consume Diff Total: 4");
    }

    private static void queries(Scope scope) throws Exception {
        String topic = scope.newTopic("AdminQuery", 1);
        SendResult sent = scope.producer().send(new Message(topic, "TagQ", "keyQ", body(12_345)));
        String key = sent.getMsgId();
        contains(mqadmin(scope, "queryMsgById", "-t", topic, "-i", sent.getOffsetMsgId()), topic, "TagQ", "keyQ", key);
        scope.awaitDispatch();
        Expect.until("the index is built", () -> scope.admin().viewMessage(topic, key) != null);
        contains(mqadmin(scope, "queryMsgByKey", "-t", topic, "-k", "keyQ"), key);
        contains(mqadmin(scope, "queryMsgByUniqueKey", "-t", topic, "-i", key), topic, "keyQ", key);
        contains(mqadmin(scope, "queryMsgByOffset", "-t", topic, "-b", Target.BROKER_NAME, "-i", "0", "-o", "0"),
            topic, "keyQ", key);
    }

    private static void others(Scope scope) throws Exception {
        String topic = scope.newTopic("AdminOthers", 2);
        String group = scope.name("others");
        Received received = new Received();
        PushChecks.subscribed(scope, group, topic, "*", received);
        PullChecks.send(scope, topic, 0, 8);
        received.await(8);
        contains(mqadmin(scope, "statsAll", "-t", topic), topic, group);
        String producers = scope.producer().getProducerGroup();
        Expect.until("the producer has heartbeated", () ->
            !scope.admin().examineProducerConnectionInfo(producers, topic).getConnectionSet().isEmpty());
        contains(mqadmin(scope, "producerConnection", "-g", producers, "-t", topic), "JAVA");
        String printed = mqadmin(scope, "printMsg", "-t", topic, "-d", "true");
        contains(printed, "minOffset=0", "maxOffset=4");
    }

    private static void resetOffset(Scope scope) throws Exception {
        String topic = scope.newTopic("AdminReset", 2);
        String group = scope.name("reset");
        PullChecks.send(scope, topic, 0, 10);
        Received received = new Received();
        DefaultMQPushConsumer consumer = PushChecks.subscribed(scope, group, topic, "*", received);
        received.await(10);
        Expect.until("committed", () -> committed(scope, group, topic) == 10);
        consumer.shutdown();
        mqadmin(scope, "resetOffsetByTime", "-g", group, "-t", topic, "-s", "1");
        Expect.until("offsets back at the beginning", () -> committed(scope, group, topic) == 0);
        Received again = new Received();
        PushChecks.subscribed(scope, group, topic, "*", again);
        again.await(10);
    }

    private static void tables(Scope scope) throws Exception {
        String topic = scope.newTopic("AdminTables", 2);
        String group = scope.name("tables");
        Received received = new Received();
        PushChecks.subscribed(scope, group, topic, "*", received);
        PullChecks.send(scope, topic, 0, 4);
        received.await(4);
        var topics = scope.admin().getAllTopicConfig(scope.target.broker(), 5_000).getTopicConfigTable();
        Expect.equal(2, topics.get(topic).getReadQueueNums(), "queues in the topic table");
        Expect.that(topics.containsKey("%RETRY%" + group), "the group's retry topic");
        Expect.that(topics.containsKey("SCHEDULE_TOPIC_XXXX"), "the schedule topic");
        Expect.until("who consumes the topic", () ->
            scope.admin().queryTopicConsumeByWho(topic).getGroupList().contains(group));
        Expect.that(scope.admin().fetchBrokerRuntimeStats(scope.target.broker()).getTable().size() > 30, "runtime keys");
        Expect.that(scope.admin().getNameServerAddressList().contains(scope.target.nameServer()), "name servers");
    }

    private static void timeSpans(Scope scope) throws Exception {
        String topic = scope.newTopic("AdminSpans", 2);
        PullChecks.send(scope, topic, 0, 4);
        Expect.equal(2, scope.admin().queryConsumeTimeSpan(topic, scope.name("spans")).size(), "time spans");
    }

    private static void relayed(Scope scope) throws Exception {
        String topic = scope.newTopic("AdminRelayed", 1);
        String group = scope.name("relayed");
        Received received = new Received();
        PushChecks.subscribed(scope, group, topic, "*", received);
        SendResult sent = scope.producer().send(new Message(topic, body(1)));
        received.await(1);
        var running = scope.admin().getConsumerRunningInfo(group, clientOf(scope, group), false);
        Expect.that(running.getSubscriptionSet().toString().contains(topic), "running info from the client");
        var direct = scope.admin().consumeMessageDirectly(group, clientOf(scope, group), topic, sent.getMsgId());
        Expect.equal("CR_SUCCESS", String.valueOf(direct.getConsumeResult()), "direct consumption");
        Expect.equal(2, received.count(), "deliveries");
    }

    private static String clientOf(Scope scope, String group) throws Exception {
        return scope.admin().examineConsumerConnectionInfo(group).getConnectionSet().iterator().next().getClientId();
    }

    /** What a command of mqadmin prints; a stack trace in it is a failure. */
    private static String mqadmin(Scope scope, String command, String... arguments) {
        List<String> line = new ArrayList<>(List.of(command, "-n", scope.target.nameServer()));
        line.addAll(Arrays.asList(arguments));
        PrintStream out = System.out;
        PrintStream err = System.err;
        ByteArrayOutputStream captured = new ByteArrayOutputStream();
        try (PrintStream capture = new PrintStream(captured, true, StandardCharsets.UTF_8)) {
            System.setOut(capture);
            System.setErr(capture);
            MQAdminStartup.main0(line.toArray(String[]::new), null);
        } finally {
            System.setOut(out);
            System.setErr(err);
        }
        String output = captured.toString(StandardCharsets.UTF_8);
        Expect.that(!output.contains("Exception"), command + " failed: " + output);
        return output;
    }

    private static void contains(String output, String... wanted) {
        for (String text : wanted) {
            Expect.that(output.contains(text), "no `" + text + "` in: " + output);
        }
    }
}

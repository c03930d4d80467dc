package foliomq.interop;

import java.util.Set;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;

/** A broker and a name server that are not of one make: what each must know of the other. */
public final class NameServerDriver {
    private static final int READ_WRITE = 6;
    private static final int READ_ONLY = 4;

    private NameServerDriver() {
    }

    public static void main(String[] arguments) throws Exception {
        Target target = Target.parse(arguments);
        Suite suite = new Suite(target);
        suite.checkAlone("name server: knows the broker and its cluster", NameServerDriver::cluster);
        suite.checkAlone("name server: learns topics when they are created and changed", NameServerDriver::topics);
        suite.checkAlone("name server: clients send and consume through it", NameServerDriver::clients);
        suite.checkAlone("name server: key-value configuration", NameServerDriver::keyValues);
        suite.checkAlone("name server: write permission is wiped and restored", NameServerDriver::permission);
        suite.checkAlone("name server: a deleted topic has no route", NameServerDriver::deletion);
        suite.checkAlone("name server: a restarted broker registers all its topics", NameServerDriver::restart);
        System.exit(suite.run(target.only()));
    }

    private static void cluster(Scope scope) throws Exception {
        var info = scope.admin().examineBrokerClusterInfo();
        Expect.equal(Set.of(Target.BROKER_NAME), info.getClusterAddrTable().get(Target.CLUSTER), "brokers");
        var broker = info.getBrokerAddrTable().get(Target.BROKER_NAME);
        Expect.equal(scope.target.broker(), broker.getBrokerAddrs().get(0L), "address of the master");
        Expect.equal(Target.CLUSTER, broker.getCluster(), "cluster of the broker");
        Expect.that(scope.admin().fetchAllTopicList().getTopicList().contains("TBW102"), "the default topic");
        var inCluster = scope.admin().fetchTopicsByCLuster(Target.CLUSTER).getTopicList();
        Expect.that(inCluster.contains("SELF_TEST_TOPIC"), "topics of the cluster");
    }

    private static void topics(Scope scope) throws Exception {
        String topic = scope.newTopic("NsTopic", 3);
        var data = scope.route(topic).getQueueDatas().get(0);
        Expect.equal(3, data.getReadQueueNums(), "read queues");
        Expect.equal(READ_WRITE, data.getPerm(), "permission");
        Expect.equal(scope.target.broker(), scope.route(topic).getBrokerDatas().get(0).selectBrokerAddr(), "address");
        scope.admin().createAndUpdateTopicConfig(scope.target.broker(), new TopicConfig(topic, 5, 4, READ_WRITE));
        Expect.until("five read queues", () -> scope.route(topic).getQueueDatas().get(0).getReadQueueNums() == 5);
        Expect.equal(4, scope.route(topic).getQueueDatas().get(0).getWriteQueueNums(), "write queues");
    }

    private static void clients(Scope scope) throws Exception {
        String topic = scope.name("NsClients");
        for (int i = 0; i < 20; i++) {
            scope.producer().send(new Message(topic, SendChecks.body(i)));
        }
        scope.awaitRoute(topic);
        Received received = new Received();
        PushChecks.subscribed(scope, scope.name("ns"), topic, "*", received);
        received.await(20);
    }

    private static void keyValues(Scope scope) throws Exception {
        scope.admin().createAndUpdateKvConfig("NS", "key", "value é");
        Expect.equal("value é", scope.admin().getKVConfig("NS", "key"), "value");
        Expect.equal("value é", scope.admin().getKVListByNamespace("NS").getTable().get("key"), "list");
        scope.admin().deleteKvConfig("NS", "key");
        Expect.equal(22, Expect.refusal("deleted key", () -> scope.admin().getKVConfig("NS", "key")), "code");
    }

    private static void permission(Scope scope) throws Exception {
        String topic = scope.newTopic("NsPermission", 1);
        int wiped = scope.admin().wipeWritePermOfBroker(scope.target.nameServer(), Target.BROKER_NAME);
        Expect.that(wiped > 1, "topics wiped: " + wiped);
        Expect.equal(READ_ONLY, scope.route(topic).getQueueDatas().get(0).getPerm(), "permission after wiping");
        int restored = scope.admin().addWritePermOfBroker(scope.target.nameServer(), Target.BROKER_NAME);
        Expect.that(restored > 1, "topics restored: " + restored);
        Expect.equal(READ_WRITE, scope.route(topic).getQueueDatas().get(0).getPerm(), "permission restored");
    }

    private static void deletion(Scope scope) throws Exception {
        String topic = scope.newTopic("NsDeleted", 1);
        String other = scope.newTopic("NsKept", 1);
        scope.admin().deleteTopicInNameServer(Set.of(scope.target.nameServer()), Target.CLUSTER, topic);
        int code = Expect.refusal("route of a deleted topic", () -> scope.route(topic));
        Expect.equal(17, code, "code");
        scope.awaitRoute(other);
    }

    private static void restart(Scope scope) throws Exception {
        String topic = scope.newTopic("NsRestart", 2);
        scope.producer().send(new Message(topic, SendChecks.body(0)));
        Suite.order("@stop");
        Expect.until("the stopped broker is gone", () ->
            !scope.admin().examineBrokerClusterInfo().getBrokerAddrTable().containsKey(Target.BROKER_NAME));
        Suite.order("@restart");
        Expect.equal(2, scope.awaitRoute(topic).getQueueDatas().get(0).getReadQueueNums(), "queues");
        Expect.until("a send", () -> scope.producer().send(new Message(topic, SendChecks.body(1))) != null);
        Expect.equal(2, scope.readTopic(topic).size(), "messages");
    }
}

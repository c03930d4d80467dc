package foliomq.interop;

import static foliomq.interop.PullChecks.committed;
import static foliomq.interop.PullChecks.numbers;
import static foliomq.interop.PullChecks.send;
import static foliomq.interop.SendChecks.body;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;

/** Push consumers that consume concurrently, and how groups share queues. */
final class PushChecks {
    private PushChecks() {
    }

    static void register(Suite suite) {
        suite.check("push: every message once, from all queues", PushChecks::everything);
        suite.check("push: tag filters, one and several", PushChecks::tags);
        suite.check("push: begins at the first, the last, a point in time", PushChecks::consumeFrom);
        suite.check("push: an arriving message is delivered at once", PushChecks::latency);
        suite.check("push: broadcast reaches every consumer", PushChecks::broadcast);
        suite.check("push: a group resumes at its committed offsets", PushChecks::resumes);
        suite.check("rebalance: two consumers share the queues, the one left takes all", PushChecks::rebalance);
    }

    private static void everything(Scope scope) throws Exception {
        String topic = scope.newTopic("PushAll", 4);
        send(scope, topic, 0, 50);
        Received received = new Received();
        DefaultMQPushConsumer consumer = subscribed(scope, scope.name("push"), topic, "*", received);
        send(scope, topic, 50, 200);
        received.await(200);
        Expect.equal(numbers(0, 200), received.numbers(), "numbers received");
        Set<Integer> queues = new HashSet<>();
        received.messages().forEach(message -> queues.add(message.getQueueId()));
        Expect.equal(Set.of(0, 1, 2, 3), queues, "queues received from");
        Expect.until("all committed", () -> committed(scope, consumer.getConsumerGroup(), topic) == 200);
    }

    private static void tags(Scope scope) throws Exception {
        String topic = scope.newTopic("PushTags", 2);
        Received one = new Received();
        Received two = new Received();
        subscribed(scope, scope.name("push"), topic, "A", one);
        subscribed(scope, scope.name("push"), topic, "B || C", two);
        for (int i = 0; i < 40; i++) {
            scope.producer().send(new Message(topic, List.of("A", "B", "C", "D").get(i % 4), body(i)));
        }
        one.await(10);
        two.await(20);
        Expect.that(one.messages().stream().allMatch(message -> message.getTags().equals("A")), "only A");
        Expect.that(two.messages().stream().noneMatch(message -> "AD".contains(message.getTags())), "only B and C");
    }

    private static void consumeFrom(Scope scope) throws Exception {
        String topic = scope.newTopic("PushFrom", 1);
        send(scope, topic, 0, 5);
        // Timestamps of this option are whole seconds: the second half gets a second of its own.
        long half = (System.currentTimeMillis() / 1_000 + 2) * 1_000;
        Expect.until("the next second", () -> System.currentTimeMillis() >= half);
        send(scope, topic, 5, 10);
        Received fromFirst = new Received();
        Received fromTime = new Received();
        subscribed(scope, scope.name("first"), topic, "*", fromFirst);
        DefaultMQPushConsumer byTime = scope.pushConsumer(scope.name("time"));
        byTime.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_TIMESTAMP);
        byTime.setConsumeTimestamp(UtilAll.timeMillisToHumanString3(half));
        start(byTime, topic, "*", fromTime);
        fromFirst.await(10);
        Expect.until("the later half", () -> fromTime.count() >= 5);
        // A queue of a topic that is still in memory is consumed from 0 unless asked for a time.
        Expect.that(fromTime.numbers().containsAll(numbers(5, 10)), "the later half, got " + fromTime.numbers());
    }

    private static void latency(Scope scope) throws Exception {
        String topic = scope.newTopic("PushLatency", 1);
        Received received = new Received();
        subscribed(scope, scope.name("push"), topic, "*", received);
        send(scope, topic, 0, 1);
        received.await(1);
        for (int i = 1; i <= 5; i++) {
            int count = i + 1;
            long started = System.nanoTime();
            send(scope, topic, i, count);
            Expect.until("message " + i, () -> received.count() == count);
            long tookMs = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - started);
            Expect.between(0, 900, tookMs, "ms from send to delivery");
        }
    }

    private static void broadcast(Scope scope) throws Exception {
        String topic = scope.newTopic("Broadcast", 4);
        String group = scope.name("broadcast");
        Received first = new Received();
        Received second = new Received();
        for (Received received : List.of(first, second)) {
            DefaultMQPushConsumer consumer = scope.pushConsumer(group);
            consumer.setMessageModel(MessageModel.BROADCASTING);
            start(consumer, topic, "*", received);
        }
        send(scope, topic, 0, 40);
        first.await(40);
        second.await(40);
    }

    private static void resumes(Scope scope) throws Exception {
        String topic = scope.newTopic("PushResumes", 2);
        String group = scope.name("push");
        send(scope, topic, 0, 20);
        Received first = new Received();
        DefaultMQPushConsumer consumer = subscribed(scope, group, topic, "*", first);
        first.await(20);
        consumer.shutdown();
        Expect.until("offsets committed at shutdown", () -> committed(scope, group, topic) == 20);
        send(scope, topic, 20, 30);
        Received second = new Received();
        subscribed(scope, group, topic, "*", second);
        second.await(10);
        Expect.equal(numbers(20, 30), second.numbers(), "only what the first had not consumed");
    }

    private static void rebalance(Scope scope) throws Exception {
        String topic = scope.newTopic("Rebalance", 4);
        String group = scope.name("rebalance");
        Received first = new Received();
        Received second = new Received();
        DefaultMQPushConsumer one = subscribed(scope, group, topic, "*", first);
        Expect.until("one consumer has all queues", () -> queuesOf(one, topic) == 4);
        // The broker's notification (RC 40) makes both rebalance long before their own 20 seconds.
        DefaultMQPushConsumer two = subscribed(scope, group, topic, "*", second);
        Expect.until("two consumers have two queues each", () -> queuesOf(one, topic) == 2 && queuesOf(two, topic) == 2);
        Expect.equal(2, scope.admin().examineConsumerConnectionInfo(group).getConnectionSet().size(), "connections");
        send(scope, topic, 0, 80);
        Expect.until("80 messages", () -> first.count() + second.count() >= 80);
        Expect.equal(80, first.count() + second.count(), "messages received by both");
        Expect.that(first.count() == 40 && second.count() == 40, "shares " + first.count() + " and " + second.count());
        one.shutdown();
        Expect.until("the consumer left has all queues", () -> queuesOf(two, topic) == 4);
        send(scope, topic, 80, 100);
        second.await(60);
    }

    static DefaultMQPushConsumer subscribed(Scope scope, String group, String topic, String tags, Received received)
        throws Exception {
        return start(scope.pushConsumer(group), topic, tags, received);
    }

    private static DefaultMQPushConsumer start(
        DefaultMQPushConsumer consumer, String topic, String tags, Received received) throws Exception {
        consumer.subscribe(topic, tags);
        consumer.registerMessageListener(received.listener());
        consumer.start();
        return consumer;
    }

    private static long queuesOf(DefaultMQPushConsumer consumer, String topic) {
        Set<MessageQueue> queues =
            consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet();
        return queues.stream().filter(queue -> queue.getTopic().equals(topic)).count();
    }
}

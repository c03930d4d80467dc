package foliomq.interop;

import static foliomq.interop.PullChecks.committed;
import static foliomq.interop.PullChecks.numbers;
import static foliomq.interop.PullChecks.send;
import static foliomq.interop.SendChecks.body;

import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** What a broker still knows after it was stopped, or killed, and started again. */
final class RestartChecks {
    private RestartChecks() {
    }

    static void register(Suite suite) {
        suite.checkAlone("restart: topics, messages, indexes and consumer offsets are kept", RestartChecks::restart);
        suite.checkAlone("restart: clients that stay connected go on by themselves", RestartChecks::clientsGoOn);
        suite.checkAlone("crash: no acknowledged message is lost", RestartChecks::crash);
    }

    private static void restart(Scope scope) throws Exception {
        String topic = scope.newTopic("Restart", 3);
        String group = scope.name("restart");
        List<SendResult> sent = new ArrayList<>();
        for (int i = 0; i < 30; i++) {
            sent.add(scope.producer().send(new Message(topic, "T", "key" + i, body(i))));
        }
        Received before = new Received();
        DefaultMQPushConsumer consumer = PushChecks.subscribed(scope, group, topic, "*", before);
        before.await(30);
        consumer.shutdown();
        Expect.until("offsets committed", () -> committed(scope, group, topic) == 30);
        send(scope, topic, 30, 40);
        Message delayed = new Message(topic, body(99));
        delayed.setDelayTimeLevel(2);
        scope.producer().send(delayed);
        List<MessageExt> stored = scope.readTopic(topic);
        Suite.order("@restart");
        Expect.until("offsets after the restart", () -> committed(scope, group, topic) == 30);
        Expect.equal(3, scope.awaitRoute(topic).getQueueDatas().get(0).getReadQueueNums(), "queues after the restart");
        for (MessageExt message : stored) {
            MessageExt found = scope.admin().viewMessage(topic, message.getProperty("UNIQ_KEY"));
            Expect.equal(message.getCommitLogOffset(), found.getCommitLogOffset(), "place of " + message.getMsgId());
        }
        for (int i = 0; i < 30; i++) {
            MessageExt found = scope.admin().viewMessage(topic, sent.get(i).getOffsetMsgId());
            Expect.equal(String.valueOf(i), SendChecks.text(found.getBody()), "body by offset id");
        }
        Received after = new Received();
        PushChecks.subscribed(scope, group, topic, "*", after);
        Expect.until("the rest and the delayed one", () -> after.count() >= 11);
        Expect.that(after.numbers().containsAll(numbers(30, 40)), "the rest, got " + after.numbers());
        Expect.that(after.numbers().contains(99), "the delayed message, got " + after.numbers());
        Expect.equal(11, after.count(), "messages after the restart");
        SendResult next = scope.producer().send(new Message(topic, body(100)), scope.queue(topic, 0));
        Expect.that(next.getQueueOffset() >= 10, "queue offsets go on, got " + next.getQueueOffset());
    }

    private static void clientsGoOn(Scope scope) throws Exception {
        String topic = scope.newTopic("GoOn", 2);
        Received received = new Received();
        PushChecks.subscribed(scope, scope.name("goon"), topic, "*", received);
        send(scope, topic, 0, 10);
        received.await(10);
        Suite.order("@restart");
        Expect.until("a first send after the restart", () -> scope.producer().send(new Message(topic, body(10))) != null);
        send(scope, topic, 11, 20);
        received.awaitNumbers(numbers(0, 20));
    }

    private static void crash(Scope scope) throws Exception {
        String topic = scope.newTopic("Crash", 4);
        send(scope, topic, 0, 300);
        Suite.order("@crash");
        Expect.until("the route after the crash", () -> scope.producer().fetchPublishMessageQueues(topic).size() == 4);
        Expect.until("300 messages", () -> scope.readTopic(topic).size() == 300);
        Expect.until("a send after the crash", () -> scope.producer().send(new Message(topic, body(300))) != null);
        List<MessageExt> stored = scope.readTopic(topic);
        Expect.equal(301L, stored.stream().map(message -> SendChecks.text(message.getBody())).distinct().count(),
            "different messages");
    }
}

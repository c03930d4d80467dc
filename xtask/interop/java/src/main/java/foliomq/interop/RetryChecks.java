package foliomq.interop;

import static foliomq.interop.SendChecks.body;

import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Failed consumption, dead letters, and the delay levels that carry retries. */
final class RetryChecks {
    /** How late a delayed message may be, on a busy machine. */
    private static final long LATE_MS = 5_000;

    private RetryChecks() {
    }

    static void register(Suite suite) {
        suite.check("retry: RECONSUME_LATER delivers again after its delay level", RetryChecks::again);
        suite.check("retry: after the last try the message is a dead letter", RetryChecks::deadLetter);
        suite.check("retry: delay level -1 makes a dead letter at once", RetryChecks::deadAtOnce);
        suite.check("delay: levels 1 and 2 deliver after 1 and 5 seconds", RetryChecks::levels);
    }

    private static void again(Scope scope) throws Exception {
        String topic = scope.newTopic("Retry", 1);
        Received received = new Received();
        Map<Integer, Long> times = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = failing(scope, topic, 1, 16, 1, received, times);
        Message message = new Message(topic, "TagR", "keyR", body(7));
        message.putUserProperty("own", "stays");
        SendResult sent = scope.producer().send(message);
        received.await(2, Expect.AFTER_REBALANCE);
        MessageExt retried = received.messages().get(1);
        Expect.equal(1, retried.getReconsumeTimes(), "reconsume times");
        Expect.equal(topic, retried.getTopic(), "the topic a listener sees");
        Expect.equal(sent.getMsgId(), retried.getMsgId(), "unique key");
        Expect.equal("TagR", retried.getTags(), "tags");
        Expect.equal("keyR", retried.getKeys(), "keys");
        Expect.equal("stays", retried.getUserProperty("own"), "own property");
        Expect.equal("7", SendChecks.text(retried.getBody()), "body");
        String retryTopic = "%RETRY%" + consumer.getConsumerGroup();
        MessageExt stored = scope.readQueue(scope.queue(retryTopic, 0)).get(0);
        long delay = stored.getStoreTimestamp() - times.get(0);
        Expect.between(1_000 - 100, 1_000 + LATE_MS, delay, "ms from the failure to the retry");
        Expect.equal(sent.getOffsetMsgId(), stored.getProperty("ORIGIN_MESSAGE_ID"), "origin");
        Expect.equal(topic, stored.getProperty("RETRY_TOPIC"), "retry topic");
    }

    private static void deadLetter(Scope scope) throws Exception {
        String topic = scope.newTopic("DeadLetter", 1);
        Received received = new Received();
        DefaultMQPushConsumer consumer =
            failing(scope, topic, Integer.MAX_VALUE, 2, 1, received, new ConcurrentHashMap<>());
        SendResult sent = scope.producer().send(new Message(topic, "TagD", "keyD", body(1)));
        MessageExt dead = awaitDead(scope, consumer.getConsumerGroup());
        Expect.equal(3, received.count(), "deliveries: the first and two retries");
        List<Integer> tries = received.messages().stream().map(MessageExt::getReconsumeTimes).toList();
        Expect.equal(List.of(0, 1, 2), tries, "reconsume times");
        Expect.equal(3, dead.getReconsumeTimes(), "reconsume times of the dead letter");
        Expect.equal(sent.getMsgId(), dead.getMsgId(), "unique key");
        Expect.equal(topic, dead.getProperty("RETRY_TOPIC"), "where it came from");
        Expect.equal(sent.getOffsetMsgId(), dead.getProperty("ORIGIN_MESSAGE_ID"), "origin");
        Expect.equal("keyD", dead.getKeys(), "keys");
    }

    private static void deadAtOnce(Scope scope) throws Exception {
        String topic = scope.newTopic("DeadAtOnce", 1);
        Received received = new Received();
        DefaultMQPushConsumer consumer =
            failing(scope, topic, Integer.MAX_VALUE, 16, -1, received, new ConcurrentHashMap<>());
        scope.producer().send(new Message(topic, body(1)));
        MessageExt dead = awaitDead(scope, consumer.getConsumerGroup());
        Expect.equal("1", SendChecks.text(dead.getBody()), "body");
        Expect.equal(1, received.count(), "deliveries");
    }

    private static void levels(Scope scope) throws Exception {
        String topic = scope.newTopic("Delay", 2);
        Received received = new Received();
        Map<Integer, Long> times = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = failing(scope, topic, 0, 16, 1, received, times);
        Expect.that(consumer.getConsumerGroup() != null, "started");
        long sentAt = System.currentTimeMillis();
        for (int level : new int[] {2, 1, 0}) {
            Message message = new Message(topic, "TagL", "keyL" + level, body(level));
            message.setDelayTimeLevel(level);
            scope.producer().send(message);
        }
        received.await(3);
        Expect.equal(Set.of(0, 1, 2), received.numbers(), "levels delivered");
        Map<Integer, Long> wanted = Map.of(0, 0L, 1, 1_000L, 2, 5_000L);
        for (MessageExt message : received.messages()) {
            int level = Integer.parseInt(SendChecks.text(message.getBody()));
            long least = Math.max(0, wanted.get(level) - 50);
            long delay = message.getStoreTimestamp() - sentAt;
            Expect.between(least, wanted.get(level) + LATE_MS, delay, "ms of level " + level);
            Expect.equal(topic, message.getTopic(), "topic");
            Expect.equal("keyL" + level, message.getKeys(), "keys");
            Expect.equal("TagL", message.getTags(), "tags");
        }
        Expect.equal(3, scope.readTopic(topic).size(), "messages stored in the topic");
    }

    /** A consumer whose first tries of each message fail; records when each try of a message came. */
    private static DefaultMQPushConsumer failing(
        Scope scope, String topic, int failures, int maxReconsumeTimes, int delayLevel, Received received,
        Map<Integer, Long> times) throws Exception {
        DefaultMQPushConsumer consumer = scope.pushConsumer(scope.name("retry"));
        consumer.setMaxReconsumeTimes(maxReconsumeTimes);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (batch, context) -> {
            MessageExt message = batch.get(0);
            times.put(message.getReconsumeTimes(), System.currentTimeMillis());
            received.add(message);
            context.setDelayLevelWhenNextConsume(delayLevel);
            return message.getReconsumeTimes() < failures
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER
                : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return consumer;
    }

    private static MessageExt awaitDead(Scope scope, String group) throws Exception {
        MessageQueue queue = scope.queue("%DLQ%" + group, 0);
        Expect.until("a dead letter", Expect.AFTER_REBALANCE, () -> scope.producer().maxOffset(queue) == 1);
        return scope.readQueue(queue).get(0);
    }
}

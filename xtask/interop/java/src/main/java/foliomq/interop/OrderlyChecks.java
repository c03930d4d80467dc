package foliomq.interop;

import static foliomq.interop.SendChecks.body;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.body.LockBatchRequestBody;
import org.apache.rocketmq.remoting.protocol.body.LockBatchResponseBody;
import org.apache.rocketmq.remoting.protocol.body.UnlockBatchRequestBody;
import org.apache.rocketmq.remoting.protocol.header.LockBatchMqRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.UnlockBatchMqRequestHeader;

/** Orderly push consumers and the queue locks under them. */
final class OrderlyChecks {
    private OrderlyChecks() {
    }

    static void register(Suite suite) {
        suite.check("orderly: order within each queue, shared by two consumers", OrderlyChecks::order);
        suite.check("orderly: a suspended queue delivers the same message again", OrderlyChecks::suspend);
        suite.check("locks: one owner at a time, until it unlocks", OrderlyChecks::locks);
    }

    private static void order(Scope scope) throws Exception {
        String topic = scope.newTopic("Orderly", 4);
        String group = scope.name("orderly");
        Map<Integer, List<Integer>> byQueue = new ConcurrentHashMap<>();
        AtomicInteger total = new AtomicInteger();
        MessageListenerOrderly listener = (batch, context) -> {
            for (MessageExt message : batch) {
                byQueue.computeIfAbsent(message.getQueueId(), id -> new CopyOnWriteArrayList<>()).add(number(message));
                total.incrementAndGet();
            }
            return ConsumeOrderlyStatus.SUCCESS;
        };
        for (int i = 0; i < 2; i++) {
            start(scope, group, topic, listener);
        }
        for (int i = 0; i < 200; i++) {
            scope.producer().send(new Message(topic, body(i)), scope.queue(topic, i % 4));
        }
        Expect.until("200 messages", Duration.ofSeconds(60), () -> total.get() >= 200);
        Expect.equal(200, total.get(), "messages received");
        for (int queueId = 0; queueId < 4; queueId++) {
            for (int i = 0; i < 50; i++) {
                Expect.equal(queueId + 4 * i, byQueue.get(queueId).get(i), "message " + i + " of queue " + queueId);
            }
        }
    }

    private static void suspend(Scope scope) throws Exception {
        String topic = scope.newTopic("Suspend", 1);
        List<Integer> seen = new CopyOnWriteArrayList<>();
        start(scope, scope.name("orderly"), topic, (batch, context) -> {
            int number = number(batch.get(0));
            seen.add(number);
            boolean firstTry = number == 1 && seen.stream().filter(one -> one == 1).count() == 1;
            return firstTry ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
        });
        for (int i = 0; i < 3; i++) {
            scope.producer().send(new Message(topic, body(i)));
        }
        Expect.until("four deliveries", () -> seen.size() >= 4);
        Expect.equal(List.of(0, 1, 1, 2), List.copyOf(seen), "deliveries");
    }

    private static void locks(Scope scope) throws Exception {
        String topic = scope.newTopic("Locks", 2);
        String group = scope.name("lockers");
        Set<MessageQueue> both = Set.of(scope.queue(topic, 0), scope.queue(topic, 1));
        Set<MessageQueue> one = Set.of(scope.queue(topic, 0));
        Expect.equal(one, lock(scope, group, "client-a", one), "locked by a");
        Expect.equal(Set.of(scope.queue(topic, 1)), lock(scope, group, "client-b", both), "locked by b");
        Expect.equal(one, lock(scope, group, "client-a", both), "renewed by a");
        Expect.equal(both, lock(scope, scope.name("others"), "client-b", both), "another group is apart");
        unlock(scope, group, "client-b", both);
        Expect.equal(both, lock(scope, group, "client-a", both), "b's lock is free, a's own stays");
    }

    private static Set<MessageQueue> lock(Scope scope, String group, String clientId, Set<MessageQueue> queues)
        throws Exception {
        LockBatchRequestBody body = new LockBatchRequestBody();
        body.setConsumerGroup(group);
        body.setClientId(clientId);
        body.setMqSet(queues);
        RemotingCommand request =
            RemotingCommand.createRequestCommand(RequestCode.LOCK_BATCH_MQ, new LockBatchMqRequestHeader());
        request.setBody(body.encode());
        RemotingCommand answer = scope.ask(request);
        Expect.equal(0, answer.getCode(), "code of lock: " + answer.getRemark());
        return LockBatchResponseBody.decode(answer.getBody(), LockBatchResponseBody.class).getLockOKMQSet();
    }

    private static void unlock(Scope scope, String group, String clientId, Set<MessageQueue> queues) throws Exception {
        UnlockBatchRequestBody body = new UnlockBatchRequestBody();
        body.setConsumerGroup(group);
        body.setClientId(clientId);
        body.setMqSet(queues);
        RemotingCommand request =
            RemotingCommand.createRequestCommand(RequestCode.UNLOCK_BATCH_MQ, new UnlockBatchMqRequestHeader());
        request.setBody(body.encode());
        Expect.equal(0, scope.ask(request).getCode(), "code of unlock");
    }

    private static void start(Scope scope, String group, String topic, MessageListenerOrderly listener)
        throws Exception {
        DefaultMQPushConsumer consumer = scope.pushConsumer(group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(listener);
        consumer.start();
    }

    private static int number(MessageExt message) {
        return Integer.parseInt(SendChecks.text(message.getBody()));
    }
}

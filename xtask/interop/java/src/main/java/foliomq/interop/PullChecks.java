package foliomq.interop;

import static foliomq.interop.SendChecks.body;
import static foliomq.interop.SendChecks.text;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** The two pull consumers, and held pulls. */
final class PullChecks {
    private PullChecks() {
    }

    static void register(Suite suite) {
        suite.check("pull: by offset, with every status", PullChecks::statuses);
        suite.check("pull: one tag, several tags, no match", PullChecks::tags);
        suite.check("pull: tags of equal hash are told apart", PullChecks::tagCollision);
        suite.check("pull: a large queue in batches, nothing lost or doubled", PullChecks::largeQueue);
        suite.check("lite pull: subscribe, commit, resume in a second consumer", PullChecks::liteSubscribe);
        suite.check("lite pull: assign and seek", PullChecks::liteAssign);
        suite.check("long poll: a held pull is answered when a message arrives", PullChecks::heldPullWakes);
        suite.check("long poll: a message of another tag is not delivered", PullChecks::heldPullFilters);
        suite.check("long poll: an expired hold answers that nothing is new", PullChecks::heldPullExpires);
    }

    private static void statuses(Scope scope) throws Exception {
        MessageQueue queue = filled(scope, "Statuses", 10);
        DefaultMQPullConsumer consumer = started(scope);
        PullResult found = consumer.pull(queue, "*", 3, 4);
        expect(found, PullStatus.FOUND, 7);
        Expect.equal(4, found.getMsgFoundList().size(), "messages");
        Expect.equal(3L, found.getMsgFoundList().get(0).getQueueOffset(), "first");
        Expect.equal(0L, found.getMinOffset(), "minimum");
        Expect.equal(10L, found.getMaxOffset(), "maximum");
        expect(consumer.pull(queue, "*", 10, 4), PullStatus.NO_NEW_MSG, 10);
        expect(consumer.pull(queue, "*", 99, 4), PullStatus.OFFSET_ILLEGAL, 10);
        MessageQueue empty = scope.queue(scope.newTopic("Empty", 1), 0);
        expect(consumer.pull(empty, "*", 0, 4), PullStatus.NO_NEW_MSG, 0);
        expect(consumer.pull(empty, "*", 5, 4), PullStatus.OFFSET_ILLEGAL, 0);
        int unknown = Expect.refusal("unknown topic", () -> consumer.pull(scope.queue("NoSuchTopic", 0), "*", 0, 4));
        Expect.equal(17, unknown, "code of an unknown topic");
        int outside = Expect.refusal("unknown queue", () -> consumer.pull(scope.queue(queue.getTopic(), 7), "*", 0, 4));
        Expect.equal(29, outside, "code of an unknown queue");
    }

    private static void tags(Scope scope) throws Exception {
        MessageQueue queue = scope.queue(scope.newTopic("Tags", 1), 0);
        for (int i = 0; i < 30; i++) {
            scope.producer().send(new Message(queue.getTopic(), List.of("A", "B", "C").get(i % 3), body(i)), queue);
        }
        scope.producer().send(new Message(queue.getTopic(), body(30)), queue);
        scope.awaitDispatch();
        DefaultMQPullConsumer consumer = started(scope);
        PullResult one = consumer.pull(queue, "B", 0, 32);
        expect(one, PullStatus.FOUND, 31);
        Expect.equal(10, one.getMsgFoundList().size(), "messages of tag B");
        Expect.that(one.getMsgFoundList().stream().allMatch(message -> message.getTags().equals("B")), "only tag B");
        PullResult two = consumer.pull(queue, "A || C", 0, 32);
        Expect.equal(20, two.getMsgFoundList().size(), "messages of tags A and C");
        PullResult none = consumer.pull(queue, "NoSuchTag", 0, 32);
        expect(none, PullStatus.NO_MATCHED_MSG, 31);
    }

    private static void tagCollision(Scope scope) throws Exception {
        Expect.equal("Aa".hashCode(), "BB".hashCode(), "Java's hashes");
        MessageQueue queue = scope.queue(scope.newTopic("Collision", 1), 0);
        for (String tag : List.of("Aa", "BB", "Aa", "BB")) {
            scope.producer().send(new Message(queue.getTopic(), tag, body(0)), queue);
        }
        scope.awaitDispatch();
        PullResult result = started(scope).pull(queue, "Aa", 0, 32);
        expect(result, PullStatus.FOUND, 4);
        Expect.equal(2, result.getMsgFoundList().size(), "messages of tag Aa");
    }

    private static void largeQueue(Scope scope) throws Exception {
        // Over 1,000 entries, where a file of the queue ends.
        int count = 2_500;
        String topic = scope.newTopic("Large", 1);
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            batch.add(new Message(topic, body(i)));
            if (batch.size() == 100) {
                scope.producer().send(batch);
                batch.clear();
            }
        }
        List<MessageExt> stored = scope.readQueue(scope.queue(topic, 0));
        Expect.equal(count, stored.size(), "messages");
        for (int i = 0; i < count; i++) {
            Expect.equal(String.valueOf(i), text(stored.get(i).getBody()), "body at offset " + i);
        }
    }

    private static void liteSubscribe(Scope scope) throws Exception {
        String topic = scope.newTopic("LiteSubscribe", 4);
        String group = scope.name("lite");
        send(scope, topic, 0, 40);
        DefaultLitePullConsumer first = scope.litePullConsumer(group);
        first.setAutoCommit(false);
        first.subscribe(topic, "*");
        first.start();
        Expect.equal(numbers(0, 40), collect(first, 40), "first consumer");
        first.commit();
        // Commits are sent one-way: they have arrived when the broker says so.
        Expect.until("offsets committed", () -> committed(scope, group, topic) == 40);
        first.shutdown();
        send(scope, topic, 40, 60);
        DefaultLitePullConsumer second = scope.litePullConsumer(group);
        second.subscribe(topic, "*");
        second.start();
        Expect.equal(numbers(40, 60), collect(second, 20), "second consumer goes on");
    }

    private static void liteAssign(Scope scope) throws Exception {
        MessageQueue queue = filled(scope, "LiteAssign", 10);
        DefaultLitePullConsumer consumer = scope.litePullConsumer(scope.name("lite"));
        consumer.setAutoCommit(false);
        consumer.start();
        consumer.assign(List.of(queue));
        // What a pull on its way brings would be delivered in spite of a seek: none has anything now.
        Expect.equal(numbers(0, 10), collect(consumer, 10), "after assign");
        consumer.seek(queue, 6);
        Expect.equal(numbers(6, 10), collect(consumer, 4), "after seek to 6");
        consumer.seekToBegin(queue);
        Expect.equal(numbers(0, 10), collect(consumer, 10), "after seek to the beginning");
    }

    private static void heldPullWakes(Scope scope) throws Exception {
        MessageQueue queue = scope.queue(scope.newTopic("HeldPull", 1), 0);
        DefaultMQPullConsumer consumer = started(scope);
        for (int round = 0; round < 3; round++) {
            int offset = round;
            AtomicLong answeredAt = new AtomicLong();
            CompletableFuture<PullResult> held = CompletableFuture.supplyAsync(() -> {
                PullResult result = pullHeld(consumer, queue, "*", offset);
                answeredAt.set(System.nanoTime());
                return result;
            });
            Expect.that(!isDone(held, 300), "the pull is held while the queue has nothing new");
            scope.producer().send(new Message(queue.getTopic(), body(round)), queue);
            long sentAt = System.nanoTime();
            expect(held.get(20, TimeUnit.SECONDS), PullStatus.FOUND, offset + 1);
            long latencyMs = Math.max(0, TimeUnit.NANOSECONDS.toMillis(answeredAt.get() - sentAt));
            Expect.between(0, 900, latencyMs, "ms from the send's answer to the held pull's");
        }
    }

    private static void heldPullFilters(Scope scope) throws Exception {
        MessageQueue queue = scope.queue(scope.newTopic("HeldFilter", 1), 0);
        DefaultMQPullConsumer consumer = started(scope);
        CompletableFuture<PullResult> held = CompletableFuture.supplyAsync(() -> {
            PullResult result = pullHeld(consumer, queue, "Wanted", 0);
            // Java's own scan of its holds may let go of one before its tag arrives.
            while (result.getPullStatus() == PullStatus.NO_MATCHED_MSG) {
                result = pullHeld(consumer, queue, "Wanted", result.getNextBeginOffset());
            }
            return result;
        });
        Expect.that(!isDone(held, 200), "held");
        scope.producer().send(new Message(queue.getTopic(), "Other", body(0)), queue);
        Expect.that(!isDone(held, 500), "still waiting though another tag arrived");
        scope.producer().send(new Message(queue.getTopic(), "Wanted", body(1)), queue);
        PullResult result = held.get(20, TimeUnit.SECONDS);
        expect(result, PullStatus.FOUND, 2);
        Expect.equal("1", text(result.getMsgFoundList().get(0).getBody()), "the message waited for");
    }

    private static void heldPullExpires(Scope scope) throws Exception {
        MessageQueue queue = scope.queue(scope.newTopic("HeldExpires", 1), 0);
        DefaultMQPullConsumer consumer = scope.pullConsumer(scope.name("pullers"));
        consumer.setBrokerSuspendMaxTimeMillis(1_500);
        consumer.start();
        long started = System.nanoTime();
        PullResult result = consumer.pullBlockIfNotFound(queue, "*", 0, 32);
        expect(result, PullStatus.NO_NEW_MSG, 0);
        // Java looks for expired holds every 5 seconds.
        long heldMs = Duration.ofNanos(System.nanoTime() - started).toMillis();
        Expect.between(1_400, 1_500 + 6_000, heldMs, "ms held");
    }

    /** A topic of one queue with messages 0 to count - 1. */
    static MessageQueue filled(Scope scope, String hint, int count) throws Exception {
        String topic = scope.newTopic(hint, 1);
        send(scope, topic, 0, count);
        scope.awaitDispatch();
        return scope.queue(topic, 0);
    }

    /** Sends the numbers as bodies, over all queues in turn. */
    static void send(Scope scope, String topic, int from, int end) throws Exception {
        for (int i = from; i < end; i++) {
            scope.producer().send(new Message(topic, body(i)));
        }
    }

    static Set<Integer> numbers(int from, int end) {
        Set<Integer> numbers = new TreeSet<>();
        for (int i = from; i < end; i++) {
            numbers.add(i);
        }
        return numbers;
    }

    /** The sum of the offsets that a group has committed in a topic. */
    static long committed(Scope scope, String group, String topic) throws Exception {
        return scope.admin().examineConsumeStats(group, topic).getOffsetTable().values().stream()
            .mapToLong(wrapper -> Math.max(0, wrapper.getConsumerOffset()))
            .sum();
    }

    private static DefaultMQPullConsumer started(Scope scope) throws Exception {
        DefaultMQPullConsumer consumer = scope.pullConsumer(scope.name("pullers"));
        consumer.start();
        return consumer;
    }

    private static Set<Integer> collect(DefaultLitePullConsumer consumer, int count) {
        Set<Integer> seen = new TreeSet<>();
        int received = 0;
        long deadline = System.nanoTime() + Expect.SOON.toNanos();
        while (received < count && System.nanoTime() < deadline) {
            for (MessageExt message : consumer.poll(500)) {
                seen.add(Integer.parseInt(text(message.getBody())));
                received++;
            }
        }
        Expect.equal(count, received, "messages received, of " + seen);
        return seen;
    }

    private static PullResult pullHeld(DefaultMQPullConsumer consumer, MessageQueue queue, String tags, long offset) {
        try {
            return consumer.pullBlockIfNotFound(queue, tags, offset, 32);
        } catch (Exception failure) {
            throw new IllegalStateException(failure);
        }
    }

    private static boolean isDone(CompletableFuture<?> future, long withinMs) throws Exception {
        try {
            future.get(withinMs, TimeUnit.MILLISECONDS);
            return true;
        } catch (TimeoutException stillHeld) {
            return false;
        }
    }

    private static void expect(PullResult result, PullStatus status, long nextOffset) {
        Expect.equal(status, result.getPullStatus(), "status");
        Expect.equal(nextOffset, result.getNextBeginOffset(), "next offset after " + status);
    }
}

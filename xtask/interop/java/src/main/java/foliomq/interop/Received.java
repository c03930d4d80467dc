package foliomq.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CopyOnWriteArrayList;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.message.MessageExt;

/** The messages that listeners got, in the order they got them. */
final class Received {
    private final List<MessageExt> messages = new CopyOnWriteArrayList<>();

    /** A listener that takes everything and is content. */
    MessageListenerConcurrently listener() {
        return (batch, context) -> {
            batch.forEach(this::add);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
    }

    void add(MessageExt message) {
        messages.add(message);
    }

    int count() {
        return messages.size();
    }

    List<MessageExt> messages() {
        return new ArrayList<>(messages);
    }

    /** The bodies as the numbers they are. */
    List<Integer> sequence() {
        return messages().stream().map(message -> Integer.parseInt(SendChecks.text(message.getBody()))).toList();
    }

    Set<Integer> numbers() {
        return new TreeSet<>(sequence());
    }

    /** Waits for so many messages. */
    void await(int count) throws Exception {
        await(count, Expect.SOON);
    }

    void await(int count, Duration limit) throws Exception {
        try {
            Expect.until(count + " messages", limit, () -> count() >= count);
        } catch (AssertionError late) {
            throw new AssertionError(late.getMessage() + ", but " + sequence(), late);
        }
        Expect.equal(count, count(), "messages received");
    }

    /** Waits for these numbers, each at least once. */
    void awaitNumbers(Set<Integer> wanted) throws Exception {
        try {
            Expect.until("the numbers " + wanted, () -> numbers().containsAll(wanted));
        } catch (AssertionError late) {
            throw new AssertionError(late.getMessage() + ", but " + sequence(), late);
        }
    }
}

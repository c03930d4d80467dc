package foliomq.interop;

import static foliomq.interop.SendChecks.body;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;

/**
 * Fills a broker's store, and dumps what it serves: the two halves of the store suite that need a running broker.
 *
 * <p>{@code --fill TOPIC} sends messages of every kind; {@code --dump FILE} writes a {@link Dump}.
 */
public final class StoreDriver {
    private StoreDriver() {
    }

    public static void main(String[] arguments) throws Exception {
        Target target = Target.parse(arguments);
        List<String> given = List.of(arguments);
        Suite suite = new Suite(target);
        if (given.contains("--fill")) {
            String topic = given.get(given.indexOf("--fill") + 1);
            suite.checkAlone("store: messages of every kind are accepted", scope -> fill(scope, topic));
        }
        if (given.contains("--dump")) {
            Path file = Path.of(given.get(given.indexOf("--dump") + 1));
            suite.checkAlone("store: everything is served", scope -> {
                scope.awaitDispatch();
                WireDump.write(scope, file);
            });
        }
        System.exit(suite.run(""));
    }

    private static void fill(Scope scope, String hint) throws Exception {
        Random random = new Random(42);
        String plain = hint + "Plain";
        scope.createTopic(plain, 4);
        for (int i = 0; i < 400; i++) {
            byte[] bytes = new byte[1 + random.nextInt(2_000)];
            random.nextBytes(bytes);
            Message message = new Message(plain, "Tag" + i % 5, "key" + i + " common" + i % 7, bytes);
            message.putUserProperty("uni", "héllo 中文 🚀 " + i);
            scope.producer().send(message);
        }
        String batches = hint + "Batch";
        scope.createTopic(batches, 2);
        for (int i = 0; i < 20; i++) {
            List<Message> batch = new ArrayList<>();
            for (int j = 0; j < 10; j++) {
                batch.add(new Message(batches, "B", "batch" + i + "_" + j, body(i * 10 + j)));
            }
            scope.producer().send(batch);
        }
        String large = hint + "Large";
        scope.createTopic(large, 1);
        // Over a file of 16 MiB, so that the log rolls.
        DefaultMQProducer incompressible = scope.producer(scope.name("producers"));
        incompressible.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        for (int i = 0; i < 12; i++) {
            byte[] bytes = new byte[2_000_000];
            random.nextBytes(bytes);
            incompressible.send(new Message(large, "", "large" + i, bytes));
        }
        scope.producer().send(new Message(large, "text ".repeat(50_000).getBytes()));
        Message delayed = new Message(plain, body(1));
        delayed.setDelayTimeLevel(18);
        scope.producer().send(delayed);
    }
}

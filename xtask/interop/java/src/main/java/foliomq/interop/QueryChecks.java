package foliomq.interop;

import static foliomq.interop.SendChecks.body;

import java.util.List;
import java.util.concurrent.Callable;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageExt;

/** Finding single messages: by offset id, key, unique key. */
final class QueryChecks {
    private static final int MOST = 32;

    private QueryChecks() {
    }

    static void register(Suite suite) {
        suite.check("query: by offset id and by unique key", QueryChecks::byId);
        suite.check("query: by key, each of several, within a time", QueryChecks::byKey);
        suite.check("query: of more matches than asked for, the newest", QueryChecks::most);
        suite.check("query: what is not there", QueryChecks::absent);
    }

    private static void byId(Scope scope) throws Exception {
        String topic = scope.newTopic("ById", 2);
        for (int i = 0; i < 5; i++) {
            SendResult sent = scope.producer().send(new Message(topic, body(i)));
            MessageExt byOffset = scope.admin().viewMessage(topic, sent.getOffsetMsgId());
            Expect.equal(String.valueOf(i), SendChecks.text(byOffset.getBody()), "body by offset id");
            Expect.equal(sent.getMsgId(), MessageClientIDSetter.getUniqID(byOffset), "unique key");
            Expect.until("the index has " + sent.getMsgId(), () -> {
                MessageExt byKey = scope.admin().viewMessage(topic, sent.getMsgId());
                return byKey.getQueueOffset() == sent.getQueueOffset();
            });
        }
    }

    private static void byKey(Scope scope) throws Exception {
        String topic = scope.newTopic("ByKey", 2);
        String other = scope.newTopic("ByKeyOther", 1);
        long before = System.currentTimeMillis();
        for (int i = 0; i < 6; i++) {
            Message message = new Message(topic, body(i));
            message.setKeys(List.of("all", "own" + i, "third" + i % 3));
            scope.producer().send(message);
        }
        scope.producer().send(new Message(other, "", "all", body(9)));
        Expect.until("the index is built", () -> query(scope, topic, "all").size() == 6);
        Expect.until("the other topic's index", () -> query(scope, other, "all").size() == 1);
        Expect.equal(2, query(scope, topic, "third1").size(), "matches of a shared key");
        Expect.equal("4", SendChecks.text(query(scope, topic, "own4").get(0).getBody()), "match of an own key");
        long now = System.currentTimeMillis();
        // Indexes keep times in whole seconds.
        QueryResult inTime = scope.admin().queryMessage(topic, "all", MOST, before - 1_000, now + 1_000);
        Expect.equal(6, inTime.getMessageList().size(), "matches within the time");
        Expect.that(inTime.getIndexLastUpdateTimestamp() > 0, "index's last update");
        Expect.that(fails(() -> scope.admin().queryMessage(topic, "all", MOST, 1, before - 60_000)), "none before");
    }

    private static void most(Scope scope) throws Exception {
        String topic = scope.newTopic("Most", 1);
        for (int i = 0; i < 10; i++) {
            scope.producer().send(new Message(topic, "", "same", body(i)));
        }
        Expect.until("the index is built", () -> query(scope, topic, "same").size() == 10);
        List<String> newest = scope.admin().queryMessage(topic, "same", 4, 0, Long.MAX_VALUE).getMessageList().stream()
            .map(message -> SendChecks.text(message.getBody()))
            .toList();
        Expect.equal(List.of("6", "7", "8", "9"), newest.stream().sorted().toList(), "the newest four");
    }

    private static void absent(Scope scope) throws Exception {
        String topic = scope.newTopic("Absent", 1);
        scope.producer().send(new Message(topic, "", "key", body(0)));
        Expect.that(fails(() -> query(scope, topic, "nokey")), "a key that no message has");
        String beyond = "7F00000100002A9F00000000FFFFFFFF";
        String address = scope.target.broker().split(":")[1];
        String id = beyond.substring(0, 8) + String.format("%08X", Integer.parseInt(address)) + beyond.substring(16);
        Expect.that(fails(() -> scope.admin().viewMessage(topic, id)), "an offset beyond the log");
    }

    private static List<MessageExt> query(Scope scope, String topic, String key) throws Exception {
        return scope.admin().queryMessage(topic, key, MOST, 0, Long.MAX_VALUE).getMessageList();
    }

    private static boolean fails(Callable<?> call) throws Exception {
        try {
            call.call();
            return false;
        } catch (MQBrokerException | MQClientException none) {
            return true;
        }
    }
}

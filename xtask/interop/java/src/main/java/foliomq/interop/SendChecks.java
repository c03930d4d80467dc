package foliomq.interop;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageId;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeader;

/** Sending in every form, and what arrives in the queues. */
final class SendChecks {
    private SendChecks() {
    }

    static void register(Suite suite) {
        suite.check("send: sync, to a topic that is created by it", SendChecks::syncCreatesTopic);
        suite.check("send: keys, tags, flag and unicode properties come back", SendChecks::propertiesComeBack);
        suite.check("send: async", SendChecks::async);
        suite.check("send: one-way", SendChecks::oneWay);
        suite.check("send: batch of 50", SendChecks::batch);
        suite.check("send: bodies compressed by zlib, LZ4 and zstd", SendChecks::compressed);
        suite.check("send: bodies of 1 byte and of 4 MiB", SendChecks::bodySizes);
        suite.check("send: a body over 4 MiB is refused", SendChecks::tooLarge);
        suite.check("send: selector keeps order within a queue", SendChecks::selector);
        suite.check("send: unknown queue, bad name and system topic are refused", SendChecks::refusals);
    }

    private static void syncCreatesTopic(Scope scope) throws Exception {
        String topic = scope.name("AutoCreated");
        SendResult result = scope.producer().send(new Message(topic, "hello".getBytes(StandardCharsets.UTF_8)));
        Expect.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Expect.equal(0L, result.getQueueOffset(), "first queue offset");
        Expect.equal("DefaultRegion", result.getRegionId(), "region");
        MessageId id = MessageDecoder.decodeMessageId(result.getOffsetMsgId());
        Expect.that(id.getAddress().toString().endsWith(scope.target.broker()), "store host " + id.getAddress());
        var queues = scope.awaitRoute(topic).getQueueDatas();
        Expect.equal(1, queues.size(), "brokers of the topic");
        Expect.equal(4, queues.get(0).getWriteQueueNums(), "queues of an auto-created topic");
        Expect.equal(6, queues.get(0).getPerm(), "permission of an auto-created topic");
        List<MessageExt> stored = scope.readTopic(topic);
        Expect.equal(1, stored.size(), "messages stored");
        Expect.equal(result.getMsgId(), stored.get(0).getMsgId(), "unique key");
        Expect.equal(id.getOffset(), stored.get(0).getCommitLogOffset(), "physical offset");
        Expect.equal("hello", new String(stored.get(0).getBody(), StandardCharsets.UTF_8), "body");
    }

    private static void propertiesComeBack(Scope scope) throws Exception {
        String topic = scope.newTopic("Properties", 1);
        Message message = new Message(topic, "TagÄ", "key1 ключ", 0x01020304, "b".getBytes(StandardCharsets.UTF_8), true);
        message.putUserProperty("uni", "héllo 中文 🚀");
        message.putUserProperty("spaced key", " a b ");
        message.putUserProperty("long", "x".repeat(20_000));
        scope.producer().send(message);
        MessageExt stored = scope.readTopic(topic).get(0);
        Expect.equal("TagÄ", stored.getTags(), "tags");
        Expect.equal("key1 ключ", stored.getKeys(), "keys");
        Expect.equal(0x01020304, stored.getFlag(), "flag");
        Expect.equal("héllo 中文 🚀", stored.getUserProperty("uni"), "unicode property");
        Expect.equal(" a b ", stored.getUserProperty("spaced key"), "property with spaces");
        Expect.equal("x".repeat(20_000), stored.getUserProperty("long"), "long property");
        Expect.equal(0, stored.getReconsumeTimes(), "reconsume times");
        Expect.between(stored.getBornTimestamp(), System.currentTimeMillis(), stored.getStoreTimestamp(), "store time");
    }

    private static void async(Scope scope) throws Exception {
        String topic = scope.newTopic("Async", 4);
        int count = 200;
        Set<String> places = ConcurrentHashMap.newKeySet();
        AtomicReference<Throwable> failure = new AtomicReference<>();
        for (int i = 0; i < count; i++) {
            scope.producer().send(new Message(topic, body(i)), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    places.add(result.getMessageQueue().getQueueId() + ":" + result.getQueueOffset());
                }

                @Override
                public void onException(Throwable thrown) {
                    failure.set(thrown);
                }
            });
        }
        Expect.until("all sends answered", () -> places.size() == count || failure.get() != null);
        Expect.equal(null, failure.get(), "failed send");
        Expect.equal(count, scope.readTopic(topic).size(), "messages stored");
    }

    private static void oneWay(Scope scope) throws Exception {
        String topic = scope.newTopic("OneWay", 1);
        for (int i = 0; i < 50; i++) {
            scope.producer().sendOneway(new Message(topic, body(i)));
        }
        Expect.until("50 messages", () -> scope.producer().maxOffset(scope.queue(topic, 0)) == 50);
        Expect.equal(50, scope.readTopic(topic).size(), "messages stored");
    }

    private static void batch(Scope scope) throws Exception {
        String topic = scope.newTopic("Batch", 2);
        List<Message> messages = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            messages.add(new Message(topic, "Tag" + i % 3, "key" + i, body(i)));
        }
        SendResult result = scope.producer().send(messages);
        Expect.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Expect.equal(50, result.getOffsetMsgId().split(",").length, "offset ids");
        Expect.equal(50, result.getMsgId().split(",").length, "unique keys");
        List<MessageExt> stored = scope.readQueue(result.getMessageQueue());
        Expect.equal(50, stored.size(), "messages stored");
        for (int i = 0; i < 50; i++) {
            Expect.equal(result.getQueueOffset() + i, stored.get(i).getQueueOffset(), "queue offset");
            Expect.equal("key" + i, stored.get(i).getKeys(), "keys");
            Expect.equal("Tag" + i % 3, stored.get(i).getTags(), "tags");
            Expect.equal(text(body(i)), text(stored.get(i).getBody()), "body");
        }
    }

    private static void compressed(Scope scope) throws Exception {
        String topic = scope.newTopic("Compressed", 1);
        byte[] body = "compressible ".repeat(10_000).getBytes(StandardCharsets.UTF_8);
        List<CompressionType> types = List.of(CompressionType.ZLIB, CompressionType.LZ4, CompressionType.ZSTD);
        for (CompressionType type : types) {
            DefaultMQProducer producer = scope.producer(scope.name("producers"));
            producer.setCompressType(type);
            producer.send(new Message(topic, body));
        }
        List<MessageExt> stored = scope.readTopic(topic);
        Expect.equal(types.size(), stored.size(), "messages stored");
        for (int i = 0; i < types.size(); i++) {
            MessageExt message = stored.get(i);
            Expect.that(message.getStoreSize() < 20_000, types.get(i) + " stored compressed: " + message.getStoreSize());
            Expect.equal(types.get(i), MessageSysFlag.getCompressionType(message.getSysFlag()), "type in the flag");
            Expect.equal(text(body), text(message.getBody()), types.get(i) + " body");
        }
    }

    private static void bodySizes(Scope scope) throws Exception {
        String topic = scope.newTopic("Sizes", 1);
        // Compression would make a random body longer.
        scope.producer().setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        for (int size : new int[] {1, 4 * 1024 * 1024}) {
            byte[] body = new byte[size];
            new Random(size).nextBytes(body);
            scope.producer().send(new Message(topic, body));
        }
        for (MessageExt message : scope.readTopic(topic)) {
            byte[] expected = new byte[message.getQueueOffset() == 0 ? 1 : 4 * 1024 * 1024];
            new Random(expected.length).nextBytes(expected);
            Expect.that(Arrays.equals(expected, message.getBody()), "body of " + expected.length);
        }
    }

    private static void tooLarge(Scope scope) throws Exception {
        String topic = scope.newTopic("TooLarge", 1);
        scope.producer().setMaxMessageSize(16 * 1024 * 1024);
        byte[] body = new byte[4 * 1024 * 1024 + 1];
        new Random(1).nextBytes(body);
        int code = Expect.refusal("body over the limit", () -> scope.producer().send(new Message(topic, body)));
        Expect.equal(ResponseCode.MESSAGE_ILLEGAL, code, "code");
        Expect.equal(0L, scope.producer().maxOffset(scope.queue(topic, 0)), "messages stored");
    }

    private static void selector(Scope scope) throws Exception {
        String topic = scope.newTopic("Selector", 4);
        for (int i = 0; i < 100; i++) {
            scope.producer().send(new Message(topic, body(i)), (queues, message, key) -> queues.get((int) key % 4), i % 7);
        }
        for (int queueId = 0; queueId < 4; queueId++) {
            List<MessageExt> stored = scope.readQueue(scope.queue(topic, queueId));
            int last = -1;
            for (MessageExt message : stored) {
                int i = Integer.parseInt(text(message.getBody()));
                Expect.equal(queueId, i % 7 % 4, "queue of message " + i);
                Expect.that(i > last, "order in queue " + queueId);
                last = i;
            }
        }
    }

    private static void refusals(Scope scope) throws Exception {
        String topic = scope.newTopic("Refusals", 2);
        refused(scope, header(topic, 2), ResponseCode.INVALID_PARAMETER, "queue 2 of 2");
        refused(scope, header("bad topic!", 0), ResponseCode.INVALID_PARAMETER, "bad topic name");
        refused(scope, header("SCHEDULE_TOPIC_XXXX", 0), ResponseCode.NO_PERMISSION, "system topic");
        SendMessageRequestHeader noDefault = header(scope.name("NoDefault"), 0);
        noDefault.setDefaultTopic("NoSuchDefaultTopic");
        refused(scope, noDefault, ResponseCode.TOPIC_NOT_EXIST, "topic that nobody may create");
    }

    private static void refused(Scope scope, SendMessageRequestHeader header, int code, String what) throws Exception {
        RemotingCommand answer = send(scope, header, body(0));
        Expect.equal(code, answer.getCode(), what + " (" + answer.getRemark() + ")");
        Expect.that(answer.getRemark() != null && !answer.getRemark().isBlank(), what + ": a reason");
    }

    static RemotingCommand send(Scope scope, SendMessageRequestHeader header, byte[] body) throws Exception {
        RemotingCommand request = RemotingCommand.createRequestCommand(RequestCode.SEND_MESSAGE, header);
        request.setBody(body);
        return scope.ask(request);
    }

    static SendMessageRequestHeader header(String topic, int queueId) {
        SendMessageRequestHeader header = new SendMessageRequestHeader();
        header.setProducerGroup("raw_producers");
        header.setTopic(topic);
        header.setDefaultTopic("TBW102");
        header.setDefaultTopicQueueNums(4);
        header.setQueueId(queueId);
        header.setSysFlag(0);
        header.setBornTimestamp(System.currentTimeMillis());
        header.setFlag(0);
        header.setProperties("");
        header.setReconsumeTimes(0);
        header.setBrokerName(Target.BROKER_NAME);
        return header;
    }

    static byte[] body(int i) {
        return String.valueOf(i).getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }
}

package foliomq.interop;

import java.io.File;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import org.apache.rocketmq.common.BoundaryType;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;
import org.apache.rocketmq.remoting.protocol.body.TopicConfigSerializeWrapper;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.GetMessageResult;
import org.apache.rocketmq.store.GetMessageStatus;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.QueryMessageResult;
import org.apache.rocketmq.store.SelectMappedBufferResult;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/**
 * Java's message store itself on a directory, without a broker: nothing is delivered, nothing checked.
 *
 * <p>{@code StoreTool --conf broker.conf [--append N] [--topic T] --dump FILE}: opens the directory that the
 * configuration names with its sizes (and so recovers it), appends N messages to a topic's queues 0 and 1, writes a
 * {@link Dump}, and shuts down cleanly.
 */
public final class StoreTool {
    private StoreTool() {
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            given.put(arguments[i], arguments[i + 1]);
        }
        DefaultMessageStore store = open(Path.of(given.get("--conf")));
        try {
            append(store, given.getOrDefault("--topic", "JavaAppended"), given.getOrDefault("--append", "0"));
            Expect.until("everything dispatched", () -> store.dispatchBehindBytes() == 0);
            Files.write(Path.of(given.get("--dump")), Dump.of(new StoreSource(store)), StandardCharsets.UTF_8);
        } finally {
            store.shutdown();
        }
        System.exit(0);
    }

    private static DefaultMessageStore open(Path conf) throws Exception {
        DefaultMessageStore store = create(conf);
        Expect.that(store.load(), "Java's store loads the directory of " + conf);
        store.start();
        return store;
    }

    /** The store of a configuration, neither loaded nor started. */
    static DefaultMessageStore create(Path conf) throws Exception {
        Properties properties = new Properties();
        try (var reader = Files.newBufferedReader(conf)) {
            properties.load(reader);
        }
        MessageStoreConfig config = new MessageStoreConfig();
        MixAll.properties2Object(properties, config);
        BrokerConfig broker = new BrokerConfig();
        MixAll.properties2Object(properties, broker);
        return new DefaultMessageStore(
            config,
            new BrokerStatsManager(broker.getBrokerClusterName(), false),
            (topic, queueId, offset, tags, time, filter, found) -> { },
            broker,
            topics(config));
    }

    private static ConcurrentMap<String, TopicConfig> topics(MessageStoreConfig config) throws Exception {
        Path file = Path.of(config.getStorePathRootDir(), "config", "topics.json");
        if (!Files.exists(file)) {
            return new ConcurrentHashMap<>();
        }
        String text = MixAll.file2String(new File(file.toString()));
        return RemotingSerializable.fromJson(text, TopicConfigSerializeWrapper.class).getTopicConfigTable();
    }

    private static void append(DefaultMessageStore store, String topic, String count) {
        Random random = new Random(7);
        for (int i = 0; i < Integer.parseInt(count); i++) {
            MessageExtBrokerInner message = new MessageExtBrokerInner();
            message.setTopic(topic);
            message.setQueueId(i % 2);
            message.setTags("Tag" + i % 3);
            message.setKeys("java" + i);
            message.setBody(new byte[1 + random.nextInt(3_000)]);
            random.nextBytes(message.getBody());
            message.setBornTimestamp(System.currentTimeMillis());
            message.setBornHost(new InetSocketAddress("127.0.0.1", 1_234));
            message.setStoreHost(new InetSocketAddress("127.0.0.1", 10_911));
            MessageClientIDSetter.setUniqID(message);
            MessageAccessor.putProperty(message, "appended", "by Java, é 中");
            message.setTagsCode(MessageExtBrokerInner.tagsString2tagsCode(null, message.getTags()));
            message.setPropertiesString(MessageDecoder.messageProperties2String(message.getProperties()));
            PutMessageResult result = store.putMessage(message);
            Expect.that(result.isOk(), "put " + i + ": " + result.getPutMessageStatus());
        }
    }

    /** A dump straight from the store. */
    private record StoreSource(DefaultMessageStore store) implements Dump.Source {
        @Override
        public List<Dump.Place> queues() {
            List<Dump.Place> queues = new ArrayList<>();
            store.getConsumeQueueTable().forEach((topic, byId) -> byId.forEach((queueId, queue) -> {
                if (queue.getMaxOffsetInQueue() > 0) {
                    queues.add(new Dump.Place(topic, queueId));
                }
            }));
            return queues;
        }

        @Override
        public long minOffset(Dump.Place queue) {
            return store.getMinOffsetInQueue(queue.topic(), queue.queueId());
        }

        @Override
        public long maxOffset(Dump.Place queue) throws Exception {
            return store.getMaxOffsetInQueue(queue.topic(), queue.queueId());
        }

        @Override
        public List<ByteBuffer> records(Dump.Place queue, long offset) {
            GetMessageResult result = store.getMessage("dump", queue.topic(), queue.queueId(), offset, 32, null);
            Expect.equal(GetMessageStatus.FOUND, result.getStatus(), "status of " + queue + " at " + offset);
            try {
                return copies(result.getMessageMapedList());
            } finally {
                result.release();
            }
        }

        @Override
        public long search(Dump.Place queue, long time, BoundaryType boundary) {
            return store.getOffsetInQueueByTime(queue.topic(), queue.queueId(), time, boundary);
        }

        @Override
        public List<ByteBuffer> query(String topic, String key, int most) {
            QueryMessageResult result = store.queryMessage(topic, key, most, 0, Long.MAX_VALUE);
            try {
                return copies(result.getMessageMapedList());
            } finally {
                result.release();
            }
        }

        private static List<ByteBuffer> copies(List<SelectMappedBufferResult> slices) {
            List<ByteBuffer> copies = new ArrayList<>();
            for (SelectMappedBufferResult slice : slices) {
                ByteBuffer copy = ByteBuffer.allocate(slice.getSize());
                copy.put(slice.getByteBuffer().duplicate());
                copies.add(copy.flip());
            }
            return copies;
        }
    }
}

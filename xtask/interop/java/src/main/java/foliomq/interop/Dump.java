package foliomq.interop;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONWriter;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.rocketmq.common.BoundaryType;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * All that a store answers, as JSON lines in a fixed order, so that two dumps of one store are equal texts.
 *
 * <p>{@code queue}: the offsets of a queue. {@code message}: one message with all its fields and the hash of its
 * record. {@code search}: the offsets found by a time. {@code query}: the places of the messages of a key.
 */
final class Dump {
    /** Where a dump asks. */
    interface Source {
        /** The queues that ever held a message. */
        List<Place> queues() throws Exception;

        long minOffset(Place queue) throws Exception;

        long maxOffset(Place queue) throws Exception;

        /** The records from an offset on, as many as the source gives at once; empty at the end. */
        List<ByteBuffer> records(Place queue, long offset) throws Exception;

        long search(Place queue, long time, BoundaryType boundary) throws Exception;

        /** The records of a key, in no order. */
        List<ByteBuffer> query(String topic, String key, int most) throws Exception;
    }

    record Place(String topic, int queueId) implements Comparable<Place> {
        @Override
        public int compareTo(Place other) {
            int byTopic = topic.compareTo(other.topic);
            return byTopic != 0 ? byTopic : Integer.compare(queueId, other.queueId);
        }
    }

    /** More than any key of the suites has. */
    private static final int MOST_MATCHES = 32;
    /** Each search costs a request: this many messages of a queue are searched by their times. */
    private static final int SEARCHES = 20;
    /** Keys are asked for one by one: this many of a topic's. */
    private static final int QUERIES = 40;

    private Dump() {
    }

    static List<String> of(Source source) throws Exception {
        List<String> lines = new ArrayList<>();
        Map<String, TreeSet<String>> keys = new TreeMap<>();
        for (Place queue : new TreeSet<>(source.queues())) {
            long min = source.minOffset(queue);
            long max = source.maxOffset(queue);
            lines.add(line("queue", queue, Map.of("min", min, "max", max)));
            List<MessageExt> messages = new ArrayList<>();
            long offset = min;
            while (offset < max) {
                List<ByteBuffer> records = source.records(queue, offset);
                Expect.that(!records.isEmpty(), "nothing at " + queue + " " + offset + " of " + max);
                for (ByteBuffer record : records) {
                    MessageExt message = decode(record);
                    lines.add(message(queue, message, record));
                    messages.add(message);
                    keys.computeIfAbsent(queue.topic, topic -> new TreeSet<>()).addAll(keysOf(message));
                    offset++;
                }
            }
            searches(source, queue, messages, lines);
        }
        for (var topic : keys.entrySet()) {
            for (String key : topic.getValue().stream().limit(QUERIES).toList()) {
                lines.add(query(source, topic.getKey(), key));
            }
        }
        return lines;
    }

    private static void searches(Source source, Place queue, List<MessageExt> messages, List<String> lines)
        throws Exception {
        for (MessageExt message : messages.stream().limit(SEARCHES).toList()) {
            for (long time : new long[] {message.getStoreTimestamp() - 1, message.getStoreTimestamp()}) {
                for (BoundaryType boundary : BoundaryType.values()) {
                    long found = source.search(queue, time, boundary);
                    lines.add(line("search", queue, Map.of("time", time, "boundary", boundary, "offset", found)));
                }
            }
        }
    }

    private static String query(Source source, String topic, String key) throws Exception {
        TreeSet<Long> places = new TreeSet<>();
        for (ByteBuffer record : source.query(topic, key, MOST_MATCHES)) {
            MessageExt message = decode(record);
            // Neither side removes the matches of another key with the same hash.
            if (keysOf(message).contains(key)) {
                places.add(message.getCommitLogOffset());
            }
        }
        Map<String, Object> fields = new TreeMap<>(Map.of("kind", "query", "topic", topic, "key", key));
        fields.put("physicalOffsets", places);
        return JSON.toJSONString(fields);
    }

    private static String message(Place queue, MessageExt message, ByteBuffer record) throws Exception {
        Map<String, Object> fields = new TreeMap<>();
        fields.put("recordTopic", message.getTopic());
        fields.put("recordQueueId", message.getQueueId());
        fields.put("queueOffset", message.getQueueOffset());
        fields.put("physicalOffset", message.getCommitLogOffset());
        fields.put("size", message.getStoreSize());
        fields.put("flag", message.getFlag());
        fields.put("sysFlag", message.getSysFlag());
        fields.put("bornTimestamp", message.getBornTimestamp());
        fields.put("bornHost", host(message.getBornHost()));
        fields.put("storeTimestamp", message.getStoreTimestamp());
        fields.put("storeHost", host(message.getStoreHost()));
        fields.put("reconsumeTimes", message.getReconsumeTimes());
        fields.put("preparedTransactionOffset", message.getPreparedTransactionOffset());
        fields.put("properties", new TreeMap<>(message.getProperties()));
        fields.put("bodySha256", sha256(message.getBody() == null ? new byte[0] : message.getBody()));
        fields.put("recordSha256", sha256(bytes(record)));
        return line("message", queue, fields);
    }

    private static String line(String kind, Place queue, Map<String, ?> more) {
        Map<String, Object> fields = new TreeMap<>(more);
        fields.put("kind", kind);
        fields.put("topic", queue.topic);
        fields.put("queueId", queue.queueId);
        return JSON.toJSONString(fields, JSONWriter.Feature.MapSortField);
    }

    /** Cuts a run of records into one buffer each. */
    static List<ByteBuffer> split(ByteBuffer run) {
        List<ByteBuffer> records = new ArrayList<>();
        while (run.remaining() >= Integer.BYTES) {
            int size = run.getInt(run.position());
            records.add(run.slice(run.position(), size));
            run.position(run.position() + size);
        }
        return records;
    }

    private static MessageExt decode(ByteBuffer record) {
        MessageExt message = MessageDecoder.decode(record.duplicate(), true, false);
        Expect.that(message != null, "a record that RocketMQ's decoder refuses");
        return message;
    }

    private static TreeSet<String> keysOf(MessageExt message) {
        TreeSet<String> keys = new TreeSet<>();
        if (message.getKeys() != null) {
            keys.addAll(List.of(message.getKeys().split(MessageConst.KEY_SEPARATOR)));
        }
        String unique = message.getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX);
        if (unique != null) {
            keys.add(unique);
        }
        keys.remove("");
        return keys;
    }

    private static String host(SocketAddress address) {
        InetSocketAddress socket = (InetSocketAddress) address;
        return socket.getAddress().getHostAddress() + ":" + socket.getPort();
    }

    private static byte[] bytes(ByteBuffer record) {
        byte[] bytes = new byte[record.remaining()];
        record.duplicate().get(bytes);
        return bytes;
    }

    private static String sha256(byte[] bytes) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    }
}

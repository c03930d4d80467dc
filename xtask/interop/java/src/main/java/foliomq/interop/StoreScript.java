package foliomq.interop;

import com.alibaba.fastjson2.JSON;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.GetMessageResult;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.PutMessageStatus;
import org.apache.rocketmq.store.QueryMessageResult;
import org.apache.rocketmq.store.SelectMappedBufferResult;

/**
 * Several of Java's stores in one process that dies in the end: {@code StoreScript SCRIPT ANSWERS}.
 *
 * <p>The script has one step a line, fields separated by spaces: {@code open STORE CONF}, {@code put STORE TOPIC QUEUE
 * KEY BODY_LENGTH}, {@code intrude STORE CONF}, {@code dump STORE}, {@code find STORE TOPIC KEY}, {@code close STORE}, {@code pause MS}. The answers
 * are JSON lines. Stores that no step closed are open when the process halts, as if it was killed: what they wrote is
 * in the page cache and no shutdown step ran.
 */
public final class StoreScript {
    private final Map<String, DefaultMessageStore> open = new HashMap<>();
    private final List<Thread> closing = new ArrayList<>();
    private final PrintStream answers;

    private StoreScript(PrintStream answers) {
        this.answers = answers;
    }

    public static void main(String[] arguments) throws Exception {
        int status = 1;
        try (PrintStream answers = new PrintStream(arguments[1], StandardCharsets.UTF_8)) {
            StoreScript script = new StoreScript(answers);
            for (String line : Files.readAllLines(Path.of(arguments[0]), StandardCharsets.UTF_8)) {
                script.step(line.split(" "));
            }
            script.end();
            status = 0;
        } catch (Throwable failure) {
            failure.printStackTrace();
        }
        Runtime.getRuntime().halt(status);
    }

    private void step(String[] words) throws Exception {
        DefaultMessageStore store = open.get(words[1]);
        if (store == null && !List.of("open", "intrude", "pause").contains(words[0])) {
            return; // It did not start, and said so.
        }
        switch (words[0]) {
            case "open" -> open(words[1], Path.of(words[2]));
            case "intrude" -> intrude(Path.of(words[2]));
            case "put" -> put(words[1], store, words);
            case "dump" -> dump(words[1], store);
            case "find" -> find(words[1], store, words[2], words[3]);
            case "close" -> close(words[1], store);
            case "pause" -> Thread.sleep(Long.parseLong(words[1]));
            default -> throw new IllegalArgumentException(String.join(" ", words));
        }
    }

    private void open(String name, Path conf) throws Exception {
        DefaultMessageStore store = StoreTool.create(conf);
        boolean isLoaded = store.load();
        if (isLoaded) {
            store.start();
            open.put(name, store);
            awaitDispatch(store);
        }
        answer("open", name, Map.of("started", isLoaded));
    }

    /** Starts a second store on a directory that is in use, by mistake. */
    private static void intrude(Path conf) throws Exception {
        DefaultMessageStore store = StoreTool.create(conf);
        if (!store.load()) {
            return;
        }
        try {
            store.start();
        } catch (Exception refusal) {
            return; // It loads, and so recovers and cuts, before it looks at the lock.
        }
        throw new AssertionError("two stores run on the directory of " + conf);
    }

    private void put(String name, DefaultMessageStore store, String[] words) {
        MessageExtBrokerInner message = new MessageExtBrokerInner();
        message.setTopic(words[2]);
        message.setQueueId(Integer.parseInt(words[3]));
        MessageAccessor.putProperty(message, "KEYS", words[4]);
        message.setBody(body(words[4], Integer.parseInt(words[5])));
        message.setBornTimestamp(System.currentTimeMillis());
        message.setBornHost(new InetSocketAddress("127.0.0.1", 1_234));
        message.setStoreHost(new InetSocketAddress("127.0.0.1", 10_911));
        message.setPropertiesString(MessageDecoder.messageProperties2String(message.getProperties()));
        PutMessageResult result = store.putMessage(message);
        Map<String, Object> fields = new LinkedHashMap<>();
        // What Java's broker answers the producer by; `isOk` of the result says more.
        fields.put("acknowledged", result.getPutMessageStatus() == PutMessageStatus.PUT_OK);
        fields.put("topic", words[2]);
        fields.put("queueId", message.getQueueId());
        fields.put("key", words[4]);
        if (result.getAppendMessageResult() != null) {
            fields.put("queueOffset", result.getAppendMessageResult().getLogicsOffset());
            fields.put("offset", result.getAppendMessageResult().getWroteOffset());
        }
        fields.put("bodyCrc", UtilAll.crc32(message.getBody()));
        answer("put", name, fields);
    }

    /** The key over and over. */
    private static byte[] body(String key, int length) {
        return key.repeat(length / key.length() + 1).substring(0, length).getBytes(StandardCharsets.UTF_8);
    }

    private void dump(String name, DefaultMessageStore store) throws Exception {
        awaitDispatch(store);
        for (var byId : new TreeMap<>(store.getConsumeQueueTable()).entrySet()) {
            for (int queueId : new TreeSet<>(byId.getValue().keySet())) {
                queue(name, store, byId.getKey(), queueId);
            }
        }
    }

    /** Reads a queue as a consumer of everything does. */
    private void queue(String name, DefaultMessageStore store, String topic, int queueId) throws Exception {
        long max = store.getMaxOffsetInQueue(topic, queueId);
        for (long next = store.getMinOffsetInQueue(topic, queueId); next < max; ) {
            GetMessageResult got = store.getMessage("script", topic, queueId, next, 32, null);
            for (int i = 0; i < got.getMessageMapedList().size(); i++) {
                ByteBuffer record = got.getMessageMapedList().get(i).getByteBuffer().duplicate();
                MessageExt message = MessageDecoder.decode(record, true, false);
                Map<String, Object> fields = new LinkedHashMap<>();
                fields.put("topic", topic);
                fields.put("queueId", queueId);
                fields.put("slot", got.getMessageQueueOffset().get(i));
                if (message != null) {
                    byte[] body = message.getBody() == null ? new byte[0] : message.getBody();
                    fields.put("offset", message.getCommitLogOffset());
                    fields.put("bodyCrc", UtilAll.crc32(body));
                }
                answer("message", name, fields);
            }
            got.release();
            Expect.that(got.getNextBeginOffset() > next, "a consumer gets on at " + topic + "-" + queueId + " " + next);
            next = got.getNextBeginOffset();
        }
    }

    private void find(String name, DefaultMessageStore store, String topic, String key) {
        QueryMessageResult result = store.queryMessage(topic, key, 64, 0, Long.MAX_VALUE);
        List<Long> offsets = new ArrayList<>();
        for (SelectMappedBufferResult slice : result.getMessageMapedList()) {
            offsets.add(slice.getStartOffset());
        }
        result.release();
        answer("find", name, Map.of("topic", topic, "key", key, "offsets", offsets));
    }

    private void close(String name, DefaultMessageStore store) throws Exception {
        awaitDispatch(store);
        open.remove(name);
        Thread thread = new Thread(store::shutdown); // It sleeps for three seconds.
        thread.start();
        closing.add(thread);
    }

    private void end() throws Exception {
        for (DefaultMessageStore store : open.values()) {
            awaitDispatch(store);
        }
        for (Thread thread : closing) {
            thread.join();
        }
    }

    private static void awaitDispatch(DefaultMessageStore store) throws Exception {
        Expect.until("everything dispatched", () -> store.dispatchBehindBytes() <= 0);
    }

    private void answer(String step, String store, Map<String, ?> fields) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("step", step);
        line.put("store", store);
        line.putAll(fields);
        answers.println(JSON.toJSONString(line));
    }
}

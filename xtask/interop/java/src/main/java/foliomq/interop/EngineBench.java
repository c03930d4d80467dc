package foliomq.interop;

import com.alibaba.fastjson2.JSON;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.GetMessageResult;
import org.apache.rocketmq.store.SelectMappedBufferResult;
import org.apache.rocketmq.store.config.FlushDiskType;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/**
 * Java's store in process, for {@code cargo xtask bench engines}: {@code EngineBench DIR}.
 *
 * <p>Two stores, with asynchronous and with synchronous flush, stay open, so that the code is compiled and the files are
 * there. Each line of the standard input is one measurement, and each line of the output its figures: {@code put
 * THREADS MILLIS MESSAGES}, {@code sync THREADS MILLIS}, {@code read MILLIS}. The workload is that of the crate benches; messages are
 * made before the clock starts.
 */
public final class EngineBench {
    private static final String TOPIC = "BenchTopic";
    private static final int QUEUES = 4;
    private static final int READ_COUNT = 32;
    /** Messages made for all threads together. */
    private static final int PREPARED = 100_000;

    private final DefaultMessageStore async;
    private final DefaultMessageStore sync;
    private final List<MessageExtBrokerInner> prepared = new ArrayList<>();
    private final PrintStream answers = new PrintStream(new FileOutputStream(FileDescriptor.out), true);

    private EngineBench(Path dir) throws Exception {
        async = open(dir.resolve("async"), FlushDiskType.ASYNC_FLUSH);
        sync = open(dir.resolve("sync"), FlushDiskType.SYNC_FLUSH);
        for (int i = 0; i < PREPARED; i++) {
            prepared.add(message(i));
        }
    }

    public static void main(String[] arguments) throws Exception {
        int status = 1;
        try {
            new EngineBench(Path.of(arguments[0])).serve();
            status = 0;
        } catch (Throwable failure) {
            failure.printStackTrace();
        }
        Runtime.getRuntime().halt(status);
    }

    private void serve() throws Exception {
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            long number = Long.parseLong(words[1]);
            answers.println(JSON.toJSONString(switch (words[0]) {
                case "put" -> put(async, (int) number, Long.parseLong(words[2]), Long.parseLong(words[3]));
                case "sync" -> put(sync, (int) number, Long.parseLong(words[2]), Long.MAX_VALUE);
                case "read" -> read(number);
                default -> throw new IllegalArgumentException(line);
            }));
        }
    }

    private static DefaultMessageStore open(Path dir, FlushDiskType flush) throws Exception {
        MessageStoreConfig config = new MessageStoreConfig();
        config.setStorePathRootDir(dir.toString());
        config.setStorePathCommitLog(dir.resolve("commitlog").toString());
        config.setFlushDiskType(flush);
        config.setHaListenPort(0);
        DefaultMessageStore store = new DefaultMessageStore(
            config,
            new BrokerStatsManager("bench", false),
            (topic, queueId, offset, tags, time, filter, found) -> { },
            new BrokerConfig(),
            new ConcurrentHashMap<>());
        Expect.that(store.load(), "Java's store loads " + dir);
        store.start();
        return store;
    }

    private static MessageExtBrokerInner message(int number) {
        String digits = String.format("%016X", number);
        byte[] body = new byte[1_024];
        Arrays.fill(body, (byte) 'x');
        ByteBuffer.wrap(body).putLong(number);
        MessageExtBrokerInner message = new MessageExtBrokerInner();
        message.setTopic(TOPIC);
        message.setQueueId(number % QUEUES);
        message.setTags("TagA");
        message.setKeys("order-" + digits);
        MessageAccessor.putProperty(message, MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX, "7F00000100005678" + digits);
        message.setWaitStoreMsgOK(true);
        message.setBody(body);
        message.setBornTimestamp(1_700_000_000_000L);
        message.setBornHost(new InetSocketAddress("127.0.0.1", 1_234));
        message.setStoreHost(new InetSocketAddress("127.0.0.1", 10_911));
        message.setTagsCode(MessageExtBrokerInner.tagsString2tagsCode(null, message.getTags()));
        message.setPropertiesString(MessageDecoder.messageProperties2String(message.getProperties()));
        return message;
    }

    private Map<String, Object> put(DefaultMessageStore store, int threads, long millis, long most) throws Exception {
        AtomicLong left = new AtomicLong(most);
        long[][] times = new long[threads][];
        CountDownLatch ended = new CountDownLatch(threads);
        long begun = System.nanoTime();
        long end = begun + millis * 1_000_000;
        for (int i = 0; i < threads; i++) {
            int thread = i;
            Thread putting = new Thread(() -> {
                times[thread] = putAlone(store, prepared.subList(PREPARED / threads * thread, PREPARED / threads * (thread + 1)), end, left);
                ended.countDown();
            });
            putting.start();
        }
        ended.await();
        while (store.dispatchBehindBytes() > 0) {
            Thread.sleep(1);
        }
        double seconds = (System.nanoTime() - begun) / 1e9;
        long[] all = Arrays.stream(times).flatMapToLong(Arrays::stream).sorted().toArray();
        MessageExtBrokerInner one = prepared.get(0);
        return figures(all, all.length, (long) all.length * (one.getBody().length + one.getPropertiesString().length()), seconds);
    }

    /** Puts the messages again and again; the nanoseconds of each put. */
    private static long[] putAlone(DefaultMessageStore store, List<MessageExtBrokerInner> messages, long end, AtomicLong left) {
        long[] times = new long[1 << 16];
        int count = 0;
        long last = System.nanoTime();
        while (last < end && left.getAndDecrement() > 0) {
            if (!store.putMessage(messages.get(count % messages.size())).isOk()) {
                throw new AssertionError("Java's store refused a message");
            }
            long now = System.nanoTime();
            if (count == times.length) {
                times = Arrays.copyOf(times, 2 * count);
            }
            times[count++] = now - last;
            last = now;
        }
        return Arrays.copyOf(times, count);
    }

    /** Reads what was put, queue by queue in turn, 32 messages at a time. */
    private Map<String, Object> read(long millis) {
        long[] offsets = new long[QUEUES];
        long[] times = new long[1 << 16];
        long count = 0;
        long bytes = 0;
        long sum = 0;
        int reads = 0;
        long begun = System.nanoTime();
        long last = begun;
        while (last < begun + millis * 1_000_000) {
            int queue = reads % QUEUES;
            GetMessageResult got = async.getMessage("bench", TOPIC, queue, offsets[queue], READ_COUNT, null);
            for (SelectMappedBufferResult slice : got.getMessageMapedList()) {
                sum += sum(slice.getByteBuffer());
                bytes += slice.getSize();
                count++;
            }
            boolean isFound = !got.getMessageMapedList().isEmpty();
            got.release();
            offsets[queue] = isFound ? got.getNextBeginOffset() : 0;
            long now = System.nanoTime();
            if (reads == times.length) {
                times = Arrays.copyOf(times, 2 * reads);
            }
            times[reads++] = now - last;
            last = now;
        }
        Map<String, Object> figures = figures(Arrays.stream(times, 0, reads).sorted().toArray(), count, bytes, (last - begun) / 1e9);
        figures.put("sum", sum);
        return figures;
    }

    /** The sum of the bytes, taken as words of eight. */
    private static long sum(ByteBuffer bytes) {
        long sum = 0;
        while (bytes.remaining() >= Long.BYTES) {
            sum += bytes.getLong();
        }
        while (bytes.hasRemaining()) {
            sum += bytes.get();
        }
        return sum;
    }

    private static Map<String, Object> figures(long[] sorted, long count, long bytes, double seconds) {
        Map<String, Object> figures = new LinkedHashMap<>();
        figures.put("count", count);
        figures.put("bytes", bytes);
        figures.put("seconds", seconds);
        figures.put("p50_ns", at(sorted, 0.5));
        figures.put("p99_ns", at(sorted, 0.99));
        figures.put("p999_ns", at(sorted, 0.999));
        return figures;
    }

    private static long at(long[] sorted, double quantile) {
        return sorted.length == 0 ? 0 : sorted[(int) (quantile * (sorted.length - 1))];
    }
}

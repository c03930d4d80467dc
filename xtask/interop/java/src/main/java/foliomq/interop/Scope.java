package foliomq.interop;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyRemotingClient;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.route.TopicRouteData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** What one check opens: clients with short intervals and names of their own, all shut down at its end. */
final class Scope implements AutoCloseable {
    private static final AtomicInteger SEQUENCE = new AtomicInteger();
    private static final int CALL_TIMEOUT_MS = 5_000;

    final Target target;
    private final Deque<Runnable> closers = new ArrayDeque<>();
    private DefaultMQAdminExt admin;
    private DefaultMQProducer producer;
    private DefaultMQPullConsumer reader;
    private NettyRemotingClient remoting;

    Scope(Target target) {
        this.target = target;
    }

    @Override
    public void close() {
        while (!closers.isEmpty()) {
            closers.pop().run();
        }
    }

    /** A name that no other check uses. */
    String name(String hint) {
        return hint + "_" + SEQUENCE.incrementAndGet();
    }

    /** Creates a topic by RC 17, and waits until the name server knows it. */
    String newTopic(String hint, int queueCount) throws Exception {
        String topic = name(hint);
        createTopic(topic, queueCount);
        return topic;
    }

    void createTopic(String topic, int queueCount) throws Exception {
        admin().createAndUpdateTopicConfig(target.broker(), new TopicConfig(topic, queueCount, queueCount, 6));
        awaitRoute(topic);
    }

    TopicRouteData awaitRoute(String topic) throws Exception {
        Expect.until("route of " + topic, () -> !route(topic).getQueueDatas().isEmpty());
        return route(topic);
    }

    TopicRouteData route(String topic) throws Exception {
        return admin().examineTopicRouteInfo(topic);
    }

    MessageQueue queue(String topic, int queueId) {
        return new MessageQueue(topic, Target.BROKER_NAME, queueId);
    }

    /** The check's own producer, started. */
    DefaultMQProducer producer() throws Exception {
        if (producer == null) {
            producer = producer(name("producers"));
        }
        return producer;
    }

    DefaultMQProducer producer(String group) throws Exception {
        DefaultMQProducer made = configure(new DefaultMQProducer(group));
        made.setSendMsgTimeout(CALL_TIMEOUT_MS);
        made.start();
        closers.push(made::shutdown);
        return made;
    }

    /** A push consumer that begins at the first message; not started. */
    DefaultMQPushConsumer pushConsumer(String group) {
        DefaultMQPushConsumer made = configure(new DefaultMQPushConsumer(group));
        made.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        made.setConsumeThreadMin(4);
        made.setConsumeThreadMax(4);
        closers.push(made::shutdown);
        return made;
    }

    /** Not started. */
    DefaultLitePullConsumer litePullConsumer(String group) {
        DefaultLitePullConsumer made = configure(new DefaultLitePullConsumer(group));
        made.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        closers.push(made::shutdown);
        return made;
    }

    /** Not started. */
    DefaultMQPullConsumer pullConsumer(String group) {
        DefaultMQPullConsumer made = configure(new DefaultMQPullConsumer(group));
        closers.push(made::shutdown);
        return made;
    }

    DefaultMQAdminExt admin() throws Exception {
        if (admin == null) {
            admin = configure(new DefaultMQAdminExt());
            admin.setAdminExtGroup(name("admins"));
            admin.start();
            closers.push(admin::shutdown);
        }
        return admin;
    }

    /** Sends a command as it is to the broker. */
    RemotingCommand ask(RemotingCommand request) throws Exception {
        if (remoting == null) {
            remoting = new NettyRemotingClient(new NettyClientConfig());
            remoting.start();
            closers.push(remoting::shutdown);
        }
        return remoting.invokeSync(target.broker(), request, CALL_TIMEOUT_MS);
    }

    /** Waits until everything stored so far is in its queue: a send is answered before that. */
    void awaitDispatch() throws Exception {
        Expect.until("everything stored is in its queue", () ->
            admin().fetchBrokerRuntimeStats(target.broker()).getTable().get("dispatchBehindBytes").equals("0"));
    }

    /** The messages of one queue from its first to its present end, in order. */
    List<MessageExt> readQueue(MessageQueue queue) throws Exception {
        awaitDispatch();
        if (reader == null) {
            reader = pullConsumer(name("readers"));
            reader.start();
        }
        List<MessageExt> messages = new ArrayList<>();
        long offset = reader.minOffset(queue);
        long end = reader.maxOffset(queue);
        while (offset < end) {
            PullResult result = reader.pull(queue, "*", offset, 32);
            Expect.equal(PullStatus.FOUND, result.getPullStatus(), "pull of " + queue + " at " + offset);
            messages.addAll(result.getMsgFoundList());
            offset = result.getNextBeginOffset();
        }
        return messages;
    }

    /** The messages of all queues of a topic, queue by queue. */
    List<MessageExt> readTopic(String topic) throws Exception {
        awaitDispatch();
        List<MessageExt> messages = new ArrayList<>();
        for (MessageQueue queue : admin().examineTopicStats(topic).getOffsetTable().keySet()) {
            messages.addAll(readQueue(queue));
        }
        return messages;
    }

    private <C extends ClientConfig> C configure(C client) {
        client.setNamesrvAddr(target.nameServer());
        client.setInstanceName(name("instance"));
        client.setPollNameServerInterval(1_000);
        client.setHeartbeatBrokerInterval(5_000);
        client.setPersistConsumerOffsetInterval(1_000);
        client.setMqClientApiTimeout(CALL_TIMEOUT_MS);
        return client;
    }
}

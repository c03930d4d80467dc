package foliomq.interop;

import static foliomq.interop.SendChecks.body;

import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.header.PopMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.PullMessageRequestHeader;

/** What is not supported is refused with RocketMQ's code and a reason, and never stored. */
final class RefusalChecks {
    private static final int SYSTEM_ERROR = 1;
    private static final int NOT_SUPPORTED = 3;
    private static final int NO_PERMISSION = 16;

    private RefusalChecks() {
    }

    static void register(Suite suite) {
        suite.check("refused: transactional messages", RefusalChecks::transaction);
        suite.check("refused: SQL92 subscriptions", RefusalChecks::sql);
        suite.check("refused: timer messages", RefusalChecks::timer);
        suite.check("refused: pop", RefusalChecks::pop);
        suite.check("refused: unknown codes and broken headers", RefusalChecks::unknown);
    }

    private static void transaction(Scope scope) throws Exception {
        String topic = scope.newTopic("Transaction", 1);
        TransactionMQProducer producer = new TransactionMQProducer(scope.name("transactions"));
        producer.setNamesrvAddr(scope.target.nameServer());
        producer.setInstanceName(scope.name("instance"));
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                throw new IllegalStateException("reached the local transaction of a refused message");
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                return LocalTransactionState.UNKNOW;
            }
        });
        producer.start();
        try {
            int code = Expect.refusal(
                "transaction", () -> producer.sendMessageInTransaction(new Message(topic, body(0)), null));
            Expect.equal(NO_PERMISSION, code, "code");
        } finally {
            producer.shutdown();
        }
        notStored(scope, topic);
    }

    private static void sql(Scope scope) throws Exception {
        String topic = scope.newTopic("Sql", 1);
        DefaultMQPushConsumer consumer = scope.pushConsumer(scope.name("sql"));
        consumer.subscribe(topic, MessageSelector.bySql("a > 1"));
        consumer.registerMessageListener(new Received().listener());
        int code = Expect.refusal("SQL92 subscription", () -> {
            consumer.start();
            return "started";
        });
        Expect.equal(SYSTEM_ERROR, code, "code at a consumer's start");
        scope.producer().send(new Message(topic, body(0)));
        PullMessageRequestHeader header = pullHeader(scope, topic);
        header.setSysFlag(4);
        header.setSubscription("a > 1");
        header.setExpressionType("SQL92");
        RemotingCommand answer = scope.ask(RemotingCommand.createRequestCommand(RequestCode.PULL_MESSAGE, header));
        refused(answer, Set.of(SYSTEM_ERROR), "SQL92 pull");
    }

    private static void timer(Scope scope) throws Exception {
        String topic = scope.newTopic("Timer", 1);
        Message bySeconds = new Message(topic, body(0));
        bySeconds.setDelayTimeSec(5);
        Message atTime = new Message(topic, body(1));
        atTime.setDeliverTimeMs(System.currentTimeMillis() + 5_000);
        for (Message message : new Message[] {bySeconds, atTime}) {
            int code = Expect.refusal("timer message", () -> scope.producer().send(message));
            Expect.equal(SYSTEM_ERROR, code, "code");
        }
        notStored(scope, topic);
    }

    private static void pop(Scope scope) throws Exception {
        String topic = PullChecks.filled(scope, "Pop", 1).getTopic();
        PopMessageRequestHeader header = new PopMessageRequestHeader();
        header.setConsumerGroup(scope.name("pop"));
        header.setTopic(topic);
        header.setQueueId(0);
        header.setMaxMsgNums(1);
        header.setInvisibleTime(10_000);
        header.setPollTime(0);
        header.setBornTime(System.currentTimeMillis());
        header.setInitMode(0);
        RemotingCommand answer = scope.ask(RemotingCommand.createRequestCommand(RequestCode.POP_MESSAGE, header));
        refused(answer, Set.of(SYSTEM_ERROR, NOT_SUPPORTED), "pop");
    }

    private static void unknown(Scope scope) throws Exception {
        RemotingCommand answer = scope.ask(RemotingCommand.createRequestCommand(9_999, null));
        refused(answer, Set.of(NOT_SUPPORTED), "unknown code");
        RemotingCommand noFields = scope.ask(RemotingCommand.createRequestCommand(RequestCode.PULL_MESSAGE, null));
        refused(noFields, Set.of(SYSTEM_ERROR), "pull without fields");
        PullMessageRequestHeader header = pullHeader(scope, "T");
        RemotingCommand request = RemotingCommand.createRequestCommand(RequestCode.PULL_MESSAGE, header);
        request.makeCustomHeaderToNet();
        request.getExtFields().put("queueId", "seven");
        request = withoutHeader(request);
        refused(scope.ask(request), Set.of(SYSTEM_ERROR), "pull with a queue id that is no number");
    }

    /** The same command with its fields only, so that they go out as they are. */
    private static RemotingCommand withoutHeader(RemotingCommand request) {
        RemotingCommand plain = RemotingCommand.createRequestCommand(request.getCode(), null);
        plain.setExtFields(request.getExtFields());
        return plain;
    }

    private static PullMessageRequestHeader pullHeader(Scope scope, String topic) {
        PullMessageRequestHeader header = new PullMessageRequestHeader();
        header.setConsumerGroup(scope.name("raw"));
        header.setTopic(topic);
        header.setQueueId(0);
        header.setQueueOffset(0L);
        header.setMaxMsgNums(1);
        header.setSysFlag(0);
        header.setCommitOffset(0L);
        header.setSuspendTimeoutMillis(0L);
        header.setSubVersion(0L);
        header.setBrokerName(Target.BROKER_NAME);
        return header;
    }

    private static void refused(RemotingCommand answer, Set<Integer> codes, String what) {
        Expect.that(codes.contains(answer.getCode()), what + ": code " + answer.getCode() + " is none of " + codes);
        Expect.that(answer.getRemark() != null && !answer.getRemark().isBlank(), what + ": a reason");
    }

    private static void notStored(Scope scope, String topic) throws Exception {
        Expect.equal(0L, scope.producer().maxOffset(scope.queue(topic, 0)), "messages stored in " + topic);
    }
}

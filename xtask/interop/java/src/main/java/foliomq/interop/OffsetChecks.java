package foliomq.interop;

import static foliomq.interop.SendChecks.body;

import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.store.ReadOffsetType;
import org.apache.rocketmq.common.BoundaryType;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.header.QueryConsumerOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SearchOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SearchOffsetResponseHeader;

/** Offsets of queues, of points in time, of consumer groups. */
final class OffsetChecks {
    private OffsetChecks() {
    }

    static void register(Suite suite) {
        suite.check("offsets: min, max, earliest store time", OffsetChecks::ends);
        suite.check("offsets: search by time, both boundaries", OffsetChecks::search);
        suite.check("offsets: of unknown queues", OffsetChecks::unknown);
        suite.check("offsets: a group's commits are kept, unknown ones answered 22", OffsetChecks::commits);
    }

    private static void ends(Scope scope) throws Exception {
        MessageQueue queue = PullChecks.filled(scope, "Ends", 5);
        Expect.equal(0L, scope.producer().minOffset(queue), "min");
        Expect.equal(5L, scope.producer().maxOffset(queue), "max");
        long first = scope.readQueue(queue).get(0).getStoreTimestamp();
        Expect.equal(first, scope.producer().earliestMsgStoreTime(queue), "earliest store time");
    }

    private static void search(Scope scope) throws Exception {
        MessageQueue queue = scope.queue(scope.newTopic("Search", 1), 0);
        for (int i = 0; i < 6; i++) {
            scope.producer().send(new Message(queue.getTopic(), body(i)), queue);
            long after = System.currentTimeMillis();
            Expect.until("some milliseconds between the messages", () -> System.currentTimeMillis() > after + 20);
        }
        List<MessageExt> stored = scope.readQueue(queue);
        for (MessageExt message : stored) {
            long time = message.getStoreTimestamp();
            long offset = message.getQueueOffset();
            Expect.equal(offset, find(scope, queue, time, BoundaryType.LOWER), "lower at its own time");
            Expect.equal(offset, find(scope, queue, time, BoundaryType.UPPER), "upper at its own time");
            Expect.equal(offset, find(scope, queue, time - 5, BoundaryType.LOWER), "lower, a little before");
            Expect.equal(offset, find(scope, queue, time + 5, BoundaryType.UPPER), "upper, a little after");
        }
        long first = stored.get(0).getStoreTimestamp();
        long last = stored.get(5).getStoreTimestamp();
        Expect.equal(0L, find(scope, queue, first - 1_000, BoundaryType.LOWER), "lower, before all");
        Expect.equal(0L, find(scope, queue, first - 1_000, BoundaryType.UPPER), "upper, before all");
        Expect.equal(6L, find(scope, queue, last + 1_000, BoundaryType.LOWER), "lower, after all");
        Expect.equal(5L, find(scope, queue, last + 1_000, BoundaryType.UPPER), "upper, after all");
        Expect.equal(3L, scope.producer().searchOffset(queue, stored.get(3).getStoreTimestamp()), "producer's search");
    }

    private static void unknown(Scope scope) throws Exception {
        MessageQueue empty = scope.queue(scope.newTopic("NeverUsed", 1), 0);
        Expect.equal(0L, scope.producer().minOffset(empty), "min of an empty queue");
        Expect.equal(0L, scope.producer().maxOffset(empty), "max of an empty queue");
        Expect.equal(0L, scope.producer().searchOffset(empty, 1), "search in an empty queue");
        Expect.equal(-1L, scope.producer().earliestMsgStoreTime(empty), "earliest of an empty queue");
    }

    private static void commits(Scope scope) throws Exception {
        MessageQueue queue = PullChecks.filled(scope, "Commits", 10);
        String group = scope.name("committers");
        DefaultMQPullConsumer consumer = scope.pullConsumer(group);
        consumer.start();
        var store = consumer.getDefaultMQPullConsumerImpl().getOffsetStore();
        // Held until the group has heartbeated: only then does the broker know it.
        Expect.until("commit of offset 7", () -> {
            consumer.pull(queue, "*", 0, 1);
            store.updateConsumeOffsetToBroker(queue, 7, false);
            return store.readOffset(queue, ReadOffsetType.READ_FROM_STORE) == 7;
        });
        store.updateConsumeOffsetToBroker(queue, 3, false);
        Expect.equal(3L, store.readOffset(queue, ReadOffsetType.READ_FROM_STORE), "offset after going back");
        MessageQueue empty = scope.queue(scope.newTopic("NeverCommitted", 1), 0);
        QueryConsumerOffsetRequestHeader header = new QueryConsumerOffsetRequestHeader();
        header.setConsumerGroup(group);
        header.setTopic(empty.getTopic());
        header.setQueueId(0);
        header.setBrokerName(Target.BROKER_NAME);
        RemotingCommand answer =
            scope.ask(RemotingCommand.createRequestCommand(RequestCode.QUERY_CONSUMER_OFFSET, header));
        Expect.equal(22, answer.getCode(), "code for a queue without a commit");
    }

    private static long find(Scope scope, MessageQueue queue, long time, BoundaryType boundary) throws Exception {
        SearchOffsetRequestHeader header = new SearchOffsetRequestHeader();
        header.setTopic(queue.getTopic());
        header.setQueueId(queue.getQueueId());
        header.setTimestamp(time);
        header.setBoundaryType(boundary);
        header.setBrokerName(Target.BROKER_NAME);
        RemotingCommand answer =
            scope.ask(RemotingCommand.createRequestCommand(RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, header));
        Expect.equal(0, answer.getCode(), "code of search");
        return ((SearchOffsetResponseHeader) answer.decodeCommandCustomHeader(SearchOffsetResponseHeader.class))
            .getOffset();
    }
}

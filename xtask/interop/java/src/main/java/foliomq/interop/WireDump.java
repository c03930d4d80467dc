package foliomq.interop;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.common.BoundaryType;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.header.GetMaxOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.GetMinOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.PullMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.QueryMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SearchOffsetRequestHeader;

/** A {@link Dump} of all that a running broker serves, by raw requests: the record bytes as they are. */
record WireDump(Scope scope) implements Dump.Source {
    static void write(Scope scope, Path file) throws Exception {
        Files.write(file, Dump.of(new WireDump(scope)), StandardCharsets.UTF_8);
    }

    @Override
    public List<Dump.Place> queues() throws Exception {
        List<Dump.Place> queues = new ArrayList<>();
        var topics = scope.admin().getAllTopicConfig(scope.target.broker(), 5_000).getTopicConfigTable().values();
        for (TopicConfig topic : topics) {
            for (int queueId = 0; queueId < Math.max(topic.getReadQueueNums(), topic.getWriteQueueNums()); queueId++) {
                Dump.Place queue = new Dump.Place(topic.getTopicName(), queueId);
                if (maxOffset(queue) > 0) {
                    queues.add(queue);
                }
            }
        }
        return queues;
    }

    @Override
    public long minOffset(Dump.Place queue) throws Exception {
        GetMinOffsetRequestHeader header = new GetMinOffsetRequestHeader();
        header.setTopic(queue.topic());
        header.setQueueId(queue.queueId());
        return offset(RequestCode.GET_MIN_OFFSET, header);
    }

    @Override
    public long maxOffset(Dump.Place queue) throws Exception {
        GetMaxOffsetRequestHeader header = new GetMaxOffsetRequestHeader();
        header.setTopic(queue.topic());
        header.setQueueId(queue.queueId());
        return offset(RequestCode.GET_MAX_OFFSET, header);
    }

    @Override
    public List<ByteBuffer> records(Dump.Place queue, long offset) throws Exception {
        PullMessageRequestHeader header = new PullMessageRequestHeader();
        header.setConsumerGroup("dump");
        header.setTopic(queue.topic());
        header.setQueueId(queue.queueId());
        header.setQueueOffset(offset);
        header.setMaxMsgNums(32);
        header.setSysFlag(4);
        header.setCommitOffset(0L);
        header.setSuspendTimeoutMillis(0L);
        header.setSubscription("*");
        header.setExpressionType("TAG");
        header.setSubVersion(0L);
        header.setBrokerName(Target.BROKER_NAME);
        RemotingCommand answer = ask(RequestCode.PULL_MESSAGE, header);
        return Dump.split(ByteBuffer.wrap(answer.getBody()));
    }

    @Override
    public long search(Dump.Place queue, long time, BoundaryType boundary) throws Exception {
        SearchOffsetRequestHeader header = new SearchOffsetRequestHeader();
        header.setTopic(queue.topic());
        header.setQueueId(queue.queueId());
        header.setTimestamp(time);
        header.setBoundaryType(boundary);
        return offset(RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, header);
    }

    @Override
    public List<ByteBuffer> query(String topic, String key, int most) throws Exception {
        QueryMessageRequestHeader header = new QueryMessageRequestHeader();
        header.setTopic(topic);
        header.setKey(key);
        header.setMaxNum(most);
        header.setBeginTimestamp(0L);
        header.setEndTimestamp(Long.MAX_VALUE);
        RemotingCommand answer = scope.ask(RemotingCommand.createRequestCommand(RequestCode.QUERY_MESSAGE, header));
        return answer.getCode() == ResponseCode.QUERY_NOT_FOUND
            ? List.of()
            : Dump.split(ByteBuffer.wrap(answer.getBody()));
    }

    private long offset(int code, CommandCustomHeader header) throws Exception {
        return Long.parseLong(ask(code, header).getExtFields().get("offset"));
    }

    private RemotingCommand ask(int code, CommandCustomHeader header) throws Exception {
        RemotingCommand answer = scope.ask(RemotingCommand.createRequestCommand(code, header));
        Expect.equal(ResponseCode.SUCCESS, answer.getCode(), "code of " + code + " (" + answer.getRemark() + ")");
        return answer;
    }
}

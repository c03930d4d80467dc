package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

func checks() []check {
	return []check{
		{"go: sync sends create the topic", syncSend},
		{"go: async, one-way and batch sends", otherSends},
		{"go: a transactional send is refused", transaction},
		{"go: push consumer gets every message with its properties", pushAll},
		{"go: push consumer with several tags", pushTags},
		{"go: orderly push consumer", orderly},
		{"go: pull by offset", pull},
		{"go: pull consumer polls and acknowledges", poll},
		{"go: failed consumption is retried", retry},
		{"go: delay level", delay},
		{"go: admin creates, lists and deletes a topic", adminTopics},
	}
}

// batches adapts a handler to the client's form.
func batches(handle handler) func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	return func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, message := range messages {
			if result := handle(message); result != consumer.ConsumeSuccess {
				if concurrent, ok := primitive.GetConcurrentlyCtx(ctx); ok {
					concurrent.DelayLevelWhenNextConsume = 1
				}
				return result, nil
			}
		}
		return consumer.ConsumeSuccess, nil
	}
}

func send(s *scope, messages ...*primitive.Message) error {
	client, err := s.producer()
	if err != nil {
		return err
	}
	for _, message := range messages {
		if _, err := sendSync(client, message); err != nil {
			return err
		}
	}
	return nil
}

func sendSync(client rocketmq.Producer, messages ...*primitive.Message) (*primitive.SendResult, error) {
	ctx, cancel := timeout()
	defer cancel()
	result, err := client.SendSync(ctx, messages...)
	if err == nil {
		err = equal("send status", primitive.SendOK, result.Status)
	}
	return result, err
}

func numbered(topic string, from, end int) []*primitive.Message {
	var messages []*primitive.Message
	for i := from; i < end; i++ {
		messages = append(messages, primitive.NewMessage(topic, body(i)))
	}
	return messages
}

func syncSend(s *scope) error {
	topic := s.name("AutoCreated")
	client, err := s.producer()
	if err != nil {
		return err
	}
	result, err := sendSync(client, primitive.NewMessage(topic, body(1)))
	if err != nil {
		return err
	}
	if err := equal("queue offset", 0, result.QueueOffset); err != nil {
		return err
	}
	if err := equal("length of the offset id", 32, len(result.OffsetMsgID)); err != nil {
		return err
	}
	return s.awaitTopic(topic)
}

func otherSends(s *scope) error {
	topic, err := s.createTopic("Sends", 1)
	if err != nil {
		return err
	}
	client, err := s.producer()
	if err != nil {
		return err
	}
	var answered atomic.Int64
	for _, message := range numbered(topic, 0, 20) {
		ctx, cancel := timeout()
		defer cancel()
		err := client.SendAsync(ctx, func(_ context.Context, _ *primitive.SendResult, err error) {
			if err == nil {
				answered.Add(1)
			}
		}, message)
		if err != nil {
			return err
		}
	}
	if err := until("20 answers", soon, func() (bool, error) { return answered.Load() == 20, nil }); err != nil {
		return err
	}
	for _, message := range numbered(topic, 20, 30) {
		ctx, cancel := timeout()
		defer cancel()
		if err := client.SendOneWay(ctx, message); err != nil {
			return err
		}
	}
	if _, err := sendSync(client, numbered(topic, 30, 50)...); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	var got received
	if err := s.consume(topic, "*", got.handle); err != nil {
		return err
	}
	return got.await(50, soon)
}

type refusedTransaction struct{}

func (refusedTransaction) ExecuteLocalTransaction(*primitive.Message) primitive.LocalTransactionState {
	return primitive.CommitMessageState
}

func (refusedTransaction) CheckLocalTransaction(*primitive.MessageExt) primitive.LocalTransactionState {
	return primitive.UnknowState
}

func transaction(s *scope) error {
	topic, err := s.createTopic("Transaction", 1)
	if err != nil {
		return err
	}
	client, err := rocketmq.NewTransactionProducer(refusedTransaction{},
		producer.WithNsResolver(s.resolver()),
		producer.WithGroupName(s.name("transactions")),
		producer.WithInstanceName(s.name("instance")),
		producer.WithRetry(0),
	)
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	s.onClose(func() { _ = client.Shutdown() })
	ctx, cancel := timeout()
	defer cancel()
	result, err := client.SendMessageInTransaction(ctx, primitive.NewMessage(topic, body(0)))
	if err == nil {
		return fmt.Errorf("not refused: %v", result)
	}
	if !strings.Contains(err.Error(), "16") {
		return fmt.Errorf("refused without code 16: %w", err)
	}
	return nil
}

func pushAll(s *scope) error {
	topic, err := s.createTopic("Push", 4)
	if err != nil {
		return err
	}
	long := bytes.Repeat([]byte("compressible "), 1_000)
	message := primitive.NewMessage(topic, long).WithTag("TagG").WithKeys([]string{"key1", "key2"})
	message.WithProperty("uni", "héllo 中文 🚀")
	if err := send(s, append(numbered(topic, 0, 40), message)...); err != nil {
		return err
	}
	var got received
	if err := s.consume(topic, "*", got.handle); err != nil {
		return err
	}
	if err := got.await(41, soon); err != nil {
		return err
	}
	for _, message := range got.all() {
		if message.GetTags() == "TagG" {
			if !bytes.Equal(long, message.Body) {
				return fmt.Errorf("compressed body of %d bytes", len(message.Body))
			}
			if err := equal("keys", "key1 key2", message.GetKeys()); err != nil {
				return err
			}
			return equal("unicode property", "héllo 中文 🚀", message.GetProperty("uni"))
		}
	}
	return fmt.Errorf("no message with TagG")
}

func pushTags(s *scope) error {
	topic, err := s.createTopic("Tags", 2)
	if err != nil {
		return err
	}
	messages := numbered(topic, 0, 30)
	for i, message := range messages {
		message.WithTag([]string{"A", "B", "C"}[i%3])
	}
	if err := send(s, messages...); err != nil {
		return err
	}
	var got received
	if err := s.consume(topic, "A || C", got.handle); err != nil {
		return err
	}
	if err := got.await(20, soon); err != nil {
		return err
	}
	for _, message := range got.all() {
		if message.GetTags() == "B" {
			return fmt.Errorf("a message of tag B")
		}
	}
	return nil
}

func orderly(s *scope) error {
	topic, err := s.createTopic("Orderly", 1)
	if err != nil {
		return err
	}
	if err := send(s, numbered(topic, 0, 50)...); err != nil {
		return err
	}
	var got received
	if err := s.consume(topic, "*", got.handle, consumer.WithConsumerOrder(true)); err != nil {
		return err
	}
	if err := got.await(50, soon); err != nil {
		return err
	}
	for i, message := range got.all() {
		if err := equal("body of delivery", string(body(i)), string(message.Body)); err != nil {
			return err
		}
	}
	return nil
}

func (s *scope) pullConsumer(topic string) (rocketmq.PullConsumer, error) {
	client, err := rocketmq.NewPullConsumer(s.consumerOptions(s.name("pull"))...)
	if err != nil {
		return nil, err
	}
	if err := client.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}); err != nil {
		return nil, err
	}
	if err := client.Start(); err != nil {
		return nil, err
	}
	s.onClose(func() { _ = client.Shutdown() })
	return client, nil
}

func pull(s *scope) error {
	topic, err := s.createTopic("Pull", 1)
	if err != nil {
		return err
	}
	if err := send(s, numbered(topic, 0, 10)...); err != nil {
		return err
	}
	client, err := s.pullConsumer(topic)
	if err != nil {
		return err
	}
	queue := &primitive.MessageQueue{Topic: topic, BrokerName: "broker-a", QueueId: 0}
	var result *primitive.PullResult
	err = until("the broker knows the subscription", soon, func() (bool, error) {
		ctx, cancel := timeout()
		defer cancel()
		result, err = client.PullFrom(ctx, queue, 4, 3)
		return err == nil && result.Status == primitive.PullFound, err
	})
	if err != nil {
		return err
	}
	if err := equal("next offset", 7, result.NextBeginOffset); err != nil {
		return err
	}
	messages := result.GetMessageExts()
	if err := equal("messages", 3, len(messages)); err != nil {
		return err
	}
	return equal("first body", "4", string(messages[0].Body))
}

func poll(s *scope) error {
	topic, err := s.createTopic("Poll", 2)
	if err != nil {
		return err
	}
	if err := send(s, numbered(topic, 0, 20)...); err != nil {
		return err
	}
	client, err := s.pullConsumer(topic)
	if err != nil {
		return err
	}
	var got received
	err = until("20 messages", soon, func() (bool, error) {
		request, err := client.Poll(context.Background(), time.Second)
		if err != nil {
			return false, err
		}
		for _, message := range request.GetMsgList() {
			got.handle(message)
		}
		client.ACK(context.Background(), request, consumer.ConsumeSuccess)
		return len(got.all()) >= 20, nil
	})
	if err != nil {
		return err
	}
	return got.await(20, soon)
}

func retry(s *scope) error {
	topic, err := s.createTopic("Retry", 1)
	if err != nil {
		return err
	}
	var tries atomic.Int64
	var second atomic.Pointer[primitive.MessageExt]
	err = s.consume(topic, "*", func(message *primitive.MessageExt) consumer.ConsumeResult {
		if tries.Add(1) == 1 {
			return consumer.ConsumeRetryLater
		}
		second.Store(message)
		return consumer.ConsumeSuccess
	})
	if err != nil {
		return err
	}
	if err := send(s, primitive.NewMessage(topic, body(7))); err != nil {
		return err
	}
	err = until("a second delivery", afterRebalance, func() (bool, error) { return second.Load() != nil, nil })
	if err != nil {
		return err
	}
	if err := equal("reconsume times", 1, second.Load().ReconsumeTimes); err != nil {
		return err
	}
	return equal("body", "7", string(second.Load().Body))
}

func delay(s *scope) error {
	topic, err := s.createTopic("Delay", 1)
	if err != nil {
		return err
	}
	var got received
	if err := s.consume(topic, "*", got.handle); err != nil {
		return err
	}
	started := time.Now()
	if err := send(s, primitive.NewMessage(topic, body(1)).WithDelayTimeLevel(1)); err != nil {
		return err
	}
	if err := got.await(1, soon); err != nil {
		return err
	}
	if took := time.Since(started); took < 900*time.Millisecond {
		return fmt.Errorf("delivered after %v", took)
	}
	return nil
}

func adminTopics(s *scope) error {
	topic, err := s.createTopic("Admin", 3)
	if err != nil {
		return err
	}
	tool, err := s.admin()
	if err != nil {
		return err
	}
	ctx, cancel := timeout()
	defer cancel()
	queues, err := tool.FetchPublishMessageQueues(ctx, topic)
	if err != nil {
		return err
	}
	if err := equal("queues", 3, len(queues)); err != nil {
		return err
	}
	if err := tool.DeleteTopic(ctx, admin.WithTopicDelete(topic), admin.WithBrokerAddrDelete(s.target.broker)); err != nil {
		return err
	}
	return until("the topic is gone", soon, func() (bool, error) {
		topics, err := topicsOf(tool)
		return !topics[topic], err
	})
}

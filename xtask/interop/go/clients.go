package main

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

func (s *scope) resolver() primitive.NsResolver {
	return primitive.NewPassthroughResolver([]string{s.target.nameServer})
}

// producer is started, and a client of its own.
func (s *scope) producer(options ...producer.Option) (rocketmq.Producer, error) {
	made, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNsResolver(s.resolver()),
		producer.WithGroupName(s.name("producers")),
		producer.WithInstanceName(s.name("instance")),
		producer.WithSendMsgTimeout(5 * time.Second),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	if err := made.Start(); err != nil {
		return nil, err
	}
	s.onClose(func() { _ = made.Shutdown() })
	return made, nil
}

func (s *scope) consumerOptions(group string, more ...consumer.Option) []consumer.Option {
	return append([]consumer.Option{
		consumer.WithNsResolver(s.resolver()),
		consumer.WithGroupName(group),
		consumer.WithInstance(s.name("instance")),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, more...)
}

type handler func(*primitive.MessageExt) consumer.ConsumeResult

// consume starts a push consumer that hands each message to the handler.
func (s *scope) consume(topic, tags string, handle handler, more ...consumer.Option) error {
	made, err := rocketmq.NewPushConsumer(s.consumerOptions(s.name("push"), more...)...)
	if err != nil {
		return err
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: tags}
	err = made.Subscribe(topic, selector, batches(handle))
	if err != nil {
		return err
	}
	if err := made.Start(); err != nil {
		return err
	}
	s.onClose(func() { _ = made.Shutdown() })
	return nil
}

// createTopic creates a topic by the Go admin client, and waits until the name server knows it.
func (s *scope) createTopic(hint string, queueCount int) (string, error) {
	topic := s.name(hint)
	tool, err := s.admin()
	if err != nil {
		return "", err
	}
	ctx, cancel := timeout()
	defer cancel()
	err = tool.CreateTopic(ctx,
		admin.WithTopicCreate(topic),
		admin.WithBrokerAddrCreate(s.target.broker),
		admin.WithReadQueueNums(queueCount),
		admin.WithWriteQueueNums(queueCount),
	)
	if err != nil {
		return "", err
	}
	return topic, s.awaitTopic(topic)
}

func (s *scope) awaitTopic(topic string) error {
	tool, err := s.admin()
	if err != nil {
		return err
	}
	return until("route of "+topic, soon, func() (bool, error) {
		topics, err := topicsOf(tool)
		return topics[topic], err
	})
}

func (s *scope) admin() (admin.Admin, error) {
	tool, err := admin.NewAdmin(admin.WithResolver(s.resolver()))
	if err == nil {
		s.onClose(func() { _ = tool.Close() })
	}
	return tool, err
}

func topicsOf(tool admin.Admin) (map[string]bool, error) {
	ctx, cancel := timeout()
	defer cancel()
	list, err := tool.FetchAllTopicList(ctx)
	if err != nil {
		return nil, err
	}
	topics := map[string]bool{}
	for _, topic := range list.TopicList {
		topics[topic] = true
	}
	return topics, nil
}

// received are the messages that a handler got, by the numbers in their bodies.
type received struct {
	lock     sync.Mutex
	messages []*primitive.MessageExt
}

func (r *received) handle(message *primitive.MessageExt) consumer.ConsumeResult {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.messages = append(r.messages, message)
	return consumer.ConsumeSuccess
}

func (r *received) all() []*primitive.MessageExt {
	r.lock.Lock()
	defer r.lock.Unlock()
	return append([]*primitive.MessageExt(nil), r.messages...)
}

// await waits for so many messages, which must all differ.
func (r *received) await(count int, limit time.Duration) error {
	err := until(fmt.Sprintf("%d messages", count), limit, func() (bool, error) {
		return len(r.all()) >= count, nil
	})
	if err != nil {
		return fmt.Errorf("%w, but %d", err, len(r.all()))
	}
	different := map[string]bool{}
	for _, message := range r.all() {
		different[string(message.Body)] = true
	}
	return equal("different messages", count, len(different))
}

func body(i int) []byte {
	return []byte(strconv.Itoa(i))
}

// Drives ali-ons against the server under test; see xtask's driver.rs for the protocol.
'use strict';

const assert = require('node:assert');
const { Consumer, Message, Producer } = require('ali-ons');
const { AFTER_ROUTE_POLL_MS, parseArguments, report, run, until } = require('./suite');

const target = parseArguments();

// ali-ons logs to files of its own unless it is given a logger.
const logger = { debug() {}, info() {}, warn: console.error, error: console.error };
// It insists on an HTTP client, and uses it only where no name server is given.
const httpclient = { request: () => assert.fail('the name server is given') };
const common = {
  nameSrv: target.nameServer,
  httpclient,
  logger,
  pollNameServerInteval: 2_000,
  rebalanceInterval: 2_000,
};

let sequence = 0;
const unique = hint => `Node${hint}_${process.pid}_${++sequence}`;

// Clients of one instance name share a connection and its errors: each gets a name of its own.
// Producers are left open to the end: a closed one still throws the errors of its connection.
async function startProducer() {
  const producer = new Producer({
    ...common,
    instanceName: unique('instance'),
    producerGroup: unique('producers'),
  });
  producer.on('error', error => console.error('producer', error.message));
  await producer.ready();
  return producer;
}

// ali-ons never creates a topic by itself: this is what a producer does that may (RC 310, TBW102).
async function createTopic(hint) {
  const topic = unique(hint);
  const producer = await startProducer();
  const route = await producer._mqClient.getTopicRouteInfoFromNameServer('TBW102', 3_000);
  const broker = route.brokerDatas[0].brokerAddrs['0'];
  assert.strictEqual(broker, target.broker, 'address of the broker');
  const header = {
    producerGroup: producer.producerGroup,
    topic,
    defaultTopic: 'TBW102',
    defaultTopicQueueNums: 4,
    queueId: 0,
    sysFlag: 0,
    bornTimestamp: Date.now(),
    flag: 0,
    properties: '',
    reconsumeTimes: 0,
    unitMode: false,
  };
  await producer._mqClient.sendMessage(
    broker, route.brokerDatas[0].brokerName, new Message(topic, 'first', 'first'), header, 5_000);
  await until(`route of ${topic}`, async () => {
    await producer._mqClient.getTopicRouteInfoFromNameServer(topic, 3_000);
    return true;
  });
  return { topic, producer };
}

async function consume(onClose, topic, tags, handler) {
  const consumer = new Consumer({
    ...common,
    instanceName: unique('instance'),
    consumerGroup: unique('consumers'),
    consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET',
  });
  consumer.on('error', error => console.error('consumer', error.message));
  consumer.subscribe(topic, tags, handler);
  await consumer.ready();
  onClose(() => consumer.close());
}

async function sendReceive(onClose) {
  const { topic, producer } = await createTopic('Send');
  const results = [];
  for (let i = 0; i < 40; i++) {
    const message = new Message(topic, i % 2 ? 'Odd' : 'Even', `body ${i} é 中 🚀`);
    message.keys = [`key${i}`];
    results.push(await producer.send(message));
  }
  assert.ok(results.every(result => result.sendStatus === 'SEND_OK'), 'every send is acknowledged');
  assert.ok(results.every(result => /^[0-9A-F]{32}$/.test(result.msgId)), 'ids are offset ids');
  const received = new Map();
  await consume(onClose, topic, 'Odd || Even', async message => received.set(message.body.toString(), message));
  await until('40 messages', () => received.size >= 40);
  const message = received.get('body 7 é 中 🚀');
  assert.strictEqual(message.tags, 'Odd', 'tag');
  assert.strictEqual(String(message.keys), 'key7', 'keys');
  assert.strictEqual(message.topic, topic, 'topic');
}

async function tagFilter(onClose) {
  const { topic, producer } = await createTopic('Tags');
  for (let i = 0; i < 20; i++) await producer.send(new Message(topic, i % 2 ? 'Odd' : 'Even', String(i)));
  const received = [];
  await consume(onClose, topic, 'Odd', async message => received.push(Number(message.body)));
  await until('10 messages', () => received.length >= 10);
  assert.deepStrictEqual(received.sort((a, b) => a - b), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19], 'the odd ones');
}

async function largeBody(onClose) {
  const { topic, producer } = await createTopic('Large');
  const body = 'compressible '.repeat(5_000);
  await producer.send(new Message(topic, 'L', body));
  const received = [];
  await consume(onClose, topic, 'L', async message => received.push(message.body.toString()));
  await until('the message', () => received.length === 1);
  assert.ok(received[0] === body, 'the compressed body comes back');
}

async function arrives(onClose) {
  const { topic, producer } = await createTopic('Latency');
  const received = [];
  await consume(onClose, topic, 'L', async message => received.push(message));
  await producer.send(new Message(topic, 'L', '0'));
  await until('the first message', () => received.length === 1);
  for (let i = 1; i < 4; i++) {
    const sent = Date.now();
    await producer.send(new Message(topic, 'L', String(i)));
    await until(`message ${i}`, () => received.length === i + 1);
    assert.ok(Date.now() - sent < 2_000, `held pulls wake: ${Date.now() - sent} ms`);
  }
}

async function retry(onClose) {
  const { topic, producer } = await createTopic('Retry');
  const tries = [];
  await consume(onClose, topic, 'R', async message => {
    tries.push(message.reconsumeTimes);
    if (tries.length === 1) throw new Error('a first try that fails');
  });
  await producer.send(new Message(topic, 'R', 'again'));
  await until('a second try', () => tries.length >= 2, AFTER_ROUTE_POLL_MS);
  assert.deepStrictEqual(tries, [0, 1], 'reconsume times');
}

async function missingTopic() {
  const producer = await startProducer();
  await assert.rejects(producer.send(new Message(unique('Missing'), 'T', 'body')), /topic|route/i);
}

async function awaitBroker() {
  // The producer that all consumers hand failed messages back with; nobody else listens to its errors.
  const inner = await Producer.getDefaultProducer({ ...common, instanceName: unique('instance') });
  inner.on('error', error => console.error('inner producer', error.message));
  await until('the broker is registered', async () => {
    await inner._mqClient.getTopicRouteInfoFromNameServer('TBW102', 3_000);
    return true;
  });
}

const CHECKS = [
  ['node: sends, and a push consumer gets everything', sendReceive],
  ['node: push consumer with a tag', tagFilter],
  ['node: a compressed body', largeBody],
  ['node: an arriving message is delivered at once', arrives],
  ['node: failed consumption is retried', retry],
  ['node: a topic that does not exist is an error', missingTopic],
];

// ali-ons leaves rejections behind when connections close.
process.on('unhandledRejection', error => console.error('unhandled', error));

(async () => {
  await awaitBroker();
  process.exitCode = await run(CHECKS, target.only);
  process.exit();
})().catch(error => {
  report(`FAIL node: the driver: ${error.message}`);
  process.exit(1);
});

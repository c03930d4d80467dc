//! Questions to a client that come by way of the broker (307, 309): asked on the client's
//! connection, answered when it answers.
//!
//! RocketMQ 5.3.3 `AdminBrokerProcessor.callConsumer`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use remoting::header::{
    ConsumeMessageDirectlyResultRequestHeader, GetConsumerRunningInfoRequestHeader,
};
use remoting::{Command, CommandView, ResponseCode};

use super::{Outcome, Refusal};
use crate::broker::Broker;
use crate::server::{Connection, Exchange, Reply, ReplyTicket, Resume};

/// How long a client has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Request 307: how a consumer is doing.
///
/// # Errors
/// It is not connected.
pub fn running_info(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: GetConsumerRunningInfoRequestHeader<'_> = request.header()?;
    relay(
        broker,
        exchange,
        request.to_command(),
        header.consumer_group,
        header.client_id,
    )
}

/// Request 309: has a consumer consume one message, which the broker adds.
///
/// # Errors
/// The consumer is not connected, or the message is not there.
pub fn consume_directly(
    broker: &Arc<Broker>,
    exchange: &mut Exchange<'_>,
    request: &CommandView<'_>,
) -> Outcome {
    let header: ConsumeMessageDirectlyResultRequestHeader<'_> = request.header()?;
    let text = header.msg_id.unwrap_or_default();
    let id: message::MessageId = text.parse().map_err(Refusal::error)?;
    let offset = id.physical_offset.cast_unsigned();
    let record = broker
        .store
        .record_at(offset)?
        .ok_or_else(|| Refusal::error(format!("no message has the id {text} here")))?;
    let name = &broker.config.identity.broker_name;
    let command = request.to_command().with_field("brokerName", name.as_str());
    let command = command.with_body(record.to_vec());
    let client_id = header.client_id.unwrap_or_default();
    relay(broker, exchange, command, header.consumer_group, client_id)
}

fn relay(
    broker: &Broker,
    exchange: &Exchange<'_>,
    question: Command,
    group: &str,
    client_id: &str,
) -> Outcome {
    let client = broker
        .consumers
        .connection(group, client_id)
        .ok_or_else(|| {
            Refusal::error(format!("The Consumer <{group}> <{client_id}> not online"))
        })?;
    let asker = Arc::clone(exchange.connection());
    let ticket = exchange.ticket();
    tokio::spawn(pass_on(question, client, asker, ticket));
    Ok(Reply::Held)
}

async fn pass_on(
    question: Command,
    client: Arc<Connection>,
    asker: Arc<Connection>,
    ticket: ReplyTicket,
) {
    let answer = client.ask(question).wait(Instant::now() + PATIENCE).await;
    // An asker that is gone needs no answer.
    let _unanswered = asker.resume(Box::new(Relayed { ticket, answer }));
}

/// A client's answer on its way to who asked.
struct Relayed {
    ticket: ReplyTicket,
    answer: Option<Command>,
}

impl Resume for Relayed {
    fn ticket(&self) -> ReplyTicket {
        self.ticket
    }

    fn resume(self: Box<Self>, exchange: &mut Exchange<'_>) -> Reply {
        match self.answer {
            Some(answer) => {
                let remark = answer.remark.as_deref();
                exchange.write(answer.response_code(), remark, |_| (), &answer.body)
            }
            None => {
                let remark = format!("the client did not answer within {PATIENCE:?}");
                exchange.refuse(ResponseCode::CONSUME_MSG_TIMEOUT, remark)
            }
        }
    }
}

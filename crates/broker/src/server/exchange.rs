//! One request and its answer, as a handler sees them.

use std::sync::Arc;
use std::task::{Context, Poll};

use remoting::{CommandView, Header, HeaderWriter, ResponseCode, SerializeType, WriterHead};

use super::connection::Connection;
use super::output::{Content, Output};

/// What a server does with requests. Handlers are synchronous: they run on the connection's task,
/// one after the other, and must not block.
pub trait Service: Send + Sync + 'static {
    /// Answers one request, now or later.
    fn handle(&self, exchange: &mut Exchange<'_>, request: &CommandView<'_>) -> Reply;

    /// A connection is gone; nothing more comes from it.
    fn closed(&self, connection: &Arc<Connection>);
}

/// What became of a request.
#[must_use]
pub enum Reply {
    /// It is answered, or wants no answer.
    Done,
    /// Something else will answer it: a hold table, a task.
    Held,
    /// The answer is prepared and waits for something, such as the device.
    Later(Box<dyn Pending>),
}

/// An answer that waits. Those of one connection are polled in the order of their requests, and
/// only the oldest: what it waits for must come in that order (a log's flushed position does).
pub trait Pending: Send {
    /// Whether the answer can be given.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Gives it.
    fn answer(self: Box<Self>, exchange: &mut Exchange<'_>) -> Reply;
}

/// A held request that goes on once its connection's task gets to it.
pub trait Resume: Send {
    /// Whom to answer.
    fn ticket(&self) -> ReplyTicket;

    /// Goes on; `exchange` answers the held request.
    fn resume(self: Box<Self>, exchange: &mut Exchange<'_>) -> Reply;
}

/// What is needed to answer a request after its frame is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTicket {
    serialize: SerializeType,
    opaque: i32,
    wanted: Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Answer,
    /// The request was one-way: whatever the handler says is not sent.
    Nothing,
}

/// The answering side of one request.
pub struct Exchange<'a> {
    connection: &'a Arc<Connection>,
    output: &'a mut Output,
    ticket: ReplyTicket,
    answered: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        connection: &'a Arc<Connection>,
        output: &'a mut Output,
        ticket: ReplyTicket,
    ) -> Self {
        Self {
            connection,
            output,
            ticket,
            answered: false,
        }
    }

    /// The connection that the request came from.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        self.connection
    }

    /// What an answer needs that is given after this exchange.
    #[must_use]
    pub fn ticket(&self) -> ReplyTicket {
        self.ticket
    }

    /// Success without fields.
    pub fn ok(&mut self) -> Reply {
        self.write(ResponseCode::SUCCESS, None, |_| (), &[])
    }

    /// Success with a typed header.
    pub fn header<'h>(&mut self, header: &impl Header<'h>) -> Reply {
        self.write(
            ResponseCode::SUCCESS,
            None,
            |writer| writer.header(header),
            &[],
        )
    }

    /// Success with a body, which is copied.
    pub fn body(&mut self, body: &[u8]) -> Reply {
        self.write(ResponseCode::SUCCESS, None, |_| (), body)
    }

    /// Anything but success, with the reason.
    pub fn refuse(&mut self, code: ResponseCode, remark: impl AsRef<str>) -> Reply {
        self.write(code, Some(remark.as_ref()), |_| (), &[])
    }

    /// The general form: code, remark, fields, and a body that is copied.
    pub fn write(
        &mut self,
        code: ResponseCode,
        remark: Option<&str>,
        fields: impl FnOnce(&mut HeaderWriter<'_>),
        body: &[u8],
    ) -> Reply {
        if self.begin(code, remark, fields, body.len()) {
            self.output.bytes_mut().extend_from_slice(body);
        }
        Reply::Done
    }

    /// As [`write`](Exchange::write), with a body that is sent from where it lies.
    pub fn write_payloads(
        &mut self,
        code: ResponseCode,
        remark: Option<&str>,
        fields: impl FnOnce(&mut HeaderWriter<'_>),
        payloads: impl IntoIterator<Item = Content>,
        len: usize,
    ) -> Reply {
        if self.begin(code, remark, fields, len) {
            let before = self.output.len();
            for payload in payloads {
                self.output.push_payload(payload);
            }
            debug_assert_eq!(
                self.output.len() - before,
                len,
                "the frame's length is a promise"
            );
        }
        Reply::Done
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered || self.ticket.wanted == Wanted::Nothing
    }

    /// Writes the header; `false` when nothing is to be sent.
    fn begin(
        &mut self,
        code: ResponseCode,
        remark: Option<&str>,
        fields: impl FnOnce(&mut HeaderWriter<'_>),
        body_len: usize,
    ) -> bool {
        debug_assert!(!self.answered, "a request is answered once");
        self.answered = true;
        if self.ticket.wanted == Wanted::Nothing {
            return false;
        }
        let ReplyTicket {
            serialize, opaque, ..
        } = self.ticket;
        let head = WriterHead::response(serialize, opaque, code, remark);
        let mut writer = HeaderWriter::new(self.output.bytes_mut(), head);
        fields(&mut writer);
        if let Err(error) = writer.finish(body_len) {
            // Longer than a frame can be; nothing of it is left in the buffer.
            self.answered = false;
            let reply = self.refuse(ResponseCode::SYSTEM_ERROR, error.to_string());
            debug_assert!(matches!(reply, Reply::Done));
            return false;
        }
        true
    }
}

impl ReplyTicket {
    pub(super) fn of(request: &CommandView<'_>) -> Self {
        let wanted = if request.is_oneway() {
            Wanted::Nothing
        } else {
            Wanted::Answer
        };
        Self {
            serialize: request.serialize(),
            opaque: request.opaque(),
            wanted,
        }
    }
}

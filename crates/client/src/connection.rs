//! One connection: frames out, frames in, answers matched to requests.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use remoting::{Command, FRAME_LEN_MAX, FrameStep, RequestCode, ResponseCode, next_frame};

use crate::error::ClientError;

/// Bytes that are read at least, and at most, with one system call.
const READ_LEN: std::ops::RangeInclusive<usize> = (4 << 10)..=(256 << 10);

/// Bit of a command's flag: its sender wants no answer.
const FLAG_ONEWAY: i32 = 0x2;

/// A blocking connection to a broker or a name server.
///
/// Several requests may be under way; whoever waits for one answer leaves the others for
/// [`Connection::receive`].
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: String,
    timeout: Duration,
    next_opaque: i32,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Answers that came while another was waited for; not more than were asked for.
    arrived: VecDeque<Command>,
}

impl Connection {
    /// Connects to `host:port`; `timeout` is for this and for each request.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(address: &str, timeout: Duration) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect {
            address: address.to_owned(),
            source,
        };
        let stream = connect_any(address, timeout).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_write_timeout(Some(timeout)).map_err(failed)?;
        Ok(Self {
            stream,
            address: address.to_owned(),
            timeout,
            next_opaque: 0,
            output: Vec::new(),
            input: Vec::new(),
            arrived: VecDeque::new(),
        })
    }

    /// The peer, as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Our address as the peer sees it, unless there is something between.
    ///
    /// # Errors
    /// [`ClientError::Io`] if the connection is gone.
    pub fn local_ip(&self) -> Result<IpAddr, ClientError> {
        let local = self
            .stream
            .local_addr()
            .map_err(|source| self.io("read from", source))?;
        Ok(local.ip())
    }

    /// Sends a request and waits for its answer, whatever its code.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`], or a broken connection.
    pub fn call(&mut self, request: Command) -> Result<Command, ClientError> {
        let code = RequestCode(request.code);
        let deadline = Instant::now() + self.timeout;
        let opaque = self.send(request)?;
        while let Some(answer) = self.receive_frame(deadline)? {
            if answer.opaque == opaque {
                return Ok(answer);
            }
            self.arrived.push_back(answer);
        }
        let address = self.address.clone();
        Err(ClientError::TimedOut {
            address,
            request: code,
            timeout: self.timeout,
        })
    }

    /// Sends a request; the number that its answer will have.
    ///
    /// # Errors
    /// The request is too large, or the connection is broken.
    pub fn send(&mut self, request: Command) -> Result<i32, ClientError> {
        let opaque = self.next_opaque;
        self.next_opaque = self.next_opaque.wrapping_add(1);
        self.write(&request.with_opaque(opaque))?;
        Ok(opaque)
    }

    /// The next answer to any request; `None` if there is none until `deadline`.
    ///
    /// # Errors
    /// A broken connection.
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<Command>, ClientError> {
        match self.arrived.pop_front() {
            Some(answer) => Ok(Some(answer)),
            None => self.receive_frame(deadline),
        }
    }

    /// The next answer from the socket. Requests of the broker are answered here: we know none.
    fn receive_frame(&mut self, deadline: Instant) -> Result<Option<Command>, ClientError> {
        while let Some(command) = self.read_frame(deadline)? {
            if command.is_response() {
                return Ok(Some(command));
            }
            // Notices such as NOTIFY_CONSUMER_IDS_CHANGED are one-way and want no answer.
            if command.flag & FLAG_ONEWAY == 0 {
                let code = ResponseCode::REQUEST_CODE_NOT_SUPPORTED;
                self.write(&Command::response(command.opaque, code))?;
            }
        }
        Ok(None)
    }

    fn read_frame(&mut self, deadline: Instant) -> Result<Option<Command>, ClientError> {
        loop {
            let step = next_frame(&self.input, FRAME_LEN_MAX);
            let missing = match step.map_err(|error| self.unreadable(error.into()))? {
                FrameStep::NeedMore(missing) => missing,
                FrameStep::Frame(frame) => {
                    let command = self.input.get(..frame.len).map(Command::decode);
                    self.input.drain(..frame.len);
                    return command.transpose().map_err(|error| self.unreadable(error));
                }
            };
            if !self.read_some(missing, deadline)? {
                return Ok(None);
            }
        }
    }

    /// Reads at least one byte; `false` at the deadline, after which reading may go on.
    fn read_some(&mut self, wanted: usize, deadline: Instant) -> Result<bool, ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = self.stream.set_read_timeout(Some(left));
        timeout.map_err(|source| self.io("read from", source))?;
        let len = self.input.len();
        self.input
            .resize(len + wanted.clamp(*READ_LEN.start(), *READ_LEN.end()), 0);
        let room = self.input.get_mut(len..).unwrap_or_default();
        let outcome = self.stream.read(room);
        self.input
            .truncate(len + outcome.as_ref().copied().unwrap_or(0));
        match outcome {
            Ok(0) => Err(ClientError::Closed {
                address: self.address.clone(),
            }),
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(false),
                ErrorKind::Interrupted => Ok(true),
                _ => Err(self.io("read from", error)),
            },
        }
    }

    fn write(&mut self, command: &Command) -> Result<(), ClientError> {
        self.output.clear();
        let address = || self.address.clone();
        command
            .encode(&mut self.output)
            .map_err(|source| ClientError::Request {
                address: address(),
                source,
            })?;
        self.stream
            .write_all(&self.output)
            .map_err(|source| self.io("write to", source))
    }

    fn io(&self, operation: &'static str, source: std::io::Error) -> ClientError {
        ClientError::Io {
            address: self.address.clone(),
            operation,
            source,
        }
    }

    fn unreadable(&self, source: remoting::CommandError) -> ClientError {
        ClientError::Frame {
            address: self.address.clone(),
            source,
        }
    }
}

/// Tries every address that the name has.
fn connect_any(address: &str, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut failure = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

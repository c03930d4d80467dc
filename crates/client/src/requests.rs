//! Connections by address, and the requests that producers and consumers share.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use remoting::body::{HeartbeatData, TopicRouteData};
use remoting::header::{GetRouteInfoRequestHeader, Header};
use remoting::{BodyError, Command, RequestCode, ResponseCode, json};

use crate::connection::Connection;
use crate::error::ClientError;
use crate::route::Route;

/// How often clients tell brokers that they are there; brokers forget them after 120 s.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// Where to connect, and how long to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Name servers as `host:port`, asked in turn until one answers.
    pub name_servers: Vec<String>,
    /// For connecting and for each request. Default: 3 s, as RocketMQ's clients have it.
    pub timeout: Duration,
}

/// Asks brokers and name servers; keeps one connection to each.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    id: String,
    connections: HashMap<String, Connection>,
    heartbeat_due: Instant,
}

impl ClientOptions {
    /// Name servers as RocketMQ writes them, `host:port;host:port`, and default timeouts.
    pub fn new(name_servers: &str) -> Self {
        let name_servers = name_servers
            .split(';')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        Self {
            name_servers: name_servers.map(str::to_owned).collect(),
            timeout: Duration::from_secs(3),
        }
    }
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(options: ClientOptions) -> Self {
        let now = jiff::Timestamp::now().as_nanosecond();
        let id = format!("foliomq@{}#{now}", std::process::id());
        Self {
            options,
            id,
            connections: HashMap::new(),
            heartbeat_due: Instant::now(),
        }
    }

    /// What this client calls itself to brokers.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// For connecting and for each request.
    pub fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// The connection to `address`, made if there is none.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connection(&mut self, address: &str) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(address) {
            let connection = Connection::connect(address, self.options.timeout)?;
            self.connections.insert(address.to_owned(), connection);
        }
        let missing = || ClientError::Closed {
            address: address.to_owned(),
        };
        self.connections.get_mut(address).ok_or_else(missing)
    }

    /// Does something with the connection to `address`; one that breaks is forgotten, and the
    /// next request makes another.
    ///
    /// # Errors
    /// Those of `act`, and [`ClientError::Connect`].
    pub fn with_connection<T>(
        &mut self,
        address: &str,
        act: impl FnOnce(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let outcome = act(self.connection(address)?);
        if let Err(
            ClientError::Io { .. } | ClientError::Closed { .. } | ClientError::Frame { .. },
        ) = outcome
        {
            self.connections.remove(address);
        }
        outcome
    }

    /// Sends a request and waits for its answer, whatever its code.
    ///
    /// # Errors
    /// No connection, no answer in time.
    pub fn call(&mut self, address: &str, request: Command) -> Result<Command, ClientError> {
        self.with_connection(address, |connection| connection.call(request))
    }

    /// Sends a request and waits for its answer, which must be one of success.
    ///
    /// # Errors
    /// As [`Client::call`], and [`ClientError::Refused`].
    pub fn call_checked(
        &mut self,
        address: &str,
        request: Command,
    ) -> Result<Command, ClientError> {
        let code = RequestCode(request.code);
        let answer = self.call(address, request)?;
        if answer.response_code() == ResponseCode::SUCCESS {
            return Ok(answer);
        }
        Err(refusal(address, code, &answer))
    }

    /// Where a topic is; `None` if the name servers know none of that name.
    ///
    /// # Errors
    /// The last error, if no name server answers.
    pub fn route(&mut self, topic: &str) -> Result<Option<Route>, ClientError> {
        let mut outcome = Ok(None);
        for name_server in self.options.name_servers.clone() {
            outcome = self.route_from(&name_server, topic);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The name servers, joined as RocketMQ writes them.
    pub fn name_servers(&self) -> String {
        self.options.name_servers.join(";")
    }

    fn route_from(&mut self, address: &str, topic: &str) -> Result<Option<Route>, ClientError> {
        let code = RequestCode::GET_ROUTEINFO_BY_TOPIC;
        let header = GetRouteInfoRequestHeader {
            topic,
            accept_standard_json_only: Some(true),
        };
        let answer = self.call(address, Command::request(code).with_header(&header))?;
        match answer.response_code() {
            ResponseCode::SUCCESS => match json::decode::<TopicRouteData>(&answer.body) {
                Ok(route) => Ok(Some(route.into())),
                Err(source) => Err(body_error(address, code, source)),
            },
            ResponseCode::TOPIC_NOT_EXIST => Ok(None),
            _ => Err(refusal(address, code, &answer)),
        }
    }

    /// Tells brokers that we are there, if it is time to; the client id is filled in.
    pub(crate) fn heartbeat(
        &mut self,
        addresses: &[String],
        membership: &HeartbeatData,
    ) -> Result<(), ClientError> {
        if Instant::now() < self.heartbeat_due {
            return Ok(());
        }
        let code = RequestCode::HEART_BEAT;
        let data = HeartbeatData {
            client_id: self.id.clone(),
            ..membership.clone()
        };
        for address in addresses {
            let body = json::encode(&data).map_err(|source| body_error(address, code, source))?;
            self.call_checked(address, Command::request(code).with_body(body))?;
        }
        self.heartbeat_due = Instant::now() + HEARTBEAT_INTERVAL;
        Ok(())
    }
}

fn body_error(address: &str, request: RequestCode, source: BodyError) -> ClientError {
    ClientError::Body {
        address: address.to_owned(),
        request,
        source,
    }
}

/// An answer that is not one of success.
pub(crate) fn refusal(address: &str, request: RequestCode, answer: &Command) -> ClientError {
    ClientError::Refused {
        address: address.to_owned(),
        request,
        code: answer.response_code(),
        remark: answer.remark.clone().unwrap_or_default(),
    }
}

/// The typed header of an answer.
pub(crate) fn header_of<'a, H: Header<'a>>(
    address: &str,
    answer: &'a Command,
) -> Result<H, ClientError> {
    let failed = |source| ClientError::Header {
        address: address.to_owned(),
        source,
    };
    answer.header().map_err(failed)
}

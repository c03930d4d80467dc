//! Clients of the broker: producers and consumers by group, and the queue locks of orderly ones.

pub mod consumers;
pub mod locks;
pub mod producers;

use std::sync::Arc;

use remoting::LanguageCode;

use crate::server::Connection;

pub use self::consumers::Consumers;
pub use self::locks::QueueLocks;
pub use self::producers::Producers;

/// A client on one connection, as its heartbeat introduced it.
#[derive(Debug, Clone)]
pub struct Client {
    /// The id it gave itself; a client has one connection to us, or two with the fast port.
    pub id: Arc<str>,
    /// How it is reached.
    pub connection: Arc<Connection>,
    /// The language it says it is written in.
    pub language: LanguageCode,
    /// Its `MQVersion` ordinal.
    pub version: i32,
}

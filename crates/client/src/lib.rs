//! A small blocking RocketMQ client: producer and pull consumer, for the command line and for
//! tests.
//!
//! One thread, `std::net`, a timeout on everything; a name server tells where topics are.
//! [`Client`] asks any request of the protocol, [`Producer`] and [`PullConsumer`] do the common
//! ones. It knows nothing of rebalancing, transactions, ordered or filtered consumption: a
//! [`PullConsumer`] reads all queues of its topic.
//!
//! ```no_run
//! use client::{ClientOptions, Outgoing, Producer, PullConsumer, StartAt};
//! use std::time::Duration;
//!
//! let options = ClientOptions::new("127.0.0.1:9876");
//! let mut producer = Producer::new(options.clone(), "example_producer");
//! let receipt = producer.send("Greetings", &Outgoing { body: b"hello", ..Outgoing::default() })?;
//! println!("stored as {}", receipt.offset_message_id);
//!
//! let mut consumer = PullConsumer::new(options, "example", "Greetings", StartAt::Earliest)?;
//! for message in consumer.poll(Duration::from_secs(5))? {
//!     println!("{}", String::from_utf8_lossy(&message.body));
//! }
//! consumer.commit()?;
//! # Ok::<(), client::ClientError>(())
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod connection;
mod consumer;
mod error;
mod producer;
mod received;
mod requests;
mod route;

pub use connection::Connection;
pub use consumer::{PullConsumer, StartAt};
pub use error::ClientError;
pub use producer::{Outgoing, Producer, Receipt, SendStatus};
pub use received::Received;
pub use requests::{Client, ClientOptions};
pub use route::{Queue, Route};

//! The broker as a library: what the binary `foliomq` is made of, so that tests can run a whole
//! broker in their process.
//!
//! - [`config`]: typed options, and the only place that knows RocketMQ's names of them.
//! - [`cli`]: the command line.
//! - [`server`]: sockets, frames, back pressure. Knows nothing of what requests mean.
//! - [`state`]: the tables kept as JSON files beside the store.
//! - [`broker`]: tables, store and clients together, and which of [`processor`]'s functions serves
//!   which request.
//! - [`schedule`]: delay levels. [`hold`]: pulls that wait. [`namesrv`]: the name server.
//! - [`node`]: all of it started and stopped in order. [`command`]: what the program does.
//! - [`progress`]: how far long work has come, on a terminal.
//! - [`clients`]: who is connected, in which group, and which queues it has locked.
//!
//! Below it no crate knows of tokio, sockets or JSON.
//!
//! ```
//! let mut config = foliomq::config::Config::new("broker-a");
//! let text = "listenPort=10921\nflushDiskType=SYNC_FLUSH\n";
//! let findings = config.apply_file("broker.conf".as_ref(), text)?;
//! assert_eq!(config.network.listen_port, 10921);
//! assert!(findings.unknown.is_empty());
//! # Ok::<(), foliomq::config::ConfigError>(())
//! ```

pub mod broker;
mod burst;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod command;
pub mod config;
pub mod hold;
pub mod namesrv;
pub mod node;
pub mod processor;
pub mod progress;
pub mod readers;
mod recovery;
pub mod registration;
pub mod schedule;
pub mod server;
pub mod state;
pub mod traffic;

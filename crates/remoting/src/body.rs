//! The bodies of requests and responses, and the state files that have the same form, under
//! upstream's class and field names.
//!
//! All of them are read with [`json::decode`](crate::json::decode) and written with
//! [`json::encode`](crate::json::encode) or its siblings. What is missing on reading gets
//! RocketMQ's default, what is unknown is ignored; on writing absent options are left out.

mod connection;
mod group;
mod heartbeat;
mod names;
mod offset;
mod query;
mod register;
mod route;
mod stats;
mod topic;

pub use connection::*;
pub use group::*;
pub use heartbeat::*;
pub use offset::*;
pub use query::*;
pub use register::*;
pub use route::*;
pub use stats::*;
pub use topic::*;

//! Clients of the broker: producers and consumers by group, and the queue locks of orderly ones.

pub mod locks;

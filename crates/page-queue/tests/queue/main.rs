//! The queue from outside: against a model, through crashes, at its limits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

mod billion;
mod crash;
mod damage;
mod faults;
mod limits;
mod model;
mod readers;

//! The commit log from outside: rules, model, crashes, faults, threads, recovery.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

mod append;
mod common;
mod concurrent;
mod crash;
mod faults;
mod holes;
mod model;
mod recover;
mod stage;

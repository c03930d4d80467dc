//! The queue from outside: against a model, on damaged directories, with concurrent readers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

mod crash;
mod faults;
mod files;
mod model;
mod preallocate;
mod readers;
mod unmap;

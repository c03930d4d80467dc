//! A whole broker, in this process and as the program, among clients that mean harm, directories
//! that do not fit, and deaths without warning.
//!
//! Nothing sleeps to wait: conditions are polled until a deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test fails by panicking, skips loudly, and handles files as a stranger would"
)]

mod cleaning;
mod crowd;
mod directories;
mod first_message;
mod frames;
mod killed;
mod prepared;
mod reading;
mod support;
mod tables;

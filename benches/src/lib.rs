//! Criterion benches of the crates, in `benches/`: `cargo bench -p benches`.
//!
//! `record`: what a message costs before and after the log. `store`: put and get in process.
//! Whole runs against other servers are `cargo xtask bench`.

//! The broker: name server, RocketMQ broker and tools in one binary.

fn main() {}
